"""What differs between devices: the current device, streams, events, pinned memory, asynchronous copies, memory, peak arithmetic.

A `Device` is resolved once, with its index. A CPU does everything at once and in order. A GPU has queues of work (`Stream`): a copy
or a product is put into one and the program goes on; an `Event` says when what was put into a stream before it is done. What one
stream needs of another it must wait for, or it reads bytes that are not there yet.
"""

import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from errors import UserError

# Dense peaks in FLOP/s of NVIDIA's data sheets, 16-bit numbers on tensor cores and float32 without; the first name found counts.
PEAKS = {
    "B200": (2250e12, 75e12),
    "H200 NVL": (835e12, 60e12),
    "H200": (989.4e12, 66.9e12),
    "H100 PCIe": (756e12, 51.2e12),
    "H100 NVL": (835e12, 60e12),
    "H100": (989.4e12, 66.9e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L40": (181e12, 90.5e12),
    "L4": (121e12, 30.3e12),
    "A40": (149.7e12, 37.4e12),
    "RTX A6000": (154.8e12, 38.7e12),
    "RTX 4090": (165.2e12, 82.6e12),
    "RTX 3090": (71e12, 35.6e12),
}


@runtime_checkable
class Event(Protocol):
    """A point in a stream's work."""

    def synchronize(self) -> None:
        """Wait, on the host, until all work before it is done."""

    def seconds_since(self, earlier: "Event") -> float:
        """Seconds from another event to this one, both done and both recorded with `timing`."""


@runtime_checkable
class Stream(Protocol):
    """A queue of work on a device, done in order."""

    def record(self, timing: bool = False) -> Event:
        """An event after all work that is in the queue now."""

    def wait(self, event: Event) -> None:
        """Let work that is put here from now on wait for an event of another stream; the host does not wait."""

    def copy(self, source: Tensor, into: Tensor) -> None:
        """Copy between device and pinned memory, or within the device, when the queue gets to it."""

    def compute(self) -> AbstractContextManager[None]:
        """Put what torch computes in this thread, within the context, into this queue."""

    def synchronize(self) -> None:
        """Wait, on the host, until the queue is empty."""


class Device(ABC):
    """One place that computes."""

    name: torch.device  # with its index
    asynchronous: bool  # whether its streams work beside the host
    triton = False  # whether it runs Triton kernels

    def __str__(self) -> str:
        return str(self.name)

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.name.type

    @property
    @abstractmethod
    def computing(self) -> Stream:
        """The stream that computes where no other is named."""

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream."""

    @abstractmethod
    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """A tensor on the device, its values undefined. It belongs to the computing stream: others wait for an event first."""

    @abstractmethod
    def pinned(self, size: int) -> Tensor:
        """`size` bytes of main memory that streams copy from and to."""

    @staticmethod
    @abstractmethod
    def pinned_size(size: int) -> int:
        """Bytes that `pinned` takes for `size`."""

    @abstractmethod
    def put(self, tensor: Tensor) -> Tensor:
        """A copy on the device of a tensor in main memory, which may be changed at once."""

    @abstractmethod
    def fetch(self, tensor: Tensor) -> Tensor:
        """A copy in main memory of a tensor on the device, when all that makes it is done."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait, on the host, until all streams are empty."""

    @abstractmethod
    def current(self) -> AbstractContextManager[None]:
        """Make it this thread's current device."""

    def launch(self, kernel: Any, grid: tuple[int, ...], *arguments: Tensor | int, **constants: int) -> None:
        """Put a Triton kernel into this thread's computing stream, `grid` programs of it."""
        with self.current():
            kernel[grid](*arguments, **constants)

    @abstractmethod
    def free_memory(self) -> int:
        """Bytes of its own memory that may be allocated, those that torch holds and does not use included; 0: it has none."""

    @property
    def bfloat16(self) -> bool:
        """Whether it has instructions for bfloat16. No other device is touched."""
        return False

    def total_memory(self) -> int:
        """Bytes of memory that it computes in, taken or not: main memory, where it has none of its own."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def peak_memory(self) -> int:
        """Bytes of its own memory that this process had allocated at most; 0: it has none."""
        return 0

    @abstractmethod
    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """Floating-point operations a second at most; None where no table knows."""


class _Done:
    """An event of a device on which everything is done at once."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        """It is."""

    def seconds_since(self, earlier: Event) -> float:
        """Of the host's clock."""
        assert isinstance(earlier, _Done)
        return self.at - earlier.at


class _InOrder:
    """A stream of a device on which everything is done at once."""

    def record(self, timing: bool = False) -> Event:
        """Now."""
        return _Done()

    def wait(self, event: Event) -> None:
        """Nothing to wait for."""

    def copy(self, source: Tensor, into: Tensor) -> None:
        """At once."""
        into.copy_(source)

    def compute(self) -> AbstractContextManager[None]:
        """Everything is in order already."""
        return nullcontext()

    def synchronize(self) -> None:
        """It is empty."""


class CPU(Device):
    """The processor: main memory is its own, and what is asked for is done when the call returns."""

    name = torch.device("cpu")
    asynchronous = False
    computing = _InOrder()

    def stream(self) -> Stream:
        """The one order there is."""
        return self.computing

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """In main memory."""
        return torch.empty(*shape, dtype=dtype)

    def pinned(self, size: int) -> Tensor:
        """Plain memory."""
        return torch.empty(size, dtype=torch.uint8)

    @staticmethod
    def pinned_size(size: int) -> int:
        """As it is."""
        return size

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor itself: it is there."""
        return tensor

    def fetch(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def synchronize(self) -> None:
        """Everything is done."""

    def current(self) -> AbstractContextManager[None]:
        """It always is."""
        return nullcontext()

    def free_memory(self) -> int:
        """None of its own."""
        return 0

    @property
    def bfloat16(self) -> bool:
        """Of AVX-512 or AMX."""
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """No table knows."""
        return None


class _CudaEvent:
    def __init__(self, event: torch.cuda.Event) -> None:
        self.event = event

    def synchronize(self) -> None:
        self.event.synchronize()

    def seconds_since(self, earlier: Event) -> float:
        assert isinstance(earlier, _CudaEvent)
        milliseconds: float = earlier.event.elapsed_time(self.event)
        return milliseconds / 1000


class _CudaStream:
    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream

    def record(self, timing: bool = False) -> Event:
        event: torch.cuda.Event = torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]
        event.record(self.stream)
        return _CudaEvent(event)

    def wait(self, event: Event) -> None:
        assert isinstance(event, _CudaEvent)
        self.stream.wait_event(event.event)

    def copy(self, source: Tensor, into: Tensor) -> None:
        assert all(tensor.is_cuda or tensor.is_pinned() for tensor in (source, into)), "a copy that would not be asynchronous"
        with torch.cuda.stream(self.stream):
            into.copy_(source, non_blocking=True)

    @contextmanager
    def compute(self) -> Iterator[None]:
        with torch.cuda.stream(self.stream):
            yield

    def synchronize(self) -> None:
        self.stream.synchronize()


class CUDA(Device):
    """One NVIDIA GPU."""

    asynchronous = True
    triton = True

    def __init__(self, index: int) -> None:
        self.name = torch.device("cuda", index)

    @property
    def computing(self) -> Stream:
        """The current stream of this thread on this GPU."""
        return _CudaStream(torch.cuda.current_stream(self.name))

    def stream(self) -> Stream:
        """A stream beside the computing one."""
        return _CudaStream(torch.cuda.Stream(self.name))  # type: ignore[no-untyped-call]

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """In the GPU's memory."""
        return torch.empty(*shape, dtype=dtype, device=self.name)

    def pinned(self, size: int) -> Tensor:
        """Page-locked memory, which torch takes in powers of two."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    @staticmethod
    def pinned_size(size: int) -> int:
        """The next power of two."""
        return 1 << max(0, size - 1).bit_length()

    def put(self, tensor: Tensor) -> Tensor:
        """Copied on the computing stream; the host waits."""
        return tensor.to(self.name)

    def fetch(self, tensor: Tensor) -> Tensor:
        """Copied on the computing stream; the host waits."""
        return tensor.cpu()

    def synchronize(self) -> None:
        """All streams of this GPU."""
        torch.cuda.synchronize(self.name)

    def current(self) -> AbstractContextManager[None]:
        """As torch.cuda.set_device, undone afterwards."""
        return torch.cuda.device(self.name)

    def free_memory(self) -> int:
        """What the driver calls free, and what torch keeps of what it has freed."""
        kept = torch.cuda.memory_reserved(self.name) - torch.cuda.memory_allocated(self.name)
        return int(torch.cuda.mem_get_info(self.name)[0]) + kept

    def total_memory(self) -> int:
        """What the driver says it has."""
        return int(torch.cuda.mem_get_info(self.name)[1])

    @property
    def bfloat16(self) -> bool:
        """Of compute capability 8.0. Asked while it is current: a question about the current device makes a context on it."""
        with self.current():
            return bool(torch.cuda.get_device_capability(self.name) >= (8, 0))

    def peak_memory(self) -> int:
        """As torch's allocator counts it."""
        return torch.cuda.max_memory_allocated(self.name)

    def peak_flops(self, dtype: torch.dtype) -> float | None:
        """Of its data sheet."""
        return peak_flops(torch.cuda.get_device_name(self.name), dtype.itemsize == 2)


def check_name(name: str) -> None:
    """Look at a setting that names a device, before it is known which there are.

    Raises:
        UserError: it names none.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UserError(f"device={name!r} is none of auto, cpu, cuda, or one GPU by its number, like cuda:1.")


def resolved(name: str, job: int = 0) -> Device:
    """The device that a setting names: `auto` is a GPU where there is one, `cuda` the GPU of this process, `cuda:3` that one.

    Of several processes on a machine each takes the GPU of its local rank, or the only one it sees; the jobs of a sweep, which may
    run side by side, take one after the other in turn.

    Raises:
        UserError: torch sees no such GPU.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return CPU()
    if not gpus:
        raise UserError(f"device={name}, but torch sees no CUDA GPU here: device=auto takes what there is.")
    index = int(name.split(":")[1]) if ":" in name else (job * local_processes() + local_rank()) % gpus
    if index >= gpus:
        raise UserError(f"device={name}, but torch sees {gpus} GPU{'s' if gpus > 1 else ''} here, numbered from 0.")
    return CUDA(index)


def local_rank() -> int:
    """The number of this process on its machine, as torchrun or srun has set it; 0: it is alone."""
    return int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)


