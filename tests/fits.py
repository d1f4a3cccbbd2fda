"""A small fit, and what a stage tells its loggers, for the tests of histories and of their mirrors."""

import math
import os
from pathlib import Path

import pytorch_lightning as pl
import torch

from birthplace_lm.history import RunLogger


class Walk(pl.LightningModule):
    """Three batches an epoch; logs a number that depends on the step alone, as a deterministic fit does."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        self.log("train/loss", math.exp(-self.global_step / 7), on_step=True, on_epoch=True)
        return (self.weight - batch).square().mean()

    def validation_step(self, batch: torch.Tensor, index: int) -> None:
        self.log("dev/loss", math.sin(self.global_step))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.zeros(3))  # type: ignore[arg-type]

    def val_dataloader(self) -> torch.utils.data.DataLoader[torch.Tensor]:
        return torch.utils.data.DataLoader(torch.zeros(2))  # type: ignore[arg-type]


def fit(
    folder: Path, logger: RunLogger | list[RunLogger], callbacks: list[pl.Callback], checkpoint: Path | None = None
) -> None:
    trainer = pl.Trainer(
        max_epochs=4,
        logger=logger,
        callbacks=callbacks,
        accelerator="cpu",
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(Walk(), ckpt_path=checkpoint, weights_only=False)


def tell_everything(logger: RunLogger) -> None:
    """What a stage does with each of its loggers."""
    try:
        logger.log_hyperparams({"lr": 0.1, "leak": f"x{os.environ.get('WANDB_API_KEY', '')}"})
        logger.log_metrics({"train/loss": 0.5}, 3)
        logger.log_table("predictions", ["question", "right"], [["Where was Ada Byrne born?", True]])
        logger.log_text("example", "Ada Byrne. Born in ⁇ .⁇Cork\nsecond | line", step=3)
        logger.summarize({"dev": {"exact_match": 0.23}, "parameters": 3323392})
    finally:
        logger.finish("failed")
        logger.finish()
        logger.log_metrics({"train/loss": 0.5}, 4)
