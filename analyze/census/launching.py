"""What started this process and its like: torchrun or srun, as the environment has it."""

import os
import re

FIRST_PORT, PORTS = 15_000, 15_000  # below those that the system deals out itself


def launched() -> int:
    """How many processes were started together; those of srun are told apart, and where to meet, in torchrun's words."""
    if "WORLD_SIZE" not in os.environ and "SLURM_STEP_ID" in os.environ and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        os.environ |= _of_srun(os.environ.copy())
    return int(os.environ.get("WORLD_SIZE", "1"))


def _of_srun(told: dict[str, str]) -> dict[str, str]:
    nodes = told.get("SLURM_STEP_NODELIST") or told["SLURM_JOB_NODELIST"]
    port = FIRST_PORT + (int(told["SLURM_JOB_ID"]) + 97 * int(told["SLURM_STEP_ID"])) % PORTS
    return {
        "RANK": told["SLURM_PROCID"],
        "WORLD_SIZE": told["SLURM_NTASKS"],
        "LOCAL_RANK": told["SLURM_LOCALID"],
        "MASTER_ADDR": told.get("MASTER_ADDR", first_host(nodes)),
        "MASTER_PORT": told.get("MASTER_PORT", str(port)),
    }


def first_host(nodes: str) -> str:
    """The first of SLURM's list of nodes: `a003` of `a[003-005,9],b1`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first[0])
