"""Position information and types of curves whose answers can be worked out by hand, and of random ones by the oracle."""

import math

import numpy as np
import oracle
import pytest

from analyze.positions import TYPES, corrected, last_position, oscillates, position_information, position_types, thinness

T, SEEN = 2048, 100
PLACES = np.arange(T)


def table(curve: np.ndarray) -> np.ndarray:
    """Firings, of SEEN sequences, of one neuron with this frequency at every place."""
    return np.rint(curve[:, None] * SEEN).astype(np.int64)


def information(curve: np.ndarray) -> float:
    return position_information(table(curve), np.full(len(curve), SEEN))[0]


def kind(curve: np.ndarray) -> tuple[str, bool]:
    found = position_types(curve[:, None].astype(float), len(curve))
    return TYPES[found.kind[0]], bool(found.strong[0])


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
    assert oscillates(np.stack([bump, wave], axis=1), 32).tolist() == [False, True]


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
    found = position_types(fired / seen[:, None], positions)
    judged = [n for n, row in enumerate(rows) if row["position_type"]]
    assert len({rows[n]["position_type"] for n in judged}) >= 3, "the test should meet several types"
    assert [(TYPES[found.kind[n]], bool(found.strong[n])) for n in judged] == [
        (rows[n]["position_type"], rows[n]["position_strong"]) for n in judged
    ]
