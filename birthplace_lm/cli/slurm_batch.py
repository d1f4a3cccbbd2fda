"""The text of the batch script that carries out a sweep as one Slurm array; nothing here needs a Slurm."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from birthplace_lm.composing import ConfigError, check_whole

# The end of every batch script, of configs/hydra/launcher/train.sbatch too.
#
# Slurm tells time's end to the script alone (B: in --signal), cancelling and preemption to all processes of a job; the
# script outlives both, to queue the job again or to wait until it has saved. A single task needs no srun in between.
# `wait` ends early when a trapped signal comes, hence the loop; where both get a signal at once, bash may lose the
# program's status and say 255, which is not 0 either. A task of an array has a number of its own, but one task's is the
# whole array's: requeued by that, all tasks would begin again.
RUNNING = """\
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}" SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
if [ "${SLURM_NTASKS:-1}" -gt 1 ]; then
  srun --kill-on-bad-exit=1 "${job[@]}" &
else
  "${job[@]}" &
fi
running=$!
trap 'warned=yes; kill -USR1 "$running"' USR1
trap : TERM
while kill -0 "$running" 2>/dev/null; do wait "$running"; done
wait "$running"
status=$?
restarts=${SLURM_RESTART_COUNT:-0}
if [ -n "$warned" ] && [ "$status" -ne 0 ] && [ "$restarts" -lt "$most" ]; then
  echo "out of time: queued again, restart $((restarts + 1)) of at most $most"
  scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
"""
_OURS = ("array", "chdir", "output", "error", "open-mode", "requeue", "no-requeue", "signal", "wrap")


def check_wishes(before: Any, parallel: Any, requeues: Any, warning_seconds: Any, poll_seconds: Any) -> None:
    """Raise ConfigError for a setting of the launcher that would make a script of nonsense, or stop the watching."""
    if not isinstance(before, Sequence) or isinstance(before, str) or not all(isinstance(one, str) for one in before):
        raise ConfigError(f"hydra.launcher.before is {before!r}: a list of shell lines is needed, ['module load cuda']")
    check_whole("hydra.launcher.requeues", requeues, 0, " is ")
    check_whole("hydra.launcher.warning_seconds", warning_seconds, 1, " is ")
    if parallel is not None:
        check_whole("hydra.launcher.parallel", parallel, 1, " is ")
    if not isinstance(poll_seconds, int | float) or isinstance(poll_seconds, bool) or poll_seconds <= 0:
        raise ConfigError(f"hydra.launcher.poll_seconds is {poll_seconds}: a number above 0 is needed")


def script(
    folder: Path,
    tasks: Sequence[int],
    sbatch: Mapping[str, Any],
    before: Sequence[str],
    parallel: int | None,
    requeues: int,
    warning_seconds: int,
) -> str:
    """The array script of some numbered tasks whose files lie in a folder; see `SlurmSweep` for the settings.

    Raises ConfigError for options that are set here anyway, and for values that Slurm cannot be told.
    """
    most = f"%{parallel}" if parallel else ""
    options = {
        "array": f"{ranges(tasks)}{most}",
        "chdir": Path.cwd(),
        "output": f"{str(folder).replace('%', '%%')}/%a.log",
        "open-mode": "append",
        "requeue": True,
        "signal": f"B:USR1@{warning_seconds}",
        **_checked(sbatch),
    }
    task = f'{shlex.quote(str(folder))}/"$SLURM_ARRAY_TASK_ID"'
    return "\n".join(
        [
            "#!/bin/bash",
            "# Task N of the array does what N.yaml beside this file says; sweep.json names its overrides.",
            *_directives(options),
            *before,
            f"export BIRTHPLACE_SWEEP_RECORD={task}.jsonl",
            f"job=({shlex.quote(sys.executable)} -m birthplace_lm.cli.job {task}.yaml)",
            f"most={requeues}",
            RUNNING,
        ]
    )


def _checked(sbatch: Mapping[str, Any]) -> dict[str, Any]:
    options = {key.replace("_", "-"): value for key, value in sbatch.items()}
    if ours := [key for key in _OURS if key in options]:
        raise ConfigError(f"hydra.launcher.sbatch.{ours[0]}: the launcher sets this option itself")
    for key, value in options.items():
        if not isinstance(value, str | int | float | None) or "\n" in str(value):
            raise ConfigError(f"hydra.launcher.sbatch.{key}: got {value!r}, need a word or a number")
    return options


def _directives(options: Mapping[str, Any]) -> list[str]:
    """Lines for sbatch; null and false are left out, true is an option without a value."""
    lines = []
    for key, value in options.items():
        if value is True:
            lines.append(f"#SBATCH --{key}")
        elif value is not None and value is not False:
            text = str(value)
            quoted = f'"{text}"' if any(c.isspace() for c in text) else text
            lines.append(f"#SBATCH --{key}={quoted}")
    return lines


def ranges(numbers: Sequence[int]) -> str:
    """Numbers as Slurm writes them.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0-2,5,7-8'
    """
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ",".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
