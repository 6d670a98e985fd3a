"""The oracle itself, on cases counted by hand."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import log
from typing import Any

import pytest
from oracle import Row, layer_rows, mutual_information, neuron_rows, position_type, smooth, suppressing_shares, suppression_rows

BOS = 2


def rows_of(ids: list[list[int]], *fires: Callable[[int, int], bool], **options: Any) -> list[Row]:
    """Neuron rows where neuron i has pre-activation 1 wherever fires[i](sequence, position) and -1 elsewhere."""
    pre = [[[1.0 if fire(s, p) else -1.0 for fire in fires] for p in range(len(ids[s]))] for s in range(len(ids))]
    return neuron_rows(ids, pre, BOS, **options)


def test_dead_dead_except_on_bos_and_always_on() -> None:
    ids = [[BOS, 5, 6, 7], [BOS, 5, BOS, 8]]
    dead, only_bos, always = rows_of(ids, lambda s, p: False, lambda s, p: ids[s][p] == BOS, lambda s, p: True)
    for row in dead, only_bos:
        assert row["dead"] and row["type"] == "dead" and row["first_fired"] is None and row["last_position_95"] is None
        assert row["unigrams_95"] == row["trigrams_95"] == row["token_support"] == row["position_mi"] == 0
        assert not row["token_detector"] and not row["trigram_detector"] and row["detected_tokens"] == []
    assert (dead["n_tokens"], dead["n_fired_bos"], only_bos["n_fired_bos"], dead["max_pre"]) == (5, 0, 3, -1.0)
    assert (always["n_fired"], always["frequency"], always["position_mi"], always["first_fired"]) == (5, 1.0, 0.0, 0)
    assert always["unigrams_95"] == 4 and always["token_detector"]  # four tokens, all covered,
    assert always["type"] == "other" and always["token_support"] == 0.0  # but none seen five times


def test_zero_is_not_firing_and_places_are_counted_in_corpus_order() -> None:
    row = neuron_rows([[BOS, 5, 6], [BOS, 7, 8]], [[[9.0], [0.0], [-1.0]], [[9.0], [-2.0], [0.5]]], BOS, domains=[0, 1])[0]
    assert (row["n_fired"], row["first_fired"], row["max_pre"], row["n_fired_bos"]) == (1, 3, 0.5, 2)
    assert row["n_fired_by_domain"] == {1: 1}


def test_half_range_indicator_has_mi_ln_2() -> None:
    half, early = rows_of([[7 + p % 30 for p in range(64)]] * 40, lambda s, p: p < 32, lambda s, p: p == 0)
    assert half["position_mi"] == pytest.approx(log(2), abs=1e-12)
    assert half["position_mi_corrected"] == pytest.approx(log(2) - 63 / (2 * 64 * 40), abs=1e-12)
    assert (half["position_type"], half["position_strong"], half["type"]) == ("both", True, "positional")
    assert half["last_position_95"] == 30  # 31 of 32 places hold 96.9 % of the firings, 30 hold 93.75 %
    assert early["last_position_95"] == 0
    assert mutual_information(Counter({0: 2, 1: 2}), Counter({0: 1})) == pytest.approx(
        0.25 * (log(2) + log(2 / 3)) + 0.5 * log(4 / 3)
    )


def test_one_token_detector() -> None:
    ids = [[BOS, 5, 9, 5, 6, 5, 9, 5, 9, 9, 5]]
    row = rows_of(ids, lambda s, p: ids[s][p] == 5)[0]
    assert (row["unigrams_95"], row["token_detector"], row["detected_tokens"]) == (1, True, [5])
    assert (row["token_support"], row["type"], row["n_fired"]) == (1.0, "token", 5)
    assert row["detected_unigrams"] == [((5,), 5, 5)]
    assert row["bigrams_95"] == 3  # (BOS 5), (9 5) three times, (6 5)
    both = rows_of(ids, lambda s, p: ids[s][p] in (5, 6, 9))[0]
    assert both["detected_tokens"] == [5, 9, 6] and both["token_support"] == 0.5  # 6 once, 9 four times


@pytest.mark.parametrize(("fires", "detector"), [(949, False), (950, True)])
def test_a_token_is_detected_from_95_percent_of_its_occurrences(fires: int, detector: bool) -> None:
    row = rows_of([[7] * 1000], lambda s, p: p < fires)[0]
    assert row["unigrams_95"] == 1
    assert row["token_detector"] is detector
    assert row["detected_tokens"] == ([7] if detector else [])
    assert row["token_support"] == detector


@pytest.mark.parametrize(("covered", "k", "detector"), [(949, 2, False), (950, 1, True)])
def test_detected_tokens_must_make_up_95_percent_of_the_firings(covered: int, k: int, detector: bool) -> None:
    """1000 firings: `covered` on token 7, which always fires, the rest on token 8, which fires half the time."""
    rest = 1000 - covered
    row = rows_of([[7] * covered + [8] * 2 * rest], lambda s, p: p < 1000)[0]
    assert (row["n_fired"], row["unigrams_95"], row["token_detector"]) == (1000, k, detector)


def test_five_tokens_make_a_detector_six_do_not() -> None:
    ids = [[10, 11, 12, 13, 14, 15] * 5]
    five, six = rows_of(ids, lambda s, p: ids[s][p] < 15, lambda s, p: True)
    assert five["token_detector"] and five["detected_tokens"] == [10, 11, 12, 13, 14]
    assert six["unigrams_95"] == 6 and not six["token_detector"] and six["detected_tokens"] == []
    assert six["token_support"] == 1.0 and six["type"] == "bigram"
    assert rows_of(ids, lambda s, p: ids[s][p] < 15, min_occurrences=6)[0]["token_detector"] is False


def test_trigram_detector() -> None:
    """Fires on 3 after (1, 2), and not on 3 after (5, 2) or after (1, 4): neither its token nor its bigram is enough."""
    ids = [[BOS, 1, 2, 3, 5, 2, 3, 1, 4, 3]] * 5
    row = rows_of(ids, lambda s, p: p == 3)[0]
    assert (row["token_detector"], row["bigram_detector"], row["trigram_detector"], row["type"]) == (
        False,
        False,
        True,
        "trigram",
    )
    assert row["detected_trigrams"] == [((1, 2, 3), 5, 5)] and row["n_detected_trigrams"] == 1
    assert row["trigram_support"] == 1.0 and row["bigram_support"] == 0.0 and row["n_detected_bigrams"] == 0
    rare = rows_of(ids[:4], lambda s, p: p == 3)[0]
    assert rare["trigram_detector"] and rare["trigram_support"] == 0.0 and rare["type"] != "trigram"


def test_ngrams_reach_back_to_bos_and_past_the_start() -> None:
    row = rows_of([[BOS, 4, 4]], lambda s, p: True)[0]
    assert row["detected_bigrams"] == [((BOS, 4), 1, 1), ((4, 4), 1, 1)]
    assert row["detected_trigrams"] == [((-1, BOS, 4), 1, 1), ((BOS, 4, 4), 1, 1)]


def test_position_types() -> None:
    def steps(*levels: int) -> list[Fraction]:
        """A curve of 64 places made of equally long steps, in percent."""
        return [Fraction(level, 100) for level in levels for _ in range(64 // len(levels))]

    assert position_type(steps(0, 100, 0, 100), 64) == ("oscillatory", True)  # three changes
    assert position_type(steps(1, 100, 0, 97, 5, 100, 1, 100), 64) == ("oscillatory", True)  # one strong run of each is enough
    assert position_type(steps(10, 70, 10, 70), 64) == ("oscillatory", False)
    assert position_type(steps(10, 59, 10, 59), 64) == ("other", True)  # range below 0.5
    assert position_type(steps(10, 60, 10, 60), 64) == ("oscillatory", False)
    assert position_type(steps(0, 100), 64) == ("both", True)
    assert position_type(steps(0, 100, 0), 64) == ("both", True)  # two changes
    assert position_type(steps(0, 90, 0, 90), 64) == ("oscillatory", False)  # strong at 0 only
    assert position_type(steps(0, 97), 64) == ("both", False)
    assert position_type(steps(5, 50), 64) == ("one", False)
    assert position_type(steps(50, 100), 64) == ("one", True)
    assert position_type(steps(0, 94), 64) == ("one", True)
    assert position_type([Fraction(10 + p, 100) for p in range(64)], 64) == ("other", True)  # a straight line is thin
    assert position_type([Fraction(p % 2, 1) for p in range(64)], 64) == ("other", False)  # no run of two places


@pytest.mark.parametrize(("block", "strong"), [(10, True), (9, False)])
def test_thin_graph_from_90_percent(block: int, strong: bool) -> None:
    """Four blocks, levels d apart: d/2 is missed twice a step, and is every place's way from the mean: 1 - 4 / places."""
    curve = [Fraction(level, 10) for level in (2, 6, 2, 6) for _ in range(block)]
    assert position_type(curve, len(curve)) == ("other", strong)


