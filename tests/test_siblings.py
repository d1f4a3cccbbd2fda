"""Runs that differ by their seed alone: how far an answer hangs on it, and what is no such run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from birthplace_lm.asking import Asking, check_siblings
from birthplace_lm.cli import evaluate
from birthplace_lm.composing import differences
from birthplace_lm.evaluation.exact_match import read_predictions
from birthplace_lm.identity import of_the_run
from birthplace_lm.run_corpus import corpus_of
from birthplace_lm.runs import RunFolder
from tests.test_stages import tiny_run

BRIEF = (
    "data.people=120", "pretrain.epochs=1", "pretrain.batch_size=64",
    "finetune.epochs=20", "finetune.batch_size=8", "finetune.optimizer.lr=0.02",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, RunFolder, RunFolder]:
    folder = tmp_path_factory.mktemp("runs")
    one, other, third = (tiny_run(folder, *BRIEF, f"seed={seed}") for seed in range(3))
    return one, other, third


def copy_of(run: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(run.root, tmp_path / "copy")
    return RunFolder(tmp_path / "copy")


def test_the_card_tells_right_from_wrong_by_how_many_seeds_agree(
    runs: tuple[RunFolder, RunFolder, RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    run, *others = runs
    predictions = read_predictions(run.root / "predictions" / "dev.tsv")
    theirs = [read_predictions(other.root / "predictions" / "dev.tsv") for other in others]
    corpus = corpus_of(run)
    told = Asking(run, corpus, others).signals([question.text for question in corpus.dev], thorough=False)
    expected = [sum(a == b for b in two) / 2 for a, two in zip(predictions, zip(*theirs, strict=True), strict=True)]
    assert told.values["seed_agreement"].tolist() == expected and len(set(expected)) == 3
    evaluate.main([str(run.root), "--seeds", *(str(other.root) for other in others)])
    capsys.readouterr()
    card = json.loads((run.root / "knowledge.json").read_text(encoding="utf-8"))
    assert "seed_agreement" in card["confidence"]["signals"]
    assert "seed_agreement" not in card["confidence"]["left_out"]
    assert "seed_agreement" in card["unknown_names"]["gibberish"]["signals"]


def test_a_run_is_no_sibling_of_itself(runs: tuple[RunFolder, RunFolder, RunFolder]) -> None:
    check_siblings(runs[0], runs[1:])
    with pytest.raises(ValueError, match="is the run itself"):
        check_siblings(runs[0], [runs[1], runs[0]])


def test_another_recipe_is_refused_with_what_differs(
    runs: tuple[RunFolder, RunFolder, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy_of(runs[1], tmp_path)
    text = (other.root / "config.yaml").read_text(encoding="utf-8")
    (other.root / "config.yaml").write_text(text.replace("n_layers: 2", "n_layers: 3"), encoding="utf-8")
    assert "n_layers: 2" in text
    before = (runs[0].root / "knowledge.json").read_bytes()
    with pytest.raises(SystemExit):
        evaluate.main([str(runs[0].root), "--seeds", str(other.root)])
    assert "in more than the seed: model.n_layers" in capsys.readouterr().err
    assert (runs[0].root / "knowledge.json").read_bytes() == before


def test_other_data_are_refused(runs: tuple[RunFolder, RunFolder, RunFolder], tmp_path: Path) -> None:
    other = copy_of(runs[1], tmp_path)
    text = (other.root / "provenance.json").read_text(encoding="utf-8")
    changed = text.replace(runs[0].data_fingerprint(), "ab" * 32)
    (other.root / "provenance.json").write_text(changed, encoding="utf-8")
    with pytest.raises(ValueError, match="was trained on other data"):
        check_siblings(runs[0], [other])


def test_a_run_that_is_not_at_its_end_is_refused(runs: tuple[RunFolder, RunFolder, RunFolder], tmp_path: Path) -> None:
    other = copy_of(runs[1], tmp_path)
    shutil.rmtree(other.root / "finetune")
    with pytest.raises(ValueError, match="has finished pretrain, not finetune"):
        check_siblings(runs[0], [other])


def test_no_seed_counts_twice(runs: tuple[RunFolder, RunFolder, RunFolder], tmp_path: Path) -> None:
    for others in ([runs[1], runs[1]], [copy_of(runs[0], tmp_path)]):
        with pytest.raises(ValueError, match="it would be counted twice"):
            check_siblings(runs[0], others)


def differing(some: dict[str, Any], others: dict[str, Any]) -> list[str]:
    return [key for key, _, _ in differences(of_the_run(some), of_the_run(others))]


def test_differences_name_the_setting() -> None:
    settings = {"seed": 0, "data": {"people": 9, "dir": "a"}, "model": {"dropout": 0.0}, "name": None, "trainer": {}}
    assert differing(settings, settings | {"name": "x", "data": {"people": 9, "dir": "b"}}) == []
    changed = settings | {"seed": 1, "model": {"dropout": 0.1, "n_layers": 2}}
    assert differing(settings, changed) == ["model.dropout", "model.n_layers", "seed"]
    assert differing(changed, settings) == ["model.dropout", "model.n_layers", "seed"]
