"""Ways that train in processes of their own: one alone for its memory, several side by side, or several by turns."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

READY = "ready"


class EndedError(ValueError):
    """A process that ended before it had measured anything; what it says of that is on standard error."""


class OwnProcess:
    """A command that says `ready` when it has warmed up, and answers every line of input by a line of JSON."""

    def __init__(self, command: Sequence[str], threads: int):
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        self.command = command
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )  # fmt: skip

    def wait_until_ready(self) -> None:
        """Raises EndedError when it ends instead; its own message is on standard error by then."""
        assert self._process.stdout
        for line in self._process.stdout:
            if line.strip() == READY:
                return
        raise EndedError(f"{' '.join(self.command)} ended with status {self._process.wait()} before it was ready")

    def go(self) -> None:
        """Let it begin; one that has ended meanwhile says so in its report."""
        assert self._process.stdin
        with suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), b"\n")  # unbuffered: nothing is left to be written on closing

    def report(self) -> dict[str, Any]:
        """What it found out since it was let go; EndedError when it ends without a word."""
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries talk, too
                return json.loads(line)
        raise EndedError(f"{' '.join(self.command)} ended with status {self._process.wait()}")

    def end(self) -> None:
        """Stop it where it stands, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                stream.close()


def at_once(commands: Sequence[Sequence[str]], threads: int) -> list[dict[str, Any]]:
    """Run commands side by side, begun at the same moment once all are ready; none outlives an error."""
    with _ready(commands, threads) as processes:
        for process in processes:
            process.go()
        return [process.report() for process in processes]


@contextmanager
def by_turns(commands: Mapping[str, Sequence[str]], threads: int) -> Iterator[dict[str, Callable[[], dict[str, Any]]]]:
    """Commands that wait for each other: one function each, which lets it go once and gives what it reports."""
    with _ready(list(commands.values()), threads) as processes:
        yield {name: partial(_turn, process) for name, process in zip(commands, processes, strict=True)}


def _turn(process: OwnProcess) -> dict[str, Any]:
    process.go()
    return process.report()


@contextmanager
def _ready(commands: Sequence[Sequence[str]], threads: int) -> Iterator[list[OwnProcess]]:
    """All of them started and warmed up, ended when the block is left."""
    processes: list[OwnProcess] = []
    try:
        for command in commands:
            processes.append(OwnProcess(command, threads))
        for process in processes:
            process.wait_until_ready()
        yield processes
    finally:
        for process in processes:
            process.end()
