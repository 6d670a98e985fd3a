"""The run folder: what a run was made from, written before its first step."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from corpora.store import TokenStore
from provenance import environment, git
from train.config import TrainConfig


def begin(run: Path, config: TrainConfig, overrides: list[str], store: TokenStore) -> None:
    """Make the run folder and write config, overrides, tokenizer, code version and machine."""
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    (run / "overrides.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(overrides)))
    (run / "git.txt").write_text(git())
    (run / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
    shutil.copyfile(store.tokenizer_file, run / "tokenizer.json")


def identity(config: TrainConfig, store: TokenStore, precision: str) -> dict[str, Any]:
    """What must be the same for a run to be resumed; steps, milestones and logging may change."""
    return {
        "seed": config.seed,
        "corpus": store.fingerprint,
        "precision": precision,
        "batch.tokens": config.batch.tokens,
        "batch.micro": config.batch.micro,
        **{f"model.{name}": value for name, value in asdict(config.model).items()},
        **{f"optimizer.{name}": value for name, value in asdict(config.optimizer).items()},
    }
