"""Segment sums of the bit matrix are what a loop over its rows counts, on the host and where a device holds the bits."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_packing import Interpreting
from tiny import preactivations_as_batches
from torch import Tensor

from analyze.firing import device_sums
from analyze.firing.device_sums import DeviceSums, OnDevice, device_bytes
from analyze.firing.mask import record
from analyze.firing.packing import packed
from analyze.firing.segment_sum import COUNTS_AT_ONCE, HostSums, Segments, ordered, segments_of
from device import CPU, Event, Stream


def by_numpy(bits: np.ndarray, neurons: int, segments: Segments) -> np.ndarray:
    """The reference: rows are unpacked and added."""
    counts = np.zeros((len(segments), neurons), np.int32)
    fires = np.unpackbits(bits[segments.order], axis=1, count=neurons, bitorder="little")
    np.add.at(counts, np.repeat(np.arange(len(segments)), segments.sizes), fires)
    return counts


def on(device: CPU, bits: np.ndarray, neurons: int) -> DeviceSums:
    return DeviceSums(OnDevice(device), torch.from_numpy(bits), neurons)


def whole_words(fires: np.ndarray) -> np.ndarray:
    return packed(torch.from_numpy(fires)).numpy()


@settings(max_examples=30)
@given(rows=st.integers(1, 40), neurons=st.integers(1, 70), groups=st.integers(1, 6), seed=st.integers(0, 1000))
def test_every_row_is_counted_once_in_its_own_segment(rows: int, neurons: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fires, keys, counted = rng.random((rows, neurons)) < 0.4, rng.integers(0, groups, rows), rng.random(rows) < 0.8
    expected = np.zeros((groups, neurons), np.int32)
    for row in range(rows):
        if counted[row]:
            expected[keys[row]] += fires[row]
    bits, segments = whole_words(fires), segments_of(keys, counted, groups)
    assert np.array_equal(by_numpy(bits, neurons, segments), expected)
    assert np.array_equal(HostSums(bits, neurons).whole(segments), expected)
    assert np.array_equal(on(Interpreting(), bits, neurons).whole(segments), expected)


SIZES = {
    "empty ones among others": [0, 3, 0, 0, 17, 0],
    "nothing": [0, 0],
    "one row": [1],
    "whole pieces": [248, 496],
    "one row more": [249, 7, 497],
    "one row less": [247, 495],
    "heavy and light": [1000, 1, 16, 255, 256],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("neurons", [1, 64, 2100])
def test_wherever_pieces_end_counts_are_those_of_numpy(sizes: list[int], neurons: int) -> None:
    rng = np.random.default_rng(neurons)
    fires = rng.random((max(1, sum(sizes)), neurons)) < rng.random(neurons)
    fires[:, 0] = True  # as often as there are rows
    bits, order = whole_words(fires), rng.permutation(len(fires))[: sum(sizes)]
    segments = ordered(order, np.array(sizes))
    expected = by_numpy(bits, neurons, segments)
    assert np.array_equal(HostSums(bits, neurons).whole(segments), expected)
    assert np.array_equal(on(Interpreting(), bits, neurons).whole(segments), expected)


class Late(Interpreting):
    """A CPU that does what is asked of it when somebody waits, and no sooner."""

    asynchronous = True

    def __init__(self) -> None:
        self.queue: list[Callable[[], object]] = []

    def launch(self, kernel: object, grid: tuple[int, ...], *arguments: Tensor | int, **constants: int) -> None:
        """Later."""
        self.queue.append(lambda: super(Late, self).launch(kernel, grid, *arguments, **constants))

    def stream(self) -> Stream:
        """The one queue there is."""
        late = self

        class Queue(type(CPU.computing)):  # type: ignore[misc]
            def record(self, timing: bool = False) -> Event:
                event: Event = super().record()
                number = len(late.queue)
                event.synchronize = lambda: late.work(number)  # type: ignore[method-assign]
                return event

            def copy(self, source: Tensor, into: Tensor) -> None:
                late.queue.append(lambda: into.copy_(source))

            def synchronize(self) -> None:
                late.work(len(late.queue))

        made: Stream = Queue()
        return made

    def work(self, until: int) -> None:
        """Do what was put into the queue before so many others."""
        for number in range(until):
            self.queue[number]()
            self.queue[number] = lambda: None


@pytest.mark.parametrize("device", [Interpreting(), Late()], ids=["at once", "late"])
def test_a_chunk_is_there_when_it_is_handed_out_and_stands_until_the_next(device: CPU, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_sums, "COUNTS_AT_ONCE", 210)  # three segments of 70 neurons
    rng = np.random.default_rng(0)
    bits, segments = whole_words(rng.random((300, 70)) < 0.3), segments_of(rng.integers(0, 20, 300), np.ones(300, bool), 20)
    expected, seen = by_numpy(bits, 70, segments), []
    for first, counts in on(device, bits, 70).in_chunks(segments):
        seen.append(first)
        assert np.array_equal(counts, expected[first : first + 3])
    assert seen == list(range(0, 20, 3))


class Counted(Interpreting):
    """A CPU that tells how much was uploaded and allocated."""

    uploaded = allocated = 0

    def put(self, tensor: Tensor) -> Tensor:
        """Count its bytes."""
        self.uploaded += tensor.nbytes
        return tensor

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Count its bytes."""
        made = super().empty(*shape, dtype=dtype)
        self.allocated += made.nbytes
        return made


def test_orders_are_uploaded_once_and_bits_never() -> None:
    device, rng = Counted(), np.random.default_rng(0)
    there, keys = OnDevice(device), rng.integers(0, 5, 400)
    segments = segments_of(keys, np.ones(400, bool), 5)
    for _ in range(3):
        bits = whole_words(rng.random((400, 70)) < 0.3)
        assert np.array_equal(DeviceSums(there, torch.from_numpy(bits), 70).whole(segments), by_numpy(bits, 70, segments))
        assert device.uploaded == 4 * 400 + 5 * 13  # of a piece: begin, end, segment and whether it is alone
    assert device.allocated == 4 * COUNTS_AT_ONCE
    assert device.uploaded + device.allocated < device_bytes(tokens=400, places=5, neurons=70)


@pytest.mark.parametrize("neurons", [1, 8, 13, 64])
def test_packing_is_that_of_numpy(neurons: int) -> None:
    fires = torch.rand(50, neurons, generator=torch.Generator().manual_seed(neurons)) < 0.5
    ours, theirs = packed(fires).numpy(), np.packbits(fires.numpy(), axis=1, bitorder="little")
    assert ours.shape[1] % 8 == 0
    assert np.array_equal(ours[:, : theirs.shape[1]], theirs) and not ours[:, theirs.shape[1] :].any()


@pytest.mark.parametrize("micro", [1, 2, 5])
def test_firsts_and_maxima_leave_bos_out_and_know_no_batches(micro: int) -> None:
    generator = torch.Generator().manual_seed(3)
    pre = torch.randn(5, 6, 4, generator=generator) - 1
    pre[:, :, 3] = -5 + torch.arange(30).view(5, 6) / 100  # never fires
    pre[:, 0, :] = 9.0  # would win every maximum and be every first
    counted = np.ones((5, 6), bool)
    counted[:, 0] = False
    found = record(preactivations_as_batches(pre, micro), counted, 4)
    rows = pre[:, 1:].reshape(-1, 4).numpy()
    assert np.array_equal(found.max_pre, rows.max(0))
    expected = [next((i for i, row in enumerate(rows) if row[n] > 0), -1) for n in range(4)]
    assert found.first_fired.tolist() == expected and expected[3] == -1
