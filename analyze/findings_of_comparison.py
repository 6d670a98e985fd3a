"""variants -> sentences: which have positional neurons, where and from when; which have dead ones; how they differ; with their spread."""

from collections.abc import Sequence

import polars as pl

from analyze.comparison import QUANTITIES, Variant, comparable, differences, onsets

WORDS = {
    "dead": "dead neurons",
    "token_detectors": "token detectors",
    "positional": "positional neurons",
    "oscillatory": "oscillatory neurons",
}


def variant_findings(found: Sequence[Variant], values: pl.DataFrame, spread: pl.DataFrame) -> list[str]:
    """For every variant, then for every two."""
    first = onsets(found, values, "positional")
    sentences = [_positional(variant, spread, first) for variant in found]
    sentences += [_found(variant, spread, "dead") for variant in found]
    sentences += [_found(variant, spread, "token_detectors") for variant in found]
    return sentences + _differences(found, spread)


def _positional(variant: Variant, spread: pl.DataFrame, first: pl.DataFrame) -> str:
    said = _found(variant, spread, "positional")
    here = first.filter((pl.col("variant") == variant.name) & pl.col("step").is_not_null())
    when = []
    for (layer,), part in here.group_by("layer", maintain_order=True):
        steps, runs = part["step"].to_list(), len(variant.runs)
        span = f"{min(steps):,}" if min(steps) == max(steps) else f"{min(steps):,} to {max(steps):,}"
        when.append((layer, f"layer {layer} from step {span}" + (f" in {len(steps)} of {runs}" if len(steps) < runs else "")))
    return f"{said[:-1]}; they are there to stay in {', '.join(words for _, words in sorted(when))}." if when else said


def _found(variant: Variant, spread: pl.DataFrame, quantity: str) -> str:
    """ "nopos, 2 seeds, step 2,500: 10.5 ± 2.1 positional neurons of 2,048; layer 0 1 ± 0, layer 1 7.5 ± 2.1." """
    rows = comparable(variant, spread).filter(pl.col("quantity") == quantity)
    rows = rows.filter(pl.col("step") == pl.col("step").max())
    whole = rows.row(by_predicate=pl.col("layer").is_null(), named=True)
    neurons = variant.runs[0][-1].neurons.height
    said = f"{variant.name}, {variant.some(whole['runs'])}, step {whole['step']:,}:"
    if not whole["greatest"]:
        return f"{said} no {WORDS[quantity]} in any layer{'' if whole['runs'] == 1 else ' of any seed'}."
    layers = rows.filter(pl.col("layer").is_not_null() & (pl.col("greatest") > 0)).sort("layer")
    where = ", ".join(f"layer {row['layer']} {with_spread(row['mean'], row['spread'])}" for row in layers.iter_rows(named=True))
    return f"{said} {with_spread(whole['mean'], whole['spread'])} {WORDS[quantity]} of {neurons:,}; {where}."


def _differences(found: Sequence[Variant], spread: pl.DataFrame) -> list[str]:
    sentences = []
    for quantity in QUANTITIES:
        rows = differences(found, spread).filter(pl.col("quantity") == quantity)
        told = [_difference(row) for row in rows.iter_rows(named=True)]
        if told:
            sentences.append(f"Differences in {WORDS[quantity]}: {'; '.join(told)}.")
    return sentences


def _difference(row: dict[str, object]) -> str:
    apart = "no seed of one is within the other's range" if row["apart"] else "their ranges over seeds overlap"
    error = (
        f"± {row['error']:.1f} (standard error; {apart})" if row["error"] is not None else "(one seed: its spread is not known)"
    )
    return f"{row['variant']} minus {row['other']} {row['difference']:+.1f} {error}"


def with_spread(mean: float, spread: float | None) -> str:
    """A mean and its standard deviation over seeds, if there are several."""
    return f"{mean:,.1f} ± {spread:,.1f}" if spread is not None else f"{mean:,.0f}"
