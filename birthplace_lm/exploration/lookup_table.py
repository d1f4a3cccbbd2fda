"""What every attention can look up: trained with one and two layers, by content and by position, as a table."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from birthplace_lm.exploration.drawing import save
from birthplace_lm.exploration.lookup_task import LookupTask
from birthplace_lm.exploration.lookup_training import GOALS, STEPS, train
from birthplace_lm.replacing import replace_file
from birthplace_lm.transformer import Attention

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]


def measure(
    factories: Mapping[str, Callable[..., Attention]],
    layers: Sequence[int] = (1, 2),
    seeds: Sequence[int] = (0, 1, 2),
    path: Path | None = None,
    task: LookupTask | None = None,
    n_steps: int = STEPS,
) -> list[Row]:
    """Train every attention by name on both tasks; a row for each (attention, layers, task), means over the seeds.

    A row has "attention", "layers", "task" ("content" or "position"), "accuracy", "steps" (means), "seconds" (of the
    processor, the sum), "seeds" (their number) and "by_seed". Seeds are the outer loop, so that a table broken off is
    a table of fewer seeds. With a path, {"setting", "results"} is written there after every training, and what it
    already holds is not trained again; at the end the table is drawn beside it. Raises ValueError for a file that was
    made with other sequences or steps: its figures cannot stand beside new ones.
    """
    task = task or LookupTask()
    setting = {**vars(task), "steps": n_steps, "content_blind": task.content_blind}
    rows = _read(path, setting)
    for seed in seeds:
        for name, factory in factories.items():
            for n_layers in layers:
                for goal in GOALS:
                    row = _row(rows, name, n_layers, goal)
                    if str(seed) in row["by_seed"]:
                        continue
                    outcome = train(task, goal, factory, n_layers, seed, n_steps)
                    _add(row, seed, outcome.accuracy, outcome.steps, outcome.seconds)
                    _write(path, setting, rows)
                    print(line(row, seed), flush=True)
    finished = [row for row in rows if row["by_seed"]]
    if path is not None:
        save(draw_table(finished, task.content_blind), path.parent, path.stem)
    return finished


def line(row: Row, seed: int) -> str:
    """One training on one line of a terminal."""
    one = row["by_seed"][str(seed)]
    layers = f"{row['layers']} layer{'s' if row['layers'] > 1 else ' '}"
    return (
        f"{row['attention']:32} {layers}  {row['task']:8}  seed {seed}  {one['accuracy']:6.1%} right "
        f"after {one['steps']:3} steps, {one['seconds']:.1f} s"
    )


def _row(rows: list[Row], name: str, n_layers: int, goal: str) -> Row:
    """The row of this name, made if need be."""
    for row in rows:
        if (row["attention"], row["layers"], row["task"]) == (name, n_layers, goal):
            return row
    rows.append({"attention": name, "layers": n_layers, "task": goal, "by_seed": {}})
    return rows[-1]


def _add(row: Row, seed: int, accuracy: float, steps: int, seconds: float) -> None:
    """Put one training into its row and renew the means."""
    row["by_seed"][str(seed)] = {"accuracy": accuracy, "steps": steps, "seconds": round(seconds, 2)}
    all_of = list(row["by_seed"].values())
    row["accuracy"] = sum(one["accuracy"] for one in all_of) / len(all_of)
    row["seeds"] = len(all_of)
    row["steps"] = sum(one["steps"] for one in all_of) / len(all_of)
    row["seconds"] = round(sum(one["seconds"] for one in all_of), 2)


def _read(path: Path | None, setting: Mapping[str, Any]) -> list[Row]:
    """The rows of a table that was begun, [] where there is none."""
    if path is None or not path.is_file():
        return []
    made_with, rows = read_table(path)
    if made_with != setting:
        raise ValueError(f"{path} was made with {made_with}, not with {setting}: choose another folder")
    return rows


def read_table(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """The sequences and steps that a table was made with, and its rows; ValueError for a file that is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return dict(found["setting"]), [dict(row) for row in found["results"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no table of lookups ({error!r}): move it away, or make it anew with birthplace-explore lookup "
            "--table"
        ) from error


def _write(path: Path | None, setting: Mapping[str, Any], rows: list[Row]) -> None:
    """Written beside and moved into place, so that a run that is killed leaves a whole table."""
    if path is None:
        return
    results = [row for row in rows if row["by_seed"]]
    replace_file(path, json.dumps({"setting": setting, "results": results}, indent=1) + "\n")


def draw_table(rows: Sequence[Row], content_blind: float) -> "Figure":
    """The attentions as rows, task and layers as columns, the share of right answers as colour and number.

    Sorted by what is hardest: content, with the fewest layers first. A cell that was not measured stays empty.
    """
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    cells = {(row["attention"], row["task"], row["layers"]): row["accuracy"] for row in rows}
    columns = sorted({(task, layers) for _, task, layers in cells})
    nothing = float("nan")
    names = sorted(
        {name for name, _, _ in cells},
        key=lambda name: ([-round(cells.get((name, *column), 0.0), 2) for column in columns], name),
    )
    figure = Figure(figsize=(1.5 + 3.0 + 0.95 * len(columns), 1.5 + 0.3 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    shares = [[cells.get((name, *column), nothing) for column in columns] for name in names]
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            if share == share:  # not NaN
                axes.text(x, y, f"{share:.2f}", ha="center", va="center", color="white" if share < 0.6 else "black")
    for x, ((task, _), (following, _)) in enumerate(pairwise(columns)):
        if task != following:
            axes.axvline(x + 0.5, color="white", linewidth=4)
    axes.set_xticks(
        range(len(columns)), [f"{task}\n{layers} layer{'s' if layers > 1 else ''}" for task, layers in columns]
    )
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.xaxis.tick_top()
    seeds = sorted({row["seeds"] for row in rows})
    axes.set_xlabel(
        f"share of right answers, mean of {'–'.join(map(str, seeds))} seed{'s' if seeds[-1] > 1 else ''};\n"
        f"by content, whoever does not compare is at {content_blind:.3f} at most (one of the pairs, at random)",
        fontsize=9,
    )
    figure.colorbar(image, ax=axes, label="share of right answers", fraction=0.05)
    return figure
