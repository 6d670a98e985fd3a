"""How many bytes a census may take on the GPU, in memory and on the disk: as asked for, else as the machine has."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from device import Device

GB = 1_000_000_000
SPARED = 0.9  # of what is free, taken where nothing is asked for
MEGABYTE = 1 << 20  # as SLURM counts memory
# of cgroup v2 and v1: where its groups are, then the files of the limit, of what is used, and the prefix in memory.stat
CGROUPS = {
    "v2": ("sys/fs/cgroup", "memory.max", "memory.current", ""),
    "v1": ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


@dataclass(frozen=True)
class Budgets:
    """Bytes of three kinds of room."""

    gpu: int
    memory: int
    disk: int


def machine(device: Device, scratch: Path) -> Budgets:
    """What is free here now; on the disk also what a killed program left in `scratch`: it is gone on with, or deleted."""
    return Budgets(device.free_memory(), free_memory(), free_disk(scratch) + disk_taken(scratch))


def budgets(has: Budgets, gpu_memory: float | None, host_memory: float | None) -> Budgets:
    """What may be taken of what the machine `has`; options are in GB."""
    gpu = SPARED * has.gpu if gpu_memory is None else gpu_memory * GB
    memory = SPARED * has.memory if host_memory is None else host_memory * GB
    return Budgets(int(gpu), int(memory), has.disk)


def free_memory(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int:
    """Bytes of memory that are free, as Linux estimates them, within what containers and SLURM let this process take."""
    meminfo = root / "proc/meminfo"
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2  # where no Linux tells
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    return min([free, *_left_in_groups(root), *_slurm(environment)])


def _left_in_groups(root: Path) -> Iterator[int]:
    """What is left in this process' control group and in each that it is within."""
    of_process = root / "proc/self/cgroup"
    paths = {"v2": "/", "v1": "/"}  # the mounted root counts even where the path is another's, as in some containers
    for line in of_process.read_text().splitlines() if of_process.exists() else []:
        number, controllers, path = line.split(":", 2)
        if number == "0" or "memory" in controllers.split(","):
            paths["v2" if number == "0" else "v1"] = path
    for version, (mount, *names) in CGROUPS.items():
        group = root / mount / paths[version].lstrip("/")
        for folder in (group, *group.parents):
            yield from _left(folder, *names)
            if folder == root / mount:
                break


def _left(group: Path, limit: str, used: str, prefix: str) -> Iterator[int]:
    """Bytes up to a group's limit, if it has one; a cache of files is given up when something else wants its room."""
    try:
        most, taken = (group / limit).read_text().strip(), int((group / used).read_text())
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except OSError:
        return
    if most.isdigit():
        cache = sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
        yield max(0, int(most) - taken + cache)


def _slurm(environment: Mapping[str, str]) -> Iterator[int]:
    """What a job of SLURM was given on this machine, however it was asked for; 0 there means all."""

    def number(name: str) -> int:
        value = environment.get(f"SLURM_{name}", "")
        return int(value) if value.isdigit() else 0

    per_cpu, per_gpu = number("MEM_PER_CPU") * number("CPUS_ON_NODE"), number("MEM_PER_GPU") * number("GPUS_ON_NODE")
    for given in (number("MEM_PER_NODE"), per_cpu, per_gpu):
        if given:
            yield given * MEGABYTE


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def disk_taken(folder: Path) -> int:
    """Bytes of the disk that the files of a folder take; none if it is not there."""
    return sum(512 * file.stat().st_blocks for file in folder.rglob("*"))
