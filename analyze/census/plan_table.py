"""A plan as a person reads it: where everything lies, how long it takes, and what bounds it."""

from pathlib import Path

from analyze.census.bounds import busy, layer_seconds, loads, waiting
from analyze.census.memory_plan import Plan
from analyze.machine import GB, Budgets

PLACES = {"gpu": "on the GPU", "memory": "in memory", "disk": "on disk"}


def plan_text(plan: Plan, budgets: Budgets, title: str, scratch: Path) -> str:
    """What goes where and how large it is, against what may be taken; and what a kill would cost."""
    s, m = plan.shape, plan.shape.model
    dtype = str(s.dtype).removeprefix("torch.")
    lines = [
        f"{title}: {m.layers} layers x {m.width} wide x {m.neurons:,} neurons, in {dtype}",
        f"{s.sequences * s.positions:,} tokens, {s.sequences:,} sequences of {s.positions}: {s.walked} layers x {s.batches:,} "
        f"micro-batches of {s.micro}{f', by {s.processes} processes' if s.processes > 1 else ''}; {s.operations:.2e} operations",
        *_uses(plan),
    ]
    totals = [
        f"{getattr(plan.needs, where) / GB:.2f} of {getattr(budgets, where) / GB:.2f} GB {place}"
        for where, place in PLACES.items()
        if getattr(plan.needs, where)
    ]
    lines += [f"at most {', '.join(totals)} ({scratch})", f"a kill costs {_cost_of_a_kill(plan)}"]
    return "\n".join(lines)


def _uses(plan: Plan) -> list[str]:
    """A line for everything that takes room, in the order of places."""
    s, lines = plan.shape, []
    for use in sorted(plan.uses(), key=lambda use: list(PLACES).index(use.where)):
        each = use.times > 1 or (s.processes > 1 and use.where == "gpu")
        of_each = f", of each of {s.processes} processes" if each else ""
        lines.append(f"  {use.size / GB:10.3f} GB  {PLACES[use.where]:10}  {use.what}{of_each}")
    return lines


def _cost_of_a_kill(plan: Plan) -> str:
    if plan.residuals == "file":
        return "the layer in work; counts and residual streams of the layers before it are on disk"
    return "the layer in work; the layers before it keep their counts, but are walked again to get to it"


def time_text(plan: Plan, cores: int, flops: float, measured: bool) -> str:
    """How long it will take, what of the machine each layer keeps busy for how long, and what bounds the walk."""
    found = loads(plan, cores, flops)
    lines = ["a layer keeps busy, about, if nothing else is at work:"]
    for part, seconds in busy(found).items():
        what = ", ".join(f"{load.what} {load.seconds:.3g}" for load in found if load.of == part)
        lines.append(f"  {seconds:10.3g} s  {part}: {what}")
    said = f"{flops / 1e12:.3g} TFLOP/s, {'measured' if measured else 'assumed'}"
    total = layer_seconds(found)
    lines.append(f"bound by {next(iter(busy(found)))}: the arithmetic waits about {100 * waiting(found):.0f} % of the time")
    lines.append(f"about {clock(plan.shape.walked * total)}: {plan.shape.walked} layers, {total:.3g} s each ({said})")
    return "\n".join(lines)


def clock(seconds: float) -> str:
    """Seconds as hours and minutes."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
