"""Training batches -> this rank's loader: read here, or ahead by processes that leave signals to the one they read for."""

import os
import signal
from threading import Thread

from torch import Tensor
from torch.utils.data import DataLoader

from signals import left_to_the_parent
from train.order import Steps


def loader(steps: Steps, workers: int, pin_memory: bool) -> DataLoader[tuple[int, Tensor]]:
    """The batches of `steps` in their order, whoever reads them."""
    return DataLoader(
        steps, batch_size=None, num_workers=workers, pin_memory=pin_memory, worker_init_fn=_deaf if workers else None
    )


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
