"""birthplace-status: what it says of runs in every state, and that looking disturbs nobody."""

import fcntl
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from birthplace_lm import run_lock
from birthplace_lm.cli import status as command
from birthplace_lm.report.progress import RunStatus, cells, clock, statuses, summary
from birthplace_lm.run_lock import RunInUseError
from birthplace_lm.runs import RunFolder
from tests.test_report import finished
from tests.test_stages import tiny_run


def begun(root: Path, name: str, steps: int = 40, progress: dict[str, Any] | None = None) -> Path:
    """A run in its pretraining, `steps` steps of which are in its history."""
    folder = finished(root, name)
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "stages: [pretrain, finetune, evaluate]\n")
    (folder / "metrics.json").unlink()
    (folder / "pretrain" / "stage.json").unlink()
    rows = "".join(f"{step},train/loss,1.5\n{step},epoch,0.0\n" for step in range(steps))
    (folder / "pretrain" / "metrics.csv").write_text("step,name,value\n" + rows)
    if progress:
        (folder / "progress.json").write_text(json.dumps(progress))
    return folder


def done(root: Path, name: str) -> Path:
    """A run that was trained and scored."""
    folder = finished(root, name)
    config = folder / "config.yaml"
    config.write_text(config.read_text() + "stages: [pretrain, evaluate]\n")
    (folder / "pretrain" / "weights.safetensors").touch()
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"rows": {}, "scored": ["pretrain"]}))
    return folder


def only(root: Path) -> RunStatus:
    (run,), left_out = statuses(root)
    assert not left_out
    return run


def test_a_run_whose_lock_is_held_is_running(tmp_path: Path) -> None:
    folder = begun(tmp_path, "a")
    assert only(tmp_path).state == "interrupted"
    with RunFolder(folder).locked():
        run = only(tmp_path)
    assert (run.state, run.stage, run.step, run.steps, run.ends) == ("running", "pretrain", 40, None, None)
    assert only(tmp_path).state == "interrupted"


