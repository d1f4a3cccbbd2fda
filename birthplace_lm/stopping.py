"""Stopping before the end, and which signals ask for it; without torch: who starts ranks hears them too."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

_ENDING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # the last is a cluster's word that time is running out


def heard() -> list[int]:
    """Their numbers, without those that this process was told to ignore, as nohup has it for SIGHUP."""
    numbers = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def say(text: str, end: str = "\n") -> None:
    """Print what nobody needs: to a terminal that was closed it is lost, and is no reason to lose the training too."""
    with suppress(OSError):
        print(text, end=end, flush=True)


def in_terminal() -> bool:
    """Whether somebody sees what is printed at once; not where standard output is closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def interrupted() -> NoReturn:
    """What Ctrl-C comes to before there is anything to save."""
    print("interrupted; the same command again goes on from the last checkpoint", file=sys.stderr)
    sys.exit(130)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C while a command still gets ready, which takes seconds of imports, is told in a line."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted()


class UnfinishedError(RuntimeError):
    """A stage stopped before its last step; nothing is lost."""
