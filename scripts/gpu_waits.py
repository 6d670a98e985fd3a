"""A GPU that tells how long its computation waited for copies: for weights, residual streams and buffers of firing bits."""

from contextlib import AbstractContextManager

from torch import Tensor

from device import CUDA, Device, Event, Stream


class TimedStream:
    """A stream that marks the time before and after everything that it waits for."""

    def __init__(self, stream: Stream, waits: list[tuple[Event, Event]]) -> None:
        self.stream, self.waits = stream, waits

    def record(self, timing: bool = False) -> Event:
        """As the stream does."""
        return self.stream.record(timing)

    def wait(self, event: Event) -> None:
        """Between two marks."""
        before = self.stream.record(timing=True)
        self.stream.wait(event)
        self.waits.append((before, self.stream.record(timing=True)))

    def copy(self, source: Tensor, into: Tensor) -> None:
        """As the stream does."""
        self.stream.copy(source, into)

    def compute(self) -> AbstractContextManager[None]:
        """As the stream does."""
        return self.stream.compute()

    def synchronize(self) -> None:
        """As the stream does."""
        self.stream.synchronize()


class TimedCUDA(CUDA):
    """A GPU whose computing stream is timed."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.waits: list[tuple[Event, Event]] = []

    @property
    def computing(self) -> Stream:
        """The stream that computes, its waits marked."""
        return TimedStream(super().computing, self.waits)


def timed(device: Device) -> Device:
    """The same device, its waits marked if it works beside the host."""
    return TimedCUDA(device.name.index) if isinstance(device, CUDA) else device


def seconds_waited(device: Device) -> float:
    """Seconds that the computation of a timed device waited; 0 for one that never does."""
    if not isinstance(device, TimedCUDA):
        return 0.0
    device.synchronize()
    return sum(after.seconds_since(before) for before, after in device.waits)
