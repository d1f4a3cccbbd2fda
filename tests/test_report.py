"""Reports from run folders: what is averaged, what is refused, what is left out, and names that hold markup."""

import csv
import io
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from birthplace_lm.cli import report as command
from birthplace_lm.composing import ConfigError, differences
from birthplace_lm.evaluation.exact_match import wilson
from birthplace_lm.report import pictures, tables
from birthplace_lm.report.collecting import FinishedRun, collect, run_folders
from birthplace_lm.report.comparing import compare, paired_difference
from birthplace_lm.report.starts import with_alike_starts
from birthplace_lm.runs import RunFolder


def finished(root: Path, name: str, right: str = "1100", **changes: Any) -> Path:
    """A run folder as training leaves it; `right` has a 1 for every dev question that was answered right."""
    told: dict[str, Any] = {"attention": "vanilla", "positions": "learned", "seed": 0, "commit": "c" * 40, "epochs": 3}
    told |= changes
    folder = root / name
    (folder / "predictions").mkdir(parents=True)
    choices = {"experiment": "demo", "attention": told["attention"], "positions": told["positions"], "debug": None}
    config = {
        "seed": told["seed"], "choices": choices, "data": {"people": 4}, "attention": {"kind": told["attention"]},
        "positions": {"kind": told["positions"]}, "pretrain": {"epochs": told["epochs"]}, "paths": {"runs": "runs"},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "vocabulary.json").write_text("[]")
    session = {"commit": told["commit"], "dirty": False, "data": told.get("data", "d" * 64)}
    (folder / "provenance.json").write_text(json.dumps({"sessions": [session]}))
    dev = {"exact_match": right.count("1") / len(right), "correct": right.count("1"), "total": len(right)}
    (folder / "metrics.json").write_text(json.dumps({"dev": dev, "parameters": 1000}))
    rows = [
        {"question": f"Where was P{i} born?", "answer": "Oslo", "prediction": "Oslo" if bit == "1" else "Pau"}
        for i, bit in enumerate(right)
    ]
    (folder / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "pretrain").mkdir()
    (folder / "pretrain" / "stage.json").write_text(json.dumps({"steps": 40, "characters": 500, "seconds": 90.0}))
    history = "".join(f"{step},train/loss,{2.0 if step < 38 else 1.0 + step / 100}\n" for step in range(40))
    (folder / "pretrain" / "metrics.csv").write_text("step,name,value\n" + history)
    return folder


def a_run(seed: int, settings: dict[str, Any]) -> FinishedRun:
    """One that no folder holds."""
    rest: dict[str, Any] = {"right": {("Where was Ada Vik born?", "Oslo", 0): True}, "said": {}, "parameters": 1}
    rest |= {"commit": "c", "data": "d", "seconds": 1.0, "characters": 1, "loss": None}
    return FinishedRun(Path(f"run-{seed}"), {"attention": "vanilla"}, seed, settings, **rest)


def write_stage(folder: Path, stage: str) -> None:
    (folder / stage).mkdir()
    (folder / stage / "stage.json").write_text(json.dumps({"steps": 4, "characters": 50, "seconds": 9.0}))


def test_runs_that_differ_by_their_seed_are_one_variant(tmp_path: Path) -> None:
    for seed, right in enumerate(["1000", "1100", "1110"]):
        finished(tmp_path, f"v{seed}", right, seed=seed)
    finished(tmp_path, "w", "1111", attention="linear")
    runs, left_out = collect([tmp_path])
    best, other = compare(runs)
    assert not left_out and (best.label, best.seeds, other.label, other.seeds) == ("linear", 1, "vanilla", 3)
    shares = [0.25, 0.5, 0.75]
    reach = stats.sem(shares) * stats.t.ppf(0.975, 2)
    assert other.exact_match == 0.5 and other.interval == pytest.approx((max(0.5 - reach, 0), min(0.5 + reach, 1)))
    assert best.interval == wilson(4, 4)  # one seed: over its questions
    assert (other.mean("loss"), other.mean("parameters")) == (pytest.approx(1.385), 1000)  # the last twentieth of 40


