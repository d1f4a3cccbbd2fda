"""What a fit says: progress lines where there is no terminal, one rewritten line where there is one, one example."""

import sys

import pytest

from birthplace_lm.callbacks import DecodedExample, ProgressLine
from birthplace_lm.durations import duration
from tests.test_lightning_modules import fit, learner, pretraining


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (3600, "1 h 00 min"), (90, "1 min 30 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_without_a_terminal_every_line_stands_alone(capsys: pytest.CaptureFixture[str]) -> None:
    fit(learner(), pretraining(), 4, ProgressLine(every_seconds=0))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain  step")]
    assert [line.split()[2] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("loss" in line and "characters/s" in line and line.endswith("left") for line in lines)
    fit(learner(), pretraining(), 4, ProgressLine(every_seconds=1000))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pretrain  step")]
    assert len(lines) == 1 and " 4/4 " in lines[0]  # the last step is always told


def test_in_a_terminal_one_line_is_rewritten(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fit(learner(), pretraining(), 3, ProgressLine(refresh_seconds=0))
    written = capsys.readouterr().out
    assert written.count("\r\033[K") == 3 and written.count("\n") == 1


def test_one_example_is_printed_before_the_first_step(capsys: pytest.CaptureFixture[str]) -> None:
    fit(learner(), pretraining(), 2, DecodedExample())
    written = capsys.readouterr().out
    assert written.count("example   sees  ") == 1 and "⁇" in written
