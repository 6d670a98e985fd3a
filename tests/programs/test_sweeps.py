"""Several runs by one command, under hydra's launchers: every run in a folder named by its overrides."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from processes import HERE, SERVER

from models.open_checkpoint import open_checkpoint
from train import training
from train.config import TrainConfig

RUN = ["corpus=files", "corpus.path=text", "corpus.vocab_size=300", "corpus.validation_share=0.2", "wandb.mode=disabled"]
SHAPE = ["model.layers=1", "model.width=16", "model.heads=2", "model.neurons=24", "model.context=16", "device=cpu", "threads=1"]
STEPS = ["steps=2", "milestones=[2]", "batch.tokens=128"]
LONG = ["optimizer.warmup_steps=10", "optimizer.schedule_steps=1000"]  # with them, a run's name is too long for all its settings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps")
    tiny.text_corpus(folder / "text")
    return folder


def sweep(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process that no other server forked: launchers have servers of their own."""
    command = [sys.executable, str(HERE / "train" / "run.py"), "-m", *RUN, *SHAPE, *STEPS, *arguments]
    alone = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "WANDB_MODE": "disabled"}
    return subprocess.run(command, cwd=place, env=alone, capture_output=True, text=True, check=False)


def finished(runs: Path) -> dict[str, int | None]:
    """The runs in a folder that have a last.ckpt, by name, and the step it holds."""
    return {file.parents[1].name: open_checkpoint(str(file)).step for file in sorted(runs.glob("*/checkpoints/last.ckpt"))}


def test_a_run_that_fails_does_not_keep_the_others_from_theirs(place: Path) -> None:
    done = sweep(place, "batch.micro=3,4,8", "runs=one", "name='micro_${batch.micro}'")
    assert done.returncode == 1 and "error: batch.tokens=128 is not a whole number of micro-batches of 3" in done.stderr
    assert finished(place / "one") == {"micro_4": 2, "micro_8": 2}


def numbered(place: Path) -> None:
    """A sweep of three, whose runs are written down and not made."""
    os.chdir(place)

    def written_down(config: TrainConfig, overrides: list[str], job: int, begun: float) -> None:
        with Path("jobs").open("a") as file:
            file.write(f"{config.seed}: {job} {config.name[:22]}\n")

    training.train = written_down  # type: ignore[assignment]
    sys.argv = [str(HERE / "train" / "run.py"), "-m", *RUN, *LONG, "seed=7,8,9", "model=nopos"]
    sys.path.insert(0, str(HERE / "train"))
    runpy.run_path(sys.argv[0], run_name="__main__")


def test_jobs_of_a_sweep_are_numbered_for_the_gpus_to_take_turns_and_named_by_what_is_swept(place: Path) -> None:
    process = SERVER.Process(target=numbered, args=(place,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (place / "jobs").read_text() == "".join(
        f"{seed}: {job} seed_{seed}-corpus.path_tex\n" for seed, job in ((7, 0), (8, 1), (9, 2))
    )


@pytest.mark.long
def test_submitit_and_joblib_run_jobs_in_processes_of_their_own(place: Path) -> None:
    assert sweep(place, "hydra/launcher=submitit_local", "model=nopos", "runs=two").returncode == 0
    assert list(finished(place / "two").values()) == [2]
    gone_on = sweep(place, "hydra/launcher=joblib", "model=baseline,nopos", "runs=two", "steps=3")
    assert gone_on.returncode == 0, gone_on.stderr
    assert list(finished(place / "two").values()) == [3, 3]
