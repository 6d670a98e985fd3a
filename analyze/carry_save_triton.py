"""Firing bits -> counts on a GPU: one program for a piece of a segment and some bytes of its rows.

With TRITON_INTERPRET=1 the same kernel runs on a CPU, slowly, for tests.
"""

from importlib.util import find_spec

import numpy as np
import torch
from jaxtyping import Int32, UInt8

PIECE = 1024  # rows of a segment that one program adds
ROWS = 32  # of a piece, loaded at once
BYTES = 32  # of a row


def available() -> bool:
    """Whether triton is installed."""
    return find_spec("triton") is not None


def counts(
    bits: UInt8[np.ndarray, "token byte"],
    neurons: int,
    order: Int32[np.ndarray, " row"],
    offsets: Int32[np.ndarray, " segment_and_end"],
) -> Int32[np.ndarray, "segment neuron"]:
    """How often every neuron fires in every segment."""
    from analyze.triton_kernel import add

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = np.diff(offsets)
    pieces = -(-sizes // PIECE)  # none of an empty segment
    owner = np.repeat(np.arange(len(sizes)), pieces)
    begins = offsets[owner] + (np.arange(len(owner)) - (np.cumsum(pieces) - pieces)[owner]) * PIECE
    there = [torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in (bits, order, begins, offsets[owner + 1], owner)]
    found = torch.zeros(len(sizes), 8 * bits.shape[1], dtype=torch.int32, device=device)
    if len(owner):
        add[(len(owner), -(-bits.shape[1] // BYTES))](*there, found, bits.shape[1], PIECE, ROWS, BYTES)
    return found[:, :neurons].cpu().numpy()
