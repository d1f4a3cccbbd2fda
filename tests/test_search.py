"""Hyper-parameter search: what may be searched, what a trial is, who works on it, and what is said in the end."""

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch

optuna = pytest.importorskip("optuna")

from hydra import compose as hydra_compose  # noqa: E402
from hydra import initialize_config_dir  # noqa: E402
from hydra.core.override_parser.overrides_parser import OverridesParser  # noqa: E402
from optuna.pruners import BasePruner  # noqa: E402
from optuna.samplers import BaseSampler  # noqa: E402
from optuna.trial import TrialState  # noqa: E402

from birthplace_lm.cli import search as search_command  # noqa: E402
from birthplace_lm.composing import ConfigError, build  # noqa: E402
from birthplace_lm.finiteness import NonFiniteLossError  # noqa: E402
from birthplace_lm.report.progress import statuses  # noqa: E402
from birthplace_lm.runs import RunFolder  # noqa: E402
from birthplace_lm.search import choosing, pictures, table, trials  # noqa: E402
from birthplace_lm.search.checks import check_settings, rehearse, without_control  # noqa: E402
from birthplace_lm.search.space import Options, Range, override, read_space  # noqa: E402
from birthplace_lm.search.study import SharedStudy, check_same_search  # noqa: E402
from birthplace_lm.stages import run  # noqa: E402
from birthplace_lm.stopping import UnfinishedError  # noqa: E402
from tests.helpers import CONFIGS  # noqa: E402
from tests.test_configs import composed, settings  # noqa: E402
from tests.test_stages import TINY  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
QUICK = [*TINY, "threads=1", "held_out_share=0.5", "checkpoint.every_n_steps=1"]
LR = "finetune.optimizer.lr"


def compose(overrides: Any) -> trials.Composed:
    config = settings(*overrides)
    return {**config, "choices": {"attention": "vanilla", "positions": "learned"}}, []


def base(*overrides: str) -> dict[str, Any]:
    return {**settings(*overrides), "choices": {"attention": "vanilla", "corruption": "random"}}


def study_in(folder: Path, pruner: BasePruner | None = None, **space: Any) -> SharedStudy:
    given = space or {LR: {"low": 1e-4, "high": 1e-2, "log": True}}
    configuration = base()
    return SharedStudy(
        folder / ".search" / "mine",
        read_space(given, configuration),
        choosing.random,
        pruner or choosing.none(),
        first={LR: 6e-4},
    )


def search(study: SharedStudy, folder: Path, wanted: int, *overrides: str, most_failures: int = 5) -> None:
    given = [*QUICK, "stages=[finetune,evaluate]", f"paths.runs={folder}", *overrides]
    trials.work(study, given, compose, wanted, most_failures)


# ------------------------------------------------------------------------------------------------------------ the space


