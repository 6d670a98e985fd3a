"""Where the residual streams lie between layers: in the memory of the device, in pinned memory beside it, or in files.

A micro-batch is read, moved one layer on and written back. In memory it is written where it was read; in files into the other of two,
so that the streams after the last finished layer outlive a kill.
"""

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from xxhash import xxh3_64

from analyze.storage.scratch import mapped
from checksums import Damaged, read_object, write_object
from device import Device, Event

SLAB = 1 << 32  # bytes; pinned memory comes in powers of two: micro-batches of 302 MB leave 2 % of such a slab unused
SLOTS = 2  # micro-batches on a device whose streams lie beside it
Shape = tuple[int, int, int]  # sequences of a micro-batch, positions, width


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

    def close(self) -> None:  # noqa: B027 -- most have nothing to end
        """End what works beside."""


class InMemory(Residuals):
    """One piece of memory on the device that computes; micro-batches are moved on in place."""

    def __init__(self, batches: int, shape: Shape, dtype: torch.dtype, device: Device) -> None:
        self.room = device.empty(batches, *shape, dtype=dtype)

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The micro-batch itself."""
        return self.room[batch]

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Copy it into its place."""
        self.room[batch].copy_(x)


class BesideDevice(Residuals):
    """Streams in main memory. A side stream brings the next micro-batch in, and the last one out, while one computes.

    Two slots on the device take turns. Everything on the side stream is in order: a slot's old micro-batch is out before its next
    comes in, and the side stream touches a slot only after the computation that used it. It allocates nothing.
    """

    def __init__(self, batches: int, shape: Shape, dtype: torch.dtype, device: Device) -> None:
        self.batches, self.device = batches, device
        self.slots = [device.empty(*shape, dtype=dtype) for _ in range(SLOTS)]
        self.inside: list[int | None] = [None] * SLOTS  # which micro-batch each slot holds
        self.side = device.stream()
        self.ready: list[Event | None] = [None] * SLOTS  # the side stream is done with the slot

    @abstractmethod
    def _bring(self, batch: int, slot: Tensor) -> None:
        """Put into the side stream: the micro-batch into the slot."""

    @abstractmethod
    def _take(self, batch: int, slot: Tensor) -> None:
        """Put into the side stream: what the slot holds to the micro-batch's place."""

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The slot it is in; the next micro-batch is sent for."""
        self._fetch(batch)
        self._fetch(batch + 1)
        self._await(batch % SLOTS)
        return self.slots[batch % SLOTS]

    def _fetch(self, batch: int) -> None:
        slot = batch % SLOTS
        if batch >= self.batches or self.inside[slot] == batch:
            return
        self.side.wait(self.device.computing.record())  # whatever computed with this slot
        self._bring(batch, self.slots[slot])
        self.ready[slot] = self.side.record()
        self.inside[slot] = batch

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Copy it into its slot, and from there to its place when the device gets to it."""
        slot = batch % SLOTS
        self._await(slot)
        with self.device.current():
            self.slots[slot].copy_(x)
        self.side.wait(self.device.computing.record())
        self._take(batch, self.slots[slot])
        self.ready[slot] = self.side.record()
        self.inside[slot] = batch

    def _await(self, slot: int) -> None:
        if (ready := self.ready[slot]) is not None:
            self.device.computing.wait(ready)

    def close(self) -> None:
        """Wait for the copies in work: their memory may be used for something else then."""
        self.side.synchronize()


class InPinnedSlabs(BesideDevice):
    """Page-locked memory, in slabs whose sizes are powers of two."""

    def __init__(self, batches: int, shape: Shape, dtype: torch.dtype, device: Device) -> None:
        super().__init__(batches, shape, dtype, device)
        self.rooms = _carved(batches, shape, dtype, device)

    def _bring(self, batch: int, slot: Tensor) -> None:
        self.side.copy(self.rooms[batch], slot)

    def _take(self, batch: int, slot: Tensor) -> None:
        self.side.copy(slot, self.rooms[batch])


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


def _carved(batches: int, shape: Shape, dtype: torch.dtype, device: Device) -> list[Tensor]:
    """Room for every micro-batch, carved out of slabs."""
    batch_bytes = int(np.prod(shape)) * dtype.itemsize
    rooms = []
    for size, held in slabs_for(batches, batch_bytes):
        slab = device.pinned(size)
        rooms += [slab[i * batch_bytes : (i + 1) * batch_bytes].view(dtype).view(shape) for i in range(held)]
    return rooms


