"""Weights of one type -> another: numbers of two bytes by looking them up, since there are only so many.

From float16 to bfloat16 that takes about a quarter of the processor's time of torch's cast, and one core of it: the others are at work on a
product meanwhile.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Shaped, UInt8, UInt16
from torch import Tensor

from analyze.jit import compiled

WORDS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32)}  # bytes -> integers as long


@torch.no_grad()
def cast(some: Shaped[Tensor, " number"], into: Shaped[Tensor, " number"]) -> None:
    """Write numbers into another contiguous tensor in main memory, rounded as torch rounds."""
    if some.dtype.itemsize == 2 and some.dtype != into.dtype and into.dtype.itemsize in WORDS:
        _look_up(_words(some), _all_numbers(some.dtype, into.dtype), _words(into))
    else:
        into.copy_(some)


def as_numbers(some: UInt8[Tensor, " byte"], dtype: torch.dtype) -> Shaped[Tensor, " number"]:
    """The numbers that these bytes are, wherever in memory they begin."""
    aligned = some if some.storage_offset() % dtype.itemsize == 0 else some.clone()
    return aligned.view(dtype)


@cache
def _all_numbers(of: torch.dtype, into: torch.dtype) -> Shaped[np.ndarray, "65536"]:
    """Every number of two bytes in another type, by its bits."""
    return _words(torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(of).to(into))


def _words(numbers: Shaped[Tensor, " number"]) -> Shaped[np.ndarray, " number"]:
    as_torch, as_numpy = WORDS[numbers.dtype.itemsize]
    return numbers.view(as_torch).numpy().view(as_numpy)


@compiled
def _look_up(
    some: UInt16[np.ndarray, " number"], table: Shaped[np.ndarray, "65536"], into: Shaped[np.ndarray, " number"]
) -> None:
    for i in range(len(some)):
        into[i] = table[some[i]]
