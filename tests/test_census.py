"""The census of random models: every integer by a plain loop, the same bytes however it is taken."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import oracle
import polars as pl
import pytest
import tiny
import torch
from reading import read_model
from rich.console import Console
from safetensors.numpy import load_file

from analyze.census.job import CensusTask
from analyze.census.metadata import dead_bound
from analyze.census.take import take
from analyze.config import Thresholds
from analyze.counts.layer import Index
from analyze.pipeline import censuses_of, sequences_for
from analyze.recompute import redraw
from analyze.tables.build import census_tables, write_tables
from corpora.tokenizer import train_bpe
from errors import UserError
from models.checkpoint import save_checkpoint
from models.open_checkpoint import open_checkpoint
from models.opt import OPT

INTEGERS = ("n_tokens", "n_fired", "n_fired_bos", "first_fired", "unigrams_95", "bigrams_95", "trigrams_95", "last_position_95",
            "n_detected_bigrams", "n_detected_trigrams")  # fmt: skip
SAME = (*INTEGERS, "dead", "token_detector", "bigram_detector", "trigram_detector", "detected_tokens", "position_type", "type")
CLOSE = ("frequency", "max_pre", "token_support", "bigram_support", "trigram_support", "position_mi", "position_mi_corrected")
LAYER_COUNTS = {"dead": "dead", "token_detectors": "token_detectors", "detected_tokens": "detected_tokens",
                "detected_tokens_cumulative": "detected_tokens_cumulative", "detected_tokens_new": "detected_tokens_new_overall",
                "detected_tokens_new_vs_previous": "detected_tokens_new_vs_previous", "trigram_detectors": "trigram_detectors",
                "detected_trigrams": "detected_trigrams", "detected_trigrams_cumulative": "detected_trigrams_cumulative",
                "detected_trigrams_new": "detected_trigrams_new_overall",
                "detected_trigrams_new_vs_previous": "detected_trigrams_new_vs_previous"}  # fmt: skip


def taken(folder: Path, ids: np.ndarray, out: str = "out", **settings: Any) -> Path:
    """Take the census of `folder/model` on `ids` into `folder/out`."""
    corpus = tiny.tokens_corpus(folder / "ids.npy", ids)
    config = tiny.analysis(folder / "model", corpus, folder / out, **({"micro": 4} | settings))
    checkpoint = open_checkpoint(config.ckpt)
    take(CensusTask(checkpoint, sequences_for(checkpoint, config), folder / out, config), Console(quiet=True))
    return folder / out


def counts(out: Path) -> dict[str, bytes]:
    """The count files, byte for byte."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("**/*.safetensors"))}


@torch.no_grad()
def preactivations(folder: Path, ids: np.ndarray) -> list[list[list[list[float]]]]:
    """Those of every layer, by the whole model at once."""
    model = read_model(open_checkpoint(str(folder / "model")))
    x, found = model.decoder.embed(torch.from_numpy(ids)), []
    for block in model.decoder.layers:
        x, pre = block(x)
        found.append(pre.tolist())
    return found


def detecting_model() -> OPT:
    """A random model some of whose neurons in layer 0 see little but the token: detectors, dead and always-on ones."""
    model = tiny.random_model(std=0.05)
    block = tiny.block(model, 0)
    with torch.no_grad():
        model.decoder.embed_tokens.weight.normal_(0, 3, generator=torch.Generator().manual_seed(5))
        x = torch.nn.functional.layer_norm(model.decoder.embed_tokens.weight, [32])
        block.final_layer_norm.weight.fill_(1.0)
        for neuron in range(30):
            block.fc1.weight[neuron] = x[4 + neuron]
            block.fc1.bias[neuron] = -(10.0 + neuron / 2)
        block.fc1.bias[40], block.fc1.bias[41] = -99.0, 99.0
    return model


@pytest.mark.parametrize("make", [tiny.random_model, detecting_model], ids=["random", "detectors"])
def test_every_number_is_that_of_a_plain_loop(make: Any, tmp_path: Path) -> None:
    ids = tiny.random_ids(sequences=40)
    tiny.saved(tmp_path / "model", make())
    out = taken(tmp_path, ids)
    table = pl.read_parquet(out / "neurons.parquet")
    layers = [oracle.neuron_rows(ids.tolist(), pre, bos_id=2) for pre in preactivations(tmp_path, ids)]
    assert table.height == 3 * 44
    for row in table.iter_rows(named=True):
        expected = layers[row["layer"]][row["neuron"]]
        for name in SAME:
            assert row[name] == expected[name], name
        for name in CLOSE:
            assert row[name] == pytest.approx(float(expected[name]), abs=1e-5), name
    listed = [
        (layer, row["neuron"], n, list(gram), fires, occurs)
        for layer, rows in enumerate(layers)
        for n, name in enumerate(("unigrams", "bigrams", "trigrams"), start=1)
        for row in rows
        for gram, fires, occurs in row[f"detected_{name}"]
    ]
    assert pl.read_parquet(out / "ngrams.parquet").rows() == listed
    found = table["type"].unique().to_list()
    assert make is tiny.random_model or {"dead", "token"} <= set(found), found
    for row, expected in zip(
        pl.read_parquet(out / "layers.parquet").iter_rows(named=True), oracle.layer_rows(layers), strict=True
    ):
        assert {name: row[name] for name in LAYER_COUNTS} == {name: expected[theirs] for name, theirs in LAYER_COUNTS.items()}
        for name in ("unigrams", "bigrams", "trigrams"):
            assert [row[column] for column in row if column.startswith(f"{name}_")] == expected[f"{name}_buckets"]
        assert row["mean_frequency_alive"] == pytest.approx(float(expected["mean_frequency_alive"]))


def test_once_twice_and_restarted_after_each_layer_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    whole = counts(taken(tmp_path, ids))
    assert len(whole) == 2 + 3 + 3
    assert counts(taken(tmp_path, ids, "again")) == whole
    for layer in (0, 1, 2):
        taken(tmp_path, ids, "restarted", layers=str(layer))
    assert counts(tmp_path / "restarted") == whole

    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "layers").iterdir()}
    for weights in ("analyze.forward.weight_prefetch.Weights.blocks", "models.checkpoint.Checkpoint.ends"):
        monkeypatch.setattr(weights, None)  # finished layers need no weights
    taken(tmp_path, ids)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "layers").iterdir()} == before


def test_a_kill_in_the_middle_of_a_layer_loses_that_layer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    whole = counts(taken(tmp_path, ids))
    with monkeypatch.context() as killed:
        killed.setattr("analyze.census.layer_loop.count", _killed_at_the_second(killed))
        with pytest.raises(KeyboardInterrupt):
            taken(tmp_path, ids, "killed")
    assert len(counts(tmp_path / "killed")) == 2 + 1
    assert counts(taken(tmp_path, ids, "killed")) == whole


def test_what_a_census_took_is_that_of_all_its_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())

    def cost() -> tuple[dict[str, Any], int]:
        meta = json.loads((tmp_path / "out" / "meta.json").read_text())
        return meta["seconds"], meta["peak_memory_bytes"]

    with monkeypatch.context() as killed:
        killed.setattr("analyze.census.layer_loop.count", _killed_at_the_second(killed))
        with pytest.raises(KeyboardInterrupt):
            taken(tmp_path, ids)
    first, _ = cost()
    assert set(first["layers"]) == {"0"} and first["layers"]["0"] > 0
    taken(tmp_path, ids)
    second, peak = cost()
    assert set(second["layers"]) == {"0", "1", "2"} and second["layers"]["0"] > first["layers"]["0"]
    assert second["total"] > sum(second["layers"].values())
    monkeypatch.setattr("resource.getrusage", lambda _: SimpleNamespace(ru_maxrss=1))
    taken(tmp_path, ids, thresholds=Thresholds(coverage=50))
    third, same = cost()
    assert third["layers"] == second["layers"] and third["total"] > second["total"] and same == peak > 1024


@pytest.mark.parametrize("written", [0, 1])
def test_a_kill_while_a_folder_becomes_ours_leaves_it_ours(written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_bpe(["abcd efgh"], 260).save(str(tmp_path / "tokenizer.json"))
    save_checkpoint(tiny.random_model(), tmp_path / "model", {}, tmp_path / "tokenizer.json")
    flushed: list[int] = []

    def killed(file: int) -> None:
        if len(flushed) == written:
            raise KeyboardInterrupt
        flushed.append(file)

    with monkeypatch.context() as killer:
        killer.setattr("os.fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            taken(tmp_path, tiny.random_ids())
    out = taken(tmp_path, tiny.random_ids())
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()
    assert json.loads((out / "meta.json").read_text())["tokenizer"] == "tokenizer.json"
    assert not list(out.glob(".*.partial"))


def test_counts_that_are_damaged_or_gone_are_named_with_the_command_that_makes_them(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    out = taken(tmp_path, tiny.random_ids(), layers="0")
    file = out / "layers" / "layer_000.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"layer_000\.safetensors is damaged .*: delete it, and .* analyze/run\.py"):
        redraw(out, {}, None, Console(quiet=True))
    file.unlink()
    with pytest.raises(UserError, match=r"layer_000\.safetensors is missing: .* analyze/run\.py"):
        redraw(out, {}, None, Console(quiet=True))
    assert pl.read_parquet(taken(tmp_path, tiny.random_ids(), layers="0") / "neurons.parquet").height == 44
    (out / "index.safetensors").unlink()
    with pytest.raises(UserError, match=r"index\.safetensors is missing: .* analyze/run\.py"):
        redraw(out, {}, None, Console(quiet=True))
    assert pl.read_parquet(taken(tmp_path, tiny.random_ids(), layers="0") / "neurons.parquet").height == 44


def test_a_plan_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    out = taken(tmp_path, tiny.random_ids(), layers="0")
    config = tiny.analysis(
        tmp_path / "model", tiny.tokens_corpus(tmp_path / "ids.npy", tiny.random_ids()), out, micro=4, layers="0"
    )
    censuses_of([(open_checkpoint(config.ckpt), out)], replace(config, plan_only=True), Console(stderr=True))
    assert "nothing is left to count" in capsys.readouterr().err


def test_tables_leave_out_a_layer_that_a_killed_program_counted_and_did_not_finish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    out = taken(tmp_path, ids, layers="0")
    names = ("neurons", "ngrams", "layers", "position_domains")
    before = {name: pl.read_parquet(out / f"{name}.parquet") for name in names}
    with monkeypatch.context() as killed:
        killed.setattr("analyze.census.take.layer_writes", _killed)
        with pytest.raises(KeyboardInterrupt):
            taken(tmp_path, ids)
    assert [len(list((out / kind).iterdir())) for kind in ("layers", "writes")] == [3, 1]
    write_tables(out, census_tables(out, Index.load(out / "index.safetensors"), Thresholds()))
    assert all(pl.read_parquet(out / f"{name}.parquet").equals(table) for name, table in before.items())
    shutil.rmtree(out / "writes")
    write_tables(out, census_tables(out, Index.load(out / "index.safetensors"), Thresholds()))  # as of shards added up
    assert pl.read_parquet(out / "neurons.parquet").height == 3 * 44


def _killed(*_: Any) -> None:
    raise KeyboardInterrupt


def _killed_at_the_second(_: Any) -> Any:
    from analyze.counts.layer import count

    calls = []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return count(*arguments)

    return counted


def test_another_micro_batch_gives_the_same_counts_in_float64(tmp_path: Path) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    one, four = (taken(tmp_path, ids, f"micro{m}", micro=m, dtype="float64") for m in (1, 4))
    for file in sorted((one / "layers").iterdir()):
        ours, theirs = load_file(file), load_file(four / "layers" / file.name)
        for name in set(ours) - {"max_pre"}:
            assert np.array_equal(ours[name], theirs[name]), name
        np.testing.assert_allclose(ours["max_pre"], theirs["max_pre"], rtol=1e-6)


def test_another_micro_batch_differs_in_float32_only_near_zero(tmp_path: Path) -> None:
    ids = tiny.random_ids(sequences=12)
    tiny.saved(tmp_path / "model", tiny.random_model())
    one, five = (pl.read_parquet(taken(tmp_path, ids, f"micro{m}", micro=m) / "neurons.parquet") for m in (1, 5))
    near = [np.abs(np.array(pre)) < 1e-5 for pre in preactivations(tmp_path, ids)]
    allowed = np.concatenate([layer.sum((0, 1)) for layer in near])
    assert (np.abs(one["n_fired"].to_numpy() - five["n_fired"].to_numpy()) <= allowed).all()


def test_a_folder_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    out = taken(tmp_path, ids)
    before = counts(out)
    for settings, named in (({"micro": 3}, "micro-batch"), ({"dtype": "float64"}, "dtype"), ({"tokens": 48}, "corpus")):
        with pytest.raises(UserError, match=named):
            taken(tmp_path, ids, **settings)
    tiny.saved(tmp_path / "model", tiny.random_model(seed=9))
    with pytest.raises(UserError, match="checkpoint"):
        taken(tmp_path, ids)
    assert counts(out) == before


def test_domains_add_up_to_the_whole(tmp_path: Path) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    ids = tiny.random_ids()
    out = taken(tmp_path, ids)
    corpus, layer = load_file(out / "corpus.safetensors"), load_file(out / "layers" / "layer_001.safetensors")
    assert corpus["seen_at"].sum() == corpus["token_occurrences"].sum() == (ids != 2).sum()
    assert layer["fired_at"].sum() == layer["unigrams.table.fired"].sum()
    assert (layer["fired_at"] <= corpus["seen_at"][:, :, None]).all()


def test_bits_in_a_scratch_file_and_milestones_that_share_an_index_change_nothing(tmp_path: Path) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    whole = counts(taken(tmp_path, ids, "one/out"))
    assert counts(taken(tmp_path, ids, "two/out", bits="file", scratch=str(tmp_path / "scratch"))) == whole
    assert not list((tmp_path / "scratch").iterdir())
    assert counts(taken(tmp_path, ids, "one/beside")) == whole
    index, beside = (tmp_path / "one" / name / "index.safetensors" for name in ("out", "beside"))
    assert index.samefile(beside)
    assert counts(taken(tmp_path, ids[:5], "one/less")) != whole


def test_a_disk_that_is_full_after_a_layer_loses_no_layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = tiny.random_ids()
    tiny.saved(tmp_path / "model", tiny.random_model())
    whole = counts(taken(tmp_path, ids))
    taken(tmp_path, ids, "full", layers="0")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.posix_fallocate", full)
        with pytest.raises(UserError, match="Finished layers are kept"):
            taken(tmp_path, ids, "full", bits="file")
        disk.setattr("analyze.storage.stored.save_arrays", full)
        with pytest.raises(UserError, match="finished layers are kept"):
            taken(tmp_path, ids, "full")
    assert len(counts(tmp_path / "full")) == 2 + 1 + 1 and not list((tmp_path / "full").glob(".*"))
    assert counts(taken(tmp_path, ids, "full")) == whole


def test_other_thresholds_change_tables_and_no_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    ids = tiny.random_ids()
    out = taken(tmp_path, ids)
    before, covering = counts(out), pl.read_parquet(out / "neurons.parquet")["unigrams_95"]
    for weights in ("analyze.forward.weight_prefetch.Weights.blocks", "models.checkpoint.Checkpoint.ends"):
        monkeypatch.setattr(weights, None)
    taken(tmp_path, ids, thresholds=Thresholds(coverage=50))
    assert counts(out) == before
    assert (pl.read_parquet(out / "neurons.parquet")["unigrams_95"] < covering).any()


def test_values_that_are_not_finite_name_layer_and_sequence(tmp_path: Path) -> None:
    model = tiny.random_model()
    with torch.no_grad():
        tiny.block(model, 1).fc1.bias.fill_(3e38)  # finite, but not what it adds up to
        tiny.block(model, 1).fc2.weight.fill_(1.0)
    tiny.saved(tmp_path / "model", model)
    with pytest.raises(UserError, match=r"Layer 1 .* sequence 0"):
        taken(tmp_path, tiny.random_ids())


def test_the_bound_of_a_dead_neuron_is_about_three_in_n() -> None:
    assert dead_bound(1_000_000) == pytest.approx(3e-6, rel=0.01)
