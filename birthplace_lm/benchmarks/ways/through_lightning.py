"""This package as birthplace-train runs it, without its files."""

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim import Optimizer

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY
from birthplace_lm.benchmarks.ways.recording import data_of
from birthplace_lm.lightning_modules import PretrainModule
from birthplace_lm.optimization import adamw
from birthplace_lm.schedules import WarmupCosine
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer

_RECORDING = 20  # steps


class ThroughLightning:
    """A Trainer, the module and the DataModule; setting up the Trainer is not counted, as a run does it once."""

    def __init__(
        self,
        documents: Sequence[str],
        tokenizer: CharTokenizer,
        model: Transformer,
        block_size: int,
        batch_size: int,
        on_gpu: bool = False,
    ):
        def optimizer(module: nn.Module) -> Optimizer:
            return adamw(module, LR, BETAS, WEIGHT_DECAY)

        self.model, self.on_gpu = model, on_gpu
        self.learner = PretrainModule(model, tokenizer, optimizer, WarmupCosine(), seed=0)
        self.data = data_of(documents, tokenizer, block_size, batch_size)
        if on_gpu:
            self.learner.compiling_pays_from = 0

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps, from the first of the training on.

        On a GPU those of some steps before are not counted, in which the step is recorded, as it is once in a run.
        """
        watch = _Watch(_RECORDING if self.on_gpu else 0)
        device = {"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed", "log_every_n_steps": 50}
        trainer = pl.Trainer(
            **(device if self.on_gpu else {"accelerator": "cpu"}), max_steps=steps + watch.after,
            gradient_clip_val=CLIP, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[watch], limit_val_batches=0,
        )  # fmt: skip
        self.learner.seconds_before = 0.0
        trainer.fit(self.learner, datamodule=self.data)
        return watch.seconds, watch.characters


class _Watch(pl.Callback):
    """Seconds and characters between a step, the start if it is 0, and the end of training."""

    def __init__(self, after: int):
        self.after, self.seconds, self.characters = after, 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._note(pl_module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.after:
            self._note(pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        begin, before = self._begin, self._before
        self._note(pl_module)
        self.seconds, self.characters = self._begin - begin, self._before - before

    def _note(self, learner: Any) -> None:
        if learner.device.type == "cuda":
            torch.cuda.synchronize()
        self._begin, self._before = time.perf_counter(), learner.characters_seen
