"""The census on a GPU, weights, residual streams and bits wherever they may lie; and on a CPU, so that the tests stay whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.numpy import load_file
from test_census import counts, taken

from analyze.census import take as census_module
from analyze.census.timing import seconds_per_micro_batch
from analyze.forward.weight_prefetch import Weights
from device import resolved
from models.open_checkpoint import open_checkpoint

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]
HALF = ["float16", "bfloat16"]
IDS = tiny.random_ids(sequences=23)
MANY = tiny.random_ids(sequences=70)  # of 3 layers, one sequence at a time: 210, so that a trial is worth it
WAYS: dict[str, dict[str, Any]] = {  # settings; `plan` is what the plan is made to have
    "residual streams in files": {"residuals": "file"},
    "bits in a file": {"bits": "file"},
    "one slot": {"plan": {"slots": 1}},
    "counted at once": {"plan": {"rooms": 1}},
    "counted beside": {"plan": {"rooms": 2}},
}
ON_A_GPU: dict[str, dict[str, Any]] = {
    "residual streams pinned": {"residuals": "pinned"},
    "counted on the GPU": {"plan": {"on_gpu": True}},
    "counted on the GPU, beside": {"plan": {"on_gpu": True, "rooms": 2}},
    "not counted on the GPU": {"plan": {"on_gpu": False}},
}
EVERY_WAY = [
    *(pytest.param("cpu", way, id=f"cpu, {name}") for name, way in WAYS.items()),
    *(pytest.param("cuda", way, id=f"cuda, {name}", marks=NO_GPU) for name, way in chain(WAYS.items(), ON_A_GPU.items())),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model."""
    return tiny.saved(tmp_path_factory.mktemp("gpu") / "model", tiny.random_model())


@pytest.fixture(scope="module")
def whole(model: Path) -> Callable[[str], dict[str, bytes]]:
    """The bytes of the model's census on a device, as it is planned there."""
    known: dict[str, dict[str, bytes]] = {}

    def of(device: str) -> dict[str, bytes]:
        if device not in known:
            known[device] = counts(taken(model.parent, IDS, device, device=device, dtype="float32"))
        return known[device]

    return of


@pytest.mark.parametrize(("device", "way"), EVERY_WAY)
def test_wherever_things_lie_the_bytes_are_the_same(
    device: str, way: dict[str, Any], model: Path, whole: Callable[[str], dict[str, bytes]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "model").symlink_to(model)
    planned, changes = census_module.made_plan, way.get("plan", {})
    monkeypatch.setattr(census_module, "made_plan", lambda *arguments: replace(planned(*arguments), **changes))
    settings = {name: value for name, value in way.items() if name != "plan"}
    assert counts(taken(tmp_path, IDS, "out", device=device, dtype="float32", **settings)) == whole(device)


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_counts_what_the_cpu_counts_layer_by_layer(device: str, model: Path, tmp_path: Path) -> None:
    """In float64, where no pre-activation is so near zero that the order of a sum decides its sign; on a CPU, all layers at a time."""
    (tmp_path / "model").symlink_to(model)
    here = taken(tmp_path, IDS, "here", device="cpu", dtype="float64")
    for layer in range(3):
        there = taken(tmp_path, IDS, f"there/{layer}", device=device, dtype="float64", layers=str(layer))
        (file,) = sorted((there / "layers").iterdir())
        ours, theirs = load_file(here / "layers" / file.name), load_file(file)
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == theirs[name]).all() for name in set(ours) - {"max_pre"})
        assert abs(ours["max_pre"] - theirs["max_pre"]).max() < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALF)
def test_a_checkpoint_of_half_precision_is_counted_in_it(device: str, dtype: str, tmp_path: Path) -> None:
    """The same bytes from the memory of the device and from files; on a GPU its dtype is taken without being asked for."""
    tiny.saved(tmp_path / "model", tiny.random_model().to(getattr(torch, dtype)))
    settings: dict[str, Any] = {"device": device} | ({"dtype": dtype} if device == "cpu" else {})
    memory, file = (taken(tmp_path, IDS, where, residuals=where, **settings) for where in ("memory", "file"))
    assert counts(memory) == counts(file)
    assert json.loads((memory / "meta.json").read_text())["identity"]["dtype"] == dtype


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What trials found, one after another."""
    found: list[float] = []

    def watched(task: Any) -> float:
        found.append(seconds_per_micro_batch(task))
        return found[-1]

    monkeypatch.setattr(census_module, "seconds_per_micro_batch", watched)
    return found


@pytest.mark.parametrize("device", DEVICES)
def test_a_census_large_enough_for_a_trial_counts_the_same(
    device: str, model: Path, trials: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").symlink_to(model)
    tried = counts(taken(tmp_path, MANY, "tried", device=device, dtype="float32", micro=1))
    assert len(trials) == 1 and trials[0] > 0
    monkeypatch.setattr(census_module, "WORTH_A_TRIAL", 10**9)
    assert counts(taken(tmp_path, MANY, "untried", device=device, dtype="float32", micro=1)) == tried
    assert len(trials) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_plan_is_tried_and_nothing_is_counted(device: str, model: Path, trials: list[float], tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(model)
    out = taken(tmp_path, IDS, "out", device=device, plan_only=True)
    assert len(trials) == 1 and trials[0] > 0
    assert not (out / "layers").exists()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_layer_copied_beside_the_computation_is_the_layer(device: str, slots: int, dtype: torch.dtype, model: Path) -> None:
    checkpoint, where = open_checkpoint(str(model)), resolved(device)
    weights = Weights(checkpoint, dtype, where, slots)
    with where.current():
        for layer, block in zip(range(3), weights.blocks(range(3)), strict=True):
            if where.asynchronous:
                torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]  # the computation is behind the copies
            stored = checkpoint.layer_tensors(layer)
            for name, tensor in block.state_dict().items():
                assert torch.equal(where.fetch(tensor), stored[name].read().to(dtype))
