"""Pages: self-contained, whatever the tokens are; every sentence's number is the table's; the table of neurons works."""

import gzip
import json
import re
from base64 import b64decode
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from synthetic_census import write_census
from synthetic_ngrams import BIGRAMS

from analyze.figures.catalogue import census_figures, comparison_figures, drawn, run_figures
from analyze.figures.dead_and_frequency import dead_and_frequency
from analyze.figures.ngrams import ngram_buckets
from analyze.figures.over_training import dead_over_training, types_over_training
from analyze.figures.positions import position_examples, positional_neurons
from analyze.figures.tooltips import marks, step_lines
from analyze.neuron_types.taxonomy import PATTERNS, STRENGTHS, TYPES
from analyze.neuron_types.trigger_suppression import SHARES
from analyze.page.binary_payload import packed, rounded, whole
from analyze.page.build import census_page, comparison_page, run_page, summary
from analyze.page.findings import census_findings, comparison_findings, run_findings
from analyze.page.glossary import MEANINGS
from analyze.page.neuron_payload import MOST_NGRAMS, NUMBERS, left_out, table_block
from analyze.page.static_tables import milestones_table, source
from analyze.page.step_slider import step_blocks
from analyze.tables.census import Census
from files import write_whole

EMPTY = {"name": "verse", "sequences": 0}  # a domain too short for a sequence


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
            write_census(folder / name / f"step_{step:09d}", title=f"{name}, step {step}", step=step, layers=2, neurons=32,
                                     places=64, positions=positions, positional={} if step == 0 else planted)
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
    for census in one:
        write_whole(census.path / "report.html", "its page")
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


def unpacked(text: str) -> tuple[Any, dict[str, np.ndarray]]:
    """What `packed` packed, read as `report_packed.js` reads it."""
    raw = gzip.decompress(b64decode(text))
    begin = 8 + int.from_bytes(raw[:4], "little")
    head = json.loads(raw[8:begin])
    arrays = {name: np.frombuffer(raw, "<" + kind, length, begin + at) for name, (kind, at, length) in head["arrays"].items()}
    return head["content"], arrays


def block(page: str, name: str) -> str:
    return page.split(f"{name}>")[1].split("</script>")[0]


def test_what_is_packed_is_what_comes_out() -> None:
    counts, reals = pl.Series([3, None, 70_000]), pl.Series([0.123456789, None, -2e-9])
    content, arrays = unpacked(
        packed({"a": "</script>é"}, {"n": whole(counts), "x": rounded(reals), "b": whole(pl.Series([255, 0]))})
    )
    assert content == {"a": "</script>é"}
    assert arrays["n"].tolist() == [3, -1, 70_000] and arrays["b"].tolist() == [255, 0]
    assert arrays["x"][[0, 2]] == pytest.approx([0.123456789, -2e-9], rel=2e-5) and np.isnan(arrays["x"][1])
    assert [array.dtype.itemsize for array in arrays.values()] == [4, 4, 1]
    assert whole(pl.Series([2**40, None])).dtype == np.float64


def test_tokens_cannot_break_out_of_the_page(page: str) -> None:
    assert "</script><b>" not in page and "<b>x" not in page
    content, _ = unpacked(block(page, "id=census"))
    assert "</script><b>x" in content["texts"]
    assert "<h1>base&lt;line&gt; &amp; &quot;co&quot;</h1>" in page


def test_the_table_holds_the_census(census: Census, page: str) -> None:
    content, arrays = unpacked(block(page, "id=census"))
    neurons = census.neurons
    for name in ("layer", "neuron", "n_fired", "unigrams_95"):
        assert arrays[name].tolist() == neurons[name].to_list()
    assert arrays["first_fired"].tolist() == neurons["first_fired"].fill_null(-1).to_list()
    assert arrays["max_pre"] == pytest.approx(neurons["max_pre"].to_numpy(), rel=2e-5)
    assert [content["types"][code].split(" ")[0] for code in arrays["type"]] == neurons["type"].to_list()
    assert (arrays["pattern"] >= 0).tolist() == neurons["position_type"].is_not_null().to_list()
    promoted = np.split(arrays["top_promoted"], arrays["top_promoted_first"][1:-1])
    assert [ids.tolist() for ids in promoted] == neurons["top_promoted"].to_list()
    text = dict(zip(arrays["tokens"].tolist(), content["texts"], strict=True))
    assert all(text[token] == census.token_text(token) for token in arrays["top_suppressed"].tolist())


