"""Tokens per second, and which share of the machine's arithmetic they use (MFU)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Dense peaks in FLOP/s of NVIDIA's data sheets, bfloat16 on tensor cores and float32 without; the first name found counts.
PEAKS = {
    "B200": (2250e12, 75e12),
    "H200 NVL": (835e12, 60e12),
    "H200": (989.4e12, 66.9e12),
    "H100 PCIe": (756e12, 51.2e12),
    "H100 NVL": (835e12, 60e12),
    "H100": (989.4e12, 66.9e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "L40": (181e12, 90.5e12),
    "L4": (121e12, 30.3e12),
    "A40": (149.7e12, 37.4e12),
    "RTX A6000": (154.8e12, 38.7e12),
    "RTX 4090": (165.2e12, 82.6e12),
    "RTX 3090": (71e12, 35.6e12),
}


def peak_flops(gpu: str, bfloat16: bool) -> float | None:
    """FLOP/s that a GPU of this name can do at most; None for one that is not in the table."""
    padded = f" {gpu} "
    return next(
        (peaks[0 if bfloat16 else 1] for name, peaks in PEAKS.items() if f"{name} " in padded or f"{name}-" in padded), None
    )


class Throughput:
    """Tokens per second between lines of metrics.jsonl, without the time that validation and writing take."""

    def __init__(self, tokens_per_step: int, flops_per_token: int, peak: float | None, ranks: int) -> None:
        self.tokens_per_step, self.flops_per_token, self.peak, self.ranks = tokens_per_step, flops_per_token, peak, ranks
        self._since, self._step = time.perf_counter(), 0

    @property
    def formula(self) -> str | None:
        """How mfu is computed, with its numbers; None where the machine's peak is not known."""
        if self.peak is None:
            return None
        return (
            f"tokens/s x {self.flops_per_token / 1e6:.1f} MFLOP (6 per weight in a product, causal attention) "
            f"/ ({self.ranks} x {self.peak / 1e12:.4g} TFLOP/s)"
        )

    def start(self, step: int) -> None:
        """Count from the end of `step`, now."""
        self._since, self._step = time.perf_counter(), step

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent here is not training's."""
        begun = time.perf_counter()
        yield
        self._since += time.perf_counter() - begun

    def measured(self, step: int) -> dict[str, float | str | None]:
        """What metrics.jsonl says of the steps since the last call, or since the start."""
        rate = (step - self._step) * self.tokens_per_step / max(time.perf_counter() - self._since, 1e-9)
        self.start(step)
        mfu = None if self.peak is None else round(rate * self.flops_per_token / (self.ranks * self.peak), 4)
        return {"tokens_per_second": round(rate, 1), "mfu": mfu, "mfu_formula": self.formula}


def known_peak(device: torch.device, bfloat16: bool) -> float | None:
    """The peak of this machine's GPU; None on a CPU, whose peak no table knows."""
    return peak_flops(torch.cuda.get_device_name(device), bfloat16) if device.type == "cuda" else None
