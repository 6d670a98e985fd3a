"""What a process takes of its machine: cores, a GPU of its own; as torchrun, srun, a sweep and other systems leave it to be found."""

import os

import pytest
import torch

from device import cores_of_this_process, local_processes, use_threads

LAUNCHERS = ("LOCAL_WORLD_SIZE", "LOCAL_RANK", "WORLD_SIZE", "RANK", "OMP_NUM_THREADS", "TORCHELASTIC_RUN_ID")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No launcher has told this process anything, and it may run on 16 cores."""
    for name in [*LAUNCHERS, *(name for name in os.environ if name.startswith("SLURM_"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    return monkeypatch


def told(patch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        patch.setenv(name, str(value))


SLURM = {"SLURM_LOCALID": 1, "SLURM_NTASKS": 8, "SLURM_NNODES": 2}


@pytest.mark.parametrize(
    ("environment", "processes", "cores"),
    [
        ({}, 1, 16),
        ({"LOCAL_WORLD_SIZE": 4, "WORLD_SIZE": 8}, 4, 4),
        ({"LOCAL_WORLD_SIZE": 32}, 32, 1),
        (SLURM, 4, 4),
        (SLURM | {"SLURM_CPUS_PER_TASK": 6}, 4, 6),
        (SLURM | {"SLURM_CPUS_PER_TASK": 64}, 4, 16),
        ({"SLURM_NTASKS": 8}, 1, 16),
        (SLURM | {"LOCAL_WORLD_SIZE": 2, "SLURM_CPUS_PER_TASK": 16}, 2, 8),
    ],
    ids=["alone", "torchrun", "crowded", "srun", "bound", "bound to less", "inside a job, without srun", "torchrun under srun"],
)
def test_processes_of_a_machine_share_its_cores(
    environment: dict[str, object], processes: int, cores: int, alone: pytest.MonkeyPatch
) -> None:
    told(alone, **environment)
    assert (local_processes(), cores_of_this_process()) == (processes, cores)


def test_without_affinity_all_cores_count(alone: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    alone.delattr("os.sched_getaffinity")
    alone.setattr("os.cpu_count", lambda: 10)
    assert cores_of_this_process() == 10


@pytest.mark.parametrize(
    ("environment", "asked", "threads"),
    [
        ({"OMP_NUM_THREADS": 1, "LOCAL_WORLD_SIZE": 4}, None, 4),
        ({"OMP_NUM_THREADS": 1, "LOCAL_WORLD_SIZE": 4}, 2, 2),
        ({"OMP_NUM_THREADS": 3, "LOCAL_WORLD_SIZE": 4}, None, None),
        ({"OMP_NUM_THREADS": 1}, None, None),
    ],
    ids=["torchrun's one", "asked for", "somebody's own", "alone"],
)
def test_one_thread_of_torchrun_is_not_taken_for_a_wish(
    environment: dict[str, object], asked: int | None, threads: int | None, alone: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    alone.setattr(torch, "set_num_threads", taken.append)
    told(alone, **environment)
    use_threads(asked)
    assert taken == ([] if threads is None else [threads])
