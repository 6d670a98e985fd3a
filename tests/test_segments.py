"""Segment sums of the bit matrix are what a loop over its rows counts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import preactivations_as_batches

from analyze import segments
from analyze.carry_save_triton import available
from analyze.firings import packed, record
from analyze.segments import segment_counts, segments_of

KERNELS = [
    "numpy",
    "numba",
    pytest.param("triton", marks=pytest.mark.skipif(not available(), reason="triton is not installed")),
]


@pytest.mark.parametrize("kernel", KERNELS)
@settings(deadline=None)  # the first call compiles
@given(rows=st.integers(1, 40), neurons=st.integers(1, 20), groups=st.integers(1, 6), seed=st.integers(0, 1000))
def test_every_row_is_counted_once_in_its_own_segment(kernel: str, rows: int, neurons: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    fires, keys, counted = rng.random((rows, neurons)) < 0.4, rng.integers(0, groups, rows), rng.random(rows) < 0.8
    bits = np.packbits(fires, axis=1, bitorder="little")
    expected = np.zeros((groups, neurons), np.int32)
    for row in range(rows):
        if counted[row]:
            expected[keys[row]] += fires[row]
    assert np.array_equal(segment_counts(bits, neurons, segments_of(keys, counted, groups), kernel), expected)


@pytest.mark.parametrize("at_once", [1, 7, 64])
def test_rows_at_once_do_not_change_the_counts(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    fires, keys = rng.random((200, 16)) < 0.3, rng.integers(0, 9, 200) ** 2 // 9
    order = segments_of(keys, np.ones(200, bool), 10)
    whole = segment_counts(np.packbits(fires, axis=1, bitorder="little"), 16, order, "numpy")
    monkeypatch.setattr(segments, "ROWS_AT_ONCE", at_once)
    assert np.array_equal(segment_counts(np.packbits(fires, axis=1, bitorder="little"), 16, order, "numpy"), whole)


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
