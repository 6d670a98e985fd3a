"""tables -> figures on disk: which figures a census, a run and a comparison have, and how they are written."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from analyze.drawing import Captioned, of_all, spread
from analyze.figures_of_position import mutual_information, position_examples, positional_neurons
from analyze.figures_of_training import types_over_training
from analyze.figures_of_types import (
    dead_against_tokens,
    dead_and_frequency,
    detected_tokens_new,
    token_detectors,
    unigram_buckets,
)
from analyze.folder import Census
from analyze.palette import PAPER, styled
from analyze.writing import write_whole

__all__ = [
    "Captioned", "census_figures", "comparison_figures", "dead_against_tokens", "dead_and_frequency", "detected_tokens_new", "drawn",
    "mutual_information", "position_examples", "positional_neurons", "run_figures", "token_detectors", "types_over_training",
    "unigram_buckets", "write_figure", "write_figures",
]  # fmt: skip
PANELS = 4  # milestones or variants side by side


def census_figures(census: Census) -> dict[str, Captioned]:
    """The figures of one model, by file name, in the order of the page."""
    return {
        "dead_and_frequency": dead_and_frequency([census]),
        "positional_neurons": positional_neurons([census]),
        "position_examples": position_examples(census),
        "mutual_information": mutual_information([census]),
        "token_detectors": token_detectors([census]),
        "detected_tokens_new": detected_tokens_new([census]),
        "unigram_buckets": unigram_buckets([census]),
        "dead_against_tokens": dead_against_tokens(census),
    }


def run_figures(milestones: Sequence[Census]) -> dict[str, Captioned]:
    """The figures of one run's milestones, which must be in order of their steps."""
    return {
        "types_over_training": types_over_training(milestones),
        "positional_neurons_over_training": _milestones_side_by_side([milestones]),
        "dead_and_frequency_over_training": dead_and_frequency(milestones),
        "token_detectors_over_training": token_detectors(milestones),
    }


def comparison_figures(runs: Mapping[str, Sequence[Census]]) -> dict[str, Captioned]:
    """The figures that set runs side by side: their last milestones, then their milestones."""
    last = [run[-1] for run in runs.values()]
    several = [run for run in runs.values() if len(run) > 1]
    figures = {
        "positional_neurons": positional_neurons(last),
        **({"positional_neurons_over_training": _milestones_side_by_side(several)} if several else {}),
        "dead_and_frequency": dead_and_frequency(last),
        "token_detectors": token_detectors(last),
        "mutual_information": mutual_information(last),
        **{f"position_examples_{i}": position_examples(census) for i, census in enumerate(last)},
    }
    return figures | ({"types_over_training": types_over_training(*several)} if several else {})


def _milestones_side_by_side(runs: Sequence[Sequence[Census]]) -> Captioned:
    shown = [spread(run, PANELS) for run in runs]
    figure, caption = positional_neurons(*shown)
    return Captioned(figure, caption + of_all(shown[0], runs[0]))


def write_figures(figures: Mapping[str, Captioned], folder: Path) -> list[Path]:
    """Write figures under their names; returns the files, PNG and SVG by turns."""
    return [path for name, figure in figures.items() for path in write_figure(*figure, folder, name)]


def write_figure(figure: Figure, caption: str, folder: Path, name: str) -> list[Path]:
    """Write `name`.png and `name`.svg whole, with the caption in their metadata; the same figure gives the same bytes."""
    files = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for file in files:
        write_whole(file, drawn(figure, file.suffix[1:], caption))
    return files


@styled
def drawn(figure: Figure, suffix: str, caption: str = "") -> bytes:
    """The figure as the bytes of a PNG on white or of an SVG, without a date."""
    page = BytesIO()
    if suffix == "png":
        figure.savefig(page, format="png", dpi=160, facecolor=PAPER, metadata={"Description": caption, "Software": None})
    else:
        metadata = {"Description": caption, "Date": None, "Creator": None}
        figure.savefig(page, format="svg", facecolor="none", metadata=metadata)
    return page.getvalue()
