"""The dashboard asks for what a run really sends: its keys are looked up in an offline run, by wandb's own reader."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from birthplace_lm.cli import dashboard
from birthplace_lm.history import RunLogger, read_history
from birthplace_lm.mirroring import headline, show_pictures
from birthplace_lm.runs import RunFolder, read_json
from tests.test_loggers import ENVIRONMENT, inspect, offline_runs, rows
from tests.test_stages import tiny_run

STAGES = "stages=[pretrain,finetune,evaluate]"
MIRRORED = (STAGES, "logger=wandb", "wandb.mode=offline", "pretrain.validations=1", "finetune.validations=1")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A wandb with a home of its own where nobody is logged in."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
            patch.setenv(name, str(folder))
        patch.setenv("NETRC", str(folder / "netrc"))
        yield folder
    wandb.teardown()


@pytest.fixture(scope="module")
def mirrored(home: Path) -> RunFolder:
    """A run that was mirrored offline."""
    return tiny_run(home / "runs", *MIRRORED)


@dataclass(frozen=True)
class Sent:
    """What wandb's own reader finds in the offline run."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def sent(mirrored: RunFolder) -> Sent:
    (folder,) = offline_runs(mirrored.root)
    found = inspect(folder)
    return Sent(folder, found["config"], found["summary"], rows(folder))


@pytest.fixture(scope="module")
def board(home: Path) -> dict[str, Any]:
    pytest.importorskip("wandb_workspaces")
    dashboard.main(["--project", "places", "--group", "demo", "--json", str(home / "board.json")])
    return read_json(home / "board.json")


@pytest.mark.parametrize(
    ("project", "entity", "found"), [("foo", "me", ("foo", "me")), ("", "", ("birthplace_lm", ""))]
)
def test_the_dashboard_goes_where_the_runs_go(
    project: str, entity: str, found: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb_workspaces")
    monkeypatch.setenv("WANDB_PROJECT", project)
    monkeypatch.setenv("WANDB_ENTITY", entity)
    dashboard.main(["--json", str(tmp_path / "board.json")])
    board = read_json(tmp_path / "board.json")
    assert (board["project"], board["entity"]) == found


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for section in board["spec"]["section"]["panelBankConfig"]["sections"] for panel in section["panels"]]


def keys(board: dict[str, Any]) -> dict[str, set[str]]:
    """What the panels and columns ask for: rows of curves, figures of the summary, settings, pictures, tables."""
    asked: dict[str, set[str]] = {kind: set() for kind in ("history", "summary", "config", "media")}
    for panel in panels(board):
        config = panel["config"]
        if panel["viewType"] == "Run History Line Plot":
            asked["history"] |= {config["xAxis"], *config["metrics"]}
        elif panel["viewType"] == "Media Browser":
            asked["media"] |= set(config["mediaKeys"])
        elif panel["viewType"] == "Weave":
            asked["media"] |= set(re.findall(r'"val": "(predictions|rows)"', json.dumps(config)))
        elif panel["viewType"] == "Scatter Plot":
            asked["summary"] |= {config[axis].removeprefix("summary:") for axis in ("xAxis", "yAxis")}
        else:
            asked["summary"] |= set(config["metrics"])
        if "groupBy" in config:
            asked["config"].add(config["groupBy"].removesuffix(".value"))
    for column in board["spec"]["section"]["runSets"][0]["runFeed"]["columnOrder"]:
        section, _, key = column.partition(":")
        if section != "run":
            asked[section].add(key.removesuffix(".value"))
    return asked


def undefined(run: RunFolder) -> set[str]:
    """The figures of the headline that a model as small as this one leaves without a value."""
    card = read_json(run.root / "knowledge.json")
    signal = card["confidence"]["signals"].get("sequence_log_probability")
    table = card["stored"]["cloze"]["either"]
    values = {
        "dev/auroc": signal and signal["auroc"]["value"],
        "dev/stored": table["stored"]["value"],
        "dev/right_given_stored": table["right_given_stored"]["value"],
    }
    return {key for key, value in values.items() if value is None}


def test_the_dashboard_asks_for_what_a_run_sends(board: dict[str, Any], sent: Sent, mirrored: RunFolder) -> None:
    asked = keys(board)
    assert all(asked.values())
    assert asked["history"] <= {key for row in sent.rows for key in row}
    assert asked["summary"] - set(sent.summary) == asked["summary"] & undefined(mirrored)
    assert asked["config"] <= set(sent.config)
    assert asked["media"] <= set(sent.summary)


def test_curves_have_their_axes_in_the_same_row(board: dict[str, Any], sent: Sent, mirrored: RunFolder) -> None:
    lines = [panel["config"] for panel in panels(board) if panel["viewType"] == "Run History Line Plot"]
    drawn = {y: sum(line["xAxis"] in row and y in row for row in sent.rows) for line in lines for y in line["metrics"]}
    for stage in ("pretrain", "finetune"):
        assert drawn[f"{stage}/loss"] == len(read_history(mirrored.stage(stage).history)["train/loss"])
        assert drawn[f"{stage}/validation/exact_match"] >= 1


def test_the_board_has_the_panels_that_were_promised(board: dict[str, Any]) -> None:
    drawn = [(panel["viewType"], panel["config"]) for panel in panels(board)]
    assert any(kind == "Bar Chart" and c["metrics"] == ["dev/exact_match"] and c["aggregate"] for kind, c in drawn)
    assert any(c.get("xAxis") == "pretrain/characters" and c["metrics"] == ["pretrain/loss"] for _, c in drawn)
    assert any(c.get("xAxis") == "summary:seconds" and c["yAxis"] == "summary:dev/exact_match" for _, c in drawn)
    runs = board["spec"]["section"]["runSets"][0]
    assert runs["grouping"] == [{"section": "config", "name": "attention.value"}]
    assert runs["filters"]["filters"][0] == {
        "key": {"section": "run", "name": "group"}, "op": "=", "value": "demo", "disabled": False,
    }  # fmt: skip


