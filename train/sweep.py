"""The variants of a sweep, one after another or side by side: one that is stopped ends the sweep, one that fails does not."""

import os
import signal
import sys
import time
from collections.abc import Callable

from errors import GOES_ON, UserError
from signals import BEGUN, WARNINGS, Stopped, one_of_many, received

SWEEP = "NEURON_CENSUS_SWEEP"  # in the environment of the processes that joblib starts: the one that did, and when it began

_stopped: list[str] = []  # variants of this process, where it trains some of several


def announce_sweep() -> None:
    """Leave word for processes that train variants side by side."""
    os.environ[SWEEP] = f"{os.getpid()}:{BEGUN}"


def began() -> float:
    """When the program began, by the monotonic clock: with a sweep, the whole of it."""
    return float(os.environ[SWEEP].partition(":")[2]) if _parent() else BEGUN


def variant(name: str, number: int, limit: float | None, train: Callable[[], object]) -> None:
    """Train one variant; none is begun when the sweep is to stop.

    Raises:
        UserError: its own, which is said now; the others are trained, and the sweep ends with it.
        Stopped: it was stopped, and with it the sweep. Side by side, the process that began the sweep has the others stop as well.
    """
    parent = _parent()
    try:
        if parent:
            with one_of_many(*WARNINGS):
                _begin(number, limit, train)
        else:
            _begin(number, limit, train)
    except UserError as mistake:
        print(f"error in {name}: {mistake}", file=sys.stderr, flush=True)
        raise
    except Stopped as stopped:
        if not parent:
            raise
        if stopped.why:
            print(f"{name}: stopped ({stopped.why}): {GOES_ON}", file=sys.stderr, flush=True)
        _stopped.append(name)
        os.kill(parent, signal.SIGUSR2)  # joblib would kill the others, were this raised


def _begin(number: int, limit: float | None, train: Callable[[], object]) -> None:
    if _stopped or received():
        raise Stopped("before it began")
    if limit is not None and number and time.monotonic() - began() >= 3600 * limit:
        raise Stopped("the time limit, before it began")
    train()


def _parent() -> int:
    """The process that began the sweep, if this one works for it; 0: it does not."""
    number = int(os.environ.get(SWEEP, "0:").partition(":")[0])
    return number if number == os.getppid() else 0
