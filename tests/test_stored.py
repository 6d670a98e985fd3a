"""Arrays come back as they were stored, or not at all: whichever byte of their file is another."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import Float32, Int64
from safetensors.numpy import save_file

from analyze.counts.layer import CorpusCounts, Index, LayerCounts
from analyze.neuron_types.logit_attribution import LayerWrites
from analyze.storage.formats import FORMAT
from analyze.storage.stored import Stored, names_of, opened
from checksums import Damaged
from errors import UserError

GRAMS = ("unigrams", "bigrams", "trigrams")
TALLIES = ["tally.rare", "tally.common", "tally.many_offsets", "tally.many", "tally.levels"]
TABLES = ["table.kept", "table.offsets", "table.ngrams", "table.fired"]
ORDERS = ["by_place.order", "by_place.offsets", "bos.order", "bos.offsets"]
OF_FORMAT_3: dict[type[Stored], list[str]] = {
    CorpusCounts: ["seen_at", "token_occurrences"],
    LayerCounts: [
        *("fired_at", "fired_bos", "max_pre", "first_fired"),
        *(f"{n}.{name}" for n in GRAMS for name in (*TALLIES, *TABLES)),
    ],
    Index: [
        *("ids", "domain", "counted", *ORDERS),
        *(f"{n}.{name}" for n in GRAMS for name in ("ids", "segments.order", "segments.offsets")),
    ],
    LayerWrites: [
        *("top_promoted", "top_suppressed", "promoted_by", "suppressed_by", "mean"),
        *("candidate_offsets", "candidate_ids", "projections"),
    ],
}


@dataclass
class Before(Stored):
    """What an older version stored."""

    max_pre: Float32[np.ndarray, " neuron"]


@dataclass
class After(Before):
    """What a newer one stores: what it can do without has a default."""

    first_fired: Int64[np.ndarray, " neuron"]
    mean: Float32[np.ndarray, " neuron"] | None = None


BEFORE = Before(np.array([0.5, -2, 3], np.float32))
AFTER = After(np.array([1, 2], np.float32), np.array([7, 70_000]), np.array([3, 4], np.float32))


@pytest.mark.parametrize("mapped", [False, True])
def test_every_byte_counts(mapped: bool, tmp_path: Path) -> None:
    """Those of names, shapes, blanks and of what is written about the arrays too; so do bytes that are more, or gone."""
    file = tmp_path / "x.safetensors"
    AFTER.save(file, {"made of": "é", "corpus": "x"})
    content = file.read_bytes()
    assert f'"format":"{FORMAT}"'.encode() in content
    for damage in (
        *(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :] for at in range(len(content))),
        content[:-1],
        content + b"\0",
        content.replace(b'"checksum"', b'"checktum"'),
        b"",
    ):
        file.write_bytes(damage)
        with pytest.raises(Damaged, match=rf"{file} is damaged \(.*\): delete it, and the analyze/run\.py command"):
            After.load(file, mapped)
    file.write_bytes(content)
    again = After.load(file, mapped)
    assert all(np.array_equal(getattr(again, name), getattr(AFTER, name)) for name in ("max_pre", "first_fired", "mean"))
    assert opened(file).about == {"made of": "é", "corpus": "x"}


def test_an_older_file_is_read_where_it_holds_what_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    BEFORE.save(file)
    with pytest.raises(UserError, match=rf"lacks first_fired: it is of a census of format {FORMAT}, .* another out=") as lacking:
        After.load(file)
    assert not isinstance(lacking.value, Damaged)
    save_file({"max_pre": BEFORE.max_pre}, file)
    with pytest.raises(UserError, match=r"lacks first_fired: it is of a census of format 2 or older"):
        After.load(file)
    save_file({"max_pre": AFTER.max_pre, "first_fired": AFTER.first_fired}, file, {"corpus": "x"})
    assert np.array_equal(After.load(file).first_fired, AFTER.first_fired) and After.load(file).mean is None
    AFTER.save(file)
    assert np.array_equal(Before.load(file).max_pre, AFTER.max_pre)  # what it does not know is left


def test_a_file_that_cannot_be_read_is_not_damaged(tmp_path: Path) -> None:
    for file, sentence in ((tmp_path, "cannot be read"), (tmp_path / "x", r"x is missing: the analyze/run\.py command")):
        with pytest.raises(UserError, match=sentence) as mistake:
            Before.load(file)
        assert not isinstance(mistake.value, Damaged)
    live = tmp_path / "live" / "step_000000003"
    with pytest.raises(UserError, match=rf"is missing: remove {live}; the run's other censuses stand without it"):
        Before.load(live / "layers" / "layer_000.safetensors")


def test_what_a_format_holds() -> None:
    """Another field without a default is another format: change FORMAT in analyze/storage/formats.py and this list."""
    assert FORMAT == 3
    for kind, names in OF_FORMAT_3.items():
        assert list(names_of(kind)) == names
