"""Configuration -> a trained model in its run folder."""

import logging
import os
import signal
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from time import monotonic

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from rich.console import Console

from corpora.prepare import token_store
from corpora.store import TokenStore
from corpora.tokenizer import open_tokenizer
from errors import UserError
from models.opt import OPT, PAD, initialise
from tracking import Mirror, WandbConfig
from train.compiling import compile_anew
from train.config import TrainConfig
from train.folder import begin, finished_steps, identity, last_checkpoint
from train.keeping import Keeping, WholeCheckpoints
from train.live_census import LiveCensus
from train.metrics import Metrics
from train.module import Training
from train.order import Steps, TrainingOrder
from train.plan import Plan
from train.progress import Bar
from train.reading import loader
from train.stopping import Stopping
from train.throughput import Throughput, known_peak
from train.validation import validation_windows
from train.watch import Watch

PADDING = ("<pad>", "<|padding|>")  # as OPT and Pythia have it
ROWS = 32  # the token embedding has a multiple of this many rows, as OPT's 50272 for 50265 ids


def train(config: TrainConfig, overrides: list[str]) -> Path:
    """Train, or go on with, the run `config.runs/config.name`; returns its folder.

    The same call resumes: from the last step that checkpoints/last.ckpt holds, bit for bit (CPU, float32).

    Raises:
        UserError: settings that do not fit together, a corpus that is not there, a run begun with other settings, or one that
            went wrong.
    """
    begun, run = monotonic(), Path(config.runs) / config.name
    console = Console(stderr=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = launched(config, run)
    micro_steps = config.micro_steps(trainer.world_size)
    store = token_store(config.corpus)
    config = with_vocabulary(config, store)
    begun_with = identity(config, store, str(trainer.precision))
    start = finished_steps(run, begun_with)
    if start >= config.steps:
        console.print(f"{run} has finished its {start:,} steps already.", markup=False, highlight=False)
        return run
    if trainer.is_global_zero:
        begin(run, config, overrides, store, start)

    steps = steps_left(config, store, start, micro_steps, trainer)
    windows = validation_windows(store.split("validation"), config.model.context, config.validation.sequences)
    if compiled := compiles(config, trainer):
        compile_anew()
    module = Training(config, initialise(OPT(config.model), config.seed).train(), begun_with, compiled)
    mirrored = config.wandb if trainer.is_global_zero else WandbConfig(mode="disabled")
    mirror = Mirror(mirrored, run, config.name, group=config.name, settings=begun_with, console=console)
    watch = Watch(run, steps)
    plan, clock = Plan(steps, run, console), throughput(config, trainer)
    live = LiveCensus(run, plan, mirror, console, clock.paused)
    keeping = Keeping(run, Metrics(run, mirror), windows, watch, clock, console)
    stopping = Stopping(keeping, console, begun)
    trainer.callbacks += [plan, watch, live, keeping, stopping, Bar(console, keeping)]  # type: ignore[attr-defined]
    batches = loader(steps, config.batch.workers, pin_memory=trainer.strategy.root_device.type == "cuda")
    try:
        trainer.fit(module, batches, ckpt_path=last_checkpoint(run) if start else None, weights_only=True)
    finally:
        mirror.close()
    if stopping.interrupted:
        sys.exit(128 + signal.SIGINT)  # as a shell has it; a sweep ends with its run
    return run


def steps_left(config: TrainConfig, store: TokenStore, start: int, micro_steps: int, trainer: L.Trainer) -> Steps:
    """The batches of this rank from step `start` on."""
    order = TrainingOrder(store.split("train"), config.model.context, config.seed)
    return Steps(order, start, config.steps, micro_steps, config.batch.micro, trainer.global_rank, trainer.world_size)


def with_vocabulary(config: TrainConfig, store: TokenStore) -> TrainConfig:
    """Give the model as many embedding rows as the corpus' tokenizer needs, where the settings leave that open.

    Raises:
        UserError: the model has fewer rows than the tokenizer has ids; or what would be OPT's untrained row of padding is text.
    """
    first = open_tokenizer(str(store.tokenizer_file)).id_to_token(PAD)
    if first not in PADDING:
        raise UserError(
            f"Id {PAD} of the tokenizer of the corpus {config.corpus.name} is {first!r}; OPT takes it for padding and would not train "
            f"it. Take a tokenizer where it is {' or '.join(PADDING)}."
        )
    rows = config.model.vocab_size or -(-store.vocab_size // ROWS) * ROWS
    if rows < store.vocab_size:
        raise UserError(
            f"model.vocab_size={rows} is too small for the {store.vocab_size} ids of the corpus {config.corpus.name}."
        )
    return replace(config, model=replace(config.model, vocab_size=rows))


def launched(config: TrainConfig, run: Path) -> L.Trainer:
    """Lightning's trainer: one process, or a rank among those that torchrun or SLURM started.

    Raises:
        UserError: a GPU is asked for where there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch sees no CUDA GPU here: device=auto takes what there is.")
    for speaker in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(speaker).setLevel(logging.WARNING)
    for of_no_use in (".*does not have many workers.*", ".*treespec, LeafSpec.*"):  # ours reads memory; lightning's own affair
        warnings.filterwarnings("ignore", message=of_no_use)
    per_node, nodes = _ranks()
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(config.device, config.device),
        devices=per_node,
        num_nodes=nodes,
        strategy=DDPStrategy() if per_node * nodes > 1 else "auto",
        plugins=[WholeCheckpoints(), *_on_slurm()],
        precision="bf16-mixed" if bfloat16(config) else "32-true",
        max_steps=config.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run,
    )


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
    """SLURM without Lightning's way to be queued again: it writes wherever a signal finds it. Ours is train/stopping.py."""
    alone = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if alone else []


def bfloat16(config: TrainConfig) -> bool:
    """Whether to compute under bfloat16 autocast: asked for, or `auto` on a machine with instructions for it."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if config.device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compiles(config: TrainConfig, trainer: L.Trainer) -> bool:
    """Whether blocks and loss are compiled: asked for, or `auto` on a GPU, where it pays."""
    return trainer.strategy.root_device.type == "cuda" if config.compile == "auto" else config.compile == "true"


def throughput(config: TrainConfig, trainer: L.Trainer) -> Throughput:
    """The clock of a run on this machine."""
    peak = config.peak_flops or known_peak(trainer.strategy.root_device, bfloat16(config))
    return Throughput(config.batch.tokens, config.model.training_flops_per_token, peak, trainer.world_size)
