"""One process at a time prepares a store: the lock that says who does, where and since when."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from corpora.notices import announce
from errors import UserError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock on a folder's name, so that ranks and programs started together prepare a store once, and fetch in turn.

    Whoever comes second waits, and says for whom. The lock of a process that is dead, even by kill -9, is open.

    Raises:
        UserError: nothing can be written beside the folder.
    """
    file = folder.with_name(f".{folder.name.lstrip('.')}.lock")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = file.open("a+", encoding="utf-8")
    except OSError as mistake:
        why = mistake.strerror or mistake
        raise UserError(
            f"{folder.parent} cannot be written ({why}): choose another folder with corpus.store=FOLDER."
        ) from mistake
    with lock:
        try:
            _locked(lock.fileno(), file, folder)
        except OSError as mistake:
            if mistake.errno not in NO_LOCKS:
                raise
            announce(f"{folder.parent} is on a file system without locks: do not start two programs that prepare a corpus there.")
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        lock.flush()
        yield


def _locked(lock: int, file: Path, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        announce(f"waiting for {file.read_text(encoding='utf-8') or 'another process'}, which prepares {folder}")
        fcntl.flock(lock, fcntl.LOCK_EX)
