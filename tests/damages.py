"""Damage a token store, a run and censuses, and print what the steps that trust them say: python tests/damages.py [HOW_MANY] [SEED]"""

import gzip
import json
import sys
import tempfile
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])
    sys.path.insert(1, str(Path(__file__).parent))

import tiny
from damage import Numbers, Outcome, Trusted, outcomes, report, wrong
from damaged_runs import run_folders, what_changed
from rich.console import Console

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.config import AnalyzeConfig
from analyze.page.findings import census_findings
from analyze.page.neuron_payload import table_block
from analyze.pipeline import sequences_for
from analyze.recompute import redraw
from analyze.tables.census import Census, open_census
from corpora.config import CorpusConfig
from corpora.prepare import token_store
from corpora.store import SPLITS
from corpora.tokenizer import train_bpe
from models.checkpoint import save_checkpoint
from models.open_checkpoint import open_checkpoint

QUIET = Console(quiet=True)
SAID = (
    "title",
    "checkpoint",
    "fires",
    "corpus",
    "tokenizer",
    "thresholds",
    "dead_bound",
    "position_bias",
)  # of numbers, in meta.json


def trusted_folders(room: Path) -> list[Trusted]:
    """A token store; a census, finished and stopped between layers; censuses of two steps; a run with milestones and live censuses."""
    text = tiny.text_corpus(room / "text", documents=20)
    train_bpe(["abcd efgh"], 260).save(str(room / "tokenizer.json"))
    save_checkpoint(tiny.random_model(), room / "model", {}, room / "tokenizer.json")
    store = Trusted("store", token_store(text).folder, {"read": lambda _: _of_store(text)})
    corpus = tiny.tokens_corpus(room / "ids.npy", tiny.random_ids())
    return [store, _census(room, corpus), _stopped(room, corpus), _censuses(room, corpus), *run_folders(room, text)]


def _of_store(corpus: CorpusConfig) -> Numbers:
    store = token_store(corpus)
    splits = [store.split(name) for name in SPLITS]
    said = json.dumps([store.bos_id, store.vocab_size, store.domain_names])
    return [store.tokenizer_file.read_bytes(), said, *(part.read(0, part.n_tokens).tobytes() for part in splits)]


def _census(room: Path, corpus: CorpusConfig) -> Trusted:
    config = tiny.analysis(room / "model", corpus, room / "census", micro=4)
    _taken(config)
    (room / "census" / "figures").mkdir()
    for name in ("figures/figure_01.png", "figures/figure_01.svg", "report.html"):  # which no step reads
        (room / "census" / name).write_text("drawn")
    steps = {"open": _opened, "draw": _drawn, "go on": lambda folder: _opened(_taken(config))}
    return Trusted("census", room / "census", steps)


def _stopped(room: Path, corpus: CorpusConfig) -> Trusted:
    """Killed after its second layer of three, with residual streams in files."""
    config = tiny.analysis(room / "model", corpus, room / "stopped", micro=4, residuals="file")
    with patch("analyze.census.cost.Cost.add", side_effect=[None, KeyboardInterrupt]):
        try:
            _taken(config)
        except KeyboardInterrupt:
            return Trusted("stopped census", room / "stopped", {"go on": lambda folder: _opened(_taken(config))})
    raise AssertionError("it was not stopped")


def _censuses(room: Path, corpus: CorpusConfig) -> Trusted:
    """Of two checkpoints of a run, with what changed between them."""
    for step in (100, 200):
        model = tiny.saved(room / f"model_{step}", tiny.random_model(seed=step, layers=1), step=step, tokens=step)
        _taken(tiny.analysis(model, corpus, room / "run" / f"step_{step:09d}", micro=4))
    what_changed(room / "run")
    return Trusted("censuses of a run", room / "run", {"what changed": what_changed})


def _taken(config: AnalyzeConfig) -> Path:
    assert config.out
    checkpoint, out = open_checkpoint(config.ckpt), Path(config.out)
    take(CensusTask(checkpoint, sequences_for(checkpoint, config), out, config), QUIET)
    return out


def _drawn(folder: Path) -> Numbers:
    """Tables again from counts; figures and page would take seconds, and are made of what is opened."""
    with patch("analyze.recompute.draw", lambda out, _: (open_census(out), [])):
        redraw(folder, {}, None, QUIET)
    return _opened(folder)


def _opened(folder: Path) -> Numbers:
    """All that a page tells."""
    census = open_census(folder)
    layers = range(census.layers.height)
    neurons = list(range(census.neurons.height // census.layers.height))
    curves = [census.position_curves(layer, neurons).tobytes() for layer in layers]
    written = [repr(census.written(layer, neuron)) for layer in layers for neuron in neurons[:3]]
    tokens = [census.token_text(token) for token in range(40)]
    block = gzip.decompress(b64decode(table_block(census)))
    return [*_tables(census), curves, written, tokens, census_findings(census), block, census.seen_at.tobytes()]


def _tables(census: Census) -> Numbers:
    said = json.dumps({name: census.meta[name] for name in SAID}, sort_keys=True)
    return [said, repr(census.neurons.rows()), repr(census.layers.rows())]


def main(arguments: Sequence[str]) -> int:
    """Do the damages and print the figures; 1 if anything went wrong."""
    many, seed = (int(arguments[i]) if len(arguments) > i else default for i, default in enumerate((200, 0)))
    with tempfile.TemporaryDirectory() as room:
        found: list[Outcome] = list(outcomes(trusted_folders(Path(room)), many, seed))
    print(report(found))
    return int(bool(wrong(found)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
