"""Census -> rows for wandb: every number by layer, neurons by type, and a table of the detectors."""

from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console

from analyze.neuron_types.taxonomy import TYPES
from analyze.tables.census import Census
from wandb_run import Mirror, WandbConfig

MOST_DETECTORS = 1000  # in the table, those that fire most first
DETECTORS = ["layer", "neuron", "n_fired", "frequency", "token_support", "tokens"]


def census_scalars(census: Census) -> dict[str, int | float]:
    """Every number of the layer table as `layer_000/NAME`, neurons by type as `layer_000/type/NAME` and `type/NAME`."""
    found: dict[str, int | float] = {}
    for row in census.layers.iter_rows(named=True):
        place = f"layer_{row.pop('layer'):03d}"
        found |= {f"{place}/{name}": value for name, value in row.items() if value is not None}
    counts = dict.fromkeys(TYPES, 0)
    for (layer,), part in census.neurons.group_by("layer", maintain_order=True):
        of_layer = dict.fromkeys(TYPES, 0) | dict(part["type"].value_counts().iter_rows())
        found |= {f"layer_{layer:03d}/type/{kind}": of_layer[kind] for kind in TYPES}
        counts = {kind: counts[kind] + of_layer[kind] for kind in TYPES}
    return found | {f"type/{kind}": count for kind, count in counts.items()}


def detector_rows(census: Census) -> list[list[Any]]:
    """The token detectors, `DETECTORS` by columns."""
    chosen = census.neurons.filter("token_detector").sort("n_fired", descending=True).head(MOST_DETECTORS)
    rows = chosen.with_columns(pl.col("detected_tokens").alias("tokens")).select(DETECTORS).rows()
    return [[*row[:-1], " ".join(census.token_text(token) for token in row[-1])] for row in rows]


def mirror_census(mirror: Mirror, census: Census, prefix: str) -> None:
    """Send one census, every name behind `prefix/`, at its own step and tokens."""
    scalars = census_scalars(census) | {"n_tokens": census.n_tokens, "dead_bound": census.meta["dead_bound"]}
    mirror.log({f"{prefix}/{name}": value for name, value in scalars.items()} | _place(census))
    mirror.table(f"{prefix}/detectors", DETECTORS, detector_rows(census), _place(census))


def mirror_alone(census: Census, config: WandbConfig, figures: list[Path], console: Console) -> None:
    """Send a census that was taken by itself: as a part of its training run where it has one."""
    mirror, prefix = _opened(census, config, console), census_name(census)
    mirror_census(mirror, census, prefix)
    mirror.images([figure for figure in figures if figure.suffix == ".png"], _place(census), f"{prefix}/figures")
    mirror.close()


def mirror_figures(census: Census, config: WandbConfig, figures: list[Path], console: Console) -> None:
    """Send the figures of a whole run, at the place of its last census."""
    mirror = _opened(census, config, console)
    mirror.images(figures, _place(census), f"{census_name(census)}/over_training")
    mirror.close()


def training_run(census: Census) -> Path | None:
    """The run folder that the checkpoint lies in: of a milestone or of last.ckpt."""
    checkpoint = Path(census.meta["checkpoint"]["path"]).resolve()
    return checkpoint.parents[1] if checkpoint.parent.name in ("milestones", "checkpoints") and checkpoint.exists() else None


def census_name(census: Census) -> str:
    """What tells the censuses of one run apart: the name of its folder, of a milestone's the one above: census, by default."""
    return census.path.resolve().parent.name if census.path.name.startswith("step_") else census.path.resolve().name


def _opened(census: Census, config: WandbConfig, console: Console) -> Mirror:
    run = training_run(census)
    settings = {census_name(census): {name: census.meta[name] for name in ("checkpoint", "corpus", "thresholds")}}
    return Mirror(config, run or census.path, census.run, group=census.run, settings=settings, console=console)


def _place(census: Census) -> dict[str, int]:
    checkpoint = census.meta["checkpoint"]
    return {"step": checkpoint["step"] or 0, "tokens": checkpoint["tokens_trained"] or 0}
