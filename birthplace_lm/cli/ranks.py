"""One job in as many processes as its trainer wants: carried out here, or in processes that are started and watched.

The processes that train one run (its ranks) are started from a file that holds the job, composed. So they read neither
the command line nor configs/ again, a job of a sweep starts its own ranks and not the sweep once more, and each job
has fresh ones. The process that starts them trains nothing and imports no torch: whichever rank fails or is killed,
somebody is left who ends the others and says so. Where torchrun or srun started this process as a rank, it is one.

`python -m birthplace_lm.cli.ranks FILE` is such a rank.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NoReturn

from omegaconf import DictConfig, OmegaConf

from birthplace_lm.cli.children import end_with_starter, paused_together, signals_passed_on, start
from birthplace_lm.cli.sweeps import RECORD, add_row, noted, takes_turns
from birthplace_lm.composing import ConfigError, literal, plain
from birthplace_lm.ranks import Rank, RankError, own_cores, own_rank, wanted_ranks
from birthplace_lm.stopping import UnfinishedError

INTERRUPTED = 130  # exit status
# Seconds that the others get to end by themselves after one failed: to notice the lost connection and write an error
# down; or, where the one that failed knew why (status 2), to finish what all of them stop for.
GRACE, LONG_GRACE = 10.0, 60.0


def carry_out(
    config: DictConfig, choices: Mapping[str, str], chosen: Sequence[str], overrides: Sequence[str] | None = None
) -> None:
    """Run the stages of a composed job; one of a sweep (it has `overrides`) notes how it ended and fails in silence."""
    try:
        wanted = wanted_ranks(config.trainer)
        rank = own_rank(wanted)
        if wanted > 1 and rank is None:
            if config.trainer.get("num_nodes", 1) > 1:
                raise ConfigError(
                    f"trainer.num_nodes is {config.trainer.num_nodes}: start the command by torchrun or srun"
                )
            return _start(config, choices, chosen, overrides, wanted)
    except (ConfigError, RankError) as error:
        return _tell(error, overrides)
    with _silent() if rank and rank.rank else nullcontext():
        _here(config, choices, chosen, overrides, leads=not (rank and rank.rank))


def _here(
    config: DictConfig, choices: Mapping[str, str], chosen: Sequence[str], overrides: Sequence[str] | None, leads: bool
) -> None:
    from birthplace_lm.cli.errors import in_plain_words
    from birthplace_lm.stages import run

    if overrides is None:
        with in_plain_words():
            run(config, choices, chosen)
    elif leads:
        ended = noted(lambda: run(config, choices, chosen), overrides)
        if ended == "interrupted" and takes_turns():
            sys.exit(INTERRUPTED)  # who stops a job stops its sweep
    else:  # rank 0 notes, and says what went wrong on any
        try:
            run(config, choices, chosen)
        except UnfinishedError:
            if takes_turns():
                sys.exit(INTERRUPTED)
        except Exception:
            return


def _tell(error: Exception, overrides: Sequence[str] | None) -> None:
    """Say what is wrong, and exit with status 2; in a sweep note it and go on."""
    if overrides is None:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

    def failed() -> NoReturn:
        raise error

    noted(failed, overrides)


@contextmanager
def _silent() -> Iterator[None]:
    """A rank beside the first has nothing to say that the first does not say; a traceback appears after this."""
    os.environ.pop(RECORD, None)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


# ------------------------------------------------------------------------------------------------ starting and watching


def _start(
    config: DictConfig, choices: Mapping[str, str], chosen: Sequence[str], overrides: Sequence[str] | None, size: int
) -> None:
    """Start the ranks, watch them until all have ended, and end as rank 0 did; RankError where it could not say why."""
    job = {
        "config": OmegaConf.to_yaml(literal(plain(config))),  # the ranks have no Hydra to look anything up in
        "choices": dict(choices),
        "chosen": list(chosen),
        "overrides": None if overrides is None else list(overrides),
        "command": sys.argv,
    }
    with tempfile.TemporaryDirectory(prefix="birthplace-") as name:
        folder = Path(name)
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = [Rank(rank, size, rank, 0, "127.0.0.1", port) for rank in range(size)]
        processes = [_process(rank, folder, config.threads) for rank in ranks]
        try:
            # Asked to end is rank 0 alone, by whom all save and stop at the same step.
            with signals_passed_on(processes[:1]) as received, paused_together(processes):
                killed = _watch(processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        statuses = [process.returncode for process in processes]
        if received and overrides is not None:  # who stops a job stops its sweep
            if statuses[0] < 0:  # before it could hear that it should stop, or note that it did
                add_row({"overrides": list(overrides), "status": "interrupted", "minutes": 0.0})
            sys.exit(max(statuses[0], 0) or 128 + received[0])
        if statuses[0] < 0 or (overrides is not None and statuses[0] not in (0, INTERRUPTED)):
            raise RankError(_account(statuses, killed, folder))
        if statuses[0]:
            sys.exit(statuses[0])


def _process(rank: Rank, folder: Path, threads: int | None) -> subprocess.Popen[bytes]:
    environment = {"TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, **rank.environment()}
    environment["OMP_NUM_THREADS"] = str(threads or max(1, _threads_of_all() // rank.size))
    with open(folder / f"{rank.rank}.txt", "wb") as errors:
        out, err = (None, None) if rank.rank == 0 else (subprocess.DEVNULL, errors)
        return start("birthplace_lm.cli.ranks", [str(folder / "job.json")], environment, out, err)


def _threads_of_all() -> int:
    """How many threads the ranks of a job may have together: as many as one process would."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(said), own_cores()) if said.isdecimal() else own_cores()


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> set[int]:
    """Wait until all have ended; those that outlive a failure by more than their time are killed: their ranks."""
    killed: set[int] = set()
    until = float("inf")
    while None in (statuses := [process.poll() for process in processes]):
        if failures := [status for status in statuses if status]:
            longer = LONG_GRACE if all(status in (2, INTERRUPTED) for status in failures) else GRACE
            until = min(until, time.monotonic() + longer)
        if time.monotonic() > until:
            killed |= {rank for rank, status in enumerate(statuses) if status is None}
            for rank in killed:
                processes[rank].kill()
        time.sleep(0.05)
    return killed


def _account(statuses: Sequence[int], killed: set[int], folder: Path) -> str:
    """What is known of ranks that ended for a reason of their own: signals, statuses, last words that nobody saw."""
    lines = []
    for rank, status in enumerate(statuses):
        if rank in killed or status in (0, 2, INTERRUPTED):  # 2: it noticed that another one was gone
            continue
        end = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        words = (folder / f"{rank}.txt").read_text(encoding="utf-8", errors="replace").strip()
        lines.append(f"rank {rank} of {len(statuses)} {end}" + (f":\n{words}" if words else ""))
    return "\n".join([*lines, "the same command again goes on from the last checkpoint"])


# -------------------------------------------------------------------------------------------------------- being started


def main(arguments: list[str] | None = None) -> None:
    """Carry out the job of a file as the rank that the environment says."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    end_with_starter()
    job = json.loads(Path(name).read_text(encoding="utf-8"))
    sys.argv = job["command"]  # which the run's provenance is to tell
    try:
        carry_out(OmegaConf.create(job["config"]), job["choices"], job["chosen"], job["overrides"])
    except KeyboardInterrupt:  # before there was anything to save
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
