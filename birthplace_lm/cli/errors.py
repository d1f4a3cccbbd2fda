"""Errors that a user can mend are told in plain words; all others keep their traceback."""

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from birthplace_lm.attention_maps import UnreadableError
from birthplace_lm.composing import ConfigError
from birthplace_lm.corpus import CorpusError
from birthplace_lm.finiteness import NonFiniteLossError
from birthplace_lm.process import print_what_can_be
from birthplace_lm.ranks import RankError
from birthplace_lm.run_lock import RunInUseError
from birthplace_lm.stopping import UnfinishedError, interruptible
from birthplace_lm.storage import ArchitectureMismatchError, DamagedCheckpointError
from birthplace_lm.tokenizer import UnknownCharacterError

# What a user can mend, and is told without a traceback.
TOLD = (
    ArchitectureMismatchError,
    ConfigError,
    CorpusError,
    DamagedCheckpointError,
    NonFiniteLossError,
    RankError,
    RunInUseError,
    UnfinishedError,
    UnknownCharacterError,
    UnreadableError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    ModuleNotFoundError,  # of a callback of Lightning's, say
    NotADirectoryError,
    PermissionError,
)


_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}  # of an OSError: no room, or not to be written


def is_told(error: BaseException) -> bool:
    """Whether a user can mend it, so that a line says more than a traceback."""
    return isinstance(error, TOLD) or (isinstance(error, OSError) and error.errno in _OF_THE_MACHINE)


def tell(error: Exception) -> None:
    """Print what is wrong: where a user can mend it in a line, and where it came from if HYDRA_FULL_ERROR=1 asks so."""
    told = is_told(error)
    if not told or os.environ.get("HYDRA_FULL_ERROR", "0") != "0":
        traceback.print_exception(error)
    if told:
        print(f"error: {error}", file=sys.stderr)


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Tell of an error that a user can mend and exit with status 2, or 130 where the user interrupted."""
    print_what_can_be()
    with interruptible():
        try:
            yield
        except Exception as error:
            if not is_told(error):
                raise
            tell(error)
            sys.exit(2)
