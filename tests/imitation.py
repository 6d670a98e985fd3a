"""An asynchronous GPU on any machine, for tests: streams that lag, tensors that the host may not touch, memory that is used again.

Work is done in an order that a seed decides (imitation_queues.py), so a wait that is missing shows as wrong bytes for some seeds, as
an error for others. What is allocated is poisoned. Memory that is freed is given out again at once on its stream, whatever other
streams still do with it, as torch's caching allocator does. Pinned memory is read and written when a queue gets to it.

It notes every place in the code that waits, and can be told to forget one.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from imitation_queues import Mark, Queue, Queues
from imitation_tensor import PLACE, POISON, Block, DeviceTensor, FromNumbers, HostTouch, OnDevice, Spec, bytes_of, shaped
from torch import Tensor

from device import Device, Event, Stream

ROOT = Path(__file__).parents[1]
PARTS = ("analyze", "train", "models")  # whose waits are noted


class ImitatedEvent:
    """A mark in a queue."""

    def __init__(self, mark: Mark, place: "Imitation") -> None:
        self.mark, self.place = mark, place

    def synchronize(self) -> None:
        """Work until it is reached."""
        if self.place.waits():
            self.place.queues.reach(self.mark)

    def seconds_since(self, earlier: Event) -> float:
        """By the host's clock."""
        assert isinstance(earlier, ImitatedEvent)
        assert self.mark.reached is not None and earlier.mark.reached is not None, "an event that is not done yet"
        return self.mark.reached - earlier.mark.reached


class ImitatedStream:
    """A queue."""

    def __init__(self, place: "Imitation") -> None:
        self.place, self.queue = place, Queue(place.queues)
        self.free: list[Tensor] = []  # memory that was freed and may be given out again
        self.put = self.queue.put

    def record(self, timing: bool = False) -> Event:
        """A mark."""
        return ImitatedEvent(self.queue.mark(), self.place)

    def wait(self, event: Event) -> None:
        """Stop until the mark is reached."""
        assert isinstance(event, ImitatedEvent)
        if self.place.waits() and event.mark.queue is not self.queue:
            self.put(event.mark)

    def copy(self, source: Tensor, into: Tensor) -> None:
        """When its turn comes."""
        for tensor in (source, into):
            if not isinstance(tensor, DeviceTensor) and not self.place.is_pinned(tensor):
                raise HostTouch("a copy that would not be asynchronous: main memory that is not pinned")
        assert source.shape == into.shape, (source.shape, into.shape)
        if isinstance(into, DeviceTensor) and into.is_inference() and not torch.is_inference_mode_enabled():
            raise RuntimeError("Inplace update to inference tensor outside InferenceMode is not allowed.")
        here, there = (t.inner if isinstance(t, DeviceTensor) else t.detach() for t in (source, into))
        self.put(lambda: there.copy_(here))

    @contextmanager
    def compute(self) -> Iterator[None]:
        """This thread's current stream."""
        before = self.place.current_stream()
        self.place.threads.stream = self
        try:
            yield
        finally:
            self.place.threads.stream = before

    def synchronize(self) -> None:
        """Work until it is empty."""
        if self.place.waits():
            self.finish()

    def finish(self) -> None:
        """The same, whoever asks."""
        self.place.queues.reach(self.queue.mark())

    def allocated(self, size: int) -> Tensor:
        """Memory, the last that was freed on this stream or new. Its last user, of this stream, may still be at work on it."""
        with self.place.queues.lock:
            at = [at for at, memory in enumerate(self.free) if len(memory) == size]
            memory = self.free.pop(at[-1]) if at else torch.empty(size, dtype=torch.uint8)
        self.put(lambda: memory.fill_(POISON))
        return memory