def test_the_pace_is_the_median_over_seeds_and_absent_without_training(tmp_path: Path) -> None:
    for seed in range(3):
        finished(tmp_path, f"v{seed}", "1100", seed=seed)
    (variant,) = compare(collect([tmp_path])[0])
    slow = [
        replace(run, characters=1000, seconds=seconds) for run, seconds in zip(variant.runs, (1, 2, 10), strict=True)
    ]
    told = replace(variant, runs=tuple(slow))
    assert told.pace == 500 and dict(zip(tables.HEADER, tables.cells(told), strict=True))["characters/s"] == "500"
    untrained = replace(variant, runs=(*slow[:2], replace(slow[2], seconds=0.0)))
    assert (
        untrained.pace is None and dict(zip(tables.HEADER, tables.cells(untrained), strict=True))["characters/s"] == "–"
    )


def test_three_seeds_vote_and_two_do_not(tmp_path: Path) -> None:
    for seed, right in enumerate(["1100", "1010", "1001"]):
        finished(tmp_path, f"v{seed}", right, seed=seed)
    (variant,) = compare(collect([tmp_path])[0])
    assert variant.exact_match == 0.5 and variant.vote == 0.25  # the first question alone has two right answers
    assert dict(zip(tables.HEADER, tables.cells(variant), strict=True))["vote of seeds"] == "25.0%"
    (variant,) = compare(collect([tmp_path / "v0", tmp_path / "v1"])[0])
    assert variant.vote is None


def test_where_all_seeds_differ_the_surest_is_the_vote(tmp_path: Path) -> None:
    """Three answers to each of three questions: the right one is the surest of the second seed and of the third."""
    said = [[("Pau", -2.0), ("Pau", -0.2), ("Oslo", -1.0)]]
    said += [[("Oslo", -0.1), ("Riga", -3.0), ("Riga", -0.5)], [("Riga", -0.3), ("Oslo", -0.1), ("Pau", -0.4)]]
    for seed, answers in enumerate(said):
        folder = finished(tmp_path, f"v{seed}", "000", seed=seed)
        rows = [
            {"question": f"Where was P{i} born?", "answer": "Oslo", "prediction": text, "log_probability": sure}
            for i, (text, sure) in enumerate(answers)
        ]
        (folder / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (variant,) = compare(collect([tmp_path])[0])
    assert variant.vote == pytest.approx(2 / 3)


def test_two_people_of_one_name_are_two_questions(tmp_path: Path) -> None:
    """Born in Oslo one, in Pau the other; a third is asked about twice. The report counts what metrics.json counts."""
    asked = [("Where was Ada Vik born?", "Oslo"), ("Where was Ada Vik born?", "Pau")]
    asked += [("Where was Bo Lund born?", "Riga")] * 2
    said = {"a": ("Pau", 0), "b": ("Pau", 1), "c": ("Oslo", 2), "d": ("Bern", 0)}
    for name, (of_ada, seed) in said.items():
        bits = "".join("1" if place in (of_ada, "Riga") else "0" for _, place in asked)
        folder = finished(tmp_path, name, bits, seed=seed, attention="linear" if name == "d" else "vanilla")
        rows = [
            {"question": question, "answer": place, "prediction": of_ada if "Ada" in question else "Riga"}
            for question, place in asked
        ]
        (folder / "predictions" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    vanilla, linear = compare(collect([tmp_path])[0], baseline="linear")
    for run in (*vanilla.runs, *linear.runs):
        dev = run.metrics["dev"]
        assert (run.exact_match, sum(run.right.values())) == (dev["exact_match"], dev["correct"])
        assert len(run.right) == len(run.said) == dev["total"] == 4
    assert (vanilla.exact_match, vanilla.interval[0], vanilla.vote) == (0.75, wilson(3, 4)[0], 0.75)  # type: ignore[index]
    assert vanilla.difference is not None and vanilla.difference.value == 0.25
    (row,) = [row for row in csv.DictReader(io.StringIO(tables.as_csv([linear])))]
    assert (row["correct"], row["total"]) == ("2", "4")


def test_seeds_that_agree_by_chance_are_not_exact(tmp_path: Path) -> None:
    for seed, right in enumerate(["1100", "0011"]):
        finished(tmp_path, f"v{seed}", right, seed=seed)
    (variant,) = compare(collect([tmp_path])[0])
    assert variant.interval == wilson(2, 4)  # of four questions, not of eight: both seeds were asked the same


def test_the_difference_is_that_of_every_draw_of_questions_enumerated() -> None:
    """Two seeds that say the same vary by their questions alone, as one does, of which no p is given."""
    one, other = np.array([[1.0, 1, 0, 1]] * 2), np.array([[0.0, 1, 0, 0]] * 2)
    found, single = paired_difference(one, other), paired_difference(one[:1], other)
    assert single is not None and single.p is None
    assert found is not None and (single.low, single.high) == (found.low, found.high)
    draws = [np.mean([(one - other)[0, i] for i in picked]) for picked in itertools.product(range(4), repeat=4)]
    assert found.value == 0.5
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)
    assert found.p == pytest.approx(2 * np.mean(np.array(draws) <= 0), abs=0.02)


def test_the_difference_counts_the_seeds_as_drawn_too() -> None:
    """Two seeds that are all right and all wrong: they say nothing, whatever the questions."""
    found = paired_difference(np.array([[1.0] * 50, [0.0] * 50]), np.zeros((2, 50)))
    assert found is not None and (found.value, found.low, found.high) == (0.5, -1, 1)
    assert found.p is not None and stats.ttest_ind([1, 0], [0, 0], equal_var=False).pvalue < found.p < 0.55


def test_the_difference_holds_what_it_promises_for_two_seeds_each() -> None:
    """Seeds as far apart as those of the course's recipe (3.5 points), no true difference: 95 of 100 intervals hold 0.

    A bootstrap alone, which draws two seeds from two, would miss it in 13 of 100.
    """
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        shares = rng.normal(0.33, 0.035, (2, 2, 1))
        one, other = (rng.random((2, 2, 300)) < shares) * 1.0
        found = paired_difference(one, other)
        assert found is not None and found.p is not None
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) >= 0.94


