"""A process's memory: what it holds, and what it does with what it has freed: keep it for what comes next, or give it back."""

import ctypes
import platform
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # of glibc's malloc.h
MOST = 2**31 - 1  # bytes at the end of the heap, the most that mallopt takes
MAPPED, SMALL = 65_536, 131_072  # tensors that may be given back one by one, and from how many bytes on; glibc's defaults

_libc: Any = ctypes.CDLL(None)
_kept = False


def keep_freed() -> None:
    """Have this process keep what it frees for what it allocates next; where malloc is not glibc's, nothing changes.

    Every micro-batch allocates and frees the same large tensors. By default glibc gives each over 32 MB back to the system, which clears
    every page of the next one again, which is slow on some virtual machines. See mallopt(3).
    """
    global _kept  # of the process, as what malloc does is
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(M_MMAP_MAX, 0)
        _libc.mallopt(M_TRIM_THRESHOLD, MOST)
        _kept = True


@contextmanager
def given_back() -> Iterator[None]:
    """Give back what is kept, and meanwhile whatever is freed: for few tensors, larger than those before and after."""
    if _kept:
        for option, value in ((M_MMAP_MAX, MAPPED), (M_MMAP_THRESHOLD, SMALL), (M_TRIM_THRESHOLD, SMALL)):
            _libc.mallopt(option, value)
        _libc.malloc_trim(0)
    try:
        yield
    finally:
        if _kept:
            keep_freed()


def peak_memory() -> int:
    """Bytes of main memory that this process held at most."""
    unit = 1 if platform.system() == "Darwin" else 1024  # macOS counts bytes, others kilobytes
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def anonymous_memory(status: Path = Path("/proc/self/status")) -> int:
    """Bytes that this process holds now and no file stands behind, as Linux counts them; elsewhere all that it held at most."""
    if not status.exists():
        return peak_memory()
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
    return 1024 * int(line.split()[1])
