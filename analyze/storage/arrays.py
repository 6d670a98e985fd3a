"""Counts put on disk, or a sentence about the disk."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from analyze.storage.stored import Stored, save
from errors import UserError


def store(counts: Stored | Mapping[str, np.ndarray], file: Path, about: dict[str, str] | None = None) -> None:
    """Write counts whole.

    Raises:
        UserError: the disk is full; nothing is left under the file's name or beside it.
    """
    try:
        if isinstance(counts, Stored):
            counts.save(file, about)
        else:
            save(counts, file, about)
    except (OSError, SafetensorError) as full:
        raise UserError(
            f"{file} could not be written ({getattr(full, 'strerror', None) or full}); finished layers are kept, the same command goes on."
        ) from None
