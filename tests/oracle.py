"""Activations -> neuron tables, slowly: docs/definitions.md in plain loops, the oracle of the fast tables.

Written from the definitions alone. Shares and curves are Fractions, so no threshold is missed by rounding; only logarithms and
projections are floats. Where the definitions leave a choice, this takes the following reading:

1.  k_n takes n-grams by most firings; which of equals comes first changes no number. The sentinel sorts before every id.
2.  `detected_tokens` and, by "the same", `n_detected_bigrams`, `n_detected_trigrams` and the n-grams' own table are filled for
    detectors of that n and empty (0) for all others. Support, though, is of every living neuron, over all covered n-grams.
3.  `min_occurrences` takes n-grams out of the detected lists *before* "make up at least 95 %" and before support is asked.
4.  Ties: detected n-grams by most firings, then smaller ids; `top_promoted` and `top_suppressed` by smaller id.
5.  "Counted" is by token, not by place: a BOS id inside a sequence is not counted either, and is a BOS position.
6.  `last_position_95` of a dead neuron is None (95 % of nothing would lie at places <= 0); `position_strong` of no type is False.
7.  Places with n(p) = 0 drop out of the curve: places left and right of a gap are consecutive, for runs, for the moving average
    and for the "two neighbours". T in `T//256` and `T//64` is the sequence length, dropped places included.
8.  The moving average has fewer terms at the curve's two ends (no padding); places weigh the same in it, whatever their n(p).
9.  Oscillation: maximal runs in the lowest and in the highest quarter (`>= max - 0.25*range`) stand in order of place; changes
    are counted between neighbours of that list. Stretches in between, and extreme ones too short to be runs, do not count.
10. Thin graph: the sum goes over places with two neighbours, the variance over all places, `mean fr` is over places, not tokens.
11. `both` with only one extreme reached strongly is weak; "exactly one" in `one` is by the weak thresholds.
12. A layer without a layer below: all its detected tokens are new against it. Without living neurons its mean frequency is None.
13. Of a team, a neuron could be left out if the others still indicate all its places; each is asked alone.
14. Suppression with gain is raw (not centered); gain is applied in the residual stream, before `project_out`. The vocabulary is
    all rows of E, unused ones too. `mean frequency over alive` is one frequency per neuron, unweighted.
15. Dead neurons (k_n = 0) are in no bucket; `201-1k, 1k-2k` is 201..1000, 1001..2000.

Not here: the random baseline of suppression (its seeding is not defined) and pruning (exact, so there is nothing to compare).
"""

from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from math import fsum, inf, log
from typing import Any

Row = dict[str, Any]
Grams = Counter[tuple[int, ...]]
SENTINEL = -1  # stands for places before the start of a sequence
NAMES = {1: ("token", "unigrams"), 2: ("bigram", "bigrams"), 3: ("trigram", "trigrams")}
BUCKETS = {  # last k_n of each bucket
    1: (5, 10, 20, 50, 200, 1000, 2000, inf),
    2: (50, 100, 200, 500, 1000, 2000, 5000, inf),
    3: (50, 100, 200, 500, 1000, 5000, 20000, inf),
}
POSITION_TYPES = ("oscillatory", "both", "one", "other")


