"""What neurons write to the logits: every number by a plain loop, planted suppressors, random groups by their definition."""

from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import polars as pl
import pytest
import tiny
import torch
from rich.console import Console

from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.config import Thresholds
from analyze.neuron_types.logit_attribution import DRAWS, LOOSEST, NEAREST, LayerWrites, greatest, layer_writes, matched_tokens
from analyze.neuron_types.trigger_suppression import group_means, suppressing_shares
from analyze.pipeline import sequences_for
from device import CPU
from models.open_checkpoint import open_checkpoint
from models.opt import OPT

VARIANTS: dict[str, dict[str, Any]] = {
    "pre-LN": {},
    "350m": {"embed_dim": 16, "norm": "post", "final_norm": False},
    "350m with a final norm": {"embed_dim": 16, "norm": "post"},
    "no final norm": {"final_norm": False},
}
PLANTED = 30  # neuron n of layer 0 looks for token 4 + n
SUPPRESSES, PROMOTES = 8, 9
CONVENTIONS = {"raw": "trigger_projection", "centered": "trigger_projection_centered", "gain": "trigger_projection_gain"}


@torch.no_grad()
def detecting(**variant: Any) -> OPT:
    """A random model whose layer 0 has detectors of one token each; one writes against its token, one for it."""
    model = tiny.random_model(std=0.05, **variant)
    decoder, block, seed = model.decoder, tiny.block(model, 0), torch.Generator().manual_seed(5)
    decoder.embed_tokens.weight.normal_(0, 3, generator=seed)
    x = decoder.embed_tokens.weight
    if model.config.projected:
        decoder.project_in.weight.normal_(0, 1, generator=seed)
        x = decoder.project_in(x)
    x = torch.nn.functional.layer_norm(x, [32])
    for norm in (block.final_layer_norm, block.self_attn_layer_norm):
        norm.weight.fill_(1.0)
    block.fc1.weight[:PLANTED] = x[4 : 4 + PLANTED]
    block.fc1.bias[:PLANTED] = -24.0
    for neuron, sign in ((SUPPRESSES, -1), (PROMOTES, 1)):
        e = sign * decoder.embed_tokens.weight[4 + neuron]
        block.fc2.weight[:, neuron] = torch.linalg.pinv(decoder.project_out.weight) @ e if model.config.projected else e
    return model


def taken(folder: Path, out: str = "out", console: Console | None = None, **settings: Any) -> tuple[Path, pl.DataFrame]:
    """Take the census of `folder/model` into `folder/out`; returns the folder and its neurons."""
    corpus = tiny.tokens_corpus(folder / "ids.npy", tiny.random_ids(sequences=40))
    config = tiny.analysis(folder / "model", corpus, folder / out, **({"micro": 4} | settings))
    checkpoint = open_checkpoint(config.ckpt)
    take(CensusTask(checkpoint, sequences_for(checkpoint, config), folder / out, config), console or Console(quiet=True))
    return folder / out, pl.read_parquet(folder / out / "neurons.parquet")


def by_plain_loops(model: OPT, rows: pl.DataFrame, layer: int) -> list[dict[str, Any]]:
    """The oracle's suppression rows of one layer."""
    decoder = model.decoder
    return oracle.suppression_rows(
        rows.filter(layer=layer).to_dicts(),
        decoder.embed_tokens.weight.tolist(),
        tiny.block(model, layer).fc2.weight.T.tolist(),
        decoder.project_out.weight.tolist() if model.config.projected else None,
        decoder.final_layer_norm.weight.tolist() if model.config.final_norm else None,
    )


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_number_is_that_of_a_plain_loop(variant: dict[str, Any], tmp_path: Path) -> None:
    model = detecting(**variant)
    tiny.saved(tmp_path / "model", model)
    out, neurons = taken(tmp_path)
    assert neurons["token_detector"].sum() > 10
    layers = pl.read_parquet(out / "layers.parquet")
    for layer in range(3):
        expected = by_plain_loops(model, neurons, layer)
        for row, theirs in zip(neurons.filter(layer=layer).iter_rows(named=True), expected, strict=True):
            for name in ("suppresses_trigger", "top_promoted", "top_suppressed"):
                assert row[name] == theirs[name], name
            for name in ("trigger_projection", "trigger_projection_centered"):
                assert row[name] == (None if theirs[name] is None else pytest.approx(theirs[name], abs=1e-4)), name
        shares = oracle.suppressing_shares(expected)
        row = layers.row(layer, named=True)
        assert {name: row[f"suppressing_share_{name}"] for name in CONVENTIONS} == {
            name: shares[theirs] for name, theirs in CONVENTIONS.items()
        }
        assert (row["random_suppressing_share_gain"] is None) == (shares["trigger_projection_gain"] is None)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_detector_that_writes_minus_its_token_suppresses_it_and_one_that_writes_it_does_not(
    variant: dict[str, Any], tmp_path: Path
) -> None:
    tiny.saved(tmp_path / "model", detecting(**variant))
    against, with_it = (taken(tmp_path)[1].row(neuron, named=True) for neuron in (SUPPRESSES, PROMOTES))
    assert against["detected_tokens"] == [4 + SUPPRESSES] and with_it["detected_tokens"] == [4 + PROMOTES]
    assert against["suppresses_trigger"] is True and against["top_suppressed"][0] == 4 + SUPPRESSES
    assert with_it["suppresses_trigger"] is False and with_it["top_promoted"][0] == 4 + PROMOTES


