"""Pre-activations -> firing bits where the pre-activations are, with the greatest of them and the first firings on the way."""

import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from device import Device

UNPACK = 0x0102040810204080  # multiplying eight 0/1 bytes by this collects them, in order, in the top byte
INTEGERS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32}  # that the Triton kernel reads
NEVER = torch.iinfo(torch.int64).max  # where the first firing stands of a neuron that has not fired
ROWS_AT_ONCE = 512  # packed at a time without Triton: temporaries of 512 x 36,864 neurons are about 60 MB
# One Triton program: STRETCH rows of 8 x BYTES neurons, ROWS of them loaded together, 32 bytes a thread.
STRETCH, ROWS, BYTES = 128, 4, 64


def bytes_for(neurons: int) -> int:
    """Bytes of a row of bits: whole words of 64 neurons."""
    return 8 * -(-neurons // 64)


def packed(fires: Bool[Tensor, "token neuron"]) -> UInt8[Tensor, "token byte"]:
    """Pack along neurons, little-endian bits, rows of whole 64-bit words: `numpy.packbits` and zeros, where the tensor is."""
    fires = torch.nn.functional.pad(fires, (0, -fires.shape[1] % 64)).contiguous()
    return (fires.view(torch.int64) * UNPACK).bitwise_right_shift_(56).to(torch.uint8)


def pack(
    device: Device,
    pre: Float[Tensor, "token neuron"],
    counted: Bool[Tensor, " token"],
    bits: UInt8[Tensor, "token byte"],
    max_pre: Float32[Tensor, " neuron"],
    first: Int64[Tensor, " neuron"],
    offset: int,
) -> None:
    """Write the bits of some rows, and take their counted ones into `max_pre` and `first`. All tensors are on the device.

    `max_pre` starts at -inf, and a greatest pre-activation of -0 stands there as 0; `first` starts at `NEVER` and takes the number of
    the first counted row at which a neuron fires, rows being numbered from `offset`.
    """
    if not pre.numel():
        return
    way = pack_by_triton if device.triton and pre.dtype in INTEGERS else pack_by_torch
    with torch.inference_mode():
        way(device, pre, counted, bits, max_pre, first, offset)


def pack_by_torch(
    device: Device,
    pre: Float[Tensor, "token neuron"],
    counted: Bool[Tensor, " token"],
    bits: UInt8[Tensor, "token byte"],
    max_pre: Float32[Tensor, " neuron"],
    first: Int64[Tensor, " neuron"],
    offset: int,
) -> None:
    """Some rows at a time, so that temporaries are small."""
    for begin in range(0, len(pre), ROWS_AT_ONCE):
        rows = slice(begin, begin + ROWS_AT_ONCE)
        some, left_out = pre[rows], ~counted[rows, None]
        fires = some > 0
        bits[rows] = packed(fires)
        greatest = some.masked_fill(left_out, -torch.inf).amax(0).float()
        torch.maximum(max_pre, greatest.add_(0.0), out=max_pre)  # -0 + 0 is 0
        ever, row = fires.masked_fill_(left_out, False).view(torch.uint8).max(0)
        torch.minimum(first, row.add_(offset + begin).masked_fill_(ever == 0, NEVER), out=first)


def pack_by_triton(
    device: Device,
    pre: Float[Tensor, "token neuron"],
    counted: Bool[Tensor, " token"],
    bits: UInt8[Tensor, "token byte"],
    max_pre: Float32[Tensor, " neuron"],
    first: Int64[Tensor, " neuron"],
    offset: int,
) -> None:
    """One pass over the pre-activations, read as integers; nothing but the results is written."""
    from analyze.firing.bit_sliced_triton import pack_rows

    assert pre.stride(1) == 1 and bits.stride(1) == 1, "rows that are not contiguous"
    (rows, neurons), width = pre.shape, bits.shape[1]
    integer = INTEGERS[pre.dtype]
    size = torch.iinfo(integer).bits
    lowest = int(torch.tensor(-torch.inf, dtype=pre.dtype).view(integer)) ^ torch.iinfo(integer).max
    device.launch(
        pack_rows, (-(-width // BYTES), -(-rows // STRETCH)),
        pre.view(integer), counted.view(torch.uint8), bits, max_pre.view(torch.int32), first,
        rows, neurons, width, pre.stride(0), bits.stride(0), offset,
        HALF=pre.dtype == torch.float16, SIZE=size, LOWEST=lowest, STRETCH=STRETCH, ROWS=ROWS, BYTES=BYTES,
    )  # fmt: skip
