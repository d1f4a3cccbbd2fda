"""Several processes that train one run on shares of every batch: how they meet, tell each other things, and part.

Rank 0 leads: it alone holds the run folder, writes and decides, and tells the others what it decided. Gradients and
losses are summed by torch.distributed (gloo between CPUs, nccl between GPUs), words go through its key-value store.
"""

import itertools
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from birthplace_lm.composing import ConfigError
from birthplace_lm.ranks import Rank, RankError, own_rank, wanted_ranks

_MEETING = timedelta(minutes=10)  # the longest that ranks wait for each other to begin
_REPORT_SECONDS = 1.0  # how long after a lost connection another rank's account of it may arrive
_LOST = ("gloo", "nccl", "connection", "broken pipe", "socket")  # words of errors that another rank's end causes
_jobs = itertools.count()  # of this process; the ranks of a sweep that torchrun or srun started count alike


class Group:
    """The processes of one run as one of them sees them; a run of a single process is a group of one."""

    def __init__(self, rank: int = 0, size: int = 1, store: dist.Store | None = None):
        self.rank, self.size = rank, size
        self._store, self._told = store, itertools.count()

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def environment(self) -> ClusterEnvironment:
        """What Lightning is told of the ranks, so that it neither guesses (from Slurm's variables) nor starts any."""
        return TorchElasticEnvironment() if self.size > 1 else LightningEnvironment()

    def strategy(self) -> Strategy | str:
        """What Lightning trains with. Buffers are constants of this package's models and need no sending around."""
        return DDPStrategy(broadcast_buffers=False) if self.size > 1 else "auto"

    def decided(self, decide: Callable[[], int]) -> int:
        """The number that `decide` gives on rank 0, on every rank: rank 0 alone looks at files that it may change."""
        if self._store is None:
            return decide()
        key = f"decision {next(self._told)}"
        if self.leads:
            self._store.set(key, str(decide()))
        return int(self._heard(key))

    def _heard(self, key: str) -> str:
        """What the store has or will have under a key; RankError if a rank fails in the meantime."""
        assert self._store is not None
        while not self._store.check([key]):
            if self._store.check(["failure"]):
                raise RankError(self._store.get("failure").decode())
            time.sleep(0.02)
        return self._store.get(key).decode()

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """Tell the others of an error on its way out; one that another rank's failure caused becomes a RankError."""
        try:
            yield
        except RankError:
            raise
        except Exception as error:
            if self._store is None:
                raise
            if not _lost(error):
                reason = f"{type(error).__name__}: {error}"
                self._report(f"rank {self.rank} of this run failed: {reason}\n{traceback.format_exc()}")
                raise
            raise RankError(self._account()) from error
        except BaseException as end:  # an interruption, an exit
            self._report(f"rank {self.rank} of this run was ended: {type(end).__name__}")
            raise

    def _report(self, text: str) -> None:
        with suppress(RuntimeError):  # rank 0, which may hold the store, can be gone
            if self._store is not None:
                self._store.compare_set("failure", "", text)

    def _account(self) -> str:
        """Why the connection was lost, in the words of the rank that failed if it could still say so."""
        until = time.monotonic() + _REPORT_SECONDS
        with suppress(RuntimeError):
            while self._store is not None and time.monotonic() < until:
                if self._store.check(["failure"]):
                    return self._store.get("failure").decode()
                time.sleep(0.02)
        return (
            "another process of this run ended without a word (killed, or out of memory?); "
            "the same command again goes on from the last checkpoint"
        )


def _lost(error: Exception) -> bool:
    """Whether an error says that another rank cannot be reached. Backends raise nothing more telling than a text."""
    of_torch = type(error) is RuntimeError or isinstance(error, dist.DistError)
    return of_torch and any(word in str(error).lower() for word in _LOST)


@contextmanager
def joined(trainer: Mapping[str, Any]) -> Iterator[Group]:
    """Meet the other ranks of a run, if its trainer's settings want several, and part from them at the end.

    Whatever happens inside, afterwards the process can join for another run. Raises ConfigError if this process was
    not started as one of as many as are wanted, RankError if they do not find each other or one fails inside.
    """
    wanted = wanted_ranks(trainer)
    own = own_rank(wanted)
    # Lightning's guess, made at its import, takes any task of Slurm for a rank.
    rank_zero_only.rank = own.rank if own else 0  # type: ignore[attr-defined]
    if own is None and wanted > 1:
        raise ConfigError(
            f"trainer.devices is {trainer['devices']}, but this process was started alone: "
            "birthplace-train starts the others on one machine, torchrun or srun on several"
        )
    if own is None:
        yield Group()
        return
    added = {name: value for name, value in own.environment().items() if name not in os.environ}
    os.environ.update(added)
    try:
        group = _meet(own, trainer["accelerator"])
        with group.failing_together():
            yield group
    finally:
        with suppress(RuntimeError, AssertionError):  # the latter where it was never made
            dist.destroy_process_group()
        for name in added:
            os.environ.pop(name, None)


def _meet(own: Rank, accelerator: str) -> Group:
    """Wait for rank 0, which may be busy with the run before for however long, then for all."""
    on_gpu = accelerator in ("gpu", "cuda") or (accelerator == "auto" and torch.cuda.is_available())
    if on_gpu:
        torch.cuda.set_device(own.local)
    try:
        store = dist.PrefixStore(f"job {next(_jobs)}", _store(own))
        group = Group(own.rank, own.size, store)
        group.decided(lambda: 0)
        dist.init_process_group(
            "nccl" if on_gpu else "gloo", store=store, rank=own.rank, world_size=own.size, timeout=_MEETING
        )
    except RuntimeError as error:
        raise RankError(
            f"rank {own.rank} of {own.size} did not find the others at {own.address}, port {own.port}: {error}"
        ) from error
    return group


@cache
def _store(own: Rank) -> dist.Store:
    """The key-value store of all ranks, one for the life of the process; rank 0 or torchrun holds it."""
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=_MEETING)))
    assert isinstance(store, dist.Store)
    return store
