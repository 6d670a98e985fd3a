"""Censuses on the imitated GPU: whatever the order of its work, the bytes are the CPU's, and not one wait too many or too few is there.

Every test tries some schedules; `NEURON_CENSUS_SCHEDULES=200 pytest tests/test_asynchronous.py` tries 200.
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from imitation import Imitation
from imitation_tensor import DeviceTensor
from rich.console import Console
from test_census import counts
from test_imitation import on_device
from torch.nn import functional as F

import analyze.census.take
from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.firing.staging import Staging
from analyze.forward.residual_store import InFilesBeside, InPinnedSlabs, StreamFiles
from analyze.forward.weight_prefetch import Weights
from analyze.pipeline import sequences_for
from device import CPU, Device
from errors import UserError
from models.checkpoint import save_checkpoint
from models.open_checkpoint import open_checkpoint

SCHEDULES = int(os.environ.get("NEURON_CENSUS_SCHEDULES", "20"))
TRIES = 25  # schedules that a missing wait is looked for in, at most, in every way that has it
# Waits that no order of work needs: what is still in work then is read by nobody, and writes to nothing that is used again.
CAUTIOUS = {
    "staging.close": "the thread has waited for every copy; after a mistake the rest goes to pinned buffers that nobody reads",
    "device_sums.in_chunks": "all counts have landed; of some that are not wanted any more the bits are only read",
}
PATIENCE = 60  # seconds, after which a census counts as one that never ends


@dataclass(frozen=True)
class Way:
    """Settings of a census, and what it plans."""

    settings: dict[str, Any] = field(default_factory=dict)
    planned: dict[str, Any] = field(default_factory=dict)
    triton: bool = False  # interpreted


WAYS = {
    "memory": Way({"residuals": "memory"}),
    "pinned": Way({"residuals": "pinned"}),
    "files": Way({"residuals": "file"}),
    "bits in a file": Way({"bits": "file"}),
    "one slot, one room": Way({"residuals": "memory"}, {"slots": 1, "rooms": 1}),
    "one slot, pinned": Way({"residuals": "pinned"}, {"slots": 1}),
    "bits stay": Way({"residuals": "memory"}, {"on_gpu": True}),
    "bits stay, one room, pinned": Way({"residuals": "pinned"}, {"on_gpu": True, "rooms": 1}),
    "everything in files": Way({"residuals": "file", "bits": "file"}, {"slots": 1}),
    "some layers": Way({"residuals": "pinned", "layers": "0,2"}),
    "counted there": Way({"residuals": "memory"}, {"on_gpu": True, "rooms": 2}, triton=True),
    "bfloat16": Way({"residuals": "pinned", "dtype": "bfloat16"}, {"on_gpu": True}),
}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread, and no tables: the counts tell."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DeviceTensor, "cpu", lambda tensor: tensor.place.fetch(tensor))  # milestones are written so
        for name in ("write_tables", "write_meta", "census_tables"):
            patch.setattr(analyze.census.take, name, lambda *_: None)
        yield
    torch.set_num_threads(before)


@dataclass
class Place:
    """A model, sequences, and the counts of every way on the CPU."""

    folder: Path
    ids: np.ndarray
    numbers: Iterator[int] = field(default_factory=count)
    known: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def census(self, way: Way, device: Device) -> dict[str, bytes]:
        """Its counts."""
        out = self.folder / f"out{next(self.numbers)}"
        config = tiny.analysis(self.folder / "model", self.corpus, out, **({"micro": 4} | way.settings))
        checkpoint = open_checkpoint(config.ckpt)
        task = CensusTask(checkpoint, sequences_for(checkpoint, replace(config, residuals="auto")), out, config, device)
        made = analyze.census.take.made_plan
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(analyze.census.take, "made_plan", lambda *arguments: replace(made(*arguments), **way.planned))
            take(task, Console(quiet=True))
        found = counts(out)
        shutil.rmtree(out)
        return found

    @property
    def corpus(self) -> Any:
        """The sequences."""
        return tiny.tokens_corpus(self.folder / "ids.npy", self.ids)

    def expected(self, name: str) -> dict[str, bytes]:
        """What the CPU counts."""
        if name not in self.known:
            settings = {key: value for key, value in WAYS[name].settings.items() if key in ("dtype", "layers")}
            self.known[name] = self.census(Way(settings), CPU())
        return self.known[name]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Nine sequences in micro-batches of four, so that the last one is filled up."""
    folder = tmp_path_factory.mktemp("asynchronous")
    tiny.saved(folder / "model", tiny.random_model())
    return Place(folder, tiny.random_ids())