def test_detected_ngrams_stand_with_their_counts_the_most_fired_first(census: Census, page: str) -> None:
    _, arrays = unpacked(block(page, "id=census"))
    table = pl.read_parquet(census.path / "ngrams.parquet")
    for row, (layer, neuron) in enumerate(census.neurons.select("layer", "neuron").iter_rows()):
        for n, name in ((1, "tokens"), (2, "bigrams")):
            here = table.filter((pl.col("layer") == layer) & (pl.col("neuron") == neuron) & (pl.col("n") == n))
            first, last = arrays[f"{name}_first"][row : row + 2]
            assert arrays[f"{name}_in_all"][row] == here.height
            assert last - first == min(here.height, MOST_NGRAMS)
            listed = here.sort("fires", descending=True, maintain_order=True).head(MOST_NGRAMS)
            assert arrays[f"{name}_fires"][first:last].tolist() == listed["fires"].to_list()
            assert arrays[f"{name}_occurrences"][first:last].tolist() == listed["occurrences"].to_list()
            assert arrays[f"{name}_ids"][n * first : n * last].tolist() == listed["ids"].explode().drop_nulls().to_list()
    assert arrays["bigrams_in_all"].max() == BIGRAMS > MOST_NGRAMS


def test_curves_are_the_counts_and_finest_where_they_tell_most(census: Census, page: str) -> None:
    _, arrays = unpacked(block(page, "id=census"))
    telling = census.neurons["position_type"].is_not_null() | census.neurons["token_detector"]
    assert arrays["fine_rows"].tolist() == np.flatnonzero(telling).tolist()
    assert arrays["coarse_rows"].tolist() == np.flatnonzero(~telling & ~census.neurons["dead"]).tolist()
    row = census.neurons.with_row_index("row").sort("position_mi").row(-1, named=True)
    at = arrays["fine_rows"].tolist().index(row["row"])
    points = arrays["fine_points"].reshape(-1, 128)[at] / 255 * arrays["fine_greatest"][at]
    curve = census.position_curves(row["layer"], [row["neuron"]])[0][1:]
    assert points == pytest.approx([part.mean() for part in np.array_split(curve, 128)], abs=0.003)


def test_a_very_large_census_keeps_its_telling_neurons_and_says_so(census: Census, monkeypatch: pytest.MonkeyPatch) -> None:
    telling = census.neurons.filter(pl.col("token_detector") | pl.col("position_type").is_not_null())
    monkeypatch.setattr("analyze.page.neuron_payload.MOST_ROWS", telling.height + 40)
    _, arrays = unpacked(table_block(census))
    kept = set(zip(arrays["layer"].tolist(), arrays["neuron"].tolist(), strict=True))
    assert len(kept) == telling.height + 40
    assert kept >= set(telling.select("layer", "neuron").iter_rows())
    assert set(arrays["layer"].tolist()) == {0, 1, 2, 3}
    words = f"all {telling.height} token detectors and positional neurons, 40 of "
    assert words in left_out(census) and f"{telling.height + 40} of {census.neurons.height} neurons" in left_out(census)


def test_figures_say_the_tables_values_where_they_stand(census: Census) -> None:
    figure, _ = dead_and_frequency([census])
    drawn(figure, "svg")
    (left, right), layers = marks(figure), census.layers
    assert (left["title"], left["x"], left["y"]) == ("(a) dead neurons", "layer", "share of the layer's neurons")
    (series,) = left["series"]
    assert series["x"] == ["0", "1", "2", "3"]
    assert series["y"] == [f"{100 * share:.3g}%" for share in layers["dead_share"]]
    axes = figure.axes[0]
    expected = axes.transData.transform((1, layers["dead_share"][1])) / figure.bbox.size
    assert np.array(series["at"][2:4]) == pytest.approx([1e4 * expected[0], 1e4 * (1 - expected[1])], abs=1)
    assert left["box"][2] < right["box"][0]


def test_bars_answer_with_their_own_height_by_the_legends_words(census: Census) -> None:
    figure, _ = ngram_buckets([census], 1)
    drawn(figure, "svg")
    series = {one["name"]: one for one in marks(figure)[0]["series"]}
    alive = census.layers["neurons"] - census.layers["dead"]
    assert series["6–10"]["y"] == [f"{100 * n / of:.3g}%" for n, of in zip(census.layers["unigrams_6_10"], alive, strict=True)]
    left, top, right, bottom = series["6–10"]["boxes"][:4]
    assert left < series["6–10"]["at"][0] < right and top < series["6–10"]["at"][1] < bottom


