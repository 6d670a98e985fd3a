"""How many bytes a census may take on the GPU, in memory and on the disk: as asked for, else as the machine has."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from analyze.scratch import GB
from device import Device

SPARED = 0.9  # of what is free, taken where nothing is asked for
CGROUP = Path("/sys/fs/cgroup")


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


def free_memory() -> int:
    """Bytes of memory that are free, as Linux estimates them, and within what a container may take."""
    meminfo = Path("/proc/meminfo")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    limit, used = CGROUP / "memory.max", CGROUP / "memory.current"
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()) + _page_cache())
    return free


def _page_cache() -> int:
    """Bytes of a container's memory that only hold what is in files, and are given up when something else wants them."""
    file = CGROUP / "memory.stat"
    stat = dict(line.split() for line in file.read_text().splitlines()) if file.exists() else {}
    return int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))


def free_disk(folder: Path) -> int:
    """Bytes free where a folder is, or will be."""
    while not folder.exists():
        folder = folder.absolute().parent
    return shutil.disk_usage(folder).free


def disk_taken(folder: Path) -> int:
    """Bytes of the disk that the files of a folder take; none if it is not there."""
    return sum(512 * file.stat().st_blocks for file in folder.rglob("*"))
