"""Whole runs on a tiny world: what they leave behind, how they go on, and what they refuse."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from birthplace_lm import scoring, stages
from birthplace_lm.asking import Inquiry
from birthplace_lm.checkpoints import CheckpointEvery
from birthplace_lm.cli import ask, evaluate
from birthplace_lm.composing import ConfigError
from birthplace_lm.decoding import answer_questions
from birthplace_lm.evaluation.exact_match import read_predictions
from birthplace_lm.finiteness import NonFiniteLossError
from birthplace_lm.history import CsvHistory, read_history
from birthplace_lm.jobs import prepare
from birthplace_lm.run_corpus import corpus_of
from birthplace_lm.run_lock import RunInUseError
from birthplace_lm.runs import RunFolder
from birthplace_lm.stages import run
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.storage import load_tree, save_weights
from birthplace_lm.world import World
from tests.helpers import roughened
from tests.test_configs import composed, settings

TINY = [
    "data.people=24", "data.places=4", "model=small", "model.d_model=16", "model.n_layers=2", "model.dropout=0.1",
    "pretrain.epochs=3", "pretrain.batch_size=8", "pretrain.question_share=0.2", "finetune.epochs=3",
    "finetune.batch_size=4", "finetune_only.epochs=2", "trainer.log_every_n_steps=1", "callbacks=none",
]  # fmt: skip
WATCHES = "pytorch_lightning.callbacks"


def tiny_run(folder: Path, *overrides: str, chosen: tuple[str, ...] = ()) -> RunFolder:
    return run(composed(*TINY, f"paths.runs={folder}", *overrides), {"attention": "vanilla"}, chosen).folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return tiny_run(tmp_path_factory.mktemp("runs"), "stages=[pretrain,finetune,finetune_only,evaluate]")


def test_a_run_folder_holds_what_the_design_says(finished: RunFolder) -> None:
    root = finished.root
    for name in ("config.yaml", "vocabulary.json", "provenance.json", "metrics.json"):
        assert (root / name).is_file()
    corpus_sizes = {"dev": 6, "test": 4}
    for prefix in ("", "finetune_only."):
        for split, size in corpus_sizes.items():
            assert len(read_predictions(root / "predictions" / f"{prefix}{split}.tsv")) == size
    metrics = finished.metrics()
    assert set(metrics["dev"]) == {"exact_match", "correct", "total", "wilson95"} and metrics["dev"]["total"] == 6
    assert list(metrics["rows"])[-2:] == ["finetune only", "pretrain + finetune"]
    assert "test" not in metrics and all("test" not in row for row in metrics["rows"].values())
    assert metrics["parameters"] == finished.load_model().n_parameters()
    for stage in ("pretrain", "finetune", "finetune_only"):
        assert finished.stage(stage).finished
        facts = finished.stage(stage).facts()
        history = read_history(finished.stage(stage).history)
        steps = [step for step, _ in history["train/loss"]]
        assert steps == list(range(facts["steps"]))
        assert history["train/characters"][-1][1] == facts["characters"] > 0
    assert len(read_history(finished.stage("finetune").history)["validation/exact_match"]) == 2
    session = json.loads((root / "provenance.json").read_text())["sessions"][0]
    assert len(session["data"]) == 64 and {"commit", "dirty", "versions", "hardware", "command"} <= set(session)


class Fits(pl.Callback):
    """Which modules were fitted."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append(type(pl_module).__name__)


def test_pretraining_is_validated_as_often_as_it_says_and_callbacks_see_every_fit(tmp_path: Path) -> None:
    watching = Fits()
    overrides = (*TINY, f"paths.runs={tmp_path}", "pretrain.validations=3", "pretrain.question_share=0.2")
    folder = run(composed(*overrides), {"attention": "vanilla"}, callbacks=[watching]).folder
    assert watching.seen == ["PretrainModule", "FinetuneModule"]
    assert len(read_history(folder.stage("pretrain").history)["validation/exact_match"]) == 3


def test_a_schedule_of_questions_comes_from_the_command_line(tmp_path: Path) -> None:
    changing = tiny_run(tmp_path, "pretrain.question_share=[0,0.6]", "stages=[pretrain]")
    without = tiny_run(tmp_path, "pretrain.question_share=0", "stages=[pretrain]")
    steps, plain = (folder.stage("pretrain").facts()["steps"] for folder in (changing, without))
    assert steps > plain and changing.config()["pretrain"]["question_share"] == [0, 0.6]


