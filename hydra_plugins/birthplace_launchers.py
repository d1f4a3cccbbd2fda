"""Where Hydra finds the launchers of sweeps: it takes them from the namespace of this folder alone.

A namespace is shared between projects, so this folder has no `__init__.py`. Hydra imports this file at every start:
nothing here may bring torch.
"""

from birthplace_lm.cli import local, slurm


class LocalLauncher(local.LocalSweep):
    """The `_target_` of configs/hydra/launcher/local.yaml."""


class SlurmLauncher(slurm.SlurmSweep):
    """The `_target_` of configs/hydra/launcher/slurm.yaml."""
