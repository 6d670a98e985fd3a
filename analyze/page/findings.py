"""tables -> the findings in sentences with their numbers, for the top of a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from analyze.neuron_types.taxonomy import PATTERN_LABELS, PATTERNS
from analyze.page.findings_positions import between_domains, first_positions, teams, too_few_sequences
from analyze.tables.census import Census
from analyze.tables.labels import step_label
from analyze.tables.onset_interval import appearance, every_census

MANY = 0.25  # share of positional neurons from which on a model that knows nothing may have as many


def census_findings(census: Census, beside: bool = False) -> list[str]:
    """What one model's neurons are for: dead, token detectors, positional; `beside`: an untrained model of its shape is drawn too."""
    found = [_dead(census), _frequency(census), *_detectors(census), *_suppression(census), *_positional(census)]
    found += [] if beside else _without_training(census)
    return [*found, *between_domains(census), *teams(census), *first_positions(census), *too_few_sequences(census)]


def run_findings(milestones: Sequence[Census]) -> list[str]:
    """What changed between the first milestone and the last; and when each kind first appeared, by live censuses too."""
    first, last, every = milestones[0], milestones[-1], every_census(milestones)
    found = [
        f"From {step_label(first.step)} to {step_label(last.step)}: dead neurons {dead(first):,} → {dead(last):,}, token detectors "
        f"{detectors(first):,} → {detectors(last):,}, positional neurons {positional(first):,} → {positional(last):,}, "
        f"of {last.neurons.height:,}."
    ]
    return [*found, _first(every, "positional neuron", positional), _first(every, "oscillatory neuron", oscillatory)]


def comparison_findings(runs: Mapping[str, Sequence[Census]]) -> list[str]:
    """How runs differ: positional neurons and their types, dead neurons and token detectors of the last milestones."""
    last = {name: run[-1] for name, run in runs.items()}
    found = [
        _each("Positional neurons", last, _positional_words),
        _each("Oscillatory neurons", last, lambda census: _with_strong(census, "oscillatory")),
        _each("Greatest mutual information with position", last, _strongest),
        _each("Dead neurons", last, lambda census: _of(dead(census), census.neurons.height)),
        _each("Token detectors", last, lambda census: f"{detectors(census):,}, of {_tokens(census):,} distinct tokens"),
    ]
    several = {name: every_census(run) for name, run in runs.items() if len(run) > 1}
    found += [f"{name}: {_lower(_first(run, 'oscillatory neuron', oscillatory))}" for name, run in several.items()]
    return [*_without_positions(last), *found]


def dead(census: Census) -> int:
    """How many neurons never fired."""
    return int(census.neurons["dead"].sum())


def detectors(census: Census) -> int:
    """How many neurons are token detectors."""
    return int(census.neurons["token_detector"].sum())


def positional(census: Census) -> int:
    """How many neurons are positional."""
    return census.neurons["position_type"].count()


def oscillatory(census: Census) -> int:
    """How many positional neurons are oscillatory."""
    return census.neurons.filter(pl.col("position_type") == "oscillatory").height


def percent(share: float) -> str:
    """A share in percent, to three digits."""
    return f"{100 * share:.3g}%"


def _of(count: int, whole: int) -> str:
    return f"{count:,} of {whole:,} ({percent(count / max(whole, 1))})"


def _tokens(census: Census) -> int:
    return census.neurons["detected_tokens"].explode(empty_as_null=False).n_unique()


def _layer(census: Census, column: str, greatest: bool = True) -> dict[str, Any]:
    return census.layers.drop_nulls(column).sort(column, "layer", descending=[greatest, False]).row(0, named=True)


def _dead(census: Census) -> str:
    here = f"{_of(dead(census), census.neurons.height)} neurons never fired on {census.n_tokens:,} counted tokens"
    bound = f"with 95% confidence such a neuron fires on fewer than one token in {1 / census.meta['dead_bound']:,.0f}"
    if not dead(census):
        return f"No neuron is dead: each of {census.neurons.height:,} fired at least once on {census.n_tokens:,} counted tokens."
    most = _layer(census, "dead_share")
    return f"{here}, the largest share in layer {most['layer']} ({_of(int(most['dead']), int(most['neurons']))}); {bound}."


def _frequency(census: Census) -> str:
    if census.layers["mean_frequency_alive"].count() == 0:
        return "No neuron is alive."
    rare, often = _layer(census, "mean_frequency_alive", greatest=False), _layer(census, "mean_frequency_alive")
    return (
        f"Alive neurons fire most rarely in layer {rare['layer']} (on {percent(rare['mean_frequency_alive'])} of tokens on average) "
        f"and most often in layer {often['layer']} ({percent(often['mean_frequency_alive'])})."
    )


