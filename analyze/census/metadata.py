"""meta.json: everything needed to trust a census and to take it again."""

from dataclasses import asdict
from typing import Any

from analyze.census.cost import Cost
from analyze.census.job import CensusTask
from analyze.census.ownership import split_of
from analyze.counts.layer import CorpusCounts
from analyze.neuron_types.position import bias
from analyze.storage.census_files import TOKENIZER, contents
from analyze.storage.formats import FORMAT
from analyze.storage.formats import write_meta as write
from corpora.sequences import Sequences
from provenance import environment, git


def dead_bound(n_tokens: int) -> float:
    """With 95 % confidence a neuron that never fired on `n_tokens` has a true frequency below this (about 3 / n_tokens)."""
    return float(1 - 0.05 ** (1 / n_tokens))


def write_meta(task: CensusTask, corpus: CorpusCounts, cost: Cost) -> None:
    """Write the file, over the claim if it is the first time."""
    checkpoint, sequences, thresholds = task.checkpoint, task.sequences, task.config.thresholds
    meta = {
        "format": FORMAT,
        "title": checkpoint.title,
        "identity": task.identity,
        "checkpoint": {
            "path": str(checkpoint.path),
            "sha256": checkpoint.sha256,
            "step": checkpoint.step,
            "tokens_trained": checkpoint.tokens_trained,
            "model": asdict(checkpoint.config),
        },
        "fires": checkpoint.config.fires,
        "corpus": {
            "name": task.config.corpus.name,
            "split": split_of(task),
            "read": asdict(sequences.read) if sequences.read else None,
            "fingerprint": sequences.fingerprint,
            "n_tokens": corpus.n_tokens,
            "sequences": sequences.ids.shape[0],
            "context": sequences.ids.shape[1],
            "bos_id": sequences.bos_id,
            "domains": _domains(sequences),
        },
        "tokenizer": TOKENIZER if (task.out / TOKENIZER).exists() else None,
        "thresholds": asdict(thresholds),
        "dead_bound": dead_bound(corpus.n_tokens),
        "position_bias": bias(corpus.seen_at.sum(0)),
        **cost.entries(),
        "git": git().splitlines(),
        "environment": environment(),
        **contents(task.out),
    }
    write(task.out, meta)


def _domains(sequences: Sequences) -> list[dict[str, Any]]:
    return [
        {"name": name, "sequences": int((sequences.domains == number).sum())}
        for number, name in enumerate(sequences.domain_names)
    ]
