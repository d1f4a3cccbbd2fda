"""Which of several processes this one is when they train one run together: read off the environment, without torch.

Three may have started them, and all leave word of it in the environment: `birthplace-train` itself, torchrun, and srun.
What srun says is passed on in torchrun's words, so that everything behind this file knows one language.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from birthplace_lm.composing import ConfigError


class RankError(RuntimeError):
    """Another process of the same run failed or is gone, so this one cannot go on either; nothing saved is lost."""


@dataclass(frozen=True)
class Rank:
    """One of `size` processes; `local` counts those of this machine, `node` the machines.

    `address` and `port` are where rank 0 can be found by the others.
    """

    rank: int
    size: int
    local: int
    node: int
    address: str
    port: int

    def environment(self) -> dict[str, str]:
        """The variables that torchrun gives its processes."""
        numbers = {"RANK": self.rank, "WORLD_SIZE": self.size, "LOCAL_RANK": self.local, "GROUP_RANK": self.node}
        numbers["MASTER_PORT"] = self.port
        return {"MASTER_ADDR": self.address, **{name: str(number) for name, number in numbers.items()}}


def wanted_ranks(trainer: Mapping[str, Any]) -> int:
    """How many processes a trainer's settings ask for: devices of a node times nodes."""
    numbers = {"devices": trainer["devices"], "num_nodes": trainer.get("num_nodes", 1)}
    for name, number in numbers.items():
        if not str(number).isdigit() or int(number) < 1:
            raise ConfigError(f"trainer.{name} is {number!r}: say how many, 1 or more")
    if "strategy" in trainer:
        raise ConfigError(
            f"trainer.strategy is {trainer['strategy']!r}: leave it out, more than one device train data parallel"
        )
    return int(numbers["devices"]) * int(numbers["num_nodes"])


def own_rank(wanted: int, environment: Mapping[str, str] = os.environ) -> Rank | None:
    """Which rank this process is, or None if nobody started it as one of several.

    Tasks of srun are ranks of one run only where one is wanted that has several: else each may be a run of its own. In
    a batch script, where srun did not start the process, the number of the job's tasks alone makes no rank.
    Raises ConfigError if more or fewer processes were started than the run wants.
    """
    found = _of_torchrun(environment) or (_of_srun(environment) if wanted > 1 else None)
    if found and found.size != wanted:
        raise ConfigError(
            f"{found.size} processes were started for this run, but trainer.devices times trainer.num_nodes is "
            f"{wanted}: make them equal (trainer=ddp trainer.devices={found.size} on one machine)"
        )
    return found if wanted > 1 else None


def _of_torchrun(environment: Mapping[str, str]) -> Rank | None:
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
        return None
    rank, size, local, port = (int(environment[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"))
    return Rank(rank, size, local, int(environment.get("GROUP_RANK", 0)), environment["MASTER_ADDR"], port)


def _of_srun(environment: Mapping[str, str]) -> Rank | None:
    """The task of a step that has several; the step's number makes a port of its own for steps at the same time."""
    size = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if size == 1:
        return None
    rank, local, node, job, step = (
        int(environment.get(f"SLURM_{name}", 0)) for name in ("PROCID", "LOCALID", "NODEID", "JOB_ID", "STEP_ID")
    )
    from lightning_fabric.plugins.environments import SLURMEnvironment

    nodes = environment.get("SLURM_STEP_NODELIST", "127.0.0.1")
    address = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    port = int(environment.get("MASTER_PORT", 15000 + (31 * job + step) % 15000))
    return Rank(rank, size, local, node, address, port)


def own_cores() -> int:
    """How many cores this process may use, of those that the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
