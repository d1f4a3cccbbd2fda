"""Learning what finished runs expect: the loss by its definition, the runs that may teach, and exact resumption."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from birthplace_lm.composing import ConfigError
from birthplace_lm.distillation import Distillation
from birthplace_lm.jobs import prepare
from birthplace_lm.layouts import IGNORE
from birthplace_lm.runs import RunFolder
from birthplace_lm.stopping import UnfinishedError
from birthplace_lm.teachers import teacher
from birthplace_lm.tokenizer import CharTokenizer
from tests.helpers import roughened, tiny
from tests.test_configs import settings
from tests.test_stages import TINY, stop_at, tiny_run

ALONE = "stages=[pretrain]"


def example() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.arange(36).reshape(3, 12) % 17 + 2
    y = x.roll(-1, 1)
    y[0, :4], y[2, 9:] = IGNORE, IGNORE
    return x, y


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("n_teachers", [1, 2])
def test_the_loss_is_that_of_the_text_and_of_the_teachers_mean(
    share: float, temperature: float, n_teachers: int
) -> None:
    student, *teachers = (roughened(tiny(seed=seed)) for seed in range(1 + n_teachers))
    x, y = example()
    logits, expected = student(x), 0.0
    for row, position in (y != IGNORE).nonzero().tolist():  # target by target, as the definition has it
        p = sum(F.softmax(teacher(x)[row, position] / temperature, -1) for teacher in teachers) / n_teachers
        q = F.log_softmax(logits[row, position] / temperature, -1)
        text = F.cross_entropy(logits[row, position], y[row, position])
        expected = expected + (1 - share) * text - share * temperature**2 * (p * q).sum()
    found = Distillation(teachers, share, temperature).sum_of_losses(logits, x, y, IGNORE)
    torch.testing.assert_close(found, expected)


def test_teachers_stay_as_they_are_and_dropout_is_off_in_them() -> None:
    teacher = roughened(tiny(dropout=0.5)).train()
    distillation = Distillation([teacher])
    x, y = example()
    logits = torch.zeros(3, 12, 20, requires_grad=True)
    first, again = (distillation.sum_of_losses(logits, x, y, IGNORE) for _ in range(2))
    first.backward()
    assert first == again and logits.grad is not None
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters())


def test_a_student_that_expects_what_its_teacher_expects_has_nothing_to_learn() -> None:
    teacher = roughened(tiny())
    student, (x, y) = deepcopy(teacher), example()
    loss = Distillation([teacher], share=1.0).sum_of_losses(student(x), x, y, IGNORE)
    loss.backward()
    assert loss > 1 and max(float(parameter.grad.abs().max()) for parameter in student.parameters()) < 1e-5


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"share": 0.0}, r"in \(0, 1\], not 0.0"),
        ({"share": 1.1}, "not 1.1"),
        ({"temperature": 0.0}, "above 0, not 0.0"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation([tiny()], **knobs)


def taught(*teachers: RunFolder | str, more: tuple[str, ...] = ()) -> list[str]:
    runs = ",".join(str(teacher.root if isinstance(teacher, RunFolder) else teacher) for teacher in teachers)
    return ["distillation@pretrain.distillation=runs", f"pretrain.distillation.runs=[{runs}]", ALONE, *more]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    folder = tmp_path_factory.mktemp("teachers")
    return [tiny_run(folder, f"seed={seed}", ALONE) for seed in (3, 4)]


def weights(run: RunFolder) -> dict[str, torch.Tensor]:
    return run.load_model("pretrain").state_dict()


def test_a_run_learns_from_others_and_goes_on_to_the_same_bits(
    tmp_path: Path, teachers: list[RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    learning = taught(*teachers)
    whole, alone = tiny_run(tmp_path / "whole", *learning), tiny_run(tmp_path / "alone", ALONE)
    with monkeypatch.context() as patched, pytest.raises(UnfinishedError):
        stop_at(patched, 3)
        tiny_run(tmp_path / "broken", *learning)
    resumed = tiny_run(tmp_path / "broken", *learning)
    assert resumed.name == whole.name != alone.name
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(resumed)[name])
    assert any(not torch.equal(value, weights(alone)[name]) for name, value in weights(whole).items())
    assert whole.load_model("pretrain").n_parameters() == alone.load_model("pretrain").n_parameters()


def test_the_name_knows_the_teachers_weights_and_neither_their_place_nor_their_order(
    tmp_path: Path, teachers: list[RunFolder]
) -> None:
    def job(*runs: RunFolder | str) -> Any:
        return prepare(settings(*TINY, *taught(*runs)), ())

    moved = tmp_path / teachers[0].name
    moved.symlink_to(teachers[0].root)
    both, other_way, one = job(*teachers), job(teachers[1], str(moved)), job(teachers[0])
    assert both.folder.name == other_way.folder.name != one.folder.name
    assert str(tmp_path) not in str(other_way.record()) and teachers[0].name in str(other_way.record())
    assert [run.name for run in both.teachers] == [run.name for run in other_way.teachers]


def test_a_teacher_knows_biographies_and_was_not_finetuned(tmp_path: Path, teachers: list[RunFolder]) -> None:
    both = tiny_run(tmp_path, "stages=[pretrain,finetune]")
    (teaching,) = prepare(settings(*TINY, *taught(both)), ()).teachers
    sums, tokenizer = both.data_fingerprint(), both.tokenizer()
    found = teacher(teaching, sums, tokenizer, 64).state_dict()
    pretrained, finetuned = both.load_model("pretrain").state_dict(), both.load_model("finetune").state_dict()
    assert all(torch.equal(value, pretrained[name]) for name, value in found.items())
    assert any(not torch.equal(value, finetuned[name]) for name, value in found.items())
    with pytest.raises(ConfigError, match="has another vocabulary"):
        teacher(teaching, sums, CharTokenizer([*tokenizer.characters, "☃"]), 64)


def test_who_could_tell_what_is_held_out_may_not_teach(tmp_path: Path, teachers: list[RunFolder]) -> None:
    for more in ("held_out_share=0.3", "data.seed=5"):
        with pytest.raises(ConfigError, match="trained on other people or another split of them"):
            prepare(settings(*TINY, *taught(*teachers, more=(more,))), ())
    with pytest.raises(ConfigError, match=r"sees 128 characters where this model sees 160"):
        prepare(settings(*TINY, *taught(*teachers, more=("model.block_size=160",))), ())
    with pytest.raises(ConfigError, match="is no run folder"):
        prepare(settings(*TINY, *taught(str(tmp_path / "nothing"))), ())
    with pytest.raises(ConfigError, match=r"list of one or more finished runs, not \[\]"):
        prepare(settings(*TINY, *taught()), ())
    with pytest.raises(ConfigError, match=r"pretrain.distillation: .*not 2.0"):
        prepare(settings(*TINY, *taught(*teachers, more=("pretrain.distillation.share=2.0",))), ())
