"""One census by two processes, and one of two shards: the files of one census by one process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import tiny
from processes import HERE, QUIET, SECONDS, program

TABLES = ("neurons.parquet", "ngrams.parquet", "layers.parquet")


def census(*settings: str, cwd: Path, ranks: int = 1) -> None:
    """Take a census of `model`, on `ranks` processes."""
    given = ("ckpt=model", "corpus=tokens", "device=cpu", "wandb.mode=disabled", "micro=2", "threads=1", *settings)
    if ranks == 1:
        done = program("analyze/run.py", *given, cwd=cwd)
    else:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
        words = [*launch, str(HERE / "analyze" / "run.py"), *given]
        done = subprocess.run(
            words, cwd=cwd, env=os.environ | QUIET, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    assert done.returncode == 0, done.stderr


def files(out: Path) -> dict[str, bytes]:
    """The count files, byte for byte."""
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("**/*.safetensors"))}


def test_two_ranks_and_two_shards_give_the_files_of_one_process(tmp_path: Path) -> None:
    ids = tiny.random_ids(sequences=9)
    tiny.saved(tmp_path / "model", tiny.random_model())
    for name, rows in (("ids", ids), ("a", ids[:4]), ("b", ids[4:])):
        np.save(tmp_path / f"{name}.npy", rows)
    census("corpus.path=ids.npy", "out=one/out", "keep_ngrams=null", cwd=tmp_path)
    census("corpus.path=ids.npy", "out=ranks/out", "keep_ngrams=null", cwd=tmp_path, ranks=2)
    for shard in ("a", "b"):
        census(f"corpus.path={shard}.npy", f"out=shards/{shard}", "keep_ngrams=null", cwd=tmp_path)
    assert program("scripts/merge_censuses.py", "shards/a", "shards/b", "merged/out", cwd=tmp_path).returncode == 0

    one = files(tmp_path / "one" / "out")
    assert len(one) == 2 + 3 + 3
    counted = {name: content for name, content in one.items() if not name.startswith("writes")}
    for other, expected in (("ranks", one), ("merged", counted)):  # to project onto the vocabulary takes the model
        assert files(tmp_path / other / "out") == expected
        assert (tmp_path / other / "out" / "report.html").is_file()
        for table in TABLES:
            ours, theirs = (pl.read_parquet(tmp_path / name / "out" / table) for name in ("one", other))
            assert ours.select(theirs.columns).equals(theirs) and (other == "merged" or ours.columns == theirs.columns)
