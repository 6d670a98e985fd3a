"""Arrays -> one safetensors file, past the system's cache where the disk allows it.

Counts of a layer are written once and read much later. Through the cache of files the system first finds and clears a page for every
4096 bytes, which takes the processor ten times what the disk takes. See O_DIRECT in open(2) and safetensors' format.
"""

import json
import mmap
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from xxhash import xxh3_128

from checksums import CHECKSUM

BLOCK = 4096  # bytes; addresses and places that are multiples of it suit every disk
PIECE = 1 << 24  # bytes that are written at once
DIRECTLY = getattr(os, "O_DIRECT", 0)  # 0: this system cannot
Bytes = UInt8[np.ndarray, " _"]
NO_CHECKSUM = "0" * 32  # stands in the header for the checksum of all bytes while that is computed
NAMES = {"f": "F", "u": "U", "i": "I"}  # of kinds of numbers, in the format


def save_arrays(arrays: Mapping[str, np.ndarray], file: Path, about: Mapping[str, str] | None = None) -> None:
    """Write a file that is on the disk when this returns, and carries the checksum of its bytes beside `about`.

    Raises:
        OSError: the disk is full, or takes no files.
    """
    header = _header(arrays, {**(about or {}), CHECKSUM: NO_CHECKSUM})
    parts = [np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8) for name in _ordered(arrays)]
    digest = xxh3_128(header)
    for part in parts:
        digest.update(part.data)
    header = header.replace(checksum_entry(NO_CHECKSUM), checksum_entry(digest.hexdigest()))
    parts.insert(0, np.frombuffer(header, np.uint8))
    try:
        if DIRECTLY:
            _write(file, parts, DIRECTLY)
            return
    except OSError as refused:
        if refused.errno != 22:  # EINVAL: a file system without it
            raise
    _write(file, parts, 0)


def checksum_entry(checksum: str) -> bytes:
    """How a header says it."""
    return f'"{CHECKSUM}":"{checksum}"'.encode()


def _ordered(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Wider numbers first, so that all are aligned; then by name."""
    return sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))


def _header(arrays: Mapping[str, np.ndarray], about: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": dict(about)}
    at = 0
    for name in _ordered(arrays):
        array = arrays[name]
        kind = "BOOL" if array.dtype.kind == "b" else f"{NAMES[array.dtype.kind]}{8 * array.itemsize}"
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(file: Path, parts: list[Bytes], flags: int) -> None:
    stream = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags, 0o666)
    try:
        at = 0
        for buffer, filled in _filled(parts):
            end = -(-filled // BLOCK) * BLOCK if flags else filled
            done = 0
            while done < end:
                done += os.pwrite(stream, buffer[done:end].data, at + done)
            at += filled
        os.ftruncate(stream, at)
        os.fsync(stream)
    finally:
        os.close(stream)


def _filled(parts: list[Bytes]) -> Iterator[tuple[Bytes, int]]:
    """The parts, one after another, in a buffer, and how many of its bytes are: all, but the last time."""
    buffer, filled = _buffer(), 0
    for part in parts:
        taken = 0
        while taken < len(part):
            more = min(len(part) - taken, len(buffer) - filled)
            buffer[filled : filled + more] = part[taken : taken + more]
            taken, filled = taken + more, filled + more
            if filled == len(buffer):
                yield buffer, filled
                filled = 0
    if filled:
        yield buffer, filled


@cache
def _buffer() -> Bytes:
    """Memory whose address is a multiple of a block, kept: one thread writes counts."""
    return np.frombuffer(mmap.mmap(-1, PIECE), np.uint8)
