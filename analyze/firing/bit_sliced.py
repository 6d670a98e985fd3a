"""Firing bits -> counts, 64 neurons at a time: adders made of `&` and `^` on words, so that a row costs a few instructions.

Counts of 64 neurons stand *bit-sliced* in planes: bit n of plane d is bit d of neuron n's count. A full adder takes three bits of
equal weight to one of that weight and one of twice that; eight rows go through seven of them into planes 0, 1, 2 and one carry.
"""

import numpy as np
from jaxtyping import Int32, Int64, UInt64

from analyze.jit import compiled, on_all_cores, shares

PIECE = 8192  # rows after which a heavy segment is cut, so that cores share it

Words = UInt64[np.ndarray, "token word"]
Planes = UInt64[np.ndarray, "plane word"]


def counts(
    words: Words, order: Int32[np.ndarray, " row"], offsets: Int32[np.ndarray, " segment_and_end"]
) -> Int32[np.ndarray, "segment neuron"]:
    """How often every bit is set in the rows of every segment, the bits that only fill up the last word included."""
    owner, number, begins, ends = pieces(offsets, PIECE)
    later = np.flatnonzero(number)  # all but a segment's first piece count beside and are added at the end
    target = owner.copy()
    target[later] = np.arange(len(later))
    found = np.empty((len(offsets) - 1, 64 * words.shape[1]), np.int32)
    beside = np.empty((len(later), found.shape[1]), np.int32)
    tasks = [(words, order, begins, ends, number, target, a, b, found, beside) for a, b in shares(ends - begins + 8)]
    on_all_cores(_count_pieces, tasks)
    for piece, segment in enumerate(owner[later].tolist()):
        found[segment] += beside[piece]
    return found


def pieces(offsets: Int32[np.ndarray, " segment_and_end"], most: int) -> tuple[Int64[np.ndarray, " piece"], ...]:
    """Cut segments into pieces of at most so many rows, one at least: a piece's segment, its number there, its first row and end."""
    each = np.maximum(1, -(-np.diff(offsets) // most))
    owner = np.repeat(np.arange(len(each)), each)
    number = np.arange(len(owner)) - (np.cumsum(each) - each)[owner]
    begins = offsets[owner] + number * most
    return owner, number, begins, np.minimum(begins + most, offsets[owner + 1])


@compiled
def _count_pieces(
    words: Words, order: Int32[np.ndarray, " row"], begins: Int64[np.ndarray, " piece"], ends: Int64[np.ndarray, " piece"],
    number: Int64[np.ndarray, " piece"], target: Int64[np.ndarray, " piece"], first: int, last: int,
    found: Int32[np.ndarray, "segment neuron"], beside: Int32[np.ndarray, "piece neuron"],
) -> None:  # fmt: skip
    planes = np.empty((planes_for(PIECE), words.shape[1]), np.uint64)
    carry = np.empty(words.shape[1], np.uint64)
    for piece in range(first, last):
        depth = planes_for(ends[piece] - begins[piece])
        planes[:depth] = 0
        add_rows(words, order, begins[piece], ends[piece], planes[:depth], carry)
        row = found[target[piece]] if number[piece] == 0 else beside[target[piece]]
        row[:] = 0
        spill(planes[:depth], row)


@compiled
def planes_for(rows: int) -> int:
    """Bits that a count up to `rows` needs."""
    depth = 0
    while rows >> depth:
        depth += 1
    return depth


@compiled
def add_rows(
    words: Words, order: Int32[np.ndarray, " row"], begin: int, end: int, planes: Planes, carry: UInt64[np.ndarray, " word"]
) -> None:
    """Add rows `order[begin:end]` to bit-sliced counts that have planes enough."""
    at = begin
    while end - at >= 8:
        add_eight(words, order[at : at + 8], planes, carry)
        add_plane(planes[3:], carry)
        at += 8
    for i in range(at, end):
        carry[:] = words[order[i]]
        add_plane(planes, carry)


@compiled
def add_plane(planes: Planes, carry: UInt64[np.ndarray, " word"]) -> None:
    """Add one bit per neuron to bit-sliced counts; `carry` holds the bits, and is used up."""
    for d in range(planes.shape[0]):
        for w in range(planes.shape[1]):
            both = planes[d, w] & carry[w]
            planes[d, w] ^= carry[w]
            carry[w] = both


@compiled
def add_eight(words: Words, rows: Int32[np.ndarray, "8"], planes: Planes, carry: UInt64[np.ndarray, " word"]) -> None:
    """Add eight rows to planes 0, 1, 2; `carry` takes the eights that run over."""
    r0, r1, r2, r3, r4, r5, r6, r7 = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6], rows[7]
    for w in range(planes.shape[1]):
        ones, twos = planes[0, w], planes[1, w]
        ones, a = full_add(ones, words[r0, w], words[r1, w])
        ones, b = full_add(ones, words[r2, w], words[r3, w])
        twos, fours_a = full_add(twos, a, b)
        ones, a = full_add(ones, words[r4, w], words[r5, w])
        ones, b = full_add(ones, words[r6, w], words[r7, w])
        twos, fours_b = full_add(twos, a, b)
        planes[0, w], planes[1, w] = ones, twos
        planes[2, w], carry[w] = full_add(planes[2, w], fours_a, fours_b)


@compiled
def full_add(a: int, b: int, c: int) -> tuple[int, int]:
    """Sum and carry of three words of bits."""
    odd = a ^ b
    return odd ^ c, (a & b) | (odd & c)


@compiled
def spill(planes: Planes, found: Int32[np.ndarray, " neuron"]) -> None:
    """Add bit-sliced counts to plain ones."""
    for d in range(planes.shape[0]):
        for w in range(planes.shape[1]):
            word, at = planes[d, w], 64 * w
            if word:
                for n in range(64):
                    found[at + n] += np.int32((word >> np.uint64(n)) & np.uint64(1)) << d
