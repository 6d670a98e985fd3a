"""Tokens per second, and which share of the machine's arithmetic they use (MFU)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


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
