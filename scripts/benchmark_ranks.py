"""Two processes of one core each against one of two: time and memory of a census. python scripts/benchmark_ranks.py [ROUNDS]"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import numpy as np
import torch
from rich.console import Console

from allocator import anonymous_memory, keep_freed
from analyze.census.distributed import joined
from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.config import AnalyzeConfig
from analyze.pipeline import sequences_for
from corpora.config import CorpusConfig
from device import cores_of_this_process
from errors import BEGINS_AGAIN, plainly
from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint
from models.opt import OPT
from wandb_run import WandbConfig

SHAPE = OPTConfig(layers=4, width=512, heads=8, neurons=4096, context=512, vocab_size=8192)
SEQUENCES = 512
LAUNCHES = {"one process": (), "two ranks": ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")}


def census(folder: Path, out: str) -> None:
    """One process of a census; prints what it took."""
    ranks = joined()
    keep_freed()
    torch.set_num_threads(cores_of_this_process())
    corpus = CorpusConfig(name="tokens", source="tokens", path=str(folder / "ids.npy"))
    config = AnalyzeConfig(
        ckpt=str(folder / "model"),
        corpus=corpus,
        out=out,
        device="cpu",
        wandb=WandbConfig(mode="disabled"),
        tokens=SEQUENCES * 512,
    )
    checkpoint = open_checkpoint(config.ckpt)
    task = CensusTask(checkpoint, sequences_for(checkpoint, config, ranks), Path(out), config)
    before, peak, done = anonymous_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    ranks.told(None)
    begun = time.perf_counter()
    take(task, Console(quiet=True), ranks)
    seconds = time.perf_counter() - begun
    done.set()
    watching.join()
    used = resource.getrusage(resource.RUSAGE_SELF)
    took = {"rank": ranks.rank, "seconds": seconds, "cpu": used.ru_utime + used.ru_stime, "before": before, "peak": peak[0]}
    (Path(out).parent / f"took_{ranks.rank}.json").write_text(json.dumps(took))


def measured(folder: Path, name: str, number: int) -> tuple[float, float]:
    """Seconds of a census, and peak of each process' own memory beyond what it had before, in GB, of the largest."""
    out = folder / f"{name.replace(' ', '_')}_{number}" / "census"
    out.parent.mkdir()
    command = [sys.executable, *LAUNCHES[name], __file__, str(folder), str(out)]
    done = subprocess.run(command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        sys.exit(done.returncode)
    took = [json.loads(file.read_text()) for file in sorted(out.parent.glob("took_*.json"))]
    memory = ", ".join(f"{t['peak'] / 1e9:.2f} GB ({t['before'] / 1e9:.2f} before)" for t in took)
    print(f"{name}: {took[0]['seconds']:.1f} s, {sum(t['cpu'] for t in took):.1f} s of cores, peaks {memory}", flush=True)
    return took[0]["seconds"], max(t["peak"] - t["before"] for t in took) / 1e9


def main(rounds: int) -> None:
    """Take the census in turns, and print ratios of neighbours."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        torch.manual_seed(0)
        save_checkpoint(OPT(SHAPE), folder / "model", {})
        ids = 3 + np.minimum(np.random.default_rng(0).zipf(1.2, (SEQUENCES, 512)), 8000)
        ids[:, 0] = 2
        np.save(folder / "ids.npy", ids)
        pairs = [[measured(folder, name, number) for name in LAUNCHES] for number in range(rounds)]
        same = [{f.name: f.read_bytes() for f in (folder / d).glob("census/layers/*")} for d in ("one_process_0", "two_ranks_0")]
    ratios = np.array([[two[0] / one[0], two[1] / one[1]] for one, two in pairs])
    print(f"two ranks / one process, medians: time {np.median(ratios[:, 0]):.3f}, memory of each {np.median(ratios[:, 1]):.3f}")
    print("the same bytes" if same[0] == same[1] and len(same[0]) == SHAPE.layers else "OTHER BYTES")


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        if len(sys.argv) == 3:
            census(Path(sys.argv[1]), sys.argv[2])
        else:
            main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
