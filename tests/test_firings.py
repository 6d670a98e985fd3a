"""Firing bits and greatest pre-activations are what numpy and torch say, in every dtype and for any number of neurons."""

import numpy as np
import pytest
import torch
from tiny import preactivations_as_batches

from analyze.firing.mask import record
from analyze.firing.packing import bytes_for, packed


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("neurons", [1, 63, 64, 100, 192])
def test_bits_and_greatest_are_numpys(dtype: torch.dtype, neurons: int) -> None:
    pre = torch.randn(6, 50, neurons, generator=torch.Generator().manual_seed(neurons)).to(dtype)
    pre[0, 1, 0], pre[0, 2, 0], pre[1, 0] = 0.0, -0.0, 9.0
    pre[:, :, -1] = -pre[:, :, -1].abs() - 1  # a neuron that never fires: its greatest value is negative
    counted = np.ones((6, 50), bool)
    counted[:, 0] = False
    used = np.full((300, bytes_for(neurons)), 255, np.uint8)  # bits of the layer before
    found = record(preactivations_as_batches(pre, 2), counted, neurons, used)
    expected = np.packbits((pre > 0).flatten(0, 1).numpy(), axis=1, bitorder="little")
    assert np.array_equal(found.bits[:, : expected.shape[1]], expected)
    assert not found.bits[:, expected.shape[1] :].any()
    assert np.array_equal(found.bits, packed((pre > 0).flatten(0, 1)).numpy())
    assert np.array_equal(found.max_pre, pre[:, 1:].flatten(0, 1).amax(0).float().numpy())
