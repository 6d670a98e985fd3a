"""A run that is to go on and a milestone that is to be counted, for damages: what is trusted there, and the numbers made of it."""

import json
import tempfile
from pathlib import Path

import tiny
import torch
from damage import Numbers, Trusted
from rich.console import Console

from analyze.analysis import sequences_for
from analyze.census import take
from analyze.task import CensusTask
from corpora.config import CorpusConfig
from models.opening import open_checkpoint
from train.config import LiveConfig, TrainConfig
from train.folder import last_checkpoint
from train.training import train

CLOCK = ("time", "tokens_per_second", "wall_tokens_per_second")


def trusted_runs(room: Path) -> list[Trusted]:
    """A run that has made two of its three steps; and a milestone of it."""
    corpus = tiny.text_corpus(room / "of runs")
    for name, milestones in (("run", [0]), ("other", [2])):
        train(_config(corpus, room, name=name, steps=2, milestones=milestones), [])
    run, milestone = room / "run", room / "other" / "milestones" / "step_000000002"
    steps = {"go on": lambda folder: _gone_on(_config(corpus, room, steps=3)), "census of last.ckpt": lambda _: _of_ckpt(run)}
    return [Trusted("run", run, steps), Trusted("milestone", milestone, {"census": lambda folder: _counted(folder, corpus)})]


def _config(corpus: CorpusConfig, room: Path, **settings: object) -> TrainConfig:
    return tiny.training(corpus, room, **({"milestones": [0, 3], "live": LiveConfig(tokens=320)} | settings))


def _gone_on(config: TrainConfig) -> Numbers:
    """Weights and moments; counts of the live census of the last step; and the lines, those before the last checkpoint or none of them."""
    run = train(config, [])
    stored = torch.load(last_checkpoint(run), weights_only=True)
    moments = [moment.tolist() for state in stored["optimizer_states"][0]["state"].values() for moment in state.values()]
    weights = [weight.tolist() for weight in stored["state_dict"].values()]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timeless = [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]
    if [line["step"] for line in timeless] not in ([1, 2, 3], [3]):
        raise AssertionError(f"lines of steps {[line['step'] for line in timeless]}")
    counts = [file.read_bytes() for file in sorted((run / "live" / "step_000000003" / "layers").iterdir())]
    described = [(run / name).read_bytes() for name in ("config.yaml", "overrides.yaml", "tokenizer.json")]
    return [weights, moments, stored["global_step"], timeless[-1], counts, described]


def _of_ckpt(run: Path) -> Numbers:
    """What decides the numbers of a census: every byte of weights, the configuration, the step and the tokenizer."""
    checkpoint = open_checkpoint(str(last_checkpoint(run)))
    tokenizer = Path(checkpoint.tokenizer).read_bytes() if checkpoint.tokenizer else None
    known = tokenizer if tokenizer is not None else (run / "milestones" / "step_000000000" / "tokenizer.json").read_bytes()
    return [checkpoint.sha256, vars(checkpoint.config), checkpoint.step, checkpoint.name, known]


def _counted(milestone: Path, corpus: CorpusConfig) -> Numbers:
    with tempfile.TemporaryDirectory() as folder:
        config = tiny.analysis(milestone, corpus, Path(folder) / "census", tokens=320)
        checkpoint = open_checkpoint(str(milestone))
        take(CensusTask(checkpoint, sequences_for(checkpoint, config), Path(folder) / "census", config), Console(quiet=True))
        counts = [file.read_bytes() for file in sorted((Path(folder) / "census" / "layers").iterdir())]
    return [counts, checkpoint.title, checkpoint.tokens_trained, checkpoint.precision]
