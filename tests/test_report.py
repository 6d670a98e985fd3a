"""Pages: self-contained, whatever the tokens are; every sentence's number is the table's; the table of neurons works."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from analyze.figures import census_figures, comparison_figures, run_figures
from analyze.findings import census_findings, comparison_findings, run_findings
from analyze.folder import Census
from analyze.neuron_table import for_script
from analyze.report import census_page, comparison_page, run_page
from analyze.writing import write_whole
from tests.synthetic_census import write_census


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Census:
    return write_census(tmp_path_factory.mktemp("census") / "c", title='base<line> & "co"', neurons=128)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Census]]:
    folder = tmp_path_factory.mktemp("runs")
    few = {"both_strong": 2, "one_weak": 3}
    make = {"baseline": ("learned", None), "nopos": ("none", few)}
    return {
        name: [
            write_census(folder / name / f"step_{step:09d}", title=f"{name}, step {step}", step=step, layers=2, neurons=32, places=64,
                         positions=positions, positional={} if step == 0 else planted)
            for step in (0, 100, 1000)
        ]
        for name, (positions, planted) in make.items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def page(census: Census) -> str:
    return census_page(census, census_figures(census))


@pytest.fixture(scope="module")
def pages(runs: dict[str, list[Census]]) -> tuple[str, str]:
    """A run's page and a comparison's."""
    one, folder = runs["nopos"], runs["nopos"][0].path.parent
    of_run = run_page(one, run_figures(one), census_figures(one[-1]), folder)
    return of_run, comparison_page(runs, comparison_figures(runs), folder.parent)


class Page(HTMLParser):
    """What a browser would see: elements opened and closed in order, ids, and what is fetched."""

    VOID = ("meta", "link", "input", "img", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.scripts = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.fetched += [given[key] or "" for key in ("src", "xlink:href") if key in given]
        self.fetched += [given.get("href") or ""] if tag == "link" else []
        self.scripts += tag == "script"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_pages_are_well_formed_fetch_nothing_and_name_each_id_once(page: str, pages: tuple[str, str]) -> None:
    for text in (page, *pages):
        seen = Page(text)
        assert not seen.open
        assert len(seen.ids) == len(set(seen.ids))
        assert all(address.startswith(("#", "data:")) for address in seen.fetched)
        assert not re.search(r"url\((?!#)|@import", text)


def test_tokens_cannot_break_out_of_the_page(page: str) -> None:
    seen = Page(page)
    assert seen.scripts == 2
    assert "</script><b>" not in page
    content = json.loads(page.split("id=census>")[1].split("</script>")[0])
    assert "</script><b>x" in content["tokens"].values()
    assert "<h1>base&lt;line&gt; &amp; &quot;co&quot;</h1>" in page
    assert for_script("</script>&\u2028") == '"\\u003c/script\\u003e\\u0026\\u2028"'


def test_the_table_holds_the_census(census: Census, page: str) -> None:
    content = json.loads(page.split("id=census>")[1].split("</script>")[0])
    columns = content["columns"]
    assert columns["n_fired"] == census.neurons["n_fired"].to_list()
    assert [content["types"][code] for code in columns["type"]] == census.neurons["type"].to_list()
    positional = census.neurons["position_type"].is_not_null()
    assert [code >= 0 for code in columns["position"]] == positional.to_list()
    wanted = (positional | census.neurons["token_detector"]).to_list()
    assert sorted(map(int, content["curves"])) == [row for row, is_wanted in enumerate(wanted) if is_wanted]
    assert len(content["places"]) == 128


def test_findings_state_the_tables_numbers(census: Census) -> None:
    found = " ".join(census_findings(census))
    dead, positional = int(census.neurons["dead"].sum()), census.neurons["position_type"].count()
    assert f"{dead} of {census.neurons.height} " in found
    assert f"{positional} of {census.neurons.height} " in found
    best = census.neurons.filter(pl.col("layer") == 0).sort("position_mi_corrected").row(-1, named=True)
    assert f"L0N{best['neuron']}" in found and f"{best['position_mi_corrected']:.2f} nats" in found


def test_findings_of_runs_say_when_and_in_which(runs: dict[str, list[Census]]) -> None:
    assert any("first milestone with oscillatory neurons is step 100" in found for found in run_findings(runs["baseline"]))
    assert "No milestone up to step 1,000 has any oscillatory neuron." in run_findings(runs["nopos"])
    found = comparison_findings(runs)
    assert found[0].startswith("nopos, a model without positional encoding, has 8 positional neurons, none of them oscillatory")


def test_optional_columns_are_shown_when_there(census: Census) -> None:
    detector = pl.col("token_detector")
    more = census.neurons.with_columns(
        pl.when(detector).then(True).alias("suppresses_trigger"),
        pl.lit(7).alias("trigrams_95"),
        pl.col("detected_tokens").alias("top_promoted"),
    )
    richer = Census(census.path, census.meta, more, census.layers, census.tokenizer)
    assert any("write against the tokens that trigger them." in found for found in census_findings(richer))
    shares = {"suppressing_share_centered": 0.75, "suppressing_share_gain": None, "random_suppressing_share_raw": 0.5}
    layers = census.layers.with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in shares.items())
    told = " ".join(census_findings(Census(census.path, census.meta, more, layers, census.tokenizer)))
    assert "trigger them (centered 75%, against random tokens of the same frequency 50%)." in told
    page = census_page(richer, census_figures(richer))
    assert '"trigrams_95":[7' in page and '"promoted":{"' in page


def test_pages_link_to_the_census_pages_from_where_they_lie(pages: tuple[str, str], tmp_path: Path) -> None:
    assert 'href="step_000000100/report.html"' in pages[0]
    assert 'href="nopos/step_000000100/report.html"' in pages[1]
    write_whole(tmp_path / "new" / "report.html", pages[1])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


DRIVER = """<script>
const told = () => document.getElementById("told").textContent, say = [], find = document.getElementById("find");
const set = (id, value, event) => {
   document.getElementById(id).value = value; document.getElementById(id).dispatchEvent(new Event(event)); };
