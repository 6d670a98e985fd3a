"""Variants and seeds: runs are grouped by all but their seed; means, spreads, onsets and differences are those of hand-made numbers."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf
from rich.console import Console
from synthetic_census import write_census

from analyze.compare_runs import compare
from analyze.figures.layout import is_one_run, labels, source
from analyze.figures.variants import variants_by_layer, variants_over_training
from analyze.page.findings_variants import variant_findings
from analyze.storage.formats import read_meta, write_meta
from analyze.tables.census import Census, open_census
from analyze.tables.variants import Variant, differences, measured, onsets, over_seeds, run_folders, variants
from errors import UserError


def census(step: int, positional: list[int], dead: list[int], neurons: int = 10) -> Census:
    """A census of which each layer has so many positional and so many dead neurons."""
    rows = [
        {
            "layer": layer, "neuron": n, "dead": n < dead[layer], "token_detector": False,
            "position_type": ("oscillatory" if n == neurons - 1 else "one") if n >= neurons - positional[layer] else None,
        }
        for layer in range(len(dead)) for n in range(neurons)
    ]  # fmt: skip
    schema = {"layer": pl.Int32, "neuron": pl.Int32, "dead": pl.Boolean, "token_detector": pl.Boolean, "position_type": pl.String}
    table = pl.DataFrame(rows, schema=schema)
    meta = {"checkpoint": {"step": step}, "title": f"x, step {step}", "corpus": {"name": "made", "n_tokens": 100}}
    return Census(Path(), meta, table, pl.DataFrame({"neurons": [neurons] * len(dead)}))


@pytest.fixture
def found() -> list[Variant]:
    a = [[census(0, [9, 9], [0, 0]), census(10, [0, 2], [1, 0]), census(20, [0, 3], [2, 0])],
         [census(0, [9, 9], [0, 0]), census(10, [0, 0], [3, 0]), census(20, [1, 4], [4, 0])]]  # fmt: skip
    b = [[census(10, [0, 0], [0, 0]), census(20, [0, 0], [0, 0])], [census(10, [0, 1], [0, 0]), census(20, [0, 0], [0, 0])]]
    return [Variant("a", [*a]), Variant("b", [*b])]


def test_mean_and_spread_over_seeds(found: list[Variant]) -> None:
    spread = over_seeds(measured(found))
    at = {(row["variant"], row["step"], row["layer"], row["quantity"]): row for row in spread.iter_rows(named=True)}
    row = at["a", 20, 0, "dead"]
    assert (row["runs"], row["mean"], row["least"], row["greatest"]) == (2, 3, 2, 4) and row["spread"] == pytest.approx(2**0.5)
    row = at["a", 20, None, "positional"]
    assert (row["mean"], row["least"], row["greatest"]) == (4, 3, 5)
    assert at["a", 20, None, "oscillatory"]["mean"] == 1.5 and at["b", 20, None, "dead"]["greatest"] == 0
    assert over_seeds(measured([Variant("c", [[census(1, [1], [0])]])]))["spread"].null_count() == 8


def test_from_which_step_a_layer_has_them_for_good(found: list[Variant]) -> None:
    first = onsets(found, measured(found), "positional")
    assert first.rows() == [
        ("a", 0, 0, None, None, None),
        ("a", 0, 1, None, 0, 2),
        ("a", 1, 0, 10, 20, 0),
        ("a", 1, 1, 10, 20, 0),
        *(("b", r, n, None, None, None) for r in (0, 1) for n in (0, 1)),
    ]


def test_differences_have_their_error(found: list[Variant]) -> None:
    rows = {row["quantity"]: row for row in differences(found, over_seeds(measured(found))).iter_rows(named=True)}
    row = rows["positional"]
    assert (row["variant"], row["other"], row["step"], row["difference"], row["apart"]) == ("b", "a", 20, -4.0, True)
    assert row["error"] == pytest.approx((2 / 2 + 0 / 2) ** 0.5)
    assert rows["token_detectors"]["apart"] is False
    one = [found[0], Variant("b", found[1].runs[:1])]
    alone = differences(one, over_seeds(measured(one)))
    assert alone["error"].null_count() == 4 and alone["apart"].null_count() == 4


def test_sentences_answer_which_where_from_when(found: list[Variant]) -> None:
    values = measured(found)
    told = variant_findings(found, onsets(found, values, "positional"), over_seeds(values))
    assert told[0] == (
        "a, 2 seeds, step 20: 4.0 ± 1.4 positional neurons of 20; layer 0 0.5 ± 0.7, layer 1 3.5 ± 0.7; "
        "they are in every census of layer 1 in 1 of 2; the last census alone has them in layer 0 in 1 of 2, "
        "layer 1 in 1 of 2."
    )
    assert told[1] == "b, 2 seeds, step 20: no positional neurons in any layer of any seed."
    assert told[2] == "a, 2 seeds, step 20: 3.0 ± 1.4 dead neurons of 20; layer 0 3.0 ± 1.4."
    assert (
        "Differences in dead neurons: b minus a -3.0 ± 1.0 (standard error; no seed of one is within the other's range)." in told
    )


def test_numbers_are_of_the_last_step_that_all_seeds_have(found: list[Variant]) -> None:
    cut_short = [Variant("a", [found[0].runs[0], found[0].runs[1][:2]]), found[1]]
    values = measured(cut_short)
    spread = over_seeds(values)
    told = variant_findings(cut_short, onsets(cut_short, values, "positional"), spread)
    assert told[0].startswith("a, 2 seeds, step 10: 1.0 ± 1.4 positional neurons of 20;")
    assert set(differences(cut_short, spread)["step"]) == {10}
    figure, caption = variants_by_layer(cut_short, spread)
    assert np.asarray(figure.axes[0].get_lines()[0].get_ydata()).tolist() == [0, 1] and "last step that all seeds" in caption
    lines = variants_over_training(cut_short, spread).figure.axes[0].get_lines()
    assert np.asarray(lines[0].get_xdata()).tolist() == [0, 10]
    nowhere = [Variant("a", [found[0].runs[0][:1], found[0].runs[1][1:2]])]
    values = measured(nowhere)
    assert variant_findings(nowhere, onsets(nowhere, values, "positional"), over_seeds(values))[0].startswith(
        "a, 1 of 2 seeds, step 10: no positional neurons"
    )


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two variants of two seeds, as a sweep leaves them."""
    for model, positions in (("baseline", "learned"), ("nopos", "none")):
        for seed in (0, 1):
            run = tmp_path / "sweep" / f"{model}-demo-local-seed{seed}"
            for step in (0, 100):
                planted = {} if step == 0 else {"both_strong": 1 + seed}
                write_census(run / "census" / f"step_{step:09d}", title=f"{run.name}, step {step}", step=step, layers=2, neurons=16,
                             places=32, positions=positions, positional=planted, seed=seed)  # fmt: skip
            config = {
                "seed": seed,
                "name": run.name,
                "runs": "x",
                "model": {"positions": positions},
                "batch": {"tokens": 64, "micro": 1 + seed},
            }
            OmegaConf.save(OmegaConf.create(config | {"corpus": {"name": "local", "store": f"data{seed}"}}), run / "config.yaml")
    return tmp_path / "sweep"


