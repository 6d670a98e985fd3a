"""Pre-activations -> firing bits: one bit matrix [tokens, neurons] a layer, packed along neurons."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt8
from torch import Tensor

from analyze.carry_save import Words
from analyze.compiling import compiled, on_all_cores, shares
from analyze.exchange import Exchange
from analyze.ranks import Ranks
from analyze.segments import as_words
from analyze.signs import signs_of_64
from analyze.walk import MicroBatch

UNPACK = 0x0102040810204080  # multiplying eight 0/1 bytes by this collects them, in order, in the top byte
INTEGERS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass
class Firings:
    """What one layer's neurons did at every position, BOS included. Row `s * positions + p` is position p of sequence s."""

    bits: UInt8[np.ndarray, "token byte"]  # bit `n % 8` of byte `n // 8` is neuron n; bits past the last neuron are 0
    neurons: int
    max_pre: Float32[np.ndarray, " neuron"]  # over counted positions; -inf where there are none
    first_fired: Int64[np.ndarray, " neuron"]  # index among counted positions, in corpus order; -1: never fired


def bytes_for(neurons: int) -> int:
    """Bytes of a row of bits: whole words of 64 neurons."""
    return 8 * -(-neurons // 64)


def packed(fires: Bool[Tensor, "token neuron"]) -> UInt8[Tensor, "token byte"]:
    """Pack along neurons, little-endian bits, rows of whole 64-bit words: `numpy.packbits` and zeros, where the tensor is."""
    fires = torch.nn.functional.pad(fires, (0, -fires.shape[1] % 64)).contiguous()
    return ((fires.view(torch.int64) * UNPACK) >> 56).to(torch.uint8)


def record(
    batches: Iterable[MicroBatch],
    counted: Bool[np.ndarray, "sequence position"],
    neurons: int,
    bits: UInt8[np.ndarray, "token byte"] | None = None,
    exchange: Exchange | None = None,
) -> Firings:
    """Record a layer as it is walked, into `bits` if given. `counted` is false at BOS positions.

    With an `exchange` what comes out are the neurons that this rank counts, at all positions, into its bits.
    """
    sequences, positions = counted.shape
    if exchange is None:
        bits = np.zeros((sequences * positions, bytes_for(neurons)), np.uint8) if bits is None else bits
        exchange = Exchange(Ranks(), 1, sequences * positions, bytes_for(neurons) // 8, bits)
    max_pre = np.full(neurons, -np.inf, np.float32)
    for batch in batches:
        rows = slice(batch.first * positions, (batch.first + len(batch.pre)) * positions)
        room = exchange.room(rows.start, rows.stop - rows.start)
        pre = batch.pre.detach().flatten(0, 1)
        pack = _pack_on_cpu if pre.device.type == "cpu" else _pack_on_gpu
        np.maximum(max_pre, pack(pre, counted.ravel()[rows], room), out=max_pre)
        exchange.written(rows.stop)
    exchange.finish()
    exchange.ranks.greatest(torch.from_numpy(max_pre))
    mine = exchange.ranks.neurons(neurons)
    count = mine.stop - mine.start
    return Firings(exchange.bits, count, max_pre[mine], first_firings(exchange.bits, counted, count))


def _pack_on_gpu(
    pre: Float[Tensor, "token neuron"], counted: Bool[np.ndarray, " token"], bits: UInt8[np.ndarray, "token byte"]
) -> Float32[np.ndarray, " neuron"]:
    bits[:] = packed(pre > 0).cpu().numpy()
    leave_out = torch.from_numpy(~counted).to(pre.device)
    return np.asarray(pre.masked_fill(leave_out[:, None], -torch.inf).amax(0).float().cpu().numpy())


def _pack_on_cpu(
    pre: Float[Tensor, "token neuron"], counted: Bool[np.ndarray, " token"], bits: UInt8[np.ndarray, "token byte"]
) -> Float32[np.ndarray, " neuron"]:
    """One pass over the pre-activations, which are too many for a cache; they are read as integers, which order like floats."""
    kind = INTEGERS[pre.dtype]
    values = pre.contiguous().view(kind).numpy()
    cores = max(1, torch.get_num_threads() // 2)  # the others still wait, busily, for torch's next product
    tasks = [(values, counted, bits, a, b) for a, b in shares(np.ones(len(values)), cores)]
    keys = torch.from_numpy(np.max(on_all_cores(_pack, tasks), axis=0))
    found = torch.where(keys < 0, keys ^ torch.iinfo(kind).max, keys).view(pre.dtype).float().numpy()
    return found if counted.any() else np.full(len(found), -np.inf, np.float32)


@compiled
def _pack(
    values: Int[np.ndarray, "token neuron"], counted: Bool[np.ndarray, " token"], bits: UInt8[np.ndarray, "token byte"],
    first: int, last: int,
) -> Int[np.ndarray, " neuron"]:  # fmt: skip
    """Write the bits of rows `first` to `last`; of counted ones, returns every neuron's greatest key.

    A float read as an integer has the right sign; of two negative ones the greater integer is the lesser float, so all bits but
    the sign are flipped there.
    """
    neurons, words = values.shape[1], bits.view(np.uint64)
    whole = neurons // 64
    flip = values.dtype.type(np.iinfo(values.dtype).max)
    greatest = np.full(neurons, np.iinfo(values.dtype).min, values.dtype)
    for row in range(first, last):
        for w in range(whole):
            words[row, w] = signs_of_64(values, row * neurons + 64 * w)  # type: ignore[call-arg]
            if counted[row]:  # in the same breath, so that values come from memory once
                for n in range(64 * w, 64 * w + 64):
                    greatest[n] = max(greatest[n], values[row, n] ^ ((values[row, n] >> 63) & flip))
        if whole < words.shape[1]:
            words[row, whole] = 0
            for n in range(64 * whole, neurons):
                words[row, whole] |= np.uint64(values[row, n] > 0) << np.uint64(n - 64 * whole)
                if counted[row]:
                    greatest[n] = max(greatest[n], values[row, n] ^ ((values[row, n] >> 63) & flip))
    return greatest


def first_firings(
    bits: UInt8[np.ndarray, "token byte"], counted: Bool[np.ndarray, "sequence position"], neurons: int
) -> Int64[np.ndarray, " neuron"]:
    """Index, among counted positions in corpus order, of every neuron's first firing; -1 if there is none."""
    return _first_firings(as_words(bits), counted.ravel())[:neurons]


@compiled
def _first_firings(words: Words, counted: Bool[np.ndarray, " token"]) -> Int64[np.ndarray, " neuron"]:
    seen = np.zeros(words.shape[1], np.uint64)
    found = np.full(64 * words.shape[1], -1)
    index = 0
    for row in range(words.shape[0]):
        if counted[row]:
            any_new = np.uint64(0)
            for w in range(words.shape[1]):
                any_new |= words[row, w] & ~seen[w]
            if any_new:
                for w in range(words.shape[1]):
                    for n in range(64):
                        if ((words[row, w] & ~seen[w]) >> np.uint64(n)) & np.uint64(1):
                            found[64 * w + n] = index
                    seen[w] |= words[row, w]
            index += 1
    return found
