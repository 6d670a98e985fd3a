"""Lightning's trainer: one process on one device, or a rank among those that torchrun or SLURM started."""

import logging
import os
import warnings
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy

from device import Device
from errors import UserError
from train.checkpointing import WholeCheckpoints
from train.config import TrainConfig


class Srun(SLURMEnvironment):
    """What srun says of its tasks, however the job was asked for.

    Lightning would refuse a job that says `--ntasks` and not `--ntasks-per-node`, and write a checkpoint of its own wherever a
    signal finds it, to be queued again: ours is train/graceful_stop.py.
    """

    def __init__(self) -> None:
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_variables() -> None:
        """Any will do."""


def launched(config: TrainConfig, run: Path, device: Device) -> L.Trainer:
    """The trainer of this process, which computes on `device`.

    Raises:
        UserError: several processes would share a GPU.
    """
    for speaker in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(speaker).setLevel(logging.WARNING)
    for of_no_use in (".*does not have many workers.*", ".*treespec, LeafSpec.*"):  # ours reads memory; lightning's own affair
        warnings.filterwarnings("ignore", message=of_no_use)
    per_node, nodes = _ranks()
    several = per_node * nodes > 1
    if device.kind == "cuda":
        _one_each(config.device, per_node)
    alone = 1 if device.kind == "cpu" else [device.name.index]
    trainer = L.Trainer(
        accelerator=device.kind,
        devices="auto" if several else alone,
        num_nodes=nodes,
        # Lightning takes the device of a rank's number; a rank that sees only its own has no other.
        strategy=DDPStrategy(parallel_devices=[device.name] * per_node) if several else "auto",
        plugins=[WholeCheckpoints(), *_on_slurm()],
        precision="bf16-mixed" if bfloat16(config, device) else "32-true",
        max_steps=config.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run,
    )
    # Lightning would tell the other ranks from within the handler, which then wait for a rank that is elsewhere.
    trainer._signal_connector._sigterm_notifier_fn = lambda *_: None  # type: ignore[method-assign]
    return trainer


def _one_each(asked: str, per_node: int) -> None:
    gpus = torch.cuda.device_count()
    if per_node > 1 and ":" in asked:
        raise UserError(f"device={asked} is one GPU, but {per_node} processes run here: device=cuda gives each its own.")
    if 1 < gpus < per_node:  # one: SLURM shows each task its own
        raise UserError(f"{per_node} processes were started, but torch sees {gpus} GPUs here: start one process for each GPU.")


def _ranks() -> tuple[int, int]:
    """Processes per node, and nodes, as torchrun or srun has set them up."""
    environ = os.environ
    if TorchElasticEnvironment.detect():
        here = int(environ["LOCAL_WORLD_SIZE"])
        return here, int(environ["WORLD_SIZE"]) // here
    if SLURMEnvironment.detect():
        nodes = int(environ.get("SLURM_NNODES", "1"))
        return int(environ["SLURM_NTASKS"]) // nodes, nodes
    return 1, 1


def _on_slurm() -> list[SLURMEnvironment]:
    alone = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [Srun()] if alone else []


def bfloat16(config: TrainConfig, device: Device) -> bool:
    """Whether to compute under bfloat16 autocast: asked for, or `auto` on a device with instructions for it."""
    return device.bfloat16 if config.precision == "auto" else config.precision == "bfloat16"


def compiles(config: TrainConfig, device: Device) -> bool:
    """Whether blocks and loss are compiled: asked for, or `auto` on a GPU, where it pays."""
    return device.kind == "cuda" if config.compile == "auto" else config.compile == "true"
