"""metrics.jsonl, the truth about a run, and its mirror on wandb."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from jaxtyping import Int64
from torch import Tensor

from errors import UserError
from files import flush, whole_file
from models.tensor_places import Stored
from wandb_run import Mirror

METRICS = "metrics.jsonl"  # the file, and the entry of last.ckpt that knows its lines


class Metrics:
    """Appends one JSON object per logged step."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.file, self.mirror = folder / METRICS, mirror
        self._checksums: list[int] = []  # of every line there is

    def forget_after(self, step: int) -> int:
        """Drop what was logged after `step`, where a resumed run starts again; the number of lines that stay."""
        if not self.file.exists():
            return 0
        kept = [line + b"\n" for line in self.file.read_bytes().split(b"\n") if _step(line) <= step]
        with whole_file(self.file) as unfinished:
            unfinished.write_bytes(b"".join(kept))
        self._checksums = [crc32(line) for line in kept]
        return len(kept)

    def log(self, **values: int | float | str | None) -> None:
        """Write one line, without the values that are None; `step` is among them."""
        found = {name: value for name, value in values.items() if value is not None}
        line = (json.dumps(found | {"time": round(time.time(), 3)}) + "\n").encode()
        before = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("ab") as stream:
                stream.write(line)
        except OSError:
            os.truncate(self.file, before)  # half a line is none
            raise
        self._checksums.append(crc32(line))
        self.mirror.log(found)

    def kept(self) -> Int64[Tensor, " line"]:
        """The checksum of every line, once all of them are on the disk: last.ckpt must not know of lines that a crash can take."""
        if self._checksums:
            flush(self.file)
        return torch.tensor(self._checksums, dtype=torch.int64)


def check_lines(run: Path, known: Any, step: int) -> None:
    """Compare the lines up to `step` with the checksums that last.ckpt has of them. What follows them is made again, whole or not.

    A file that is gone, or that a later start has begun anew, is no damage: that is the way out.

    Raises:
        UserError: a line is missing, or is not as it was written.
    """
    file = run / METRICS
    if not isinstance(known, Stored) or not file.exists():
        return
    lines, checksums = file.read_bytes().splitlines(keepends=True), known.read().tolist()
    if all(step < _step(line) < math.inf for line in lines if line.endswith(b"\n")):
        return
    found = [crc32(line) for line in lines]
    wrong = next((n for n, checksum in enumerate(checksums) if found[n : n + 1] != [checksum]), None)
    if wrong is not None:
        gone = wrong >= len(found) or found[wrong] in checksums[wrong + 1 :]
        raise UserError(
            f"{file} is damaged: line {wrong + 1} of {len(checksums)} is {'missing' if gone else 'not as it was written'}. Put back a "
            f"whole copy, or move it away: then the same command goes on without the lines up to step {step:,}."
        )


def _step(line: bytes) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return math.inf  # a line cut off by a kill
