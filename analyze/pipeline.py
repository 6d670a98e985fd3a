"""Configuration -> censuses, their reports, and the comparison of a run's milestones."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from analyze.census.distributed import Ranks, joined, one_voice
from analyze.census.job import CensusTask
from analyze.census.ownership import check_folder, owned
from analyze.census.plan_search import ONLY_ON_A_GPU
from analyze.census.take import take
from analyze.config import AnalyzeConfig
from analyze.figures.catalogue import census_figures, run_figures, write_figures
from analyze.page.build import census_page, run_page
from analyze.tables.census import Census, open_census
from analyze.tables.evolution import write_evolution
from analyze.wandb_log import mirror_alone, mirror_figures
from corpora.notices import announce
from corpora.sequences import Sequences, census_sequences, check_against_model, check_tokenizer
from corpora.tokenizer import id_count, open_tokenizer
from device import resolved, use_threads
from errors import UserError
from files import write_whole
from models.checkpoint import Checkpoint
from models.open_checkpoint import open_checkpoint
from wandb_run import decided

LONGEST_NAME = 120  # letters of a checkpoint's in that of a folder


def analyze(config: AnalyzeConfig) -> Path:
    """Take the census of a checkpoint, or of every milestone of a run; returns the folder.

    Raises:
        UserError: see `open_checkpoint`, `census_sequences` and `take`.
    """
    ranks = joined()
    with one_voice(ranks):
        return _analyzed(config, Console(stderr=True, quiet=not ranks.first))


def _analyzed(config: AnalyzeConfig, console: Console) -> Path:
    resolved(config.device)  # a GPU that is not there is refused before anything is read
    use_threads(config.threads)
    config = replace(config, wandb=decided(config.wandb, console))
    where = Path(config.ckpt)
    milestones = sorted((where / "milestones").glob("step_*")) if (where / "milestones").is_dir() else None
    if milestones is None:
        out = Path(config.out) if config.out else _default_out(config.ckpt, config.corpus.name)
        censuses_of([(_opened(config.ckpt, console), out)], config, console)
        return out
    if not milestones:
        raise UserError(f"{where}/milestones is empty: this run has not reached a milestone yet.")
    out = Path(config.out or where / "census")
    with owned(out) if joined().first and not config.plan_only else nullcontext():
        censuses = censuses_of([(_opened(str(folder), console), out / folder.name) for folder in milestones], config, console)
        if censuses:
            compare_milestones(censuses, out, console)
            mirror_figures(censuses[-1], config.wandb, sorted((out / "figures").glob("*.png")), console)
    return out


def _opened(where: str, console: Console) -> Checkpoint:
    checkpoint = open_checkpoint(where)
    for note in checkpoint.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    return checkpoint


def censuses_of(checkpoints: list[tuple[Checkpoint, Path]], config: AnalyzeConfig, console: Console) -> list[Census]:
    """Take the censuses, and draw them; of several processes all but the first only help to take them, and `plan_only` takes none."""
    if joined().first and not config.plan_only:
        null, censuses = open_census(config.null) if config.null else None, []
        for checkpoint, out in checkpoints:
            check_folder(out)
            check_shapes({"checkpoint": {"model": vars(checkpoint.config)}}, null)
        for checkpoint, out in checkpoints:
            with owned(out):
                censuses.append(census_of(checkpoint, config, out, console, null))
            null = null or (censuses[0] if censuses[0].step == 0 else None)
        return censuses
    for checkpoint, out in checkpoints:
        take(CensusTask(checkpoint, sequences_for(checkpoint, config), out, config), console)
    return []


def _default_out(ckpt: str, corpus: str) -> Path:
    path = Path(ckpt)
    if path.resolve().parent.name == "milestones":
        return path.resolve().parent.parent / "census" / path.resolve().name
    named = (
        path.resolve().parents[1] if path.resolve().parent.name == "checkpoints" else path.resolve()
    )  # a run, for its last.ckpt
    return Path("runs") / "census" / f"{named.name.removesuffix('.ckpt')[:LONGEST_NAME]}-{corpus}"


def census_of(checkpoint: Checkpoint, config: AnalyzeConfig, out: Path, console: Console, null: Census | None = None) -> Census:
    """Take one census and write its figures and its page."""
    sequences = sequences_for(checkpoint, config)
    take(CensusTask(checkpoint, sequences, out, config), console)
    census, files = draw(out, null)
    mirror_alone(census, config.wandb, files, console)
    dead, token, positional = (census.layers[column].sum() for column in ("dead", "token_detectors", "positional"))
    found = f"{len(census.neurons):,} neurons: {dead:,} dead, {token:,} token detectors, {positional:,} positional"
    console.print(f"{census.title}: {found}  ->  {out}", markup=False, highlight=False, soft_wrap=True)
    return census


def draw(out: Path, null: Census | None = None) -> tuple[Census, list[Path]]:
    """Write the figures and the page of a census folder, with the census of an untrained model beside it if there is one.

    Raises:
        UserError: the untrained model has another shape.
    """
    census = open_census(out)
    check_shapes(census.meta, null)
    figures = census_figures(census, null)
    files = write_figures(figures, out / "figures")
    write_whole(out / "report.html", census_page(census, figures, null is not None))
    return census, files


def check_shapes(meta: Mapping[str, Any], null: Census | None) -> None:
    """An untrained model is drawn beside one of its own shape.

    Raises:
        UserError: it has another.
    """
    if null is None:
        return
    ours, theirs = (tuple(of["checkpoint"]["model"][name] for name in ("layers", "neurons")) for of in (meta, null.meta))
    if ours != theirs:
        differs = f"{theirs[0]} layers of {theirs[1]} neurons, not {ours[0]} of {ours[1]}"
        raise UserError(
            f"null={null.path} is a census of {differs}; give one of a model of the same shape (scripts/untrained.py)."
        )


def check_before(checkpoint: Checkpoint, config: AnalyzeConfig) -> None:
    """Look at what a census is asked for beside its checkpoint, before text is tokenised.

    Raises:
        UserError: no such layers, too long a context, another tokenizer than the model's, or what only a GPU has.
    """
    config.chosen_layers(checkpoint.config.layers)
    if config.context is not None and config.context > checkpoint.config.context:
        raise UserError(
            f"context={config.context} is longer than the {checkpoint.config.context} positions of {checkpoint.path}."
        )
    if checkpoint.tokenizer is not None and config.corpus.source != "tokens":  # before the corpus is tokenised with it
        check_tokenizer(id_count(open_tokenizer(checkpoint.tokenizer)), checkpoint.config.vocab_size)
    if config.residuals == "pinned" and not resolved(config.device).asynchronous:
        raise UserError(ONLY_ON_A_GPU)


def sequences_for(checkpoint: Checkpoint, config: AnalyzeConfig, ranks: Ranks | None = None) -> Sequences:
    """The corpus as this checkpoint reads it: its tokenizer, its context, ids that it has rows for."""
    check_before(checkpoint, config)
    context = config.context or checkpoint.config.context
    ranks = joined() if ranks is None else ranks
    if not ranks.first:
        ranks.told(None)  # for as long as it takes: the first one prepares the corpus, and says so
    split = config.split if config.split != "auto" else "validation" if checkpoint.of_a_run else "all"
    sequences = census_sequences(config.corpus, config.tokens, context, checkpoint.tokenizer, split=split, bos=config.bos)
    if ranks.first:
        ranks.told(None)
        if read := read_words(sequences, config):
            announce(read)
    check_against_model(sequences, checkpoint.config.vocab_size, checkpoint.config.context)
    if config.corpus.source == "tokens" and not config.corpus.stream:
        _check_array(config, sequences.ids.shape[1])
    return sequences


PARTS = {"validation": "the text kept from training", "train": "the text for training", "all": "all its text"}
WHY = {"validation": "which a run of train/run.py is asked about", "all": "since the model was not trained here"}


def read_words(sequences: Sequences, config: AnalyzeConfig) -> str:
    """Which text is read, and why; where it is less than asked for, how much there is. Empty where the settings say it all."""
    read, (n, context) = sequences.read, sequences.ids.shape
    asked = config.tokens // context
    if read is None or (config.split != "auto" and n == asked):
        return ""
    why = f", {WHY[read.split]}" if config.split == "auto" and read.split in WHY else ""
    said = f"corpus={config.corpus.name}: {n * context:,} tokens of {PARTS[read.split]}{why}"
    more = f"; split=all has {read.everywhere * context:,}" if config.split == "auto" and read.everywhere > read.available else ""
    return f"{said}." if n == asked else f"{said}: it has no more{more}."


def _check_array(config: AnalyzeConfig, positions: int) -> None:
    """`UserError` where a setting asks for other sequences than an array of tokens holds."""
    asked = {f"context={config.context}": config.context in (None, positions), "bos=false": config.bos}
    if other := [setting for setting, holds in asked.items() if not holds]:
        raise UserError(
            f"{' and '.join(other)}: an array of tokens is taken as it is, whole, in sequences of {positions} with the BOS they have. "
            "Leave this out, or save the array that you mean."
        )


def compare_milestones(censuses: list[Census], out: Path, console: Console) -> None:
    """Write evolution.parquet, transitions.parquet and their like, figures and the page of a run's milestones."""
    write_evolution(censuses, out)
    figures = run_figures(censuses)
    write_figures(figures, out / "figures")
    write_whole(out / "report.html", run_page(censuses, figures, census_figures(censuses[-1]), out))
    console.print(
        f"{len(censuses)} milestones compared  ->  {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True
    )
