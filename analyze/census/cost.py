"""What a census took: seconds and memory of all commands that worked on it, kept in its meta.json from layer to layer."""

import time
from pathlib import Path
from typing import Any

from allocator import peak_memory
from analyze.storage.formats import read_meta, write_meta


class Cost:
    """Of the commands before, as meta.json says, and of this one, which began at `begun`."""

    def __init__(self, folder: Path, begun: float) -> None:
        before = read_meta(folder)
        seconds = before.get("seconds", {})
        self.folder, self.begun = folder, begun
        self.total: float = seconds.get("total", 0.0)  # seconds of the commands before
        self.layers = {int(layer): float(took) for layer, took in seconds.get("layers", {}).items()}
        self.peak: int = before.get("peak_memory_bytes", 0)

    def add(self, layer: int, seconds: float) -> None:
        """Seconds of a walk through a layer; from now on a kill does not lose them."""
        self.layers[layer] = self.layers.get(layer, 0.0) + seconds
        write_meta(self.folder, read_meta(self.folder) | self.entries())

    def entries(self) -> dict[str, Any]:
        """What meta.json says of it: seconds are sums over commands, memory is that of the command that took most."""
        total = self.total + time.time() - self.begun
        layers = {f"{layer}": round(seconds, 3) for layer, seconds in sorted(self.layers.items())}
        peak = max(self.peak, peak_memory())
        return {"seconds": {"total": round(total, 3), "layers": layers}, "peak_memory_bytes": peak}
