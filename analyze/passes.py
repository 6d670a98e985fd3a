"""What a census keeps on disk until it is done: bits of layers that several passes record, residual streams; and a layer put together."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from analyze.counts import Stored
from analyze.firings import Firings
from analyze.scratch import mapped
from analyze.writing import write_whole


@dataclass
class Part(Stored):
    """What one pass recorded of a layer beside its bits."""

    max_pre: Float32[np.ndarray, " neuron"]
    first_fired: Int64[np.ndarray, " neuron"]  # index among the counted positions of the pass; -1: never


@dataclass(frozen=True)
class Scratch:
    """A folder for what one census needs to go on after a kill, and nobody once it is done."""

    path: Path

    def open(self, made_for: dict[str, Any]) -> None:
        """Make it, empty unless it was `made_for` the same."""
        about = json.dumps(made_for, sort_keys=True)
        if self.made_for != json.loads(about):
            self.remove()
            self.path.mkdir(parents=True)
            write_whole(self.path / "about.json", about)

    @property
    def made_for(self) -> dict[str, Any] | None:
        """What it was opened with; None if it is not there."""
        about = self.path / "about.json"
        found: dict[str, Any] | None = json.loads(about.read_text()) if about.exists() else None
        return found

    def bits(self, layer: int, size: int) -> UInt8[np.memmap, " byte"]:
        """The bits of a layer, row after row, that several passes write, each its rows."""
        return mapped(self.path / f"bits_{layer:03d}.bin", size)

    def part(self, layer: int, number: int) -> Path:
        """Where a pass puts what it recorded of a layer; it is there when the pass' bits are."""
        return self.path / f"bits_{layer:03d}_pass_{number:03d}.safetensors"

    def drop(self, layer: int) -> None:
        """Delete the bits of a layer and what belongs to them."""
        for file in self.path.glob(f"bits_{layer:03d}*"):
            file.unlink()

    def remove(self) -> None:
        """Delete everything."""
        shutil.rmtree(self.path, ignore_errors=True)


def together(bits: UInt8[np.ndarray, "token byte"], neurons: int, parts: list[Part], counted: list[int]) -> Firings:
    """A layer's firings from those of its passes, which counted so many positions each."""
    max_pre, first_fired = parts[0].max_pre, parts[0].first_fired
    before = 0
    for part, n in zip(parts[1:], counted, strict=False):
        before += n
        max_pre = np.maximum(max_pre, part.max_pre)
        later = np.where(part.first_fired < 0, -1, part.first_fired + before)
        first_fired = np.where(first_fired < 0, later, first_fired)
    return Firings(bits, neurons, max_pre, first_fired)