def test_a_large_difference_is_significant_and_none_is_not() -> None:
    rng = np.random.default_rng(0)
    high, low = (rng.random((3, 200)) < share for share in (0.7, 0.4))
    found, none = paired_difference(high * 1.0, low * 1.0), paired_difference(high * 1.0, high * 1.0)
    assert found is not None and found.p is not None and found.p <= 0.02 and found.low > 0.1
    assert none is not None and none.value == 0 and none.p == 1
    assert paired_difference(np.zeros((1, 0)), np.zeros((1, 0))) is None


def test_variants_are_compared_on_the_questions_that_both_were_asked(tmp_path: Path) -> None:
    finished(tmp_path, "v", "10")
    finished(tmp_path, "w", "1111", attention="linear")
    linear, vanilla = compare(collect([tmp_path])[0])
    assert vanilla.difference is None and linear.difference is not None
    assert linear.difference.value == 0.5  # of the first two


@pytest.mark.parametrize("what", ["commit", "data"])
def test_other_commits_or_data_are_no_seeds_of_one_experiment(what: str, tmp_path: Path) -> None:
    finished(tmp_path, "a", seed=0)
    finished(tmp_path, "b", seed=1, **{what: "e" * 40})
    runs, _ = collect([tmp_path])
    with pytest.raises(ConfigError, match=f"vanilla: runs of 2 different {what}s .*--mix"):
        compare(runs)
    assert compare(runs, mix=True)[0].seeds == 2


def test_other_budgets_are_other_variants_and_say_so(tmp_path: Path) -> None:
    finished(tmp_path, "a", epochs=3)
    finished(tmp_path, "b", epochs=30)
    labels = {variant.label for variant in compare(collect([tmp_path])[0])}
    assert labels == {"vanilla (pretrain.epochs=3)", "vanilla (pretrain.epochs=30)"}


