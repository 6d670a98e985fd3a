"""What memory may be taken: within every control group that the process is in, and what SLURM gave; on trees of files made up here."""

from pathlib import Path

import pytest
import torch

from analyze.census.distributed import Ranks
from analyze.census.take import least
from analyze.machine import Budgets, budgets, free_memory, machine
from device import CPU

MB = 1 << 20


def group(folder: Path, limit: object, used: int, cache: int = 0, v1: bool = False) -> None:
    """A control group with a limit, what is used of it and what of that only holds files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("limit_in_bytes", "usage_in_bytes") if v1 else ("max", "current")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / f"memory.{name}").write_text(f"{value}\n")
    prefix = "total_" if v1 else ""
    (folder / "memory.stat").write_text(f"anon 5\n{prefix}active_file {cache // 4}\n{prefix}inactive_file {cache - cache // 4}\n")


def linux(root: Path, of_process: str) -> Path:
    """A machine with 100 MB available."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 200000 kB\nMemAvailable: {100 * 1024} kB\n")
    (root / "proc/self/cgroup").write_text(of_process)
    return root


def test_the_least_of_all_groups_around_the_process_counts(tmp_path: Path) -> None:
    root = linux(tmp_path, "0::/slurm/job_7/step_0\n")
    groups = root / "sys/fs/cgroup"
    group(groups / "slurm", "max", 90 * MB)
    group(groups / "slurm/job_7", 50 * MB, 40 * MB, cache=30 * MB)
    group(groups / "slurm/job_7/step_0", 80 * MB, 5 * MB)
    group(groups / "slurm/job_8", 1 * MB, 0)
    assert free_memory(root, {}) == 40 * MB, "limit - used + cache of the job; the step's is wider, another job's none of ours"
    group(groups / "slurm/job_7/step_0", 10 * MB, 5 * MB, cache=MB)
    assert free_memory(root, {}) == 6 * MB
    group(groups / "slurm/job_7/step_0", 10 * MB, 11 * MB)
    assert free_memory(root, {}) == 0


def test_groups_of_the_first_version_count(tmp_path: Path) -> None:
    root = linux(tmp_path, "9:cpu,cpuacct:/job\n5:memory:/slurm/job_7\n0::/init.scope\n")
    groups = root / "sys/fs/cgroup/memory"
    group(groups, 9223372036854771712, 190 * MB, v1=True)
    group(groups / "slurm", 9223372036854771712, 190 * MB, v1=True)
    group(groups / "slurm/job_7", 50 * MB, 40 * MB, cache=30 * MB, v1=True)
    assert free_memory(root, {}) == 40 * MB


@pytest.mark.parametrize("path", ["/", "/docker/0f3a", "/../../elsewhere"])
def test_a_container_sees_its_group_as_the_root(path: str, tmp_path: Path) -> None:
    """Whatever path its process is told: it is one outside."""
    root = linux(tmp_path / "machine", f"0::{path}\n")
    group(root / "sys/fs/cgroup", 50 * MB, 40 * MB, cache=30 * MB)
    assert free_memory(root, {}) == 40 * MB
    group(root / "sys/fs/cgroup", "max", 40 * MB)
    assert free_memory(root, {}) == 100 * MB


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "64"}, 64),
        ({"SLURM_MEM_PER_CPU": "8", "SLURM_CPUS_ON_NODE": "4"}, 32),
        ({"SLURM_MEM_PER_GPU": "20", "SLURM_GPUS_ON_NODE": "2"}, 40),
        ({"SLURM_MEM_PER_NODE": "0"}, 100),  # all there is
        ({"SLURM_MEM_PER_CPU": "8"}, 100),
        ({"SLURM_MEM_PER_NODE": "400"}, 100),
        ({}, 100),
    ],
)
def test_what_slurm_gave_bounds_what_is_taken(environment: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert free_memory(linux(tmp_path, "0::/\n"), environment) == expected * MB


def test_where_no_linux_tells_half_of_the_memory_is_free(tmp_path: Path) -> None:
    assert free_memory(tmp_path, {}) > 100 * MB
    assert free_memory(tmp_path, {"SLURM_MEM_PER_NODE": "1"}) == MB


def test_what_is_asked_for_goes_before_what_is_free(tmp_path: Path) -> None:
    has = machine(CPU(), tmp_path / "new" / "scratch")
    assert has.gpu == 0 and has.memory > 0 and has.disk > 0
    assert budgets(Budgets(100, 1000, 10), None, None) == Budgets(90, 900, 10)
    assert budgets(Budgets(100, 1000, 10), 2.0, 0.5) == Budgets(2_000_000_000, 500_000_000, 10)


def test_the_fullest_gpu_of_all_processes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the memory of the smallest machine, and the most processes on one."""
    other = torch.tensor([3, 900, 800, -4])  # its GPU is nearly full; it is the fourth on its machine

    def with_the_other(_: Ranks, values: torch.Tensor) -> None:
        values.copy_(torch.minimum(values, other))

    monkeypatch.setattr(Ranks, "least", with_the_other)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert least(Budgets(70, 500, 1000), Ranks(1, 8)) == (Budgets(3, 500, 800), 4)
    assert least(Budgets(70, 500, 1000), Ranks())[1] == 1
