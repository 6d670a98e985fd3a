"""Configuration -> censuses, their reports, and the comparison of a run's milestones."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from analyze.census import take
from analyze.config import AnalyzeConfig
from analyze.evolution import write_evolution
from analyze.figures import census_figures, run_figures, write_figures
from analyze.folder import Census, open_census
from analyze.mirroring import mirror_alone, mirror_figures
from analyze.ranks import Ranks, joined, one_voice
from analyze.report import census_page, run_page
from analyze.task import CensusTask
from corpora.sequences import Sequences, census_sequences, check_against_model, check_tokenizer
from corpora.tokenizer import id_count, open_tokenizer
from device import resolved, use_threads
from errors import UserError
from files import write_whole
from models.checkpoint import Checkpoint
from models.opening import open_checkpoint
from tracking import decided


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
        out = Path(config.out) if config.out else _default_out(config.ckpt)
        censuses_of([(_opened(config.ckpt, console), out)], config, console)
        return out
    if not milestones:
        raise UserError(f"{where}/milestones is empty: this run has not reached a milestone yet.")
    out = Path(config.out or where / "census")
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
        null, censuses = open_census(Path(config.null)) if config.null else None, []
        for checkpoint, out in checkpoints:
            censuses.append(census_of(checkpoint, config, out, console, null))
            null = null or (censuses[0] if censuses[0].step == 0 else None)
        return censuses
    for checkpoint, out in checkpoints:
        take(CensusTask(checkpoint, sequences_for(checkpoint, config), out, config), console)
    return []


def _default_out(ckpt: str) -> Path:
    path = Path(ckpt)
    if path.resolve().parent.name == "milestones":
        return path.resolve().parent.parent / "census" / path.resolve().name
    return Path("runs") / "census" / path.name.removesuffix(".ckpt")


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
    write_whole(out / "report.html", census_page(census, figures))
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


def sequences_for(checkpoint: Checkpoint, config: AnalyzeConfig, ranks: Ranks | None = None) -> Sequences:
    """The corpus as this checkpoint reads it: its tokenizer, its context, ids that it has rows for."""
    positions = checkpoint.config.context
    context = config.context or positions
    if context > positions:
        raise UserError(f"context={context} is longer than the {positions} positions of {checkpoint.path}.")
    if checkpoint.tokenizer is not None and config.corpus.source != "tokens":  # before the corpus is tokenised with it
        check_tokenizer(id_count(open_tokenizer(checkpoint.tokenizer)), checkpoint.config.vocab_size)
    ranks = joined() if ranks is None else ranks
    if not ranks.first:
        ranks.told(None)  # for as long as it takes: the first one prepares the corpus, and says so
    sequences = census_sequences(config.corpus, config.tokens, context, checkpoint.tokenizer, split=config.split, bos=config.bos)
    if ranks.first:
        ranks.told(None)
    check_against_model(sequences, checkpoint.config.vocab_size, positions)
    if config.corpus.source == "tokens" and not config.corpus.stream:
        _check_array(config, sequences.ids.shape[1])
    return sequences


def _check_array(config: AnalyzeConfig, positions: int) -> None:
    """`UserError` where a setting asks for other sequences than an array of tokens holds."""
    asked = {f"context={config.context}": config.context in (None, positions), "bos=false": config.bos}
    asked[f"split={config.split}"] = config.split == "validation"
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