def test_a_folder_of_a_sweep_is_one_page(sweep: Path) -> None:
    folders = run_folders([sweep])
    assert [folder.name for folder in folders] == [f"{m}-demo-local-seed{s}" for m in ("baseline", "nopos") for s in (0, 1)]
    assert run_folders([folders[1], sweep]) == [folders[1], folders[0], *folders[2:]]
    grouped = variants({folder: [] for folder in folders})
    assert [(variant.name, len(variant.runs)) for variant in grouped] == [("baseline-demo-local", 2), ("nopos-demo-local", 2)]
    compare([sweep], [], sweep, Console(quiet=True))
    page = (sweep / "report.html").read_text()
    assert "nopos-demo-local, 2 seeds, step 100: " in page and 'id="figure-variants_by_layer"' in page
    spread = pl.read_parquet(sweep / "variants.parquet")
    assert spread.filter(pl.col("quantity") == "positional", pl.col("layer").is_null(), pl.col("step") == 100)[
        "runs"
    ].to_list() == [2, 2]


def test_a_folder_of_runs_may_hold_censuses_of_single_checkpoints(sweep: Path) -> None:
    write_census(sweep / "census" / "opt-125m", layers=1, neurons=16, places=32)
    assert len(run_folders([sweep])) == 4
    with pytest.raises(UserError, match="is no run folder and holds none"):
        run_folders([sweep / "census"])


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run folder and holds none"):
        run_folders([tmp_path])


def test_a_run_of_a_census_without_a_step_is_refused(sweep: Path) -> None:
    folder = sweep / "baseline-demo-local-seed0" / "census" / "step_000000100"
    told = read_meta(folder)
    told["checkpoint"]["step"] = None
    write_meta(folder, told)
    with pytest.raises(UserError, match="step_000000100 is of a checkpoint that knows no step"):
        compare([sweep], [], sweep, Console(quiet=True))


def test_two_runs_of_one_name_are_two_variants_by_their_folders(tmp_path: Path) -> None:
    for place, planted in (("one", {}), ("other", {"both_strong": 2})):
        folder = tmp_path / place / "nopos" / "census" / "step_000000100"
        write_census(folder, title="nopos, step 100", step=100, layers=2, neurons=16, places=32, positional=planted)
    runs = [tmp_path / place / "nopos" for place in ("one", "other")]
    compare(runs, [], tmp_path / "page", Console(quiet=True))
    told = pl.read_parquet(tmp_path / "page" / "differences.parquet").filter(pl.col("quantity") == "positional")
    assert told.select("variant", "other").row(0) == (str(runs[1]), str(runs[0])) and told["difference"][0] > 0
    both = [open_census(run / "census" / "step_000000100") for run in runs]
    assert not is_one_run(both) and labels(both) == [f"nopos, step 100 ({census.path})" for census in both]
    assert all(f"in {run / 'census'}" in source(both) for run in runs)
    assert not is_one_run([both[0], both[0]])
