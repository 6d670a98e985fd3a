"""Censuses on the imitated GPU: whatever the order of its work, the bytes are the CPU's, and not one wait too many or too few is there.

Every test tries some schedules; `NEURON_CENSUS_SCHEDULES=200 pytest tests/test_asynchronous.py` tries 200.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from imitation import Imitation
from rich.console import Console
from test_census import counts

import analyze.census
from analyze.analysis import sequences_for
from analyze.census import take
from analyze.task import CensusTask
from device import CPU, Device
from models.opening import open_checkpoint

SCHEDULES = int(os.environ.get("NEURON_CENSUS_SCHEDULES", "20"))
TRIES = 25  # schedules that a missing wait is looked for in, at most, in every way that has it
PATIENCE = 60  # seconds, after which a census counts as one that never ends


@dataclass(frozen=True)
class Way:
    """Settings of a census, and what it plans."""

    settings: dict[str, Any] = field(default_factory=dict)
    planned: dict[str, Any] = field(default_factory=dict)


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
    "bfloat16": Way({"residuals": "pinned", "dtype": "bfloat16"}, {"on_gpu": True}),
}


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """One thread, and no tables: the counts tell."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("write_tables", "write_meta", "census_tables"):
            patch.setattr(analyze.census, name, lambda *_: None)
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
        task = CensusTask(checkpoint, sequences_for(checkpoint, config), out, config, device)
        plan = analyze.census.plan
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(analyze.census, "plan", lambda *arguments: replace(plan(*arguments), **way.planned))
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


def in_time(work: Callable[[], bool]) -> bool:
    """Whether it is right: not if it raises, or does not end."""
    found: list[bool] = []

    def tried() -> None:
        try:
            found.append(work())
        except Exception:
            found.append(False)

    thread = threading.Thread(target=tried, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(found) and found[0]


@pytest.mark.parametrize("name", WAYS)
def test_a_census_has_the_bytes_of_the_cpu_whatever_the_schedule(name: str, place: Place) -> None:
    expected = place.expected(name)
    assert len(expected) > 3
    for seed in list(range(SCHEDULES))[list(WAYS).index(name) % len(WAYS) :: len(WAYS)] or [list(WAYS).index(name)]:
        assert place.census(WAYS[name], Imitation(seed)) == expected, seed
