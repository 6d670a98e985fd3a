"""metrics.jsonl, the truth about a run, and its mirror on wandb."""

import json
import math
import time
from pathlib import Path

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
        unfinished = self.file.with_suffix(".partial")
        unfinished.write_text("".join(f"{line}\n" for line in kept))
        unfinished.replace(self.file)

    def log(self, **values: int | float | None) -> None:
        """Write one line, without the values that are None; `step` is among them."""
        found = {name: value for name, value in values.items() if value is not None}
        with self.file.open("a") as stream:
            stream.write(json.dumps(found | {"time": round(time.time(), 3)}) + "\n")
        self.mirror.log(found)


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # a line cut off by a kill
