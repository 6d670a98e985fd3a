"""Censuses of several runs -> variants: runs that differ by their seed alone, their mean and spread, and how variants differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl

from analyze.tables.census import Census
from errors import UserError
from settings import written_settings
from wandb_run import without_seed

QUANTITIES = {  # name: how many of a layer's neurons
    "dead": pl.col("dead").sum(),
    "token_detectors": pl.col("token_detector").sum(),
    "positional": pl.col("position_type").count(),
    "oscillatory": (pl.col("position_type") == "oscillatory").sum(),
}
QUANTITY_LABELS = {
    "dead": "dead neurons",
    "token_detectors": "token detectors",
    "positional": "positional neurons",
    "oscillatory": "oscillatory neurons",
}
MADE_BY = ("model", "optimizer", "steps", "precision")  # with corpus and tokens per step: what makes a variant, the seed aside


@dataclass
class Variant:
    """Runs that differ by their seed alone; each a sequence of censuses in order of their steps."""

    name: str
    runs: list[Sequence[Census]]

    @property
    def seeds(self) -> str:
        """How many runs there are, in words."""
        return self.some(len(self.runs))

    def some(self, runs: int) -> str:
        """So many of its runs, in words."""
        every = "1 seed" if len(self.runs) == 1 else f"{len(self.runs)} seeds"
        return every if runs == len(self.runs) else f"{runs} of {every}"


def run_folders(given: Sequence[Path]) -> list[Path]:
    """The run folders among and directly in the given ones: the folder of a sweep stands for its runs.

    Raises:
        UserError: a folder is no run and holds none.
    """
    found: list[Path] = []
    for folder in given:
        runs = [folder] if _is_run(folder) else sorted(run for run in folder.glob("*") if _is_run(run))
        if not runs:
            raise UserError(f"runs={folder} is no run folder and holds none; a run has milestones/, and census/ or live/.")
        found += runs
    return list(dict.fromkeys(found))


def _is_run(folder: Path) -> bool:
    """Whether it has milestones, or censuses of them: a folder of runs may hold a census/ of single checkpoints."""
    return (folder / "milestones").is_dir() or any(any((folder / name).glob("step_*")) for name in ("census", "live"))


def variants(runs: Mapping[Path, Sequence[Census]]) -> list[Variant]:
    """Group run folders by what they were made from, in the order they were given."""
    groups: dict[str, list[Path]] = {}
    for run in runs:
        groups.setdefault(_made_by(run), []).append(run)
    names = [_name(group) for group in groups.values()]
    unique = [name if names.count(name) == 1 else str(group[0]) for name, group in zip(names, groups.values(), strict=True)]
    return [Variant(name, [runs[run] for run in group]) for name, group in zip(unique, groups.values(), strict=True)]


def _made_by(run: Path) -> str:
    """A run's settings without its seed, as text; without a configuration it is a group of its own."""
    if not (run / "config.yaml").is_file():
        return str(run)
    config = written_settings(run / "config.yaml")
    chosen = {name: config.get(name) for name in MADE_BY} | {"batch.tokens": config.get("batch", {}).get("tokens")}
    chosen["corpus"] = {name: value for name, value in config.get("corpus", {}).items() if name != "store"}
    return json.dumps(chosen, sort_keys=True)


def _name(group: Sequence[Path]) -> str:
    """What the names of the runs have in common, without the seed."""
    return without_seed(group[0].name)


def measured(found: Sequence[Variant]) -> pl.DataFrame:
    """Every quantity of every run: variant, run (its number), step, layer (null: all together), quantity, value, neurons."""
    tables = []
    for variant in found:
        for number, run in enumerate(variant.runs):
            for census in run:
                of_layers = census.neurons.group_by("layer").agg(pl.len().alias("neurons"), *_named())
                whole = census.neurons.select(pl.lit(None, pl.Int32).alias("layer"), pl.len().alias("neurons"), *_named())
                place = [
                    pl.lit(variant.name).alias("variant"),
                    pl.lit(number).alias("run"),
                    pl.lit(census.step, pl.Int64).alias("step"),
                ]
                both = pl.concat([of_layers.sort("layer"), whole.head(1)], how="vertical_relaxed")
                tables.append(both.select(*place, pl.all()))
    wide = pl.concat(tables)
    return wide.unpivot(list(QUANTITIES), index=["variant", "run", "step", "layer", "neurons"], variable_name="quantity")


