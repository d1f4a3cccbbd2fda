"""How this package writes a file that somebody may be reading, or that must not be lost half-way."""

import os
from pathlib import Path


def replace_file(path: Path, content: bytes | str) -> None:
    """Give the file this content, text as UTF-8, in one step: a reader, or a crash, sees the old file or the new one.

    Written beside the target, so that replacing never crosses file systems; synced, so that it survives a power cut.
    The folder is made where it is missing. A link stays one, to a file of new content; what is neither file nor folder,
    as /dev/stdout, is written to as it is.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    if path.exists() and not (path.is_file() or path.is_dir()):
        path.write_bytes(data)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