def test_nothing_in_a_run_folder_points_outside_it(finished: RunFolder) -> None:
    for name in ("config.yaml", "metrics.json", "vocabulary.json"):
        assert str(finished.root.parent) not in (finished.root / name).read_text()
    told = [path for path in finished.root.rglob("*") if path.is_file()]
    assert len(told) > 15
    for path in told:  # weights, pictures and answers too
        assert str(finished.root.parent).encode() not in path.read_bytes(), path.name


def test_predictions_say_what_the_model_says(finished: RunFolder) -> None:
    rows = [json.loads(line) for line in (finished.root / "predictions" / "dev.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == read_predictions(finished.root / "predictions" / "dev.tsv")
    right = sum(row["prediction"] == row["answer"] for row in rows)
    assert right == finished.metrics()["dev"]["correct"]
    assert all(row["log_probability"] <= 0 for row in rows)


def test_every_stage_answers_with_its_own_weights_in_the_order_of_the_questions(
    finished: RunFolder, tmp_path: Path
) -> None:
    """Of the run and of its control, whose weights are roughened, so that the two say other things."""
    shutil.copytree(finished.root, tmp_path / "run")
    folder, corpus = RunFolder(tmp_path / "run"), World(people=24, places=4).corpus()
    for seed, stage in enumerate(("finetune", "finetune_only")):
        torch.manual_seed(seed)
        save_weights(folder.stage(stage).weights, roughened(folder.load_model(stage)), {})
    scoring.evaluate(folder, corpus)
    said = {}
    for stage, prefix in (("finetune", ""), ("finetune_only", "finetune_only.")):
        for split, questions in (("dev", corpus.dev), ("test", corpus.test)):
            texts = [question.text for question in questions]
            expected = answer_questions(folder.load_model(stage), folder.tokenizer(), texts)
            said[stage, split] = read_predictions(folder.root / "predictions" / f"{prefix}{split}.tsv")
            assert said[stage, split] == [answer.text.replace("\n", " ") for answer in expected]
    assert said["finetune", "dev"] != said["finetune_only", "dev"] and len(set(said["finetune", "dev"])) > 1


def test_the_same_command_again_does_nothing_new(finished: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*.safetensors")}
    again = tiny_run(finished.root.parent, "stages=[pretrain,finetune,finetune_only,evaluate]")
    assert again.root == finished.root
    assert before == {path: path.stat().st_mtime_ns for path in finished.root.rglob("*.safetensors")}
    assert capsys.readouterr().out.count("finished before, skipped") == 3


def test_finetuning_starts_from_the_pretrained_weights_and_the_control_does_not(finished: RunFolder) -> None:
    pretrained, tuned, control = (
        finished.load_model(stage).characters.weight for stage in ("pretrain", "finetune", "finetune_only")
    )
    assert (tuned - pretrained).norm() < 0.5 * (control - pretrained).norm()


def test_init_from_takes_architecture_and_vocabulary(finished: RunFolder, tmp_path: Path) -> None:
    started = tiny_run(tmp_path, f"init_from={finished.root}", "stages=[finetune,evaluate]", "model.d_model=64")
    assert started.load_model().n_parameters() == finished.load_model().n_parameters()
    assert started.tokenizer().fingerprint == finished.tokenizer().fingerprint
    assert list(started.metrics()["rows"])[-1] == "pretrain + finetune"
    weights = [folder.stage("finetune").weights.read_bytes() for folder in (finished, started)]
    assert weights[0] == weights[1]  # the same finetuning from the same weights


def test_init_from_takes_how_its_documents_were_shown_and_what_that_is_called(tmp_path: Path) -> None:
    """Else a synthesizer would be called vanilla, and be asked for what it stored as it was never shown it."""
    shown = ("corruption=salient", "pretrain.document_prefix='Where was '", "attention=synthesizer")
    settings = composed(*TINY, f"paths.runs={tmp_path}", "stages=[pretrain]", *shown)
    source = run(settings, {"attention": "synthesizer", "corruption": "salient"}).folder
    started = tiny_run(tmp_path, f"init_from={source.root}", "stages=[finetune,evaluate]")
    assert started.config()["choices"] == {"attention": "synthesizer", "corruption": "salient"}
    assert "-synthesizer-" in started.name
    windows = [folder.config()["corruption"] for folder in (started, source)]
    assert windows[0] == windows[1] and started.config()["pretrain"]["document_prefix"] == "Where was "
    on = tiny_run(tmp_path, f"init_from={source.root}", "stages=[pretrain]", "pretrain.epochs=1")
    assert on.config()["corruption"] != source.config()["corruption"]  # its own pretraining shows as it is told


def test_init_from_with_another_architecture_is_an_error_with_a_table(finished: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)another architecture.*model\.d_model +64 +16"):
        tiny_run(tmp_path, f"init_from={finished.root}", "model.d_model=64", chosen=("model",))


def test_weights_that_may_know_the_answers_are_no_start(finished: RunFolder, tmp_path: Path) -> None:
    """They learned from questions about other people of the same world; another split may ask about these."""
    start = (f"init_from={finished.root}", "stages=[finetune,evaluate]")
    for other in ("held_out_share=0.5", "data.people=31", "data.hold_out_people=2"):
        for wanted in ("stages=[finetune,evaluate]", "stages=[finetune]"):  # it may be asked to evaluate later
            with pytest.raises(ConfigError, match="learnt from questions about other people, or another split"):
                tiny_run(tmp_path, *start, wanted, other)
    silent = ("pretrain.question_share=0", "pretrain.epochs=1", "stages=[pretrain]")
    second = tiny_run(tmp_path, f"init_from={finished.root}", *silent)  # what its own source knew it may know, too
    with pytest.raises(ConfigError, match="learnt from questions about other people"):
        tiny_run(tmp_path, f"init_from={second.root}", "stages=[finetune]", "held_out_share=0.5")
    blank = tiny_run(tmp_path, "pretrain.question_share=0", "stages=[pretrain]")
    assert tiny_run(tmp_path, f"init_from={blank.root}", "stages=[finetune,evaluate]", "held_out_share=0.5").metrics()
    with pytest.raises(ConfigError, match="read about other people, or another split"):
        tiny_run(tmp_path, f"init_from={blank.root}", "stages=[finetune,evaluate]", "data.hold_out_people=2")
    tuned = tiny_run(tmp_path, "pretrain.question_share=0", "stages=[finetune_only]", "name=tuned")  # asked without one
    told = tiny_run(
        tmp_path, "pretrain.question_share=0", "stages=[pretrain]", "distillation@pretrain.distillation=runs",
        f"pretrain.distillation.runs=[{finished.root}]",
    )  # fmt: skip
    listed = tiny_run(tmp_path, "pretrain.question_share=0", "stages=[pretrain]", "corruption=salient")  # the answers
    silently = tiny_run(tmp_path, "pretrain.question_share=0", "stages=[pretrain]", "corruption=salient",
                        "~corruption.gazetteer")  # which has a value all the same  # fmt: skip
    alike = tiny_run(tmp_path, "pretrain.question_share=0", "stages=[pretrain]", "corruption=alike")
    for knows in (tuned, told, listed, silently, alike):  # a teacher has learnt from questions, too
        with pytest.raises(ConfigError, match="learnt from questions about other people"):
            tiny_run(tmp_path, f"init_from={knows.root}", "stages=[finetune]", "held_out_share=0.5")


def test_stages_of_two_commands_are_one_run(finished: RunFolder, tmp_path: Path) -> None:
    tiny_run(tmp_path, "stages=[pretrain]")
    later = tiny_run(tmp_path, "stages=[finetune,evaluate]")
    assert later.name == finished.name
    for stage in ("pretrain", "finetune"):  # the finetuning began with that pretraining, as in one command
        assert later.stage(stage).weights.read_bytes() == finished.stage(stage).weights.read_bytes()
    assert later.metrics()["dev"] == finished.metrics()["dev"]


def test_a_pretraining_does_not_come_behind_its_finetuning(tmp_path: Path) -> None:
    early = tiny_run(tmp_path, "stages=[finetune]")
    before = early.stage("finetune").weights.read_bytes()
    with pytest.raises(ConfigError, match="a finetuning that began without this pretraining"):
        tiny_run(tmp_path, "stages=[pretrain,finetune]")
    assert not early.stage("pretrain").finished and early.stage("finetune").weights.read_bytes() == before


def test_without_pretraining(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "stages=[finetune,evaluate]")
    assert list(folder.metrics()["rows"])[-1] == "finetune only"
    assert not folder.stage("pretrain").finished
    beside = tiny_run(tmp_path, "stages=[finetune,finetune_only,evaluate]")  # "finetune only" is the control's row then
    assert {"finetune only", "finetune, no pretraining"} < set(beside.metrics()["rows"])


def test_tuning_asks_held_out_train_people_and_never_dev(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "stages=[finetune,evaluate]", "held_out_share=0.25")
    asked = [json.loads(line) for line in (folder.root / "predictions" / "dev.jsonl").read_text().splitlines()]
    from birthplace_lm.world import World

    corpus = World(people=24, places=4).corpus()
    train, dev = ({question.text for question in split} for split in (corpus.train, corpus.dev))
    assert {row["question"] for row in asked} <= train and not {row["question"] for row in asked} & dev
    assert not read_predictions(folder.root / "predictions" / "test.tsv")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages=[distill]", r"in this order, not \['distill'\]"),
        ("stages=[finetune,pretrain]", "in this order"),
        ("stages=finetune", "stages is a list"),
        ("pretrain.epochs=0", "pretrain.epochs=0: a whole number is needed, 1 or more"),
        ("pretrain.batch_size=1.5", "pretrain.batch_size=1.5: a whole number"),
        ("pretrain.micro_batches=1.5", "pretrain.micro_batches=1.5: a whole number"),
        ("finetune.validations=abc", "finetune.validations=abc: a whole number is needed, 0 or more"),
        ("seed=1.5", "seed=1.5: a whole number"),
        ("threads=-1", "threads=-1: a whole number is needed, 1 or more"),
        ("threads=abc", "threads=abc: a whole number"),
        ("pretrain.optimizer.lr=-1", "pretrain.optimizer: .*learning rate: -1"),
        ("pretrain.optimizer.betas=0.9", "pretrain.optimizer: "),
        ("pretrain.schedule.floor=abc", r"schedules\.\w+: floor is 'abc', but a number is needed"),
        ("trainer.log_every_n_steps=null", "log_every_n_steps=None: a whole number"),
        ("+trainer.accumulate_grad_batches=2", "accumulate_grad_batches=2 is not to be set: a batch is as large as"),
        ("+trainer.max_steps=1", "max_steps=1 is not to be set: how long a training is"),
        ("trainer.max_epochs=0", "max_epochs=0 is not to be set"),
        (f"+callbacks.stop={{_target_: {WATCHES}.EarlyStopping}}", "EarlyStopping is not for a run: how long"),
        (f"+callbacks.keep={{_target_: {WATCHES}.ModelCheckpoint}}", r"ModelCheckpoint is not .* checkpoint\.keep"),
        ("trainer.barebones=true", "barebones=True is not to be set"),
        ("trainer.overfit_batches=1", "overfit_batches=1 is not to be set: debug=overfit"),
        ("trainer.enable_checkpointing=true", "enable_checkpointing=True is not to be set"),
        ("pretrain.question_share=1.5", "question_share is a share"),
        ("model.n_heads=3", "3 heads do not divide the width 16"),
        ("model.block_size=24", "the block has 24|do not fit"),
        ("held_out_share=2", "between 0 and 1"),
        ("checkpoint.keep=0", "keep"),
        ("init_from=nowhere", "is no run folder"),
    ],
)
def test_what_cannot_work_is_said_before_training(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_run(tmp_path, override)
    assert not list(tmp_path.glob("*/pretrain"))


def test_a_gpu_that_is_not_there_is_told_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"trainer\.accelerator=gpu, but torch sees no NVIDIA GPU here"):
        tiny_run(tmp_path, "trainer=gpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damaged", ["vocabulary.json", "config.yaml", "provenance.json", "metrics.json"])
def test_a_damaged_file_of_a_run_is_named(damaged: str, finished: RunFolder, tmp_path: Path) -> None:
    run = tmp_path / "runs" / finished.root.name
    shutil.copytree(finished.root, run)
    (run / damaged).write_text('{"characters": ["a"')
    with pytest.raises(ConfigError, match=damaged):
        tiny_run(tmp_path / "runs", "stages=[pretrain,finetune,finetune_only,evaluate]")


def test_an_unknown_character_in_any_question_is_found_before_training(tmp_path: Path) -> None:
    from birthplace_lm.world import World

    World(people=24, places=4).write(tmp_path / "data")
    with open(tmp_path / "data" / "birth_test_inputs.tsv", "a", encoding="utf-8") as file:
        file.write("Where was 鈴木 born?\n")
    with pytest.raises(ConfigError, match=r"question \d+ of test \(birth_test_inputs.tsv\): character '鈴'"):
        run(composed("data=files", f"data.dir={tmp_path / 'data'}", f"paths.runs={tmp_path / 'runs'}"))


def test_a_named_folder_never_mixes_two_runs(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "name=mine", "stages=[finetune]")
    assert folder.name == "mine"
    with pytest.raises(ConfigError, match=r"holds another run:\n  model.d_model: 32 here, 16 there"):
        tiny_run(tmp_path, "name=mine", "stages=[finetune]", "model.d_model=32")
    with pytest.raises(ConfigError, match=r"data: .* here, .* there"):
        tiny_run(tmp_path, "name=mine", "stages=[finetune]", "data.people=25")
    tiny_run(tmp_path, "name=mine", "stages=[finetune,evaluate]")  # a stage more is the same run


@pytest.mark.parametrize("logger", ["tensorboard", "wandb"])
def test_mirrors_are_written(logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
    folder = tiny_run(tmp_path, "stages=[finetune,evaluate]", f"logger={logger}", "wandb.mode=offline")
    files = [path for path in folder.root.rglob("*") if path.is_file()]
    assert any("tfevents" in path.name or path.suffix == ".wandb" for path in files)
    assert not any(b"0123456789abcdef" * 2 in path.read_bytes() for path in files)
    tiny_run(tmp_path, "stages=[finetune,evaluate]", f"logger={logger}", "wandb.mode=offline")
    again = [path for path in folder.root.rglob("*") if path.suffix == ".wandb" or "tfevents" in path.name]
    assert set(again) <= set(files)  # the mirrors are not told again what they know


def test_a_mirror_that_comes_later_is_told_of_a_finished_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stages, told = "stages=[finetune,evaluate]", "tensorboard: told before of this run, which is finished"
    folder = tiny_run(tmp_path, stages)
    assert folder.metrics()["mirrored"] == [] and not (folder.root / "evaluate").exists()
    capsys.readouterr()
    tiny_run(tmp_path, stages, "logger=tensorboard")
    assert folder.metrics()["mirrored"] == ["tensorboard"] and told not in capsys.readouterr().out
    (events,) = (folder.root / "evaluate" / "tensorboard").glob("events*")
    written = events.stat().st_size
    tiny_run(tmp_path, stages, "logger=tensorboard")
    assert told in capsys.readouterr().out and events.stat().st_size == written
    tiny_run(tmp_path, stages)
    assert folder.metrics()["mirrored"] == ["tensorboard"]


def test_a_run_that_ended_before_it_was_judged_is_judged_and_mirrored_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scoring, "judge", interrupted)
        tiny_run(tmp_path, "logger=tensorboard")
    (root,) = (path for path in tmp_path.iterdir() if path.is_dir())
    folder = RunFolder(root)
    assert "rows" in folder.metrics() and not folder.is_scored()
    told: list[Any] = []
    monkeypatch.setattr(scoring, "tell_scores", lambda loggers, *_: told.extend(loggers))
    tiny_run(tmp_path, "logger=tensorboard")
    assert folder.is_scored() and (root / "knowledge.json").is_file() and len(told) == 1
    tiny_run(tmp_path, "logger=tensorboard")
    assert len(told) == 1  # once, not again by every repetition


def test_mirrors_are_told_how_a_stage_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(CsvHistory, "finish", lambda self, status="success": told.append(status), raising=False)
    with pytest.raises(NonFiniteLossError):
        tiny_run(tmp_path, "pretrain.optimizer.lr=1e30", "trainer.gradient_clip_val=null", "stages=[pretrain]")
    assert told == ["failed"]
    tiny_run(tmp_path, "stages=[pretrain]")
    assert told == ["failed", "success"]


def test_mirrors_are_told_the_steps_of_all_stages_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that an earlier command trained: the rows of what follows come behind theirs."""
    tiny_run(tmp_path, "stages=[pretrain]")
    seen: list[Any] = []
    monkeypatch.setattr(stages, "labels_of", lambda *arguments: seen.append(arguments[3:5]))
    tiny_run(tmp_path, "stages=[finetune,evaluate]", "logger=csv")
    ((names, steps),) = seen
    assert names == ["pretrain", "finetune"] and list(steps) == names and min(steps.values()) > 0


def test_evaluating_before_training_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no finished stage"):
        tiny_run(tmp_path, "stages=[evaluate]")


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        tiny_run(tmp_path / "file")


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "stages=[]")
    with folder.locked(), pytest.raises(RunInUseError, match=f"in use by process {os.getpid()}"):
        tiny_run(tmp_path, "stages=[]")
    tiny_run(tmp_path, "stages=[]")


def test_a_file_system_without_locks_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(ConfigError, match=r"cannot be written and locked \(Function not implemented\)"):
        tiny_run(tmp_path, "stages=[]")


def test_a_disk_that_is_full_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(ConfigError, match=r"written and locked \(No space left on"):
        patched.setattr("birthplace_lm.run_lock.os.write", full)
        with RunFolder(tmp_path / "run").locked():
            pass
    with RunFolder(tmp_path / "run").locked():  # nobody holds it any more
        assert (tmp_path / "run" / ".lock").read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("{}", "model, attention, positions"),
        ("{attention: x, model: {}, positions: {}, data: {}}", "attention"),
        ("{attention: {}, model: {}, positions: {}, data: {}}", "held_out_share, seed"),
    ],
)
def test_a_configuration_of_no_run_is_told_with_what_it_lacks(text: str, lacking: str, tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "stages=[]")
    (folder.root / "config.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"is of no run: it says nothing of {lacking}$"):
        corpus_of(folder)


def test_what_is_asked_anew_is_not_scored_until_all_of_it_is(
    finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a kill leaves it: predictions of one question, figures of all."""
    folder = RunFolder(shutil.copytree(finished.root, tmp_path / "copy"))
    assert folder.is_scored()
    monkeypatch.setattr(scoring, "print_table", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        scoring.evaluate(folder, corpus_of(folder), inquiry=Inquiry(at_most=1))
    assert not folder.is_scored()
    monkeypatch.setattr(scoring, "answer_questions", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    folder.update_metrics(scored=folder.answering_stages())
    with pytest.raises(KeyboardInterrupt):
        scoring.evaluate(folder, corpus_of(folder))
    assert not folder.is_scored()


def test_an_error_on_a_full_disk_stays_that_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UnfinishedError, match="stopped"), RunFolder(tmp_path).errors_noted():
        raise UnfinishedError("stopped")


def test_fast_dev_run_goes_through_every_stage(tmp_path: Path) -> None:
    folder = tiny_run(tmp_path, "debug=fast_dev_run", "stages=[pretrain,finetune,finetune_only,evaluate]")
    assert folder.stage("pretrain").facts()["steps"] == 1


def test_a_loss_that_is_not_finite_stops_before_the_update(tmp_path: Path) -> None:
    overrides = ["pretrain.optimizer.lr=1e30", "trainer.gradient_clip_val=null", "checkpoint.every_n_steps=1"]
    with pytest.raises(NonFiniteLossError, match=r"nothing of it was saved.*lower learning rate"):
        tiny_run(tmp_path, *overrides)
    (root,) = (path for path in tmp_path.iterdir())
    last = max((root / "pretrain" / "checkpoints").glob("*.ckpt"))
    history = read_history(root / "pretrain" / "metrics.csv")["train/loss"]
    assert load_tree(last)["global_step"] == len(history)  # every step whose loss was finite, and no other


def test_ask_and_evaluate(finished: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = json.loads((finished.root / "predictions" / "dev.jsonl").read_text().splitlines()[0])
    name = row["question"].removeprefix("Where was ").removesuffix(" born?")
    ask.main([str(finished.root), name, name])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and row["prediction"].strip() in lines[0] and lines[0].endswith("%")
    questions = tmp_path / "questions.tsv"
    questions.write_text(f"{row['question']}\t{row['prediction'] or 'x'}\n", encoding="utf-8")
    evaluate.main([str(finished.root), "--questions", str(questions), "--out", str(tmp_path / "out.tsv")])
    assert read_predictions(tmp_path / "out.tsv") == [row["prediction"]]
    questions.write_text(f"Where was {'Ada ' * 100}born?\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        evaluate.main([str(finished.root), "--questions", str(questions)])
    assert "error: --questions: " in capsys.readouterr().err
    before = finished.metrics()
    evaluate.main([str(finished.root)])
    assert finished.metrics() == before


@pytest.mark.parametrize("command", [ask.main, evaluate.main])
def test_a_folder_that_is_no_run(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        command([str(tmp_path), *(["Ada"] if command is ask.main else [])])
    assert stopped.value.code == 2 and "is no run folder" in capsys.readouterr().err


class Weights(pl.Callback):
    """The weights after every step, as training left them."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *arguments: Any) -> None:
        self.seen.append({name: value.clone() for name, value in pl_module.transformer.state_dict().items()})


def test_averaged_weights_are_those_of_the_formula_and_resumption_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    averaged = ("stages=[pretrain]", "averaging@pretrain.averaging=ema", "pretrain.averaging.decay=0.8")
    weights, choices = Weights(), {"attention": "vanilla"}
    folder = run(composed(*TINY, f"paths.runs={tmp_path}", *averaged), choices, callbacks=[weights]).folder
    expected = weights.seen[0]
    for seen in weights.seen[1:]:
        expected = {name: 0.8 * average + 0.2 * seen[name] for name, average in expected.items()}
    found = folder.load_model("pretrain").state_dict()
    assert len(weights.seen) > 10 and all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert not all(torch.allclose(found[name], value, atol=1e-4) for name, value in weights.seen[-1].items())
    stop_at(monkeypatch, 5)
    with pytest.raises(UnfinishedError):
        tiny_run(tmp_path / "again", *averaged)
    monkeypatch.undo()
    again = tiny_run(tmp_path / "again", *averaged)
    assert again.stage("pretrain").weights.read_bytes() == folder.stage("pretrain").weights.read_bytes()


# --------------------------------------------------------------------------------------------------- exact resumption

PROGRAM = """
import sys
from tests.test_stages import TINY, tiny_run
from pathlib import Path
tiny_run(Path(sys.argv[1]), *sys.argv[2:])
"""
WAITING = f"""
import signal
import time
from birthplace_lm.checkpoints import CheckpointEvery

signal.signal(signal.SIGINT, signal.default_int_handler)  # what tests in the background of a shell inherit ignores it
original = CheckpointEvery.on_train_batch_end

def waiting(self, trainer, *arguments):
    end = time.monotonic() + 60
    while trainer.global_step == 8 and not self._requested and time.monotonic() < end:
        time.sleep(0.005)
    original(self, trainer, *arguments)

CheckpointEvery.on_train_batch_end = waiting
{PROGRAM}"""  # for whoever sends it a signal: it is still there then, however late that comes
SLOWED = ["checkpoint.every_n_steps=1", "checkpoint.keep=2", "pretrain.epochs=6", "finetune.epochs=12"]


def start(folder: Path, *overrides: str, program: str = PROGRAM) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, str(folder), *SLOWED, *overrides]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_at(folder: Path, stage: str, step: int) -> int:
    """Start the run and kill -9 it once its history has reached a step; the step that it had reached."""
    process = start(folder)
    try:
        while process.poll() is None:
            reached = _reached(folder, stage)
            if reached >= step:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL, "the run had ended before it was killed"
    return _reached(folder, stage)


def _reached(folder: Path, stage: str) -> int:
    for path in folder.glob(f"*/{stage}/metrics.csv"):
        rows = [row.split(",") for row in path.read_text().splitlines()[1:]]
        return max((int(row[0]) for row in rows if len(row) == 3 and row[2]), default=-1)
    return -1


def final_state(folder: Path) -> dict[str, Any]:
    (root,) = (path for path in folder.iterdir() if path.is_dir())
    state: dict[str, Any] = {}
    for stage in ("pretrain", "finetune"):
        checkpoint = load_tree(max((root / stage / "checkpoints").glob("*.ckpt")))
        state[stage] = (checkpoint["state_dict"], checkpoint["optimizer_states"], checkpoint["lr_schedulers"])
        state[f"{stage} history"] = (root / stage / "metrics.csv").read_text()
        state[f"{stage} weights"] = (root / stage / "weights.safetensors").read_bytes()
    state["predictions"] = (root / "predictions" / "dev.jsonl").read_text()
    return state


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one == other


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    process = start(folder)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return final_state(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kills",
    [[("pretrain", 4), ("pretrain", 5), ("finetune", 7)], [("pretrain", 13), ("finetune", 1), ("finetune", 30)]],
)
def test_killed_anywhere_and_started_again_it_ends_bit_identical(
    uninterrupted: dict[str, Any], kills: list[tuple[str, int]], tmp_path: Path
) -> None:
    for stage, step in kills:
        assert kill_at(tmp_path, stage, step) >= step
    process = start(tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert_same(final_state(tmp_path), uninterrupted)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    kill_at(tmp_path, "pretrain", 6)
    newest = max(tmp_path.glob("*/pretrain/checkpoints/*.ckpt"))
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    process = start(tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert f"{newest.name} is damaged" in errors.decode()
    assert_same(final_state(tmp_path), uninterrupted)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """As if a signal came in this step."""
    original = CheckpointEvery.on_train_batch_end

    def stopping(self: CheckpointEvery, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == step:
            self.request()
        original(self, trainer, *arguments)

    monkeypatch.setattr(CheckpointEvery, "on_train_batch_end", stopping)


def test_a_stop_in_the_middle_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 3)
    with pytest.raises(UnfinishedError, match="pretrain stopped at step 3 of"):
        tiny_run(tmp_path)
    monkeypatch.undo()
    assert tiny_run(tmp_path).stage("finetune").finished


def test_a_run_that_was_asked_fewer_questions_is_not_done(tmp_path: Path) -> None:
    """A sweep that asks more of them would else show the share of those few as its own."""
    asked = (f"paths.runs={tmp_path}", "stages=[finetune,evaluate]")
    tiny_run(tmp_path, *asked[1:], "ask_at_most=3")
    told = [{**settings(*TINY, *asked, f"ask_at_most={n}"), "choices": {"attention": "vanilla"}} for n in (3, 4)]
    done = [prepare(one, []).is_done() for one in told]
    assert done == [True, False] and tiny_run(tmp_path, *asked[1:], "ask_at_most=4").metrics()["dev"]["total"] == 4


def test_in_double_precision_it_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = ("trainer.precision=64-true", "stages=[pretrain]")
    whole = tiny_run(tmp_path / "whole", *double).stage("pretrain").weights
    stop_at(monkeypatch, 3)
    with pytest.raises(UnfinishedError):
        tiny_run(tmp_path / "stopped", *double)
    monkeypatch.undo()
    assert tiny_run(tmp_path / "stopped", *double).stage("pretrain").weights.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("moment", ["on_train_batch_end", "on_validation_end"])
def test_a_stop_at_a_stages_last_step_keeps_the_next_one_from_beginning(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the step, or while the validation runs that follows it."""
    original = getattr(CheckpointEvery, moment)

    def stopping(self: CheckpointEvery, trainer: Any, *arguments: Any) -> None:
        if trainer.global_step == trainer.max_steps:
            self.request()
        original(self, trainer, *arguments)

    monkeypatch.setattr(CheckpointEvery, moment, stopping)
    with pytest.raises(UnfinishedError, match="pretrain is done; the same command again goes on"):
        tiny_run(tmp_path, "pretrain.validations=1")
    assert tiny_run(tmp_path, "pretrain.validations=1", "stages=[pretrain]").stage("pretrain").finished
    with pytest.raises(UnfinishedError, match="finetune is done"):
        tiny_run(tmp_path, "pretrain.validations=1")
    (folder,) = map(RunFolder, tmp_path.iterdir())
    assert folder.stage("finetune").finished and not folder.metrics()
    assert tiny_run(tmp_path, "pretrain.validations=1").metrics()["dev"]["total"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_before_it_ends_the_run(uninterrupted: dict[str, Any], number: int, tmp_path: Path) -> None:
    process = start(tmp_path, "checkpoint.every_n_steps=null", program=WAITING)
    while _reached(tmp_path, "pretrain") < 5 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode not in (0, -number) and "pretrain stopped at step" in errors.decode()
    (saved,) = tmp_path.glob("*/pretrain/checkpoints/*.ckpt")
    assert 5 < load_tree(saved)["global_step"] <= 8
    process = start(tmp_path)
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    assert_same(final_state(tmp_path), uninterrupted)
