"""The walk on a GPU: weights copied beside it, residual streams in its memory, in pinned memory and in files, and several passes."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from reading import read_block
from safetensors.numpy import load_file
from test_census import counts, taken

from analyze.prefetch import Weights
from models.opening import open_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
IDS = tiny.random_ids(sequences=23)
WAYS: dict[str, dict[str, Any]] = {
    "pinned": {"residuals": "pinned"},
    "files": {"residuals": "file"},
    "three passes": {"passes": 3},
    "bits in a file": {"bits": "file"},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a model, and its census on the GPU."""
    folder = tmp_path_factory.mktemp("gpu")
    tiny.saved(folder / "model", tiny.random_model())
    return folder, taken(folder, IDS, "whole/out", device="cuda", dtype="float32")


@pytest.mark.parametrize("way", WAYS)
def test_wherever_residual_streams_lie_the_bytes_are_the_same(way: str, place: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(place[0] / "model")
    assert counts(taken(tmp_path, IDS, "out/out", device="cuda", dtype="float32", **WAYS[way])) == counts(place[1])


def test_the_gpu_counts_what_the_cpu_counts(place: tuple[Path, Path], tmp_path: Path) -> None:
    """In float64, where no pre-activation is so near zero that the order of a sum decides its sign."""
    (tmp_path / "model").symlink_to(place[0] / "model")
    here, there = (taken(tmp_path, IDS, device, device=device, dtype="float64") for device in ("cpu", "cuda"))
    for file in sorted((here / "layers").iterdir()):
        ours, theirs = load_file(file), load_file(there / "layers" / file.name)
        assert all((ours[name] == theirs[name]).all() for name in set(ours) - {"max_pre"})


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_layer_copied_beside_the_computation_is_the_layer(slots: int, dtype: torch.dtype, place: tuple[Path, Path]) -> None:
    checkpoint = open_checkpoint(str(place[0] / "model"))
    weights = Weights(checkpoint, dtype, torch.device("cuda"), slots)
    for layer, block in zip(range(3), weights.blocks(range(3)), strict=True):
        torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]  # the computation is behind the copies
        expected = read_block(checkpoint, layer, dtype).state_dict()
        assert all(torch.equal(tensor.cpu(), expected[name]) for name, tensor in block.state_dict().items())