def neuron_rows(
    ids: list[list[int]],
    pre: list[list[list[float]]],
    bos_id: int,
    *,
    domains: list[int] | None = None,
    cover: int = 95,
    max_unigrams: int = 5,
    max_bigrams: int = 50,
    max_trigrams: int = 50,
    min_occurrences: int = 1,
    support_occurrences: int = 5,
    min_support: float = 0.5,
    min_mi: float = 0.05,
) -> list[Row]:
    """One row per neuron of a layer, from pre[sequence][position][neuron]; domains[sequence] adds its firings per domain."""
    length = len(ids[0])
    assert all(len(sequence) == length for sequence in ids)
    everywhere = [(s, p) for s in range(len(ids)) for p in range(length)]
    counted = [(s, p) for s, p in everywhere if ids[s][p] != bos_id]
    limits = {1: max_unigrams, 2: max_bigrams, 3: max_trigrams}
    occurrences = {n: Counter(ngram(ids[s], p, n) for s, p in counted) for n in limits}
    seen = Counter(p for _, p in counted)
    rows = []
    for neuron in range(len(pre[0][0])):
        values = [pre[s][p][neuron] for s, p in counted]
        fired = [place for place, value in zip(counted, values, strict=True) if value > 0]
        row: Row = {"neuron": neuron, **firing_columns(values)}
        row["n_fired_bos"] = sum(pre[s][p][neuron] > 0 for s, p in everywhere if ids[s][p] == bos_id)
        if domains is not None:
            row["n_fired_by_domain"] = Counter(domains[s] for s, _ in fired)
        for n, limit in limits.items():
            fires = Counter(ngram(ids[s], p, n) for s, p in fired)
            row |= ngram_columns(n, fires, occurrences[n], limit, cover, min_occurrences, support_occurrences)
        row |= position_columns(seen, Counter(p for _, p in fired), length, cover, min_mi)
        row["type"] = neuron_type(row, min_support)
        rows.append(row)
    return rows


def firing_columns(values: list[float]) -> Row:
    """How often one neuron fires; values are its pre-activations at all counted positions, in corpus order."""
    fired = [value > 0 for value in values]
    return {
        "n_tokens": len(values),
        "n_fired": sum(fired),
        "frequency": sum(fired) / len(values),
        "max_pre": max(values),
        "first_fired": fired.index(True) if any(fired) else None,
        "dead": not any(fired),
    }


def ngram(sequence: list[int], p: int, n: int) -> tuple[int, ...]:
    """The ids at p-n+1 .. p."""
    return tuple(sequence[q] if q >= 0 else SENTINEL for q in range(p - n + 1, p + 1))


def ngram_columns(
    n: int, fires: Grams, occurrences: Grams, limit: int, cover: int, min_occurrences: int, support_occurrences: int
) -> Row:
    """What n-grams trigger one neuron; fires and occurrences count its firings on, and the counted positions of, each n-gram."""
    name, plural = NAMES[n]
    n_fired = fires.total()
    k = least_covering(fires, cover)
    detected = [
        (gram, count, occurrences[gram])
        for gram, count in fires.items()
        if 100 * count >= cover * occurrences[gram] and occurrences[gram] >= min_occurrences
    ]
    detected.sort(key=lambda entry: (-entry[1], entry[0]))
    on_detected = sum(count for _, count, _ in detected)
    on_supported = sum(count for _, count, times in detected if times >= support_occurrences)
    detector = n_fired > 0 and k <= limit and 100 * on_detected >= cover * n_fired
    kept = detected if detector else []
    columns: Row = {
        f"{plural}_95": k,
        f"{name}_detector": detector,
        f"detected_{plural}": kept,  # (ids, fires, occurrences)
        f"{name}_support": on_supported / n_fired if n_fired else 0.0,
    }
    columns |= {"detected_tokens": [gram[0] for gram, _, _ in kept]} if n == 1 else {f"n_detected_{plural}": len(kept)}
    return columns


def least_covering(fires: Grams, cover: int) -> int:
    """k_n: the least number of distinct n-grams that together make up at least 95 % of the firings."""
    n_fired = fires.total()
    most_first = sorted(fires.values(), reverse=True)
    covered = k = 0
    while 100 * covered < cover * n_fired:
        covered += most_first[k]
        k += 1
    return k


def position_columns(seen: Counter[int], firings: Counter[int], length: int, cover: int, min_mi: float) -> Row:
    """What one neuron's firing tells of its place; seen and firings are n(p) and c(p)."""
    places = sorted(seen)
    mi = mutual_information(seen, firings)
    corrected = max(0.0, mi - (len(places) - 1) / (2 * seen.total()))
    fr = [Fraction(firings[p], seen[p]) for p in places]
    kind, strong = position_type(fr, length) if corrected > min_mi else (None, False)
    last, covered = None, 0
    for p in sorted(firings):
        covered += firings[p]
        if 100 * covered >= cover * firings.total():
            last = p
            break
    indicates = kind == "oscillatory" and strong
    return {
        "position_mi": mi,
        "position_mi_corrected": corrected,
        "position_type": kind,
        "position_strong": strong,
        "last_position_95": last,
        "indicated_places": [p for p, g in zip(places, smooth(fr, length), strict=True) if 2 * g >= 1] if indicates else [],
    }


