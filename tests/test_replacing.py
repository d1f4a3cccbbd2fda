"""A file that is replaced is whole at any moment: the old one or the new one."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from birthplace_lm.replacing import replace_file


def test_text_is_utf8_with_its_own_line_ends_and_bytes_are_bytes(tmp_path: Path) -> None:
    replace_file(tmp_path / "new" / "a.txt", "Łódź ⁇\r\n")
    replace_file(tmp_path / "new" / "b", b"\x00\xff")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "Łódź ⁇\r\n".encode()
    assert (tmp_path / "new" / "b").read_bytes() == b"\x00\xff"


@pytest.mark.parametrize("failing", ["os.fsync", "os.replace"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    replace_file(path, "old")

    def broken(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(failing, broken)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"] and path.read_text() == "old"


def test_a_link_stays_a_link_and_what_it_leads_to_is_new(tmp_path: Path) -> None:
    target, link = tmp_path / "elsewhere" / "a.txt", tmp_path / "link.txt"
    replace_file(target, "old")
    link.symlink_to(target)
    replace_file(link, "new")
    assert link.is_symlink() and target.read_text() == "new"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        replace_file(pipe, "through")
        assert read.result(timeout=60) == "through"
    assert pipe.is_fifo() and [path.name for path in tmp_path.iterdir()] == ["pipe"]
    replace_file(Path(os.devnull), "nothing")
    assert Path(os.devnull).is_char_device()
