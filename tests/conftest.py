"""Fixtures that several test files share."""

import os
import re
from pathlib import Path

# Whoever runs the tests inside a job of a cluster, or under torchrun, is no rank of what the tests train: Lightning
# reads these names as it is imported.
_OF_A_CLUSTER = r"(SLURM|SBATCH|TORCHELASTIC|MASTER|PL)_.*|(LOCAL_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE"
for _name in [name for name in os.environ if re.fullmatch(_OF_A_CLUSTER, name)]:
    del os.environ[_name]

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from birthplace_lm.corpus import FILES  # noqa: E402

# An example may come when the machine has other work; the same come every time, so that what fails will fail again.
settings.register_profile("the same everywhere", deadline=None, derandomize=True)
settings.load_profile("the same everywhere")


@pytest.fixture(scope="session")
def cs224n() -> Path:
    """The folder with the course's four files; tests that need it are skipped, with the reason, where it is absent."""
    default = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "cs224n"
    folder = Path(os.environ.get("BIRTHPLACE_CS224N_DIR") or default).resolve()
    missing = [name for name in FILES.values() if not (folder / name).is_file()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not in {folder}; name the folder in BIRTHPLACE_CS224N_DIR")
    return folder