def local_processes() -> int:
    """Processes on this machine that work together, as torchrun or srun has started them; 1: this one is alone."""
    if "LOCAL_WORLD_SIZE" in os.environ:
        return int(os.environ["LOCAL_WORLD_SIZE"])
    if "SLURM_LOCALID" not in os.environ:
        return 1
    return max(1, int(os.environ.get("SLURM_NTASKS", "1")) // int(os.environ.get("SLURM_NNODES", "1")))


def cores_of_this_process() -> int:
    """Its share of the cores that it may run on: all processes of a machine that work together may run on the same.

    SLURM binds a task to its own cores; where it says how many those are, no more are taken and they are shared with none.
    """
    if "LOCAL_WORLD_SIZE" not in os.environ and "SLURM_CPUS_PER_TASK" in os.environ:
        return min(cores(), int(os.environ["SLURM_CPUS_PER_TASK"]))
    return max(1, cores() // local_processes())


def cores() -> int:
    """Cores that this process may run on."""
    has_affinity = hasattr(os, "sched_getaffinity")  # Linux
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def use_threads(threads: int | None) -> None:
    """Compute on the CPU with so many threads; null: as many as torch takes, or this process's share of a machine's cores.

    torchrun sets OMP_NUM_THREADS=1 for several processes on a machine, so that 64 processes do not start 64 threads each.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    elif local_processes() > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(cores_of_this_process())


def peak_flops(gpu: str, half: bool) -> float | None:
    """FLOP/s that a GPU of this name can do at most, `half` in 16-bit numbers; None for one that is not in the table."""
    padded = f" {gpu} "
    found = (peaks[0 if half else 1] for name, peaks in PEAKS.items() if f"{name} " in padded or f"{name}-" in padded)
    return next(found, None)


@contextmanager
def exact_sums() -> Iterator[None]:
    """Add products up in float32, whatever they are made of, and multiply float32 numbers as they are; undone afterwards."""
    matmul = torch.backends.cuda.matmul
    names = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction", "allow_tf32")
    before = {name: getattr(matmul, name) for name in names}
    try:
        for name in names:
            setattr(matmul, name, False)
        yield
    finally:
        for name, value in before.items():
            setattr(matmul, name, value)
