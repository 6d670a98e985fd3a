"""What neurons become while a model trains, from the command line: planted changes, each found, nothing else."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import planted_run as planted
import polars as pl
import pytest
from processes import program

EVERY = [(layer, neuron) for layer in range(planted.LAYERS) for neuron in range(planted.NEURONS)]


def type_of(kind: str) -> str:
    return {"both": "positional"}.get(kind.split()[0], kind.split()[0])


def life(layer: int, neuron: int) -> list[str]:
    """What the neuron is at each milestone, by the plan."""
    return [planted.kind(layer, neuron, milestone) for milestone in range(3)]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The censuses of the planted run."""
    folder = tmp_path_factory.mktemp("planted")
    planted.write_run(folder / "runs" / "planted")
    corpus = ["corpus=tokens", "corpus.path=runs/ids.npy", "device=cpu", "threads=1", "wandb.mode=disabled"]
    done = program("analyze/run.py", "ckpt=runs/planted", *corpus, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "planted" / "census"


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def test_every_type_at_every_step(out: Path) -> None:
    expected = Counter(
        (step, step * planted.TOKENS_PER_STEP, layer, type_of(life(layer, neuron)[i]))
        for i, step in enumerate(planted.STEPS)
        for layer, neuron in EVERY
    )
    found = table(out, "evolution")
    assert found.columns == ["step", "tokens", "layer", "type", "neurons"]
    assert {row[:4]: row[4] for row in found.rows()} == expected


def moves(words: dict[str, str] | None = None) -> Counter[tuple[int, int, int, str, str]]:
    """Every neuron's change between neighbouring milestones, by the plan."""
    found: Counter[tuple[int, int, int, str, str]] = Counter()
    for layer, neuron in EVERY:
        kinds = life(layer, neuron)
        named = [type_of(kind) if words is None else words.get(kind, "none") for kind in kinds]
        for (i, j), (before, after) in zip(pairwise(planted.STEPS), pairwise(named), strict=True):
            found[i, j, layer, before, after] += 1
    return found


def test_every_transition(out: Path) -> None:
    found = table(out, "transitions")
    assert found.columns == ["from_step", "to_step", "layer", "from_type", "to_type", "neurons"]
    assert {row[:5]: row[5] for row in found.rows()} == moves()


def test_every_change_of_a_positional_neuron(out: Path) -> None:
    every = moves({"both weak": "both weak", "both strong": "both strong"})
    expected = {move: count for move, count in every.items() if move[3:] != ("none", "none")}
    assert {row[:5]: row[5] for row in table(out, "positional_transitions").rows()} == expected


def test_every_birth_death_and_return(out: Path) -> None:
    rows = {(row["layer"], row["neuron"]): row for row in table(out, "births").iter_rows(named=True)}
    assert sorted(rows) == EVERY
    for place, row in rows.items():
        types = [type_of(kind) for kind in life(*place)]
        born = next(i for i in range(3) if set(types[i:]) == {types[-1]})
        changed = [(a, b) for a, b in pairwise(types) if a != b]
        back = [i for i, (a, b) in enumerate(pairwise(types), start=1) if a == "dead" != b]
        assert row == {
            "layer": place[0], "neuron": place[1], "type": types[-1],
            "born_step": planted.STEPS[born], "born_tokens": planted.STEPS[born] * planted.TOKENS_PER_STEP,
            "changes": len(changed), "deaths": sum(b == "dead" for _, b in changed), "returns": len(back),
            "first_dead_step": planted.STEPS[types.index("dead")] if "dead" in types else None,
            "first_return_step": planted.STEPS[back[0]] if back else None,
        }, place  # fmt: skip


def test_every_detector_that_keeps_its_tokens(out: Path) -> None:
    expected = []
    for (i, first), (j, second) in pairwise(enumerate(planted.STEPS)):
        for layer in range(planted.LAYERS):
            lives = [life(layer, neuron) for neuron in range(planted.NEURONS)]
            pairs = [(set(kinds[i].split()[1:]), kinds[j]) for kinds in lives if kinds[i].startswith("token")]
            after = [set(kind.split()[1:]) if kind.startswith("token") else set() for _, kind in pairs]
            alike = [len(b & a) / len(b | a) for (b, _), a in zip(pairs, after, strict=True)]
            if pairs:
                kept = sum(share >= 0.5 for share in alike)
                expected.append(
                    (first, second, layer, len(pairs), sum(map(bool, after)), kept, pytest.approx(sum(alike) / len(alike)))
                )
    assert table(out, "detectors_kept").rows() == expected
