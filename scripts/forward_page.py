"""What was measured of a walk -> its table, what bounds it, and its figures."""

import itertools

from analyze.census.job import CensusTask
from provenance import measured_on
from scripts.measurement import GB, Figure

WORDS = {
    "arithmetic": "the layers' arithmetic alone",
    "census": "census",
    "accelerate": "transformers, accelerate's device_map=auto",
}
Results = dict[str, list[dict[str, float]]]


def title(task: CensusTask) -> str:
    """What was measured, where and when."""
    m, (sequences, positions), dtype = task.checkpoint.config, task.sequences.ids.shape, str(task.dtype).removeprefix("torch.")
    what = f"{task.checkpoint.title}: {m.layers} layers x {m.width} wide, {sequences} sequences of {positions} by {task.micro}, {dtype}"
    return f"{what}; {measured_on()}"


def best(results: Results) -> dict[str, dict[str, float]]:
    """The fastest measurement of every way."""
    return {way: min(rounds, key=lambda one: one["seconds"]) for way, rounds in results.items()}


def shares(results: Results) -> list[float]:
    """The arithmetic's share of the time of every census: the mean of the measurements before and after it, over its time."""
    before_and_after = itertools.pairwise(one["seconds"] for one in results["arithmetic"])
    return [(a + b) / 2 / one["seconds"] for (a, b), one in zip(before_and_after, results["census"], strict=True)]


def bounded_by(results: Results) -> str:
    """Where the time of the fastest census went; what took most is named first."""
    census, arithmetic = best(results)["census"], best(results)["arithmetic"]
    seconds = {
        "the layers' arithmetic": min(arithmetic["seconds"], census["seconds"]),
        "waiting for weights": census["waited"],
        "waiting for copies on the GPU": census["copies"],
    }
    seconds["the rest (bits, launching, counting)"] = max(0.0, census["seconds"] - sum(seconds.values()))
    ranked = sorted(seconds.items(), key=lambda entry: -entry[1])
    return ", ".join(f"{name} {100 * s / census['seconds']:.1f} %" for name, s in ranked)


def whole_model(task: CensusTask, seconds: float, layers: int) -> str:
    """What a census of 5M tokens takes, computed."""
    each = seconds / (task.missing[-1] + 1) / task.sequences.ids.size
    return f"5M tokens through {layers} layers: {each * layers * 5e6 / 60:,.1f} minutes, computed from the measured seconds of a layer"


def page(task: CensusTask, results: Results, layers: int) -> str:
    """Markdown: tokens a second through all layers, and what they are of the arithmetic's."""
    found = best(results)
    census = found["census"]
    lines = ["| | tokens/s | against arithmetic | GPU memory |", "|---|---:|---:|---:|"]
    for way, words in WORDS.items():
        if way in found:
            rate, ratio = task.sequences.ids.size / found[way]["seconds"], found["arithmetic"]["seconds"] / found[way]["seconds"]
            on_gpu = found[way]["gpu_bytes"]
            lines.append(f"| {words} | {rate:,.1f} | {ratio:.3f} | {f'{on_gpu / GB:.1f} GB' if on_gpu else '–'} |")
    lines += [
        "",
        f"Census against the arithmetic before and after it, by round: {', '.join(f'{share:.3f}' for share in shares(results))}.",
        f"Anonymous memory at most {max(c['walk_bytes'] for c in results['census']) / GB:.2f} GB while walking and counting, "
        f"{max(c['peak_bytes'] for c in results['census']) / GB:.2f} GB with a layer's projection onto the vocabulary "
        f"({census['projecting']:.1f} s a layer, whatever the corpus); the plan said {census['needs_memory'] / GB:.2f} GB.",
        f"Waited for weights: {census['waited']:.2f} s of {census['seconds']:.1f} ({100 * census['waited'] / census['seconds']:.1f} %).",
        f"Of the census' time: {bounded_by(results)}.",
        f"{whole_model(task, census['seconds'], layers)}.",
    ]
    if "accelerate" in found:
        a = found["accelerate"]
        lines.append(
            f"accelerate: {a['batch']:.0f} sequences at once were the fastest of those that fit; {100 * a['elsewhere']:.0f} % of "
            f"the weights lay in main memory or on disk; nothing was counted."
        )
    return "\n".join(lines) + "\n"


def figures(task: CensusTask, results: Results, layers: int) -> list[Figure]:
    """The same for a summary."""
    found, tokens = best(results), task.sequences.ids.size
    census = found["census"]
    waited = (census["waited"] + census["copies"]) / census["seconds"]
    made = [
        Figure("census", f"{tokens / census['seconds']:,.1f} tokens/s through {task.missing[-1] + 1} layers"),
        Figure("share of the layers' arithmetic", f"{max(shares(results)):.3f}"),
        Figure("the GPU waits, at most", f"{100 * waited:.1f} % of the time", "< 5 %"),
        Figure("bound by", bounded_by(results)),
        Figure(
            "memory", f"{census['gpu_bytes'] / GB:.1f} GB of the GPU, {census['peak_bytes'] / GB:.1f} GB anonymous on the host"
        ),
        Figure("whole model", whole_model(task, census["seconds"], layers)),
    ]
    if "accelerate" in found:
        a = found["accelerate"]
        rate = f"{tokens / a['seconds']:,.1f} tokens/s, {100 * a['elsewhere']:.0f} % of the weights elsewhere"
        target = ">= 3" if a["elsewhere"] > 0 else ""
        ratio = Figure("census against accelerate", f"{a['seconds'] / census['seconds']:.2f} x", target)
        made += [Figure("accelerate", f"{rate}, {a['batch']:.0f} sequences at once"), ratio]
    return made
