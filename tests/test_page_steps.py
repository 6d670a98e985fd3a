"""The step slider of a run's page in a real browser: figures, curves, the table and a neuron's panel as they were at a step."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import MISSING, chromium
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from synthetic_census import write_census
from test_page import ABSENT, by_id, opened, rows, said, until

from analyze.figures.over_training import types_over_training
from analyze.page.build import run_page
from analyze.tables.census import Census
from files import write_whole

pytestmark = pytest.mark.skipif(bool(MISSING), reason=ABSENT)
PLANTED: dict[int, dict[str, int]] = {0: {}, 100: {"one_weak": 2}, 1000: {"both_strong": 3, "one_weak": 1}}


@pytest.fixture(scope="module")
def milestones(tmp_path_factory: pytest.TempPathFactory) -> list[Census]:
    folder = tmp_path_factory.mktemp("run")
    return [
        write_census(
            folder / f"step_{step}", title=f"run, step {step}", step=step, layers=1, neurons=24, places=32, positional=planted
        )
        for step, planted in PLANTED.items()
    ]


@pytest.fixture(scope="module")
def window() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(window: Chrome, milestones: list[Census], tmp_path: Path) -> Iterator[Chrome]:
    over_training = {"types_over_training": types_over_training(milestones)}
    write_whole(tmp_path / "report.html", run_page(milestones, over_training, {}, tmp_path))
    opened(window, (tmp_path / "report.html").as_uri())
    yield window
    assert window.get_log("browser") == []  # type: ignore[no-untyped-call]


def types(page: Chrome) -> list[str]:
    """The second column of the table."""
    found: list[str] = page.execute_script(
        "return [...document.querySelectorAll('#rows tr')].map((row) => row.children[1].textContent.split(' ')[0])"
    )
    return found


def circles(page: Chrome) -> int:
    return len(page.find_elements(By.CSS_SELECTOR, "#figure-positional_neurons_at_step svg a"))


def lines(page: Chrome) -> list[str | None]:
    return [line.get_attribute("x1") for line in page.find_elements(By.CSS_SELECTOR, "#figure-types_over_training .now")]


def at_step(page: Chrome, words: str) -> None:
    until(page, lambda: str(page.execute_script("return document.documentElement.dataset.step")).startswith(words))


def test_the_keys_set_figures_and_table_back_to_each_step(page: Chrome, milestones: list[Census]) -> None:
    assert said(page, "#step-told").startswith("step 1,000") and circles(page) == 4
    last = lines(page)
    for census, words in ((milestones[1], "step 100,"), (milestones[0], "step 0")):
        by_id(page, "step").send_keys(Keys.ARROW_LEFT)
        at_step(page, words)
        assert said(page, "#step-told").startswith(words)
        assert circles(page) == census.layers["positional"].sum() and len(rows(page)) == 24
        assert types(page) == census.neurons["type"].to_list()
        assert len(lines(page)) == 1 and lines(page) != last
        caption = said(page, "#figure-positional_neurons_at_step figcaption")
        assert caption.lower().startswith(words)


def test_what_is_filtered_stays_filtered_at_another_step(page: Chrome, milestones: list[Census]) -> None:
    page.execute_script("const s = document.getElementById('type'); s.value = 'type:4'; s.dispatchEvent(new Event('change'))")
    assert len(rows(page)) == 4
    by_id(page, "step").send_keys(Keys.ARROW_LEFT)
    at_step(page, "step 100,")
    assert len(rows(page)) == 2


def test_a_neurons_panel_tells_its_history_and_leads_back_to_each_step(page: Chrome, milestones: list[Census]) -> None:
    neuron = next(i for i, kind in enumerate(milestones[2].neurons["type"]) if kind != milestones[1].neurons["type"][i])
    page.execute_script(f"location.hash = 'L0N{neuron}'")
    until(page, lambda: by_id(page, "neuron").is_displayed())
    told = [row.text.split() for row in page.find_elements(By.CSS_SELECTOR, ".history tbody tr")]
    for row, census in zip(told, milestones, strict=True):
        assert census.neurons["type"][neuron] in row and f"{100 * census.neurons['frequency'][neuron]:.3g}%" in row
    page.find_elements(By.CSS_SELECTOR, ".history tbody button")[1].click()
    at_step(page, "step 100,")
    assert said(page, "#neuron-name") == f"Neuron L0N{neuron}" and "at step 100," in said(page, "#neuron")
    kind = said(page, "#neuron .kind")
    assert kind.startswith(milestones[1].neurons["type"][neuron])
    assert page.execute_script("return document.activeElement.textContent").startswith("step 100")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    until(page, lambda: not by_id(page, "neuron").is_displayed())
    assert said(page, "#step-told").startswith("step 100,")
