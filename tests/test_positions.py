"""Position information and types of curves whose answers can be worked out by hand, and of random ones by the oracle."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import oracle
import polars as pl
import pytest

from analyze.config import PositionRules, Thresholds
from analyze.neuron_types.position import (
    bias,
    corrected,
    domain_difference,
    last_position,
    oscillates,
    position_information,
    position_types,
    smoothed,
    thinness,
)
from analyze.neuron_types.position_coverage import Team, indicated, team
from analyze.neuron_types.taxonomy import PATTERNS
from analyze.tables.positions import bias_warning, position_columns, position_domains, serves_first_positions
from errors import UserError

T, SEEN = 2048, 100
RULES = PositionRules()
PLACES = np.arange(T)


def table(curve: np.ndarray) -> np.ndarray:
    """Firings, of SEEN sequences, of one neuron with this frequency at every place."""
    found: np.ndarray = np.rint(curve[:, None] * SEEN).astype(np.int64)
    return found


def information(curve: np.ndarray) -> float:
    return float(position_information(table(curve), np.full(len(curve), SEEN))[0])


def kind(curve: np.ndarray) -> tuple[str, bool]:
    found = position_types(curve[:, None].astype(float), len(curve), RULES)
    return PATTERNS[found.kind[0]], bool(found.strong[0])


def entropy(f: float) -> float:
    return -f * math.log(f) - (1 - f) * math.log(1 - f)


STRIPES = ((PLACES // 205) % 2 == 0).astype(float)  # five ranges on, five off
NOISE = np.random.default_rng(0).binomial(SEEN, 0.5 + 0.3 * PLACES / T) / SEEN

PLANTED = {  # curve -> type, strong
    "up to 700": ((PLACES < 700).astype(float), "both", True),
    "five ranges": (STRIPES, "oscillatory", True),
    "weak ranges": (0.02 + 0.96 * STRIPES, "oscillatory", False),
    "sine between 0.2 and 0.8": (0.5 + 0.3 * np.sin(2 * math.pi * 3 * PLACES / T), "oscillatory", False),
    "ramp to 0.6": (np.maximum(0.0, 0.6 * (PLACES - 300) / (T - 300)), "one", True),
    "weak ramp": (0.03 + np.maximum(0.0, 0.6 * (PLACES - 300) / (T - 300)), "one", False),
    "0.03 then 0.97": (np.where(PLACES < 900, 0.03, 0.97), "both", False),
    "thin slope": (0.2 + 0.5 * PLACES / T, "other", True),
    "thick slope": (NOISE, "other", False),
}


@pytest.mark.parametrize(("curve", "expected", "strong"), PLANTED.values(), ids=PLANTED)
def test_planted_curves_get_their_type(curve: np.ndarray, expected: str, strong: bool) -> None:
    assert kind(curve) == (expected, strong)


def test_firing_on_half_of_the_places_is_worth_ln_2() -> None:
    assert information((PLACES < T // 2).astype(float)) == pytest.approx(math.log(2), abs=1e-12)
    assert information((PLACES % 2).astype(float)) == pytest.approx(math.log(2), abs=1e-12)


def test_an_indicator_is_worth_the_entropy_of_its_share() -> None:
    assert information((PLACES < 700).astype(float)) == pytest.approx(entropy(700 / T), abs=1e-12)


def test_dead_always_on_and_constant_neurons_know_nothing_of_position() -> None:
    for level in (0.0, 1.0, 0.37):
        assert information(np.full(T, level)) == pytest.approx(0.0, abs=1e-12)


def test_firing_on_the_first_five_places_only_is_found_by_its_last_position() -> None:
    first = (PLACES < 5).astype(float)
    assert information(first) == pytest.approx(entropy(5 / T)) and information(first) < 0.05
    assert last_position(table(first), 95)[0] == 4
    assert last_position(table(np.zeros(T)), 95)[0] == -1


# ln 2 less the entropy at 1/2 + x/2 is the sum of x^2k / 2k(2k-1); the mean of sin^2k is (2k over k) / 4^k
SINE = sum(0.6 ** (2 * k) / (2 * k * (2 * k - 1)) * math.comb(2 * k, k) / 4**k for k in range(1, 20))
SLOPE = (T - 300) / T  # share of places where the ramp rises
# mean entropy of a share that is uniform within 0 and 0.6, by integral
RISING = (0.25 - 0.18 * math.log(0.6) + 0.09 + 0.08 * math.log(0.4) - 0.04) / 0.6

ALL = {  # curve -> type, strong, information by hand; the noise knows little
    "up to 700": ("both", True, entropy(700 / T)),
    "five ranges": ("oscillatory", True, entropy(STRIPES.mean())),
    "weak ranges": ("oscillatory", False, entropy(0.02 + 0.96 * STRIPES.mean()) - entropy(0.02)),
    "sine between 0.2 and 0.8": ("oscillatory", False, SINE),
    "ramp to 0.6": ("one", True, entropy(0.3 * SLOPE) - SLOPE * RISING),
    "slight slope": (None, None, 0.1**2 / 12 / 0.5),  # variance of the curve over 2 f (1 - f)
    "noise around a steep slope": ("other", False, None),
    "first five": (None, None, entropy(5 / T)),
    "constant": (None, None, 0.0),
}
SLIGHT = {
    "slight slope": 0.45 + 0.1 * PLACES / T,
    "first five": (PLACES < 5).astype(float),
    "constant": np.full(T, 0.37),
    "noise around a steep slope": np.clip(0.15 + 0.7 * PLACES / T + np.random.default_rng(4).normal(0, 0.15, T), 0.03, 0.97),
}


@pytest.mark.parametrize("name", ALL)
def test_the_neuron_table_says_what_was_planted(name: str) -> None:
    """One column of counts, 10,000 sequences in two domains, to type, strength and information."""
    curve, sequences = SLIGHT[name] if name in SLIGHT else PLANTED[name][0], 10_000
    fired = np.rint(curve[None, :, None] * [[[0.3 * sequences]], [[0.7 * sequences]]]).astype(np.int64)
    seen = np.repeat([[3000], [7000]], T, axis=1)
    row = position_columns(fired, seen, Thresholds()).row(0, named=True)
    kind, strong, by_hand = ALL[name]
    assert (row["position_type"], row["position_strong"]) == (kind, strong)
    if by_hand is not None:
        assert row["position_mi"] == pytest.approx(by_hand, abs=2e-4)
    assert row["position_mi_corrected"] == pytest.approx(max(0, row["position_mi"] - (T - 1) / (2 * T * sequences)))
    assert row["position_domain_difference"] == (None if kind is None else pytest.approx(0, abs=1e-3))
    assert pl.DataFrame([row | {"n_fired": 50}]).select(serves_first_positions(RULES)).item() == (name == "first five")


def test_few_sequences_alone_do_not_make_a_neuron_positional() -> None:
    ten = np.random.default_rng(1).binomial(10, 0.5, (T, 50))
    seen = np.full(T, 10)
    raw = position_information(ten, seen)
    assert (raw > 0.05).mean() > 0.9, "the bias alone passes the threshold"
    assert (corrected(raw, seen) < 0.05).all()


def test_places_nobody_stood_at_are_left_out() -> None:
    fired, seen = np.array([[0], [4], [0]]), np.array([0, 4, 4])
    assert position_information(fired, seen)[0] == pytest.approx(math.log(2))


def test_a_trend_is_thin_and_noise_around_it_is_not() -> None:
    noisy = 0.5 + np.random.default_rng(2).normal(0, 0.1, T)
    found = thinness(np.stack([np.linspace(0, 1, T), noisy], axis=1))
    assert found[0] > 0.999 and found[1] < 0.5


def test_two_changes_do_not_oscillate_and_three_do() -> None:
    bump = ((PLACES >= 500) & (PLACES < 1000)).astype(float)
    wave = bump + (PLACES >= 1500)
    assert oscillates(np.stack([bump, wave], axis=1), 32, RULES).tolist() == [False, True]


@pytest.mark.parametrize("positions", [64, 300])
def test_random_curves_are_sorted_as_the_oracle_sorts_them(positions: int) -> None:
    rng = np.random.default_rng(positions)
    sequences, neurons = 12, 40
    waves = np.sin(
        np.arange(positions)[:, None] * rng.uniform(0.2, 8, neurons) * 2 * math.pi / positions + rng.uniform(0, 6, neurons)
    )
    level = np.clip(rng.uniform(0.2, 0.8, neurons) + rng.uniform(0.2, 0.8, neurons) * waves, 0, 1)
    fires = rng.random((sequences, positions, neurons)) < level
    ids = [[2, *rng.integers(4, 20, positions - 1).tolist()] for _ in range(sequences)]
    rows = oracle.neuron_rows(ids, np.where(fires, 1.0, -1.0).tolist(), bos_id=2)
    fired, seen = fires[:, 1:].sum(0), np.full(positions - 1, sequences)
    mi = position_information(fired, seen)
    np.testing.assert_allclose(mi, [row["position_mi"] for row in rows], atol=1e-12)
    found = position_types(fired / seen[:, None], positions, RULES)
    judged = [n for n, row in enumerate(rows) if row["position_type"]]
    assert len({rows[n]["position_type"] for n in judged}) >= 3, "the test should meet several types"
    assert [(PATTERNS[found.kind[n]], bool(found.strong[n])) for n in judged] == [
        (rows[n]["position_type"], rows[n]["position_strong"]) for n in judged
    ]


def test_a_share_of_exactly_five_percent_reaches_0() -> None:
    curve = np.where(PLACES < 900, 1 / 20, 19 / 20)[:, None]
    assert (smoothed(curve, T, RULES)[:800] != 1 / 20).any(), "the moving average rounds"
    assert kind(curve[:, 0]) == ("both", False)


Rule = tuple[np.ndarray, dict[str, Any], tuple[str, bool]]
RULED: dict[str, Rule] = {  # what a rule changes: curve, rules, type and strength under them
    "smoothing": (
        0.5 + 0.5 * np.where(PLACES % 16 < 8, 1, -1),
        {"smoothing": T + 1, "run": T, "least_run": 8},
        ("oscillatory", True),
    ),
    "run": ((np.abs(PLACES - 1000) < 60).astype(float), {"run": 8}, ("one", True)),
    "least_run": (STRIPES, {"least_run": 250}, ("other", True)),
    "zero": (0.1 + 0.4 * PLACES / T, {"zero": 0.2}, ("one", False)),
    "one": (0.3 + 0.5 * PLACES / T, {"one": 0.75}, ("one", False)),
    "strong_zero": (0.02 + 0.96 * STRIPES, {"strong_zero": 0.03, "strong_one": 0.97}, ("oscillatory", True)),
    "span": (0.5 + 0.3 * np.sin(2 * math.pi * 3 * PLACES / T), {"span": 0.7}, ("other", True)),
    "outer": (np.where(STRIPES > 0, np.where(PLACES < T / 2, 0.7, 1.0), 0.0), {"outer": 0.35}, ("oscillatory", True)),
    "changes": (STRIPES, {"changes": 20}, ("both", True)),
    "thin": (NOISE, {"thin": 0.01}, ("other", True)),
}


@pytest.mark.parametrize("name", RULED)
def test_every_rule_of_types_can_be_changed(name: str) -> None:
    curve, changed, expected = RULED[name]
    found = position_types(curve[:, None].astype(float), T, PositionRules(**changed))
    assert (PATTERNS[found.kind[0]], bool(found.strong[0])) == expected
    assert name in {"outer", "smoothing"} or kind(curve) != expected


def test_columns_do_not_depend_on_how_many_neurons_are_at_hand_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    seen = np.array([[0] + [30] * 63, [0] + [20] * 63])
    fired = rng.binomial(seen[:, :, None], rng.random((1, 64, 7)) * (np.arange(64) < 30)[:, None])
    whole = position_columns(fired, seen, Thresholds())
    monkeypatch.setattr("analyze.tables.positions.NEURONS_AT_ONCE", 2)
    assert position_columns(fired, seen, Thresholds()).equals(whole) and whole["position_type"].count()


def test_a_pattern_of_one_domain_differs_between_domains_and_that_of_position_does_not() -> None:
    edge = (PLACES < 700).astype(float)
    seen = np.full((3, T), 40)
    seen[2] = 0  # a domain that was not read
    same, only_first = np.stack([edge, edge, edge]), np.stack([edge, 0.25 + 0 * edge, edge])
    fired = np.rint(seen[:, :, None] * np.stack([same, only_first], axis=2)).astype(np.int64)
    assert domain_difference(fired, seen, 32).tolist() == pytest.approx([0.0, 0.75])
    assert np.isnan(domain_difference(fired[:1], seen[:1], 32)).all()
    neurons = position_columns(fired, seen, Thresholds()).with_columns(layer=pl.lit(4), neuron=pl.int_range(pl.len()))
    rows = position_domains(neurons, fired, seen, Thresholds())
    kinds = [(row["neuron"], row["domain"], row["position_type"]) for row in rows.iter_rows(named=True)]
    assert kinds == [(0, 0, "both"), (0, 1, "both"), (0, 2, None), (1, 0, "both"), (1, 1, None), (1, 2, None)]
    assert rows["n_fired"].to_list() == [700 * 40, 700 * 40, 0, 700 * 40, T * 10, 0]


def test_the_bias_of_few_sequences_is_warned_of_with_its_numbers() -> None:
    seen = np.zeros((1, T), np.int64)
    seen[:, 1:] = 10
    assert bias(seen[0]) == pytest.approx((T - 2) / (2 * 10 * (T - 1)))
    said = bias_warning(seen, 0.05)
    assert said is not None and "10 sequences" in said and "0.05 nats" in said and "tokens=206,848" in said
    assert bias_warning(10 * seen, 0.05) is None
    assert bias_warning(10 * seen, 0.04) is not None


def test_a_team_that_covers_all_places_by_turns_has_no_redundant_neuron() -> None:
    ranges = np.stack([turn == (PLACES // 256) % 4 for turn in range(4)], axis=1)
    assert team(ranges) == Team(4, T, 0, 0)
    twin = np.concatenate([ranges, ranges[:, :1]], axis=1)
    assert team(twin) == Team(5, T, 2, 1), "either of two twins could go, not both"
    nested = np.concatenate([ranges[:, :2], ranges[:, :2].any(1, keepdims=True)], axis=1)
    assert team(nested) == Team(3, T // 2, 3, 2)
    assert team(ranges[:, :0]) == Team(0, 0, 0, 0)


def test_teams_leave_out_what_trying_every_subset_allows() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        starts, lengths = rng.integers(0, 12, 6), rng.integers(1, 7, 6)
        places = np.stack([(np.arange(16) >= a) & (np.arange(16) < a + n) for a, n in zip(starts, lengths, strict=True)], axis=1)
        found, every = team(places), places.any(1)
        could = [i for i in range(6) if (np.delete(places, i, axis=1).any(1) == every).all()]
        fewest = min(n for n in range(7) for kept in combinations(range(6), n) if (places[:, list(kept)].any(1) == every).all())
        assert found.spare == len(could) and found.left_out <= 6 - fewest
        assert (found.left_out == 0) == (fewest == 6) == (not could)


def test_indicated_ranges_are_where_the_curve_is_at_least_a_half() -> None:
    curves = np.stack([STRIPES, 0.5 + 0.5 * np.sin(2 * math.pi * 3 * PLACES / T)], axis=1)
    ranges = indicated(curves, T, RULES)
    assert abs(int(ranges[:, 0].sum()) - int(STRIPES.sum())) < 50 and abs(int(ranges[:, 1].sum()) - T // 2) < 10
    assert indicated(curves, T, PositionRules(indicated=0.0)).all()


def test_rules_outside_their_range_are_named() -> None:
    wrong: dict[str, Any] = {"span": 1.5, "zero": -0.1, "run": 0, "first": 0}
    for name, value in wrong.items():
        with pytest.raises(UserError, match=rf"positions\.{name}={value}"):
            PositionRules(**{name: value})
