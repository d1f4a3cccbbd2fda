"""One process at a time works in a run folder: the lock on its file `.lock`, which dies with the process."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from birthplace_lm.composing import ConfigError


class RunInUseError(RuntimeError):
    """Another live process works in the run folder."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Hold a folder, made if need be, for this process; RunInUseError when a live one holds it.

    A folder that cannot be written, or on a file system without locks, is a ConfigError, here, before any training.
    """
    with ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(root / ".lock", "a+"))
            _take(file)
            file.truncate(0)
            os.write(
                file.fileno(), str(os.getpid()).encode()
            )  # past the buffer, which closing would try to empty again
        except BlockingIOError:
            file.seek(0)
            raise RunInUseError(
                f"{root} is in use by process {file.read().strip() or '?'}: wait for it or end it, "
                "or change the seed or any setting for a folder of its own"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"the run folder {root.resolve()} cannot be written and locked ({error.strerror}): choose another "
                "paths.runs"
            ) from None
        yield


def in_use(root: Path) -> bool:
    """Whether a live process works in a folder; a look that keeps nobody out of it."""
    try:
        with open(root / ".lock") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock, or none that may be looked at
        return False
    return False


def _take(lock: TextIO) -> None:
    """Lock the file or raise OSError; tried for a tenth of a second, since `in_use` may be looking at it."""
    for _ in range(10):
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.01)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