def mutual_information(seen: Counter[int], firings: Counter[int]) -> float:
    """Between firing and place, in nats; the ratios inside the logarithms are of integers."""
    n_tokens, n_fired = seen.total(), firings.total()
    terms = []
    for p, n in seen.items():
        for here, overall in ((firings[p], n_fired), (n - firings[p], n_tokens - n_fired)):
            if here > 0:  # 0 log 0 = 0
                terms.append(here / n_tokens * log((here * n_tokens) / (n * overall)))
    return fsum(terms)


def smooth(fr: list[Fraction], length: int) -> list[Fraction]:
    """g: centered moving average of width 2*(T//256)+1, of the terms there are at the ends."""
    half = length // 256
    windows = [fr[max(0, i - half) : i + half + 1] for i in range(len(fr))]
    return [sum(window, Fraction(0)) / len(window) for window in windows]


def runs(holds: Iterable[bool], least: int) -> list[int]:
    """Where the maximal stretches of at least `least` consecutive True begin."""
    starts, stretch = [], 0
    for i, true in enumerate([*holds, False]):
        if not true and stretch >= least:
            starts.append(i - stretch)
        stretch = stretch + 1 if true else 0
    return starts


def position_type(fr: list[Fraction], length: int) -> tuple[str, bool]:
    """The type of a positional neuron and whether it is the strong version."""
    g = smooth(fr, length)
    least = max(2, length // 64)
    zero = bool(runs([x <= Fraction(5, 100) for x in g], least))
    strong_zero = bool(runs([x <= Fraction(1, 1000) for x in g], least))
    one = bool(runs([x >= Fraction(95, 100) for x in g], least))
    strong_one = bool(runs([x >= Fraction(999, 1000) for x in g], least))
    bottom, top = min(g), max(g)
    quarter = (top - bottom) / 4
    lowest = [(start, "low") for start in runs([x - bottom <= quarter for x in g], least)]
    highest = [(start, "high") for start in runs([top - x <= quarter for x in g], least)]
    changes = sum(before != after for (_, before), (_, after) in pairwise(sorted(lowest + highest)))
    if top - bottom >= Fraction(1, 2) and changes >= 3:
        return "oscillatory", strong_zero and strong_one
    if zero and one:
        return "both", strong_zero and strong_one
    if zero or one:
        return "one", strong_zero if zero else strong_one
    return "other", thin(fr)


def thin(fr: list[Fraction]) -> bool:
    """At least 90 % of the variance over places is predicted by the mean of a place's two neighbours."""
    mean = sum(fr, Fraction(0)) / len(fr)
    missed = sum((fr[i] - (fr[i - 1] + fr[i + 1]) / 2) ** 2 for i in range(1, len(fr) - 1))
    variation = sum((x - mean) ** 2 for x in fr)
    return variation > 0 and 1 - Fraction(2, 3) * missed / variation >= Fraction(9, 10)


def neuron_type(row: Row, min_support: float) -> str:
    """The first that holds."""
    if row["dead"]:
        return "dead"
    for name, _ in NAMES.values():
        if row[f"{name}_detector"] and row[f"{name}_support"] >= min_support:
            return name
    return "positional" if row["position_type"] is not None else "other"


def suppression_rows(
    rows: list[Row],
    unembedding: list[list[float]],
    columns: list[list[float]],
    project_out: list[list[float]] | None = None,
    gain: list[float] | None = None,
) -> list[Row]:
    """What each neuron writes; columns[neuron] is its fc2 column, unembedding is E[token], project_out [embedding][residual]."""
    written = []
    for row, u in zip(rows, columns, strict=True):
        effect = logits(unembedding, u, project_out)
        with_gain = logits(unembedding, [a * b for a, b in zip(u, gain, strict=True)], project_out) if gain is not None else None
        raw = trigger_mean(row, effect)
        written.append(
            {
                "neuron": row["neuron"],
                "trigger_projection": raw,
                "trigger_projection_centered": None if raw is None else raw - fsum(effect) / len(effect),
                "trigger_projection_gain": None if with_gain is None else trigger_mean(row, with_gain),
                "suppresses_trigger": None if raw is None else raw < 0,
                "top_promoted": sorted(range(len(effect)), key=lambda t: (-effect[t], t))[:10],
                "top_suppressed": sorted(range(len(effect)), key=lambda t: (effect[t], t))[:10],
            }
        )
    return written


def logits(unembedding: list[list[float]], u: list[float], project_out: list[list[float]] | None) -> list[float]:
    """E @ u, by way of project_out if there is one."""
    if project_out is not None:
        u = [dot(line, u) for line in project_out]
    return [dot(line, u) for line in unembedding]


def dot(a: list[float], b: list[float]) -> float:
    return fsum(x * y for x, y in zip(a, b, strict=True))


def trigger_mean(row: Row, effect: list[float]) -> float | None:
    """Mean effect on the detected tokens; None for neurons that are not token detectors."""
    tokens = row["detected_tokens"]
    return fsum(effect[t] for t in tokens) / len(tokens) if row["token_detector"] else None


def suppressing_shares(written: list[Row]) -> Row:
    """Share of suppressing detectors in the three conventions; None where there are none, or no gain."""
    shares: Row = {}
    for convention in ("trigger_projection", "trigger_projection_centered", "trigger_projection_gain"):
        values = [row[convention] for row in written if row[convention] is not None]
        shares[convention] = sum(value < 0 for value in values) / len(values) if values else None
    return shares


def layer_rows(layers: list[list[Row]]) -> list[Row]:
    """One row per layer, from the neuron rows of all layers, lowest first."""
    return [
        {"layer": layer, **alive_columns(rows), **bucket_columns(rows), **positional_columns(rows)}
        | covered_columns(layers, layer, 1)
        | covered_columns(layers, layer, 3)
        for layer, rows in enumerate(layers)
    ]


def alive_columns(rows: list[Row]) -> Row:
    frequencies = [row["frequency"] for row in rows if not row["dead"]]
    dead = len(rows) - len(frequencies)
    mean = fsum(frequencies) / len(frequencies) if frequencies else None
    return {"neurons": len(rows), "dead": dead, "dead_share": dead / len(rows), "mean_frequency_alive": mean}


def covered_columns(layers: list[list[Row]], layer: int, n: int) -> Row:
    """Detectors of a layer and the distinct n-grams they detect: here, up to here, in no layer below, not in the layer before."""
    name, plural = NAMES[n]
    detected = [{gram for row in rows for gram, _, _ in row[f"detected_{plural}"]} for rows in layers]
    here, below = detected[layer], set().union(*detected[:layer])
    before = detected[layer - 1] if layer > 0 else set()
    return {
        f"{name}_detectors": sum(row[f"{name}_detector"] for row in layers[layer]),
        f"detected_{name}s": len(here),
        f"detected_{name}s_cumulative": len(here | below),
        f"detected_{name}s_new_overall": len(here - below),
        f"detected_{name}s_new_vs_previous": len(here - before),
    }


def bucket_columns(rows: list[Row]) -> Row:
    """Neurons per bucket of k_n, as a list in the order of BUCKETS."""
    columns: Row = {}
    for n, lasts in BUCKETS.items():
        ks = [row[f"{NAMES[n][1]}_95"] for row in rows]
        columns[f"{NAMES[n][1]}_buckets"] = [sum(low < k <= high for k in ks) for low, high in pairwise((0, *lasts))]
    return columns


def positional_columns(rows: list[Row]) -> Row:
    """Positional neurons by type and strength, and how the strong oscillatory ones share the places among them."""
    kinds = Counter((row["position_type"], row["position_strong"]) for row in rows)
    columns: Row = {f"{kind}_{word}": kinds[kind, word == "strong"] for kind in POSITION_TYPES for word in ("strong", "weak")}
    team = [set(row["indicated_places"]) for row in rows if row["position_type"] == "oscillatory" and row["position_strong"]]
    columns["team_places"] = len(set().union(*team))
    columns["team_spare"] = sum(places <= set().union(*team[:i], *team[i + 1 :]) for i, places in enumerate(team))
    return columns
