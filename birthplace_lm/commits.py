"""Which command and which code runs, without torch: who only starts others asks, too."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_CODE = ("birthplace_lm", "configs", "hydra_plugins")  # what a run is made by


def hide_environment() -> None:
    """Star out of this process's command what it says of environment variables, a key perhaps.

    Provenance is told of the command, and so are mirrors, some of which read it by themselves.
    """
    said = re.compile(r"(?=.*env_set)([+~]*hydra\b[^=]*=).*", re.DOTALL)  # hydra={job:{env_set:…}} is a way, too
    sys.argv[1:] = [said.sub(r"\1***", argument) if said.match(argument) else argument for argument in sys.argv[1:]]


def origin() -> dict[str, Any]:
    """When it began, the command, and what `commit` tells."""
    started, command = datetime.now(UTC).isoformat(timespec="seconds"), [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {"started": started, "command": command, **commit()}


def commit() -> dict[str, Any]:
    """The commit of the checkout that the package runs from, and whether its code or configurations are in no commit.

    Both None from an installed package.
    """
    here = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not (here / "pyproject.toml").is_file():
        return {"commit": None, "dirty": None}
    status = git("status", "--porcelain", "--", *_CODE)  # a new variant is a new file: untracked ones count, too
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