class StreamFiles:
    """Two mapped files, one that is read, one that is written; a third says which is which, after which layer, and its checksums.

    What another program wrote is compared with its checksum as it is read.

    Raises:
        UserError: the disk has no room for them.
    """

    def __init__(self, batches: int, shape: Shape, dtype: torch.dtype, folder: Path, name: str = "") -> None:
        self.said, self.reading = folder / f"residuals{name}.json", 0
        self.finished: int | None = None
        self.found: list[str] = []  # checksums of the micro-batches that another program wrote, if they are read
        self.written = [""] * batches  # of those that are written
        with suppress(OSError, ValueError):  # damaged: the walk begins anew
            said = read_object(self.said)
            self.finished, self.reading, self.found = said["layer"], said["file"], said["checksums"]
        self.size = int(np.prod(shape)) * dtype.itemsize
        self.names = [folder / f"residuals{name}_{which}.bin" for which in "ab"]
        self.files = [mapped(file, batches * self.size) for file in self.names]
        self.rooms = [torch.from_numpy(file).view(dtype).view(batches, *shape) for file in self.files]

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The micro-batch as the last finished layer left it.

        Raises:
            UserError: it is another than a killed program left.
        """
        if self.found and self.found[batch] != self._checksum(self.reading, batch):
            raise Damaged(f"{self.names[self.reading]} is damaged: remove {self.said.parent}, and the same command goes on.")
        return self.rooms[self.reading][batch]

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Put it into the other file."""
        self.rooms[1 - self.reading][batch] = x
        self.written[batch] = self._checksum(1 - self.reading, batch)

    def _checksum(self, file: int, batch: int) -> str:
        return xxh3_64(self.files[file][batch * self.size : (batch + 1) * self.size].data).hexdigest()

    def finish(self, layer: int) -> None:
        """What was written is on disk; from now on it is what is read."""
        self.reading = 1 - self.reading
        self.files[self.reading].flush()
        write_object(self.said, {"layer": layer, "file": self.reading, "checksums": self.written})
        self.finished, self.found = layer, []


class InFiles(Residuals):
    """Files, for a device that computes in main memory."""

    def __init__(self, files: StreamFiles) -> None:
        self.files, self.finished = files, files.finished

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The micro-batch as the last finished layer left it."""
        return self.files.read(batch)

    def write(self, batch: int, x: Float[Tensor, "sequence position width"]) -> None:
        """Put it into the file that is written."""
        self.files.write(batch, x)

    def finish(self, layer: int) -> None:
        """On disk."""
        self.files.finish(layer)
        super().finish(layer)


class InFilesBeside(BesideDevice):
    """Files beside a device. A thread reads the next micro-batch into a pinned buffer, and writes the last one out of another."""

    def __init__(self, batches: int, shape: Shape, dtype: torch.dtype, device: Device, files: StreamFiles) -> None:
        super().__init__(batches, shape, dtype, device)
        self.files, self.finished = files, files.finished
        size = int(np.prod(shape)) * dtype.itemsize
        self.incoming, self.outgoing = ([device.pinned(size).view(dtype).view(shape) for _ in range(SLOTS)] for _ in range(2))
        self.brought: list[Event | None] = [None] * SLOTS  # the buffer was copied to the device
        self.written: list[Future[None] | None] = [None] * SLOTS  # the buffer is in the file
        self.disk = ThreadPoolExecutor(1)
        self.ahead: dict[int, Future[None]] = {}  # micro-batches that are being read into their buffers

    def read(self, batch: int) -> Float[Tensor, "sequence position width"]:
        """The slot it is in; the next is sent for, and the one after that read from the disk."""
        found = super().read(batch)
        self._read_ahead(batch + SLOTS)
        return found

    def _read_ahead(self, batch: int) -> None:
        if batch < self.batches and batch not in self.ahead:
            self.ahead[batch] = self.disk.submit(self._from_disk, batch)

    def _from_disk(self, batch: int) -> None:
        if (brought := self.brought[batch % SLOTS]) is not None:
            brought.synchronize()
        self.incoming[batch % SLOTS].copy_(self.files.read(batch))

    def _bring(self, batch: int, slot: Tensor) -> None:
        self._read_ahead(batch)
        self.ahead.pop(batch).result()
        self.side.copy(self.incoming[batch % SLOTS], slot)
        self.brought[batch % SLOTS] = self.side.record()

    def _take(self, batch: int, slot: Tensor) -> None:
        number = batch % SLOTS
        if (written := self.written[number]) is not None:
            written.result()
        self.side.copy(slot, self.outgoing[number])
        self.written[number] = self.disk.submit(self._to_disk, batch, self.side.record())

    def _to_disk(self, batch: int, left: Event) -> None:
        left.synchronize()
        self.files.write(batch, self.outgoing[batch % SLOTS])

    def finish(self, layer: int) -> None:
        """All micro-batches are on disk."""
        for written in self.written:
            if written is not None:
                written.result()
        assert not self.ahead, "a micro-batch of the layer before was read ahead"
        self.files.finish(layer)
        self.inside = [None] * SLOTS  # the slots hold micro-batches of the layer, but the files have them too
        super().finish(layer)

    def close(self) -> None:
        """End the thread."""
        self.disk.shutdown(cancel_futures=True)
        super().close()
