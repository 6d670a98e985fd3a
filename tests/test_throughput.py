"""Training keeps the device busy: what it says of its speed, and that it does not wait for results between lines of metrics."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from corpora.config import CorpusConfig
from corpora.prepare import token_store
from device import peak_flops
from train.config import ValidationConfig
from train.module import Training
from train.training import train, with_vocabulary


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("gpu", "bfloat16", "float32"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 66.9e12),
        ("NVIDIA H100 PCIe", 756e12, 51.2e12),
        ("NVIDIA H200", 989.4e12, 66.9e12),
        ("NVIDIA L4", 121e12, 30.3e12),
        ("NVIDIA L40S", 362e12, 91.6e12),
        ("Tesla T4", None, None),
    ],
)
def test_a_gpu_s_peak_is_found_by_its_name(gpu: str, bfloat16: float | None, float32: float | None) -> None:
    assert (peak_flops(gpu, half=True), peak_flops(gpu, half=False)) == (bfloat16, float32)


def test_mfu_is_its_formula_s_where_a_peak_is_known(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path, peak_flops=5e9)
    flops = with_vocabulary(config, token_store(corpus)).model.training_flops_per_token
    for line in lines(train(config, [])):
        assert line["mfu"] == pytest.approx(line["tokens_per_second"] * flops / 5e9, abs=1e-4)
        assert (
            line["mfu_formula"].startswith(f"tokens/s x {flops / 1e6:.1f} MFLOP ") and "1 x 0.005 TFLOP/s" in line["mfu_formula"]
        )
    unknown = lines(train(tiny.training(corpus, tmp_path, name="unknown"), []))
    assert all(line["tokens_per_second"] > 0 and "mfu" not in line and "mfu_formula" not in line for line in unknown)


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts results that Python asks for."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_nothing_is_waited_for_between_lines_of_metrics(corpus: CorpusConfig, tmp_path: Path) -> None:
    found = []
    for steps in (3, 9):
        settings: dict[str, Any] = {"steps": steps, "milestones": [], "validation": ValidationConfig(every=100, sequences=8)}
        with Waits() as waits:  # type: ignore[no-untyped-call]
            train(tiny.training(corpus, tmp_path, name=f"of_{steps}", log_every=100, checkpoint_every=100, **settings), [])
        found.append(waits.count)
    assert 0 < found[0] == found[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_on_a_gpu_waits_for_nothing(corpus: CorpusConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_ever = Training.training_step

    def guarded(self: Training, batch: list[Any], index: int) -> dict[str, torch.Tensor]:
        torch.cuda.set_sync_debug_mode("error" if batch[0] > 2 else "default")
        try:
            return as_ever(self, batch, index)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Training, "training_step", guarded)
    settings = {"milestones": [], "log_every": 100, "checkpoint_every": 100, "precision": "bfloat16", "device": "cuda"}
    train(tiny.training(corpus, tmp_path, **settings), [])
