"""Where a result comes from: the processor by its name, since figures of two processors do not compare."""

import subprocess
from pathlib import Path

import pytest

from birthplace_lm import commits, provenance


def test_code_in_no_commit_is_told_and_other_files_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new variant is a new file, which git does not know yet; notes and runs beside the package say nothing of it."""
    package = tmp_path / "birthplace_lm"
    package.mkdir()
    for path in (package / "commits.py", tmp_path / "pyproject.toml", tmp_path / "notes.txt"):
        path.write_text("one")
    who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "all")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    monkeypatch.setattr(commits, "__file__", str(package / "commits.py"))
    told = commits.commit()
    assert len(told["commit"]) == 40 and told["dirty"] is False
    (tmp_path / "notes.txt").write_text("two")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "weights").write_text("")
    assert commits.commit() == told
    for folder in (package, tmp_path / "configs"):
        folder.mkdir(exist_ok=True)
        (folder / "mine.yaml").write_text("")
        assert commits.commit() == {**told, "dirty": True}
        (folder / "mine.yaml").unlink()
    (package / "commits.py").write_text("two")
    assert commits.commit()["dirty"]


def test_the_kernel_tells_the_processors_name(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some Maker(R) 9: fast\n\nmodel name\t: another\n")
    assert provenance._processor(told) == "Some Maker(R) 9: fast"


@pytest.mark.parametrize("text", [None, "", "processor : 0\n", "model name :\n"])
def test_elsewhere_python_says_what_it_knows(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "cpuinfo"
    if text is not None:
        told.write_text(text)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "arm64")
    assert provenance._processor(told) == "arm64"


def test_a_result_says_what_it_was_computed_on() -> None:
    hardware = provenance.provenance("some data")["hardware"]
    assert hardware["processor"] and hardware["instructions"] and hardware["threads"] >= 1
