"""Bytes of a file -> memory: through the system's cache of files, or past it.

Past it is for weights that are read once in a long while and are more than that cache would keep: filling it takes the processor several
times what it takes to read, as the system finds and clears every page of it. See O_DIRECT in open(2).
"""

import os
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from errors import UserError

BLOCK = 4096  # bytes; addresses and places that are multiples of it suit every disk
DIRECTLY = getattr(os, "O_DIRECT", 0)  # 0: this system cannot


def read(file: Path, offset: int, into: UInt8[Tensor, " byte"]) -> None:
    """Fill `into`, in main memory, with the bytes from `offset` on.

    Raises:
        UserError: the file cannot be read, or ends before.
    """
    try:
        _fill(file, offset, into, len(into))
    except OSError as broken:
        raise UserError(f"{file} cannot be read ({broken.strerror or broken}).") from None


class Room:
    """Memory for `size` bytes of a file at a time, which lie in it as the disk's blocks do."""

    def __init__(self, size: int) -> None:
        self.size = size
        memory = torch.empty(size + 3 * BLOCK, dtype=torch.uint8)
        self.blocks = memory[-memory.data_ptr() % BLOCK :][: (size + 2 * BLOCK) // BLOCK * BLOCK]

    def read(self, file: Path, offset: int, size: int, directly: bool) -> UInt8[Tensor, " byte"]:
        """These bytes of the file, until the next are asked for; `directly`: past the system's cache, where the file system can.

        Raises:
            UserError: the file cannot be read, or ends before.
        """
        assert size <= self.size, "the room is too small"
        before = offset % BLOCK
        found = self.blocks[before : before + size]
        whole = self.blocks[: -(-(before + size) // BLOCK) * BLOCK]
        if not (directly and _directly(file, offset - before, whole, before + size)):
            read(file, offset, found)
        return found


def _directly(file: Path, offset: int, into: UInt8[Tensor, " byte"], least: int) -> bool:
    """Whether that went well; if it did not, another way of reading may, or says better what is wrong."""
    if not DIRECTLY:
        return False
    try:
        _fill(file, offset, into, least, DIRECTLY)
    except (OSError, UserError):
        return False
    return True


def _fill(file: Path, offset: int, into: UInt8[Tensor, " byte"], least: int, flags: int = 0) -> None:
    """Read until at least so many bytes are there: of a file's last block there are fewer."""
    room, there = into.numpy().data, 0
    with open(file, "rb", buffering=0, opener=lambda path, mode: os.open(path, mode | flags)) as stream:
        stream.seek(offset)
        while there < least:  # the system reads 2 GB at a time
            got = stream.readinto(room[there:])
            if not got:
                raise UserError(f"{file} ends within a tensor: it has become shorter since it was opened.")
            there += got
