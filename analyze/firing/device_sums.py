"""Firing bits on a GPU -> counts: the sums of rows that `segments.py` makes on the host, made where the bits are.

Orders of rows are uploaded once a census, bits never; counts come back through two pinned buffers, so that the host tallies one
chunk while the GPU makes the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Int32, Int64, UInt8
from torch import Tensor

from analyze.firing.bit_sliced import pieces
from analyze.firing.segment_sum import COUNTS_AT_ONCE, Segments
from device import Device, Event

# One Triton program is one warp: it adds up to 255 rows, ROWS of them loaded together, WORDS words of 32 neurons (256 bytes, two
# lines of the cache; 64 bytes a thread are on their way at once, for 13 warps in 147 registers 26 KB a multiprocessor).
PIECE, ROWS, WORDS = 248, 8, 64


@dataclass
class Pieces:
    """Segments on a device, cut so that many programs share a heavy one. Piece p is rows `order[begins[p]:ends[p]]`."""

    order: Int[Tensor, " row"]
    begins: Int[Tensor, " piece"]
    ends: Int[Tensor, " piece"]
    owner: Int[Tensor, " piece"]  # its segment
    alone: UInt8[Tensor, " piece"]  # 1: the only piece of its segment
    first: Int64[np.ndarray, " segment_and_end"]  # a segment's first piece


def device_bytes(tokens: int, places: int, neurons: int) -> int:
    """Bytes of a device's memory that counting takes at most beside the bits; of pinned memory it takes twice `chunk_bytes`.

    Every counted token stands in the orders by place and of common n-grams, n = 1, 2, 3; common n-grams occur 16 times.
    """
    cut = 4 * (tokens // PIECE) + places + 1 + 3 * (tokens // 16)
    return 16 * tokens + 13 * cut + chunk_bytes(neurons)


def chunk_bytes(neurons: int) -> int:
    """Bytes of the counts that are made at a time."""
    return 4 * max(COUNTS_AT_ONCE, neurons)


class OnDevice:
    """What is kept on a device from layer to layer: a stream, orders of rows, room for counts."""

    def __init__(self, device: Device) -> None:
        self.device, self.stream = device, device.stream()
        self.known: dict[int, tuple[Segments, Pieces]] = {}
        self.found = torch.empty(0, dtype=torch.uint8)
        self.landing: list[Tensor] = []

    def pieces(self, segments: Segments) -> Pieces:
        """The segments on the device, uploaded when they are first asked for."""
        if id(segments) not in self.known:
            owner, _, begins, ends = pieces(segments.offsets, PIECE)
            first = np.searchsorted(owner, np.arange(len(segments) + 1))
            alone = (np.diff(first) == 1)[owner].astype(np.uint8)
            with self.device.current(), self.stream.compute():
                there = [self._put(array.astype(np.int32)) for array in (segments.order, begins, ends, owner)]
                self.known[id(segments)] = segments, Pieces(there[0], there[1], there[2], there[3], self._put(alone), first)
        return self.known[id(segments)][1]

    def _put(self, array: np.ndarray) -> Tensor:
        return self.device.put(torch.from_numpy(array))

    def make_room(self, size: int) -> None:
        """Buffers of `size` bytes, allocated once if layers are alike."""
        if len(self.found) < size:
            with self.device.current(), self.stream.compute():
                self.found = self.device.empty(size, dtype=torch.uint8)
            self.landing = [self.device.pinned(size) for _ in range(2)]


@dataclass
class DeviceSums:
    """Sums of the rows of one layer's bit matrix, which stands complete on a device until they are made."""

    on_device: OnDevice
    bits: UInt8[Tensor, "token byte"]
    neurons: int

    def whole(self, segments: Segments) -> Int32[np.ndarray, "segment neuron"]:
        """How often every neuron fires in every segment."""
        counts = np.empty((len(segments), self.neurons), np.int32)
        for first, chunk in self.in_chunks(segments):
            counts[first : first + len(chunk)] = chunk
        return counts

    def in_chunks(self, segments: Segments) -> Iterator[tuple[int, Int32[np.ndarray, "segment neuron"]]]:
        """The same, some whole segments at a time: the first one's number, and counts that stand until the next are asked for."""
        self.on_device.make_room(chunk_bytes(self.neurons))
        there, at_once = self.on_device.pieces(segments), max(1, COUNTS_AT_ONCE // self.neurons)
        under_way: tuple[int, Tensor, Event] | None = None
        try:
            for number, first in enumerate(range(0, len(segments), at_once)):
                last = min(first + at_once, len(segments))
                begun = first, *self._begin(there, first, last, self.on_device.landing[number % 2])
                if under_way is not None:
                    yield self._landed(*under_way)
                under_way = begun
            if under_way is not None:
                yield self._landed(*under_way)
        finally:
            self.on_device.stream.synchronize()  # whoever owns the bits may overwrite them

    def _begin(self, there: Pieces, first: int, last: int, landing: Tensor) -> tuple[Tensor, Event]:
        """Have the counts of segments `first` to `last` made and copied; returns where they land, and when."""
        from analyze.firing.bit_sliced_triton import add_rows

        device, stream = self.on_device.device, self.on_device.stream
        size = 4 * (last - first) * self.neurons
        begin, end = there.first[[first, last]].tolist()
        with device.current(), stream.compute():
            words, found = self.bits.view(torch.int32), self.on_device.found[:size]
            if end - begin > last - first:  # some segment's pieces are added up, onto zeros; others are written
                found.zero_()
            blocks = -(-words.shape[1] // WORDS)
            device.launch(
                add_rows, ((end - begin) * blocks,),
                words, there.order, there.begins, there.ends, there.owner, there.alone, found.view(torch.int32),
                begin, first, words.shape[1], self.neurons, blocks, ROWS=ROWS, WORDS=WORDS, num_warps=1,
            )  # fmt: skip
        stream.copy(found, landing[:size])
        return landing[:size], stream.record()

    def _landed(self, first: int, landing: Tensor, when: Event) -> tuple[int, Int32[np.ndarray, "segment neuron"]]:
        when.synchronize()
        return first, landing.view(torch.int32).view(-1, self.neurons).numpy()
