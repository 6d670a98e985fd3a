"""metrics.jsonl, the truth about a run, and its mirror on wandb."""

import json
import math
import os
import time
from pathlib import Path

from files import whole_file
from tracking import Mirror


class Metrics:
    """Appends one JSON object per logged step."""

    def __init__(self, folder: Path, mirror: Mirror) -> None:
        self.file, self.mirror = folder / "metrics.jsonl", mirror

    def forget_after(self, step: int) -> None:
        """Drop what was logged after `step`, where a resumed run starts again."""
        if not self.file.exists():
            return
        kept = [line for line in self.file.read_text().splitlines() if _step(line) <= step]
        with whole_file(self.file) as unfinished:
            unfinished.write_text("".join(f"{line}\n" for line in kept))

    def log(self, **values: int | float | str | None) -> None:
        """Write one line, without the values that are None; `step` is among them."""
        found = {name: value for name, value in values.items() if value is not None}
        before = self.file.stat().st_size if self.file.exists() else 0
        try:
            with self.file.open("a") as stream:
                stream.write(json.dumps(found | {"time": round(time.time(), 3)}) + "\n")
        except OSError:
            os.truncate(self.file, before)  # half a line is none
            raise
        self.mirror.log(found)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut off by a kill