@pytest.mark.parametrize("name", WAYS)
def test_a_census_has_the_bytes_of_the_cpu_whatever_the_schedule(name: str, place: Place) -> None:
    expected, number = place.expected(name), list(WAYS).index(name)
    assert len(expected) > 3
    for seed in range(number, max(SCHEDULES, number + 1), len(WAYS)):
        assert place.census(WAYS[name], imitation(name, seed)) == expected, seed


def imitation(name: str, seed: int, ignore: str | None = None) -> Imitation:
    """The device of a way."""
    return Imitation(seed, ignore, triton=name in WAYS and WAYS[name].triton)


def census(name: str, place: Place, device: Device) -> bool:
    """Whether it has the CPU's bytes."""
    return place.census(WAYS[name], device) == place.expected(name)


def weights_alone(place: Place, device: Device, slots: int = 2) -> bool:
    """Whether every layer's weights are there when the computation gets to them, and stay; the host waits for nothing meanwhile."""
    checkpoint = open_checkpoint(str(place.folder / "model"))
    weights, found = Weights(checkpoint, torch.float32, device, slots), []
    with device.current():
        for block in weights.blocks(range(3)):
            found.append([tensor * 1 for tensor in block.state_dict().values()])
        assert weights.waited() >= 0
    tensors = [[stored.read() for stored in checkpoint.layer_tensors(layer).values()] for layer in range(3)]
    names = [list(checkpoint.layer_tensors(layer)) for layer in range(3)]
    order = [[known.index(name) for name in weights.shapes] for known in names]
    return all(
        torch.equal(device.fetch(ours), tensors[layer][at].view(ours.shape))
        for layer in range(3)
        for ours, at in zip(found[layer], order[layer], strict=True)
    )


def used_again(device: Device, size: int) -> bool:
    """Whether memory that was given back is nobody else's."""
    filled = [device.put(torch.full((size,), 7, dtype=torch.uint8)) for _ in range(4)]
    device.synchronize()
    return all(bool((device.fetch(tensor) == 7).all()) for tensor in filled)


def weights_closed_early(place: Place, device: Device) -> bool:
    """Whether the slots' memory is free for others when the layers that follow are not wanted any more."""
    weights = Weights(open_checkpoint(str(place.folder / "model")), torch.float32, device)
    blocks, size = weights.blocks(range(2)), weights.size
    next(blocks)
    blocks.close()
    del weights, blocks
    return used_again(device, size)


def residuals_closed_early(place: Place, device: Device, files: bool = False) -> bool:
    """The same of residual streams when a layer was not finished."""
    shape, dtype = (4, 24, 32), torch.float32
    folder = place.folder / f"residuals{next(place.numbers)}"
    folder.mkdir()
    of = (3, shape, dtype)
    residuals = InFilesBeside(*of, device, StreamFiles(*of, folder)) if files else InPinnedSlabs(*of, device)
    for batch in range(3):
        residuals.write(batch, device.put(torch.full(shape, float(batch))))
    residuals.finish(-1)
    residuals.read(0)
    residuals.close()
    size = int(np.prod(shape)) * dtype.itemsize
    del residuals
    return used_again(device, size)


def bits_alone(place: Place, device: Device) -> bool:
    """Whether bits leave the device as they were; the computation is ahead of the copies."""
    staging, found = Staging(device, 8, 8), list[np.ndarray]()
    for number in range(12):
        here = staging.buffer(8)
        with device.current():
            here.fill_(number)
        staging.send(here, lambda rows: found.append(rows.copy()))
    staging.finish()
    staging.close()
    return len(found) == 12 and all((rows == number).all() for number, rows in enumerate(found))