def _detectors(census: Census) -> list[str]:
    if not detectors(census):
        return ["No neuron is a token detector."]
    most = _layer(census, "token_detectors")
    best = census.neurons.filter(pl.col("token_detector")).sort("token_support", "n_fired", descending=True).row(0, named=True)
    example = ", ".join(f"“{census.token_text(token)}”" for token in best["detected_tokens"][:5])
    return [
        f"{detectors(census):,} neurons are token detectors, of {_tokens(census):,} distinct tokens, the most in layer {most['layer']} "
        f"({most['token_detectors']:,}); for example L{best['layer']}N{best['neuron']} detects {example}."
    ]


def _suppression(census: Census) -> list[str]:
    if "suppresses_trigger" not in census.neurons.columns or not detectors(census):
        return []
    told = census.neurons["suppresses_trigger"].drop_nulls()
    found = f"{_of(int(told.sum()), len(told))} token detectors write against the tokens that trigger them"
    return [f"{found}{_other_conventions(census)}."] if len(told) else []


def _other_conventions(census: Census) -> str:
    """The share in the other conventions, and that of random tokens beside it, where the census has them."""
    shares = {"centered": "suppressing_share_centered", "with the final LayerNorm's gain": "suppressing_share_gain"}
    shares["against random tokens of the same frequency"] = "random_suppressing_share_raw"
    known = {words: _over_layers(census, column) for words, column in shares.items() if column in census.layers.columns}
    words = ", ".join(f"{words} {percent(share)}" for words, share in known.items() if share is not None)
    return f" ({words})" if words else ""


def _over_layers(census: Census, share: str) -> float | None:
    """A share of all detectors, from those of the layers."""
    here = census.layers.drop_nulls(share).filter(pl.col("token_detectors") > 0)
    return float(np.average(here[share], weights=here["token_detectors"])) if here.height else None


def _positional(census: Census) -> list[str]:
    neurons = census.neurons.sort("position_mi_corrected", descending=True)
    if not positional(census):
        return [f"No neuron is positional: the greatest mutual information with position is {_strongest(census)}."]
    found = [f"{_of(positional(census), neurons.height)} neurons are positional: {_kinds(census)}."]
    for row in (
        census.layers.filter(pl.col("positional") > 0)
        .sort("positional", descending=True)
        .head(4)
        .sort("layer")
        .iter_rows(named=True)
    ):
        best = neurons.filter((pl.col("layer") == row["layer"]) & pl.col("position_type").is_not_null()).row(0, named=True)
        kind, told = PATTERN_LABELS[best["position_type"]], best["position_mi_corrected"]
        found.append(
            f"Layer {row['layer']}: {row['positional']:,} of {row['neurons']:,} neurons are positional; the strongest, "
            f"L{best['layer']}N{best['neuron']} ({kind}), carries {told:.2f} nats."
        )
    return found


def _without_training(census: Census) -> list[str]:
    """Where many neurons are positional: that an untrained model may have as many, and how to see it."""
    if census.step == 0 and positional(census):
        return [
            "This model is not trained: its positional neurons are those of chance, which a trained one has to be held against."
        ]
    if positional(census) <= MANY * census.neurons.height:
        return []
    return [
        "An untrained model of this shape may have as many positional neurons: scripts/untrained.py makes one, and with null=CENSUS its "
        "census is drawn beside this one."
    ]


def _kinds(census: Census) -> str:
    return ", ".join(f"{PATTERN_LABELS[kind]} {_with_strong(census, kind)}" for kind in PATTERNS)


def _with_strong(census: Census, kind: str) -> str:
    alike = census.neurons.filter(pl.col("position_type") == kind)
    return f"{alike.height:,} ({int(alike['position_strong'].sum()):,} strong)" if alike.height else "none"


def _strongest(census: Census) -> str:
    row = census.neurons.sort("position_mi_corrected").row(-1, named=True)
    return f"{row['position_mi_corrected']:.2g} nats (L{row['layer']}N{row['neuron']}; the threshold is {census.position_threshold:g})"


def _positional_words(census: Census) -> str:
    return f"{_of(positional(census), census.neurons.height)}" + (f": {_kinds(census)}" if positional(census) else "")


def _each(what: str, last: Mapping[str, Census], words: Callable[[Census], str]) -> str:
    return f"{what}: " + "; ".join(f"{name} {words(census)}" for name, census in last.items()) + "."


def _first(censuses: Sequence[Census], what: str, count: Callable[[Census], int]) -> str:
    return appearance([(census.step, count(census)) for census in censuses], what)


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _without_positions(last: Mapping[str, Census]) -> list[str]:
    """The paper's section 5.4: does a model without positional encoding have positional neurons?"""
    found = []
    for name, census in last.items():
        if census.meta["checkpoint"]["model"].get("positions") == "none":
            kinds = f"{positional(census):,} positional neurons, {oscillatory(census) or 'none'} of them oscillatory"
            answer = kinds if positional(census) else "no positional neuron"
            found.append(f"{name}, a model without positional encoding, has {answer}, at {step_label(census.step)}.")
    return found
