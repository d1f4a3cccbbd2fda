"""One step against the textbook: the loss, its gradient, the learning rate, and what the published recipe says."""

from dataclasses import replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.plugins import MixedPrecision

from birthplace_lm.callbacks import describe
from birthplace_lm.corruption.random_spans import RandomSpans
from birthplace_lm.datamodules import BirthplaceDataModule, SpanCorruptionDataModule
from birthplace_lm.decoding import answer_questions
from birthplace_lm.finiteness import NonFiniteLossError
from birthplace_lm.layouts import IGNORE
from birthplace_lm.lightning_modules import FinetuneModule, PretrainModule
from birthplace_lm.schedules import WarmupCosine
from tests.helpers import small_corpus, standing_at, tiny, tokenizer_of
from tests.test_configs import settings

CORPUS = small_corpus()
TOKENIZER = tokenizer_of(CORPUS)


def learner(kind: type[PretrainModule | FinetuneModule] = PretrainModule) -> PretrainModule | FinetuneModule:
    model = tiny(vocabulary_size=len(TOKENIZER), block_size=64)
    schedule = WarmupCosine(warmup_positions=500)
    return kind(model, TOKENIZER, lambda module: torch.optim.SGD(module.parameters(), lr=0.5), schedule)


def pretraining(**knobs: Any) -> SpanCorruptionDataModule:
    knobs = {"batch_size": 6, "epochs": 4, "micro_batches": 3, **knobs}
    return SpanCorruptionDataModule(CORPUS.documents, [], TOKENIZER, RandomSpans(64), 64, **knobs)


