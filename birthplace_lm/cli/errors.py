"""Errors that a user can mend are told in plain words; all others keep their traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from birthplace_lm.composing import ConfigError
from birthplace_lm.corpus import CorpusError
from birthplace_lm.lightning_modules import NonFiniteLossError
from birthplace_lm.runs import RunInUseError
from birthplace_lm.stages import UnfinishedError
from birthplace_lm.storage import ArchitectureMismatchError, DamagedCheckpointError
from birthplace_lm.tokenizer import UnknownCharacterError

_TOLD = (
    ArchitectureMismatchError,
    ConfigError,
    CorpusError,
    DamagedCheckpointError,
    NonFiniteLossError,
    RunInUseError,
    UnfinishedError,
    UnknownCharacterError,
)


@contextmanager
def in_plain_words() -> Iterator[None]:
    """Print what is wrong and exit with status 2."""
    try:
        yield
    except _TOLD as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
