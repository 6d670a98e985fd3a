"""tables -> figures on disk: which figures a census, a run and a comparison have, and how they are written.

Names begin with the paper's number where the paper has the figure. Its Figure 6 is a schematic; ours is the numbers that it claims.
Figure 8 sets model sizes side by side, 10 variants, 11 milestones, and 16 is the model with LayerNorm after each sub-block.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from analyze.figures.dead_and_frequency import dead_against_tokens, dead_and_frequency
from analyze.figures.layout import Captioned, of_all, panels, say, source
from analyze.figures.ngrams import detected_new, detectors, ngram_buckets
from analyze.figures.over_training import dead_over_training, types_over_training
from analyze.figures.position_coverage import first_positions, position_teams
from analyze.figures.positions import mutual_information, position_examples, positional_neurons
from analyze.figures.style import PAPER, styled
from analyze.figures.transitions import births_over_training, types_into_types
from analyze.figures.trigger_suppression import trigger_suppression, what_detectors_write
from analyze.tables.census import Census
from analyze.tables.history import history
from analyze.tables.labels import evenly_spaced
from analyze.tables.onsets import births
from files import write_whole

__all__ = ["Captioned", "census_figures", "comparison_figures", "drawn", "run_figures", "write_figure", "write_figures"]
PANELS = 4  # milestones or variants side by side


def census_figures(census: Census, null: Census | None = None) -> dict[str, Captioned]:
    """The figures of one model, by file name, in the order of the page; `null` is a census of an untrained model of its shape."""
    number = "figure_16" if census.post_norm else "figure_08"
    return {
        "figure_01_dead_and_frequency": dead_and_frequency([census], null),
        f"{number}_positional_neurons": positional_neurons([census], null=null),
        "figure_07_position_examples": position_examples(census),
        "figure_09_position_teams": position_teams(census),
        "mutual_information": mutual_information([census], null),
        "first_positions": first_positions(census),
        **_of_ngrams([census], null),
        "figure_05_what_detectors_write": what_detectors_write(census),
        "figure_06_trigger_suppression": trigger_suppression([census]),
        "dead_against_tokens": dead_against_tokens(census),
    }


def _of_ngrams(censuses: Sequence[Census], null: Census | None) -> dict[str, Captioned]:
    return {
        "figure_02_tokens_that_trigger": ngram_buckets(censuses, 1, null),
        "figure_03_token_detectors": detectors(censuses, 1, null),
        "figure_04_detected_tokens": detected_new(censuses, 1, null),
        "figure_12_bigrams_that_trigger": ngram_buckets(censuses, 2, null),
        "figure_13_trigrams_that_trigger": ngram_buckets(censuses, 3, null),
        "figure_14_trigram_detectors": detectors(censuses, 3, null),
        "figure_15_detected_trigrams": detected_new(censuses, 3, null),
    }


def run_figures(milestones: Sequence[Census]) -> dict[str, Captioned]:
    """The figures of one run's milestones, which must be in order of their steps."""
    return {
        "types_over_training": types_over_training(milestones),
        **(evolution_figures(milestones) if len(milestones) > 1 else {}),
        "figure_11_positional_neurons_over_training": _milestones_side_by_side([milestones]),
        "figure_01_dead_and_frequency_over_training": dead_and_frequency(milestones),
        "figure_03_token_detectors_over_training": detectors(milestones, 1),
    }


def comparison_figures(runs: Mapping[str, Sequence[Census]], null: Census | None = None) -> dict[str, Captioned]:
    """The figures that set runs side by side: their last milestones, then their milestones."""
    last = [run[-1] for run in runs.values()]
    several = [run for run in runs.values() if len(run) > 1]
    sizes = len({_shape(census) for census in last}) > 1
    over = "figure_11_positional_neurons_over_training"
    figures = {
        f"figure_{'08' if sizes else '10'}_positional_neurons": positional_neurons(
            *_rows(last, 1 if sizes else PANELS), null=null
        ),
        **({over: _milestones_side_by_side(several)} if several else {}),
        "figure_01_dead_and_frequency": dead_and_frequency(last, null),
        "mutual_information": mutual_information(last, null),
        **{f"figure_07_position_examples_{i}": position_examples(census) for i, census in enumerate(last)},
        **_of_ngrams(last, null),
        "figure_06_trigger_suppression": trigger_suppression(last),
        "figure_16_positional_neurons_post_norm": _of_post_norm(last),
    }
    if not several:
        return figures
    return figures | {"types_over_training": types_over_training(*several), "dead_over_training": dead_over_training(*several)}


def evolution_figures(censuses: Sequence[Census]) -> dict[str, Captioned]:
    """What follows neurons by identity through the censuses of one run, which must be in order of their steps."""
    return {
        "types_into_types": types_into_types(censuses),
        "births_over_training": births_over_training(censuses, births(history(censuses))),
        "dead_over_training": dead_over_training(censuses),
    }


def _shape(census: Census) -> tuple[int, int]:
    """What tells sizes apart: models that differ otherwise are variants."""
    model = census.meta["checkpoint"]["model"]
    return model["layers"], model["neurons"]


def _rows(censuses: Sequence[Census], most: int) -> list[Sequence[Census]]:
    return [censuses[i : i + most] for i in range(0, len(censuses), most)]


def _of_post_norm(censuses: Sequence[Census]) -> Captioned:
    """Figure 16: the paper's 350m, or whichever of the models have LayerNorm where it has."""
    if chosen := [census for census in censuses if census.post_norm]:
        return positional_neurons(*_rows(chosen, 1))
    return _without_post_norm(censuses)


@styled
def _without_post_norm(censuses: Sequence[Census]) -> Captioned:
    figure, ((axes,),) = panels(1, 1, 7.4, 1.2)
    say(axes, "None of these models has LayerNorm after its sub-blocks,\nas OPT-350m has, of which Figure 16 is.")
    return Captioned(figure, f"Positional neurons of models with LayerNorm after each sub-block. {source(censuses)}")


def _milestones_side_by_side(runs: Sequence[Sequence[Census]]) -> Captioned:
    shown = [evenly_spaced(run, PANELS) for run in runs]
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
    _lay_out(figure)
    page = BytesIO()
    if suffix == "png":
        figure.savefig(page, format="png", dpi=160, facecolor=PAPER, metadata={"Description": caption, "Software": None})
    else:
        metadata = {"Description": caption, "Date": None, "Creator": None}
        figure.savefig(page, format="svg", facecolor="none", metadata=metadata)
    return page.getvalue()


def _lay_out(figure: Figure) -> None:
    """Find the places of a figure's parts once for all its files: that takes as long as drawing it."""
    if figure.get_layout_engine():
        figure.draw_without_rendering()
        figure.draw_without_rendering()  # boxes of a fixed aspect have changed their size by now
        figure.set_layout_engine(None)