def _named() -> list[pl.Expr]:
    return [count.cast(pl.Int64).alias(name) for name, count in QUANTITIES.items()]


def over_seeds(values: pl.DataFrame) -> pl.DataFrame:
    """Mean and spread: variant, step, layer, quantity, runs, mean, spread (standard deviation; null of one run), least, greatest."""
    kinds = ["variant", "step", "layer", "quantity"]
    return values.group_by(kinds, maintain_order=True).agg(
        pl.len().alias("runs"),
        pl.col("value").mean().alias("mean"),
        pl.col("value").std().alias("spread"),
        pl.col("value").min().alias("least"),
        pl.col("value").max().alias("greatest"),
    )


def comparable(variant: Variant, spread: pl.DataFrame) -> pl.DataFrame:
    """A variant's means at the steps that all its runs have, so that they differ by the step alone; all its means if there is none."""
    rows = spread.filter(pl.col("variant") == variant.name)
    of_all = rows.filter(pl.col("runs") == len(variant.runs))
    return of_all if of_all.height else rows


def onsets(found: Sequence[Variant], values: pl.DataFrame, quantity: str) -> pl.DataFrame:
    """Between which censuses a layer comes to have such neurons in all later ones: variant, run, layer, after, step, later.

    `after` is the last census without any, null where there is none; `step` the next one; `later` how many there are beyond it.
    All three are null for a layer that has none at the end.
    """
    rows = values.filter((pl.col("quantity") == quantity) & pl.col("layer").is_not_null()).sort("step")
    after = pl.col("step").filter(pl.col("value") == 0).max()
    with_some = (pl.col("value") > 0) & (pl.col("step") > after.fill_null(-1))
    step, later = pl.col("step").filter(with_some).min(), with_some.sum().cast(pl.Int64) - 1
    order = pl.Enum([variant.name for variant in found])
    first = rows.group_by("variant", "run", "layer").agg(after.alias("after"), step.alias("step"), later.alias("later"))
    ends_without = pl.col("step").is_null()
    none = [pl.when(ends_without).then(None).otherwise(pl.col(name)).alias(name) for name in ("after", "later")]
    return first.with_columns(none).sort(pl.col("variant").cast(order), "run", "layer")


def differences(found: Sequence[Variant], spread: pl.DataFrame) -> pl.DataFrame:
    """Of every two variants at the last step that all runs of both have, of all layers together.

    Columns are quantity, variant, other, step, difference, `error`, the difference's standard error (null where a variant has one
    run), and `apart`: whether the runs of one are all above those of the other (null likewise).
    """
    rows: list[dict[str, Any]] = []
    of_all = {variant.name: comparable(variant, spread).filter(pl.col("layer").is_null()) for variant in found}
    for a, b in combinations(of_all, 2):
        steps = [set(of_all[name]["step"].to_list()) for name in (a, b)]
        if not steps[0] & steps[1]:
            continue
        step = max(steps[0] & steps[1])
        for quantity in QUANTITIES:
            at = (pl.col("step") == step) & (pl.col("quantity") == quantity)
            one, two = (of_all[name].row(by_predicate=at, named=True) for name in (b, a))
            known = one["spread"] is not None and two["spread"] is not None
            error = (one["spread"] ** 2 / one["runs"] + two["spread"] ** 2 / two["runs"]) ** 0.5 if known else None
            apart = (one["least"] > two["greatest"] or two["least"] > one["greatest"]) if known else None
            difference = one["mean"] - two["mean"]
            rows.append(
                {
                    "quantity": quantity,
                    "variant": b,
                    "other": a,
                    "step": step,
                    "difference": difference,
                    "error": error,
                    "apart": apart,
                }
            )
    schema = {"quantity": pl.String, "variant": pl.String, "other": pl.String, "step": pl.Int64, "difference": pl.Float64}
    return pl.DataFrame(rows, schema=schema | {"error": pl.Float64, "apart": pl.Boolean})
