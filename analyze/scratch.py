"""Where a layer's firing bits lie: in memory, or past a budget in a file that is gone when the program is."""

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from rich.console import Console

from errors import UserError

GB = 1_000_000_000


def bit_matrix(rows: int, width: int, budget: float | None, scratch: Path, console: Console) -> UInt8[np.ndarray, "token byte"]:
    """Room for the bits of a layer: `rows` rows of `width` bytes, within `budget` GB of memory or in a file in `scratch`.

    The file has no name, so that not even a killed program leaves it behind.

    Raises:
        UserError: the disk has no room for the file.
    """
    size = rows * width
    allowed = free_memory() / 2 if budget is None else budget * GB
    if size <= allowed:
        return np.zeros((rows, width), np.uint8)
    beyond = f"{size / GB:.2f} GB of firing bits are more than the {allowed / GB:.2f} GB of memory that bits_memory allows"
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=scratch) as file:
            reserve(file.fileno(), size)
            room: UInt8[np.ndarray, "token byte"] = np.memmap(file, np.uint8, "r+", shape=(rows, width))
    except OSError as full:
        raise UserError(
            f"{beyond}, and scratch={scratch} cannot take them ({full.strerror}). Finished layers are kept; make room, "
            "choose another scratch= or read fewer tokens, and the same command goes on."
        ) from None
    console.print(f"{beyond}: they go to a file in {scratch}", markup=False, highlight=False, soft_wrap=True)
    return room


def reserve(file: int, size: int) -> None:
    """Take room on the disk now: writing to a mapped file on a full disk would kill the program."""
    os.posix_fallocate(file, 0, size)


def free_memory() -> int:
    """Bytes of memory that are free, as Linux estimates them."""
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
