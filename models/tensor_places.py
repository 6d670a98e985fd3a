"""A file of weights -> where each tensor's bytes are: file, offset, dtype, shape. Tensors are read by plain reads, when asked for."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from errors import UserError
from models.disk_reads import read
from models.json_files import unique

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # of safetensors
DTYPES |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "U16": torch.uint16, "U32": torch.uint32}
DTYPES |= {"U64": torch.uint64, "C64": torch.complex64}
DTYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool}
QUANTISED = ("F4", "F6", "F8")  # how types of quantised weights begin
LONGEST_HEADER = 100_000_000  # bytes, the limit of the safetensors format


@dataclass(frozen=True)
class Stored:
    """Where a tensor is on disk."""

    file: Path
    offset: int  # of its first byte
    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]  # in elements; other than contiguous in odd .bin files only

    @property
    def nbytes(self) -> int:
        """Bytes from its first to the end of its last element."""
        return span(self.shape, self.stride) * self.dtype.itemsize

    def read_into(self, slab: UInt8[Tensor, " byte"]) -> None:
        """Read its bytes to the beginning of `slab`, in main memory.

        Raises:
            UserError: the file cannot be read, or has become shorter.
        """
        assert len(slab) >= self.nbytes, "the slab is too small"
        read(self.file, self.offset, slab[: self.nbytes])

    def view(self, slab: UInt8[Tensor, " byte"]) -> Tensor:
        """The beginning of `slab`, on whatever device, as this tensor."""
        return slab[: self.nbytes].view(self.dtype).as_strided(self.shape, self.stride)

    def read(self) -> Tensor:
        """The tensor, in memory of its own."""
        slab = torch.empty(self.nbytes, dtype=torch.uint8)
        self.read_into(slab)
        return self.view(slab)


def span(shape: Iterable[int], stride: Iterable[int]) -> int:
    """Elements from the first to the last of a tensor, both included."""
    axes = list(zip(shape, stride, strict=True))
    return 1 + sum((size - 1) * step for size, step in axes) if all(size for size, _ in axes) else 0


def contiguous(shape: Iterable[int]) -> tuple[int, ...]:
    """The strides of a tensor without gaps, the last axis fastest."""
    sizes = list(shape)
    return tuple(math.prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


def safetensors_index(file: Path) -> dict[str, Stored]:
    """Where the tensors of a safetensors file are. Reads its header alone.

    Raises:
        UserError: the file is damaged, or shorter than its header says.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > min(size - 8, LONGEST_HEADER):
                raise ValueError(f"it has {size:,} bytes, and its header would end at {8 + length:,}")
            header: dict[str, Any] = json.loads(stream.read(length), object_pairs_hook=unique)
        header.pop("__metadata__", None)
        found = {name: _stored(file, 8 + length, entry) for name, entry in header.items()}
        end = max((stored.offset + stored.nbytes for stored in found.values()), default=0)
        if end > size:
            raise ValueError(f"it has {size:,} bytes of {end:,}")
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as broken:
        raise UserError(f"{file} is not a whole safetensors file ({_reason(broken)}); copy or download it again.") from None
    return found


def _stored(file: Path, start: int, entry: dict[str, Any]) -> Stored:
    shape = tuple(int(size) for size in entry["shape"])
    if entry["dtype"] not in DTYPES:
        sign = "it is quantised: " if str(entry["dtype"]).startswith(QUANTISED) else ""
        raise ValueError(f"{sign}its type {str(entry['dtype'])[:20]} is none of {', '.join(DTYPES)}")
    begin, end = entry["data_offsets"]
    stored = Stored(file, start + begin, DTYPES[entry["dtype"]], shape, contiguous(shape))
    if begin < 0 or min(shape, default=0) < 0 or end - begin != stored.nbytes:
        raise ValueError(f"its header gives {end - begin:,} bytes to a tensor of {stored.nbytes:,}")
    return stored


def _reason(broken: Exception) -> str:
    if isinstance(broken, OSError):
        return broken.strerror or str(broken)
    return f"its header lacks {broken}" if isinstance(broken, KeyError) else str(broken)
