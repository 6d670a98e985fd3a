"""One process at a time writes a folder: the lock that says who does, on which machine and since when.

The lock of a folder is a file beside it, `.NAME.lock`, held by flock while it is in use and removed afterwards. A process that dies,
even by kill -9, holds no lock: the file it leaves is in nobody's way. Processes that it forked never hold it.
"""

import errno
import fcntl
import math
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path

from errors import UserError

LOCK = re.compile(r"\..*\.lock")
PATIENCE = 5.0  # seconds: a job that is started again at once finds its killed predecessor still ending
EVERY = 0.1  # seconds between two looks
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: dict[Path, int] = {}  # the open lock files of this process


@contextmanager
def only_writer(folder: Path, setting: str, patience: float | None = None) -> Iterator[None]:
    """Hold a folder's lock, or refuse: two programs would mix their files. `setting` chooses another folder, such as "out=".

    Within one process it may be held several times over.

    Raises:
        UserError: another process holds it, and does so for as long as our `patience` lasts; or no lock can be written.
    """
    with _locked(folder, setting, PATIENCE if patience is None else patience):
        yield


@contextmanager
def in_turn(folder: Path, setting: str) -> Iterator[None]:
    """Hold a folder's lock, so that programs started together make a thing once. Who comes second waits, and says for whom.

    Raises:
        UserError: no lock can be written.
    """
    with _locked(folder, setting, math.inf):
        yield


@contextmanager
def _locked(folder: Path, setting: str, patience: float) -> Iterator[None]:
    file = lock_file(folder)
    if file in _held:
        yield
        return
    lock = _opened_and_locked(folder, file, setting, patience)
    _held[file] = lock
    try:
        os.truncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}".encode())
        yield
    finally:
        if _held.pop(file, None) is not None:  # else this is a fork of the process that holds it
            _let_go(lock, file)


def lock_file(folder: Path) -> Path:
    """Beside the folder, which may be empty, removed or replaced meanwhile; within it where that is another disk or no place to write."""
    folder = folder.resolve()
    within = os.path.ismount(folder) or (os.access(folder, os.W_OK) and not os.access(folder.parent, os.W_OK))
    return (folder if within else folder.parent) / f".{folder.name.lstrip('.')}.lock"


def locked(folder: Path) -> bool:
    """Whether somebody writes a folder, or was killed doing so."""
    return lock_file(folder).exists()


def _opened_and_locked(folder: Path, file: Path, setting: str, patience: float) -> int:
    until, asked = time.monotonic() + patience, False
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(file, os.O_RDWR | os.O_CREAT)
        except OSError as mistake:
            raise UserError(f"{mistake.filename} cannot be written ({mistake.strerror}): choose another {setting}.") from mistake
        if _mine(lock, file, folder):
            return lock
        os.close(lock)
        if time.monotonic() >= until:
            raise UserError(
                f"{folder} is being written by {_holder(file)}: wait until it has ended, or choose another {setting}."
            )
        if asked and patience == math.inf:
            _say(f"waiting for {_holder(file)}, which prepares {folder}")
        asked = True
        time.sleep(EVERY)


def _mine(lock: int, file: Path, folder: Path) -> bool:
    """Whether the lock is ours now, and its file still stands under its name: who held it before us removes it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as mistake:
        if mistake.errno not in NO_LOCKS:
            os.close(lock)
            raise
        _say(f"{folder.parent} is on a file system without locks: do not start two programs that write {folder}.")
        return True
    return _stands(lock, file)


def _stands(lock: int, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), file.stat())
    return False


def _let_go(lock: int, file: Path) -> None:
    with suppress(OSError):
        if _stands(lock, file):
            file.unlink()
    os.close(lock)


def _holder(file: Path) -> str:
    with suppress(OSError):
        return file.read_text(encoding="utf-8") or "another process"
    return "another process"


@cache
def _say(words: str) -> None:
    """Once a process."""
    print(words, file=sys.stderr, flush=True)


def _not_the_child_s() -> None:
    for lock in _held.values():
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_not_the_child_s)