def test_the_moving_average_is_one_wide_below_256_and_short_at_the_ends() -> None:
    curve = [Fraction(x) for x in (0, 3, 6, 0)]
    assert smooth(curve, 255) == curve
    assert smooth(curve, 256) == [Fraction(3, 2), 3, 3, 3]


def test_layers() -> None:
    ids = [[BOS, 5, 6, 7, 8] * 5]
    fires = [lambda s, p, t=t: ids[s][p] == t for t in (5, 6, 7, 99)]
    five, six, seven, dead = rows_of(ids, *fires)
    bottom, middle, top = layer_rows([[five, six], [seven, dead], [five, seven]])
    assert (middle["dead"], middle["dead_share"], middle["mean_frequency_alive"]) == (1, 0.5, 0.25)
    assert [row["token_detectors"] for row in (bottom, middle, top)] == [2, 1, 2]
    assert [row["detected_tokens"] for row in (bottom, middle, top)] == [2, 1, 2]
    assert [row["detected_tokens_cumulative"] for row in (bottom, middle, top)] == [2, 3, 3]
    assert [row["detected_tokens_new_overall"] for row in (bottom, middle, top)] == [2, 1, 0]
    assert [row["detected_tokens_new_vs_previous"] for row in (bottom, middle, top)] == [2, 1, 1]
    assert middle["unigrams_buckets"] == [1, 0, 0, 0, 0, 0, 0, 0]  # the dead one is in none