def test_settings_that_are_written_otherwise_and_equal_are_one_variant(tmp_path: Path) -> None:
    """0 and 0.0, null and nothing at all: else none of them would be the baseline."""
    finished(tmp_path, "a", epochs=3)
    finished(tmp_path, "b", epochs=3.0, seed=1)
    told = finished(tmp_path, "c", seed=2) / "config.yaml"
    told.write_text(told.read_text() + "held_out: null\n")
    finished(tmp_path, "d", "1111", attention="linear")
    linear, vanilla = compare(collect([tmp_path])[0])
    assert (vanilla.label, vanilla.seeds, linear.label) == ("vanilla", 3, "linear") and linear.difference is not None


def test_settings_that_only_look_the_same_have_two_labels(tmp_path: Path) -> None:
    """One label for both would let the curve of one overwrite the other's."""
    finished(tmp_path, "a", epochs=3)
    finished(tmp_path, "b", epochs="3", seed=1)
    labels = [variant.label for variant in compare(collect([tmp_path])[0])]
    assert labels == ["vanilla (pretrain.epochs=3)", "vanilla (pretrain.epochs=3) #2"]


trees = st.recursive(
    st.sampled_from([None, 0, 0.0, False, True, 1, 1.5, "0", "null", [0, 1], [0.0, True]]),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), trees, max_size=3), min_size=2, max_size=6))
def test_runs_are_one_variant_where_nothing_differs_and_each_variant_has_a_name_of_its_own(
    several: list[dict[str, Any]],
) -> None:
    runs = [a_run(seed, told) for seed, told in enumerate(several)]
    found = compare(runs)
    variant_of = {run.seed: variant.label for variant in found for run in variant.runs}
    assert len({variant.label for variant in found}) == len(found)
    for (i, one), (k, other) in itertools.combinations(enumerate(several), 2):
        assert (variant_of[i] == variant_of[k]) == (not differences(one, other)), (one, other)


def test_positions_are_named_where_they_differ(tmp_path: Path) -> None:
    finished(tmp_path, "a")
    finished(tmp_path, "b", positions="rotary")
    assert {v.label for v in compare(collect([tmp_path])[0])} == {"vanilla learned", "vanilla rotary"}


def test_runs_that_were_asked_other_questions_are_not_averaged(tmp_path: Path) -> None:
    finished(tmp_path, "a")
    finished(tmp_path, "b", "11001", seed=1)
    with pytest.raises(ConfigError, match=r"vanilla: the runs were not asked the same questions .*--at-most N"):
        compare(collect([tmp_path])[0])


def test_a_control_is_no_seed_of_a_run(tmp_path: Path) -> None:
    """The same settings, asked for other stages: answers without a pretraining are another variant."""
    for seed in (0, 1):
        folder = finished(tmp_path, f"v{seed}", "1110", seed=seed)
        write_stage(folder, "finetune")
        write_stage(folder, "finetune_only")
    only = finished(tmp_path, "v2", "1000", seed=2)
    shutil.move(only / "pretrain", only / "finetune_only")
    runs, _ = collect([tmp_path])
    whole, control = compare(runs)
    assert (whole.seeds, whole.exact_match, control.seeds, control.exact_match) == (2, 0.75, 1, 0.25)
    assert "stages=['finetune_only']" in control.label and "stages=['pretrain', 'finetune']" in whole.label
    assert control.mean("loss") is None and whole.mean("loss") == pytest.approx(1.385)  # of pretraining, or none


def test_one_seed_does_not_count_twice(tmp_path: Path) -> None:
    finished(tmp_path, "a")
    finished(tmp_path, "b")
    with pytest.raises(ConfigError, match="vanilla: the same seed more than once"):
        compare(collect([tmp_path])[0])
    assert len(collect([tmp_path / "a", tmp_path / "a", tmp_path / "b" / ".." / "a"])[0]) == 1


def started_from(root: Path, source: Path, seed: int, right: str) -> Path:
    """A finished run that went on from another's weights, as the run's own config tells it."""
    run = finished(root, f"from-{source.name}-{seed}", right, seed=seed)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["init_from"] = f"{source.name}@{RunFolder(source).starting_weights_sha256()[:8]}"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    return run


def a_start(root: Path, name: str, **changes: Any) -> Path:
    source = finished(root, name, **changes)
    RunFolder(source).stage("pretrain").weights.write_bytes(name.encode())
    return source


