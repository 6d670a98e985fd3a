"""The page in a real browser: found, filtered, sorted, opened by mouse, keyboard and address; figures answer and zoom."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from browser import MISSING, chromium
from PIL import Image
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from synthetic_census import write_census
from synthetic_ngrams import WORDS

from analyze.figures.dead_and_frequency import dead_and_frequency
from analyze.figures.positions import positional_neurons
from analyze.page.build import census_page
from analyze.tables.census import Census
from files import write_whole

ABSENT = f"no {' and no '.join(MISSING)} here; on Debian: apt install chromium chromium-driver"
pytestmark = pytest.mark.skipif(bool(MISSING), reason=ABSENT)
PATIENCE = 60  # seconds, on a busy machine


@pytest.fixture(scope="module")
def census(tmp_path_factory: pytest.TempPathFactory) -> Census:
    return write_census(tmp_path_factory.mktemp("census") / "c", title="planted", layers=2, neurons=128)


@pytest.fixture(scope="module")
def address(census: Census) -> str:
    figures = {"firing": dead_and_frequency([census]), "positional": positional_neurons([census])}
    write_whole(census.path / "report.html", census_page(census, figures))
    return (census.path / "report.html").as_uri()


@pytest.fixture(scope="module")
def window() -> Iterator[Chrome]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(window: Chrome, address: str) -> Iterator[Chrome]:
    """The page, just opened; whatever a test does with it, the console must stay empty."""
    opened(window, address)
    yield window
    assert window.get_log("browser") == []  # type: ignore[no-untyped-call]


def opened(browser: Chrome, address: str) -> None:
    browser.get("about:blank")
    browser.get(address)
    until(browser, lambda: browser.execute_script("return document.documentElement.dataset.ready"))


def until(browser: Chrome, condition: object) -> None:
    WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(lambda _: condition())  # type: ignore[operator]


def by_id(page: Chrome, name: str) -> WebElement:
    return page.find_element(By.ID, name)


def choose(page: Chrome, name: str, value: str) -> None:
    page.execute_script("const s = document.getElementById(arguments[0]); s.value = arguments[1]; s.dispatchEvent(new Event('change'))",
                        name, value)  # fmt: skip


def rows(page: Chrome) -> list[str]:
    """Names of the neurons in the table."""
    found: list[str] = page.execute_script("return [...document.querySelectorAll('#rows tr')].map((row) => row.dataset.name)")
    return found


def said(page: Chrome, selector: str) -> str:
    """Words of the first such element, asked for in one go: the page may put another in its place at any moment."""
    words = "return document.querySelector(arguments[0])?.innerText.replaceAll('\\t', ' ') ?? ''"
    return str(page.execute_script(words, selector))


def in_focus(page: Chrome) -> str:
    """First word of the element in focus, in one go too."""
    return str(page.execute_script("return document.activeElement.innerText.trim().split(/\\s/)[0]"))


def shown_width(page: Chrome) -> float:
    """Of the first figure, wherever it is."""
    figure = "document.querySelector('#figure-firing svg, #enlarged svg')"
    return float(page.execute_script(f"return {figure}.getBoundingClientRect().width"))


def names(neurons: pl.DataFrame) -> list[str]:
    return [f"L{layer}N{neuron}" for layer, neuron in neurons.select("layer", "neuron").iter_rows()]


def test_a_screenshot_is_not_blank(page: Chrome) -> None:
    picture = np.asarray(Image.open(BytesIO(page.get_screenshot_as_png())).convert("L"))
    assert picture.shape == (900, 1280)
    assert picture.std() > 10 and len(np.unique(picture)) > 50


def test_the_page_fetches_nothing(page: Chrome) -> None:
    fetched = page.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert all(name.startswith("data:") for name in fetched)


def test_a_tokens_text_finds_its_planted_detector_and_opens_it(page: Chrome, census: Census) -> None:
    asked = [256 + WORDS.index(word) for word in ("Ġweather", "ĠWeather")]
    found = census.neurons.filter(pl.any_horizontal(pl.col("detected_tokens").list.contains(token) for token in asked))
    by_id(page, "find").send_keys(" weather")
    assert names(found) and rows(page) == names(found)
    page.find_element(By.CSS_SELECTOR, "#rows tr td").click()
    until(page, lambda: by_id(page, "neuron").is_displayed())
    assert said(page, "#neuron-name") == f"Neuron {names(found)[0]}"
    tokens = pl.read_parquet(census.path / "ngrams.parquet").join(found.head(1), on=["layer", "neuron"]).filter(pl.col("n") == 1)
    table = said(page, "#neuron table")
    for (token,), fires, occurs in tokens.select("ids", "fires", "occurrences").iter_rows():
        assert f"{census.token_text(token)} {fires:,} {occurs:,}" in table


def test_promoted_and_suppressed_tokens_are_found_where_asked(page: Chrome, census: Census) -> None:
    token = 256 + WORDS.index("Ġimport")
    by_id(page, "find").send_keys("import")
    for column in ("top_promoted", "top_suppressed"):
        choose(page, "where", column)
        expected = names(census.neurons.filter(pl.col(column).list.contains(token)))
        assert rows(page) == expected[:100]
        assert said(page, "#told").endswith(f"of {len(expected)}")


def test_type_and_layer_filter_together(page: Chrome, census: Census) -> None:
    choose(page, "type", "type:0")
    choose(page, "layer", "1")
    assert rows(page) == names(census.neurons.filter(pl.col("dead") & (pl.col("layer") == 1)))
    by_id(page, "all").click()
    assert said(page, "#told") == f"Neurons 1–100 of {census.neurons.height}"
    choose(page, "type", "pattern:0")
    strong = (pl.col("position_type") == "oscillatory") & pl.col("position_strong")
    assert rows(page) == names(census.neurons.filter(strong))


def test_sorting_goes_both_ways_with_the_unknown_last(page: Chrome, census: Census) -> None:
    head = next(head for head in page.find_elements(By.CSS_SELECTOR, "#heads button") if head.text.startswith("most firings"))
    for down in (True, False):
        head.click()
        expected = census.neurons.sort("last_position_95", descending=down, nulls_last=True, maintain_order=True)
        assert rows(page) == names(expected)[:100]
    by_id(page, "next").click()
    by_id(page, "next").click()
    last = census.neurons.filter(pl.col("last_position_95").is_null())
    assert rows(page)[-last.height :] == names(last)


def test_an_address_opens_its_neuron_and_escape_closes_it(window: Chrome, address: str, census: Census) -> None:
    opened(window, f"{address}#L1N7")
    assert said(window, "#neuron-name") == "Neuron L1N7"
    drawn = window.find_elements(By.CSS_SELECTOR, "#neuron polyline")
    assert len(drawn) == 1
    window.execute_script("location.hash = 'l0n3'")
    until(window, lambda: said(window, "#neuron-name") == "Neuron L0N3")
    ActionChains(window).send_keys(Keys.ESCAPE).perform()
    until(window, lambda: window.execute_script("return location.hash") == "")
    assert not by_id(window, "neuron").is_displayed()
    opened(window, f"{address}#L9N999999")
    assert "no such neuron" in said(window, "#neuron")


def test_the_keyboard_alone_reaches_opens_and_leaves_a_neuron(page: Chrome, census: Census) -> None:
    by_id(page, "all").send_keys(Keys.TAB)
    while page.execute_script("return document.activeElement.tagName") == "BUTTON":  # the headings
        ActionChains(page).send_keys(Keys.TAB).perform()
    assert in_focus(page) == "L0N0"
    ActionChains(page).send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_UP).perform()
    until(page, lambda: in_focus(page) == "L0N1")
    ActionChains(page).send_keys(Keys.ENTER).perform()
    until(page, lambda: by_id(page, "neuron").is_displayed())
    ActionChains(page).send_keys(Keys.ARROW_RIGHT).perform()
    until(page, lambda: said(page, "#neuron-name") == "Neuron L0N2")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    until(page, lambda: in_focus(page) == "L0N2")
    assert not by_id(page, "neuron").is_displayed()


def test_figures_tell_values_and_lead_to_neurons(page: Chrome, census: Census) -> None:
    holder = page.find_element(By.CSS_SELECTOR, "#figure-firing .drawing")
    page.execute_script("arguments[0].focus()", holder)
    ActionChains(page).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    share = f"{100 * census.layers['dead_share'][1]:.3g}%"
    until(page, lambda: f"layer: 1\nshare of the layer's neurons: {share}" in said(page, "#tip"))
    circle = page.find_element(By.CSS_SELECTOR, "#figure-positional a")
    link = circle.get_attribute("href") or circle.get_dom_attribute("xlink:href")
    ActionChains(page).move_to_element(circle).pause(0.2).move_by_offset(1, 0).move_to_element(circle).perform()
    name = str(link).split("#")[-1]
    until(page, lambda: said(page, "#tip").startswith(name))
    ActionChains(page).click().perform()
    until(page, lambda: by_id(page, "neuron").is_displayed())
    assert said(page, "#neuron-name") == f"Neuron {name}"


def test_a_figure_is_enlarged_and_zooms_and_goes_back_to_its_place(page: Chrome) -> None:
    small = shown_width(page)
    page.execute_script("document.querySelector('#figure-firing .drawing').focus()")
    ActionChains(page).send_keys(Keys.ENTER).perform()
    until(page, lambda: by_id(page, "enlarged").is_displayed())
    large = shown_width(page)
    ActionChains(page).send_keys("+").perform()
    assert small < large < shown_width(page)
    ActionChains(page).send_keys("0").perform()
    assert shown_width(page) == large
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    focused = "return document.querySelector('#figure-firing .drawing') === document.activeElement"
    until(page, lambda: page.execute_script(focused))
    assert shown_width(page) == small


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(address: str, width: int, tmp_path: Path) -> None:
    with chromium(width, 800, dark=True) as browser:
        opened(browser, f"{address}#L0N0")
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return document.getElementById('neuron').scrollWidth") <= width
