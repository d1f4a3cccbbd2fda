"""This package as birthplace-train runs it, without its files."""

import time
from collections.abc import Sequence

import pytorch_lightning as pl
from torch import nn
from torch.optim import Optimizer

from birthplace_lm.benchmarks.ways import BETAS, CLIP, LR, WEIGHT_DECAY
from birthplace_lm.benchmarks.ways.recording import data_of
from birthplace_lm.lightning_modules import PretrainModule
from birthplace_lm.optimization import adamw
from birthplace_lm.schedules import WarmupCosine
from birthplace_lm.tokenizer import CharTokenizer
from birthplace_lm.transformer import Transformer


class ThroughLightning:
    """A Trainer, the module and the DataModule; setting up the Trainer is not counted, as a run does it once."""

    def __init__(
        self, documents: Sequence[str], tokenizer: CharTokenizer, model: Transformer, block_size: int, batch_size: int
    ):
        def optimizer(module: nn.Module) -> Optimizer:
            return adamw(module, LR, BETAS, WEIGHT_DECAY)

        self.model = model
        self.learner = PretrainModule(model, tokenizer, optimizer, WarmupCosine(), seed=0)
        self.data = data_of(documents, tokenizer, block_size, batch_size)

    def run(self, steps: int) -> tuple[float, int]:
        """(seconds, real characters) of some steps, from the first of the training on."""
        watch = _Watch()
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=steps, gradient_clip_val=CLIP, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[watch],
            limit_val_batches=0,
        )  # fmt: skip
        before = self.learner.characters_seen
        self.learner.seconds_before = 0.0
        trainer.fit(self.learner, datamodule=self.data)
        return watch.seconds, self.learner.characters_seen - before


class _Watch(pl.Callback):
    """Seconds between the start and the end of training."""

    seconds = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._begin = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seconds = time.perf_counter() - self._begin
