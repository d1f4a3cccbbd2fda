"""Processes that this one starts and that end with it, however that comes: told by a signal, or by a pipe that ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from birthplace_lm.stopping import heard

PATIENCE = 60  # seconds to save in, when nobody is left who would wait
_ROOT = Path(__file__).resolve().parents[2]  # where this package lies


def start(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], out: Any, err: Any
) -> subprocess.Popen[bytes]:
    """A module of this package in a process group of its own, which a terminal's Ctrl-C does not reach: we tell it.

    Its standard input is a pipe that nothing is written to: it ends when we do, however that comes. It has the code
    that this process has, whatever lies in the working directory.
    """
    environment = dict(environment)
    if _ROOT.name not in ("site-packages", "dist-packages"):  # a checkout, perhaps not the one that is installed
        environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [environment.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", module, *arguments]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=out, stderr=err, process_group=0)


@contextmanager
def signals_passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Pass every signal that asks for an end on to processes; yields those that came.

    `processes` are looked at when a signal comes, and those that have ended are passed over. One that its terminal has
    stopped goes on, to hear it.
    """
    received: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        for process in list(processes):
            tell(process, number)

    former = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        former = {number: signal.signal(number, pass_on) for number in heard()}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def paused_together(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Have a terminal's Ctrl-Z pause processes with this one, and go on with it.

    They are told by the same signal, so that those that started others pass it on.
    """
    number = getattr(signal, "SIGTSTP", None)
    here = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
    if number is None or not here or signal.getsignal(number) is signal.SIG_IGN:
        yield
        return

    def pause(number: int, frame: Any) -> None:
        told = list(processes)
        for process in told:
            process.send_signal(number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # until somebody has this process go on
        signal.signal(number, pause)
        for process in told:
            process.send_signal(signal.SIGCONT)

    former = signal.signal(number, pause)
    try:
        yield
    finally:
        signal.signal(number, former)


def tell(process: subprocess.Popen[bytes], number: int) -> None:
    """Send it a signal, and have it go on if it was stopped."""
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)


def end_with_starter() -> None:
    """In a process that was started here: when the one that started it is gone, save and stop.

    A minute later it ends anyway.
    """
    threading.Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would be held while Python shuts down
    os.kill(os.getpid(), signal.SIGUSR1)  # which asks; after another signal a second SIGTERM would end at once
    time.sleep(PATIENCE)
    os._exit(1)
