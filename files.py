"""Files and folders that appear whole: a reader finds the old one, the new one or none, never half of one."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from errors import UserError

UNFINISHED = re.compile(r"\..+\.\d+\.partial")  # temporary names: .NAME.PID.partial


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A temporary path beside `file` to write to. On success its bytes are on the disk before it takes the name.

    Raises:
        OSError: the disk is full, or takes no files; what stood under the name is still there, and nothing beside it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = temporary(file)
    try:
        yield unfinished
        flush(unfinished)
        unfinished.replace(file)
    except BaseException:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    flush(file.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder` to fill. On success all of it is on the disk before it takes the name.

    An older folder of that name is moved aside first and removed last.

    Raises:
        OSError: the disk is full, or takes no files; what stood under the name is still there, and nothing beside it.
    """
    unfinished, older = temporary(folder), temporary(folder.with_name(f"{folder.name}.older"))
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            flush(path)
        if folder.exists():
            folder.rename(older)
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        if older.exists() and not folder.exists():
            older.rename(folder)
        raise
    flush(folder.parent)
    shutil.rmtree(older, ignore_errors=True)


def write_whole(file: Path, content: bytes | str) -> None:
    """Write a file whole; text as UTF-8.

    Raises:
        UserError: the disk is full, or takes no files.
    """
    try:
        with whole_file(file) as unfinished:
            unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())
    except OSError as full:
        raise UserError(
            f"{file} could not be written ({full.strerror}); make room or choose another place, and the same command goes on."
        ) from None


def remove_unfinished(folder: Path) -> None:
    """Remove what killed writers left in a folder and in its folders. Only who holds the folder's lock may."""
    for path in list(folder.rglob(".*.partial")):
        if UNFINISHED.fullmatch(path.name):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def temporary(path: Path) -> Path:
    """A name beside `path` that no other process of this machine writes under."""
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def flush(path: Path) -> None:
    """Wait until a file's bytes, or the names in a folder, are on the disk; file systems that cannot flush a folder are let off."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(handle)
