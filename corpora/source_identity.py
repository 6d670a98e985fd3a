"""text -> documents: what says, within a second, that a source is the one a store was made from."""

import hashlib
import json
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from corpora import algebra, arithmetic, everyday, files, local, mathematics
from corpora.config import CorpusConfig
from corpora.hub import commit, local_folder
from corpora.openwebtext import REPOSITORY, REVISION

LOCAL_RECIPE = (local, mathematics, arithmetic, algebra, everyday)  # modules whose own text decides the local corpus


ADDED = {"text": "text", "subset": None, "part": "train"}  # settings younger than some stores, and what these were made with


def source_identity(config: CorpusConfig) -> dict[str, Any]:
    """The settings that decide the documents, and a sha256 of the source: installed packages, or files' sizes and times."""
    return _settings(config) | {"fingerprint": _fingerprint(config)}


def source_words(config: CorpusConfig) -> dict[str, Any]:
    """What can be said of a source that is not there: the settings that decide the documents, and where they were looked for."""
    return _settings(config) | {"path": config.path, "domains": dict(config.domains)}


def _settings(config: CorpusConfig) -> dict[str, Any]:
    settings = ("name", "source", "bytes_per_domain", "distinct", "validation_share", "split", "seed", *ADDED)
    return {setting: getattr(config, setting) for setting in settings}


def _fingerprint(config: CorpusConfig) -> str:
    parts: object
    if config.source == "local":
        packages = sorted(f"{package.name}=={package.version}" for package in distributions())
        recipe = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in LOCAL_RECIPE]
        parts = [sys.version, packages, recipe]
    elif config.source == "hub":
        folder = local_folder(config)
        parts = [_file(path) for path in sorted(folder.rglob("*")) if path.is_file()] if folder else commit(config)
    elif config.source != "tokens" and (places := files.places(config)):
        parts = {domain: [_file(path) for path in files.found(where)] for domain, where in places.items()}
    else:  # only OpenWebText can do without files
        parts = [REPOSITORY, REVISION]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _file(path: Path) -> tuple[str, int, int]:
    state = path.stat()
    return str(path.resolve()), state.st_size, state.st_mtime_ns
