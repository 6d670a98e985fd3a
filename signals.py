"""What ends a program before its end: SIGTERM or Ctrl-C once, as soon as it can; a second time at once, whatever waits."""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread, current_thread, main_thread
from types import FrameType
from typing import Any

STOPPED = 75  # the exit code of what was stopped before its end: sysexits.h's "try again", and the same command goes on
BEGUN = time.monotonic()  # when this process began, but for what Python takes
ENDING = (signal.SIGINT, signal.SIGTERM)
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)  # SLURM and submitit send one some time before the end of a job
ONE = 1.0  # seconds in which signals count as one: a terminal sends Ctrl-C to all, and make, torchrun and scripts hand it on
SHOW_CURSOR = b"\x1b[?25h"


class Stopped(SystemExit):
    """The program ends before its end, by a signal or a time limit; `why` if that is still to be said."""

    def __init__(self, why: str = "") -> None:
        super().__init__(STOPPED)
        self.why = why

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.why,)


class _Heeding:
    """What this process has been sent, and what stood before it took signals over."""

    def __init__(self) -> None:
        self.pipe: tuple[int, int] | None = None
        self.before: dict[signal.Signals, Any] = {}
        self.first: signal.Signals | None = None  # of those that this process was sent
        self.at_work = True  # so that there is something to stop


_heeding = _Heeding()


def heed(*also: signal.Signals) -> None:
    """From here on SIGTERM and Ctrl-C, and signals `also` named, raise `Stopped` in the main thread.

    Python runs handlers between its own instructions only; a second SIGTERM or Ctrl-C is therefore read by a thread.
    """
    if _heeding.pipe is not None or current_thread() is not main_thread():
        return
    for number in (*ENDING, *also):
        _heeding.before[number] = signal.signal(number, _stop)  # also where a shell's & has Ctrl-C ignored: kill -INT is meant
    _heeding.first = None
    reading, writing = _heeding.pipe = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    Thread(target=_watch, args=(reading,), daemon=True, name="signals").start()


def forget() -> None:
    """Handle signals again as before `heed`."""
    if _heeding.pipe is None:
        return
    for number, handler in _heeding.before.items():
        signal.signal(number, handler)
    signal.set_wakeup_fd(-1)
    os.close(_heeding.pipe[1])  # the thread reads the end, and closes its own
    _heeding.pipe, _heeding.before = None, {}


@contextmanager
def heeded(*also: signal.Signals) -> Iterator[None]:
    """Heed signals here. A program that is stopped heeds them until its end: what it leaves may wait for something too."""
    mine, stopped = _heeding.pipe is None, False
    heed(*also)
    try:
        yield
    except Stopped:
        stopped = True
        raise
    finally:
        if mine and not stopped:
            forget()


def received() -> signal.Signals | None:
    """The signal that is to end this process."""
    return _heeding.first


def watched() -> bool:
    """Whether a second signal ends this process at once."""
    return _heeding.pipe is not None


@contextmanager
def one_of_many(*also: signal.Signals) -> Iterator[None]:
    """Do one of many pieces of work here, each of which heeds signals; between two of them they are noted alone."""
    heed(*also)
    _heeding.at_work = True
    try:
        yield
    finally:
        _heeding.at_work = False


def left_to_the_parent() -> None:
    """In a process that works for another: ignore what a terminal or SLURM sends to all, the other decides."""
    for number in (signal.SIGINT, *WARNINGS):
        signal.signal(number, signal.SIG_IGN)


def _stop(number: int, _frame: FrameType | None) -> None:
    if _heeding.first is not None:
        return
    _heeding.first = signal.Signals(number)
    if not _heeding.at_work:
        return
    if sweep_workers():
        Thread(target=_hand_on, args=(number,), daemon=True, name="handing on").start()
        return
    raise Stopped(_heeding.first.name)


def sweep_workers() -> list[BaseProcess]:
    """The processes in which a sweep trains variants side by side: joblib's."""
    return [child for child in active_children() if "loky" in type(child).__module__ and child.pid]


def _hand_on(number: int) -> None:
    """Send it once to every process of a sweep, as soon as that heeds it: a variant that begins after all stops then."""
    told: set[int] = set()
    while workers := sweep_workers():
        for worker in workers:
            pid = worker.pid or 0
            if pid not in told and _heeds_signals(pid):
                told.add(pid)
                os.kill(pid, number)
        time.sleep(0.1)


def _heeds_signals(pid: int) -> bool:
    """Whether a process has called `heed`, for warnings too; it is taken to have where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    try:
        caught = next(line for line in status.read_text().splitlines() if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return not status.parents[1].joinpath("self").exists()
    return bool(int(caught.split()[1], 16) >> (WARNINGS[1] - 1) & 1)


def _watch(reading: int) -> None:
    first = 0.0
    with os.fdopen(reading, "rb", buffering=0) as numbers:
        while number := numbers.read(1):
            now = time.monotonic()
            if number[0] not in ENDING:
                continue
            if first and now - first > ONE:
                _end_at_once(signal.Signals(number[0]))
            first = first or now


def _end_at_once(number: signal.Signals) -> None:
    for child in active_children():
        child.kill()
    words = f"\nstopped at once (a second {number.name})\n".encode()
    if select.select([], [2], [], 0)[1]:  # nobody may read there
        os.write(2, (SHOW_CURSOR if sys.stderr.isatty() else b"") + words)
    os._exit(STOPPED)


def _of_its_own() -> None:
    """A child that is forked hands nothing on to the thread of its parent."""
    if _heeding.pipe is not None:
        signal.set_wakeup_fd(-1)
        _heeding.pipe = None


os.register_at_fork(after_in_child=_of_its_own)
