"""Files for what memory has no room for: room on the disk is taken at once, and what is in them is used as an array."""

import os
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from errors import UserError

GB = 1_000_000_000


def nameless(rows: int, width: int, folder: Path) -> UInt8[np.memmap, "token byte"]:
    """Room for the bits of a layer in a file without a name, so that not even a killed program leaves it behind.

    Raises:
        UserError: the disk has no room for it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            reserve(file.fileno(), rows * width)
            return np.memmap(file, np.uint8, "r+", shape=(rows, width))
    except OSError as full:
        raise no_room(rows * width, folder, full) from None


def mapped(file: Path, size: int) -> UInt8[np.memmap, " byte"]:
    """A file of `size` bytes, mapped; made if it is not there.

    Raises:
        UserError: the disk has no room for it.
    """
    if not (file.exists() and file.stat().st_size == size):
        unfinished = file.with_suffix(".partial")
        try:
            with unfinished.open("wb") as stream:
                reserve(stream.fileno(), size)
            unfinished.replace(file)
        except OSError as full:
            unfinished.unlink(missing_ok=True)
            raise no_room(size, file.parent, full) from None
    return np.memmap(file, np.uint8, "r+", shape=(size,))


def reserve(file: int, size: int) -> None:
    """Take room on the disk now: writing to a mapped file on a full disk would kill the program."""
    os.posix_fallocate(file, 0, size)


def no_room(size: int, folder: Path, full: OSError) -> UserError:
    """What a full disk is told as."""
    return UserError(
        f"{folder} cannot take a file of {size / GB:.2f} GB ({full.strerror}). Finished layers are kept; make room, choose another "
        "scratch= or read fewer tokens, and the same command goes on."
    )
