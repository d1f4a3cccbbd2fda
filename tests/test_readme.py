"""What README shows in Python runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_stages import tiny_run

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text("utf-8"), flags=re.S)
RUNS = [block for block in BLOCKS if "import" in block]


def test_both_ways_are_shown() -> None:
    assert ["RunFolder" in block for block in RUNS] == [True, False]


def test_a_finished_run_is_asked_as_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(tmp_path)
    told: dict[str, Any] = {}
    exec(RUNS[0].replace("runs/NAME", str(run.root)), told)
    assert told["answer"].text in capsys.readouterr().out and len(told["people"].dev) and len(told["loss"]) > 3


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_of_ones_own_trains_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: dict[str, Any] = {}
    exec(RUNS[1], told)
    assert told["learner"].trainer.global_step == told["data"].plan.total_steps > 0
