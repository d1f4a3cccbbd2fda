"""Where a result comes from: commit, versions, hardware, data."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from birthplace_lm.commits import origin

_PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "omegaconf", "safetensors", "numpy", "wandb")


def provenance(data: str) -> dict[str, Any]:
    """Where a result comes from: time, command, commit and whether the tree was dirty, versions, hardware, data."""
    return {
        **origin(),
        "python": platform.python_version(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "hardware": {
            "processor": _processor(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "processes": torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1,
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "data": data,
    }


def _processor(told: Path = Path("/proc/cpuinfo")) -> str:
    """The model's name: on Linux, where Python knows only its family, as the kernel tells it."""
    try:
        lines = told.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name"]
    return names[0] if names and names[0] else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
