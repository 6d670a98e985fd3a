"""tables and counts by position -> what is found about positional neurons as sentences: domains, teams, first positions, bias."""

import polars as pl

from analyze.tables.census import Census
from analyze.tables.positions import bias_warning
from corpora.sequences import Read


def between_domains(census: Census) -> list[str]:
    """Whether patterns change across domains; the paper says of strong ones that they do not."""
    compared = census.neurons.drop_nulls("position_domain_difference")
    strong = compared.filter(pl.col("position_strong"))
    shown = (strong if strong.height else compared).sort("position_domain_difference", "layer", "neuron")
    if shown.is_empty():
        return []
    half, most = shown["position_domain_difference"].quantile(0.5, "lower"), shown.row(-1, named=True)
    across, kind = f"Across domains ({', '.join(census.domains)})", "strong" if strong.height else "weak"
    name, by = f"L{most['layer']}N{most['neuron']}", f"{most['position_domain_difference']:.2f}"
    if shown.height == 1:
        return [f"{across} the position curve of the one {kind} positional neuron, {name}, changes by at most {by}."]
    return [
        f"{across} the position curve of half of the {shown.height:,} {kind} positional neurons changes by at most {half:.2f}; "
        f"the one that changes most, {name}, by {by}."
    ]


def teams(census: Census) -> list[str]:
    """What the strong oscillatory neurons of a layer cover together (paper, Figure 9)."""
    found = census.layers.filter(pl.col("team_neurons") > 1)
    if found.is_empty():
        return []
    largest = found.sort("team_neurons", "layer", descending=[True, False]).row(0, named=True)
    return [
        f"Strong oscillatory neurons indicate positions together in {found.height:,} layers; the largest team, {largest['team_neurons']:,} "
        f"neurons of layer {largest['layer']}, indicates {largest['team_places']:,} of {int((census.seen_at > 0).sum()):,} positions, "
        f"and {largest['team_left_out'] or 'none'} of it could be left out without losing one."
    ]


def first_positions(census: Census) -> list[str]:
    """Neurons that serve the first few positions only."""
    found, rules = census.first_positions(), census.thresholds.positions
    if found.is_empty():
        return []
    most = found.row(0, named=True)
    return [
        f"{found.height:,} neurons, of those that fired at least {rules.first_firings} times, do so almost only "
        f"({census.thresholds.coverage}%) at the first {rules.first} positions; most often, {most['n_fired']:,} times, "
        f"L{most['layer']}N{most['neuron']}."
    ]


def too_few_sequences(census: Census) -> list[str]:
    """The warning of the census itself, if bias is over a tenth of the threshold."""
    read = census.meta["corpus"].get("read")
    warning = bias_warning(census.seen_at[None], census.position_threshold, Read(**read) if read else None)
    return [warning] if warning else []
