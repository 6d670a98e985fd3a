"""tables and figures -> one self-contained HTML page: answers first, then figures, then every neuron. No network."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from analyze.config import Thresholds
from analyze.figures.layout import Captioned
from analyze.figures.style import css_variables
from analyze.neuron_types.taxonomy import TYPE_LABELS, TYPES
from analyze.page.findings import census_findings, comparison_findings, run_findings
from analyze.page.inline_svg import inline
from analyze.page.neuron_payload import PATTERN_CODES, left_out, table_block
from analyze.page.static_tables import FOOTER, glossary, layers, milestones_table, source
from analyze.page.step_slider import at_last_step, slider, step_blocks
from analyze.tables.census import Census
from analyze.tables.comparability import uneven
from analyze.tables.labels import step_label

HERE = Path(__file__).parent / "assets"
SCRIPTS = ("payload", "dom", "figures", "neuron_data", "neuron_table", "neuron_panel", "step_slider")
WHERE = {
    "detected": "what it detects",
    "top_promoted": "what it promotes",
    "top_suppressed": "what it suppresses",
    "any": "any of these",
}
Figures = Mapping[str, Captioned]


def census_page(census: Census, figures: Figures, beside: bool = False) -> str:
    """The page of one model: findings, its `census_figures`, every neuron, layers, and what to trust it by.

    `beside`: the figures have an untrained model too.
    """
    body = _section("Findings", _list(census_findings(census, beside))) + _section("Figures", _drawn(figures))
    return _page(census.title, summary(census), body + _neurons(census) + layers([census]) + source([census]), census.thresholds)


def run_page(milestones: Sequence[Census], over_training: Figures, of_last: Figures, folder: Path) -> str:
    """The page of one run: how its neurons changed over its milestones, then the last milestone as on its own page.

    A slider sets figures and neurons back to what they were at a milestone. Links lead from `folder`, where the page will lie, to
    each milestone's own page.
    """
    last = milestones[-1]
    training = (
        _list(uneven(milestones) + run_findings(milestones)) + milestones_table(milestones, folder) + at_last_step(milestones)
    )
    body = _section("Over training", training + _drawn(over_training, links=False))
    body += _section(f"At {step_label(last.step)}", _list(census_findings(last, milestones[0].step == 0)) + _drawn(of_last))
    body += _neurons(last) + step_blocks(milestones, over_training)
    return _page(last.run, summary(last), body + layers([last]) + source([last]), last.thresholds, slider(milestones))


def comparison_page(
    runs: Mapping[str, Sequence[Census]],
    figures: Figures,
    folder: Path,
    over_seeds: Sequence[str] = (),
    further: Mapping[str, Sequence[Census]] | None = None,
    bases: Sequence[str] = (),
) -> str:
    """The page that sets runs beside each other: the answer in numbers, figures, their milestones' pages, layers.

    `over_seeds` says how variants differ; `further` runs are of other seeds, and only their milestones are listed; `bases`, how they
    were not counted alike, stands before all other findings.
    """
    every = {**runs, **(further or {})}
    last = [run[-1] for run in runs.values()]
    title = " and ".join(every) if len(every) < 4 else f"{len(every)} runs"
    of_variants, of_last = list(over_seeds), comparison_findings(runs)
    (of_variants or of_last)[:0] = bases
    body = _section("Variants", _list(of_variants)) if of_variants else ""
    body += _section("Findings", _list(of_last)) + _section("Figures", _drawn(figures, links=False))
    pages = "".join(f"<h3>{escape(name)}</h3>{milestones_table(run, folder)}" for name, run in every.items())
    drawn = f"{len(every)} runs compared" + ("; of each variant one seed is drawn." if further else ".")
    return _page(title, drawn, body + _section("Milestones", pages) + layers(last) + source(last), last[0].thresholds)


def summary(census: Census) -> str:
    """Model and text in a line."""
    corpus = census.meta["corpus"]
    size = f"{census.layers.height} layers, {census.neurons.height:,} neurons"
    return f"{size}; {census.n_tokens:,} counted tokens of {corpus['name']} ({', '.join(census.domains)})."


def _page(title: str, words: str, body: str, asked: Thresholds, control: str = "") -> str:
    body += _section("Words", glossary(asked))
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading in re.findall(r"<section id=(\S+)><h2>(.*?)</h2>", body))
    head = f"<header><h1>{escape(title)}</h1><p class=faint>Neuron census. {escape(words)}</p></header>"
    return Template(_file("page.html")).substitute(
        title=escape(f"{title}: neuron census"),
        style=Template(_file("page.css")).substitute(light=css_variables(dark=False), dark=css_variables(dark=True)),
        body=f'<nav aria-label="on this page">{links}{control}</nav><main>{head}{body}</main>{FOOTER}',
        script="".join(_file(f"{name}.js") for name in SCRIPTS) + _file("main.js"),
    )


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _section(title: str, content: str) -> str:
    name = re.sub(r"\W+", "-", title.lower())
    return f"<section id={name}><h2>{escape(title)}</h2>{content}</section>"


def _list(sentences: Sequence[str]) -> str:
    return "<ul class=findings>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + "</ul>"


def _drawn(figures: Figures, *, links: bool = True) -> str:
    return "".join(inline(figure, name, links=links) for name, figure in figures.items())


def _neurons(census: Census) -> str:
    types = {f"type:{code}": TYPE_LABELS[kind] for code, kind in enumerate(TYPES)}
    types |= {f"pattern:{code}": f"positional: {pattern}" for code, pattern in enumerate(PATTERN_CODES)}
    content = f"""<p><span id=left-out>{escape(left_out(census))}</span>
Click a row, or press Enter on it, to open the neuron; its address can be shared.</p>
<form class=controls onsubmit="return false">
<label>token or neuron <input id=find type=search placeholder="weather or L5N123" autocomplete=off></label>
<label>in <select id=where>{_options(WHERE)}</select></label>
<label>type <select id=type><option value="">all</option>{_options(types)}</select></label>
<label>layer <select id=layer><option value="">all</option>{_options({str(n): str(n) for n in census.layers["layer"]})}</select></label>
<button id=all type=button>Show all</button></form>
<div class=scroll><table><caption id=told aria-live=polite>The table is being unpacked.</caption>
<thead><tr id=heads></tr></thead><tbody id=rows></tbody></table></div>
<p class="controls pages"><button id=previous type=button>Previous</button><button id=next type=button>Next</button></p>
<noscript>The table needs JavaScript; neurons.parquet beside this page holds the same.</noscript>
<dialog id=neuron aria-labelledby=neuron-name></dialog>
<script type="text/plain" id=census>{table_block(census)}</script>"""
    return _section("Neurons", content)


def _options(words: Mapping[str, str]) -> str:
    return "".join(f'<option value="{value}">{escape(text)}</option>' for value, text in words.items())
