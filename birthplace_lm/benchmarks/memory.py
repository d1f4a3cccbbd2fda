"""How much memory this process holds, in bytes of resident memory: what the machine has to have."""

import re
import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak() -> int:
    """The most that was ever held.

    On Linux the kernel's high-water mark of this very program. getrusage, used elsewhere, would there also count what
    the starting process held before this one became its own.
    """
    if (marked := _of_status("VmHWM")) is not None:
        return marked
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def held() -> int:
    """What is held now; the peak so far where the system does not tell."""
    now = _of_status("VmRSS")
    return peak() if now is None else now


def _of_status(name: str) -> int | None:
    if not _STATUS.is_file():
        return None
    found = re.search(rf"^{name}:\s*(\d+) kB$", _STATUS.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    return 1024 * int(found[1]) if found else None