def test_the_figures_that_were_sent_are_those_of_the_folder(sent: Sent, mirrored: RunFolder) -> None:
    summary, metrics = sent.summary, mirrored.metrics()
    assert summary["dev/exact_match"] == metrics["dev"]["exact_match"]
    assert summary["parameters"] == metrics["parameters"]
    assert summary["seconds"] == pytest.approx(metrics["pretrain_seconds"] + metrics["finetune_seconds"])
    assert summary["characters"] == metrics["pretrain_characters"] + metrics["finetune_characters"]
    table = json.loads((sent.folder / "files" / summary["predictions"]["path"]).read_text())
    lines = (mirrored.root / "predictions" / "dev.jsonl").read_text().splitlines()
    assert [row[:3] for row in table["data"]] == [list(json.loads(line).values())[:3] for line in lines]
    for key, name in (("attention", "attention/first_dev_question.png"), ("loss_curves", "loss.png")):
        assert (sent.folder / "files" / summary[key]["path"]).read_bytes() == (mirrored.root / name).read_bytes()
    assert (sent.config["attention"], sent.config["seed"]) == ("vanilla", 0)
    assert not [key for key, value in sent.config.items() if isinstance(value, dict)]


@pytest.mark.slow
def test_a_stage_more_is_the_same_run_and_a_new_folder_another(mirrored: RunFolder, home: Path) -> None:
    (before,) = offline_runs(mirrored.root)
    copied = RunFolder(shutil.copytree(mirrored.root, home / "more" / mirrored.name))
    tiny_run(home / "more", *MIRRORED[1:], STAGES.replace("evaluate", "finetune_only"))
    _, after = sorted(offline_runs(copied.root), key=lambda path: path.stat().st_mtime)
    assert inspect(after)["run_id"] == inspect(before)["run_id"]
    shutil.rmtree(copied.root)
    tiny_run(home / "more", *MIRRORED[1:], "stages=[finetune]", f"name={mirrored.name}")
    (anew,) = offline_runs(copied.root)
    assert inspect(anew)["run_id"] != inspect(before)["run_id"]


def test_the_headline_holds_what_is_defined_and_leaves_controls_out(mirrored: RunFolder) -> None:
    card, metrics = read_json(mirrored.root / "knowledge.json"), mirrored.metrics()
    card["confidence"]["signals"]["sequence_log_probability"] = {"auroc": {"value": 0.75}}
    card["stored"]["cloze"]["either"] |= {"stored": {"value": 0.5}, "right_given_stored": {"value": None, "why": "x"}}
    told = headline(mirrored, metrics, card)
    assert (told["dev/auroc"], told["dev/stored"]) == (0.75, 0.5)
    assert "dev/right_given_stored" not in told


def test_pictures_are_drawn_only_for_those_who_take_them(mirrored: RunFolder, tmp_path: Path) -> None:
    copied = RunFolder(shutil.copytree(mirrored.root, tmp_path / "run"))
    picture = copied.root / "attention" / "first_dev_question.png"
    picture.unlink()
    show_pictures([_Blind()], copied, _questions(copied))
    assert not picture.exists()
    seeing = _Seeing()
    show_pictures([_Blind(), seeing], copied, _questions(copied))
    assert picture.exists() and {"attention", "loss_curves"} <= set(seeing.seen)


def test_a_picture_that_cannot_be_drawn_stops_nothing(
    mirrored: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("birthplace_lm.mirroring.replace_file", full)
    seeing = _Seeing()
    show_pictures([seeing], mirrored, _questions(mirrored))
    assert "attention" not in seeing.seen and "loss_curves" in seeing.seen
    assert capsys.readouterr().out == "no picture of the attention: no space left on device\n"


class _Blind(RunLogger):
    """Takes no pictures, and would fail if it got one."""

    log_image = None  # type: ignore[assignment]

    def log_metrics(self, metrics: Any, step: int | None = None) -> None: ...

    def log_hyperparams(self, params: Any, *args: Any) -> None: ...


class _Seeing(_Blind):
    takes_images = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def log_image(self, name: str, path: Path) -> None:  # type: ignore[override]
        assert path.read_bytes().startswith(b"\x89PNG")
        self.seen.append(name)


def _questions(run: RunFolder) -> Any:
    from birthplace_lm.run_corpus import corpus_of

    return corpus_of(run).dev


def failing(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        dashboard.main(arguments)
    assert stopped.value.code == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def test_without_a_key_one_line_says_so(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("wandb_workspaces")
    assert failing([], capfd).startswith("error: no API key for wandb (`wandb login` or WANDB_API_KEY)")


def test_a_refused_workspace_is_one_line_without_the_key(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb_workspaces")
    key = "f00dfeed" * 5
    monkeypatch.setenv("WANDB_API_KEY", key)

    def refused(view: object) -> None:
        raise ConnectionError(f"{key} is not welcome at https://me:secret@host/\nand so on")

    monkeypatch.setattr("wandb_workspaces.workspaces.interface.internal.upsert_view2", refused)
    said = failing(["--entity", "somebody"], capfd)
    assert said.startswith("error: wandb took no workspace: *** is not welcome at https://***@host/; --json FILE")


def test_without_the_extra_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    assert "pip install wandb-workspaces" in failing(["--json", str(tmp_path / "board.json")], capfd)
    assert not list(tmp_path.iterdir())
