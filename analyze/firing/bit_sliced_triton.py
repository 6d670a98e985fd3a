"""The GPU's kernels, in a file of their own because they need triton to be imported. With TRITON_INTERPRET=1 they run on a CPU.

Parameters have no types but `tl.constexpr`: triton evaluates annotations, and knows no others.
"""

import inspect
from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl


def jitted(*varying: str) -> Callable[[Callable[..., None]], Any]:
    """Compile with triton, not anew for special values of what varies from call to call.

    Tests wrap every function with a check of shapes, which triton must not see.
    """
    return lambda kernel: triton.jit(inspect.unwrap(kernel), do_not_specialize=varying)


@jitted("rows", "offset")
def pack_rows(  # type: ignore[no-untyped-def]
    pre, counted, bits, max_pre, first,
    rows, neurons, width, pre_stride, bits_stride, offset,
    HALF: tl.constexpr, SIZE: tl.constexpr, LOWEST: tl.constexpr, STRETCH: tl.constexpr, ROWS: tl.constexpr, BYTES: tl.constexpr,
) -> None:  # fmt: skip
    """Pack STRETCH rows of 8 * BYTES neurons; take the counted ones into their greatest pre-activations and first firings.

    Floats of SIZE bits are read as integers, which have the right sign; of two negative ones the greater integer is the lesser
    float, so all bits but the sign are flipped there. LOWEST is -inf so. Programs meet in atomic maxima and minima of integers,
    whose result does not depend on their order.
    """
    byte = tl.program_id(0) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)
    neuron = byte[:, None] * 8 + bit[None, :]
    inside = neuron < neurons
    begin = tl.program_id(1) * STRETCH
    greatest = tl.full((ROWS, BYTES, 8), LOWEST, tl.int32)
    earliest = tl.full((ROWS, BYTES, 8), 0x7FFFFFFF, tl.int32)
    for at in range(0, STRETCH, ROWS):
        row = begin + at + tl.arange(0, ROWS)
        there = row < rows
        some = (tl.load(counted + row, mask=there, other=0) != 0)[:, None, None]
        source = pre + row.to(tl.int64)[:, None, None] * pre_stride + neuron[None, :, :]
        value = tl.load(source, mask=there[:, None, None] & inside[None, :, :], other=0).to(tl.int32)
        fires = value > 0
        target = bits + row.to(tl.int64)[:, None] * bits_stride + byte[None, :]
        tl.store(
            target, tl.sum(fires.to(tl.int32) << bit[None, None, :], 2).to(tl.uint8), there[:, None] & (byte < width)[None, :]
        )
        key = value ^ ((value >> 31) & (2 ** (SIZE - 1) - 1))
        greatest = tl.maximum(greatest, tl.where(some, key, LOWEST))
        earliest = tl.minimum(earliest, tl.where(some & fires, row[:, None, None], 0x7FFFFFFF))
    key = tl.max(greatest, 0)
    value = key ^ ((key >> 31) & (2 ** (SIZE - 1) - 1))
    if HALF:  # noqa: SIM108, decided when it is compiled
        number = value.to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32).to(tl.int32, bitcast=True)
    else:
        number = value << (32 - SIZE)  # a bfloat16 is the upper half of a float32
    number = tl.where(number == -(2**31), 0, number)  # -0
    # Of numbers below 0 the greater is the lesser integer without sign; it is also above that of any number that is not below 0.
    tl.atomic_max(max_pre + neuron, number, mask=inside & (number >= 0), sem="relaxed")
    unsigned = max_pre.to(tl.pointer_type(tl.uint32), bitcast=True) + neuron
    tl.atomic_min(unsigned, number.to(tl.uint32, bitcast=True), mask=inside & (number < 0), sem="relaxed")
    row = tl.min(earliest, 0)
    tl.atomic_min(first + neuron, offset + row.to(tl.int64), mask=inside & (row < 0x7FFFFFFF), sem="relaxed")


@jitted("first_piece", "first_segment")
def add_rows(  # type: ignore[no-untyped-def]
    bits, order, begins, ends, owner, alone, found,
    first_piece, first_segment, words, neurons, blocks, ROWS: tl.constexpr, WORDS: tl.constexpr,
) -> None:  # fmt: skip
    """Count the firings in one piece of a segment, WORDS words of 32 neurons: up to 255 rows, ROWS of them loaded together.

    A 32-bit number holds the counts of four neurons: bits k, k + 8, k + 16 and k + 24 of all words are added up together.
    Blocks of one piece run side by side, so its rows are read whole.
    """
    piece = first_piece + tl.program_id(0) // blocks
    word = tl.program_id(0) % blocks * WORDS + tl.arange(0, WORDS)
    inside = (word < words)[None, :]
    begin, end = tl.load(begins + piece), tl.load(ends + piece)
    zero = tl.zeros((WORDS,), tl.int32)
    n0, n1, n2, n3, n4, n5, n6, n7 = zero, zero, zero, zero, zero, zero, zero, zero
    for at in range(begin, end, ROWS):
        i = at + tl.arange(0, ROWS)
        row = tl.load(order + i, mask=i < end, other=0).to(tl.int64)[:, None]
        loaded = tl.load(bits + row * words + word[None, :], mask=(i < end)[:, None] & inside, other=0)
        n0 += tl.sum(loaded & 0x01010101, 0)
        n1 += tl.sum((loaded >> 1) & 0x01010101, 0)
        n2 += tl.sum((loaded >> 2) & 0x01010101, 0)
        n3 += tl.sum((loaded >> 3) & 0x01010101, 0)
        n4 += tl.sum((loaded >> 4) & 0x01010101, 0)
        n5 += tl.sum((loaded >> 5) & 0x01010101, 0)
        n6 += tl.sum((loaded >> 6) & 0x01010101, 0)
        n7 += tl.sum((loaded >> 7) & 0x01010101, 0)
    even, odd = tl.join(tl.join(n0, n4), tl.join(n2, n6)), tl.join(tl.join(n1, n5), tl.join(n3, n7))
    fours = tl.reshape(tl.join(even, odd), (WORDS, 1, 8))  # of byte 0 .. 3 of a word, at bit k
    byte, bit = tl.arange(0, 4)[None, :, None], tl.arange(0, 8)[None, None, :]
    counts = (fours >> (8 * byte)) & 255
    neuron = word[:, None, None] * 32 + 8 * byte + bit
    target = found + (tl.load(owner + piece) - first_segment).to(tl.int64) * neurons + neuron
    if tl.load(alone + piece):
        tl.store(target, counts, mask=neuron < neurons)
    else:
        tl.atomic_add(target, counts, mask=neuron < neurons, sem="relaxed")
