"""What benchmarks share: text, clocks that wait for a GPU, processes of their own, and the page and numbers that they leave."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from device import Device
from files import write_whole

POSITIONS = 2048
GB = 1_000_000_000
T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """A number that summaries show, in words."""

    name: str
    measured: str
    target: str = ""  # what it is to be on a GPU


def text(sequences: int, seed: int = 0, positions: int = POSITIONS) -> np.ndarray:
    """Ids with Zipf's frequencies and repeated phrases, so that n-grams occur as often as in text; BOS first."""
    rng = np.random.default_rng(seed)
    ids = rng.zipf(1.2, 4 * sequences * positions) + 3
    ids = ids[ids < 50_000][: sequences * positions]
    for at in range(0, len(ids) - 10, 37):
        phrase, length = rng.integers(0, len(ids) - 10), rng.integers(2, 8)
        ids[at : at + length] = ids[phrase : phrase + length]
    ids = ids.reshape(sequences, positions).astype(np.int32)
    ids[:, 0] = 2
    return ids


def now(device: Device) -> float:
    """The time, when the device has done what it was told."""
    device.synchronize()
    return time.perf_counter()


def clocked(walk: Iterator[T], spent: list[float]) -> Iterator[T]:
    """The same batches, and the seconds that making them took."""
    while True:
        start = time.perf_counter()
        batch = next(walk, None)
        spent[0] += time.perf_counter() - start
        if batch is None:
            return
        yield batch


def answer(command: list[str]) -> Any:
    """What a process of its own says last, as JSON; where it fails it has said why, and this one ends as it did."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def tell(page: str, results: Any, file: Path, figures: list[Figure]) -> None:
    """Print the page, and write it and what it was made of: `file`.md and `file`.json."""
    print(page, flush=True)
    save(page, results, file, figures)


def save(page: str, results: Any, file: Path, figures: list[Figure]) -> None:
    """Write the page and what it was made of, over what was there."""
    write_whole(file.with_name(f"{file.name}.md"), page)
    contents = {"figures": [asdict(figure) for figure in figures], "results": results}
    write_whole(file.with_name(f"{file.name}.json"), json.dumps(contents, indent=2) + "\n")