def test_looking_keeps_nobody_out_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look holds the lock in common for a moment: who comes just then waits that moment, and no longer."""
    folder = RunFolder(begun(tmp_path, "a"))
    with folder.locked():
        assert folder.in_use()
        assert (folder.root / ".lock").read_text() == str(os.getpid())
    look = open(folder.root / ".lock")  # noqa: SIM115 (closed while the other waits)
    fcntl.flock(look, fcntl.LOCK_SH)
    monkeypatch.setattr(run_lock, "time", SimpleNamespace(sleep=lambda _: look.close()))
    with folder.locked(), pytest.raises(RunInUseError), folder.locked():
        pass


def test_looking_at_a_folder_without_a_lock_makes_none(tmp_path: Path) -> None:
    assert not RunFolder(begun(tmp_path, "a")).in_use()
    assert not (tmp_path / "a" / ".lock").exists()


def test_a_finished_run_shows_its_score(tmp_path: Path) -> None:
    done(tmp_path, "a")
    run = only(tmp_path)
    assert (run.state, run.stage, run.exact_match) == ("finished", "", 0.5)
    assert cells(run) == ["finished", "a", "–", "–", "50.0%", ""]


def test_trained_but_not_scored_is_not_finished(tmp_path: Path) -> None:
    (done(tmp_path, "a") / "metrics.json").unlink()
    run = only(tmp_path)
    assert (run.state, run.stage, run.exact_match) == ("interrupted", "evaluate", None)


def test_answered_but_not_judged_is_not_finished(tmp_path: Path) -> None:
    """The card and the mirrors come last; of a run without a word on that, as earlier versions left it, the card."""
    folder = done(tmp_path, "a")
    metrics = json.loads((folder / "metrics.json").read_text())
    cases = ((["pretrain"], 0, "finished"), ([], 1, "interrupted"), (None, 0, "interrupted"), (None, 1, "finished"))
    for told, card, state in cases:
        metrics = {key: value for key, value in metrics.items() if key != "scored"}
        (folder / "metrics.json").write_text(json.dumps(metrics if told is None else metrics | {"scored": told}))
        (folder / "knowledge.json").write_text("{}") if card else (folder / "knowledge.json").unlink(missing_ok=True)
        assert only(tmp_path).state == state


def test_stages_that_a_later_command_added_count(tmp_path: Path) -> None:
    """config.yaml keeps what the first command asked for."""
    plan = {"stage": "finetune", "from": 0, "began": datetime.now(UTC).isoformat(), "steps": {"finetune": 20}}
    (done(tmp_path, "a") / "progress.json").write_text(json.dumps(plan | {"stages": ["finetune", "evaluate"]}))
    run = only(tmp_path)
    assert (run.state, run.stage, run.step, run.steps) == ("interrupted", "finetune", 0, 20)


def test_an_error_is_told_and_stopping_early_is_none(tmp_path: Path) -> None:
    note = begun(tmp_path, "a") / "error.txt"
    note.write_text("Traceback (most recent call last):\n  File x\nValueError: the loss is nan\n")
    assert (only(tmp_path).state, only(tmp_path).note) == ("failed", "ValueError: the loss is nan")
    note.write_text("Traceback …\nbirthplace_lm.stopping.UnfinishedError: pretrain stopped at step 3 of 9; goes on\n")
    assert (only(tmp_path).state, only(tmp_path).note) == ("interrupted", "")


def test_the_end_is_estimated_from_the_steps_of_this_session(tmp_path: Path) -> None:
    """20 steps took 100 s: 60 more of this stage and 20 of the next take 400 s."""
    began = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    plan = {"stage": "pretrain", "from": 20, "began": began.isoformat(), "steps": {"pretrain": 100, "finetune": 20}}
    folder = begun(tmp_path, "a", progress=plan)
    last = (began + timedelta(seconds=100)).timestamp()
    os.utime(folder / "pretrain" / "metrics.csv", (last, last))
    with RunFolder(folder).locked():
        run = only(tmp_path)
    assert run.ends == began + timedelta(seconds=500)
    assert cells(run)[2:4] == ["pretrain 40 of 100 (40%)", clock(run.ends)]
    assert clock(run.ends).startswith("2026-01-0") and clock(run.ends) in summary([run])
    assert only(tmp_path).ends is None  # nobody works on it


def test_without_steps_of_this_session_no_end_is_made_up(tmp_path: Path) -> None:
    now = datetime.now(UTC).isoformat()
    folder = begun(tmp_path, "a", progress={"stage": "pretrain", "began": now, "from": 40, "steps": {"pretrain": 90}})
    with RunFolder(folder).locked():
        assert only(tmp_path).ends is None


@pytest.mark.parametrize(("tail", "steps"), [("", 40), ("40,train/lo", 40), ("40,train/loss,1.0\n", 41)])
def test_half_a_row_is_no_step(tail: str, steps: int, tmp_path: Path) -> None:
    history = begun(tmp_path, "a") / "pretrain" / "metrics.csv"
    history.write_text(history.read_text() + tail)
    assert only(tmp_path).step == steps


def test_a_long_history_is_read_from_its_end(tmp_path: Path) -> None:
    begun(tmp_path, "a", steps=100_000)
    assert only(tmp_path).step == 100_000
    (tmp_path / "a" / "pretrain" / "metrics.csv").write_text("step,name,value\n")
    assert only(tmp_path).step == 0


def test_what_is_no_run_is_named_and_left_out(tmp_path: Path) -> None:
    done(tmp_path, "good")
    (tmp_path / "notes").mkdir()
    (tmp_path / ".search").mkdir()  # what a search keeps beside its runs
    (begun(tmp_path, "half") / "vocabulary.json").unlink()
    (begun(tmp_path, "damaged") / "progress.json").write_text('{"stage": "pre')
    (begun(tmp_path, "foreign") / "config.yaml").write_text("task: translation\n")
    (begun(tmp_path, "noyaml") / "config.yaml").write_text("a: [\n")
    runs, left_out = statuses(tmp_path)
    assert [run.folder.name for run in runs] == ["good"]
    assert {Path(sentence.split(":")[0]).name for sentence in left_out} == {
        "notes", "half", "damaged", "foreign", "noyaml",
    }  # fmt: skip
    assert statuses(tmp_path / "good") == (runs, [])  # the run itself can be asked about


def test_the_command_prints_a_line_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done(tmp_path, "b")
    begun(tmp_path, "[red]a[bold]\x1b[2J")
    (tmp_path / "c").mkdir()
    command.main([str(tmp_path), "--watch"])  # no terminal: once, as lines
    out, err = capsys.readouterr()
    first, second, last = out.splitlines()
    assert first.split() == ["interrupted", "[red]a[bold]�[2J", "pretrain", "40", "–", "–"]
    assert second.split() == ["finished", "b", "–", "–", "50.0%"] and first.index("[red]") == second.index("b  ")
    assert last == "1 interrupted, 1 finished" and "left out:" in err


def test_the_live_table_shows_names_as_they_are(tmp_path: Path) -> None:
    from rich.console import Console

    done(tmp_path, "a")
    begun(tmp_path, "z[red]a[-red]")
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(command._view(tmp_path))
    text = console.export_text()
    assert "z[red]a[-red]" in text and text.index("interrupted") < text.index("finished")


def test_the_command_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path / "nowhere")])
    assert "there is no folder" in capsys.readouterr().err
    command.main([str(tmp_path)])
    assert capsys.readouterr().out == "no runs\n"


@pytest.mark.slow
def test_training_notes_what_it_is_going_to_do(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "stages=[pretrain,finetune]")
    noted = json.loads((folder.root / "progress.json").read_text())
    assert noted["steps"] == {stage: folder.stage(stage).facts()["steps"] for stage in ("pretrain", "finetune")}
    assert (noted["stage"], noted["from"]) == ("finetune", 0)
    assert only(tmp_path).state == "finished"
