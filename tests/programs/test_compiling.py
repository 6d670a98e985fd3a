"""A compiled run, in processes that nothing instruments: it resumes bit for bit, and its model is that of a run as it is written."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from processes import program

from train.folder import last_checkpoint

RUN = [
    "corpus=files",
    "corpus.path=text",
    "corpus.vocab_size=300",
    "corpus.validation_share=0.2",
    "wandb.mode=disabled",
    "runs=.",
]
SHAPE = ["model.layers=1", "model.width=16", "model.heads=2", "model.neurons=24", "model.context=16", "device=cpu", "threads=1"]
STEPS = ["batch.tokens=128", "precision=float32", "milestones=[0]", "optimizer.warmup_steps=1", "validation.sequences=8"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiling")
    tiny.text_corpus(folder / "text")
    return folder


def trained(place: Path, name: str, steps: int, compiled: bool = True) -> Path:
    assert program("train/run.py", *RUN, *SHAPE, *STEPS, f"name={name}", f"steps={steps}", f"compile={compiled}", cwd=place) == 0
    return place / name


def test_a_compiled_run_resumes_bit_for_bit(place: Path) -> None:
    """With dropout, whose masks the compiler draws in its own way."""
    whole = torch.load(last_checkpoint(trained(place, "whole", steps=4)), weights_only=True)
    trained(place, "parts", steps=2)
    parts = torch.load(last_checkpoint(trained(place, "parts", steps=4)), weights_only=True)
    assert whole["global_step"] == parts["global_step"] == 4
    assert all(torch.equal(parts["state_dict"][name], weight) for name, weight in whole["state_dict"].items())
    plain = torch.load(last_checkpoint(trained(place, "plain", steps=4, compiled=False)), weights_only=True)
    assert plain["state_dict"].keys() == whole["state_dict"].keys()
    states = [
        json.loads((place / name / "milestones/step_000000000/training_state.json").read_text()) for name in ("whole", "plain")
    ]
    assert states[0]["val_loss"] == pytest.approx(states[1]["val_loss"], rel=1e-6)
