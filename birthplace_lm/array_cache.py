"""Arrays that were made once and are mapped from then on: a folder of entries, each of which says what it came from.

    <cache>/<kind>-<24 hex digits>/     of the sha256 sum of what it was made from
        entry.json                          that in full, small facts, and of every array its type, shape and checksum
        <name>.npy                          one array

An entry is made in a folder beside (`.part`) and moved into place when all of it is on the disk, by the one process
that holds its lock: whoever is killed leaves nothing that is believed, and of a sweep's jobs one makes it while the
others wait. On opening, everything is compared with entry.json, the checksum of every byte included, so a damaged or
foreign entry is noticed, said so and made anew. Nothing in it is unpickled.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_FORMAT = 1
_BLOCK = 1 << 20
_logger = logging.getLogger(__name__)


class UnusableEntryError(ValueError):
    """An entry that is not what was asked for, or not what was once written, with the reason."""


@dataclass(frozen=True)
class Entry:
    """What was made: arrays by name, and small facts as JSON holds them."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]


class ArrayCache:
    """A folder of entries; it is made when the first of them is."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def entry(self, kind: str, made_from: Mapping[str, Any], make: Callable[[], Entry]) -> Entry:
        """The entry that was made from these plain values, made now if it is not there; its arrays are mapped.

        They may be written to (torch asks for that), but what is written stays in this process.
        """
        place = self.folder / f"{kind}-{_sum_of(made_from)[:24]}"
        with suppress(UnusableEntryError):
            return _opened(place, made_from)  # most often: no lock to wait for
        with self._locked(place.name):
            try:
                return _opened(place, made_from)  # another process may have made it meanwhile
            except UnusableEntryError as error:
                if place.exists():
                    _logger.warning("%s: %s; it is made anew", place, error)
                _write(place, made_from, make())
            return _opened(place, made_from)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold the lock of one entry, which ends with the process that holds it, however that ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / f".{name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                told = (
                    f"cannot lock files in {self.folder} ({error.strerror}): name another data.cache, or null for none"
                )
                raise PermissionError(error.errno, told) from None
            yield


def _write(place: Path, made_from: Mapping[str, Any], made: Entry) -> None:
    """Write an entry beside its place, then move it there; what a killed process left, or a bad entry, goes first."""
    part = place.with_name(f".{place.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        _fill(part, made_from, made)
    except BaseException:  # a full disk: it is not to stay full of what nobody can use
        shutil.rmtree(part, ignore_errors=True)
        raise
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    os.replace(part, place)
    _sync(place.parent)


def _fill(part: Path, made_from: Mapping[str, Any], made: Entry) -> None:
    part.mkdir()
    for name, array in made.arrays.items():
        np.save(part / f"{name}.npy", array, allow_pickle=False)
    described = {name: _description(part / f"{name}.npy", array) for name, array in made.arrays.items()}
    entry = {"format": _FORMAT, "made_from": made_from, "facts": made.facts, "arrays": described}
    text = json.dumps({**entry, "sha256": _sum_of(entry)})
    (part / "entry.json").write_text(text, encoding="utf-8")
    for path in (*part.iterdir(), part):
        _sync(path)


def _sum_of(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _description(path: Path, array: np.ndarray) -> dict[str, Any]:
    return {"type": array.dtype.str, "shape": list(array.shape), **_bytes_of(path)}


def _bytes_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "crc32": _crc32(path)}


def _crc32(path: Path) -> int:
    """The checksum of a file, read in pieces: read, not mapped, so that none of it counts as this process's memory."""
    total = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            total = zlib.crc32(block, total)
    return total


def _opened(place: Path, made_from: Mapping[str, Any]) -> Entry:
    """Map an entry, all of it checked; raises UnusableEntryError with the reason."""
    try:
        entry = json.loads((place / "entry.json").read_text(encoding="utf-8"))
        found = {key: entry[key] for key in ("format", "made_from", "facts", "arrays")}
        whole = entry["sha256"] == _sum_of(found)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UnusableEntryError(f"entry.json cannot be read ({type(error).__name__}: {error})") from None
    if not whole:
        raise UnusableEntryError("entry.json is damaged: its checksum is that of another text")
    if found["format"] != _FORMAT or found["made_from"] != json.loads(json.dumps(made_from)):
        raise UnusableEntryError("entry.json is of another version, or of something else")
    arrays = {}
    for name, described in found["arrays"].items():
        path = place / f"{name}.npy"
        try:  # the bytes first: only what was once written here is read as an array
            if (actual := _bytes_of(path)).items() <= described.items():
                array = np.lib.format.open_memmap(path, mode="c")
                actual = {"type": array.dtype.str, "shape": list(array.shape), **actual}
        except (OSError, ValueError, EOFError) as error:
            raise UnusableEntryError(f"{path.name} cannot be read ({type(error).__name__}: {error})") from None
        if actual != described:
            raise UnusableEntryError(f"{path.name} is damaged: it is {actual}, not {described}")
        arrays[name] = np.asarray(array)
    return Entry(arrays, found["facts"])
