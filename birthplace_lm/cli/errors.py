"""Errors that a user can mend are told in plain words; all others keep their traceback."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from birthplace_lm.attention_maps import UnreadableError
from birthplace_lm.composing import ConfigError
from birthplace_lm.corpus import CorpusError
from birthplace_lm.finiteness import NonFiniteLossError
from birthplace_lm.ranks import RankError
from birthplace_lm.run_lock import RunInUseError
from birthplace_lm.stopping import UnfinishedError
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
    FileNotFoundError,
    IsADirectoryError,
    PermissionError,
)


@contextmanager
def in_plain_words(go_on: bool = False) -> Iterator[None]:
    """Print what is wrong and exit with status 2, or 130 where the user interrupted.

    HYDRA_FULL_ERROR=1 in the environment shows where it came from, too. With `go_on` the error is printed and passed
    on, so that a sweep notes it and goes on with its next job.
    """
    try:
        yield
    except TOLD as error:
        if os.environ.get("HYDRA_FULL_ERROR", "0") != "0":
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        if go_on:
            raise
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted; the same command again goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
