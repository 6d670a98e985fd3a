"""Memory that is not enough for a step, in a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from device import Device
from errors import UserError
from train.config import TrainConfig
from train.folder import last_checkpoint

OF_THE_CPU = ("not enough memory", "can't allocate memory")  # in what torch raises there


@contextmanager
def enough_memory(config: TrainConfig, run: Path, device: Device, ranks: int) -> Iterator[None]:
    """Train here.

    Raises:
        UserError: memory ran out.
    """
    try:
        yield
    except RuntimeError as mistake:  # torch.OutOfMemoryError is one
        if isinstance(mistake, torch.OutOfMemoryError) or any(words in str(mistake) for words in OF_THE_CPU):
            raise UserError(_advice(config, run, device, ranks)) from mistake
        raise


def _advice(config: TrainConfig, run: Path, device: Device, ranks: int) -> str:
    said = (
        f"batch.micro={config.batch.micro} sequences at once do not fit into the {device.total_memory() / 1e9:.1f} GB of {device}"
    )
    if (smaller := smaller_micro(config, ranks)) is None:
        return f"{said}; what takes less is a smaller model, or a shorter model.context."
    begun = " under another name=..., for a run keeps the size it was begun with" if last_checkpoint(run).exists() else ""
    return f"{said}; try batch.micro={smaller}{begun}."


def smaller_micro(config: TrainConfig, ranks: int) -> int | None:
    """The next smaller micro-batch that divides a batch; None: it is one sequence already."""
    sequences = config.batch.tokens // (config.model.context * ranks)
    return next((micro for micro in range(config.batch.micro - 1, 0, -1) if sequences % micro == 0), None)
