"""Packing where pre-activations are: by Triton and by torch, the bits are numpy's and maxima and first firings a plain loop's."""

import numpy as np
import pytest
import torch
from torch import Tensor

from analyze.firing import packing
from analyze.firing.packing import NEVER, bytes_for, pack
from device import CPU, Device

pytest.importorskip("triton", reason="Triton is made for Linux only")
ROOM = 3  # rows of bits before and after those that are written


class Interpreting(CPU):
    """A CPU that runs Triton's kernels, with its interpreter."""

    triton = True


DEVICES = {"triton": Interpreting(), "torch": CPU()}
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    monkeypatch.setattr(packing, "ROWS_AT_ONCE", 64)
    if request.param == "triton":  # and by nothing else
        monkeypatch.setattr(packing, "pack_by_torch", None)
    return DEVICES[request.param]


def special(dtype: torch.dtype) -> Tensor:
    """Zeros, the numbers next to them, infinities."""
    kinds = torch.finfo(dtype)
    return torch.tensor([0.0, -0.0, kinds.smallest_normal / 4, -kinds.smallest_normal / 4, kinds.tiny, torch.inf, -torch.inf]).to(
        dtype
    )


def numbers(rows: int, neurons: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Normal numbers, special ones among them; some neurons never fire, some rarely."""
    generator = torch.Generator().manual_seed(seed)
    pre = (torch.randn(rows, neurons, generator=generator) - 3 * torch.rand(neurons, generator=generator)).to(dtype)
    odd = torch.rand(rows, neurons, generator=generator) < 0.1
    pre[odd] = special(dtype)[torch.randint(7, (int(odd.sum()),), generator=generator)]
    for neuron, value in enumerate(special(dtype)[:neurons]):
        pre[:, neuron] = value
    return pre


def check(device: Device, pre: Tensor, counted: Tensor, offset: int = 0, pieces: int = 1) -> None:
    """Pack some rows after one another, into the middle of a matrix that holds other bits."""
    rows, neurons = pre.shape
    bits = torch.full((rows + 2 * ROOM, bytes_for(neurons)), 255, dtype=torch.uint8)
    max_pre, first = torch.full((neurons,), -torch.inf), torch.full((neurons,), NEVER)
    for some in torch.arange(rows).chunk(pieces):
        a, b = int(some[0]), int(some[-1]) + 1
        pack(device, pre[a:b], counted[a:b], bits[ROOM + a : ROOM + b], max_pre, first, offset + a)
    fires = (pre > 0).numpy()
    packed = np.packbits(fires, axis=1, bitorder="little")
    written = bits[ROOM : ROOM + rows].numpy()
    assert np.array_equal(written[:, : packed.shape[1]], packed) and not written[:, packed.shape[1] :].any()
    assert (bits[:ROOM] == 255).all() and (bits[ROOM + rows :] == 255).all()
    rows_counted = pre[counted].float().numpy()
    greatest = np.maximum.reduce(rows_counted, axis=0, initial=-np.inf) + np.float32(0)
    assert max_pre.numpy().tobytes() == greatest.tobytes()
    hits = [np.flatnonzero(fires[:, n] & counted.numpy()) for n in range(neurons)]
    assert first.tolist() == [offset + int(hit[0]) if len(hit) else NEVER for hit in hits]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "neurons"), [(1, 1), (3, 7), (130, 64), (257, 70), (140, 520)])
def test_bits_maxima_and_first_firings_are_those_of_numpy(device: Device, dtype: torch.dtype, rows: int, neurons: int) -> None:
    check(device, numbers(rows, neurons, dtype), torch.rand(rows, generator=torch.Generator().manual_seed(1)) < 0.8, offset=rows)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pieces", [2, 7])
def test_packed_in_pieces_is_packed_at_once(device: Device, dtype: torch.dtype, pieces: int) -> None:
    check(device, numbers(150, 70, dtype), torch.arange(150) % 5 > 0, offset=1, pieces=pieces)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_bos_alone_give_bits_and_nothing_else(device: Device, dtype: torch.dtype) -> None:
    check(device, numbers(9, 70, dtype), torch.zeros(9, dtype=torch.bool))


def test_rows_are_numbered_past_32_bits(device: Device) -> None:
    check(device, numbers(9, 70, torch.float16), torch.ones(9, dtype=torch.bool), offset=2**33 + 1)


def test_a_stretch_that_does_not_begin_its_rows_counts_them_on(device: Device) -> None:
    """Only the last of many rows fires: it is in another program than the first."""
    pre = torch.full((3 * packing.STRETCH, 70), -1.0)
    pre[-1] = 2.0
    check(device, pre, torch.ones(len(pre), dtype=torch.bool))


def test_float64_is_packed_too() -> None:
    check(DEVICES["triton"], numbers(20, 70, torch.float64), torch.arange(20) % 3 > 0)
