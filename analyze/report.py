"""tables and figures -> one self-contained HTML page: answers first, then figures, then every neuron. No network."""

import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from urllib.parse import quote

from analyze.drawing import steps
from analyze.figures import Captioned, drawn
from analyze.findings import census_findings, comparison_findings, percent, run_findings
from analyze.folder import Census
from analyze.neuron_table import MOST_ROWS, table_json
from analyze.palette import POSITION_TYPES, POSITION_WORDS, STRENGTHS, TYPE_WORDS, TYPES, css_variables, with_css_variables

HERE = Path(__file__).parent
Figures = Mapping[str, Captioned]
LARGEST_SVG = 400_000  # bytes; a larger figure goes in as a PNG
LAYER_COLUMNS = {
    "layer": "layer",
    "neurons": "neurons",
    "dead": "dead",
    "dead_share": "dead share",
    "mean_frequency_alive": "mean frequency, alive",
    "token_detectors": "token detectors",
    "detected_tokens": "detected tokens",
    "detected_tokens_new": "in no layer below",
    "detected_tokens_cumulative": "up to this layer",
    "positional": "positional",
    **{
        f"positional_{kind}_{strength}": f"{POSITION_WORDS[kind]}, {strength}"
        for kind in POSITION_TYPES
        for strength in STRENGTHS
    },
}
SHARES = ("dead_share", "mean_frequency_alive")


def census_page(census: Census, figures: Figures) -> str:
    """The page of one model: what to trust it by, findings, its `census_figures`, layers, and every neuron."""
    body = _header(census) + _section("Findings", _list(census_findings(census))) + _section("Figures", _drawn(figures))
    return _page(census.title, body + _layers([census]) + _neurons(census) + _footer(census))


def run_page(milestones: Sequence[Census], over_training: Figures, of_last: Figures, folder: Path) -> str:
    """The page of one run: how its neurons changed over its milestones, then the last milestone as on its own page.

    Links lead from `folder`, where the page will lie, to each milestone's own page.
    """
    last = milestones[-1]
    training = _list(run_findings(milestones)) + _milestones(milestones, folder) + _drawn(over_training)
    body = _header(last, last.run) + _section("Over training", training)
    body += _section(f"At {steps(last.step)}", _list(census_findings(last)) + _drawn(of_last))
    return _page(last.run, body + _layers([last]) + _neurons(last) + _footer(last))


def comparison_page(runs: Mapping[str, Sequence[Census]], figures: Figures, folder: Path) -> str:
    """The page that sets runs beside each other: the answer in numbers, Figures 10 and 11 in miniature, training, layers, links."""
    last = [run[-1] for run in runs.values()]
    title = " and ".join(runs) if len(runs) < 4 else f"{len(runs)} runs"
    facts = "".join(f"<h3>{escape(name)}</h3>{_facts(run[-1])}" for name, run in runs.items())
    body = f"<header><h1>{escape(title)}</h1><p class=faint>Neuron census, runs compared.</p></header>"
    body += _section("Findings", _list(comparison_findings(runs))) + _section("Figures", _drawn(figures))
    pages = "".join(f"<h3>{escape(name)}</h3>{_milestones(run, folder)}" for name, run in runs.items())
    return _page(
        title, body + _section("Milestones", pages) + _layers(last) + _section("What was compared", facts) + _footer(last[0])
    )


def inline(captioned: Captioned, name: str) -> str:
    """A figure as part of a page: an SVG whose colours follow the page's scheme, or a PNG where that is smaller."""
    figure, caption = captioned
    svg = drawn(figure, "svg").decode()
    label = f'role="img" aria-label="{escape(name.replace("_", " "))}"'
    if len(svg) > LARGEST_SVG:
        width = round(figure.get_figwidth() * 96)
        picture = f'<img {label} width={width} alt="" src="data:image/png;base64,{b64encode(drawn(figure, "png")).decode()}">'
        picture = picture.replace('alt="" ', f'alt="{escape(caption)}" ').replace(label + " ", "")
    else:
        picture = _bare(svg[svg.index("<svg") :], name).replace("<svg ", f"<svg {label} ", 1)
    return f'<figure id="figure-{name}"><div class=scroll tabindex=0>{picture}</div><figcaption>{escape(caption)}</figcaption></figure>'


