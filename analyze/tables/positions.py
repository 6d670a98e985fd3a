"""Counts by position -> the columns about position of the neuron table, and the same for each domain."""

import numpy as np
import polars as pl
from jaxtyping import Int

from analyze.config import PositionRules, Thresholds
from analyze.neuron_types.position import (
    bias,
    corrected,
    domain_difference,
    last_position,
    position_information,
    position_types,
    run_length,
)
from analyze.neuron_types.taxonomy import PATTERNS
from corpora.sequences import Read

NEURONS_AT_ONCE = 2048  # whose curves are at hand together: 2048 places of them are 34 MB
COLUMNS: dict[str, pl.DataType] = {
    "position_mi": pl.Float64(),
    "position_mi_corrected": pl.Float64(),
    "position_type": pl.String(),
    "position_strong": pl.Boolean(),
    "last_position_95": pl.Int64(),
    "position_domain_difference": pl.Float64(),
}
DOMAINS: dict[str, pl.DataType] = {
    "layer": pl.Int32(),
    "neuron": pl.Int32(),
    "domain": pl.Int32(),
    "n_tokens": pl.Int64(),
    "n_fired": pl.Int64(),
    **{name: COLUMNS[name] for name in ("position_mi", "position_mi_corrected", "position_type", "position_strong")},
}
OVER_A_TENTH = 10  # bias over a tenth of the threshold is worth a warning

Fired = Int[np.ndarray, "domain position neuron"]
Seen = Int[np.ndarray, "domain position"]


def position_columns(fired_at: Fired, seen_at: Seen, thresholds: Thresholds) -> pl.DataFrame:
    """`COLUMNS` of one layer's neurons; docs/definitions.md says what each means."""
    begins = range(0, fired_at.shape[2], NEURONS_AT_ONCE)
    parts = [_columns(fired_at[:, :, begin : begin + NEURONS_AT_ONCE], seen_at, thresholds) for begin in begins]
    return pl.concat(parts)


def _columns(fired_at: Fired, seen_at: Seen, thresholds: Thresholds) -> pl.DataFrame:
    fired, seen = fired_at.sum(0, dtype=np.int64), seen_at.sum(0)
    table = _sorted(fired, seen, thresholds)
    chosen = np.flatnonzero(table["position_type"].is_not_null())
    difference = np.full(table.height, np.nan)
    if len(chosen):
        difference[chosen] = domain_difference(fired_at[:, :, chosen], seen_at, run_length(len(seen), thresholds.positions))
    return table.with_columns(
        pl.Series("last_position_95", last_position(fired, thresholds.coverage)).replace(-1, None),
        pl.Series("position_domain_difference", difference).fill_nan(None),
    ).cast(COLUMNS)  # type: ignore[arg-type]


def _sorted(
    fired: Int[np.ndarray, "position neuron"], seen: Int[np.ndarray, " position"], thresholds: Thresholds
) -> pl.DataFrame:
    """Information, type and strength of neurons, from one domain's counts or from those of all."""
    information = position_information(fired, seen)
    unbiased = corrected(information, seen)
    kind, strong = np.full(len(unbiased), -1), np.zeros(len(unbiased), bool)
    if len(chosen := np.flatnonzero(unbiased > thresholds.position_mi)):
        used = seen > 0
        found = position_types(fired[used][:, chosen] / seen[used][:, None], len(seen), thresholds.positions)
        kind[chosen], strong[chosen] = found.kind, found.strong
    types = pl.Series(kind, dtype=pl.Int8).replace_strict(range(len(PATTERNS)), PATTERNS, default=None, return_dtype=pl.String)
    return pl.DataFrame(
        {
            "position_mi": information,
            "position_mi_corrected": unbiased,
            "position_type": types,
            "position_strong": pl.select(pl.when(types.is_not_null()).then(pl.Series(strong))).to_series(),
        }
    )


def position_domains(neurons: pl.DataFrame, fired_at: Fired, seen_at: Seen, thresholds: Thresholds) -> pl.DataFrame:
    """A row for every positional neuron of a layer and every domain: information, type and strength from that domain alone."""
    positional = neurons.filter(pl.col("position_type").is_not_null()).select("layer", "neuron")
    tables = [pl.DataFrame(schema=DOMAINS)]
    for domain in range(len(seen_at)):
        fired, seen = fired_at[domain][:, positional["neuron"].to_numpy()].astype(np.int64), seen_at[domain]
        table = positional.with_columns(domain=domain, n_tokens=int(seen.sum()), n_fired=pl.Series(fired.sum(0)))
        table = table.hstack(_sorted(fired, seen, thresholds))
        tables.append(table.select(list(DOMAINS)).cast(DOMAINS))  # type: ignore[arg-type]
    return pl.concat(tables).sort("layer", "neuron", "domain")


def serves_first_positions(rules: PositionRules) -> pl.Expr:
    """Whether a neuron fires almost only (95 %) at the first few positions, and did so often enough to say."""
    return (pl.col("last_position_95") < rules.first) & (pl.col("n_fired") >= rules.first_firings)


def _how(needed: int, positions: int, read: Read | None) -> str:
    """The setting that reads so many sequences, or that the text has not so many."""
    tokens = f"tokens={needed * positions:,}"
    if read is None or needed <= read.available:
        return tokens
    return f"split=all {tokens}" if needed <= read.everywhere else f"this text has {read.everywhere:,}"


def bias_warning(seen_at: Seen, position_mi: float, read: Read | None = None) -> str | None:
    """A sentence with the numbers if sequences are so few that their bias is over a tenth of the threshold."""
    seen = seen_at.sum(0)
    added, sequences = bias(seen), int(seen.max(initial=0))
    if OVER_A_TENTH * added <= position_mi:
        return None
    needed = round(OVER_A_TENTH / (2 * position_mi)) + 1 if position_mi else 0
    more = f"; {needed:,} sequences ({_how(needed, len(seen), read)}) would be enough for a tenth" if needed else ""
    return (
        f"Only {sequences:,} sequences: a neuron that knows nothing of position seems to tell {added:.2g} nats about it, "
        f"{added / position_mi if position_mi else float('inf'):.2g} times the threshold of {position_mi:g}. "
        f"position_mi_corrected is less that bias, but positional neurons near the threshold are uncertain{more}."
    )
