"""Scores against scipy's intervals, prediction files against every character that looks like a line break."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birthplace_lm.corpus import Question
from birthplace_lm.evaluation.exact_match import (
    Welch,
    read_predictions,
    score,
    seed_interval,
    t_quantile,
    welch,
    wilson,
    write_predictions,
)


def asked(*answers: str | None) -> list[Question]:
    return [Question(f"Where was Person {i} born?", answer) for i, answer in enumerate(answers)]


def test_only_the_same_characters_are_right() -> None:
    result = score(["Cork", "cork", "Cork ", "Co\u0301rk"], asked("Cork", "Cork", "Cork", "C\u00f3rk"))
    assert (result["correct"], result["total"], result["exact_match"]) == (1, 4, 0.25)


def test_no_questions_have_no_share() -> None:
    assert score([], []) == {"exact_match": None, "correct": 0, "total": 0, "wilson95": None}


@pytest.mark.parametrize("count", [1, 3])
def test_another_number_of_predictions_is_an_error_with_both_numbers(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} predictions for 2 questions"):
        score(["Cork"] * count, asked("Cork", "Oslo"))


def test_a_question_without_an_answer_is_named() -> None:
    with pytest.raises(ValueError, match=r"question 2 of 2 has no answer.*Person 1"):
        score(["Cork", "Oslo"], asked("Cork", None))


@settings(max_examples=60)
@given(st.data())
def test_wilson_is_scipys(data: st.DataObject) -> None:
    stats = pytest.importorskip("scipy.stats")
    total = data.draw(st.integers(1, 5000))
    correct = data.draw(st.integers(0, total))
    confidence = data.draw(st.floats(0.5, 0.999))
    expected = stats.binomtest(correct, total).proportion_ci(confidence, method="wilson")
    assert wilson(correct, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_refuses_what_is_no_share() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="5 correct of 4"):
        wilson(5, 4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 30, 101, 1000])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.9995])
def test_t_quantile_is_scipys(freedom: int, probability: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9)


def test_interval_over_seeds() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = [0.23, 0.246, 0.214, 0.238]
    mean, lo, hi = seed_interval(values)
    assert (lo, hi) == pytest.approx(stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values)))
    assert seed_interval([0.23]) == (0.23, None, None)
    assert seed_interval([0.2, 0.2]) == (0.2, 0.2, 0.2)
    with pytest.raises(ValueError, match="0 values"):
        seed_interval([])


@pytest.mark.parametrize("one", [[0.23, 0.246], [0.23, 0.246, 0.214], [0.29, 0.37, 0.34, 0.33, 0.29]])
def test_welchs_interval_is_scipys_but_for_whole_degrees_of_freedom(one: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    other = [0.40, 0.43, 0.44]
    theirs = stats.ttest_ind(one, other, equal_var=False)
    found, wanted = welch(one, other), theirs.confidence_interval(0.95)
    assert found.low <= wanted.low + 1e-12 and found.high >= wanted.high - 1e-12 and found.p >= theirs.pvalue - 1e-12
    value = np.mean(one) - np.mean(other)
    reach = stats.t.ppf(0.975, math.floor(theirs.df + 1e-9)) * abs(value / theirs.statistic)
    assert (found.low, found.high) == pytest.approx((value - reach, value + reach))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(theirs.statistic), math.floor(theirs.df + 1e-9)))
    assert welch([0.5, 0.5], [0.25, 0.25]) == Welch(0.25, 0.25, 0.0) and welch([0.2, 0.2], [0.2, 0.2]).p == 1
    with pytest.raises(ValueError, match="1 and 3 values"):
        welch([0.2], other)


@settings(max_examples=60)
@given(predictions=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"))))
def test_predictions_come_back(predictions: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("predictions") / "dev.tsv"
    write_predictions(path, predictions)
    assert read_predictions(path) == predictions
    assert path.read_bytes().count(b"\n") == len(predictions)


def test_characters_that_only_look_like_line_breaks_stay(tmp_path: Path) -> None:
    predictions = ["a\u2028b", "c\x85d", "e\x0bf\x0cg\x1ch", ""]
    write_predictions(tmp_path / "dev.tsv", predictions)
    assert read_predictions(tmp_path / "dev.tsv") == predictions


def test_a_line_break_becomes_a_space(tmp_path: Path) -> None:
    write_predictions(tmp_path / "deep" / "dev.tsv", ["New\nYork", "Los\r\nAngeles", "a\rb"])
    assert (tmp_path / "deep" / "dev.tsv").read_bytes() == b"New York\nLos Angeles\na b\n"


def test_files_of_other_programs(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes(b"Cork\r\nOslo")
    assert read_predictions(tmp_path / "dev.tsv") == ["Cork", "Oslo"]
    (tmp_path / "empty.tsv").write_bytes(b"")
    assert read_predictions(tmp_path / "empty.tsv") == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dev.tsv"
    write_predictions(path, ["old"])

    def broken(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        write_predictions(path, ["new", "newer"])
    assert read_predictions(path) == ["old"]
