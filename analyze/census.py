"""Checkpoint and sequences -> a census folder: counts, layer by layer, then tables."""

import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors import SafetensorError

from analyze.config import AnalyzeConfig, Thresholds
from analyze.counts import CorpusCounts, Index, LayerCounts, Stored, about_file, count, index
from analyze.detectors import layer_detectors
from analyze.firings import bytes_for, record
from analyze.layers import layer_table
from analyze.neurons import neuron_table
from analyze.ngram_table import ngram_table
from analyze.ranks import Ranks, joined
from analyze.scratch import bit_matrix
from analyze.suppression import SHARES, TOO_LOOSE, answerable, suppressing_shares, with_suppression
from analyze.walk import MicroBatch, ResidualStream
from analyze.writes import LayerWrites, candidate_tokens, layer_writes
from analyze.writing import write_table, write_whole
from corpora.sequences import Sequences
from errors import UserError
from models.checkpoint import Checkpoint
from provenance import environment, git

POSITIONS_AT_ONCE = {"cpu": 2048, "cuda": 16_384}  # of a micro-batch, unless its shape is given; few stay in a processor's cache


@dataclass
class CensusTask:
    """One checkpoint to be counted on one set of sequences into one folder."""

    checkpoint: Checkpoint
    sequences: Sequences
    out: Path
    config: AnalyzeConfig

    @property
    def device(self) -> torch.device:
        """Where layers are computed."""
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        kind = auto if self.config.device == "auto" else self.config.device
        return torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)

    @property
    def dtype(self) -> torch.dtype:
        """In which layers are computed."""
        auto = "float32" if self.device.type == "cpu" else "float16"
        dtype: torch.dtype = getattr(torch, auto if self.config.dtype == "auto" else self.config.dtype)
        return dtype

    @property
    def micro(self) -> int:
        """Sequences per micro-batch."""
        return self.config.micro or max(1, POSITIONS_AT_ONCE[self.device.type] // self.sequences.ids.shape[1])

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a folder's counts to be gone on with."""
        return {
            "checkpoint": self.checkpoint.sha256,
            "corpus": self.sequences.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.type,
            "micro-batch": [self.micro, self.sequences.ids.shape[1]],
            "keep_ngrams": self.config.keep_ngrams,
        }

    def counts_of(self, layer: int) -> Path:
        """Where the counts of a layer are kept."""
        return self.out / "layers" / f"layer_{layer:03d}.safetensors"

    def writes_of(self, layer: int) -> Path:
        """Where what a layer writes to the logits is kept."""
        return self.out / "writes" / f"layer_{layer:03d}.safetensors"

    @property
    def finished(self) -> list[int]:
        """Layers whose counts are stored, whichever command counted them."""
        return [layer for layer in range(self.checkpoint.config.layers) if self.counts_of(layer).exists()]


def take(task: CensusTask, console: Console) -> None:
    """Count the layers that are not counted yet, then write the tables of all that are.

    Raises:
        UserError: the folder holds counts of something else; a value is not finite; the disk is full.
    """
    chosen = task.config.chosen_layers(task.checkpoint.config.layers)
    begun, ranks = time.time(), joined()
    if ranks.first:
        _claim(task)
    rows = _index(task, keep=ranks.first)
    if not rows.corpus.n_tokens:
        raise UserError(f"The corpus holds nothing but BOS (id {task.sequences.bos_id}); there is nothing to count.")
    missing = ranks.told([layer for layer in chosen if not task.counts_of(layer).exists()])
    seconds = dict(_count_layers(task, missing, rows, ranks, console)) if missing else {}
    if ranks.first:
        _project_layers(task, rows.corpus, console)
        if not answerable(task.config.thresholds):
            console.print(TOO_LOOSE, markup=False, highlight=False, soft_wrap=True)
        write_tables(task.out, rows, task.config.thresholds)
        _write_meta(task, rows.corpus, seconds, time.time() - begun)


def _index(task: CensusTask, keep: bool) -> Index:
    """The corpus' orders: those beside the counts, else made and, if `keep`, put there with the counts of the corpus."""
    file, s, vocabulary = task.out / "index.safetensors", task.sequences, task.checkpoint.config.vocab_size
    about = {"corpus": f"{s.fingerprint}, {vocabulary} ids"}
    if not keep:
        return index(s.ids, s.domains, len(s.domain_names), s.bos_id, vocabulary)
    _share(file, about)
    if about_file(file) != about:
        _store(index(s.ids, s.domains, len(s.domain_names), s.bos_id, vocabulary), file, about)
    found = Index.load(file)
    _store(found.corpus, task.out / "corpus.safetensors")
    return found


def _share(file: Path, about: dict[str, str]) -> None:
    """Give a folder without an index that of a neighbour, of another milestone say, on the same corpus. One file, two names."""
    for theirs in [] if file.exists() else sorted(file.parent.parent.glob(f"*/{file.name}")):
        if about_file(theirs) == about:
            with suppress(OSError):  # a file system without such names: it is made again
                os.link(theirs, file)
            return


def _claim(task: CensusTask) -> None:
    """Make the folder ours, or refuse one that holds counts of something else."""
    meta = task.out / "meta.json"
    if meta.exists():
        theirs = json.loads(meta.read_text()).get("identity", {})
        if differs := [f"{k} (there {theirs.get(k)}, here {v})" for k, v in task.identity.items() if theirs.get(k) != v]:
            raise UserError(f"out={task.out} holds a census with another {'; another '.join(differs)}. Choose another out=.")
        return
    if task.out.exists() and any(task.out.iterdir()):
        raise UserError(f"out={task.out} is not empty and is no census. Choose another out=.")
    task.out.mkdir(parents=True, exist_ok=True)
    if (tokenizer := task.sequences.tokenizer_file or _tokenizer_of(task.checkpoint)) is not None:
        shutil.copyfile(tokenizer, task.out / "tokenizer.json")
    write_whole(meta, json.dumps({"identity": task.identity}, indent=2) + "\n")


def _tokenizer_of(checkpoint: Checkpoint) -> Path | None:
    if checkpoint.tokenizer is None:
        return None
    file = Path(checkpoint.tokenizer)
    file = file / "tokenizer.json" if file.is_dir() else file
    return file if file.is_file() else None


def _count_layers(
    task: CensusTask, missing: list[int], rows: Index, ranks: Ranks, console: Console
) -> Iterator[tuple[int, float]]:
    """Walk up to the last missing layer and store the counts of the missing ones; yields layer and seconds."""
    checkpoint, device = task.checkpoint, task.device
    ids = torch.from_numpy(task.sequences.ids).long()
    config, neurons = task.config, checkpoint.config.neurons
    bits = bit_matrix(ids.numel(), bytes_for(neurons), config.bits_memory, Path(config.scratch or task.out), console)
    batches = -(-len(ids) // task.micro)
    share = ranks.share(batches)
    gather = partial(ranks.gather, batches=batches, rows_of_batch=task.micro * ids.shape[1])
    stream = ResidualStream(checkpoint.ends(task.dtype), ids, task.micro, device, share)
    with _bar(console) as bar:
        progress = bar.add_task(task.out.name, total=len(share) * (missing[-1] + 1))

        def watched(walk: Iterator[MicroBatch]) -> Iterator[MicroBatch]:
            for batch in walk:
                yield batch
                bar.advance(progress)

        for layer in range(missing[-1] + 1):
            begun = time.perf_counter()
            walk = watched(stream.through(checkpoint.block(layer, task.dtype), layer))
            if layer in missing:
                firings = record(walk, rows.counted, neurons, bits, gather)
                if ranks.first:
                    _store(count(firings, rows, config.keep_ngrams, config.kernel), task.counts_of(layer))
            else:
                for _ in walk:
                    pass
            yield layer, time.perf_counter() - begun


def _project_layers(task: CensusTask, corpus: CorpusCounts, console: Console) -> None:
    """Store what the finished layers write to the logits, where it is missing: from their counts and weights, no text is read."""
    missing = [layer for layer in task.finished if not task.writes_of(layer).exists()]
    if not missing:
        return
    ends = task.checkpoint.ends(torch.float32).to(task.device)
    with _bar(console) as bar:
        for layer in bar.track(missing, description="what neurons write"):
            candidates = candidate_tokens(LayerCounts.load(task.counts_of(layer)), corpus)
            writes = layer_writes(ends, task.checkpoint.fc2(layer), candidates, corpus.token_occurrences, layer)
            _store(writes, task.writes_of(layer))


def _store(counts: Stored, file: Path, about: dict[str, str] | None = None) -> None:
    try:
        counts.save(file, about)
    except (OSError, SafetensorError) as full:
        file.with_suffix(".partial").unlink(missing_ok=True)
        raise UserError(
            f"{file} could not be written ({getattr(full, 'strerror', None) or full}); finished layers are kept, the same command goes on."
        ) from None


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def write_tables(out: Path, rows: Index, thresholds: Thresholds) -> None:
    """Compute neurons.parquet, ngrams.parquet and layers.parquet from what is stored of every finished layer.

    Without what a layer writes to the logits (a folder added up from shards), the columns of suppression are left out.
    """
    corpus = rows.corpus
    of_neurons, of_ngrams, shares = [], [], []
    for file in sorted((out / "layers").glob("layer_*.safetensors")):
        layer, counts = int(file.stem.removeprefix("layer_")), LayerCounts.load(file)
        found = layer_detectors(counts, rows, thresholds)
        table = neuron_table(layer, counts, corpus, found, thresholds)
        if (written := out / "writes" / file.name).exists():
            writes = LayerWrites.load(written)
            shares.append(suppressing_shares(table, writes, thresholds))
            table = with_suppression(table, writes, thresholds)
        of_neurons.append(table)
        of_ngrams.append(ngram_table(layer, found, rows))
    neurons, ngrams = pl.concat(of_neurons), pl.concat(of_ngrams)
    layers = layer_table(neurons, ngrams)
    if shares:
        layers = layers.with_columns(pl.from_dicts(shares, schema=dict.fromkeys(SHARES, pl.Float64)))
    for name, table in (("neurons", neurons), ("ngrams", ngrams), ("layers", layers)):
        write_table(out / f"{name}.parquet", table)


def dead_bound(n_tokens: int) -> float:
    """With 95 % confidence a neuron that never fired on `n_tokens` has a true frequency below this (about 3 / n_tokens)."""
    return float(1 - 0.05 ** (1 / n_tokens))


def _write_meta(task: CensusTask, corpus: CorpusCounts, seconds: dict[int, float], took: float) -> None:
    checkpoint, sequences, thresholds = task.checkpoint, task.sequences, task.config.thresholds
    meta = {
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
            "split": task.config.split,
            "fingerprint": sequences.fingerprint,
            "n_tokens": corpus.n_tokens,
            "sequences": sequences.ids.shape[0],
            "context": sequences.ids.shape[1],
            "bos_id": sequences.bos_id,
            "domains": _domains(sequences),
        },
        "tokenizer": "tokenizer.json" if (task.out / "tokenizer.json").exists() else None,
        "thresholds": asdict(thresholds),
        "dead_bound": dead_bound(corpus.n_tokens),
        "seconds": {"total": round(took, 3), "layers": {f"{layer}": round(s, 3) for layer, s in seconds.items()}},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "git": git().splitlines(),
        "environment": environment(),
    }
    write_whole(task.out / "meta.json", json.dumps(meta, indent=2) + "\n")


def _domains(sequences: Sequences) -> list[dict[str, Any]]:
    return [
        {"name": name, "sequences": int((sequences.domains == number).sum())}
        for number, name in enumerate(sequences.domain_names)
    ]
