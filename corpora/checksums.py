"""Checksums of files that a later step trusts, compared before it reads them."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path


def file_hash(file: Path) -> str:
    """sha256 of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def damaged(hashes: Mapping[Path, str]) -> list[Path]:
    """The files whose sha256 is another, or that are gone. All cores compare; a file that has not changed since is not read again."""
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = threads.map(_hash_now, hashes)
        return [file for (file, expected), digest in zip(hashes.items(), found, strict=True) if digest != expected]


def _hash_now(file: Path) -> str | None:
    try:
        state = file.stat()
        return _hash_of(file.resolve(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except OSError:
        return None


@cache
def _hash_of(file: Path, *state: int) -> str:
    return file_hash(file)
