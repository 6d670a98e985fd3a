"""Training as a GPU does it: compiled, with dropout, readers, live censuses and milestones; killed and resumed.

Where there is a GPU it has 125m's shape; everywhere the same is done at toy size, compiled for the CPU.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from watched_run import Watched, run

from corpora.prepare import token_store
from models.config import OPTConfig
from models.opt import OPT
from train.config import BatchConfig, LiveConfig, OptimizerConfig, TrainConfig, ValidationConfig
from train.folder import last_checkpoint
from train.loss import ROWS

STEPS, KEPT, KILLED, VALIDATED = 30, 3, 4, 4  # the steps of a run; between two checkpoints; where it dies; between validations
CENSUSES, MILESTONES = [0, 2, 5], [10, STEPS]
NOISE = 1e-3  # nats that a loss may be further from float32's than bfloat16 puts it
ROOM = 1.3  # times the memory that is computed
GPUS = torch.cuda.device_count()
NO_GPU = pytest.mark.skipif(not GPUS, reason="needs a CUDA GPU")
pytestmark = pytest.mark.long
NO_DROPOUT: dict[str, Any] = {"dropout": 0.0, "attention_dropout": 0.0}


@dataclass(frozen=True)
class Size:
    """A model, what it learns from at once, and what it is looked at with."""

    device: str
    model: OPTConfig
    micro: int  # sequences; a step has two micro-batches on each of two ranks
    sample: int  # tokens of a live census
    documents: int  # of made-up text
    learning_rate: float

    @property
    def batch(self) -> BatchConfig:
        """Read ahead by two processes."""
        return BatchConfig(tokens=4 * self.micro * self.model.context, micro=self.micro, workers=2)


TOY = OPTConfig(layers=2, width=32, heads=2, neurons=128, context=32, vocab_size=1024)
SIZES = {
    "toy": Size("cpu", TOY, micro=4, sample=512, documents=60, learning_rate=5e-3),
    "125m": Size("cuda", OPTConfig(vocab_size=50_272), micro=4, sample=32_768, documents=1000, learning_rate=6e-4),
}


class Runs:
    """The runs of a size, each made when it is first asked for."""

    def __init__(self, size: Size, place: Path) -> None:
        self.size, self.place = size, place
        self.corpus = tiny.text_corpus(place / "text", size.documents)
        token_store(self.corpus)  # before two ranks want it
        self._made: dict[str, Watched] = {}

    def config(self, name: str, **settings: Any) -> TrainConfig:
        """Thirty compiled steps in bfloat16."""
        chosen: dict[str, Any] = {
            "name": name,
            "model": self.size.model,
            "batch": self.size.batch,
            "device": self.size.device,
            "compile": "true",
            "precision": "bfloat16",
            "steps": STEPS,
            "milestones": MILESTONES,
            "checkpoint_every": KEPT,
            "validation": ValidationConfig(every=VALIDATED, sequences=8),
            "optimizer": OptimizerConfig(learning_rate=self.size.learning_rate, warmup_steps=10),
        }
        return tiny.training(self.corpus, self.place / "runs", **(chosen | settings))

    def watched(self, name: str) -> Watched:
        """A run with live censuses."""
        live = LiveConfig(spacing="milestones", steps=CENSUSES, tokens=self.size.sample)
        return self._once(self.config(name, live=live))

    def resumed(self) -> Watched:
        """One that was killed."""
        config = self.config("parts", live=LiveConfig(spacing="milestones", steps=CENSUSES, tokens=self.size.sample))
        if "parts" not in self._made:
            assert run(config, killed_at=KILLED) is None
            assert torch.load(last_checkpoint(self.place / "runs" / "parts"), weights_only=True)["global_step"] == KEPT
        return self._once(config)

    def without_dropout(self, name: str, ranks: int = 1, **settings: Any) -> Watched:
        """A run whose losses can be compared with another's."""
        model = replace(self.size.model, **NO_DROPOUT)
        return self._once(self.config(name, model=model, milestones=[], checkpoint_every=STEPS, **settings), ranks)

    def _once(self, config: TrainConfig, ranks: int = 1) -> Watched:
        if config.name not in self._made:
            made = run(config, ranks)
            assert made is not None
            self._made[config.name] = made
        return self._made[config.name]


@pytest.fixture(scope="module", params=["toy", pytest.param("125m", marks=NO_GPU)])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(SIZES[request.param], tmp_path_factory.mktemp(request.param))


