"""Stored counts -> tables, figures and pages again, without model or text: other thresholds, or a checkpoint that is gone."""

import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import polars as pl
from omegaconf import OmegaConf
from rich.console import Console

from analyze.census.ownership import owned
from analyze.compare_runs import census_folders, censuses_under, compare
from analyze.config import Thresholds
from analyze.counts.layer import Index
from analyze.neuron_types.trigger_suppression import TOO_LOOSE, answerable
from analyze.pipeline import check_shapes, compare_milestones, draw
from analyze.storage.census_files import contents
from analyze.storage.formats import read_meta, write_meta
from analyze.storage.layer_files import check_layers
from analyze.tables.build import census_tables, write_tables
from analyze.tables.census import Census, open_census
from errors import UserError
from files import remove_unfinished
from signals import Stopped, left_to_the_parent


def redraw(folder: Path, given: Mapping[str, Any], null: Path | None, console: Console) -> None:
    """Make everything of a census, of a run's censuses, or of a folder of runs anew from counts.

    `given` are thresholds that differ from those the census was last made with.

    Raises:
        UserError: nothing there has been counted, or the untrained model has another shape.
    """
    beside = open_census(null) if null else None
    if (folder / "meta.json").is_file():
        with owned(folder):
            _write_anew(folder, *_anew(folder, given, beside), beside, console)
        return
    if census_folders(folder):  # a run's census/ or live/
        _redraw_milestones(folder, given, beside, console)
        return
    runs = [run for run in (folder, *sorted(folder.glob("*/"))) if census_folders(run / "census")]
    if not runs:
        raise UserError(
            f"out={folder} holds no census: neither meta.json, nor step_*, nor census/step_*, nor runs that hold one."
        )
    _redraw_runs(runs, given, null, console)
    if folder not in runs:
        with owned(folder):
            compare(runs, [], folder, console, null)


def _redraw_runs(runs: list[Path], given: Mapping[str, Any], null: Path | None, console: Console) -> None:
    """Each in a process of its own, as many at a time as there are cores."""
    processes = min(len(runs), os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=left_to_the_parent) as pool:
        try:
            for done in [pool.submit(_redraw_run, run, given, null, console.quiet) for run in runs]:
                done.result()
        except Stopped:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.kill()  # every file is written whole
            raise


def _redraw_run(run: Path, given: Mapping[str, Any], null: Path | None, quiet: bool) -> None:
    _redraw_milestones(run / "census", given, open_census(null) if null else None, Console(stderr=True, quiet=quiet))


def _redraw_milestones(folder: Path, given: Mapping[str, Any], null: Census | None, console: Console) -> None:
    """All that is refused is refused before the first is written, so that no run is left with two kinds of thresholds."""
    with ExitStack() as held:
        folders = census_folders(folder)  # not opened: their tables may be damaged
        for owned_folder in (folder, *folders):
            held.enter_context(owned(owned_folder))
        every = [(path, *_anew(path, given, null)) for path in folders]
        for path, meta, tables in every:
            drawn = _write_anew(path, meta, tables, null, console)
            null = null or (drawn if drawn.step == 0 else None)
        compare_milestones(censuses_under(folder), folder, console)


def _anew(folder: Path, given: Mapping[str, Any], null: Census | None) -> tuple[dict[str, Any], dict[str, pl.DataFrame]]:
    """A census' meta.json and tables under other thresholds."""
    meta = read_meta(folder)
    if "thresholds" not in meta:
        raise UserError(f"{folder} is no finished census; the command that began it goes on.")
    check_layers(folder, meta)
    check_shapes(meta, null)
    thresholds = changed(Thresholds.of(meta["thresholds"]), given)
    return meta | {"thresholds": asdict(thresholds)}, census_tables(folder, Index.load(folder / "index.safetensors"), thresholds)


def _write_anew(
    folder: Path, meta: dict[str, Any], tables: Mapping[str, pl.DataFrame], null: Census | None, console: Console
) -> Census:
    remove_unfinished(folder)
    write_tables(folder, tables)
    write_meta(folder, meta | contents(folder))
    census, _ = draw(folder, null)
    console.print(f"{census.title}: drawn anew  ->  {folder}", markup=False, highlight=False, soft_wrap=True)
    if not answerable(census.thresholds):
        console.print(TOO_LOOSE, markup=False, highlight=False, soft_wrap=True)
    return census


def changed(thresholds: Thresholds, given: Mapping[str, Any]) -> Thresholds:
    """Thresholds with some of them given anew; an unknown name or a value of the wrong kind is a configuration that does not compose."""
    made = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(thresholds), dict(given)))
    assert isinstance(made, Thresholds)
    return made
