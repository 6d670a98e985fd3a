"""Files for what memory has no room for: room on the disk is taken at once, and what is in them is used as an array."""

import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from analyze.machine import GB
from checksums import CHECKSUM, read_object, write_object
from errors import UserError
from files import whole_file

WRITTEN = 1 << 24  # bytes of zeros at a time, where no system call reserves room


@dataclass(frozen=True)
class Scratch:
    """A folder for what one census needs to go on after a kill, and nobody once it is done."""

    path: Path

    def open(self, made_for: dict[str, Any]) -> None:
        """Make it, empty unless it was `made_for` the same."""
        if self.made_for != json.loads(json.dumps(made_for)):
            self.remove()
            self.path.mkdir(parents=True)
            write_object(self.path / "about.json", made_for)

    @property
    def made_for(self) -> dict[str, Any] | None:
        """What it was opened with; None if it is not there, or damaged."""
        with suppress(OSError, ValueError):
            found = read_object(self.path / "about.json")
            del found[CHECKSUM]
            return found
        return None

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)


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
        try:
            with whole_file(file) as unfinished, unfinished.open("wb") as stream:
                reserve(stream.fileno(), size)
        except OSError as full:
            raise no_room(size, file.parent, full) from None
    return np.memmap(file, np.uint8, "r+", shape=(size,))


def reserve(file: int, size: int) -> None:
    """Take room on the disk now: writing to a mapped file on a full disk would kill the program."""
    if hasattr(os, "posix_fallocate"):  # Linux
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(min(size, WRITTEN))
    with open(file, "wb", buffering=0, closefd=False) as stream:
        while (left := size - stream.tell()) > 0:
            stream.write(zeros[:left])


def no_room(size: int, folder: Path, full: OSError) -> UserError:
    """What a full disk is told as."""
    return UserError(
        f"{folder} cannot take a file of {size / GB:.2f} GB ({full.strerror}). Finished layers are kept; make room, choose another "
        "scratch= or read fewer tokens, and the same command goes on."
    )
