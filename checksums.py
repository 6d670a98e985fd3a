"""Checksums that are compared before a file is trusted: of a file's bytes, and in a JSON file those of its other entries.

They find damage, not forgery: xxh3 runs at the speed of memory. A token store has sha256, which decides names and fingerprints too.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_128

from errors import UserError
from files import write_whole

LAST_LINE = re.compile(r"# checksum of the lines above: (\w*)\n?")
CHECKSUM = "checksum"  # the entry of a JSON file, or of a safetensors file's metadata, that holds it


class Damaged(UserError):
    """A file is not as it was written."""


def checksum_of(entries: Mapping[str, Any]) -> str:
    """The checksum of a JSON object's entries, whatever their order and the blanks between them; its own entry aside."""
    plain = json.loads(json.dumps({name: value for name, value in entries.items() if name != CHECKSUM}))
    return xxh3_128(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def write_object(file: Path, entries: Mapping[str, Any]) -> None:
    """Write a JSON object whole, with its checksum as the last entry.

    Raises:
        UserError: the disk is full, or takes no files.
    """
    others = {name: value for name, value in entries.items() if name != CHECKSUM}
    write_whole(file, json.dumps(others | {CHECKSUM: checksum_of(others)}, indent=2) + "\n")


def read_object(file: Path, without: bool = False) -> dict[str, Any]:
    """A JSON object as it was written; `without`: also one that has no checksum.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is no JSON object, or another than was written.
    """
    try:
        entries = json.loads(file.read_bytes())
    except RecursionError:
        raise ValueError("it is no JSON") from None
    if not isinstance(entries, dict):
        raise ValueError("it holds no JSON object")
    if not (without and CHECKSUM not in entries) and entries.get(CHECKSUM) != checksum_of(entries):
        raise ValueError("its checksum is another")
    return entries


def with_checksum(lines: str) -> str:
    """Lines of YAML, and after them their checksum as a comment."""
    return f"{lines}# checksum of the lines above: {xxh3_128(lines.encode()).hexdigest()}\n"


def read_lines(file: Path) -> str:
    """The lines of a YAML file as they were written; also of one that has no checksum.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: they are no text, or others than were written.
    """
    lines = file.read_bytes().decode().splitlines(keepends=True)
    if lines and (found := LAST_LINE.fullmatch(lines[-1])):
        checksum = xxh3_128("".join(lines[:-1]).encode()).hexdigest()
        if found[1] != checksum:
            raise ValueError("its checksum is another")
    return "".join(lines)


def file_checksum(file: Path) -> str:
    """The checksum of a file's bytes. A file that has not changed since is not read again.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return _checksum_of(*state(file))


def state(file: Path) -> tuple[Path, int, int, int, int]:
    """Which file it is, and what changes with its content: for caches of what was found in it."""
    now = file.stat()
    return file.resolve(), now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


@cache
def _checksum_of(file: Path, *_: int) -> str:
    with file.open("rb") as stream:
        return xxh3_128(np.memmap(stream, np.uint8, "r").data if file.stat().st_size else b"").hexdigest()


def file_sha256(file: Path) -> str:
    """sha256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def damaged(hashes: Mapping[Path, str]) -> list[Path]:
    """The files whose sha256 is another, or that are gone. All cores compare; a file that has not changed since is not read again."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(_sha256_now, hashes)
        return [file for (file, expected), digest in zip(hashes.items(), found, strict=True) if digest != expected]


def _sha256_now(file: Path) -> str | None:
    try:
        return _sha256_of(*state(file))
    except OSError:
        return None


@cache
def _sha256_of(file: Path, *_: int) -> str:
    return file_sha256(file)
