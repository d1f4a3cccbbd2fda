"""Processes that this one starts and that end with it, however that comes: told by a signal, or by a pipe that ends."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from birthplace_lm.stopping import heard

_PATIENCE = 60  # seconds to save in, when nobody is left who would wait


def start(command: Sequence[str], environment: Mapping[str, str], out: Any, err: Any) -> subprocess.Popen[bytes]:
    """A process in a group of its own, which a terminal's Ctrl-C does not reach: it is told once, by us.

    Its standard input is a pipe that nothing is written to: it ends when we do, however that comes.
    """
    return subprocess.Popen(
        command, env=dict(environment), stdin=subprocess.PIPE, stdout=out, stderr=err, process_group=0
    )


@contextmanager
def signals_passed_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Pass every signal that asks for an end on to processes; yields those that came.

    `processes` are looked at when a signal comes, and those that have ended are passed over.
    """
    received: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        received.append(number)
        for process in list(processes):
            process.send_signal(number)

    former = {}
    if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
        former = {number: signal.signal(number, pass_on) for number in heard()}
    try:
        yield received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def end_with_starter() -> None:
    """In a process that was started here: when the one that started it is gone, save and stop as after SIGTERM.

    A minute later it ends anyway.
    """
    threading.Thread(target=_end_with_starter, daemon=True).start()


def _end_with_starter() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock would be held while Python shuts down
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_PATIENCE)
    os._exit(1)
