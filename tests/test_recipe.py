"""The recipe: loss and gradients are transformers' OPT's, an update is AdamW's by hand, and conf/experiment says what it costs."""

import json
import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from reading import read_model
from test_house import trained
from transformers import AutoModelForCausalLM

from corpora.config import CorpusConfig
from corpora.prepare import token_store
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint
from models.opt import OPT, initialise
from train.config import OptimizerConfig, TrainConfig
from train.data_order import Steps, TrainingOrder
from train.folder import last_checkpoint
from train.loss import next_token_loss
from train.schedule import learning_rate
from train.training import train

EXPERIMENTS = Path(__file__).parents[1] / "conf" / "experiment"
PAPER = ["paper/baseline", "paper/nopos", "paper/postln", "paper/postln_control"]
LADDER = ["ladder/8m", "ladder/25m", "ladder/125m"]
OPT_IDS = 50_272  # rows of OPT's token embedding
PEAK_FLOPS = 989e12  # dense bfloat16 of an H100 or H200
VARIANTS: dict[str, dict[str, Any]] = {
    "pre-LN": {},
    "nopos": {"positions": "none"},
    "sinusoidal": {"positions": "sinusoidal"},
    "350m-like": {"norm": "post", "final_norm": False, "embed_dim": 20},
    "gelu": {"activation": "gelu"},
    "relu_squared": {"activation": "relu_squared"},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


@pytest.mark.parametrize("fresh", [True, False], ids=["initial weights", "weights far from them"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_loss_and_gradients_are_those_of_transformers(variant: dict[str, Any], fresh: bool, tmp_path: Path) -> None:
    ours = tiny.random_model(dropout=0.0, attention_dropout=0.0, std=0.1, **variant)
    if fresh:
        initialise(ours, seed=0)
    theirs = AutoModelForCausalLM.from_pretrained(tiny.saved(tmp_path / "m", ours), dtype=torch.float32)
    ids = torch.from_numpy(tiny.random_ids(sequences=5))
    found, expected = next_token_loss(ours, ids), theirs(ids, labels=ids).loss
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    named = {name.removeprefix("model."): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, named[name], atol=1e-5, rtol=0, msg=name)
    whole = [
        torch.cat([p.flatten() for p in grads])
        for grads in zip(*((p.grad, named[n]) for n, p in ours.named_parameters()), strict=True)
    ]
    assert (whole[0] - whole[1]).norm() < 1e-5 * whole[1].norm()


def by_hand(config: TrainConfig, order: TrainingOrder, steps: int) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights after some steps of AdamW as its paper has it, and the norms of the gradients before they are clipped."""
    o = config.optimizer
    model = initialise(OPT(config.model), config.seed).train()
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()}
    norms = []
    for step in range(steps):
        ids = Steps(order, 0, steps, micro_steps=1, micro=config.batch.tokens // config.model.context).batch(step)[0]
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        norms.append(math.sqrt(sum(float(grad.square().sum()) for grad in grads.values())))
        rate = learning_rate(step, o)
        with torch.no_grad():
            for name, p in model.named_parameters():
                grad = grads[name] * min(1.0, o.clip / norms[-1])
                one, two = moments[name]
                one.mul_(o.beta1).add_(grad * (1 - o.beta1))
                two.mul_(o.beta2).add_(grad.square() * (1 - o.beta2))
                p.mul_(1 - rate * o.weight_decay)  # of every parameter, biases and LayerNorms too
                p.sub_(rate * (one / (1 - o.beta1 ** (step + 1))) / ((two / (1 - o.beta2 ** (step + 1))).sqrt() + o.epsilon))
                p.grad = None
    return model.state_dict(), norms


def test_four_steps_are_those_of_adamw_by_hand(corpus: CorpusConfig, tmp_path: Path) -> None:
    shape = OPTConfig(
        layers=2, width=16, heads=2, neurons=24, context=16, vocab_size=320, init_std=0.1, dropout=0.0, attention_dropout=0.0
    )
    rates = OptimizerConfig(learning_rate=1e-2, warmup_steps=2, schedule_steps=5, epsilon=1e-4, weight_decay=0.5, clip=0.5)
    config = tiny.training(corpus, tmp_path, model=shape, optimizer=rates, steps=4, milestones=[4])
    run = train(config, [])
    expected, norms = by_hand(config, TrainingOrder(token_store(corpus).split("train"), 16, config.seed), 4)
    assert min(norms) > rates.clip, "so that clipping matters"
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["grad_norm"] for line in logged] == pytest.approx(norms, rel=1e-4)
    assert [line["lr"] for line in logged] == pytest.approx([0, 5e-3, 1e-2, learning_rate(3, rates)])
    found = read_model(open_checkpoint(str(run / "milestones" / "step_000000004"))).state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-6, rtol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("experiment", "peak", "warmup"), [(e, 6e-4, 715) for e in PAPER[:2]] + [(e, 3e-4, 2000) for e in PAPER[2:]]
)
def test_the_papers_runs_keep_the_schedule_of_the_recipe(experiment: str, peak: float, warmup: int) -> None:
    config = trained(f"experiment={experiment}")
    assert (config.steps, config.milestones) == (300_000, [50_000, 150_000, 300_000])
    assert (config.batch.tokens, config.model.context, config.corpus.name) == (524_288, 2048, "openwebtext")
    expected = {0: 0.0, 1: peak / warmup, warmup: peak, 572_204: peak / 10, 10**6: peak / 10}
    for step, rate in expected.items():
        assert learning_rate(step, config.optimizer) == pytest.approx(rate, rel=1e-5)
    o = config.optimizer
    assert (o.beta1, o.beta2, o.epsilon, o.weight_decay, o.clip, o.schedule_steps) == (0.9, 0.95, 1e-8, 0.1, 1.0, 572_204)


def test_one_group_holds_every_parameter_under_the_recipes_optimizer(corpus: CorpusConfig, tmp_path: Path) -> None:
    config = tiny.training(corpus, tmp_path, optimizer=trained("experiment=paper/baseline").optimizer, steps=2, milestones=[])
    stored = torch.load(last_checkpoint(train(config, [])), weights_only=True)
    (group,) = stored["optimizer_states"][0]["param_groups"]
    assert len(group["params"]) == len(stored["state_dict"])
    assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.95), 1e-8, 0.1)
    assert group["lr"] == pytest.approx(6e-4 / 715)


def test_variants_of_the_paper_differ_by_what_their_names_say() -> None:
    base, nopos, postln, control = (trained(f"experiment={e}") for e in PAPER)
    assert nopos == replace(base, model=replace(base.model, positions="none"))
    assert control == replace(postln, model=base.model)
    assert postln.model == replace(base.model, norm="post", final_norm=False)
    assert replace(control, optimizer=base.optimizer) == base


def only(pattern: str, text: str) -> str:
    """What the pattern's group is where it is first found."""
    found = re.search(pattern, text)
    assert found, pattern
    return found[1]


@pytest.mark.parametrize("experiment", PAPER + LADDER)
def test_the_header_of_an_experiment_says_what_it_costs(experiment: str) -> None:
    header = (EXPERIMENTS / f"{experiment}.yaml").read_text().split("defaults:")[0]
    config = trained(f"experiment={experiment}")
    tokens = config.steps * config.batch.tokens
    flops = tokens * replace(config.model, vocab_size=OPT_IDS).training_flops_per_token
    utilisation = int(found.group(1)) if (found := re.search(r"(\d+) % MFU", header)) else 30
    hours = flops / (utilisation / 100 * PEAK_FLOPS) / 3600
    assert f"{tokens:,}" in only(r"(tokens .*)", header)
    assert float(only(r"FLOPs +([\d.e]+)", header)) == pytest.approx(flops, rel=5e-3)
    assert float(only(r"GPU-hours +([\d.]+)", header)) == pytest.approx(hours, rel=5e-2, abs=5e-3)


@pytest.mark.parametrize("experiment", LADDER)
def test_the_ladder_has_the_shape_of_the_papers_run(experiment: str) -> None:
    config, paper = trained(f"experiment={experiment}"), trained("experiment=paper/baseline")
    share = [Fraction(step, config.steps) for step in config.milestones]
    assert share == [Fraction(step, paper.steps) for step in paper.milestones]
    o = config.optimizer
    assert config.steps / o.schedule_steps == pytest.approx(paper.steps / 572_204, rel=1e-3)
    assert o.final_learning_rate == pytest.approx(o.learning_rate / 10)
    assert o.warmup_steps == pytest.approx(config.steps / 20, abs=1)
    assert replace(o, learning_rate=6e-4, final_learning_rate=6e-5, warmup_steps=715, schedule_steps=572_204) == paper.optimizer


def test_flops_of_a_token_are_the_operations_of_its_products() -> None:
    config = OPTConfig(layers=3, width=32, heads=4, neurons=44, embed_dim=20, context=24, vocab_size=40)
    matrices = [p for name, p in OPT(config).named_parameters() if p.ndim == 2 and "embed_positions" not in name]
    scores = (
        2 * 2 * config.width * sum(range(1, 25)) / 24
    )  # of one layer: two products with all positions so far, one of them itself
    expected = 6 * sum(p.numel() for p in matrices) + 3 * 3 * scores
    assert config.training_flops_per_token == pytest.approx(expected, rel=0.01)
