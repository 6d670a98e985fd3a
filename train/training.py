"""Configuration -> a trained model in its run folder."""

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from rich.console import Console
from torch.utils.data import DataLoader

from corpora.prepare import token_store
from corpora.store import TokenStore
from errors import UserError
from models.opt import OPT, initialise
from models.pickled import plain_values
from tracking import Mirror
from train.config import TrainConfig
from train.folder import begin, identity
from train.keeping import Keeping, last_checkpoint
from train.metrics import Metrics
from train.module import Training
from train.order import Steps, TrainingOrder
from train.plan import Plan
from train.progress import Bar
from train.validation import validation_windows

ROWS = 32  # the token embedding has a multiple of this many rows, as OPT's 50272 for 50265 ids


def train(config: TrainConfig, overrides: list[str]) -> Path:
    """Train, or go on with, the run `config.runs/config.name`; returns its folder.

    The same call resumes: from the last step that checkpoints/last.ckpt holds, bit for bit (CPU, float32).

    Raises:
        UserError: settings that do not fit together, a corpus that is not there, or a run begun with other settings.
    """
    run = Path(config.runs) / config.name
    console = Console(stderr=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    trainer = _trainer(config, run)
    micro_steps = config.micro_steps(trainer.world_size)
    store = token_store(config.corpus)
    config = with_vocabulary(config, store)
    start = _finished_steps(run)
    if start >= config.steps:
        console.print(f"{run} has finished its {start:,} steps already.", markup=False, highlight=False)
        return run
    begin(run, config, overrides, store)

    order = TrainingOrder(store.split("train"), config.model.context, config.seed)
    steps = Steps(order, start, config.steps, micro_steps, config.batch.micro, trainer.global_rank, trainer.world_size)
    windows = validation_windows(store.split("validation"), config.model.context, config.validation.sequences)
    module = Training(config, initialise(OPT(config.model), config.seed).train(), identity(config, store, str(trainer.precision)))
    mirror = Mirror(config.wandb, run, config.name, group=config.name, settings=module.identity, console=console)
    keeping = Keeping(run, Metrics(run, mirror), windows, console)
    trainer.callbacks += [Plan(steps, run, console), keeping, Bar(console, keeping)]  # type: ignore[attr-defined]
    loader = DataLoader(steps, batch_size=None, num_workers=config.batch.workers)
    try:
        trainer.fit(module, loader, ckpt_path=last_checkpoint(run) if start else None, weights_only=True)
    finally:
        mirror.close()
    return run


def with_vocabulary(config: TrainConfig, store: TokenStore) -> TrainConfig:
    """Give the model as many embedding rows as the corpus' tokenizer needs, where the settings leave that open.

    Raises:
        UserError: the model has fewer rows than the tokenizer has ids.
    """
    rows = config.model.vocab_size or -(-store.vocab_size // ROWS) * ROWS
    if rows < store.vocab_size:
        raise UserError(
            f"model.vocab_size={rows} is too small for the {store.vocab_size} ids of the corpus {config.corpus.name}."
        )
    return replace(config, model=replace(config.model, vocab_size=rows))


def _finished_steps(run: Path) -> int:
    file = last_checkpoint(run)
    if not file.exists():
        return 0
    step: int = plain_values(file)["global_step"]
    return step


def _trainer(config: TrainConfig, run: Path) -> L.Trainer:
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for of_no_use in (".*does not have many workers.*", ".*treespec, LeafSpec.*"):  # ours reads memory; lightning's own affair
        warnings.filterwarnings("ignore", message=of_no_use)
    return L.Trainer(
        accelerator={"cuda": "gpu"}.get(config.device, config.device),
        devices="auto" if config.device != "cpu" else 1,
        precision="bf16-mixed" if _bfloat16(config) else "32-true",
        max_steps=config.steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=run,
    )


def _bfloat16(config: TrainConfig) -> bool:
    """Whether to compute under bfloat16 autocast: asked for, or `auto` on a machine with instructions for it."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if config.device != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
