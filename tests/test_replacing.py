"""A file that is replaced is whole at any moment: the old one or the new one."""

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
