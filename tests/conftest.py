"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from birthplace_lm.corpus import FILES

settings.register_profile("without a clock", deadline=None)  # an example may come when the machine has other work
settings.load_profile("without a clock")


@pytest.fixture(scope="session")
def cs224n() -> Path:
    """The folder with the course's four files; tests that need it are skipped, with the reason, where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "cs224n"
    folder = Path(os.environ.get("BIRTHPLACE_CS224N_DIR") or default).resolve()
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not in {folder}; name the folder in BIRTHPLACE_CS224N_DIR")
    return folder