def _bare(svg: str, name: str) -> str:
    """Without metadata and needless digits, with ids that are the page's only ones, and the palette by name."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag.group()), svg)
    svg = re.sub(r"\n\s*", "\n", svg).replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    return with_css_variables(svg)


def _page(title: str, body: str) -> str:
    style = Template((HERE / "report.css").read_text(encoding="utf-8")).substitute(
        light=css_variables(dark=False), dark=css_variables(dark=True)
    )
    template = Template((HERE / "report_template.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(f"{title}: neuron census"), style=style, body=f"<main>{body}</main>")


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>"


def _list(sentences: Sequence[str]) -> str:
    return "<ul class=findings>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _drawn(figures: Figures) -> str:
    return "".join(inline(figure, name) for name, figure in figures.items())


def _header(census: Census, title: str | None = None) -> str:
    skip = '<a class=skip href="#neurons">To the table of neurons</a>'
    return f"{skip}<header><h1>{escape(title or census.title)}</h1><p class=faint>Neuron census</p>{_facts(census)}</header>"


def _facts(census: Census) -> str:
    checkpoint, corpus, model = census.meta["checkpoint"], census.meta["corpus"], census.meta["checkpoint"]["model"]
    trained = checkpoint.get("tokens_trained")
    domains = ", ".join(f"{domain['name']} ({domain['sequences']:,})" for domain in corpus["domains"])
    facts = {
        "model": f"{model['layers']} layers, width {model['width']}, {model['neurons']} neurons a layer, {model['heads']} heads, positions "
        f"{model['positions']}, LayerNorm {model['norm']}, context {model['context']}",
        "checkpoint": str(checkpoint["path"])
        + ("" if checkpoint["step"] is None else f", {steps(checkpoint['step'])}")
        + (f", {trained:,} tokens trained" if trained else ""),
        "sha256": str(checkpoint["sha256"]),
        "corpus": f"{corpus['name']}, {corpus.get('split', 'all')} split, fingerprint {corpus['fingerprint']}",
        "domains, sequences": domains,
        "counted tokens": f"{census.n_tokens:,} in {corpus['sequences']:,} sequences of {corpus['context']:,}; BOS "
        + ("absent" if corpus["bos_id"] is None else f"(id {corpus['bos_id']}) not counted"),
        "dead bound": f"a neuron seen dead fires, with 95% confidence, on less than {census.meta['dead_bound']:.2e} of tokens",
        "thresholds": ", ".join(f"{name} {value}" for name, value in census.meta["thresholds"].items()),
    }
    return (
        "<dl class=facts>"
        + "".join(f"<dt>{escape(term)}</dt><dd>{escape(words)}</dd>" for term, words in facts.items())
        + "</dl>"
    )


def _milestones(milestones: Sequence[Census], folder: Path) -> str:
    heads = ["milestone", *(TYPE_WORDS[kind] for kind in TYPES), "oscillatory"]
    rows = []
    for census in milestones:
        counts = dict(census.neurons["type"].value_counts().iter_rows())
        oscillatory = census.neurons["position_type"].eq("oscillatory").sum()
        link = quote(Path(os.path.relpath(census.path / "report.html", folder)).as_posix())
        name = f'<a href="{link}">{escape(steps(census.step))}</a>'
        rows.append([name, *(f"{counts.get(kind, 0):,}" for kind in TYPES), f"{oscillatory:,}"])
    return _table(heads, rows, "Neurons of each type at each milestone; the link opens the milestone's own page.")


def _layers(censuses: Sequence[Census]) -> str:
    tables = ""
    for census in censuses:
        names = [name for name in LAYER_COLUMNS if name in census.layers.columns]
        rows = [[_cell(name, row[name]) for name in names] for row in census.layers.iter_rows(named=True)]
        tables += _table([LAYER_COLUMNS[name] for name in names], rows, census.title)
    return _section("Layers", tables)


def _cell(name: str, value: int | float | None) -> str:
    return "–" if value is None else percent(value) if name in SHARES else f"{value:,}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """A table of cells that are HTML already."""
    head = "".join(f"<th scope=col>{escape(words)}</th>" for words in heads)
    body = "".join(f"<tr><th scope=row>{row[0]}</th>" + "".join(f"<td>{cell}</td>" for cell in row[1:]) + "</tr>" for row in rows)
    table = f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=scroll tabindex=0>{table}</div>"


def _neurons(census: Census) -> str:
    types = "".join(f'<option value="{kind}">{TYPE_WORDS[kind]}</option>' for kind in TYPES)
    patterns = [f"{kind} {strength}" for kind in POSITION_TYPES for strength in STRENGTHS]
    types += "".join(f'<option value="p:{pattern}">positional: {pattern}</option>' for pattern in patterns)
    layers = "".join(f"<option>{layer}</option>" for layer in census.layers["layer"])
    height = census.neurons.height
    part = "" if height <= MOST_ROWS else (
        f"<p>The table holds {MOST_ROWS:,} of {height:,} neurons, detectors and positional ones first; neurons.parquet holds all.</p>"
    )  # fmt: skip
    content = f"""{part}<div class=controls>
<label>find a token or a neuron <input id=find type=search placeholder="weather or L5N123" autocomplete=off></label>
<label>type <select id=type><option value="">all</option>{types}</select></label>
<label>layer <select id=layer><option value="">all</option>{layers}</select></label></div>
<div id=neuron role=region aria-label="one neuron" tabindex=-1 hidden></div>
<div class=scroll tabindex=0>
<table><caption id=told aria-live=polite></caption><thead><tr id=heads></tr></thead><tbody id=rows></tbody></table></div>
<p class="controls pages"><button id=previous type=button>Previous</button><button id=next type=button>Next</button></p>
<noscript>The table needs JavaScript; neurons.parquet beside this page holds the same.</noscript>
<script type="application/json" id=census>{table_json(census)}</script>
<script>{(HERE / "report.js").read_text(encoding="utf-8")}</script>"""
    return f"<section id=neurons><h2>Neurons</h2>{content}</section>"


def _footer(census: Census) -> str:
    environment, git = census.meta.get("environment", {}), census.meta.get("git", [])
    made = [f"{name} {version}" for name, version in environment.get("packages", {}).items()]
    made += [f"{name} {environment[name]}" for name in ("python", "platform", "gpu") if name in environment]
    made += [f"commit {git[0]}" + (", with files that differ from it" if len(git) > 1 else "")] if git else []
    words = "Neuron Census, after Voita, Ferrando and Nalmpantis, Neurons in Large Language Models: Dead, N-gram, Positional."
    return f"<footer><p>{escape(words)}</p><p>{escape(', '.join(made))}</p></footer>"
