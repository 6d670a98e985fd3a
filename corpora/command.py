"""settings -> the command that prepares their corpus."""

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from corpora.config import CorpusConfig

CONF = Path(__file__).parents[1] / "conf" / "corpus"


def prepare_command(config: CorpusConfig) -> str:
    """The line for a shell: the settings' own group, and each that has another value there."""
    group = OmegaConf.merge(OmegaConf.structured(CorpusConfig), OmegaConf.load(CONF / f"{config.source}.yaml"))
    known = OmegaConf.to_container(group)
    assert isinstance(known, dict)
    others = {name: value for name, value in asdict(config).items() if value != known[name]}
    add = {name: "+" if isinstance(value, dict) else "" for name, value in others.items()}  # keys of a dict are new to hydra
    settings = [f"{add[name]}corpus.{name}={_value(value)}" for name, value in others.items()]
    return shlex.join(["python", "scripts/prepare_corpus.py", f"corpus={config.source}", *settings])


def _value(value: Any) -> str:
    """As hydra reads it; in quotes where it may be more than a word to it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{_value(of_name)}" for name, of_name in value.items()) + "}"
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value):
        return value
    return json.dumps(value, ensure_ascii=False)
