"""Where Hydra finds the Slurm launcher: it takes launchers from the namespace of this folder alone.

A namespace is shared between projects, so this folder has no `__init__.py`.
"""

from birthplace_lm.cli import slurm


class SlurmLauncher(slurm.SlurmSweep):
    """The `_target_` of configs/hydra/launcher/slurm.yaml."""