def test_a_space_is_read_as_the_configuration_has_its_values() -> None:
    space = read_space(
        {
            "pretrain.optimizer.lr": {"low": 1e-3, "high": 1, "log": True},
            "pretrain.question_share": {"low": 0, "high": 1, "step": 0.25},
            "model.n_layers": {"low": 2, "high": 6, "step": 2},
            "trainer.gradient_clip_val": {"low": 1, "high": 3},
            "corruption.window": ["start", "anywhere"],
            "corruption.max_length": [None, 40],
            "attention": ["vanilla", "linear"],
        },
        base(),
    )
    assert space == {
        "pretrain.optimizer.lr": Range(0.001, 1.0, log=True),
        "pretrain.question_share": Range(0.0, 1.0, step=0.25),
        "model.n_layers": Range(2, 6, step=2),
        "trainer.gradient_clip_val": Range(1.0, 3.0),
        "corruption.window": Options(("start", "anywhere")),
        "corruption.max_length": Options((None, 40)),
        "attention": Options(("vanilla", "linear")),
    }
    types = {key: {type(end) for end in space[key].ends()} for key in ("trainer.gradient_clip_val", "model.n_layers")}
    assert types == {"trainer.gradient_clip_val": {float}, "model.n_layers": {int}}  # 2 and 2.0 are equal, not the same


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("pretrain.optimiser.lr", {"low": 1, "high": 2}, r"no key of the .*did you mean pretrain\.optimizer\.lr"),
        ("pretrain.optimizer", {"low": 1, "high": 2}, "no key of the configuration"),
        (LR, {"low": 2e-3, "high": 1e-3}, r"low is 0\.002 and high is 0\.001: nothing lies between"),
        (LR, {"low": 1e-3, "high": 1e-3}, "nothing lies between"),
        (LR, {"low": 0.0, "high": 1e-3, "log": True}, r"low is 0\.0, and only positive numbers have a logarithm"),
        (LR, {"low": 1e-3, "high": 1e-2, "log": True, "step": 1e-3}, "log and step exclude each other"),
        (LR, {"low": 1e-3, "high": float("inf")}, "finite numbers"),
        (LR, {"low": "1e-3x", "high": 1}, "finite numbers, not '1e-3x', 1"),
        (LR, {"low": 0.0, "high": 1.0, "step": 0.3}, r"steps of 0\.3 do not lead from 0\.0 to 1\.0"),
        (LR, {"low": 0.0, "high": 1.0, "step": -0.5}, "do not lead"),
        (LR, {"low": 1e-3, "max": 1}, r"a list of options or \{low: …, high: …\}"),
        (LR, 0.001, "a list of options or"),
        (LR, {"low": 1e-3, "high": 1, "log": "yes"}, "log is true or false, not 'yes'"),
        ("model.n_layers", {"low": 1.5, "high": 4}, "whole number in the configuration"),
        ("finetune.shuffle", {"low": 0, "high": 1}, "True in the configuration, which lies in no range"),
        ("corruption.window", {"low": 0, "high": 1}, "'start' in the configuration, which lies in no range"),
        ("attention", {"low": 0, "high": 1}, "a list of its files"),
        ("corruption.window", ["start"], r"\['start'\] is no choice: give two options or more"),
        ("corruption.window", ["start", "start"], "each once"),
        ("corruption.window", ["start", ["anywhere"]], "a word, a number, true, false or null"),
        ("seed", {"low": 0, "high": 9}, "a lucky seed is no better setting"),
        ("data.people", {"low": 10, "high": 99}, "asked about another world"),
        ("held_out_share", {"low": 0.1, "high": 0.3}, "asked about other people"),
        ("threads", {"low": 1, "high": 2}, "no result depends on it"),
        ("pretrain.validations", {"low": 1, "high": 2}, "compared at the validations"),
        ("finetune_only.epochs", {"low": 1, "high": 2}, "finetune_only is not among stages"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_said_with_the_key(key: str, given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"search.space: {key}.*{message}"):
        read_space({key: given}, base())


def test_a_search_sets_its_process_as_its_trials_do_before_anything_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that torch starts keep what the thread that starts them has: a trial comes too late to set it."""
    seen: list[float] = []
    monkeypatch.setattr(search_command, "_run", lambda *_: seen.append(float(torch.tensor(1e-39) * torch.ones(()))))
    monkeypatch.setattr(sys, "argv", ["birthplace-search", "search=lr_and_mix", "experiment=demo"])
    search_command.main()
    assert seen == [0.0]


def test_an_empty_space_is_no_search() -> None:
    with pytest.raises(ConfigError, match=r"search\.space is empty"):
        read_space({}, base())


NUMBERS = (0.1 + 0.2, 1e-05, 1e16, 5e-324, -3, 0, True, False, None)
WORDS = ("start", "a/b-c.d", "true", "NULL", "1e-3", "", "a b", "it's", "a,b", "x=1", "[a]", "\\", "a\\", "\\'", "a\\b")


@pytest.mark.parametrize("value", NUMBERS + WORDS)
def test_an_override_is_read_back_as_the_value_that_it_was_made_of(value: Any) -> None:
    text = override("corruption.window", value)
    (parsed,) = OverridesParser.create().parse_overrides([text])
    read = parsed.value()
    assert (str(read) if isinstance(value, str) else read) == value
    assert isinstance(value, str) or type(read) is type(value)
    assert shlex.split(trials.command([text]))[1:] == [text]


@pytest.mark.parametrize("space", sorted((ROOT / "configs" / "search").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_search_of_the_configs_can_be_run(space: Path) -> None:
    import yaml

    text = space.read_text(encoding="utf-8")
    assert text.startswith(f"# birthplace-search search={space.stem} ")
    command = text.splitlines()[0].split("      ")[0].split()[2:]
    wanted = yaml.safe_load(text)
    given = [*command[1:], *(override(key, value) for key, value in wanted["fixed"].items())]
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        config = hydra_compose("search", command, return_hydra_config=True)
    assert config.search.fixed == wanted["fixed"] and config.search.trials > 0
    from birthplace_lm.composing import plain
    from birthplace_lm.jobs import prepare

    node = plain(config.search)["space"]
    read = read_space(node, {**settings(*given), "choices": {}})
    rehearse(read, lambda overrides: prepare({**settings(*given, *overrides), "choices": {}}, []))


# ------------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "held_out_share is 0, so the trials would be compared on dev"),
        (["held_out_share=0.2", "name=mine"], "name=mine would put all trials into one folder"),
        (["held_out_share=0.2", "stages=[pretrain]"], r"stages=\['pretrain'\] lacks one of the two"),
        (["held_out_share=0.2", "stages=[evaluate]"], "lacks one of the two"),
        (["held_out_share=0.2", "trainer.devices=2"], "each trial has one device"),
    ],
)
def test_settings_that_no_search_may_have(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_settings(settings(*overrides))
    check_settings(settings("held_out_share=0.2"))


def test_weights_that_know_the_answers_are_refused(tmp_path: Path) -> None:
    quick = [*TINY, f"paths.runs={tmp_path}", "stages=[pretrain]", "pretrain.epochs=1"]
    knows = run(composed(*quick, "pretrain.question_share=0.2"), {"attention": "vanilla"}).folder
    blank = run(composed(*quick, "pretrain.question_share=0"), {"attention": "vanilla"}).folder
    same = run(composed(*quick, "held_out_share=0.5"), {"attention": "vanilla"}).folder
    with pytest.raises(ConfigError, match=r"it knows answers that held_out_share=0\.5 asks for"):
        check_settings(settings("held_out_share=0.5", f"init_from={knows.root}"))
    for folder in (blank, same):
        check_settings(settings("held_out_share=0.5", f"init_from={folder.root}"))


def test_values_that_cannot_be_run_are_found_before_the_first_trial() -> None:
    tried: list[list[str]] = []

    def prepare(overrides: Any) -> None:
        tried.append(overrides)
        if "a=3" in overrides:
            raise ConfigError("three is too many")

    rehearse({"a": Range(1, 2), "b": Options(("x", "y", "z"))}, prepare)
    assert tried == [["a=1", "b=x"], ["a=2", "b=y"], ["a=2", "b=z"]]
    with pytest.raises(ConfigError, match="the search would try a=3 b=y, which cannot be run: three is too many"):
        rehearse({"a": Range(1, 3), "b": Options(("x", "y", "z"))}, prepare)


def test_the_control_is_left_out_unless_it_is_all_there_is() -> None:
    assert without_control(["pretrain", "finetune", "finetune_only", "evaluate"]) == [
        "pretrain",
        "finetune",
        "evaluate",
    ]
    assert without_control(["finetune_only", "evaluate"]) == ["finetune_only", "evaluate"]


def test_a_folder_never_mixes_two_searches(tmp_path: Path) -> None:
    check_same_search(tmp_path, "run-a", {"x": {"low": 1}})
    check_same_search(tmp_path, "run-a", {"x": {"low": 1}})
    with pytest.raises(ConfigError, match=r"(?s)another search:\n  space.x.low: 2 here, 1 there.*search\.name"):
        check_same_search(tmp_path, "run-a", {"x": {"low": 2}})
    with pytest.raises(ConfigError, match="varied run: run-b here, run-a there"):
        check_same_search(tmp_path, "run-b", {"x": {"low": 1}})


# ------------------------------------------------------------------------------------------------------------- claiming


def test_trials_are_counted_together_and_one_without_a_worker_is_taken_over(tmp_path: Path) -> None:
    one, other = study_in(tmp_path), study_in(tmp_path)
    with one.claimed(2) as first, other.claimed(2) as second:
        assert first and second and {first.number, second.number} == {0, 1}
        assert first.params == {LR: 6e-4} and second.params[LR] != 6e-4  # the command as given comes first
        with study_in(tmp_path).claimed(2) as third:
            assert third is None
        assert one.trials()[1] == {0, 1}
        other.tell(second, 0.5, TrialState.COMPLETE)
    assert one.trials()[1] == set()
    assert [row.state for row in table.rows(one)] == ["finished", "interrupted"]
    with other.claimed(0) as none:
        assert none is None
    with other.claimed(2) as again:
        assert again and again.number == 0 and again.params == first.params
        other.tell(again, 0.25, TrialState.COMPLETE)
    with one.claimed(2) as none:
        assert none is None
    assert [(row.number, row.dev) for row in table.rows(one)] == [(1, {}), (2, {})]


def test_a_trial_that_lost_its_worker_before_it_had_values_gets_them(tmp_path: Path) -> None:
    study = study_in(tmp_path)
    study.optuna.ask()  # a worker that is killed right after: a number, no values
    with study.claimed(1) as trial:
        assert trial and trial.number == 0 and trial.params == {LR: 6e-4}


def test_what_is_proposed_does_not_depend_on_who_asks(tmp_path: Path) -> None:
    def proposed(folder: Path, workers: int) -> list[float]:
        studies = [study_in(folder) for _ in range(workers)]
        for i in range(6):
            with studies[i % workers].claimed(6) as trial:
                assert trial
                studies[i % workers].tell(trial, 0.5, TrialState.COMPLETE)
        return [trial.params[LR] for trial in studies[0].trials()[0]]

    alone = proposed(tmp_path / "one", 1)
    assert alone == proposed(tmp_path / "three", 3) and len(set(alone)) == 6


# --------------------------------------------------------------------------------------------------------------- trials


@pytest.mark.parametrize(
    ("pruner", "share", "validation", "stops"),
    [
        (choosing.median(), 0.0, 1, False),  # the first validation is too early
        (choosing.median(), 0.29, 2, True),  # below the median of 0.1, 0.2, 0.3, 0.4, 0.5
        (choosing.median(), 0.31, 2, False),
        (choosing.median(startup_trials=6), 0.0, 2, False),
        (choosing.median(warmup_validations=2), 0.0, 2, False),
        (choosing.lowest_quarter(), 0.21, 2, False),
        (choosing.lowest_quarter(), 0.19, 2, True),
        (choosing.none(), 0.0, 2, False),
    ],
)
def test_who_lags_behind_the_finished_trials_is_stopped(
    pruner: BasePruner, share: float, validation: int, stops: bool, tmp_path: Path
) -> None:
    study = study_in(tmp_path, pruner)
    for finished in range(1, 6):
        with study.claimed(6) as trial:
            assert trial
            for number in (1, 2):
                trial.report(finished / 10, number)
            study.tell(trial, finished / 10, TrialState.COMPLETE)
    with study.claimed(6) as trial:
        assert trial
        for number in range(1, validation + 1):
            trial.report(share, number)
        assert trial.should_prune() == stops


class StopsAt(BasePruner):
    """Stops every trial but the first at one validation."""

    def __init__(self, validation: int):
        self.validation = validation

    def prune(self, study: Any, trial: Any) -> bool:
        return trial.number > 0 and trial.last_step is not None and trial.last_step >= self.validation


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[SharedStudy, Path]:
    """Three trials with pretraining; all but the first are stopped at the second of three validations there."""
    folder = tmp_path_factory.mktemp("runs")
    study = study_in(folder, StopsAt(2))
    search(study, folder, 3, "stages=[pretrain,finetune,evaluate]", "pretrain.validations=3")
    return study, folder


def test_a_stopped_trial_stops_training_and_is_no_result(searched: tuple[SharedStudy, Path]) -> None:
    study, folder = searched
    rows = table.rows(study)
    assert [row.state for row in rows] == ["finished", "pruned", "pruned"]
    assert list(rows[0].reported) == [1, 2, 3, 4, 5] and list(rows[1].reported) == [1, 2]
    assert rows[1].exact_match is None and rows[0].exact_match is not None
    stopped = RunFolder(folder / rows[1].folder)
    assert not stopped.stage("pretrain").finished and not stopped.metrics()
    reached = max(int(path.stem.removeprefix("step_")) for path in stopped.stage("pretrain").checkpoints.glob("*.ckpt"))
    planned = json.loads((stopped.root / "progress.json").read_text())["steps"]["pretrain"]
    assert reached == planned // 3 * 2
    assert {run.folder.name: run.state for run in statuses(folder)[0]} == {
        rows[0].folder: "finished", rows[1].folder: "interrupted", rows[2].folder: "interrupted",
    }  # fmt: skip
    assert "pruned by the search mine, trial 2: birthplace-train" in (stopped.root / "error.txt").read_text()


def test_a_trial_is_the_run_of_the_command_that_is_printed(searched: tuple[SharedStudy, Path], tmp_path: Path) -> None:
    study, folder = searched
    finished, stopped, _ = table.rows(study)
    command = shlex.split(finished.command)
    assert command[0] == "birthplace-train"
    again = run(compose([*command[1:], f"paths.runs={tmp_path}"])[0]).folder
    assert again.name == finished.folder
    for stage in ("pretrain", "finetune"):
        weights = [root.stage(stage).weights.read_bytes() for root in (again, RunFolder(folder / finished.folder))]
        assert weights[0] == weights[1]
    assert again.metrics()["dev"] == finished.dev
    on = run(compose(shlex.split(stopped.command)[1:])[0])  # and a stopped one is gone on with by its own
    assert on.trained and on.folder.name == stopped.folder and "dev" in on.folder.metrics()
    assert not (on.folder.root / "error.txt").exists()


def test_a_stop_at_a_stages_last_validation_keeps_the_next_stage_from_beginning(tmp_path: Path) -> None:
    study = study_in(tmp_path, StopsAt(3))
    search(study, tmp_path, 2, "stages=[pretrain,finetune,evaluate]", "pretrain.validations=3", "pretrain.epochs=1")
    row = table.rows(study)[1]
    assert row.state == "pruned" and list(row.reported) == [1, 2, 3]
    assert RunFolder(tmp_path / row.folder).stage("pretrain").finished
    assert not list((tmp_path / row.folder / "finetune" / "checkpoints").glob("*"))


@pytest.mark.parametrize(("steps", "every"), [(11, 2), (10, 3), (7, 1), (40, 10)])
def test_validations_are_numbered_by_how_far_the_stage_has_come(steps: int, every: int) -> None:
    """Also where there is one more or less than was asked for: 4 of pretraining, then 2 of finetuning."""
    from birthplace_lm.lightning_modules import FinetuneModule, PretrainModule

    told: list[int] = []
    watch = trials.Watch({"pretrain": 4, "finetune": 2}, lambda number, _: bool(told.append(number)))
    for module in (PretrainModule, FinetuneModule):
        for step in range(every, steps + 1, every):
            trainer = SimpleNamespace(
                sanity_checking=False, fast_dev_run=False, should_stop=False, global_step=step, max_steps=steps,
                callback_metrics={"validation/exact_match": 0.5},
            )  # fmt: skip
            watch.on_validation_end(trainer, module.__new__(module))  # type: ignore[arg-type]
    assert told == sorted(told) and told[0] == 1 and told[-1] in (5, 6)
    if steps == 40:
        assert told == [1, 2, 3, 4, 5, 5, 6, 6]


def test_a_failing_trial_is_noted_and_the_search_goes_on(tmp_path: Path) -> None:
    space = {LR: [6e-4, 1e38]}
    study = study_in(tmp_path, **space)
    study.optuna.enqueue_trial({LR: 1e38})
    search(study, tmp_path, 3)
    rows = {row.number: row for row in table.rows(study)}
    assert rows[1].state == "finished" and rows[2].state == "failed" and len(rows) == 3
    assert rows[2].error.startswith("NonFiniteLossError: the ") and rows[2].exact_match is None
    assert {run.state for run in statuses(tmp_path)[0] if run.folder.name == rows[2].folder} == {"failed"}


def test_when_all_fail_it_is_not_the_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise NonFiniteLossError("the loss", float("nan"), 3)

    monkeypatch.setattr(trials, "run", fails)
    study = study_in(tmp_path)
    with pytest.raises(ConfigError, match="2 trials in a row have failed, the last with NonFiniteLossError"):
        search(study, tmp_path, 9, most_failures=2)
    assert [row.state for row in table.rows(study)] == ["failed", "failed"]


def test_failures_count_in_a_row_and_minutes_are_those_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, turns = trials.run, iter([False, True, False, True])

    def every_other(*arguments: Any) -> Any:
        if next(turns):
            return real(*arguments)
        raise NonFiniteLossError("the loss", float("nan"), 3)

    monkeypatch.setattr(trials, "run", every_other)
    study = study_in(tmp_path)
    search(study, tmp_path, 4, most_failures=2)
    rows = sorted(table.rows(study), key=lambda row: row.number)
    assert [row.state for row in rows] == ["failed", "finished", "failed", "finished"]
    for row in (rows[1], rows[3]):
        facts = RunFolder(tmp_path / row.folder).stage("finetune").facts()
        assert row.minutes == pytest.approx(facts["seconds"] / 60) and facts["seconds"] > 0


def test_what_says_nothing_of_the_values_ends_the_search_and_keeps_the_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_in(tmp_path)
    for error in (OSError("disk full"), UnfinishedError("pretrain stopped at step 3 of 9"), KeyboardInterrupt()):

        def ends(*_: Any, error: BaseException = error) -> None:
            raise error

        monkeypatch.setattr(trials, "run", ends)
        with pytest.raises(type(error)):
            search(study, tmp_path, 2)
        assert [row.state for row in table.rows(study)] == ["interrupted"]
    monkeypatch.undo()
    search(study, tmp_path, 1)
    assert [row.state for row in table.rows(study)] == ["finished"]


def test_a_run_that_another_process_works_at_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from birthplace_lm.jobs import prepare

    folder = prepare(
        *compose([*QUICK, "stages=[finetune,evaluate]", f"paths.runs={tmp_path}", override(LR, 6e-4)])
    ).folder
    held = folder.locked()
    held.__enter__()
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: held.__exit__(None, None, None))
    monkeypatch.setattr(trials, "time", clock)
    study = study_in(tmp_path)
    search(study, tmp_path, 1)
    assert [row.state for row in table.rows(study)] == ["finished"]


# ----------------------------------------------------------------------------------------------------------- last words


def made_up(folder: Path, finished: int) -> SharedStudy:
    """A study whose exact match hangs on the learning rate alone, with a pruned and a failed trial at its end."""
    space = {LR: {"low": 1e-4, "high": 1e-2, "log": True}, "finetune.epochs": {"low": 1, "high": 9}}
    study = SharedStudy(
        folder / ".search" / "mine",
        read_space(space, base()),
        choosing.random,
        choosing.none(),
        {LR: 1, "finetune.epochs": 1},
    )
    for i in range(finished + 2):
        with study.claimed(finished + 2) as trial:
            assert trial
            right = round(40 * (1 - abs(trial.params[LR] - 1e-3) / 1e-2))
            if i < finished:
                dev = {"exact_match": right / 40, "correct": right, "total": 40, "wilson95": [right / 50, right / 40]}
                for key, value in {"dev": dev, "folder": f"run-{i}", "command": f"birthplace-train n={i}"}.items():
                    trial.set_user_attr(key, value)
                study.tell(trial, right / 40, TrialState.COMPLETE)
            else:
                trial.report(0.1, 1)
                study.tell(trial, None, TrialState.PRUNED if i == finished else TrialState.FAIL)
    return study


def test_the_table_begins_with_the_best_and_says_what_it_is_worth(tmp_path: Path) -> None:
    study = made_up(tmp_path, 12)
    rows = table.rows(study)
    shares = [row.exact_match for row in rows if row.exact_match is not None]
    assert shares == sorted(shares, reverse=True) and [row.state for row in rows[-2:]] == ["pruned", "failed"]
    assert min(abs(row.values[LR] - 1e-3) for row in rows) == abs(rows[0].values[LR] - 1e-3)
    words = table.last_words(rows, tmp_path)
    assert words.startswith("12 finished, 1 pruned, 1 failed; ") and f"{rows[0].dev['correct']} of 40" in words
    assert rows[0].command in words and "lucky" in words
    read = list(csv.DictReader(table.as_csv(rows, list(study.space)).splitlines()))
    assert [float(row[LR]) for row in read] == [row.values[LR] for row in rows]  # to the last digit
    assert [row["exact_match"] for row in read[-2:]] == ["", ""]
    assert table.last_words([], tmp_path) == "no trials yet; none has a result, so there is no best one"


def test_importance_finds_the_key_that_matters_or_says_why_not(tmp_path: Path) -> None:
    shares, reason = pictures.importance(made_up(tmp_path / "many", 30))
    assert not reason and shares[LR] > 0.8 and sum(shares.values()) == pytest.approx(1)
    assert pictures.importance(made_up(tmp_path / "few", 4)) == ({}, "4 trials are finished, 10 are needed")
    same = study_in(tmp_path)
    for _ in range(10):
        with same.claimed(10) as trial:
            assert trial
            same.tell(trial, 0.0, TrialState.COMPLETE)
    assert pictures.importance(same) == ({}, "all 10 finished trials have the same exact match")


def test_pictures_are_drawn_of_what_there_is(tmp_path: Path) -> None:
    study = made_up(tmp_path, 10)
    assert pictures.draw(study, table.rows(study)) == []
    for name in ("history", "parameters", "importance"):
        assert (study.folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    empty = study_in(tmp_path / "empty")
    assert pictures.draw(empty, table.rows(empty)) == ["no pictures: no trial has been validated yet"]


def test_who_draws_last_has_looked_last(tmp_path: Path) -> None:
    study, drawn = study_in(tmp_path), []

    def draw(name: str) -> None:
        with study_in(tmp_path).telling():
            drawn.append(name)

    with study.telling():
        other = Thread(target=draw, args=["other"])
        other.start()
        other.join(0.2)
        drawn.append("first")
    other.join(10)
    assert drawn == ["first", "other"]


# ---------------------------------------------------------------------------------------------------------- the command

SPACE = """
fixed: {finetune.epochs: 7, finetune.validations: 3}
space: {finetune.optimizer.lr: {low: 1e-4, high: 1e-2, log: true}, finetune.batch_size: [4, 8]}
"""


def write_space(folder: Path) -> None:
    (folder / "own" / "search").mkdir(parents=True, exist_ok=True)
    (folder / "own" / "search" / "mine.yaml").write_text(SPACE)


def start(folder: Path, *overrides: str) -> subprocess.Popen[str]:
    write_space(folder)
    command = [sys.executable, "-m", "birthplace_lm.cli.search", "--config-dir", "own", "search=mine", *QUICK]
    command += ["stages=[finetune,finetune_only,evaluate]", "finetune.epochs=6", *overrides]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def told(process: subprocess.Popen[str], code: int = 0) -> str:
    out, errors = process.communicate(timeout=200)
    assert process.returncode == code, f"{out}\n{errors}"
    return out if code == 0 else errors


def trials_of(folder: Path) -> list[dict[str, str]]:
    (path,) = folder.glob("runs/.search/*/trials.csv")
    return sorted(csv.DictReader(path.read_text().splitlines()), key=lambda row: int(row["trial"]))


@pytest.mark.slow
def test_a_worker_is_killed_and_the_same_command_goes_on(tmp_path: Path) -> None:
    told(start(tmp_path / "whole", "search.trials=2"))
    process = start(tmp_path / "killed", "search.trials=2")
    try:
        while process.poll() is None and not list(
            (tmp_path / "killed").glob("runs/*/finetune/checkpoints/step_*[3-9].ckpt")
        ):
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL and not list((tmp_path / "killed").glob("runs/*/metrics.json"))
    again = told(start(tmp_path / "killed", "search.trials=2"))
    assert "trial 1 of 2" in again and "finetune: going on from step_" in again
    keys = ("trial", "state", "exact_match", "folder", LR, "finetune.batch_size")
    one, other = ([[row[key] for key in keys] for row in trials_of(tmp_path / name)] for name in ("whole", "killed"))
    assert one == other and len(one) == 2 and {row[1] for row in one} == {"finished"}
    for row in one:
        weights = [
            (tmp_path / name / "runs" / row[3] / "finetune/weights.safetensors").read_bytes()
            for name in ("whole", "killed")
        ]
        assert weights[0] == weights[1]


@pytest.mark.slow
def test_two_processes_share_a_study(tmp_path: Path) -> None:
    workers = [start(tmp_path, "search.trials=5") for _ in range(2)]
    outs = [told(worker) for worker in workers]
    begun = [sum(line.startswith("trial ") and " of 5: " in line for line in out.splitlines()) for out in outs]
    assert sum(begun) == 5 and min(begun) >= 1
    told(start(tmp_path, "search.trials=0"))
    rows = trials_of(tmp_path)
    assert len(rows) == 5 == len({row["folder"] for row in rows}) and {row["state"] for row in rows} == {"finished"}
    for row in rows:
        config = RunFolder(tmp_path / "runs" / row["folder"]).config()
        assert config["finetune"]["epochs"] == 6 and config["finetune"]["validations"] == 3  # who commands is obeyed
        assert config["stages"] == ["finetune", "evaluate"]


@pytest.mark.parametrize(
    ("part", "option"),
    [(part, path.stem) for part in ("sampler", "pruner") for path in (CONFIGS / "search" / part).glob("*.yaml")],
)
def test_every_sampler_and_pruner_composes_and_builds(part: str, option: str) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        search = hydra_compose("search", [f"search/{part}={option}"]).search
    built = build(search[part])
    assert isinstance(built(seed=3) if part == "sampler" else built, BaseSampler if part == "sampler" else BasePruner)


def test_a_key_on_the_command_line_stays_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_space(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("A_KEY", raising=False)
    key = "+hydra.job.env_set.A_KEY=5ecre7"
    command = ["birthplace-search", "--config-dir", "own", "search=mine", *QUICK, "search.trials=1", "search.name=5"]
    monkeypatch.setattr(sys, "argv", [*command, key])
    search_command.main()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in files if path.name == "provenance.json"]) == 1
    assert (tmp_path / "runs" / ".search" / "5" / "trials.csv").is_file()
    assert not [path for path in files if b"5ecre7" in path.read_bytes()]


def test_a_journal_whose_last_line_was_cut_off_is_gone_on_with(tmp_path: Path) -> None:
    """As a full disk or a kill leaves it: the trial before stays, and so does all that comes after."""
    study = study_in(tmp_path)
    with study.claimed(1) as trial:
        assert trial
        study.tell(trial, 0.5, TrialState.COMPLETE)
    journal = study.folder / "journal.log"
    whole = journal.read_bytes()
    half = b'{"op_code": 4, "trial'
    journal.write_bytes(whole + half)
    again = study_in(tmp_path)
    assert journal.read_bytes().startswith(whole) and half not in journal.read_bytes()
    with again.claimed(2) as trial:
        assert trial
        again.tell(trial, 0.25, TrialState.COMPLETE)
    assert [trial.value for trial in study_in(tmp_path).trials()[0]] == [0.5, 0.25]


def test_refusals_of_the_command_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_space(tmp_path)
    monkeypatch.chdir(tmp_path)

    def refused(*overrides: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["birthplace-search", "--config-dir", "own", "search=mine", *QUICK, *overrides]
        )
        with pytest.raises(SystemExit, match="2"):
            search_command.main()
        return capsys.readouterr().err

    assert "compared on dev" in refused("held_out_share=0")
    assert "its own sweep" in refused("--multirun")
    for wrong in ("failures=0", "failures=abc", "trials=abc", "trials=1.5", "trials=-1", "space=lr", "fixed=null"):
        assert f"error: search.{wrong.replace('null', 'None')}: " in refused(f"search.{wrong}")
    assert "no key of the configuration" in refused("+search.space={model.x: [1, 2]}")
    knob = refused("search/sampler=random", "+search.sampler.startup_trials=3")
    assert "search.sampler: " in knob and "startup_trials" in knob and "Traceback" not in knob
    assert not list(tmp_path.glob("runs/*/config.yaml")) and not list(tmp_path.glob("runs/.search/*"))