@pytest.mark.parametrize("beside", [True, False])
def test_seeds_that_each_go_on_from_a_pretraining_of_their_own_are_one_variant(tmp_path: Path, beside: bool) -> None:
    places = [tmp_path / "runs", tmp_path / ("runs" if beside else "pretrained")]
    for seed, right in enumerate(["1000", "1110", "1100"]):
        started_from(places[0], a_start(places[1], f"base{seed}", seed=seed), seed, right)
    runs = [run for run in collect(places)[0] if run.folder.name.startswith("from-")]
    assert len(compare(runs)) == 3  # the weights that each started from are settings of it
    roots = [root for place in places[1:] for root in run_folders(place)]
    (variant,) = compare(with_alike_starts(runs, [] if beside else roots))
    assert (variant.seeds, variant.exact_match) == (3, 0.5)
    assert str(variant.runs[0].settings["init_from"]).startswith("another seed of the same, settings ")


@pytest.mark.parametrize(
    ("changes", "seeds"),
    [
        ([{"seed": 0, "epochs": 3}, {"seed": 1, "epochs": 4}], (0, 1)),  # made otherwise
        ([{"seed": 0}, {"seed": 1}], (0, 0)),  # the same seed of what came after
    ],
)
def test_other_starts_are_other_variants(changes: list[dict[str, int]], seeds: tuple[int, int], tmp_path: Path) -> None:
    for number, (change, seed) in enumerate(zip(changes, seeds, strict=True)):
        started_from(tmp_path, a_start(tmp_path, f"base{number}", **change), seed, "1100")
    runs = [run for run in collect([tmp_path])[0] if run.folder.name.startswith("from-")]
    assert with_alike_starts(runs, []) == runs and len(compare(runs)) == 2


def test_a_start_that_was_trained_anew_or_is_shared_is_told_as_it_was(tmp_path: Path) -> None:
    bases = [a_start(tmp_path, f"base{seed}", seed=seed) for seed in range(2)]
    for seed, base in enumerate(bases):
        started_from(tmp_path, base, seed, "1100")
    started_from(tmp_path, bases[0], 2, "1110")  # now two of three share a start
    runs = [run for run in collect([tmp_path])[0] if run.folder.name.startswith("from-")]
    assert with_alike_starts(runs, []) == runs
    first, shared, second = runs
    assert shared.seed == 2 and len(compare(with_alike_starts([first, second], []))) == 1
    RunFolder(bases[0]).stage("pretrain").weights.write_bytes(b"trained anew")
    assert with_alike_starts([first, second], []) == [first, second]


def test_what_is_no_finished_run_is_named_and_left_out(tmp_path: Path) -> None:
    good = finished(tmp_path, "good")
    mirrored = good / "wandb" / "files"
    mirrored.mkdir(parents=True)
    (mirrored / "config.yaml").write_text("wandb: {}")
    (mirrored / "vocabulary.json").write_text("[]")
    shutil.copytree(finished(tmp_path / "elsewhere", "copy"), good / "a copy")  # its name comes before all files' there
    shutil.rmtree(tmp_path / "elsewhere")
    (finished(tmp_path, "half") / "metrics.json").unlink()
    (finished(tmp_path, "damaged") / "metrics.json").write_text('{"dev": {"tot')
    (finished(tmp_path, "older") / "provenance.json").write_text("{}")
    (finished(tmp_path, "other") / "config.yaml").write_text("task: translation\n")
    (finished(tmp_path, "evil") / "config.yaml").write_text("seed: 0\ndata: {_target_: os.system}\n")
    answers = finished(tmp_path, "cut") / "predictions" / "dev.jsonl"
    answers.write_text(answers.read_text()[:-20])  # in the middle of the last of four
    further = finished(tmp_path, "further")
    write_stage(further, "finetune")
    (further / "finetune" / "weights.safetensors").touch()
    told = json.loads((further / "metrics.json").read_text())
    (further / "metrics.json").write_text(json.dumps(told | {"scored": ["pretrain"]}))
    runs, left_out = collect([tmp_path, tmp_path / "nowhere"])
    assert [run.folder.name for run in runs] == ["good"]
    reasons = {Path(sentence.partition(":")[0]).name: sentence for sentence in left_out}
    assert set(reasons) == {"half", "damaged", "older", "other", "evil", "cut", "further", "nowhere"}
    assert "has 3 answers, metrics.json scores 4" in reasons["cut"] and "trained further" in reasons["further"]
    assert "no scored answers yet" in reasons["half"] and "no run folder" in reasons["nowhere"]
    assert "only names under" in reasons["evil"]


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("config.yaml", "seed: one\nchoices: {}\n", "seed is 'one', not of type int"),
        ("config.yaml", "a: [1\nb: 2\n", "config.yaml is no YAML"),
        ("metrics.json", '{"dev": {"total": 1}, "parameters": "many"}', "parameters is 'many', not of type int"),
        ("provenance.json", "{}", "data of the first session is None, not of type str"),
        ("predictions/dev.jsonl", '{"question": "q", "answer": 1, "prediction": "p"}\n', "1 of 1 rows hold no text"),
        ("vocabulary.json", None, "no run folder (one holds config.yaml and vocabulary.json)"),
    ],
)
def test_what_another_program_wrote_is_told_in_one_line(
    file: str, text: str | None, reason: str, tmp_path: Path
) -> None:
    finished(tmp_path, "good")
    odd = finished(tmp_path, "odd", seed=1) / file
    odd.unlink() if text is None else odd.write_text(text)
    runs, left_out = collect([tmp_path])
    assert [run.folder.name for run in runs] == ["good"] and compare(runs)
    (sentence,) = left_out
    assert sentence.startswith(f"{tmp_path / 'odd'}: ") and reason in sentence and "\n" not in sentence


