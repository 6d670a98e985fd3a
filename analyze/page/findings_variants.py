"""variants -> sentences: which have positional neurons, where and from when; which have dead ones; how they differ; with their spread."""

from collections.abc import Sequence

import polars as pl

from analyze.tables.variants import QUANTITIES, QUANTITY_LABELS, Variant, comparable, differences


def variant_findings(found: Sequence[Variant], first: pl.DataFrame, spread: pl.DataFrame) -> list[str]:
    """For every variant, then for every two; `first` are the `onsets` of their positional neurons."""
    sentences = [_positional(variant, spread, first) for variant in found]
    sentences += [_found(variant, spread, "dead") for variant in found]
    sentences += [_found(variant, spread, "token_detectors") for variant in found]
    return sentences + _differences(found, spread)


def _positional(variant: Variant, spread: pl.DataFrame, first: pl.DataFrame) -> str:
    said = _found(variant, spread, "positional")
    here = first.filter((pl.col("variant") == variant.name) & pl.col("step").is_not_null())
    begun_with, lasting = pl.col("after").is_null() & (pl.col("later") > 0), pl.col("later") > 0
    parts = {
        "they appear in {}, and every later census has some": _layers(variant, here.filter(lasting & ~begun_with)),
        "they are in every census of {}": _layers(variant, here.filter(begun_with)),
        "the last census alone has them in {}": _layers(variant, here.filter(~lasting & pl.col("after").is_not_null())),
    }
    when = "; ".join(words.format(layers) for words, layers in parts.items() if layers)
    return f"{said[:-1]}; {when}." if when else said


def _layers(variant: Variant, here: pl.DataFrame) -> str:
    """ "layer 0 between steps 1,000 and 2,000 in 1 of 2, layer 3 between steps 10 and 20"; the widest over seeds."""
    said = []
    for (layer,), part in here.sort("layer").group_by("layer", maintain_order=True):
        after, step = min(part["after"].to_list(), key=lambda step: -1 if step is None else step), max(part["step"].to_list())
        lasting = after is not None and any(part["later"].to_list())
        of = f" in {part.height} of {len(variant.runs)}" if part.height < len(variant.runs) else ""
        said.append(f"layer {layer}{f' between steps {after:,} and {step:,}' if lasting else ''}{of}")
    return ", ".join(said)


def _found(variant: Variant, spread: pl.DataFrame, quantity: str) -> str:
    """ "nopos, 2 seeds, step 2,500: 10.5 ± 2.1 positional neurons of 2,048; layer 0 1 ± 0, layer 1 7.5 ± 2.1." """
    rows = comparable(variant, spread).filter(pl.col("quantity") == quantity)
    rows = rows.filter(pl.col("step") == pl.col("step").max())
    whole = rows.row(by_predicate=pl.col("layer").is_null(), named=True)
    neurons = variant.runs[0][-1].neurons.height
    said = f"{variant.name}, {variant.some(whole['runs'])}, step {whole['step']:,}:"
    if not whole["greatest"]:
        return f"{said} no {QUANTITY_LABELS[quantity]} in any layer{'' if whole['runs'] == 1 else ' of any seed'}."
    layers = rows.filter(pl.col("layer").is_not_null() & (pl.col("greatest") > 0)).sort("layer")
    where = ", ".join(f"layer {row['layer']} {with_spread(row['mean'], row['spread'])}" for row in layers.iter_rows(named=True))
    return f"{said} {with_spread(whole['mean'], whole['spread'])} {QUANTITY_LABELS[quantity]} of {neurons:,}; {where}."


def _differences(found: Sequence[Variant], spread: pl.DataFrame) -> list[str]:
    sentences = []
    for quantity in QUANTITIES:
        rows = differences(found, spread).filter(pl.col("quantity") == quantity)
        told = [_difference(row) for row in rows.iter_rows(named=True)]
        if told:
            sentences.append(f"Differences in {QUANTITY_LABELS[quantity]}: {'; '.join(told)}.")
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
