"""LightningModules: how a Transformer learns from documents, and how it learns to answer.

Legend: B batch, T time, V vocabulary.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from birthplace_lm.batches import step_seed
from birthplace_lm.datamodules import IGNORE, Batch
from birthplace_lm.decoding import answer_questions
from birthplace_lm.distillation import Distillation
from birthplace_lm.gradients import sum_term_by_term
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer


class NonFiniteLossError(RuntimeError):
    """The loss or its gradient became NaN or infinite; the weights were not touched by that step."""

    def __init__(self, what: str, value: float, step: int):
        super().__init__(
            f"{what} is {value} at step {step}: nothing was updated by it, and earlier checkpoints stay. "
            "A lower learning rate or a longer warm-up makes a run of its own"
        )


class _NextCharacter(pl.LightningModule):
    """Next-character prediction with a schedule over positions and dropout that only seed and step decide.

    Validated by answering questions, not by loss: a falling loss says nothing of what can be got out again.
    `optimizer` makes an optimizer of a module, `schedule` gives the factor of the peak learning rate from
    (positions up to and including a step, positions of the whole training). With a `distillation` the text says only a
    part of what comes next, finished models the rest.
    """

    def __init__(
        self,
        transformer: Transformer,
        tokenizer: CharTokenizer,
        optimizer: Callable[[nn.Module], Optimizer],
        schedule: Callable[[int, int], float],
        seed: int = 0,
        distillation: Distillation | None = None,
    ):
        super().__init__()
        self.distillation = distillation
        self.transformer, self.tokenizer = transformer, tokenizer
        self.make_optimizer, self.schedule, self.seed = optimizer, schedule, seed
        self.characters_seen, self.seconds_before = 0, 0.0  # of earlier sessions of this training too
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, those before an interruption included."""
        return self.seconds_before + time.monotonic() - self._started

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer, data = self.make_optimizer(self.transformer), self.trainer.datamodule  # type: ignore[attr-defined]
        total = data.positions_at(data.plan.total_steps)
        rate = LambdaLR(optimizer, lambda step: self.schedule(data.positions_at(step + 1), total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def on_train_start(self) -> None:
        self._started = time.monotonic()
        if self.distillation:
            self.distillation.to(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy a target of the whole batch, the other ranks' share included."""
        torch.manual_seed(step_seed(self.seed, self.global_step, self.global_rank))
        share = self._with_gradient(
            self._sum_of_losses(x, y) / batch.n_targets for x, y in zip(batch.inputs, batch.targets, strict=True)
        )
        loss = self._of_all_ranks(share.detach())
        if not torch.isfinite(loss):
            raise NonFiniteLossError("the loss", loss.item(), self.global_step + 1)
        self.characters_seen += batch.n_characters
        self.log_dict({"train/loss": loss, "train/characters": float(self.characters_seen)})
        return share * self.trainer.world_size  # ranks' gradients are averaged

    def _with_gradient(self, losses: Iterator[Tensor]) -> Tensor:
        """The sum of a batch's losses, with no more than one group of rows in memory at a time."""
        if self.trainer.scaler is None:
            return sum_term_by_term(losses, self.transformer.parameters())
        return torch.stack(list(losses)).sum()  # float16's gradients would vanish if they were not scaled on the way

    def _of_all_ranks(self, share: Tensor) -> Tensor:
        """The sum of what every rank has: a number by which all of them go on or stop alike."""
        if self.trainer.world_size == 1:
            return share
        return self.trainer.strategy.reduce(share, reduce_op="sum")

    def _sum_of_losses(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.transformer(x)  # (B, T, V)
        if self.distillation:
            return self.distillation.sum_of_losses(logits, x, y, IGNORE)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum")

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Called before clipping: the gradient is logged as it is, and one that would spoil the weights stops here."""
        gradients = [parameter.grad for parameter in self.parameters() if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if not torch.isfinite(norm) and not self._scale_may_fall():
            raise NonFiniteLossError("the gradient's norm", norm.item(), self.global_step + 1)
        self.log_dict({"train/learning_rate": optimizer.param_groups[0]["lr"], "train/gradient_norm": norm})

    def _scale_may_fall(self) -> bool:
        """Whether float16's scaler, which leaves such a step out by itself, has a lower scale left to try."""
        scaler = self.trainer.scaler
        return scaler is not None and scaler.get_scale() > 1

    def validation_step(self, batch: dict[str, list[str]], batch_idx: int) -> None:
        """Log the exact match of greedy answers to all validation questions."""
        answers = answer_questions(self.transformer, self.tokenizer, batch["questions"])
        right = [answer.text == expected for answer, expected in zip(answers, batch["answers"], strict=True)]
        self.log("validation/exact_match", sum(right) / len(right), batch_size=len(right), rank_zero_only=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = {"characters": self.characters_seen, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.characters_seen = checkpoint["progress"]["characters"]
        self.seconds_before = checkpoint["progress"]["seconds"]


class PretrainModule(_NextCharacter):
    """Learns to predict every next character of corrupted documents: what it stores, it stores here."""


class FinetuneModule(_NextCharacter):
    """Learns how questions are answered."""
