"""LightningModules: how a Transformer learns from documents, and how it learns to answer.

Legend: B batch, T time, V vocabulary.
"""

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from birthplace_lm.batches import step_seed
from birthplace_lm.cuda_graphs import ReplayedSum
from birthplace_lm.decoding import answer_questions
from birthplace_lm.distillation import Distillation
from birthplace_lm.finiteness import FiniteNumbers
from birthplace_lm.gradients import sum_term_by_term
from birthplace_lm.layouts import IGNORE, Batch
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer


class _NextCharacter(pl.LightningModule):
    """Next-character prediction with a schedule over positions and dropout that only seed and step decide.

    Validated by answering questions, not by loss: a falling loss says nothing of what can be got out again.
    `optimizer` makes an optimizer of a module, `schedule` gives the factor of the peak learning rate from
    (positions up to and including a step, positions of the whole training). With a `distillation` the text says only a
    part of what comes next, finished models the rest.

    On a GPU a batch's gradient is one CUDA graph, and no step waits for the one before: what is logged is logged every
    `trainer.log_every_n_steps`, and a number that is not finite is found by then, before it reaches a file.
    """

    compiling_pays_from = 8000  # steps of a GPU: what compiling takes is then saved again

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
        self._finite = FiniteNumbers()
        self._replayed: ReplayedSum | None = None
        self._norm = torch.ones(())  # of this step's gradient
        self._first_step = 0  # of this fit

    @property
    def seconds(self) -> float:
        """Wall-clock seconds of training, those before an interruption included."""
        return self.seconds_before + time.monotonic() - self._started

    def configure_optimizers(self) -> OptimizerLRScheduler:
        data = self._planned_data()
        optimizer = self.make_optimizer(self.transformer)
        total = data.positions_at(data.plan.total_steps)
        rate = LambdaLR(optimizer, lambda step: self.schedule(data.positions_at(step + 1), total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}

    def _planned_data(self) -> Any:
        """The DataModule, whose plan says what each step learns from; one epoch of Lightning's is all of the plan."""
        data: Any = getattr(self.trainer, "datamodule", None)
        if getattr(data, "plan", None) is None:
            raise TypeError(
                f"{type(self).__name__} learns from a SpanCorruptionDataModule or a BirthplaceDataModule, whose plan "
                f"says which examples a step has: trainer.fit(module, datamodule=…), not {type(data).__name__}"
            )
        total, steps, several = data.plan.total_steps, self.trainer.max_steps, self.trainer.accumulate_grad_batches
        if steps > total:
            raise ValueError(f"max_steps is {steps}, but the data have {total} steps: raise their epochs instead")
        if several != 1:
            raise ValueError(f"accumulate_grad_batches is {several}: raise the data's batch_size instead")
        return data

    def on_train_start(self) -> None:
        self._started, self._first_step = time.monotonic(), self.global_step
        if self.distillation:
            self.distillation.to(self.device)
        # float16 scales a loss on its way back: gradients that are known before would have vanished
        if self.device.type == "cuda" and self.trainer.scaler is None:
            pays = self.trainer.max_steps - self.global_step >= self.compiling_pays_from
            compiled = self.transformer.passes() if pays else ()
            self._replayed = ReplayedSum(self._sum_of_losses, list(self.transformer.parameters()), compiled)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean cross-entropy a target of the whole batch, the other ranks' share included."""
        if self._replayed:
            self._replayed.prepare(batch.inputs, batch.targets)
        _seed(step_seed(self.seed, self.global_step, self.global_rank), self.device)
        share = self._with_gradient(batch)
        loss = self._of_all_ranks(share.detach())
        self._finite.see("the loss", loss, self.global_step + 1)
        self.characters_seen += batch.n_characters
        if self._tells:
            self.log_dict({"train/loss": loss, "train/characters": float(self.characters_seen)})
        return share if self.trainer.world_size == 1 else share * self.trainer.world_size  # gradients are averaged

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As ever, unless the gradient is there already, is added to none, and no other rank has to hear of it."""
        if self._replayed and self.trainer.world_size == self.trainer.accumulate_grad_batches == 1:
            self._replayed.hand_out()
        else:
            super().backward(loss, *args, **kwargs)

    def _with_gradient(self, batch: Batch) -> Tensor:
        """The sum of a batch's losses, with no more than one group of rows in memory at a time."""
        if self._replayed:
            return self._replayed(batch.inputs, batch.targets, batch.n_targets)
        pairs = zip(batch.inputs, batch.targets, strict=True)
        losses = (self._sum_of_losses(x, y) / batch.n_targets for x, y in pairs)
        if self.trainer.scaler is None:
            return sum_term_by_term(losses, self.transformer.parameters())
        return torch.stack(list(losses)).sum()

    @property
    def _tells(self) -> bool:
        """Whether this step is logged: every one on a processor, where it costs nothing; on a GPU, whose steps end
        sooner than they are told, those that reach a logger, the first of a fit and the last of all."""
        step, every = self.global_step + 1, max(1, self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        return self._replayed is None or step % every == 0 or step in (self._first_step + 1, self.trainer.max_steps)

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
        gradients = [parameter.grad for parameter in _learning(optimizer) if parameter.grad is not None]
        self._norm = torch.nn.utils.get_total_norm(gradients)
        if not self._scale_may_fall():
            self._finite.see("the gradient's norm", self._norm, self.global_step + 1)
        if self._tells:
            self._finite.look()
            rate = optimizer.param_groups[0]["lr"]
            self.log_dict({"train/learning_rate": rate, "train/gradient_norm": self._norm})

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """As Lightning clips, by the norm that is known already."""
        if not gradient_clip_val or gradient_clip_algorithm not in (None, "norm"):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        torch.nn.utils.clip_grads_with_norm_(_learning(optimizer), gradient_clip_val, self._norm)

    def on_validation_start(self) -> None:
        self._finite.look()

    def _scale_may_fall(self) -> bool:
        """Whether float16's scaler, which leaves such a step out by itself, has a lower scale left to try."""
        scaler = self.trainer.scaler
        return scaler is not None and scaler.get_scale() > 1

    def validation_step(self, batch: dict[str, list[str]], batch_idx: int) -> None:
        """Log the exact match of greedy answers to all validation questions."""
        answers = answer_questions(self.transformer, self.tokenizer, batch["questions"])
        right = [answer.text == expected for answer, expected in zip(answers, batch["answers"], strict=True)]
        self.log("validation/exact_match", sum(right) / len(right), batch_size=len(right), rank_zero_only=True)

    def on_train_end(self) -> None:
        self._finite.look()
        self._replayed = None  # a finished fit holds no memory of the GPU's

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._finite.look()
        checkpoint["progress"] = {"characters": self.characters_seen, "seconds": self.seconds}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.characters_seen = checkpoint["progress"]["characters"]
        self.seconds_before = checkpoint["progress"]["seconds"]


def _learning(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _seed(seed: int, device: torch.device) -> None:
    """torch.manual_seed for the processor and one GPU: that one writes down a stack trace for every absent kind."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)


class PretrainModule(_NextCharacter):
    """Learns to predict every next character of corrupted documents: what it stores, it stores here."""


class FinetuneModule(_NextCharacter):
    """Learns how questions are answered."""