class Imitation(Device):
    """An asynchronous device whose schedule is that of `seed`; `ignore`, `file.py:line`, is a place whose waits are left out."""

    name = PLACE
    asynchronous = True

    def __init__(self, seed: int = 0, ignore: str | None = None, memory: int = 1 << 33, triton: bool = False) -> None:
        self.queues, self.ignore, self.memory, self.triton = Queues(seed), ignore, memory, triton
        self.threads = threading.local()
        self.sites: dict[str, str] = {}  # where the code waits, and in which function
        self.pinned_memory: list[Tensor] = []
        self.default = ImitatedStream(self)

    def current_stream(self) -> ImitatedStream:
        """Of this thread."""
        stream: ImitatedStream = getattr(self.threads, "stream", self.default)
        return stream

    @property
    def computing(self) -> Stream:
        """The current stream of this thread: the default one unless another was made so."""
        return self.current_stream()

    def stream(self) -> Stream:
        """A queue beside the others."""
        with self.queues.lock:
            return ImitatedStream(self)

    def made(self, spec: Spec) -> DeviceTensor:
        """A tensor on the current stream, its values poison."""
        stream = self.current_stream()
        memory = stream.allocated(bytes_of(spec))
        return DeviceTensor(shaped(memory, spec), Block(memory, stream.free), self)

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Poison."""
        like = torch.empty(*shape, dtype=dtype, device="meta")
        return self.made((like.shape, like.stride(), dtype))

    def pinned(self, size: int) -> Tensor:
        """Main memory that copies may use."""
        with torch.inference_mode(False):
            self.pinned_memory.append(torch.full((size,), POISON, dtype=torch.uint8))
        return self.pinned_memory[-1]

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether copies may use it."""
        at = tensor.data_ptr()
        return any(room.data_ptr() <= at < room.data_ptr() + max(1, len(room)) for room in self.pinned_memory)

    @staticmethod
    def pinned_size(size: int) -> int:
        """The next power of two."""
        return 1 << max(0, size - 1).bit_length()

    def put(self, tensor: Tensor) -> Tensor:
        """As it is now, on the current stream."""
        if isinstance(tensor, DeviceTensor):
            return tensor
        now, made = tensor.detach().clone(), self.made((tensor.shape, tensor.stride(), tensor.dtype))
        self.current_stream().put(partial(made.inner.copy_, now))
        return made

    def fetch(self, tensor: Tensor) -> Tensor:
        """When the current stream is done with all that was put into it."""
        if not isinstance(tensor, DeviceTensor):
            return tensor
        self.current_stream().finish()  # nobody can forget it
        with torch.inference_mode(False):
            return tensor.inner.clone()

    def synchronize(self) -> None:
        """All queues."""
        if self.waits():
            self.finish()

    def finish(self) -> None:
        """The same, whoever asks."""
        for queue in list(self.queues.all):
            self.queues.reach(queue.mark())

    @contextmanager
    def current(self) -> Iterator[None]:
        """What this thread makes with this device is made here."""
        with OnDevice(self), FromNumbers(self):
            yield

    def launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int, **constants: int) -> None:
        """Triton's interpreter runs the kernel when its turn comes."""
        inner = [given.inner if isinstance(given, DeviceTensor) else given for given in arguments]
        assert not any(type(given) is Tensor and given is old for given, old in zip(inner, arguments, strict=True)), "host memory"
        self.current_stream().put(lambda: kernel[grid](*inner, **constants))

    def free_memory(self) -> int:
        """As it was told."""
        return self.memory

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """No table knows."""
        return None

    def waits(self) -> bool:
        """Note where the code waits; whether it is a place whose waits are not to be left out."""
        frame = sys._getframe(1)
        while frame.f_back is not None and Path(frame.f_code.co_filename).name.startswith("imitation"):
            frame = frame.f_back
        file = Path(frame.f_code.co_filename)
        site = f"{file.name}:{frame.f_lineno}"
        if ROOT in file.parents and file.relative_to(ROOT).parts[0] in PARTS:
            with self.queues.lock:
                self.sites[site] = f"{file.stem}.{frame.f_code.co_name}"
        return site != self.ignore
