"""A compiled run, in processes that nothing instruments: it resumes bit for bit, and its model is that of a run as it is written."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from processes import SERVER, program
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.utils import counters

from corpora.config import CorpusConfig
from models.config import OPTConfig
from train.folder import last_checkpoint
from train.training import train

pytestmark = pytest.mark.long
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
    done = program("train/run.py", *RUN, *SHAPE, *STEPS, f"name={name}", f"steps={steps}", f"compile={compiled}", cwd=place)
    assert done.returncode == 0, done.stderr
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


def one_variant(corpus: CorpusConfig, runs: Path, neurons: int) -> int:
    """Two steps of a run, compiled; how many graphs that took."""
    before = counters["stats"]["unique_graphs"]
    model = OPTConfig(layers=2, width=16, heads=2, neurons=neurons, context=16)
    settings: dict[str, Any] = {"steps": 2, "milestones": [], "compile": "true", "model": model}
    train(tiny.training(corpus, runs, name=f"with_{neurons}", **settings), [])
    return int(counters["stats"]["unique_graphs"] - before)


def sweep_of_five(corpus: CorpusConfig, runs: Path) -> None:
    """Five runs in this process, one after the other; then one where torch keeps one compilation of a function."""
    torch.compile = partial(torch.compile, backend="eager")  # all that is looked at happens before any backend
    compiled = [one_variant(corpus, runs, neurons) for neurons in (24, 25, 26, 27, 28)]
    assert compiled == [compiled[0]] * 5 and compiled[0] >= 3, compiled  # the block with gradients and without, the loss
    torch._dynamo.config.recompile_limit = 1
    with pytest.raises(FailOnRecompileLimitHit):
        one_variant(corpus, runs, 29)


def test_every_run_of_a_sweep_is_compiled_as_the_first(tmp_path: Path) -> None:
    process = SERVER.Process(target=sweep_of_five, args=(tiny.text_corpus(tmp_path / "text"), tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0
