"""Files and folders that appear whole: a reader finds the old one, the new one or none, never half of one."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path

from errors import UserError
from locks import locked

UNFINISHED = re.compile(r"\.(.+)\.\d+\.partial")  # temporary names: .NAME.PID.partial


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


def remove_unfinished(folder: Path, deep: bool = True) -> None:
    """Remove what killed writers left of a folder and in it; `deep`: in its folders too. Only who holds the folder's lock may.

    What is below a lock of its own is left to who holds that.
    """
    of_itself = re.compile(rf"\.{re.escape(folder.name)}(\.older)?\.\d+\.partial")
    beside = [path for path in folder.parent.glob(".*.partial") if of_itself.fullmatch(path.name)]
    for path in [*beside, *_unfinished(folder, deep)]:
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _unfinished(folder: Path, deep: bool) -> Iterator[Path]:
    """Those in a folder whose writer held no other lock than the folder's. A lock is older than what is written under it."""
    for place, folders, names in os.walk(folder):
        above = takewhile(lambda path: path != folder, (Path(place), *Path(place).parents))
        if any(locked(path) for path in above):
            folders.clear()
            continue
        for name in [*folders, *names]:
            found = UNFINISHED.fullmatch(name)
            if found and not locked(Path(place, found[1].removesuffix(".older"))):
                yield Path(place, name)
        folders[:] = [name for name in folders if deep and not UNFINISHED.fullmatch(name)]


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