def test_other_thresholds_are_answered_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detecting()
    tiny.saved(tmp_path / "model", model)
    taken(tmp_path)
    for read in (
        "analyze.forward.weight_prefetch.Weights.blocks",
        "models.checkpoint.Checkpoint.ends",
        "models.checkpoint.Checkpoint.fc2",
    ):
        monkeypatch.setattr(read, None)
    loosest = Thresholds(coverage=LOOSEST.coverage, detection=LOOSEST.detection, unigrams=LOOSEST.unigrams)
    found = []
    for thresholds in (Thresholds(), Thresholds(coverage=85, detection=80, unigrams=9), loosest):
        _, neurons = taken(tmp_path, thresholds=thresholds)
        found.append(neurons["suppresses_trigger"].count())
        for row, theirs in zip(neurons.head(44).iter_rows(named=True), by_plain_loops(model, neurons, 0), strict=True):
            assert row["suppresses_trigger"] == theirs["suppresses_trigger"]
    assert found[0] < found[1] < found[2]


def test_thresholds_below_what_is_kept_leave_the_question_open_and_say_so(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", detecting())
    whole = taken(tmp_path)[1]
    loosened: list[dict[str, Any]] = [{"coverage": 79}, {"detection": 49}, {"unigrams": 51}]
    for looser in loosened:
        console = Console(file=(told := StringIO()))
        out, neurons = taken(tmp_path, console=console, thresholds=Thresholds(**looser))
        assert "coverage=80, detection=50, unigrams=50" in told.getvalue()
        assert neurons["token_detector"].any() and neurons["suppresses_trigger"].count() == 0
        assert neurons["trigger_projection"].count() == neurons["trigger_projection_centered"].count() == 0
        assert neurons["top_promoted"].to_list() == whole["top_promoted"].to_list()
        assert pl.read_parquet(out / "layers.parquet")["suppressing_share_raw"].to_list() == [None] * 3


def test_lost_writes_are_made_again_without_reading_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.saved(tmp_path / "model", detecting())
    out, neurons = taken(tmp_path)
    before = {file: file.read_bytes() for file in (out / "writes").iterdir()}
    counted = {file: file.stat().st_mtime_ns for file in (out / "layers").iterdir()}
    assert len(before) == 3
    (out / "writes" / "layer_001.safetensors").unlink()
    monkeypatch.setattr("analyze.forward.weight_prefetch.Weights.blocks", None)
    assert taken(tmp_path)[1].equals(neurons)
    assert {file: file.read_bytes() for file in (out / "writes").iterdir()} == before
    assert {file: file.stat().st_mtime_ns for file in (out / "layers").iterdir()} == counted


def test_the_greatest_come_first_and_equal_ones_by_id() -> None:
    rows = np.random.default_rng(0).integers(-4, 5, (200, 40)).astype(np.float32)
    rows[0], rows[1, :20] = 0.0, -0.0
    expected = [sorted(range(40), key=lambda t: (-row[t], t))[:10] for row in rows.tolist()]
    assert greatest(torch.from_numpy(rows), CPU()).tolist() == expected
    assert greatest(torch.tensor([[1.0, 3.0, 3.0]]), CPU()).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("vocabulary", [60, 400])
def test_random_tokens_are_uniform_over_the_nearest_in_rank_that_are_no_candidates(vocabulary: int) -> None:
    rng = np.random.default_rng(0)
    occurrences = rng.integers(0, 30, vocabulary)
    ranked = sorted(np.flatnonzero(occurrences).tolist(), key=lambda t: (-occurrences[t], t))
    candidates = [[], rng.choice(ranked, 20, replace=False).tolist(), ranked[:3], ranked[-2:]] + [ranked[40:41]] * 300
    drawn = matched_tokens(candidates, occurrences, layer=0)
    flat = [(neuron, token) for neuron, tokens in enumerate(candidates) for token in tokens]
    assert drawn.shape == (len(flat), DRAWS)
    for (neuron, token), tokens in zip(flat, drawn.tolist(), strict=True):
        others = [t for t in ranked if t not in candidates[neuron]]
        above = sum(ranked.index(t) < ranked.index(token) for t in others)
        first = max(0, min(above - NEAREST // 2, len(others) - NEAREST))
        assert set(tokens) <= set(others[first : first + NEAREST])
    often = np.bincount(drawn[-300:].ravel(), minlength=vocabulary)
    assert np.count_nonzero(often) == NEAREST and often[often > 0].min() > 30 and often.max() < 95  # 60 each on average


def random_layer(seed: int, neurons: int = 600) -> tuple[LayerWrites, pl.DataFrame]:
    """What random neurons write, with three random tokens said to be detected by each."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    ends = tiny.random_model(seed, vocab_size=300).decoder
    detected = [rng.choice(300, 3, replace=False).tolist() for _ in range(neurons)]
    fc2 = torch.randn(32, neurons, generator=generator)
    writes = layer_writes(ends, fc2, detected, rng.integers(1, 1000, 300), layer=3)
    table = pl.DataFrame({"neuron": range(neurons), "token_detector": True, "detected_tokens": detected})
    return writes, table


def test_the_baseline_of_a_random_model_is_one_half_and_stays_the_same() -> None:
    writes, table = random_layer(seed=1)
    shares = suppressing_shares(table, writes, Thresholds())
    assert len(shares) == 6
    for share in shares.values():  # 600 detectors
        assert share == pytest.approx(0.5, abs=0.06)
    again, _ = random_layer(seed=1)
    assert all(np.array_equal(getattr(writes, name), getattr(again, name)) for name in vars(writes))


@pytest.mark.parametrize("few", [0.0, 1.0], ids=["all embeddings", "those asked for"])
def test_the_gain_stretches_every_channel_of_every_token_asked_for(few: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyze.neuron_types.logit_attribution.FEW", few)
    ends = tiny.random_model(1, vocab_size=300).decoder
    detected, occurrences, fc2 = (
        [[7, 3], [], [299]],
        np.r_[np.ones(299, np.int64), 5],
        torch.randn(32, 3, generator=torch.Generator().manual_seed(0)),
    )
    writes = layer_writes(ends, fc2, detected, occurrences, layer=3)
    asked = np.c_[[7, 3, 299], matched_tokens(detected, occurrences, layer=3)]
    for convention, gain in enumerate((torch.ones(32), ends.final_layer_norm.weight)):
        expected = ends.embed_tokens.weight @ (fc2 * gain[:, None])
        assert writes.projections[convention] == pytest.approx(expected.detach().numpy()[asked, [[0], [0], [2]]], abs=1e-4)


def test_the_baseline_sees_what_random_tokens_share_and_raw_shares_with_it() -> None:
    """A detector that pushes all logits down suppresses its token in the raw convention, and so it would any other."""
    writes, table = random_layer(seed=2)
    writes.projections[0] -= 100.0
    writes.mean -= 100.0
    shares = suppressing_shares(table, writes, Thresholds())
    assert shares["suppressing_share_raw"] == shares["random_suppressing_share_raw"] == 1.0
    assert shares["random_suppressing_share_centered"] == pytest.approx(0.5, abs=0.06)


def test_no_token_left_to_draw_leaves_no_baseline() -> None:
    assert matched_tokens([[0, 1]], np.array([5, 4, 0]), layer=0).tolist() == [[-1] * DRAWS] * 2
    ends = tiny.random_model(vocab_size=3).decoder
    writes = layer_writes(ends, torch.randn(32, 1), [[0, 1]], np.array([5, 4, 0]), layer=0)
    table = pl.DataFrame({"neuron": [0], "token_detector": [True], "detected_tokens": [[1]]})
    assert np.isnan(group_means(table, writes)[:, :, 1:]).all()
    shares = suppressing_shares(table, writes, Thresholds())
    assert shares["suppressing_share_raw"] in (0.0, 1.0) and shares["random_suppressing_share_raw"] is None
