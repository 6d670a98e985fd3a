"""What a process does with memory that it has freed."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h
MOST = 2**31 - 1  # bytes at the end of the heap, the most that mallopt takes


def keep_freed() -> None:
    """Have this process keep what it frees for what it allocates next, as long as it runs; where malloc is not glibc's, nothing changes.

    Every micro-batch allocates and frees the same large tensors. By default glibc gives each over 32 MB back to the system, which clears
    every page of the next one again; on a virtual machine that took up to a tenth of the time. See mallopt(3).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, MOST)
