"""Configuration -> a trained model in its run folder."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import monotonic

import lightning as L
import torch
from rich.console import Console

from corpora.prepare import finished_store, token_store
from corpora.store import TokenStore
from corpora.tokenizer import open_tokenizer
from device import Device, resolved, use_threads
from errors import UserError
from models.opt import OPT, PAD, initialise
from signals import Stopped
from train.checkpointing import Keeping
from train.compile_setup import compile_anew
from train.config import TrainConfig
from train.cost_estimate import Plan
from train.data_order import Steps, TrainingOrder
from train.dataloader import loader, readers_alive
from train.divergence import Watch
from train.folder import begin, finished_steps, identity, last_checkpoint, owned
from train.graceful_stop import Stopping
from train.launching import bfloat16, compiles, launched
from train.live_census import LiveCensus
from train.live_folder import lacks_census
from train.metrics import Metrics
from train.module import Training
from train.out_of_memory import enough_memory
from train.progress import Bar
from train.ranks import Together
from train.sweep import check_variant
from train.throughput import Throughput
from train.validation import validation_windows
from wandb_run import Mirror, WandbConfig, decided

PADDING = ("<pad>", "<|padding|>")  # as OPT and Pythia have it
ROWS = 32  # the token embedding has a multiple of this many rows, as OPT's 50272 for 50265 ids


def train(config: TrainConfig, overrides: list[str], job: int = 0, began: float | None = None) -> Path:
    """Train, or go on with, the run `config.runs/config.name`, a sweep's `job` of that number; returns its folder.

    The same call resumes: from the last step that checkpoints/last.ckpt holds, bit for bit (CPU, float32). `time_limit` counts from
    when the program `began`, by the monotonic clock; None: now.

    Raises:
        UserError: settings that do not fit together, a corpus that is not there, a run begun with other settings, or one that
            went wrong.
        Stopped: a signal or the time limit ended it before its last step; the step it reached is kept.
    """
    began = monotonic() if began is None else began
    with ExitStack() as held:
        return _trained(config, overrides, job, began, held)


def _trained(config: TrainConfig, overrides: list[str], job: int, began: float, held: ExitStack) -> Path:
    run = Path(config.runs) / config.name
    device = resolved(config.device, job)
    use_threads(config.threads)
    trainer = launched(config, run, device)
    console = Console(stderr=True, quiet=not trainer.is_global_zero)
    logged = decided(config.wandb, console)
    micro_steps = config.micro_steps(trainer.world_size)
    store = token_store(config.corpus) if trainer.world_size == 1 else finished_store(config.corpus)
    config = with_vocabulary(config, store)
    begun_with = identity(config, store, str(trainer.precision))
    together = Together(trainer)
    together.told(lambda: held.enter_context(owned(run)))
    together.told(lambda: check_variant(run, overrides))
    start = together.told(lambda: finished_steps(run, begun_with))
    if start >= config.steps and not together.told(lambda: bool(config.census_steps) and lacks_census(run, start)):
        console.print(f"{run} has finished its {start:,} steps already.", markup=False, highlight=False, soft_wrap=True)
        return run
    for damage in together.told(lambda: begin(run, config, overrides, store, start)):
        console.print(damage, style="yellow", markup=False, highlight=False, soft_wrap=True)

    steps = steps_left(config, store, start, micro_steps, trainer)
    windows = validation_windows(store.split("validation"), config.model.context, config.validation.sequences)
    if compiled := compiles(config, device):
        compile_anew()
    module = Training(config, initialise(OPT(config.model), config.seed).train(), begun_with, compiled)
    mirrored = logged if trainer.is_global_zero else WandbConfig(mode="disabled")
    mirror = Mirror(mirrored, run, config.name, group=config.name, settings=begun_with, console=console)
    watch = Watch(run, steps)
    plan, clock = Plan(steps, run, console), throughput(config, trainer, device)
    keeping = Keeping(run, Metrics(run, mirror), windows, watch, clock, together, console)
    stopping = Stopping(keeping, together, console, began)
    live = LiveCensus(run, plan, mirror, together, console, clock.paused, stopping.giving_way)
    trainer.callbacks += [plan, watch, keeping, live, stopping, Bar(console, keeping)]  # type: ignore[attr-defined]
    batches = loader(steps, config.batch.workers, pin_memory=device.kind == "cuda")
    try:
        with enough_memory(config, run, device, trainer.world_size), readers_alive(run, config.batch.workers):
            trainer.fit(module, batches, ckpt_path=last_checkpoint(run) if start else None, weights_only=True)
    finally:
        mirror.close()
    if stopping.stopped:
        together.told(lambda: None)  # the first has more to finish, and torchrun ends all where one has ended
        raise Stopped
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


def throughput(config: TrainConfig, trainer: L.Trainer, device: Device) -> Throughput:
    """The clock of a run on this machine."""
    peak = config.peak_flops or device.peak_flops(torch.bfloat16 if bfloat16(config, device) else torch.float32)
    return Throughput(config.batch.tokens, config.model.training_flops_per_token, peak, trainer.world_size)
