"""One census by two processes, and one of two shards: the files of one census by one process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import tiny

HERE = Path(__file__).parents[2]
TABLES = ("neurons.parquet", "ngrams.parquet", "layers.parquet")


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of our programs in another folder than its own, on one thread, as torchrun would have it."""
    quiet = {"WANDB_MODE": "disabled", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=os.environ | quiet, capture_output=True, text=True, timeout=300, check=True
    )


def census(*settings: str, cwd: Path, launch: tuple[str, ...] = ()) -> None:
    """Take a census of `model`."""
    given = ("ckpt=model", "corpus=tokens", "device=cpu", "wandb.mode=disabled", "micro=2", "threads=1", *settings)
    run(*launch, str(HERE / "analyze" / "run.py"), *given, cwd=cwd)


def files(out: Path) -> dict[str, bytes]:
    """The count files, byte for byte."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("**/*.safetensors"))}


def test_two_ranks_and_two_shards_give_the_files_of_one_process(tmp_path: Path) -> None:
    ids = tiny.random_ids(sequences=9)
    tiny.saved(tmp_path / "model", tiny.random_model())
    for name, rows in (("ids", ids), ("a", ids[:4]), ("b", ids[4:])):
        np.save(tmp_path / f"{name}.npy", rows)
    census("corpus.path=ids.npy", "out=one/out", "keep_ngrams=null", cwd=tmp_path)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    census("corpus.path=ids.npy", "out=ranks/out", "keep_ngrams=null", cwd=tmp_path, launch=launch)
    for shard in ("a", "b"):
        census(f"corpus.path={shard}.npy", f"out=shards/{shard}", "keep_ngrams=null", cwd=tmp_path)
    run(str(HERE / "scripts" / "merge_censuses.py"), "shards/a", "shards/b", "merged/out", cwd=tmp_path)

    one = files(tmp_path / "one" / "out")
    assert len(one) == 2 + 3 + 3
    counted = {name: content for name, content in one.items() if not name.startswith("writes")}
    for other, expected in (("ranks", one), ("merged", counted)):  # to project onto the vocabulary takes the model
        assert files(tmp_path / other / "out") == expected
        assert (tmp_path / other / "out" / "report.html").is_file()
        for table in TABLES:
            ours, theirs = (pl.read_parquet(tmp_path / name / "out" / table) for name in ("one", other))
            assert ours.select(theirs.columns).equals(theirs) and (other == "merged" or ours.columns == theirs.columns)
