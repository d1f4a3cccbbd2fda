"""On a GPU: a replayed step is the one computed kernel by kernel, whichever attention, and a training is the same."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from birthplace_lm.checkpoints import CheckpointEvery, SafetensorsCheckpointIO
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.cuda_graphs import ReplayedSum
from birthplace_lm.datamodules import SpanCorruptionDataModule
from birthplace_lm.finiteness import NonFiniteLossError
from birthplace_lm.gradients import sum_term_by_term
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.lightning_modules import PretrainModule
from birthplace_lm.optimization import adamw, muon
from birthplace_lm.schedules import WarmupCosine
from birthplace_lm.transformer import Transformer
from tests.helpers import POSITIONS, VARIANTS, fits, small_corpus, tiny, tokenizer_of
from tests.test_datamodules import examples

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CORPUS = small_corpus()
TOKENIZER = tokenizer_of(CORPUS)


def model_of(attention: str = "vanilla", positions: str = "learned", dropout: float = 0.1) -> Transformer:
    model = tiny(attention, positions, vocabulary_size=len(TOKENIZER), block_size=64, dropout=dropout)
    return model.cuda().train()


def sum_of_losses(model: Transformer) -> Callable[[Tensor, Tensor], Tensor]:
    def of(x: Tensor, y: Tensor) -> Tensor:
        logits = model(x).flatten(0, 1)
        return F.cross_entropy(logits, y.flatten(), ignore_index=IGNORE, reduction="sum")

    return of


def pretraining(**knobs: Any) -> SpanCorruptionDataModule:
    knobs = {"batch_size": 5, "epochs": 8, "micro_batches": 2, "policy": RandomSpans(64), **knobs}
    return SpanCorruptionDataModule(CORPUS.documents, CORPUS.train, TOKENIZER, knobs.pop("policy"), 64, **knobs)


def batches(n: int) -> list[Batch]:
    found = []
    for batch in list(pretraining(batch_size=12).train_dataloader())[:n]:
        inputs, targets = ([tensor.cuda() for tensor in tensors] for tensors in (batch.inputs, batch.targets))
        found.append(Batch(inputs, targets, batch.n_targets, batch.n_characters))
    return found


@pytest.fixture(scope="module", autouse=True)
def recorded_before() -> None:
    """On an H200 (torch 2.11) a pytest process failed to record its first graph or its second, and no other.

    Outside of pytest, in trainings and in a script that does what the first test does, none did. Garbage that was
    collected in the midst of it may be why; nothing is any more, which was not seen on a GPU yet.
    """
    model, (batch,) = model_of(), batches(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ReplayedSum(sum_of_losses(model), list(model.parameters())).prepare(batch.inputs, batch.targets)


COMBINATIONS = [(variant, "learned") for variant in VARIANTS] + [("vanilla", positions) for positions in POSITIONS]


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize(("attention", "positions"), [pair for pair in COMBINATIONS if fits(*pair)])
def test_a_replayed_gradient_is_that_of_the_step_kernel_by_kernel(
    attention: str, positions: str, bfloat16: bool, recwarn: pytest.WarningsRecorder
) -> None:
    """Also with other examples, other weights and other chances than it was recorded with."""
    model = model_of(attention, positions)
    check_replays(model, ReplayedSum(sum_of_losses(model), list(model.parameters())), bfloat16)
    assert not [str(warning.message) for warning in recwarn if "this model cannot be" in str(warning.message)]


@pytest.mark.slow
@pytest.mark.parametrize("attention", VARIANTS)
def test_so_it_is_where_its_blocks_are_compiled(attention: str, recwarn: pytest.WarningsRecorder) -> None:
    """With no dropout: compiled it draws other numbers."""
    model = model_of(attention, dropout=0.0)
    parameters = list(model.parameters())
    check_replays(model, ReplayedSum(sum_of_losses(model), parameters, model.passes()), bfloat16=True)
    assert not [str(warning.message) for warning in recwarn if "this model cannot be" in str(warning.message)]
    assert all(name not in vars(module) for module, name in model.passes())


def check_replays(model: Transformer, replayed: ReplayedSum, bfloat16: bool) -> None:
    term, parameters = sum_of_losses(model), list(model.parameters())
    for step, batch in enumerate(batches(3)):
        found = []
        for way in (replayed, lambda x, y, n: sum_term_by_term(map(lambda *pair: term(*pair) / n, x, y), parameters)):
            with torch.autocast("cuda", torch.bfloat16, enabled=bfloat16):
                replayed.prepare(batch.inputs, batch.targets)
                torch.manual_seed(step)
                total = way(batch.inputs, batch.targets, batch.n_targets)
            model.zero_grad()
            total.backward()
            found.append([total.detach(), *(p.grad.clone() for p in parameters if p.grad is not None)])
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-2 if bfloat16 else 1e-4, atol=1e-3 if bfloat16 else 1e-6)
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(0.01 * torch.randn_like(parameter))


@pytest.mark.parametrize("attention", ["vanilla", "grouped_query", "sliding_window", "synthesizer", "talking_heads"])
def test_what_is_dropped_on_the_way_there_is_dropped_on_the_way_back(attention: str) -> None:
    """Along its own direction a gradient's norm is the loss's slope, if both see the same weights dropped.

    Of the width and in the arithmetic of a real training, for which torch has other kernels than for small ones.
    """
    torch.manual_seed(0)
    model = tiny(
        attention, "learned", vocabulary_size=len(TOKENIZER), d_model=256, n_heads=8, block_size=128, dropout=0.3
    )
    model = model.cuda().train()
    parameters = list(model.parameters())
    replayed = ReplayedSum(sum_of_losses(model), parameters)
    x = torch.randint(3, len(TOKENIZER), (32, 112), device="cuda")
    y = x.roll(-1, 1)

    def loss() -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            replayed.prepare([x], [y])
            torch.manual_seed(7)
            return replayed([x], [y], y.numel())

    for _ in range(20):  # to weights that attend to something
        loss().backward()
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.data.sub_(parameter.grad, alpha=0.3)
        model.zero_grad()
    loss().backward()
    gradient = {p: p.grad.clone() for p in parameters if p.grad is not None}
    norm = torch.stack([g.square().sum() for g in gradient.values()]).sum().sqrt()
    step = 0.05 / norm
    ends = []
    for sign in (1, -2):
        for parameter, g in gradient.items():
            parameter.data.add_(g, alpha=float(sign * step / norm))
        ends.append(loss().item())
    assert (ends[0] - ends[1]) / (2 * float(step)) == pytest.approx(float(norm), rel=0.04)


def test_what_cannot_be_recorded_is_computed_kernel_by_kernel() -> None:
    model = model_of(dropout=0.0)

    def looking(x: Tensor, y: Tensor) -> Tensor:
        loss = sum_of_losses(model)(x, y)
        return loss if loss.item() > 0 else -loss

    replayed, (batch,) = ReplayedSum(looking, list(model.parameters())), batches(1)
    with pytest.warns(UserWarning, match="cannot be recorded as a CUDA graph"):
        replayed.prepare(batch.inputs, batch.targets)
    replayed(batch.inputs, batch.targets, batch.n_targets).backward()
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    pairs = zip(batch.inputs, batch.targets, strict=True)
    torch.stack([looking(x, y) / batch.n_targets for x, y in pairs]).sum().backward()
    for one, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-6)


def with_adamw(model: Transformer, lr: float) -> torch.optim.Optimizer:
    return adamw(model, lr, (0.9, 0.95), 0.1)


def with_muon(model: Transformer, lr: float) -> torch.optim.Optimizer:
    return muon(model, lr, lr, (0.9, 0.95), 0.1, compute_dtype="float32")


def trained(
    accelerator: str,
    steps: int,
    folder: Path | None = None,
    resume: Path | None = None,
    make: Any = with_adamw,
    precision: Any = "32-true",
) -> tuple[Transformer, pl.Trainer]:
    module = PretrainModule(
        tiny(vocabulary_size=len(TOKENIZER), block_size=64), TOKENIZER,
        lambda model: make(model, 1e-3), WarmupCosine(), seed=0,
    )  # fmt: skip
    callbacks: list[pl.Callback] = [CheckpointEvery(folder, every_n_steps=5)] if folder else []
    trainer = pl.Trainer(
        accelerator=accelerator, devices=1, max_steps=steps, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0, gradient_clip_val=1.0,
        callbacks=callbacks, plugins=[SafetensorsCheckpointIO()], precision=precision,
    )  # fmt: skip
    trainer.fit(module, datamodule=pretraining(question_share=0.3), ckpt_path=resume)
    return module.transformer.cpu(), trainer


@pytest.mark.parametrize("make", [with_adamw, with_muon])
def test_a_training_on_a_gpu_is_the_one_on_a_processor(make: Any) -> None:
    (there, of_there), (here, of_here) = trained("gpu", 12, make=make), trained("cpu", 12, make=make)
    for name in ("train/loss", "train/gradient_norm", "train/learning_rate", "train/characters"):
        assert float(of_there.callback_metrics[name]) == pytest.approx(float(of_here.callback_metrics[name]), rel=1e-3)
    for one, other in zip(there.parameters(), here.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-3)


def test_a_training_on_a_gpu_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    whole, _ = trained("gpu", 12, make=with_adamw)
    trained("gpu", 10, tmp_path, make=with_adamw)
    resumed, _ = trained("gpu", 12, None, tmp_path / "step_00000005.ckpt", make=with_adamw)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_reaches_no_checkpoint(tmp_path: Path) -> None:
    def spoiling(model: Transformer, lr: float) -> torch.optim.Optimizer:
        with torch.no_grad():
            model.head.weight.fill_(float("nan"))
        return with_adamw(model, lr)

    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 1: nothing of it was saved"):
        trained("gpu", 10, tmp_path, make=spoiling)
    assert not list(tmp_path.glob("*.ckpt"))


def test_float16_goes_another_way_and_learns_too() -> None:
    _, trainer = trained("gpu", 12, make=with_adamw, precision="16-mixed")
    _, exact = trained("gpu", 12, make=with_adamw)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(
        float(exact.callback_metrics["train/loss"]), rel=2e-2
    )


def test_batches_made_for_a_gpu_hold_the_same_examples_in_one_shape() -> None:
    knobs = {"document_prefix": "Where was ", "question_wordings": ["{name} was born in"]}
    data = pretraining(question_share=0.3, policy=RandomSpans(64, max_length=40), **knobs)
    here = [sorted(examples(batch)) for batch in data.train_dataloader()]
    data.trainer = pl.Trainer(accelerator="gpu", devices=1, logger=False, enable_checkpointing=False)
    there, shapes = [], set()
    for batch in data.train_dataloader():
        assert all(x.device.type == "cuda" for x in (*batch.inputs, *batch.targets))
        shapes |= {tuple(x.shape for x in batch.inputs)}
        there.append(sorted(pair for pair in examples(batch) if pair[0]))
    assert there == here and shapes == {((5, 63),)}
