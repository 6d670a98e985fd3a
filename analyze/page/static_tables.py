"""layer tables and meta.json -> the static tables of a page: layers, milestones, what was counted, what words mean."""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from analyze.config import Thresholds
from analyze.neuron_types.taxonomy import PATTERN_LABELS, PATTERNS, STRENGTHS, TYPE_LABELS, TYPES
from analyze.page.findings import percent
from analyze.page.glossary import meanings
from analyze.tables.census import Census
from analyze.tables.labels import step_label

LAYER_COLUMNS = {  # heading, and its word in the glossary
    "layer": ("layer", ""),
    "neurons": ("neurons", "neuron"),
    "dead": ("dead", "dead"),
    "dead_share": ("dead share", "dead"),
    "mean_frequency_alive": ("mean frequency, alive", "frequency"),
    "token_detectors": ("token detectors", "token detector"),
    "detected_tokens": ("detected tokens", "detected"),
    "detected_tokens_new": ("in no layer below", "in no layer below"),
    "detected_tokens_cumulative": ("up to this layer", "up to this layer"),
    "bigram_detectors": ("bigram detectors", "bigram detector"),
    "trigram_detectors": ("trigram detectors", "trigram detector"),
    "positional": ("positional", "positional"),
    **{
        f"positional_{kind}_{strength}": (f"{PATTERN_LABELS[kind]}, {strength}", PATTERN_LABELS[kind])
        for kind in PATTERNS
        for strength in STRENGTHS
    },
    "team_neurons": ("team", "team"),
    "team_places": ("positions it indicates", "team"),
    "team_left_out": ("redundant", "redundant"),
    "first_positions": ("first positions", "first positions"),
}
SHARES = ("dead_share", "mean_frequency_alive")
FOOTER = (
    "<footer>Neuron Census, after Voita, Ferrando and Nalmpantis, <i>Neurons in Large Language Models: Dead, N-gram, "
    "Positional</i> (2023).</footer>"
)


def layers(censuses: Sequence[Census]) -> str:
    """A section with the layers of every census."""
    tables = ""
    for census in censuses:
        names = [name for name in LAYER_COLUMNS if name in census.layers.columns]
        rows = [[_cell(name, row[name]) for name in names] for row in census.layers.iter_rows(named=True)]
        tables += _table([_heading(*LAYER_COLUMNS[name]) for name in names], rows, census.title)
    return f"<section id=layers><h2>Layers</h2>{tables}</section>"


def milestones_table(milestones: Sequence[Census], folder: Path) -> str:
    """Neurons of each type at each milestone, with links from `folder` to the milestones' own pages."""
    heads = [_heading("milestone", ""), *(_heading(TYPE_LABELS[kind], TYPE_LABELS[kind]) for kind in TYPES)]
    heads.append(_heading("oscillatory", "oscillatory"))
    rows = []
    for census in milestones:
        counts = dict(census.neurons["type"].value_counts().iter_rows())
        oscillatory = census.neurons["position_type"].eq("oscillatory").sum()
        page, name = census.path / "report.html", escape(step_label(census.step))
        if page.exists():  # censuses taken during training have none
            name = f'<a href="{quote(Path(os.path.relpath(page, folder)).as_posix())}">{name}</a>'
        rows.append([name, *(f"{counts.get(kind, 0):,}" for kind in TYPES), f"{oscillatory:,}"])
    return _table(heads, rows, "Neurons of each type at each milestone; a link opens the milestone's own page.")


def source(censuses: Sequence[Census]) -> str:
    """A section with what each census counted and how: what one needs to trust and to repeat it."""
    several = len(censuses) > 1
    facts = "".join((f"<h3>{escape(census.title)}</h3>" if several else "") + _facts(census) for census in censuses)
    return f"<section id=source><h2>What was counted</h2>{facts}</section>"


def glossary(asked: Thresholds) -> str:
    """All words that a page explains when one points at them, under its thresholds."""
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(meaning)}</dd>" for word, meaning in meanings(asked).items())
    return f"<dl class=facts>{words}</dl>"


def _facts(census: Census) -> str:
    checkpoint, corpus, model = census.meta["checkpoint"], census.meta["corpus"], census.meta["checkpoint"]["model"]
    trained = checkpoint.get("tokens_trained")
    domains = ", ".join(f"{domain['name']} ({domain['sequences']:,})" for domain in corpus["domains"])
    facts = {
        "model": f"{model['layers']} layers, width {model['width']}, {model['neurons']} neurons a layer, {model['heads']} heads, positions "
        f"{model['positions']}, LayerNorm {model['norm']}, context {model['context']}",
        "checkpoint": str(checkpoint["path"])
        + ("" if checkpoint["step"] is None else f", {step_label(checkpoint['step'])}")
        + (f", {trained:,} tokens trained" if trained else ""),
        "sha256": str(checkpoint["sha256"]),
        "corpus": f"{corpus['name']}, {corpus.get('split', 'all')} split, fingerprint {corpus['fingerprint']}",
        "domains, sequences": domains,
        "counted tokens": f"{census.n_tokens:,} in {corpus['sequences']:,} sequences of {corpus['context']:,}; "
        f"BOS (id {corpus['bos_id']}) not counted",
        "dead bound": f"a neuron seen dead fires, with 95% confidence, on less than {census.meta['dead_bound']:.2e} of tokens",
        "thresholds": ", ".join(f"{name} {value}" for name, value in census.threshold_values.items()),
        "made with": _made(census),
    }
    rows = "".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in facts.items() if words)
    return f"<dl class=facts>{rows}</dl>"


def _made(census: Census) -> str:
    environment, git = census.meta.get("environment", {}), census.meta.get("git", [])
    made = [f"{name} {version}" for name, version in environment.get("packages", {}).items()]
    made += [f"{name} {environment[name]}" for name in ("python", "platform", "gpu") if name in environment]
    made += [f"commit {git[0]}" + (", with files that differ from it" if len(git) > 1 else "")] if git else []
    return ", ".join(made)


def _heading(words: str, word: str) -> str:
    return f'<span class=term data-term="{escape(word)}">{escape(words)}</span>' if word else escape(words)


def _cell(name: str, value: int | float | None) -> str:
    return "–" if value is None else percent(value) if name in SHARES else f"{value:,}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of headings and cells that are HTML already."""
    head = "".join(f"<th scope=col>{cell}</th>" for cell in heads)
    body = "".join(f"<tr><th scope=row>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows)
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=scroll tabindex=0>{table}</div>"
