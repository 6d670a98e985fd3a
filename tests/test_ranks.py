"""Several processes: which share each has, what they send, and that the files are those of one."""

import os
import pickle
import shutil
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tiny
import torch
import torch.distributed as dist
from processes import SERVER, free_port
from rich.console import Console
from test_counts import counted, fired, same, text

from analyze.census import exchange, joining
from analyze.census import layer_loop as counting
from analyze.census.distributed import Ranks, joined
from analyze.census.exchange import Exchange
from analyze.census.job import CensusTask
from analyze.census.joining import collected
from analyze.census.launching import first_host, launched
from analyze.census.take import take
from analyze.config import AnalyzeConfig
from analyze.counts.layer import Index, LayerCounts, count
from analyze.firing.mask import Firings
from analyze.pipeline import analyze, sequences_for
from analyze.storage.stored import arrays_of, narrow
from corpora.config import CorpusConfig
from corpora.prepare import token_store
from device import cores
from errors import plainly
from models.open_checkpoint import open_checkpoint

SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[007-009,12],cpu1", "SLURM_STEP_TASKS_PER_NODE": "2(x3),1",
}  # fmt: skip


def rank(told: dict[str, str], stderr: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """One process; what it says on standard error is in a file."""
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ |= told
    torch.set_num_threads(1)
    with plainly():
        answer = work(*arguments)
        stderr.with_name(f"answer_{joined().rank}").write_bytes(pickle.dumps(answer))


def by_torchrun(world: int) -> list[dict[str, str]]:
    """What torchrun tells each of so many processes."""
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    return [meet | {"RANK": str(number), "LOCAL_RANK": str(number)} for number in range(world)]


def on_ranks(told: list[dict[str, str]], stderr: Path, work: Callable[..., Any], *arguments: Any) -> tuple[list[Any], list[int]]:
    """What `work` gives in processes that are told so, those that come to its end, and all exit codes."""
    processes: list[BaseProcess] = [SERVER.Process(target=rank, args=(env, stderr, work, arguments)) for env in told]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        process.kill()
        process.join()
    codes = [process.exitcode for process in processes]
    answers = sorted(stderr.parent.glob("answer_*"))
    return [pickle.loads(answer.read_bytes()) for answer in answers], [code for code in codes if code is not None]


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("things", [0, 1, 2, 5, 8, 33])
def test_shares_are_neighbours_that_differ_by_one_at_most(world: int, things: int) -> None:
    for share in (Ranks(0, world).share, Ranks(0, world).words):
        shares = [share(things, rank) for rank in range(world)]
        assert [n for part in shares for n in part] == list(range(things))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert things == 0 or len(Ranks(0, world).words(things))
    neurons = np.arange(max(0, 64 * things - 13))
    assert (
        np.concatenate([neurons[Ranks(rank, world).neurons(len(neurons))] for rank in range(world)]).tolist() == neurons.tolist()
    )


def _exchanged(whole: np.ndarray, rows_of_batch: int, at_once: int) -> np.ndarray:
    """What a rank has of a matrix when every rank has recorded its share."""
    ranks, words = joined(), whole.shape[1] // 8
    exchange.AT_ONCE = at_once
    batches = -(-len(whole) // rows_of_batch)
    mine = np.full((len(whole), 8 * len(ranks.words(words))), 77, np.uint8)
    for _ in range(2):  # layer after layer
        under_way = Exchange(ranks, batches, rows_of_batch, words, mine)
        for batch in ranks.share(batches):
            rows = whole[batch * rows_of_batch : (batch + 1) * rows_of_batch]
            under_way.room(batch * rows_of_batch, len(rows))[:] = rows
            under_way.written(batch * rows_of_batch + len(rows))
        under_way.finish()
    return mine


@pytest.mark.parametrize(
    ("world", "batches", "words", "at_once"), [(2, 9, 5, 1), (3, 7, 4, 700), (3, 2, 2, 1), (2, 1, 1, 1 << 20), (3, 8, 1, 1)]
)
def test_every_rank_gets_all_rows_of_its_words(world: int, batches: int, words: int, at_once: int, tmp_path: Path) -> None:
    rows_of_batch = 12
    whole = np.random.default_rng(0).integers(0, 256, (rows_of_batch * batches - 5, 8 * words), np.uint8)
    found, _ = on_ranks(by_torchrun(world), tmp_path / "said", _exchanged, whole, rows_of_batch, at_once)
    assert np.array_equal(np.concatenate(found, axis=1), whole)


def layer(neurons: int, keep: int | None) -> tuple[LayerCounts, Index, Firings]:
    """Counts of neurons of all kinds on a corpus of n-grams of all kinds: dead ones, ones that fire always and on a token."""
    ids = text(30, 60, 40, 3)
    rng = np.random.default_rng(4)
    fires = rng.random((ids.size, neurons)) < np.where(np.arange(neurons) % 3 == 0, 0, rng.random(neurons) ** 4)
    fires[:, 1] = True
    fires[:, -1] = ids.ravel() == 5
    return *counted(fires, ids, keep), fired(fires, ids)


def part(firings: Firings, neurons: slice) -> Firings:
    """Some whole words of neurons."""
    bits = np.ascontiguousarray(firings.bits[:, neurons.start // 8 : -(-neurons.stop // 64) * 8])
    return Firings(bits, neurons.stop - neurons.start, firings.max_pre[neurons], firings.first_fired[neurons])


@pytest.mark.parametrize("keep", [None, 20, 0])
def test_parts_of_neurons_joined_are_the_whole(keep: int | None) -> None:
    whole, rows, firings = layer(200, keep)
    parts = [count(part(firings, Ranks(rank, 3).neurons(200)), rows, keep) for rank in range(3)]
    assert same(tiny.joined_neurons(parts), whole) and same(tiny.joined_neurons([whole]), whole)


def _collected(world: int, keep: int | None) -> dict[str, np.ndarray] | None:
    ranks = joined()
    joining.SENT_AT_ONCE = 1000
    _, rows, firings = layer(200 if world == 2 else 70, keep)
    neurons = ranks.neurons(firings.neurons)
    mine = count(part(firings, neurons), rows, keep) if neurons.stop > neurons.start else None
    found = collected(mine, ranks)
    return None if found is None else dict(found)


@pytest.mark.parametrize("world", [2, 3])
def test_what_ranks_counted_is_collected_in_the_types_of_the_whole(world: int, tmp_path: Path) -> None:
    whole, _, _ = layer(200 if world == 2 else 70, 20)
    found, *nothing = on_ranks(by_torchrun(world), tmp_path / "said", _collected, world, 20)[0]
    expected = {name: narrow(array) for name, array in arrays_of(whole).items()}
    assert nothing == [None] * (world - 1) and found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype and np.array_equal(found[name], expected[name]) for name in expected)


def census(folder: Path, out: str, **settings: Any) -> AnalyzeConfig:
    """Settings of a census of `model`; a micro-batch is two sequences."""
    settings = {"micro": 2, "threads": 1} | settings
    corpus = settings.pop("corpus", CorpusConfig(name="tokens", source="tokens", path=str(folder / "ids.npy")))
    return tiny.analysis(folder / "model", corpus, folder / out / "census", **settings)


def take_census(config: AnalyzeConfig) -> None:
    """Without figures, on one thread: what neurons write are float sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    checkpoint = open_checkpoint(config.ckpt)
    take(CensusTask(checkpoint, sequences_for(checkpoint, config), Path(str(config.out)), config), Console(quiet=True))
    torch.set_num_threads(threads)


def inputs(folder: Path, neurons: int, sequences: int = 9) -> None:
    np.save(folder / "ids.npy", tiny.random_ids(sequences))
    tiny.saved(folder / "model", tiny.random_model(neurons=neurons))


def files(folder: Path, out: str) -> dict[str, bytes]:
    """All that was counted, byte for byte."""
    found = sorted((folder / out / "census").glob("**/*.safetensors"))
    return {str(file.relative_to(folder / out)): file.read_bytes() for file in found}


def tables(folder: Path, out: str) -> dict[str, pl.DataFrame]:
    return {file.name: pl.read_parquet(file) for file in sorted((folder / out / "census").glob("*.parquet"))}


@pytest.mark.parametrize(("world", "neurons", "sequences"), [(2, 200, 9), (3, 200, 9), (2, 44, 9), (3, 150, 3)])
def test_the_files_are_those_of_one_process(world: int, neurons: int, sequences: int, tmp_path: Path) -> None:
    """Words that do not divide by ranks, fewer words than ranks, fewer micro-batches than ranks."""
    inputs(tmp_path, neurons, sequences)
    take_census(census(tmp_path, "one"))
    _, codes = on_ranks(by_torchrun(world), tmp_path / "said", take_census, census(tmp_path, "many"))
    assert codes == [0] * world, (tmp_path / "said").read_text()
    one, many = files(tmp_path, "one"), files(tmp_path, "many")
    assert len(one) == 2 + 3 + 3 and one == many
    for name, table in tables(tmp_path, "one").items():
        assert tables(tmp_path, "many")[name].equals(table)


def test_processes_of_srun_are_seen(tmp_path: Path) -> None:
    inputs(tmp_path, 200)
    take_census(census(tmp_path, "one"))
    step = SLURM | {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2", "MASTER_PORT": str(free_port())}
    told = [step | {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(2)]
    _, codes = on_ranks(told, tmp_path / "said", analyze, census(tmp_path, "many"))
    assert codes == [0, 0], (tmp_path / "said").read_text()
    assert files(tmp_path, "one") == files(tmp_path, "many")


def test_where_processes_of_srun_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert launched() == 2
    assert {name: os.environ[name] for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR")} == {
        "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu007",
    }  # fmt: skip
    assert 15_000 <= int(os.environ["MASTER_PORT"]) < 30_000
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert launched() == 5, "torchrun within a job of SLURM"
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.delenv("SLURM_STEP_ID")
    assert launched() == 1, "a shell within an allocation, or a batch script"
    assert [first_host(nodes) for nodes in ("a", "a,b", "r[1-2]n[03,5],x", "a-[9]")] == ["a", "a", "r1n03", "a-9"]


def _threads(config: AnalyzeConfig) -> tuple[int, float]:
    analyze(config)
    backend = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
    return torch.get_num_threads(), min(
        group.options._timeout.total_seconds() for group in (backend, joined().counting._get_backend(torch.device("cpu")))
    )


def test_a_corpus_is_prepared_once_while_the_others_wait_however_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each process takes its part of the cores, whatever torchrun has set."""
    corpus = tiny.text_corpus(tmp_path / "text")
    tiny.saved(tmp_path / "model", tiny.random_model(vocab_size=320))
    shutil.copyfile(token_store(corpus).tokenizer_file, tmp_path / "model" / "tokenizer.json")
    shutil.rmtree(tmp_path / "store")
    settings = {"corpus": corpus, "tokens": 500}
    take_census(census(tmp_path, "one", **settings))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "store").glob("*/manifest.json")}
    (tmp_path / "store").rename(tmp_path / "of one")
    found, codes = on_ranks(by_torchrun(2), tmp_path / "said", _threads, census(tmp_path, "many", threads=None, **settings))
    assert codes == [0, 0] and len(before) == len(list((tmp_path / "store").glob("made-*"))) == 1
    one, many = (
        {name: content for name, content in files(tmp_path, out).items() if "writes" not in name} for out in ("one", "many")
    )
    assert one == many and len(one) == 2 + 3
    assert [threads for threads, _ in found] == [max(1, cores() // 2)] * 2
    assert min(seconds for _, seconds in found) > 7 * 24 * 3600


def _dies(config: AnalyzeConfig, of: int) -> None:
    """A census in which a rank is killed when it has sent what it counted of the second layer."""
    layers: list[Any] = []

    def collected_or_killed(counts: Any, ranks: Ranks) -> Any:
        layers.append(collected(counts, ranks))
        if len(layers) == 2 and ranks.rank == of:
            os.kill(os.getpid(), signal.SIGKILL)
        return layers[-1]

    vars(counting)["collected"] = collected_or_killed
    take_census(config)


@pytest.mark.parametrize("residuals", ["memory", "file"])
@pytest.mark.parametrize("killed", [0, 1])
def test_a_kill_ends_all_and_the_same_command_goes_on(killed: int, residuals: str, tmp_path: Path) -> None:
    inputs(tmp_path, 200)
    take_census(census(tmp_path, "one"))
    config = census(tmp_path, "many", residuals=residuals)
    _, codes = on_ranks(by_torchrun(2), tmp_path / "said", _dies, config, killed)
    assert codes[killed] == -signal.SIGKILL and codes[1 - killed] == 1
    assert "Traceback" not in (tmp_path / "said").read_text()
    done = sorted(file.name for file in (tmp_path / "many/census/layers").glob("*.safetensors"))
    assert done[0] == "layer_000.safetensors" and len(done) < 3
    _, codes = on_ranks(by_torchrun(2), tmp_path / "said", take_census, config)
    assert codes == [0, 0] and files(tmp_path, "one") == files(tmp_path, "many")


@pytest.mark.parametrize("sequence", [0, 8])
def test_a_mistake_of_one_rank_ends_all_in_one_sentence(sequence: int, tmp_path: Path) -> None:
    ids, model = tiny.random_ids(), tiny.random_model(neurons=200)
    ids[ids == 39] = 38
    ids[sequence, 5] = 39
    with torch.no_grad():
        model.get_parameter("decoder.embed_tokens.weight")[39] = 3e38
    np.save(tmp_path / "ids.npy", ids)
    tiny.saved(tmp_path / "model", model)
    _, codes = on_ranks(by_torchrun(3), tmp_path / "said", analyze, census(tmp_path, "many"))
    said = (tmp_path / "said").read_text()
    assert codes == [1, 1, 1] and said.count("error:") == 1 and f"not finite in sequence {sequence}" in said
    assert "Traceback" not in said


def test_a_mistake_of_all_is_said_once(tmp_path: Path) -> None:
    inputs(tmp_path, 44)
    (tmp_path / "model" / "config.json").unlink()
    _, codes = on_ranks(by_torchrun(3), tmp_path / "said", analyze, census(tmp_path, "many"))
    said = (tmp_path / "said").read_text()
    assert codes == [1, 1, 1] and said.count("error:") == 1 and "Traceback" not in said
