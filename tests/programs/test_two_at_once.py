"""Two programs on one run, one census, one store, started together: one works, the other waits or ends in a sentence.

What is written is what one of them writes alone. Twenty tries of each print what happened:
.venv/bin/python -m pytest -m long -s tests/programs/test_two_at_once.py
"""

import json
import os
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from processes import QUIET, SERVER, become_program

import locks
from analyze import pipeline as analysis

IMPATIENT = 0.2  # seconds instead of locks.PATIENCE: a try is short
TRIES = 20
TEXT = ["corpus=files", "corpus.path=../../text", "corpus.vocab_size=300", "corpus.validation_share=0.2"]
SHAPE = ["model.layers=1", "model.width=16", "model.heads=2", "model.neurons=24", "model.context=16", "batch.tokens=64"]
STEPS = [
    "steps=30",
    "milestones=[30]",
    "checkpoint_every=3",
    "log_every=1",
    "device=cpu",
    "threads=1",
    "live.tokens=160",
    "live.spacing=milestones",
]
REFUSED = r"error: \S+ is being written by process {pid} on \S+ since [-\d]+ [:\d]+: wait until it has ended, or choose another {setting}\."


@dataclass(frozen=True)
class Kind:
    """What two programs do at once."""

    command: list[str]
    setting: str  # that the sentence names; empty: who comes second waits
    files: Callable[[Path], dict[str, object]]  # what must be the same as alone


def bytes_of(folder: Path, *patterns: str) -> dict[str, object]:
    found = {str(file.relative_to(folder)): file.read_bytes() for pattern in patterns for file in folder.glob(pattern)}
    assert found
    return dict(found)


def of_run(place: Path) -> dict[str, object]:
    """Milestones, live censuses, the checkpoint and every line of metrics, but for what depends on the clock."""
    run = place / "runs" / "r"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    metrics = [{k: v for k, v in line.items() if k not in ("time", "tokens_per_second")} for line in lines]
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    last = {name: tensor.numpy().tobytes() for name, tensor in weights.items()}
    counts = bytes_of(run, "milestones/*/model.safetensors", "live/*/layers/*", "live/*/*.parquet")
    return counts | {"metrics": metrics, "weights": last}


def of_census(place: Path) -> dict[str, object]:
    """Counts, what is written to the logits, tables."""
    assert not (place / "out" / "scratch").exists()
    return bytes_of(place / "out", "layers/*", "writes/*", "*.parquet", "*.safetensors")


def of_store(place: Path) -> dict[str, object]:
    """Every file."""
    return {name: content for name, content in bytes_of(place / "store", "**/*.*").items() if not name.endswith("manifest.json")}


KINDS = {
    "run": Kind(["train/run.py", *TEXT, *SHAPE, *STEPS, "corpus.store=../../store", "name=r"], "name=", of_run),
    "census": Kind(
        ["analyze/run.py", "ckpt=../../model", "corpus=tokens", "corpus.path=../../ids.npy", "out=out", "residuals=file"],
        "out=",
        of_census,
    ),
    "store": Kind(["scripts/prepare_corpus.py", *TEXT, "corpus.store=store"], "", of_store),
}


def in_time(words: list[str], cwd: Path, said: Path, together: Barrier | None, offset: float, drawn: bool) -> None:
    """One of our programs in this process, which came from the server, when the other one is ready too."""
    locks.PATIENCE = IMPATIENT
    if not drawn:
        vars(analysis)["census_figures"] = lambda *_: {}  # most of a small census' time
    if together is not None:
        together.wait(60)
    time.sleep(offset)
    become_program(words[0], tuple(words[1:]), cwd, os.environ | QUIET, [said, said])


def done(kind: Kind, cwd: Path, offsets: tuple[float, ...], drawn: bool) -> list[tuple[int, int, str]]:
    """Run the command as often as there are offsets, at once; of each: its exit code, its process, what it said."""
    cwd.mkdir()
    together = SERVER.Barrier(len(offsets)) if len(offsets) > 1 else None
    said = [cwd / f"said-{number}" for number in range(len(offsets))]
    running = [
        SERVER.Process(target=in_time, args=(kind.command, cwd, file, together, offset, drawn))
        for file, offset in zip(said, offsets, strict=True)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
    return [(process.exitcode or 0, process.pid or 0, file.read_text()) for process, file in zip(running, said, strict=True)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its tokens, and text with its store."""
    folder = tmp_path_factory.mktemp("two")
    tiny.saved(folder / "model", tiny.random_model())
    np.save(folder / "ids.npy", tiny.random_ids(sequences=200))
    tiny.text_corpus(folder / "text", 400)
    return folder


def last_words(program: tuple[int, int, str]) -> str:
    """After a line on what the environment decides."""
    return program[2].splitlines()[-1]


@dataclass
class Happened:
    """How often what came of the second of two."""

    refused: int = 0
    waited: int = 0
    late: int = 0  # it came when the first had ended

    def add(self, kind: Kind, one: tuple[int, int, str], other: tuple[int, int, str]) -> None:
        """Judge two programs, of which one at least has worked."""
        assert one[0] == 0, one
        if other[0]:
            assert other[0] == 1 and re.fullmatch(REFUSED.format(pid=one[1], setting=kind.setting), last_words(other)), other
            self.refused += 1
        elif "waiting for process" in one[2] + other[2]:
            self.waited += 1
        else:
            self.late += 1


def judged(name: str, place: Path, tries: int, drawn: bool) -> Happened:
    """Start two programs so often, in the first try at the same moment, and compare what they write with what one writes alone."""
    kind, at, happened = KINDS[name], random.Random(name), Happened()
    place = place / f"{name}-{tries}"
    place.mkdir()
    (by_itself,) = done(kind, place / "alone", (0.0,), drawn)
    assert by_itself[0] == 0, by_itself
    alone = kind.files(place / "alone")
    for number in range(tries):
        offset = at.choice((0.0, at.random())) if number else 0.0
        happened.add(kind, *sorted(done(kind, place / str(number), (0.0, offset), drawn)))
        same = kind.files(place / str(number))
        assert same.keys() == alone.keys() and [file for file in alone if same[file] != alone[file]] == [], number
        assert [path for path in (place / str(number)).rglob(".*") if path.suffix in (".lock", ".partial")] == []
        if tries < TRIES and happened.refused + happened.waited:
            break
    return happened


@pytest.mark.parametrize("name", KINDS)
def test_two_at_the_same_moment(name: str, place: Path) -> None:
    """A second and a third time, where one was so slow to start that it did not meet the other."""
    happened = judged(name, place, 3, drawn=False)
    assert happened.refused if KINDS[name].setting else happened.waited


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_two_at_about_the_same_moment(name: str, place: Path) -> None:
    happened = judged(name, place, TRIES, drawn=True)
    print(f"\n{name}: {happened}, all bytes as alone")
    assert happened.refused if KINDS[name].setting else happened.waited
