"""The tables of experiments/ say what the prediction files beside them score, and no less than the pages tell."""

import csv
from pathlib import Path

import pytest

from birthplace_lm.evaluation.exact_match import read_predictions
from birthplace_lm.sources import Folder

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"
STUDIES = ("parity", "record")


def rows_of(study: str) -> list[dict[str, str]]:
    if not EXPERIMENTS.is_dir():
        pytest.skip("experiments/ is not part of a source distribution")
    with (EXPERIMENTS / study / "results.csv").open(encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


@pytest.mark.parametrize("study", STUDIES)
def test_every_row_scores_what_its_predictions_do(study: str, cs224n: Path) -> None:
    answers = [question.answer for question in Folder(str(cs224n)).corpus().dev]
    told = {row["dev_predictions"]: int(row["correct"]) for row in rows_of(study) if row["dev_predictions"]}
    scored = {
        name: sum(p == answer for p, answer in zip(read_predictions(EXPERIMENTS / study / name), answers, strict=True))
        for name in told
    }
    assert scored == told
    files = [path for path in (EXPERIMENTS / study).rglob("*.tsv") if "dev" in path.name]
    assert {str(path.relative_to(EXPERIMENTS / study)) for path in files} == set(told)


@pytest.mark.parametrize("study", STUDIES)
def test_every_row_stands_on_the_page(study: str) -> None:
    page = (EXPERIMENTS / study / "README.md").read_text(encoding="utf-8")
    for row in rows_of(study):
        correct, total = int(row["correct"]), int(row["total"])
        assert row["exact_match"] == f"{correct / total:.4f}"
        assert f"{correct} of {total}" in page, row["row"]
        for name in (row["dev_predictions"], row["dev_predictions"].replace("dev", "test")):
            assert not name or (EXPERIMENTS / study / name).is_file()
