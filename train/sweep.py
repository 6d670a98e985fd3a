"""The variants of a sweep, one after another or side by side: one that is stopped ends the sweep, one that fails does not."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from omegaconf import OmegaConf

from errors import GOES_ON, UserError
from signals import BEGUN, WARNINGS, Stopped, one_of_many, received

SWEEP = "NEURON_CENSUS_SWEEP"  # in the environment of the processes that joblib starts: the one that did, and when it began

_of: list[str] = []  # the sweep whose variants this process trains
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
    parent, _of[:] = _parent(), [os.environ.get(SWEEP, "")]
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


def described(overrides: list[str]) -> str:
    """A run's overrides.yaml; a sweep's begins with whose variant it is."""
    return "".join(f"# a variant of the sweep {sweep}\n" for sweep in _of if sweep) + OmegaConf.to_yaml(
        OmegaConf.create(overrides)
    )


def check_variant(run: Path, overrides: list[str]) -> None:
    """Each variant of a sweep has a folder of its own.

    Raises:
        UserError: another one of this sweep was trained in this folder.
    """
    file, ours = run / "overrides.yaml", described(overrides).splitlines()
    there = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    if not any(_of) or not there or there[0] != ours[0] or there == ours:
        return
    first, second = (
        ", ".join(line.removeprefix("- ") for line in one if line not in other) for one, other in ((there, ours), (ours, there))
    )
    raise UserError(
        f"Two variants of this sweep have one folder, {run}: {first or 'one without overrides'}; and {second or 'one without'}. "
        "Put into name= what is swept, such as 'name=lr-${optimizer.learning_rate}', or leave name= out."
    )


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