def lines(of: Watched) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock."""
    clock = ("time", "tokens_per_second", "mfu", "mfu_formula")
    found = [json.loads(line) for line in (of.folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in clock} for line in found]


def losses(of: Watched) -> torch.Tensor:
    return torch.tensor([line["loss"] for line in lines(of)], dtype=torch.float64)


def state(of: Watched) -> torch.Tensor:
    """Weights and both moments, one after another."""
    kept = torch.load(last_checkpoint(of.folder), weights_only=True, map_location="cpu")
    assert kept["global_step"] == STEPS
    moments = [entry[name] for entry in kept["optimizer_states"][0]["state"].values() for name in ("exp_avg", "exp_avg_sq")]
    return torch.cat([tensor.flatten().double() for tensor in (*kept["state_dict"].values(), *moments)])


def counted(of: Watched, steps: str = "*") -> dict[str, bytes]:
    """What live censuses counted, byte for byte."""
    files = sorted(of.folder.glob(f"live/step_{steps}/*/*.safetensors"))
    return {str(file.relative_to(of.folder)): file.read_bytes() for file in files}


def test_a_run_that_is_killed_goes_on_as_if_nothing_had_been(runs: Runs) -> None:
    """Bit for bit on a CPU; on a GPU, where sums are added up in any order, by no more than two identical runs differ."""
    whole, parts = runs.watched("whole"), runs.resumed()
    assert [line["step"] for line in lines(parts)] == list(range(1, STEPS + 1))
    assert lines(parts)[-1].keys() == lines(whole)[-1].keys() > {"val_loss"}
    if runs.size.device == "cpu":
        assert lines(parts) == lines(whole) and torch.equal(state(parts), state(whole)) and counted(parts) == counted(whole)
        return
    again = runs.watched("again")
    for measure in (losses, state):
        of_chance = (measure(again) - measure(whole)).norm()
        assert (measure(parts) - measure(whole)).norm() <= 3 * of_chance, "two draws from one spread; 0 where there is none"
    assert counted(parts, "000000000") == counted(whole, "000000000")


def test_every_census_and_milestone_is_there(runs: Runs) -> None:
    for made in (runs.watched("whole"), runs.resumed()):
        taken, kept = ([int(f.name[5:]) for f in sorted(made.folder.glob(f"{w}/step_*"))] for w in ("live", "milestones"))
        assert taken == CENSUSES + MILESTONES and kept == MILESTONES
        assert len(counted(made)) >= len(taken) * runs.size.model.layers
        evolution = made.folder / "live" / "evolution.parquet"
        assert evolution.is_file() and not list(made.folder.rglob(".*"))


def test_nothing_is_compiled_after_the_first_validation(runs: Runs) -> None:
    """Training's graphs by the first step, validation's by the end of the first, and no more, censuses or not."""
    graphs = runs.watched("whole").graphs
    before, after = graphs[VALIDATED - 2], graphs[VALIDATED - 1]
    assert len(graphs) == STEPS and 0 < before < after
    assert graphs == [before] * (VALIDATED - 1) + [after] * (STEPS - VALIDATED + 1)
    assert runs.resumed().graphs == [after] * (STEPS - KEPT), "its first step is validated"


def computed_memory(size: Size) -> int:
    """Bytes of weights, gradients and moments in float32, of weights in bfloat16, of activations and of the loss.

    A layer keeps 34 bytes for each token and unit of width (Korthikanti et al. 2022, equation 2, 16-bit numbers) and, as the residual
    stream is in float32, 4 more. A CPU has no fused attention with dropout: 5 more for each attention weight; what a loss needs only
    while it is computed is not seen there.
    """
    model, tokens = size.model, size.micro * size.model.context
    parameters = sum(parameter.numel() for parameter in OPT(model).parameters())
    embedding = model.vocab_size * model.width
    activations, loss = 38 * model.width, 4 * embedding  # of a token in a layer; the unembedding's gradient
    if size.device == "cpu":
        activations += 5 * model.heads * model.context
    else:  # the unembedding as it is multiplied and a piece's share of its gradient; a piece's logits and their derivative
        loss += (2 + 2) * embedding + (2 + 2) * min(tokens, ROWS["cuda"]) * model.vocab_size
    return (16 + 2) * parameters + tokens * model.layers * activations + loss


def test_a_run_takes_the_memory_that_is_computed(runs: Runs) -> None:
    """Of the GPU, censuses included; on a CPU what autograd keeps."""
    taken, computed = runs.watched("whole").memory, computed_memory(runs.size)
    assert 0.5 * computed <= taken <= ROOM * computed


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_compiled_run_in_bfloat16_loses_what_one_in_float32_does(ranks: int, runs: Runs) -> None:
    """Up to what bfloat16 alone changes, at every step; on two ranks too, over NCCL where they have GPUs."""
    if runs.size.device == "cuda" and ranks > GPUS:
        pytest.skip("needs two CUDA GPUs")
    exact = losses(runs.without_dropout("exact", compile="false", precision="float32"))
    eager = losses(runs.without_dropout("eager", compile="false"))
    compiled = losses(runs.without_dropout(f"compiled-{ranks}", ranks))
    assert exact[-1] < exact[0] - 10 * NOISE and len(compiled) == STEPS
    excess = (compiled - exact).abs() - (eager - exact).abs()
    assert excess.max() <= NOISE, excess
