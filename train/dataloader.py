"""Training batches -> this rank's loader: read here, or ahead by processes that leave signals to the one they read for."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from errors import UserError
from signals import left_to_the_parent
from train.data_order import Steps
from train.folder import last_good

SHARED = Path("/dev/shm")  # where Linux keeps the locks of processes
LOCKS = 16 * 4096  # bytes of them that a reader takes, at most
CAUGHT = "Caught UserError in DataLoader worker"  # as torch passes on what a reader raised


def loader(steps: Steps, workers: int, pin_memory: bool) -> DataLoader[tuple[int, Tensor]]:
    """The batches of `steps` in their order, whoever reads them.

    Raises:
        UserError: there is no room for the locks of processes that read.
    """
    _check_room(workers)
    ahead: dict[str, Any] = {"worker_init_fn": _deaf, "collate_fn": _by_pipe} if workers else {}
    return DataLoader(steps, batch_size=None, num_workers=workers, pin_memory=pin_memory, **ahead)


@contextmanager
def readers_alive(run: Path, workers: int) -> Iterator[None]:
    """Train here.

    Raises:
        UserError: a process that reads ahead was ended; or what it says.
    """
    try:
        yield
    except UserError as mistake:
        if not str(mistake).startswith(CAUGHT):
            raise
        raise UserError(str(mistake).rpartition("UserError: ")[2].strip()) from None
    except OSError:
        _check_room(workers)  # there was some when it was looked at first
        raise
    except RuntimeError as mistake:
        if not str(mistake).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"A process that reads batches ahead was ended ({str(mistake).partition('. ')[0]}), mostly for want of memory. "
            f"{last_good(run)}; the same command goes on, and with batch.workers=0 without such processes."
        ) from mistake


def _check_room(workers: int) -> None:
    if not workers:
        return
    needed, mistake = (workers + 1) * LOCKS, ""
    try:
        get_context().Lock()
    except OSError as full:
        mistake = full.strerror or str(full)
    total, _, free = shutil.disk_usage(SHARED) if SHARED.is_dir() else (0, 0, needed)
    if mistake or free < needed:
        raise UserError(
            f"batch.workers={workers} needs {needed // 1024} KB of {SHARED}, which has {free // 1024:,} KB free of {total // 1024:,}"
            f"{f' ({mistake})' if mistake else ''}: make room (docker run --shm-size), or read without processes, batch.workers=0."
        )


class _Values:
    """A tensor that goes to another process with its values; torch would send the name of a file in /dev/shm, which may be full."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
        return torch.from_numpy, (self.tensor.numpy(),)


def _by_pipe(batch: tuple[int, Tensor]) -> list[Any]:
    step, ids = batch
    return [step, _Values(ids)]


def _deaf(_worker: int) -> None:
    """Read on when a terminal, torchrun or SLURM signals all processes at once: the run decides when it is over.

    torch ends a worker by a SIGTERM of its own, which is heeded as ever.
    """
    left_to_the_parent()
    if hasattr(signal, "sigwaitinfo"):  # Linux; macOS does not say who sent a signal, and every SIGTERM is heeded
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        Thread(target=_heed_the_parent, args=(os.getppid(),), daemon=True).start()


def _heed_the_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
