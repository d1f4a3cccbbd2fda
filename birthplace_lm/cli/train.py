"""birthplace-train: the stages of a run, composed by Hydra. Torch is imported only once there is something to train."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from birthplace_lm.cli.sweeps import print_summary

_PACKAGE = Path(__file__).resolve().parent.parent
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(_CONFIGS), config_name="train")
def _train(config: DictConfig) -> None:
    hydra_config = HydraConfig.get()
    choices = {key: value for key, value in hydra_config.runtime.choices.items() if not key.startswith("hydra/")}
    chosen = [override.split("=")[0].lstrip("+~").split(".")[0] for override in hydra_config.overrides.task]
    sweep = hydra_config.mode == RunMode.MULTIRUN
    _run_noted(config, choices, chosen, list(hydra_config.overrides.task)) if sweep else _run(config, choices, chosen)


def _run(config: DictConfig, choices: dict[str, str], chosen: list[str]) -> None:
    from birthplace_lm.cli.errors import in_plain_words

    with in_plain_words():
        from birthplace_lm.stages import run

        run(config, choices, chosen)


def _run_noted(config: DictConfig, choices: dict[str, str], chosen: list[str], overrides: list[str]) -> None:
    from birthplace_lm.cli.sweeps import noted
    from birthplace_lm.stages import run

    noted(lambda: run(config, choices, chosen), overrides)


def main() -> None:
    """Compose the configuration from the command line and carry out its stages; of a sweep, print what became of it."""
    try:
        _train()
    finally:
        failed = print_summary()
    sys.exit(failed)


if __name__ == "__main__":
    main()
