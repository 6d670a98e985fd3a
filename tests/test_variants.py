"""Every variant of conf/model trains, and every milestone of it opens in the census, as its .ckpt does."""

import json
import math
from pathlib import Path

import pytest
import tiny
from omegaconf import OmegaConf
from rich.console import Console

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.pipeline import sequences_for
from analyze.storage.stored import opened
from corpora.config import CorpusConfig
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint
from train.folder import last_checkpoint
from train.training import train

CONF = Path(__file__).parents[1] / "conf" / "model"
STEPS = 16


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> CorpusConfig:
    return tiny.text_corpus(tmp_path_factory.mktemp("corpus") / "text")


def counted(ckpt: Path, corpus: CorpusConfig, out: Path) -> list[dict[str, bytes]]:
    """What a small census counts in each layer."""
    config = tiny.analysis(ckpt, corpus, out, tokens=320, micro=4)
    checkpoint = open_checkpoint(config.ckpt)
    take(CensusTask(checkpoint, sequences_for(checkpoint, config), out, config), Console(quiet=True))
    layers = [opened(out / "layers" / f"layer_{layer:03d}.safetensors").arrays for layer in range(2)]
    return [{name: array.tobytes() for name, array in arrays.items()} for arrays in layers]


@pytest.mark.parametrize("variant", sorted(file.stem for file in CONF.glob("*.yaml")))
def test_a_variant_learns_and_its_milestones_open_in_the_census(variant: str, corpus: CorpusConfig, tmp_path: Path) -> None:
    stated = OmegaConf.to_container(OmegaConf.load(CONF / f"{variant}.yaml"))
    assert isinstance(stated, dict)
    model = OPTConfig(**({"layers": 2, "width": 16, "heads": 2, "neurons": 24, "context": 16} | stated))  # type: ignore[arg-type]
    milestones = [0, STEPS // 2, STEPS]
    run = train(tiny.training(corpus, tmp_path, model=model, steps=STEPS, milestones=milestones, checkpoint_every=STEPS), [])
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == STEPS and all(map(math.isfinite, losses))
    assert losses[-1] < losses[0] - 0.2
    censuses = [counted(run / "milestones" / f"step_{s:09d}", corpus, tmp_path / f"census_{s}") for s in milestones]
    assert censuses[0] != censuses[1] != censuses[2]
    assert counted(last_checkpoint(run), corpus, tmp_path / "census_ckpt") == censuses[2]
    assert json.loads((tmp_path / "census_ckpt" / "meta.json").read_text())["fires"] == model.fires
