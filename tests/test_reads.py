"""Bytes of a file, read past the system's cache or through it, wherever they lie; and weights cast as torch casts them."""

import errno
import os
from pathlib import Path

import pytest
import tiny
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analyze.forward import weight_prefetch as prefetch
from analyze.forward.dtype_cast import as_numbers, cast
from analyze.forward.weight_prefetch import Weights
from device import CPU
from errors import UserError
from models import disk_reads as reads
from models.disk_reads import BLOCK, Room
from models.open_checkpoint import open_checkpoint

SIZE = 5 * BLOCK + 123  # its last block is not whole
BYTES = torch.randint(0, 256, (SIZE,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole: Path = tmp_path_factory.mktemp("reads") / "file"
    whole.write_bytes(BYTES.numpy().tobytes())
    return whole


@pytest.fixture
def directly(file: Path) -> None:
    """Skips where the system, or the file system of temporary files, reads no file past its cache."""
    try:
        os.close(os.open(file, os.O_RDONLY | reads.DIRECTLY))
    except OSError:
        pytest.skip("this file system reads no file past its cache")
    if not reads.DIRECTLY:
        pytest.skip("this system reads no file past its cache")


def refused(*_: object) -> None:
    raise AssertionError("read through the cache")


@given(st.integers(0, SIZE), st.integers(0, SIZE), st.booleans())
@example(0, SIZE, True)
@example(BLOCK, 2 * BLOCK, True)
@example(SIZE - 1, SIZE, True)
@example(SIZE, SIZE, True)
@settings(deadline=None, max_examples=300)
def test_a_part_of_a_file_is_that_part(file: Path, a: int, b: int, directly: bool) -> None:
    begin, end = sorted((a, b))
    room = Room(SIZE)
    assert torch.equal(room.read(file, begin, end - begin, directly), BYTES[begin:end])


@pytest.mark.usefixtures("directly")
@pytest.mark.parametrize(("begin", "size"), [(0, SIZE), (77, 2 * BLOCK), (SIZE - 5, 5), (3 * BLOCK, BLOCK)])
def test_it_is_read_past_the_cache_where_that_is_asked_for(
    begin: int, size: int, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "read", refused)
    assert torch.equal(Room(SIZE).read(file, begin, size, directly=True), BYTES[begin : begin + size])
    with pytest.raises(AssertionError, match="through the cache"):
        Room(SIZE).read(file, begin, size, directly=False)


def test_a_system_that_cannot_reads_through_the_cache(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "DIRECTLY", 0)
    assert torch.equal(Room(SIZE).read(file, 77, 2 * BLOCK, directly=True), BYTES[77 : 77 + 2 * BLOCK])


@pytest.mark.usefixtures("directly")
def test_so_does_a_file_system_that_cannot(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, flags_seen = os.open, []

    def as_some_file_systems(path: str, flags: int) -> int:
        flags_seen.append(bool(flags & reads.DIRECTLY))
        if flags & reads.DIRECTLY:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return opened(path, flags)

    monkeypatch.setattr(os, "open", as_some_file_systems)
    assert torch.equal(Room(SIZE).read(file, 77, 2 * BLOCK, directly=True), BYTES[77 : 77 + 2 * BLOCK])
    assert flags_seen == [True, False]


@pytest.mark.parametrize("directly", [False, True])
def test_a_file_that_ends_before_is_a_sentence(directly: bool, file: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has become shorter"):
        Room(SIZE).read(file, BLOCK, SIZE, directly)
    with pytest.raises(UserError, match=r"gone cannot be read \(No such file"):
        Room(SIZE).read(tmp_path / "gone", 0, 1, directly)


@pytest.mark.usefixtures("directly")
def test_layers_of_a_checkpoint_too_large_for_the_cache_are_read_past_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    checkpoint = open_checkpoint(str(tmp_path / "model"))
    size = sum(file.stat().st_size for file in checkpoint.files)
    for free, directly in ((2 * size + 2, False), (2 * size - 2, True)):
        monkeypatch.setattr(prefetch, "free_memory", lambda free=free: free)
        weights = Weights(checkpoint, torch.bfloat16, CPU())
        assert weights.directly == directly
    through_the_cache = checkpoint.layer_tensors(1)["fc1.weight"].read().bfloat16()
    monkeypatch.setattr(reads, "read", refused)
    blocks = weights.blocks(range(2))
    next(blocks)
    assert torch.equal(next(blocks).fc1.weight, through_the_cache)
    blocks.close()


@pytest.mark.parametrize("into", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("of", [torch.float16, torch.bfloat16], ids=str)
def test_every_number_of_two_bytes_is_cast_as_torch_casts_it(of: torch.dtype, into: torch.dtype) -> None:
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(of)[torch.randperm(1 << 16)]
    found = torch.empty(1 << 16, dtype=into)
    cast(every, found)
    for bits in range(0, 1 << 16, 4096):
        some = slice(bits, bits + 4096)
        one_by_one = torch.tensor(every[some].tolist(), dtype=torch.float64).to(into)
        assert torch.equal(found[some].nan_to_num(7.0, torch.inf, -torch.inf), one_by_one.nan_to_num(7.0, torch.inf, -torch.inf))


def test_bytes_are_numbers_wherever_they_begin() -> None:
    numbers = torch.randn(5)
    some = torch.cat([torch.zeros(3, dtype=torch.uint8), numbers.view(torch.uint8)])
    assert torch.equal(as_numbers(some[3:], torch.float32), numbers)