def not_finite(place: Place, device: Device) -> bool:
    """Whether a value that is not finite is seen."""
    folder = place.folder / f"broken{next(place.numbers)}"
    model = tiny.random_model()
    with torch.no_grad():
        block: Any = model.decoder.layers[1]
        block.fc1.bias.fill_(3e38)
        block.fc2.weight.fill_(1.0)
    tiny.saved(folder / "model", model)
    try:
        Place(folder, place.ids).census(WAYS["memory"], device)
    except UserError as mistake:
        return "Layer 1 gives values that are not finite in sequence 0" in str(mistake)
    return False


def beside_training(place: Place, device: Device) -> bool:
    """Whether a census that is taken while steps of training are queued is that of the weights at its step."""
    ids, folder = torch.from_numpy(place.ids), place.folder / f"live{next(place.numbers)}"
    assert isinstance(device, Imitation)
    model: Any = on_device(device, tiny.random_model()).requires_grad_(True)

    def step() -> None:
        with device.current():
            there = device.put(ids)
            F.cross_entropy(model(there)[:, :-1].flatten(0, 1), there[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad, alpha=0.1)
                    parameter.grad = None

    step()
    save_checkpoint(model, folder / "model", {})
    step()
    found = Place(folder, place.ids).census(WAYS["pinned"], device)
    if "beside training" not in place.known:
        place.known["beside training"] = _after_a_step(place, folder.with_name("on_the_cpu"))
    return found == place.known["beside training"]


def _after_a_step(place: Place, folder: Path) -> dict[str, bytes]:
    model: Any = tiny.random_model()
    ids = torch.from_numpy(place.ids)
    F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=0.1)
    save_checkpoint(model, folder / "model", {})
    return Place(folder, place.ids).census(Way(), CPU())


PARTS: dict[str, Callable[[Place, Device], bool]] = {
    "weights alone": weights_alone,
    "weights alone, one slot": partial(weights_alone, slots=1),
    "bits alone": bits_alone,
    "weights closed early": weights_closed_early,
    "residuals closed early": residuals_closed_early,
    "files closed early": partial(residuals_closed_early, files=True),
    "not finite": not_finite,
    "beside training": beside_training,
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_census_are_right_whatever_the_schedule(part: str, place: Place) -> None:
    for seed in range(max(3, SCHEDULES // 4)):
        assert PARTS[part](place, Imitation(seed)), seed


def in_time(work: Callable[[], bool]) -> bool:
    """Whether it is right: not if it raises, or does not end."""
    found: list[bool] = []

    def tried() -> None:
        torch.set_num_threads(1)  # which is a thread's own setting
        with contextlib.suppress(Exception):
            found.append(work())

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(found) and found[0]


def test_no_wait_can_be_left_out(place: Place) -> None:
    """Without it some schedule gives other bytes, a mistake, or no end; but for those that are known to be there for caution."""
    ways = PARTS | {name: partial(census, name) for name in ("some layers", "files", "pinned", "counted there")}
    at: dict[str, list[str]] = {}
    functions: dict[str, str] = {}
    for name, way in ways.items():
        device = imitation(name, 0)
        assert in_time(partial(way, place, device)), name
        functions |= device.sites
        for site in device.sites:
            at.setdefault(site, []).append(name)
    assert set(functions.values()) >= CAUTIOUS.keys() and len(at) > 15
    asked = [site for site in sorted(at) if functions[site] not in CAUTIOUS]
    assert [site for site in asked if not seen_to_miss(place, site, {name: ways[name] for name in at[site]})] == []


def seen_to_miss(place: Place, site: str, ways: dict[str, Callable[[Place, Device], bool]]) -> bool:
    """Whether some schedule of some way goes wrong without the wait there, and is right with it."""
    for seed in range(TRIES):
        for name, way in ways.items():
            if not in_time(partial(way, place, imitation(name, seed, site))):
                assert in_time(partial(way, place, imitation(name, seed))), f"{name}, schedule {seed}, with every wait"
                print(f"{site} by {name}, schedule {seed}")
                return True
    return False
