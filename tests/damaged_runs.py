"""A run that was stopped, with live censuses, and its milestones: folders to damage, and the steps that trust them."""

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import polars as pl
import tiny
from damage import Numbers, Trusted

from analyze.compare_runs import censuses_under
from analyze.tables.evolution import write_evolution
from analyze.tables.variants import variants
from corpora.config import CorpusConfig
from errors import UserError
from models.open_checkpoint import open_checkpoint
from settings import written_settings
from train.config import LiveConfig
from train.folder import last_checkpoint
from train.training import train

BEGUN, WHOLE = 2, 4  # steps of the run as it lies, and when it went on
CLOCK = ("time", "tokens_per_second", "wall_tokens_per_second", "memory")


def run_folders(room: Path, corpus: CorpusConfig) -> list[Trusted]:
    """A run of two steps of four, and the milestone of its second."""
    live = LiveConfig(tokens=160)
    settings: dict[str, Any] = {"live": live, "milestones": [0, BEGUN], "checkpoint_every": BEGUN}
    with redirect_stderr(io.StringIO()):
        run = train(tiny.training(corpus, room / "runs", steps=BEGUN, **settings), [])
    whole = tiny.training(corpus, room / "runs", steps=WHOLE, **(settings | {"milestones": [0, BEGUN, WHOLE]}))

    def gone_on(folder: Path) -> Numbers:
        with redirect_stderr(io.StringIO()) as said:
            train(whole, [])
        told = said.getvalue()
        if any(word in told for word in ("is damaged", "has no line", "is missing", "not written")):
            raise UserError(told)  # what is lost is said, and the run goes on
        return [*_milestone(folder / "milestones" / f"step_{WHOLE:09d}"), *_lines(folder), *what_changed(folder / "live")]

    def milestones(folder: Path) -> Numbers:
        return [part for one in sorted((folder / "milestones").iterdir()) for part in _milestone(one)]

    def last(folder: Path) -> Numbers:
        return _checkpoint(last_checkpoint(folder))

    def variant(folder: Path) -> Numbers:
        return [variants({folder: []})[0].name, repr(written_settings(folder / "config.yaml"))]

    steps = {
        "variant": variant,
        "go on": gone_on,
        "milestones": milestones,
        "last.ckpt": last,
        "what changed": lambda f: what_changed(f / "live"),
    }
    return [Trusted("run", run, steps)]


def what_changed(folder: Path) -> Numbers:
    """The tables of a run over its censuses."""
    censuses = censuses_under(folder)
    write_evolution(censuses, folder)
    return [repr(pl.read_parquet(file).rows()) for file in sorted(folder.glob("*.parquet"))]


def _milestone(folder: Path) -> Numbers:
    return [folder.name, *_checkpoint(folder)]


def _checkpoint(where: Path) -> Numbers:
    """What a census takes from it."""
    checkpoint = open_checkpoint(str(where))
    tokenizer = Path(checkpoint.tokenizer) if checkpoint.tokenizer else None
    if tokenizer and tokenizer.is_dir():
        tokenizer = tokenizer / "tokenizer.json"
    weights = [checkpoint.fc2(layer).numpy().tobytes() for layer in range(checkpoint.config.layers)]
    said = (checkpoint.title, checkpoint.step, checkpoint.tokens_trained, checkpoint.precision, repr(checkpoint.config))
    return [checkpoint.sha256, weights, said, tokenizer and tokenizer.read_bytes()]


def _lines(run: Path) -> Numbers:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]
