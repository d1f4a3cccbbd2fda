"""Arrays made once: whatever is killed, damaged or put there by somebody else, what comes back is what was made."""

import errno
import json
import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from birthplace_lm.array_cache import ArrayCache, Entry, _sum_of

RECIPE = {"sha256": "ab" * 32, "rules": 1}
ARRAYS = {"ids": np.arange(300, dtype=np.uint8), "starts": np.arange(20, dtype=np.int64).reshape(10, 2)}
FACTS = {"alphabet": "□⁇aé", "places": ["Pau", "Łódź"]}

MAKER = """
import os, signal, sys, time
import numpy as np
from birthplace_lm.array_cache import ArrayCache, Entry
import birthplace_lm.array_cache as module

def make():
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    time.sleep(0.3)
    return Entry({"ids": np.arange(300, dtype=np.uint8)}, {"a": 1})

{prelude}
entry = ArrayCache(sys.argv[1]).entry("texts", {"of": 1}, make)
assert entry.arrays["ids"].sum() == np.arange(300, dtype=np.uint8).sum() and entry.facts == {"a": 1}
"""


def made() -> Entry:
    return Entry(ARRAYS, FACTS)


def never() -> Entry:
    raise AssertionError("made again")


def same(entry: Entry) -> bool:
    equal = all(np.array_equal(entry.arrays[name], array) for name, array in ARRAYS.items())
    types = {name: array.dtype for name, array in entry.arrays.items()}
    return equal and types == {name: array.dtype for name, array in ARRAYS.items()} and entry.facts == FACTS


def place(folder: Path) -> Path:
    (found,) = (path for path in folder.iterdir() if not path.name.startswith("."))
    return found


def maker(folder: Path, log: Path, prelude: str = "") -> subprocess.Popen[bytes]:
    code = MAKER.replace("{prelude}", prelude)
    return subprocess.Popen([sys.executable, "-c", code, str(folder), str(log)], cwd=Path(__file__).parents[1])


def test_an_entry_is_made_once_and_mapped_from_then_on(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "new" / "cache")
    assert same(cache.entry("texts", RECIPE, made))
    again = cache.entry("texts", RECIPE, never)
    assert same(again) and isinstance(again.arrays["ids"].base, np.memmap)
    again.arrays["ids"][:] = 0  # stays in this process
    assert same(ArrayCache(tmp_path / "new" / "cache").entry("texts", RECIPE, never))