def test_circles_lead_to_their_neurons(census: Census, page: str) -> None:
    figure, _ = positional_neurons([census])
    drawn(figure, "svg")
    links = [link for one in marks(figure)[0]["series"] for link in one["links"]]
    positional = census.neurons.filter(pl.col("position_type").is_not_null())
    assert sorted(links) == sorted(f"#L{layer}N{neuron}" for layer, neuron in positional.select("layer", "neuron").iter_rows())
    assert all(f'href="{link}"' in page for link in links)


def test_every_word_with_a_meaning_is_in_the_glossary(page: str, pages: tuple[str, str]) -> None:
    for text in (page, *pages):
        asked = {unescape(word) for word in re.findall(r'data-term="([^"]+)"', text)}
        assert asked and asked <= set(MEANINGS)
    assert set(NUMBERS.values()) <= set(MEANINGS)


def test_words_are_explained_under_the_thresholds_of_the_census(census: Census) -> None:
    positions = {"changes": 7, "outer": 0.2, "strong_zero": 0.003, "strong_one": 0.97, "first": 11, "indicated": 0.6}
    asked = {
        "coverage": 81, "detection": 82, "unigrams": 9, "bigrams": 33, "trigrams": 34, "support_occurrences": 6,
        "position_mi": 0.07, "positions": positions,
    }  # fmt: skip
    page = census_page(replace(census, meta=census.meta | {"thresholds": asked}), {})
    told = " ".join(re.findall("<dd>(.*?)</dd>", page.split("<section id=words>")[1]))
    for value in ("81%", "82%", "9 tokens", "33 pairs", "34 triples", "6 times", "0.07 nats", "7 times", "20%", "0.003", "0.97",
                  "below 11", "60%"):  # fmt: skip
        assert value in told, value
    assert "95%" not in told.replace("with 95% confidence", "") and "ReLU" not in told and "{" not in told


def test_findings_state_the_tables_numbers(census: Census) -> None:
    found = " ".join(census_findings(census))
    dead, positional = int(census.neurons["dead"].sum()), census.neurons["position_type"].count()
    assert f"{dead} of {census.neurons.height} " in found
    assert f"{positional} of {census.neurons.height} " in found
    best = census.neurons.filter(pl.col("layer") == 0).sort("position_mi_corrected").row(-1, named=True)
    assert f"L0N{best['neuron']}" in found and f"{best['position_mi_corrected']:.2f} nats" in found


