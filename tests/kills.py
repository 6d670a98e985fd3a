"""kill -9 at random moments of preparing, training, counting and drawing: the same command goes on to the same bytes.

python tests/kills.py [KILLS [SEED]] kills each program so often (50 times) and prints the figures.
"""

import hashlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    sys.path.insert(1, str(Path(__file__).parent))

import tiny
import torch
from processes import Started, start_program

MOST_IN_A_ROW = 5  # kills before a command may come to its end
WAIT = 600  # seconds for a command that nobody kills
TEXT = ("corpus=files", "corpus.name=made", "corpus.vocab_size=300", "corpus.validation_share=0.2", "corpus.mark_bytes=4000")
SHAPE = "model={layers: 2, width: 16, heads: 2, neurons: 24, context: 16}"
LEARN = ("batch={tokens: 128, micro: 4}", "optimizer={learning_rate: 0.01, warmup_steps: 2, schedule_steps: 10}")
STEPS = ("steps=8", "milestones=[0, 4, 8]", "log_every=1", "checkpoint_every=2", "validation={every: 4, sequences: 8}")
WANDB = "wandb.mode=disabled"  # which has a folder for each start
LIVE = ("live={tokens: 800}", "precision=float32", "device=cpu", "name=run", "runs=runs", WANDB)
CLOCK = {"time", "tokens_per_second", "wall_tokens_per_second", "seconds", "peak_memory_bytes", "trained", "checksum"}
OF_STARTS = {"git.txt", "environment.json"}  # have an entry for each start of a run


@dataclass(frozen=True)
class Job:
    """One of our programs, and the folder that it makes in the folder it runs in."""

    program: str
    arguments: tuple[str, ...]
    made: str
    of: Path | None = None  # what `made` is a copy of at first

    def start(self, cwd: Path) -> Started:
        """Start it, in a process that has imported everything."""
        return start_program(self.program, *self.arguments, cwd=cwd)

    def finish(self, cwd: Path) -> float:
        """Run it to its end; the seconds it took."""
        begun, started = time.monotonic(), self.start(cwd)
        assert started.code(WAIT) == 0, started.said[-2000:]
        return time.monotonic() - begun

    def hand_on(self, made: Path, place: Path) -> None:
        """Put what an undisturbed one made where the next program reads it."""
        if self.of is None:
            shutil.copytree(made / "undisturbed" / self.made, place / self.made)


@dataclass
class Figures:
    """What came of a job's kills."""

    kills: int = 0
    ends: int = 0  # times it was gone on with to its end
    differing: int = 0  # ends that left other bytes than an undisturbed one
    seconds: float = 0.0


def kill(job: Job, place: Path, kills: int, seed: int, seconds: float = float("inf")) -> Figures:
    """Kill a job `kills` times, or for so many seconds, and compare every end with an undisturbed one."""
    rng, found = random.Random(seed), Figures()
    takes = min(job.finish(_folder(job, place / name)) for name in ("first", "undisturbed"))  # the first loads what is cold
    expected = content(place / "undisturbed" / job.made)
    assert expected
    begun = time.monotonic()
    while found.kills < kills and time.monotonic() - begun < seconds:
        cwd = _folder(job, place / f"end{found.ends}")
        for _ in range(min(MOST_IN_A_ROW, kills - found.kills)):
            process = job.start(cwd).process
            process.join(rng.uniform(0, takes))
            found.kills += process.is_alive()
            process.kill()
            process.join()
        job.finish(cwd)
        found.ends += 1
        if differing := [name for name, file in _both(expected, content(cwd / job.made)).items() if len(set(file)) > 1]:
            print(f"{cwd}: {', '.join(differing)}", flush=True)
            found.differing += 1
        else:
            shutil.rmtree(cwd)
    found.seconds = time.monotonic() - begun
    return found


def _folder(job: Job, cwd: Path) -> Path:
    cwd.mkdir(parents=True)
    if job.of is not None:
        shutil.copytree(job.of, cwd / job.made)
    return cwd


def _both(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, list[str | None]]:
    return {name: [one.get(name), other.get(name)] for name in sorted({*one, *other})}


def content(folder: Path) -> dict[str, str]:
    """A hash of every file, without what the clock says in it."""
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: hashlib.sha256(_timeless(path)).hexdigest() for name, path in files.items()}


def _timeless(file: Path) -> bytes:
    read: Callable[[Path], bytes] | None = {".ckpt": _tensors, ".json": _entries, ".jsonl": _lines}.get(file.suffix)
    return b"" if file.name in OF_STARTS else read(file) if read else file.read_bytes()


def _entries(file: Path) -> bytes:
    return json.dumps(_without_clock(json.loads(file.read_bytes()))).encode()


def _lines(file: Path) -> bytes:
    return json.dumps([_without_clock(json.loads(line)) for line in file.read_bytes().splitlines()]).encode()


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_clock(inner) for name, inner in value.items() if name not in CLOCK}
    return [_without_clock(inner) for inner in value] if isinstance(value, list) else value


def _tensors(file: Path) -> bytes:
    """A .ckpt without the checksums of lines, which hold times, and Lightning's count of the batches it has fetched."""
    stored = torch.load(file, weights_only=True)
    for name in ("metrics.jsonl", "loops"):
        stored.pop(name)
    plain = io.BytesIO()
    torch.save(stored, plain)
    return plain.getvalue()


def jobs(place: Path) -> dict[str, Job]:
    """The four programs, on a text and a model that are made here."""
    tiny.text_corpus(place / "text")
    text = (*TEXT, f"corpus.path={place / 'text'}")
    found = {"preparing": Job("scripts/prepare_corpus.py", (*text, "corpus.store=store", "corpus.workers=1"), "store")}
    there = (*text, f"corpus.store={place / 'store'}")
    found["training"] = Job("train/run.py", ("size=8m", *there, SHAPE, *LEARN, *STEPS, *LIVE), "runs")
    ckpt = place / "runs" / "run" / "milestones" / "step_000000008"
    found["counting"] = Job(
        "analyze/run.py", (f"ckpt={ckpt}", *there, "out=census", "tokens=3000", "device=cpu", WANDB), "census"
    )
    found["drawing"] = Job("analyze/draw.py", ("out=census", "thresholds.position_mi=0.01"), "census", place / "census")
    return found


def main(kills: int = 50, seed: int = 0) -> int:
    """Kill each program, print what came of it, and return the number of ends that differ."""
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, job in jobs(place).items():
            found = kill(job, place / name, kills, seed)
            job.hand_on(place / name, place)
            print(
                f"{name}: {found.kills} kills, {found.ends} times gone on to the end, {found.differing} with other bytes, "
                f"{found.seconds:.0f} s",
                flush=True,
            )
            differing += found.differing
    return differing


if __name__ == "__main__":
    sys.exit(min(1, main(*map(int, sys.argv[1:]))))
