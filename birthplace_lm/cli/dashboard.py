"""birthplace-dashboard: the panels that runs are compared with on Weights & Biases, defined here and not by hand."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Section, Workspace

_COLUMNS = (
    "dev/exact_match",
    "dev/stored",
    "dev/right_given_stored",
    "dev/auroc",
    "parameters",
    "seconds",
    "characters",
)


def main(arguments: list[str] | None = None) -> None:
    """Make a workspace for the runs that `logger=wandb` sent to a project; each call makes a new one.

    It shows exact match by variant, the loss over the characters seen, exact match over time, what the models know,
    and the pictures and answers of single runs.
    """
    parser = argparse.ArgumentParser(prog="birthplace-dashboard", description=main.__doc__)
    project, entity = os.environ.get("WANDB_PROJECT") or "birthplace_lm", os.environ.get("WANDB_ENTITY") or None
    parser.add_argument("--project", default=project, metavar="P", help=f"(default: {project}, as WANDB_PROJECT says)")
    parser.add_argument("--entity", default=entity, metavar="E", help="whose project (default: that of the key)")
    parser.add_argument(
        "--by", default="attention", metavar="SETTING", help="what makes a variant (default: attention)"
    )
    parser.add_argument("--group", metavar="SWEEP", help="only the runs of this sweep")
    parser.add_argument("--name", metavar="TEXT", help="of the workspace (default: exact match by SETTING)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what would be sent, send nothing")
    options = parser.parse_args(arguments)
    try:
        _make(options)
    except ModuleNotFoundError as error:
        _stop(f"birthplace-dashboard needs wandb-workspaces (no module {error.name}): pip install wandb-workspaces")
    except Exception as error:
        if options.json and isinstance(error, OSError):
            _stop(f"{options.json} cannot be written: {error}")
        from birthplace_lm.loggers.wandb_rows import starred

        lines = starred(str(error)).splitlines() or [type(error).__name__]
        _stop(f"wandb took no workspace: {lines[0][:200].rstrip('.')}; --json FILE writes it without a network")


def _stop(why: str) -> None:
    print(f"error: {why}", file=sys.stderr)
    sys.exit(2)


def _make(options: argparse.Namespace) -> None:
    import wandb_workspaces.workspaces  # noqa: F401, is it there?

    if options.json:
        from birthplace_lm.replacing import replace_file

        content = as_sent(workspace(options.entity or "", options.project, options.by, options.group, options.name))
        replace_file(options.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        print(f"written to {options.json}, nothing was sent")
        return
    from birthplace_lm.loggers.wandb_mirror import default_entity, logged_in

    if not logged_in():
        _stop("no API key for wandb (`wandb login` or WANDB_API_KEY); --json FILE needs none")
    entity = options.entity or default_entity() or ""
    made = workspace(entity, options.project, options.by, options.group, options.name).save()
    print(made.url)


def as_sent(view: "Workspace") -> dict[str, Any]:
    """A workspace as wandb's server gets it."""
    model = view._to_model()  # the package has no public way to it
    spec = model.spec.model_dump(by_alias=True, exclude_none=True)
    return {"entity": model.entity, "project": model.project, "name": model.display_name, "spec": spec}


def workspace(entity: str, project: str, by: str, group: str | None, name: str | None = None) -> "Workspace":
    """The workspace, its runs grouped by a setting of theirs, such as attention, positions or pretrain_optimizer_lr."""
    import wandb_workspaces.workspaces as ws

    runs = ws.RunsetSettings(
        groupby=[ws.Config(by)],
        filters=ws.And(ws.Metric("Group") == group) if group else "",
        pinned_columns=[f"config:{by}.value", "config:seed.value", *(f"summary:{key}" for key in _COLUMNS)],
    )
    settings = ws.WorkspaceSettings(max_runs=100)
    return ws.Workspace(
        entity, project, name or f"exact match by {by}", sections=_sections(by), settings=settings, runset_settings=runs
    )


def _sections(by: str) -> "list[Section]":
    import wandb_workspaces.workspaces as ws

    panels = {
        f"Exact match by {by}": _bars(by),
        "Loss by characters seen": _losses(by),
        "Time to accuracy": _times(by),
        "One run": _media(),
    }
    return [ws.Section(name, panels=some, is_open=True) for name, some in panels.items()]


def _together(by: str) -> dict[str, Any]:
    """Runs of a variant as one: their mean, and from the worst to the best of them."""
    import wandb_workspaces.reports.v2 as wr

    return {"groupby": wr.Config(by), "groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}


def _bars(by: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    titles = {
        "dev/exact_match": "exact match on dev",
        "dev/stored": "stored: the place comes out of the biography",
        "dev/right_given_stored": "answered right, of what is stored",
        "dev/auroc": "does it know that it knows: AUROC",
    }
    return [wr.BarPlot(title=title, metrics=[key], range_x=(0, 1), **_together(by)) for key, title in titles.items()]


def _losses(by: str) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    labels: dict[str, Any] = {"title_x": "characters", "title_y": "loss, nats a target"}
    return [
        wr.LinePlot(title=stage, x=f"{stage}/characters", y=[f"{stage}/loss"], **labels, **_together(by))
        for stage in ("pretrain", "finetune")
    ]


def _times(by: str) -> list[Any]:
    """Exact match while a run goes on, and at its end against what it took."""
    import wandb_workspaces.reports.v2 as wr

    on_the_way: list[Any] = [f"{stage}/validation/exact_match" for stage in ("pretrain", "finetune")]
    line = wr.LinePlot(
        title="exact match on dev on the way", x="RelativeTime(Process)", y=on_the_way, range_y=(0, 1),
        title_y="exact match", **_together(by),
    )  # fmt: skip
    costs = {"seconds": "seconds of training", "characters": "characters seen", "parameters": "parameters"}
    end = wr.SummaryMetric("dev/exact_match")
    return [
        line,
        *(
            wr.ScatterPlot(title=f"exact match against {title}", x=wr.SummaryMetric(key), y=end)
            for key, title in costs.items()
        ),
    ]


def _media() -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    pictures = {"attention": "where the heads looked", "loss_curves": "loss of every stage"}
    browsers = [wr.MediaBrowser(title=title, media_keys=[key], num_columns=1) for key, title in pictures.items()]
    return [
        *browsers,
        wr.WeavePanelSummaryTable(table_name="predictions"),
        wr.WeavePanelSummaryTable(table_name="rows"),
    ]


if __name__ == "__main__":
    main()
