"""What a user installs: the wheel carries its configs and starts far from the checkout, quickly."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end and show everything it said if it failed."""
    env = {**os.environ, **environment}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that is built from it, as a user's pip would."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(distributions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    site = tmp_path_factory.mktemp("site")
    (wheel,) = distributions.glob("*.whl")
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel, cwd=distributions)
    return site


def help_of_train(installed: Path, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-P", *options, "-m", "birthplace_lm.cli.train", "--help")
    return run(*command, cwd=cwd, PYTHONPATH=str(installed), COLUMNS="100")


def test_wheel_carries_every_config(distributions: Path) -> None:
    (wheel,) = distributions.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    here = {f"birthplace_lm/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert {"birthplace_lm/configs/train.yaml", "birthplace_lm/configs/experiment/demo.yaml"} <= here
    pages = [path for ending in ("html", "css", "js") for path in (ROOT / "birthplace_lm").rglob(f"*.{ending}")]
    assert {path.name for path in pages} >= {"attention_page.html", "page.html", "page.css", "page.js"}
    assert here | {path.relative_to(ROOT).as_posix() for path in pages} <= inside
    assert {name.split("/")[0].split("-")[0] for name in inside} == {"birthplace_lm", "hydra_plugins"}


def test_source_distribution_can_be_tested(distributions: Path) -> None:
    (archive,) = distributions.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        inside = {name.split("/", 1)[-1] for name in tar.getnames()}
    assert {"README.md", "LICENSE", "Makefile", "constraints.txt", "pyproject.toml", "configs/train.yaml"} <= inside
    assert "tests/test_packaging.py" in inside


def test_installed_package_is_the_one_that_runs(installed: Path, tmp_path: Path) -> None:
    program = "import birthplace_lm; print(birthplace_lm.__file__)"
    found = run(sys.executable, "-P", "-c", program, cwd=tmp_path, PYTHONPATH=str(installed)).stdout.strip()
    assert Path(found) == installed / "birthplace_lm" / "__init__.py"


def test_help_shows_the_attention_variants(installed: Path, tmp_path: Path) -> None:
    shown = help_of_train(installed, tmp_path).stdout
    line = re.search(r"^\s*attention: (.+)$", shown, flags=re.MULTILINE)
    assert line, shown
    choices = {path.stem for path in (ROOT / "configs" / "attention").glob("*.yaml")}
    assert set(line[1].split(", ")) == choices
    assert not list(tmp_path.iterdir()), "asking for help must leave nothing behind"


def test_help_does_not_wait_for_torch(installed: Path, tmp_path: Path) -> None:
    times = help_of_train(installed, tmp_path, "-X", "importtime").stderr
    modules = {line.rsplit("|", 1)[-1].strip() for line in times.splitlines() if line.startswith("import time:")}
    assert "birthplace_lm" in modules
    assert not modules & {"torch", "pytorch_lightning", "wandb", "matplotlib"}