def test_an_entry_goes_by_all_that_it_was_made_from(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.entry("texts", RECIPE, made)
    for kind, recipe in (("spans", RECIPE), ("texts", {**RECIPE, "rules": 2}), ("texts", {"sha256": "ab" * 32})):
        other = cache.entry(kind, recipe, lambda: Entry({"n": np.ones(1)}, {}))
        assert list(other.arrays) == ["n"]
    assert same(cache.entry("texts", RECIPE, never))


def flipped(at: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    return damage


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def lengthened(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    "damage", [flipped(-1), flipped(20), flipped(130), truncated, emptied, lengthened, Path.unlink]
)
@pytest.mark.parametrize("name", ["ids.npy", "starts.npy"])
def test_damage_is_noticed_said_and_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    cache = ArrayCache(tmp_path)
    cache.entry("texts", RECIPE, made)
    damage(place(tmp_path) / name)
    with caplog.at_level(logging.WARNING):
        assert same(cache.entry("texts", RECIPE, made))
    assert name in caplog.text and "made anew" in caplog.text
    assert same(cache.entry("texts", RECIPE, never))


def test_no_changed_bit_of_a_header_is_read_as_an_array(tmp_path: Path) -> None:
    """A header is Python's notation: read damaged, it fails in a hundred ways, or as another kind of file."""
    cache = ArrayCache(tmp_path)
    cache.entry("texts", RECIPE, made)
    path = place(tmp_path) / "ids.npy"
    whole = path.read_bytes()
    bits = [bytes([*whole[:at], whole[at] ^ 1 << bit, *whole[at + 1 :]]) for at in range(128) for bit in (0, 5)]
    for damaged in (*bits, b"PK\3\4" + whole[4:], b"\x80\4." + whole[3:]):
        path.write_bytes(damaged)
        assert same(cache.entry("texts", RECIPE, made))
        assert path.read_bytes() == whole


def test_every_changed_byte_of_the_description_is_noticed(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.entry("texts", RECIPE, made)
    path = place(tmp_path) / "entry.json"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        made_again = []

        def make(noted: list[int] = made_again) -> Entry:
            noted.append(1)
            return made()

        assert same(cache.entry("texts", RECIPE, make))
        changed_nothing = json.loads(whole) == json.loads(path.read_bytes()) and not made_again
        assert made_again or changed_nothing


def test_what_was_made_from_something_else_is_not_believed(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path)
    cache.entry("texts", RECIPE, made)
    own = place(tmp_path)
    other = ArrayCache(tmp_path / "other")
    other.entry("texts", {"sha256": "cd" * 32}, lambda: Entry({"ids": np.zeros(3)}, FACTS))
    shutil.rmtree(own)
    shutil.move(next((tmp_path / "other").glob("texts-*")), own)
    assert same(cache.entry("texts", RECIPE, made))
    shutil.rmtree(own)
    own.write_text("a file in the way")
    assert same(cache.entry("texts", RECIPE, made))


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    cache = ArrayCache(tmp_path / "cache")
    cache.entry("texts", RECIPE, made)
    entry = place(tmp_path / "cache")
    evidence = tmp_path / "unpickled"
    np.save(entry / "ids.npy", np.array([Touches(str(evidence))], dtype=object), allow_pickle=True)
    with open(entry / "ids.npy", "rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        pickle.load(file)
    evidence.rmdir()  # so it would have been made
    described = json.loads((entry / "entry.json").read_text())
    data = (entry / "ids.npy").read_bytes()
    described["arrays"]["ids"] = {"type": "|O", "shape": [1], "bytes": len(data), "crc32": zlib.crc32(data)}
    rest = {key: value for key, value in described.items() if key != "sha256"}
    (entry / "entry.json").write_text(json.dumps({**rest, "sha256": _sum_of(rest)}))
    assert same(cache.entry("texts", RECIPE, made)) and not evidence.exists()


KILL = "os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    "prelude",
    [
        f"module.np.save = lambda *a, **k: {KILL}",
        f"module._description = lambda *a, **k: {KILL}",
        f"module._sync = lambda *a: {KILL}",
        f"module.os.replace = lambda *a: {KILL}",
    ],
)
def test_a_process_that_is_killed_leaves_nothing_that_is_believed(tmp_path: Path, prelude: str) -> None:
    process = maker(tmp_path / "cache", tmp_path / "log", prelude)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not list((tmp_path / "cache").glob("texts-*"))
    log = (tmp_path / "log").read_text()
    assert maker(tmp_path / "cache", tmp_path / "log").wait(timeout=60) == 0
    assert (tmp_path / "log").read_text() == log + "made\n"
    assert not list((tmp_path / "cache").glob(".*.part"))


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    processes = [maker(tmp_path / "cache", tmp_path / "log") for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert (tmp_path / "log").read_text() == "made\n"


def test_a_full_disk_is_not_left_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("birthplace_lm.array_cache._sync", full)
    with pytest.raises(OSError, match="No space left"):
        ArrayCache(tmp_path).entry("texts", {"a": 1}, lambda: Entry({"ids": np.arange(9)}, {}))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_file_system_without_locks_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(PermissionError, match=r"\(Function not implemented\): name another data\.cache, or null"):
        ArrayCache(tmp_path).entry("texts", {"a": 1}, lambda: Entry({"ids": np.arange(9)}, {}))
