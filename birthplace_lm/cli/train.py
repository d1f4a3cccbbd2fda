"""birthplace-train: the stages of a run, composed by Hydra. Torch is imported only once there is something to train."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

_PACKAGE = Path(__file__).resolve().parent.parent
_CONFIGS = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"


@hydra.main(version_base="1.3", config_path=str(_CONFIGS), config_name="train")
def _train(config: DictConfig) -> None:
    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.stages import run

    hydra_config = HydraConfig.get()
    choices = {key: value for key, value in hydra_config.runtime.choices.items() if not key.startswith("hydra/")}
    chosen = [override.split("=")[0].lstrip("+~").split(".")[0] for override in hydra_config.overrides.task]
    with in_plain_words(go_on=hydra_config.mode == RunMode.MULTIRUN):
        run(config, choices, chosen)


def main() -> None:
    """Compose the configuration from the command line and carry out its stages."""
    _train()


if __name__ == "__main__":
    main()
