"""Training under bfloat16 autocast follows training in float32."""

import json
from pathlib import Path

import numpy as np
import tiny

from models.config import OPTConfig
from train.config import BatchConfig, OptimizerConfig
from train.training import train

STEPS = 200


def test_loss_curves_of_bfloat16_and_float32_agree(tmp_path: Path) -> None:
    """Over 200 steps in which the loss falls by far more than the two ever differ; dropout is on, with the same masks."""
    corpus = tiny.text_corpus(tmp_path / "corpus" / "text")
    settings = {
        "steps": STEPS,
        "milestones": [],
        "checkpoint_every": STEPS,
        "model": OPTConfig(layers=2, width=32, heads=2, neurons=64, context=16),
        "batch": BatchConfig(tokens=256, micro=16),
        "optimizer": OptimizerConfig(learning_rate=3e-3, warmup_steps=20, schedule_steps=400),
    }
    curves = []
    for precision in ("float32", "bfloat16"):
        run = train(tiny.training(corpus, tmp_path, name=precision, precision=precision, **settings), [])
        curves.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
    exact, near = np.array(curves)
    assert len(exact) == len(near) == STEPS and exact[0] - exact[-10:].mean() > 1
    assert 0 < np.abs(exact - near).max() < 0.1 and abs((exact - near).mean()) < 0.01  # 0.034 and 0.002 where this was written
