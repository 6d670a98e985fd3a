"""Pre-activations -> firing bits: one bit matrix [tokens, neurons] a layer, packed along neurons."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, UInt8
from torch import Tensor

from analyze.carry_save import Words
from analyze.compiling import compiled, on_all_cores, shares
from analyze.packing import bytes_for, packed
from analyze.segments import as_words
from analyze.signs import signs_of_64
from analyze.walk import MicroBatch
from device import Device

INTEGERS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}


@dataclass
class Firings:
    """What one layer's neurons did at every position, BOS included. Row `s * positions + p` is position p of sequence s."""

    bits: UInt8[np.ndarray, "token byte"]  # bit `n % 8` of byte `n // 8` is neuron n; bits past the last neuron are 0
    neurons: int
    max_pre: Float32[np.ndarray, " neuron"]  # over counted positions; -inf where there are none
    first_fired: Int64[np.ndarray, " neuron"]  # index among counted positions, in corpus order; -1: never fired
    on_device: Tensor | None = None  # the same bits on a GPU, uint8 [tokens, bytes], where they were left there
    device: Device | None = None  # that GPU


def record(
    batches: Iterable[MicroBatch],
    counted: Bool[np.ndarray, "sequence position"],
    neurons: int,
    bits: UInt8[np.ndarray, "token byte"] | None = None,
    gather: Callable[[UInt8[np.ndarray, "token byte"], Float32[np.ndarray, " neuron"]], None] | None = None,
) -> Firings:
    """Record a layer as it is walked, into `bits` if given. `counted` is false at BOS positions.

    `gather` adds what other processes recorded to the bits and the greatest pre-activations.
    """
    sequences, positions = counted.shape
    bits = np.zeros((sequences * positions, bytes_for(neurons)), np.uint8) if bits is None else bits
    max_pre = np.full(neurons, -np.inf, np.float32)
    for batch in batches:
        rows = slice(batch.first * positions, (batch.first + len(batch.pre)) * positions)
        pre = batch.pre.detach().flatten(0, 1)
        pack = _pack_on_cpu if pre.device.type == "cpu" else _pack_on_gpu
        np.maximum(max_pre, pack(pre, counted.ravel()[rows], bits[rows]), out=max_pre)
    if gather is not None:
        gather(bits, max_pre)
    return Firings(bits, neurons, max_pre, first_firings(bits, counted, neurons))


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
