"""Checkpoint and sequences -> a census folder: counts, layer by layer, then tables."""

import time
from contextlib import nullcontext

import torch
from rich.console import Console

from allocator import given_back
from analyze.census.bounds import OF_PEAK
from analyze.census.corpus_index import corpus_index
from analyze.census.cost import Cost
from analyze.census.distributed import Ranks, all_cores, joined
from analyze.census.job import CensusTask
from analyze.census.layer_loop import Counting
from analyze.census.memory_plan import Plan, Shape
from analyze.census.metadata import write_meta
from analyze.census.ownership import check, claim
from analyze.census.plan_search import first_that_fits
from analyze.census.plan_table import plan_text, time_text
from analyze.census.progress import progress_bar
from analyze.census.timing import seconds_per_micro_batch
from analyze.counts.layer import CorpusCounts, Index, LayerCounts
from analyze.forward.layer_by_layer import moved
from analyze.machine import Budgets, budgets, machine
from analyze.neuron_types.logit_attribution import candidate_tokens, layer_writes
from analyze.neuron_types.trigger_suppression import TOO_LOOSE, answerable
from analyze.storage.arrays import store
from analyze.storage.layer_files import about_layer
from analyze.tables.build import census_tables, write_tables
from analyze.tables.positions import bias_warning
from device import local_rank
from errors import UserError

WORTH_A_TRIAL = 200  # micro-batches through layers, from which on the time is estimated without being asked


def take(task: CensusTask, console: Console, ranks: Ranks | None = None) -> None:
    """Count the layers that are not counted yet, then write the tables of all that are; `ranks` are all that torchrun started.

    Raises:
        UserError: the folder holds counts of something else; a value is not finite; something does not fit; the disk is full.
    """
    begun, ranks = time.time(), joined() if ranks is None else ranks
    if ranks.first:
        check(task)
        if not (task.sequences.ids != task.sequences.bos_id).any():
            raise UserError(f"The corpus holds nothing but BOS (id {task.sequences.bos_id}); there is nothing to count.")
    missing = ranks.told(task.missing)
    plan = made_plan(task, missing, ranks, console) if missing else None
    if task.config.plan_only:
        if not missing:
            console.print(f"{task.out} holds all layers asked for: nothing is left to count.", markup=False, soft_wrap=True)
        return
    if ranks.first:
        claim(task)
        if not missing:
            task.scratch.remove()  # left by a program that was killed when all was counted
    rows = corpus_index(task, ranks)
    cost = Cost(task.out, begun)
    if plan is not None:
        for layer, seconds in Counting(task, plan, missing, rows, ranks, console).run():
            if ranks.first:
                cost.add(layer, seconds)
    if ranks.first:
        with all_cores(ranks) if task.config.threads is None else nullcontext():
            _finish(task, rows, cost, console)


def _finish(task: CensusTask, rows: Index, cost: Cost, console: Console) -> None:
    """Whatever follows from counts: what neurons write, tables, meta.json."""
    unwritten = [layer for layer in task.finished if not task.writes_of(layer).exists()]
    project_layers(task, rows.corpus, unwritten, console)
    if not answerable(task.config.thresholds):
        console.print(TOO_LOOSE, markup=False, highlight=False, soft_wrap=True)
    if few := bias_warning(rows.corpus.seen_at, task.config.thresholds.position_mi, task.sequences.read):
        console.print(few, markup=False, highlight=False, soft_wrap=True)
    write_tables(task.out, census_tables(task.out, rows, task.config.thresholds))
    write_meta(task, rows.corpus, cost)


def made_plan(task: CensusTask, missing: list[int], ranks: Ranks, console: Console) -> Plan:
    """Where everything will lie, printed with how large it is; how long it will take, and what bounds it.

    Every process says what it has; the first one plans, with the least of it.

    Raises:
        UserError: it does not fit.
    """
    has, local = least(machine(task.device, task.scratch.path), ranks)
    found = planned(task, task.shape(missing, ranks.world, local), has, console) if ranks.first else None
    found = ranks.told(found)
    assert found is not None
    return found


def least(has: Budgets, ranks: Ranks) -> tuple[Budgets, int]:
    """The least that any process has, and how many processes there are on a machine at most."""
    said = torch.tensor([has.gpu, has.memory, has.disk, -local_rank() - 1])
    ranks.least(said)
    *room, last = said.tolist()
    return Budgets(*room), -last if ranks.world > 1 else 1


def planned(task: CensusTask, shape: Shape, has: Budgets, console: Console) -> Plan:
    """The plan on machines that have so much."""
    config, allowed = task.config, budgets(has, task.config.gpu_memory, task.config.host_memory)
    begun = task.scratch.made_for or {}  # by a program that was killed: what it left is of use to the same plan only
    goes_on = bool(begun) and all(begun.get(key) == value for key, value in task.identity.items())
    residuals = begun["residuals"] if goes_on and config.residuals == "auto" else config.residuals
    found = first_that_fits(shape, allowed, residuals, config.bits)
    title = f"{task.checkpoint.title} on {task.device}"
    console.print(plan_text(found, allowed, title, task.scratch.path.parent), markup=False, highlight=False, soft_wrap=True)
    worth_it = config.plan_only or shape.batches * shape.walked >= WORTH_A_TRIAL
    flops = shape.operations / shape.walked / shape.batches / seconds_per_micro_batch(task) if worth_it else None
    if flops is None and (peak := task.device.peak_flops(task.dtype)):
        flops = OF_PEAK * peak
    if flops is not None:
        times = time_text(found, torch.get_num_threads(), flops, measured=worth_it)
        console.print(times, markup=False, highlight=False, soft_wrap=True)
    return found


def project_layers(task: CensusTask, corpus: CorpusCounts, layers: list[int], console: Console) -> None:
    """Store what some finished layers write to the logits: from their counts and weights, no text is read."""
    if not layers:
        return
    with given_back(), progress_bar(console) as bar:  # the unembedding is larger than anything of the walk
        ends = moved(task.checkpoint.ends(torch.float32), task.device)
        for layer in bar.track(layers, description="what neurons write"):
            candidates = candidate_tokens(LayerCounts.load(task.counts_of(layer)), corpus)
            writes = layer_writes(ends, task.checkpoint.fc2(layer), candidates, corpus.token_occurrences, layer, task.device)
            store(writes, task.writes_of(layer), about_layer(layer, task.identity))