def test_a_team_of_oscillating_neurons() -> None:
    early, late, all_but_one = rows_of(
        [[7 + p % 30 for p in range(64)]] * 40,
        lambda s, p: p // 16 % 2 == 0 and (p > 0 or s < 20),  # g(0) = 0.5
        lambda s, p: p // 16 % 2 == 1,
        lambda s, p: p // 8 % 2 == 1,
    )
    assert early["indicated_places"] == [*range(16), *range(32, 48)]
    pair, trio = layer_rows([[early, late], [early, late, all_but_one]])
    assert (pair["oscillatory_strong"], pair["team_places"], pair["team_spare"]) == (2, 64, 0)
    assert (trio["oscillatory_strong"], trio["team_places"], trio["team_spare"]) == (3, 64, 1)


def test_suppression() -> None:
    rows = [
        {"neuron": 0, "token_detector": True, "detected_tokens": [0]},
        {"neuron": 1, "token_detector": False, "detected_tokens": []},
    ]
    unembedding = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    columns = [[-1.0, 2.0], [1.0, 1.0]]  # on the logits: -1 2 1, and 1 1 2
    detector, other = suppression_rows(rows, unembedding, columns, gain=[-1.0, 1.0])
    assert detector["trigger_projection"] == -1.0 and detector["suppresses_trigger"] is True
    assert detector["trigger_projection_centered"] == pytest.approx(-1 - 2 / 3)
    assert detector["trigger_projection_gain"] == 1.0
    assert detector["top_promoted"] == [1, 2, 0] and detector["top_suppressed"] == [0, 2, 1]
    assert other["suppresses_trigger"] is None and other["top_promoted"] == [2, 0, 1]
    assert list(suppressing_shares([detector, other]).values()) == [1.0, 1.0, 0.0]
    swapped = suppression_rows(rows, unembedding, columns, project_out=[[0.0, 1.0], [1.0, 0.0]])[0]
    assert swapped["trigger_projection"] == 2.0 and swapped["trigger_projection_gain"] is None
