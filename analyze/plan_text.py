"""A plan as a person reads it."""

from analyze.budgets import Budgets
from analyze.plan import Plan
from analyze.scratch import GB
from analyze.task import CensusTask

PLACES = {"gpu": "on the GPU", "memory": "in memory", "disk": "on disk"}


def plan_text(plan: Plan, budgets: Budgets, task: CensusTask) -> str:
    """What goes where and how large it is, against what may be taken; and what a kill would cost."""
    s, m = plan.shape, plan.shape.model
    dtype = str(task.dtype).removeprefix("torch.")
    lines = [
        f"{task.checkpoint.title}: {m.layers} layers x {m.width} wide x {m.neurons:,} neurons, in {dtype} on {task.device}",
        f"{s.sequences * s.positions:,} tokens, {s.sequences:,} sequences of {s.positions}: {s.walked} layers x "
        f"{s.batches:,} micro-batches of {s.micro}; {s.operations:.2e} operations",
    ]
    uses = sorted((use for use in plan.uses() if use.size), key=lambda use: list(PLACES).index(use.where))
    lines += [f"  {use.size / GB:10.3f} GB  {PLACES[use.where]:10}  {use.what}" for use in uses]
    totals = [
        f"{getattr(plan.needs, where) / GB:.2f} of {getattr(budgets, where) / GB:.2f} GB {place}"
        for where, place in PLACES.items()
        if getattr(plan.needs, where)
    ]
    lines += [f"at most {', '.join(totals)} ({task.scratch.path.parent})", f"a kill costs {_cost_of_a_kill(plan)}"]
    return "\n".join(lines)


def _cost_of_a_kill(plan: Plan) -> str:
    if plan.residuals == "file":
        return "the layer in work; counts and residual streams of the layers before it are on disk"
    return "the layer in work; the layers before it keep their counts, but are walked again to get to it"


def time_text(plan: Plan, seconds: float) -> str:
    """How long it will take, from the seconds of one micro-batch through one layer."""
    s = plan.shape
    steps = -(-s.batches // s.processes) * s.walked
    speed = s.operations / (s.batches * s.walked) / seconds
    return (
        f"about {clock(steps * seconds)}: {steps:,} micro-batches through a layer, {seconds:.3g} s each ({speed / 1e12:.3g} TFLOP/s, "
        "measured), if nothing waits for the disk; counting comes on top"
    )


def clock(seconds: float) -> str:
    """Seconds as hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
