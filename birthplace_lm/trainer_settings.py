"""What a user may set of Lightning's Trainer: a recipe decides how long a training is, its run folder keeps it."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch

from birthplace_lm.composing import ConfigError, check_whole

_LENGTH = "how long a training is, its epochs and batch_size say (pretrain.epochs=…, finetune.batch_size=…)"
_KEPT = (
    "checkpoints, logs and progress have settings of their own (checkpoint.every_n_steps=…, checkpoint.keep=…, "
    "logger=…; a bar of Lightning's wants trainer.enable_progress_bar=true)"
)
# What the Trainer is given by the stages, or what would break their exact resumption; the value each has here.
_DECIDED: dict[str, tuple[Any, str]] = {
    "accumulate_grad_batches": (1, "a batch is as large as batch_size says, and micro_batches are the groups of it"),
    "barebones": (False, _KEPT),
    "callbacks": (None, _KEPT),
    "check_val_every_n_epoch": (None, "validations=… of a stage says how often it is asked"),
    "enable_checkpointing": (False, _KEPT),
    "limit_train_batches": (None, _LENGTH),
    "limit_val_batches": (None, "ask_at_most=… says how many questions are asked"),
    "logger": (None, _KEPT),
    "max_epochs": (-1, _LENGTH),
    "max_steps": (None, _LENGTH),
    "min_epochs": (None, _LENGTH),
    "min_steps": (None, _LENGTH),
    "overfit_batches": (0.0, "debug=overfit learns a few questions by heart"),
    "plugins": (None, "precision=… and strategies follow from trainer=cpu, cpu_bf16, gpu or ddp"),
    "reload_dataloaders_every_n_epochs": (0, _LENGTH),
    "use_distributed_sampler": (False, "every process takes its share of each batch already"),
    "val_check_interval": (None, "validations=… of a stage says how often it is asked"),
}


# Lightning's callbacks that decide what is decided here already; what to use instead.
_CALLBACKS = {
    "BatchSizeFinder": "batch_size is the recipe's",
    "EarlyStopping": _LENGTH,
    "GradientAccumulationScheduler": "a batch is as large as batch_size says",
    "LearningRateFinder": "birthplace-search search=lr_and_mix proposes rates",
    "ModelCheckpoint": _KEPT,
    "OnExceptionCheckpoint": _KEPT,
    "StochasticWeightAveraging": "averaging@pretrain.averaging=ema averages weights",
    "Timer": "trainer.max_time=00:01:30:00 ends a session after an hour and a half of training",
}


def check_callbacks(callbacks: Mapping[str, Any]) -> None:
    """Raise ConfigError for a callback of Lightning's that would undo how a run is ended, kept or gone on with."""
    for name, node in callbacks.items():
        if not (isinstance(node, Mapping) and "_target_" in node):
            raise ConfigError(
                f"callbacks.{name} is {node!r}: name a class, "
                f"+callbacks.{name}._target_=pytorch_lightning.callbacks.DeviceStatsMonitor"
            )
        kind = str(node["_target_"]).rpartition(".")[2]
        if kind in _CALLBACKS:
            raise ConfigError(f"callbacks.{name}: {kind} is not for a run: {_CALLBACKS[kind]}")


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError for a key of the Trainer that would be passed over or that cannot work here."""
    for key, (value, instead) in _DECIDED.items():
        if key in settings and settings[key] != value:
            raise ConfigError(f"trainer.{key}={settings[key]} is not to be set: {instead}")
    check_whole("trainer.log_every_n_steps", settings.get("log_every_n_steps"), 1)
    seconds_of(settings.get("max_time"))


def seconds_of(max_time: Any) -> float | None:
    """How long a session may train; None for as long as it takes. Raises ConfigError for what is no time."""
    try:
        if isinstance(max_time, str):
            days, hours, minutes, seconds = map(int, max_time.split(":"))
            return timedelta(days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
        return None if max_time is None else timedelta(**max_time).total_seconds()
    except (TypeError, ValueError):
        raise ConfigError(
            f"trainer.max_time={max_time}: days, hours, minutes and seconds are needed, as 00:01:30:00"
        ) from None


def check_device(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError where a GPU is asked for and this machine has none; where a job is sent from need have none."""
    if settings.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise ConfigError(
            f"trainer.accelerator={settings['accelerator']}, but torch sees no NVIDIA GPU here: use trainer=cpu, or "
            "trainer=cpu_bf16 where the processor multiplies bfloat16"
        )
