"""The kernel of carry_save_triton.py, in a file of its own because it needs triton to be imported."""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def jitted(kernel: Callable[..., None]) -> Any:
    """Compile with triton; tests wrap every function with a check of shapes, which triton must not see."""
    return triton.jit(inspect.unwrap(kernel))


@jitted
def add(
    bits: Any, order: Any, begins: Any, ends: Any, owner: Any, found: Any, width: Any,
    PIECE: tl.constexpr, ROWS: tl.constexpr, BYTES: tl.constexpr,
) -> None:  # fmt: skip
    """Add the firings of up to PIECE rows, BYTES bytes of each, to their segment's counts."""
    piece, block = tl.program_id(0), tl.program_id(1)
    begin = tl.load(begins + piece)
    end = tl.minimum(tl.load(ends + piece), begin + PIECE)
    columns = block * BYTES + tl.arange(0, BYTES)
    inside = columns < width
    shift = tl.arange(0, 8)
    total = tl.zeros((BYTES, 8), tl.int32)
    for at in range(begin, end, ROWS):
        i = at + tl.arange(0, ROWS)
        rows = tl.load(order + i, mask=i < end, other=0).to(tl.int64)  # a bit matrix may have more than 2^31 bytes
        loaded = tl.load(bits + rows[:, None] * width + columns[None, :], mask=(i < end)[:, None] & inside[None, :], other=0)
        fires = (loaded[:, :, None].to(tl.int32) >> shift[None, None, :]) & 1
        total += tl.sum(fires, axis=0)
    target = found + tl.load(owner + piece) * width * 8 + columns[:, None] * 8 + shift[None, :]
    tl.atomic_add(target, total, mask=inside[:, None] & (shift < 8)[None, :])