class Recorder(pl.Callback):
    """Learning rate of every step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(
    module: pl.LightningModule,
    data: pl.LightningDataModule,
    steps: int,
    *callbacks: pl.Callback,
    clip: float | None = None,
    plugins: Any = None,
) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, callbacks=list(callbacks), logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=1.0, num_sanity_val_steps=0,
        val_check_interval=steps, check_val_every_n_epoch=None, gradient_clip_val=clip, plugins=plugins,
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    return trainer


def test_a_step_is_gradient_descent_on_the_mean_cross_entropy_of_the_padded_batch() -> None:
    module = learner()
    weights = [parameter.detach().clone() for parameter in module.transformer.parameters()]
    batch = next(iter(pretraining(micro_batches=1).train_dataloader()))
    (x,), (y,) = batch.inputs, batch.targets
    loss = F.cross_entropy(module.transformer(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE)
    gradients = torch.autograd.grad(loss, list(module.transformer.parameters()))
    rate = 0.5 * WarmupCosine(warmup_positions=500)(6 * 63, 4 * 12 * 63)
    trainer = fit(module, pretraining(), 1)
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(loss.item(), rel=1e-5)
    for before, gradient, after in zip(weights, gradients, module.transformer.parameters(), strict=True):
        torch.testing.assert_close(after.detach(), before - rate * gradient, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_is_too_long_is_cut_to_its_length() -> None:
    """The direction stays: plain gradient descent then moves the weights by rate times the length that is allowed."""
    moves = []
    for clip in (None, 1e-3):
        module = learner()
        before = torch.nn.utils.parameters_to_vector(module.transformer.parameters()).detach().double()
        fit(module, pretraining(), 1, clip=clip)
        moves.append(torch.nn.utils.parameters_to_vector(module.transformer.parameters()).detach().double() - before)
    free, cut = moves
    rate = 0.5 * WarmupCosine(warmup_positions=500)(6 * 63, 4 * 12 * 63)
    assert free.norm() > 100 * rate * 1e-3 and cut.norm() == pytest.approx(rate * 1e-3, rel=0.02)
    assert F.cosine_similarity(free, cut, dim=0) > 0.99


def test_the_learning_rate_follows_the_schedule_over_positions() -> None:
    recorder, data, schedule = Recorder(), pretraining(), WarmupCosine(warmup_positions=500)
    fit(learner(), data, data.plan.total_steps, recorder)
    seen = [6 * 63 * (step + 1) for step in range(8)]
    assert recorder.rates == pytest.approx([0.5 * schedule(positions, 4 * 12 * 63) for positions in seen])
    assert len(set(recorder.rates)) > 5


@pytest.mark.parametrize("kind", [PretrainModule, FinetuneModule])
def test_both_are_validated_by_the_share_of_questions_they_answer_right(
    kind: type[PretrainModule | FinetuneModule],
) -> None:
    module = learner(kind)
    module.schedule = lambda positions, total: 0.0  # learns nothing, so that its answers are known beforehand
    said = answer_questions(module.transformer, TOKENIZER, [question.text for question in CORPUS.dev])
    asked = [replace(question, answer=answer.text) for question, answer in zip(CORPUS.dev, said, strict=True)]
    asked[0] = replace(asked[0], answer=f"not {asked[0].answer}")
    data: pl.LightningDataModule = pretraining(validation=asked)
    if kind is FinetuneModule:
        data = BirthplaceDataModule(CORPUS.train, asked, TOKENIZER, 64, batch_size=4, epochs=40)
    trainer = fit(module, data, 2)
    assert float(trainer.callback_metrics["validation/exact_match"]) == pytest.approx(1 - 1 / len(asked))


def test_a_training_goes_on_counting_its_characters_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("birthplace_lm.lightning_modules.time.monotonic", lambda: now)
    first, then = learner(), learner()
    first.characters_seen, now = 600, 1030.0
    checkpoint: dict[str, Any] = {}
    first.on_save_checkpoint(checkpoint)
    assert checkpoint["progress"] == {"characters": 600, "seconds": 30.0}
    now = 5000.0  # another day
    then.on_load_checkpoint(checkpoint)
    then.trainer = standing_at(7)
    then.on_train_start()
    now = 5012.0
    assert (then.characters_seen, then.seconds) == (600, 42.0)


def test_a_trainer_of_ones_own_is_told_what_it_cannot_have() -> None:
    with pytest.raises(ValueError, match="max_steps is 9, but the data have 8 steps: raise their epochs"):
        fit(learner(), pretraining(), 9)
    loaded = pretraining().train_dataloader()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    with pytest.raises(TypeError, match=r"PretrainModule learns from a SpanCorruptionDataModule .* not NoneType"):
        pl.Trainer(max_steps=1, **quiet).fit(learner(), loaded)
    with pytest.raises(ValueError, match="accumulate_grad_batches is 2: raise the data's batch_size"):
        pl.Trainer(max_steps=1, accumulate_grad_batches=2, **quiet).fit(learner(), datamodule=pretraining())


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    module = learner()
    with torch.no_grad():
        module.transformer.head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLossError, match="the loss is nan at step 1"):
        fit(module, pretraining(), 1)


def test_a_gradient_that_is_not_finite_is_an_error_before_the_update() -> None:
    module = learner()
    before = [parameter.detach().clone() for parameter in module.transformer.parameters()]
    module.transformer.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(
        NonFiniteLossError, match=r"the gradient's norm is (nan|inf) at step 1: nothing of it was saved"
    ):
        fit(module, pretraining(), 1)
    assert all(map(torch.equal, before, module.transformer.parameters()))


def test_in_float16_the_loss_is_scaled_before_it_goes_back() -> None:
    """Small gradients are 0 in float16 unless the loss is scaled on its way; behind it would be too late."""
    norms: list[float] = []
    for precision in (MixedPrecision("bf16-mixed", "cpu"), MixedPrecision("16-mixed", "cpu", _scaler(1024.0))):
        module = learner()
        module.transformer.head.register_full_backward_hook(lambda _, into, out: norms.append(out[0].norm().item()))
        fit(module, pretraining(micro_batches=1), 1, plugins=precision)
    assert norms[1] == pytest.approx(1024 * norms[0], rel=0.05)


def test_in_float16_a_scale_that_is_too_large_falls_and_the_step_is_left_out() -> None:
    module, scaler = learner(), _scaler(2.0**40)
    before = [parameter.detach().clone() for parameter in module.transformer.parameters()]
    fit(module, pretraining(), 1, plugins=MixedPrecision("16-mixed", "cpu", scaler))
    assert scaler.get_scale() == 2.0**39 and all(map(torch.equal, before, module.transformer.parameters()))


def test_in_float16_a_gradient_that_no_scale_makes_finite_is_an_error() -> None:
    module = learner()
    module.transformer.head.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"the gradient's norm is (nan|inf) at step 4"):
        fit(module, pretraining(), 8, plugins=MixedPrecision("16-mixed", "cpu", _scaler(8.0)))


def _scaler(scale: float) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale)


def test_the_gradients_norm_is_logged_as_it_is_before_clipping() -> None:
    module = learner()
    batch = next(iter(pretraining().train_dataloader()))
    sums = [F.cross_entropy(module.transformer(x).flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum")
            for x, y in zip(batch.inputs, batch.targets, strict=True)]  # fmt: skip
    gradients = torch.autograd.grad(torch.stack(sums).sum() / batch.n_targets, list(module.transformer.parameters()))
    trainer = fit(module, pretraining(), 1, clip=1e-3)
    expected = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert float(trainer.callback_metrics["train/gradient_norm"]) == pytest.approx(expected.item(), rel=1e-4)


def test_the_decoded_example_shows_what_is_asked() -> None:
    data = BirthplaceDataModule(CORPUS.train[:1], [], TOKENIZER, 64)
    data.trainer = standing_at(0, 0, 1)
    sees, says = describe(next(iter(data.train_dataloader())), TOKENIZER).splitlines()
    question = CORPUS.train[0]
    assert sees.endswith(f"{question.text}⁇{question.answer}")
    assert says.split("·")[-1] == f"{question.answer}⁇" and says.count("·") == len(question.text)


def test_the_reference_recipe_is_the_published_one() -> None:
    config = settings("experiment=cs224n_vanilla", "data.dir=x")
    table = {stage: (config[stage]["epochs"], config[stage]["batch_size"], config[stage]["optimizer"]["lr"])
             for stage in ("pretrain", "finetune", "finetune_only")}  # fmt: skip
    assert table == {"pretrain": (650, 128, 6e-3), "finetune": (10, 256, 6e-4), "finetune_only": (75, 256, 6e-4)}
    for stage in table:
        assert config[stage]["optimizer"]["betas"] == [0.9, 0.95] and config[stage]["optimizer"]["weight_decay"] == 0.1
        assert config[stage]["shuffle"] is True and config[stage]["schedule"]["warmup_positions"] == 512 * 20
    model = {key: config["model"][key] for key in ("n_layers", "n_heads", "d_model", "block_size", "dropout")}
    assert model == {"n_layers": 4, "n_heads": 8, "d_model": 256, "block_size": 128, "dropout": 0.1}
    assert config["trainer"]["gradient_clip_val"] == 1.0
    law = {"rate": 0.25, "min_length": 4, "max_length": None, "window": "start", "third_sentinel": False}
    assert law.items() <= config["corruption"].items()