say.push(told());
set("find", "<\\/SCRIPT><b", "input"); say.push(told());
set("find", "l1n7", "input"); say.push(told()); set("find", "", "input");
set("type", "dead", "change"); say.push(told()); set("type", "", "change");
document.querySelectorAll("#heads button")[7].click();
say.push(document.querySelector("#rows a").textContent);
document.getElementById("next").click(); say.push(told());
location.hash = "#L0N0";
setTimeout(() => { say.push(document.querySelector("#neuron h3").textContent, document.querySelectorAll("#neuron polyline").length);
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape"})); say.push(document.getElementById("neuron").hidden);
  const out = document.createElement("pre"); out.id = "say"; out.textContent = JSON.stringify(say); document.body.append(out); }, 50);
</script></body>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_the_page_works_in_a_browser(census: Census, page: str, tmp_path: Path) -> None:
    write_whole(tmp_path / "page.html", page.replace("</body>", DRIVER))
    browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--enable-logging=stderr",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom"]  # fmt: skip
    done = subprocess.run([*browser, f"file://{tmp_path / 'page.html'}"], capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    said = json.loads(done.stdout.split('id="say">')[1].split("</pre>")[0].replace("&lt;", "<").replace("&gt;", ">"))
    neurons = census.neurons
    planted = neurons.filter(pl.col("detected_tokens").list.contains(256 + 4)).height
    best = neurons.sort("position_mi_corrected").row(-1, named=True)
    height = neurons.height
    assert said == [
        f"Neurons 1–100 of {height}", f"Neurons 1–{planted} of {planted}", "Neurons 1–1 of 1",
        f"Neurons 1–{neurons['dead'].sum()} of {neurons['dead'].sum()}", f"L{best['layer']}N{best['neuron']}",
        f"Neurons 101–200 of {height}", "Neuron L0N0", 1, True,
    ]  # fmt: skip
