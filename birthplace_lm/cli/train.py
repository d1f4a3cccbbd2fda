"""birthplace-train: the stages of a run, composed by Hydra. Torch is imported only once there is something to train."""

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from birthplace_lm.cli.ranks import carry_out
from birthplace_lm.cli.sweeps import print_summary
from birthplace_lm.commits import hide_environment
from birthplace_lm.stopping import interruptible

_PACKAGE = Path(__file__).resolve().parent.parent
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


def choices_of(hydra_config: Any) -> tuple[dict[str, str], list[str]]:
    """The option of each configuration group, and the groups and keys that the user named himself."""
    choices = {key: value for key, value in hydra_config.runtime.choices.items() if not key.startswith("hydra/")}
    return choices, [override.split("=")[0].lstrip("+~").split(".")[0] for override in hydra_config.overrides.task]


@hydra.main(version_base="1.3", config_path=str(_CONFIGS), config_name="train")
def _train(config: DictConfig) -> None:
    hide_environment()
    hydra_config = HydraConfig.get()
    choices, chosen = choices_of(hydra_config)
    sweep = hydra_config.mode == RunMode.MULTIRUN
    if not sweep and hydra_config.run.dir != ".":
        print(
            f"hydra.run.dir={hydra_config.run.dir} holds nothing of a run: paths.runs=… and name=… name its folder",
            file=sys.stderr,
        )
    carry_out(config, choices, chosen, list(hydra_config.overrides.task) if sweep else None)


def main() -> None:
    """Compose the configuration from the command line and carry out its stages; of a sweep, print what became of it."""
    with interruptible():
        try:
            _train()
        finally:
            failed = print_summary()
    sys.exit(failed)


if __name__ == "__main__":
    main()
