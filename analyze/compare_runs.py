"""Censuses of several runs -> one page that sets them side by side, and the tables of their variants."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from analyze.figures.catalogue import comparison_figures, write_figures
from analyze.figures.layout import Captioned
from analyze.figures.variants import variants_by_layer, variants_over_training
from analyze.page.build import comparison_page
from analyze.page.findings_variants import variant_findings
from analyze.storage.layer_files import layer_files
from analyze.storage.tables import write_table
from analyze.tables.census import Census, open_census
from analyze.tables.comparability import check_seeds, uneven
from analyze.tables.onset_interval import every_census
from analyze.tables.variants import Variant, differences, measured, onsets, over_seeds, run_folders, variants
from errors import UserError
from files import write_whole


def compare(runs: list[Path], censuses: list[Path], out: Path, console: Console, null: Path | None = None) -> None:
    """Write one page that sets whole runs, from the censuses of their milestones, and single censuses side by side.

    A folder of runs stands for all of them. Of runs that differ by their seed alone one is drawn; their spread is in the findings.

    Raises:
        UserError: a folder holds no run, a run no census, or the seeds of a variant were not counted alike.
    """
    folders = {run: censuses_in(run) for run in run_folders(runs)}
    found = variants(folders)
    for variant in found:
        check_seeds(variant.name, variant.runs)
    names = _names(folders)
    every = {names[run]: taken for run, taken in folders.items()}
    for folder in censuses:
        census = open_census(folder)
        every[census.title if census.title not in every else f"{census.title} ({folder})"] = [census]
    further = {name: taken for name, taken in every.items() if any(taken is run for variant in found for run in variant.runs[1:])}
    shown = {name: taken for name, taken in every.items() if name not in further}
    of_variants, told = compare_variants(found, out) if found else ({}, [])
    beside = open_census(null) if null else None
    bases = uneven([*(census for taken in every.values() for census in taken), *([beside] if beside else [])])
    figures = of_variants | comparison_figures(shown, beside)
    write_figures(figures, out / "figures")
    write_whole(out / "report.html", comparison_page(shown, figures, out, told, further, bases))
    console.print(f"{', '.join(every)} compared  ->  {out / 'report.html'}", markup=False, highlight=False, soft_wrap=True)


def compare_variants(found: Sequence[Variant], out: Path) -> tuple[dict[str, Captioned], list[str]]:
    """Write variants.parquet, onsets.parquet and differences.parquet; returns figures and findings."""
    values = measured(found)
    spread = over_seeds(values)
    out.mkdir(parents=True, exist_ok=True)
    write_table(out / "variants.parquet", spread)
    write_table(out / "differences.parquet", differences(found, spread))
    live_too = [Variant(variant.name, [every_census(run) for run in variant.runs]) for variant in found]
    first = onsets(live_too, measured(live_too), "positional")
    write_table(out / "onsets.parquet", first)
    figures = {"variants_by_layer": variants_by_layer(found, spread)}
    if any(len(run) > 1 for variant in found for run in variant.runs):
        figures["variants_over_training"] = variants_over_training(found, spread)
    return figures, variant_findings(found, first, spread)


def censuses_in(run: Path) -> list[Census]:
    """The censuses of a run's milestones, or else those taken while it trained, in order of their steps.

    Raises:
        UserError: there is none, or one of a checkpoint that knows no step.
    """
    found = censuses_under(run / "census") or censuses_under(run / "live")
    if not found:
        raise UserError(f"{run}/census holds no census of a milestone; run `python analyze/run.py ckpt={run}` first.")
    for census in found:
        if census.step is None:
            raise UserError(
                f"{census.path} is of a checkpoint that knows no step; it is none of a run: give it as censuses=[...]."
            )
    return found


def censuses_under(folder: Path) -> list[Census]:
    """The censuses in a folder, in order of their steps."""
    return [open_census(census) for census in census_folders(folder)]


def census_folders(folder: Path) -> list[Path]:
    """Folders of censuses in a folder, in order of their steps, also where one has lost its meta.json."""
    return [census for census in sorted(folder.glob("step_*")) if (census / "meta.json").is_file() or layer_files(census)]


def _names(folders: Mapping[Path, Sequence[Census]]) -> dict[Path, str]:
    """The runs' own names, or their paths where two have the same."""
    names = [run.name for run in folders]
    return {run: run.name if names.count(run.name) == 1 else str(run) for run in folders}