def test_findings_of_positions_state_the_tables_numbers(census: Census, tmp_path: Path) -> None:
    found = " ".join(census_findings(census))
    strong = census.neurons.filter(pl.col("position_strong")).sort("position_domain_difference")
    least, most = strong["position_domain_difference"][(strong.height - 1) // 2], strong.row(-1, named=True)
    assert f"half of the {strong.height} strong positional neurons changes by at most {least:.2f}; the one" in found
    assert f"L{most['layer']}N{most['neuron']}, by {most['position_domain_difference']:.2f}." in found
    team = census.layers.row(0, named=True)
    assert f"{team['team_neurons']} neurons of layer 0, indicates {team['team_places']} of 255 positions" in found
    assert "Only" not in found and "first 8 positions" not in found
    asked = census.meta["thresholds"] | {"position_mi": 0.02, "positions": {"first": 240, "first_firings": 30}}
    other = Census(census.path, census.meta | {"thresholds": asked}, census.neurons, census.layers, census.tokenizer)
    found = " ".join(census_findings(other))
    assert "Only 100 sequences" in found and "0.25 times the threshold of 0.02" in found
    assert f"{other.first_positions().height} neurons, of those that fired at least 30 times" in found and "first 240" in found
    assert "<dd>" in census_page(other, {}) and "positions.first 240" in census_page(other, {})


def test_a_domain_that_was_not_read_is_not_named_among_those_compared(census: Census) -> None:
    corpus = census.meta["corpus"]
    three = replace(census, meta=census.meta | {"corpus": corpus | {"domains": [*corpus["domains"], EMPTY]}})
    assert "Across domains (prose, code) the position curve" in " ".join(census_findings(three))
    assert "in the domains prose, code." in position_examples(three).caption
    assert summary(three).endswith("(prose, code).") and "verse (0)" in source([three])


def test_findings_of_runs_say_when_and_in_which(runs: dict[str, list[Census]]) -> None:
    assert any("oscillatory neurons appear between step 0 and step 100 (" in found for found in run_findings(runs["baseline"]))
    assert "No census up to step 1,000 has any oscillatory neuron." in run_findings(runs["nopos"])
    found = comparison_findings(runs)
    assert found[0].startswith("nopos, a model without positional encoding, has 8 positional neurons, none of them oscillatory")


def test_suppression_is_told_beside_other_conventions_and_chance(census: Census) -> None:
    bare = census.layers.drop(name for name in SHARES if name in census.layers.columns)
    told = " ".join(census_findings(Census(census.path, census.meta, census.neurons, bare, census.tokenizer)))
    assert "write against the tokens that trigger them." in told
    shares = {"suppressing_share_centered": 0.75, "suppressing_share_gain": None, "random_suppressing_share_raw": 0.5}
    layers = census.layers.with_columns(pl.lit(value, pl.Float64).alias(name) for name, value in shares.items())
    told = " ".join(census_findings(Census(census.path, census.meta, census.neurons, layers, census.tokenizer)))
    assert "trigger them (centered 75%, against random tokens of the same frequency 50%)." in told


def test_histories_are_the_milestones_tables(runs: dict[str, list[Census]], pages: tuple[str, str]) -> None:
    _, arrays = unpacked(block(pages[0], "id=steps"))
    kinds = [f"{kind} {strength}" for kind in PATTERNS for strength in STRENGTHS]
    for at, census in enumerate(runs["nopos"]):
        rows = slice(at * census.neurons.height, (at + 1) * census.neurons.height)
        assert [TYPES[code] for code in arrays["type"][rows]] == census.neurons["type"].to_list()
        strong = census.neurons["position_strong"].to_list()
        named = [
            kind and f"{kind} {'strong' if s else 'weak'}"
            for kind, s in zip(census.neurons["position_type"], strong, strict=True)
        ]
        assert [kinds[code] if code >= 0 else None for code in arrays["pattern"][rows]] == named
        assert arrays["frequency"][rows] == pytest.approx(census.neurons["n_fired"].to_numpy() / census.n_tokens, rel=2e-5)
        assert arrays["position_mi_corrected"][rows] == pytest.approx(
            census.neurons["position_mi_corrected"].to_numpy(), rel=2e-5
        )
        assert arrays["detected_tokens"][rows].tolist() == census.neurons["detected_tokens"].list.len().to_list()
    assert len({tuple(part) for part in np.split(arrays["type"], 3)}) > 1


def test_earlier_milestones_share_the_room_that_the_last_one_leaves(
    runs: dict[str, list[Census]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("analyze.page.neuron_payload.MOST_ROWS", 64 + 20)
    monkeypatch.setattr("analyze.page.step_slider.LEAST_ROWS", 5)
    page = step_blocks(runs["baseline"], {})
    content, _ = unpacked(block(page, "id=steps"))
    for at, census in enumerate(runs["baseline"][:2]):
        _, arrays = unpacked(block(page, f"id=census-{at}"))
        assert len(arrays["layer"]) == 10 and content["left_out"][at] == left_out(census, 10) != ""
    assert "id=census-2" not in page and content["left_out"][2] == ""


def test_the_line_of_a_step_goes_through_its_bars_and_points(runs: dict[str, list[Census]]) -> None:
    steps = [0, 100, 1000]
    for draw in (types_over_training, dead_over_training):
        figure, _ = draw(runs["nopos"])
        drawn(figure, "svg")
        through = step_lines(figure, steps)
        assert len(through) == len(marks(figure))
        for panel, lines in zip(marks(figure), through, strict=True):
            whole_series = [one["at"][::2] for one in panel["series"] if len(one["at"]) == 6]
            assert whole_series and all(at == pytest.approx(lines["x"], abs=1) for at in whole_series)
            assert panel["box"] == lines["box"]


def test_pages_link_to_the_census_pages_from_where_they_lie(
    runs: dict[str, list[Census]], pages: tuple[str, str], tmp_path: Path
) -> None:
    assert 'href="step_000000100/report.html"' not in milestones_table(runs["baseline"], runs["baseline"][0].path.parent)
    assert 'href="step_000000100/report.html"' in pages[0]
    assert 'href="nopos/step_000000100/report.html"' in pages[1]
    write_whole(tmp_path / "new" / "report.html", pages[1])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]
