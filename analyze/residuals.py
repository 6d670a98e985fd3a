"""Where the residual streams of a pass lie between layers: in one piece of memory, in pinned slabs beside a GPU, or in files.

A micro-batch is read, moved one layer on and written back. In memory it is written where it was read; in files into the other of two,
so that the streams after the last finished layer outlive a kill.
"""

import json
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyze.scratch import mapped
from analyze.streams import event, stream
from analyze.writing import write_whole

SLAB = 1 << 30  # bytes; pinned memory comes in powers of two


class Residuals(ABC):
    """Room for the residual streams of so many micro-batches."""

    finished: int | None = None  # the layer they have gone through; -1: embedded; None: nothing is in them yet

    @abstractmethod
    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """A micro-batch, on the device that computes; it stands until the next is read."""

    @abstractmethod
    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Put a micro-batch in its place."""

    def finish(self, layer: int) -> None:
        """Every micro-batch has gone through `layer`."""
        self.finished = layer


class InMemory(Residuals):
    """One piece of memory on the device that computes; micro-batches are moved on in place."""

    def __init__(self, batches: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.room = torch.empty(batches, *shape, dtype=dtype, device=device)

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The micro-batch itself."""
        return self.room[batch]

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Copy it into its place."""
        self.room[batch] = x


class InPinnedSlabs(Residuals):
    """Page-locked memory beside a GPU. A stream of its own carries the next micro-batch in, and the last one out, while one computes.

    Two slots on the GPU take turns. Everything on the side stream is in order: a slot's old micro-batch is out before its next comes in,
    and the side stream touches a slot only after the computation that used it, which an event tells. It allocates nothing.
    """

    def __init__(self, batches: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
        self.batches = batches
        self.rooms = _carved(batches, shape, dtype, pinned=device.type == "cuda")
        self.slots = [torch.empty(shape, dtype=dtype, device=device) for _ in range(2)]
        self.inside: list[int | None] = [None, None]  # which micro-batch each slot holds
        self.side = stream(device)
        self.ready = [event() for _ in range(2)]  # the side stream is done with the slot

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The slot it is in; the next micro-batch is sent for."""
        self._fetch(batch)
        self._fetch(batch + 1)
        torch.cuda.current_stream().wait_event(self.ready[batch % 2])
        return self.slots[batch % 2]

    def _fetch(self, batch: int) -> None:
        slot = batch % 2
        if batch >= self.batches or self.inside[slot] == batch:
            return
        self.side.wait_event(torch.cuda.current_stream().record_event())  # whatever computed with this slot
        with torch.cuda.stream(self.side):
            self.slots[slot].copy_(self.rooms[batch], non_blocking=True)
            self.ready[slot].record()
        self.inside[slot] = batch

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Copy it into its slot, and from there to its place when the GPU gets to it."""
        slot = batch % 2
        torch.cuda.current_stream().wait_event(self.ready[slot])
        self.slots[slot].copy_(x)
        self.side.wait_event(torch.cuda.current_stream().record_event())
        with torch.cuda.stream(self.side):
            self.rooms[batch].copy_(self.slots[slot], non_blocking=True)
            self.ready[slot].record()
        self.inside[slot] = batch


def slabs_for(batches: int, batch_bytes: int) -> list[tuple[int, int]]:
    """Sizes of slabs, powers of two of bytes, and how many micro-batches each takes: what is left over at the end takes smaller ones."""
    least = 1 << (batch_bytes - 1).bit_length()
    size, found = max(SLAB, least), []
    while batches:
        while size > least and size // batch_bytes > batches:
            size //= 2
        found.append((size, min(batches, size // batch_bytes)))
        batches -= found[-1][1]
    return found


def _carved(batches: int, shape: tuple[int, int, int], dtype: torch.dtype, pinned: bool) -> list[Tensor]:
    """Room for every micro-batch, carved out of slabs."""
    batch_bytes = int(np.prod(shape)) * dtype.itemsize
    rooms = []
    for size, held in slabs_for(batches, batch_bytes):
        slab = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        rooms += [slab[i * batch_bytes : (i + 1) * batch_bytes].view(dtype).view(shape) for i in range(held)]
    return rooms


class InFiles(Residuals):
    """Two mapped files, one that is read, one that is written; a third says which is which, and after which layer.

    Raises:
        UserError: the disk has no room for them.
    """

    def __init__(
        self, batches: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, folder: Path, name: str = ""
    ) -> None:
        self.said, self.device = folder / f"residuals{name}.json", device
        self.reading = 0
        if self.said.exists():
            self.finished, self.reading = (json.loads(self.said.read_text())[key] for key in ("layer", "file"))
        size = batches * int(np.prod(shape)) * dtype.itemsize
        self.files = [mapped(folder / f"residuals{name}_{which}.bin", size) for which in "ab"]
        self.rooms = [torch.from_numpy(file).view(dtype).view(batches, *shape) for file in self.files]

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The micro-batch as the last finished layer left it."""
        return self.rooms[self.reading][batch].to(self.device)

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Put it into the other file."""
        self.rooms[1 - self.reading][batch] = x

    def finish(self, layer: int) -> None:
        """What was written is on disk; from now on it is what is read."""
        self.reading = 1 - self.reading
        self.files[self.reading].flush()
        write_whole(self.said, json.dumps({"layer": layer, "file": self.reading}) + "\n")
        super().finish(layer)