NASTY = "=1+1|<script>_&%$#~^\\{x}"


def nasty(tmp_path: Path) -> list[Any]:
    finished(tmp_path, "a", attention=NASTY)
    return compare(collect([tmp_path])[0])


def test_markdown_keeps_its_columns(tmp_path: Path) -> None:
    lines = tables.markdown(nasty(tmp_path)).splitlines()
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(tables.HEADER) + 1}
    assert not re.search(r"(?<!\\)<", lines[2])


def test_csv_is_read_back_and_holds_no_formula(tmp_path: Path) -> None:
    (row,) = csv.DictReader(io.StringIO(tables.as_csv(nasty(tmp_path))))
    assert row["variant"] == "'" + NASTY
    assert (row["correct"], row["total"], row["exact_match"], row["seconds"]) == ("2", "4", "0.5000", "90")


def test_latex_is_escaped(tmp_path: Path) -> None:
    text = tables.latex(nasty(tmp_path))
    assert (
        r"=1+1\textbar{}\textless{}script\textgreater{}\_\&\%\$\#\textasciitilde{}\textasciicircum{}\textbackslash{}\{x\}"
        in text
    )
    assert text.count(r"\\") == 2 and all(
        line.count(" & ") == len(tables.HEADER) - 1 for line in text.splitlines() if " & " in line
    )


def test_the_picture_has_a_row_a_variant(tmp_path: Path) -> None:
    finished(tmp_path, "a")
    finished(tmp_path, "b", "1111", attention="linear")
    (axes,) = pictures.exact_match_by_variant(compare(collect([tmp_path])[0])).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["vanilla", "linear"]


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path / "runs", "a", attention="[bold]x[/bold]")
    out = tmp_path / "out"
    files = {kind: str(out / f"table.{kind}") for kind in ("markdown", "csv", "latex")}
    picture = str(out / "variants.png")
    command.main([str(tmp_path / "runs"), "--figure", picture, *(x for k, f in files.items() for x in (f"--{k}", f))])
    printed = capsys.readouterr().out
    assert "[bold]x[/bold]" in printed and "none is called 'vanilla', so there is no baseline" in printed
    assert all(Path(file).stat().st_size for file in [*files.values(), picture])


def test_a_figure_of_no_known_kind_is_refused_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path), "--figure", "x.bmp2"])
    assert "--figure x.bmp2: the name has to end with .png, .svg, .pdf" in capsys.readouterr().err


def test_the_command_without_a_finished_run_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command.main([str(tmp_path)])
    assert "left out:" in (err := capsys.readouterr().err) and "error: no finished run to report on" in err
