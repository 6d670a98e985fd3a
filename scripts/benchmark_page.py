"""How fast a page opens in Chromium: python scripts/benchmark_page.py [--page report.html] [--rounds 5]

Without --page, that of a synthetic census of OPT-125m's 36,864 neurons and 50,272 tokens: 11 % dead, 6 % positional, 10 % detectors.
With --layers 33 it has 101,376 neurons, more than a page's table holds.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

from browser import chromium
from selenium.webdriver import Chrome
from synthetic_census import write_census
from synthetic_ngrams import BYTES, WORDS

from analyze.figures.catalogue import census_figures
from analyze.page.build import census_page
from errors import BEGINS_AGAIN, plainly
from files import write_whole

NEURONS, VOCABULARY = 3072, 50_272
PLANTED = {f"{kind}_{strength}": 30 for kind in ("oscillatory", "both", "one", "other") for strength in ("strong", "weak")}
MEASURED = {
    "first picture": "return performance.getEntriesByName('first-contentful-paint')[0].startTime",
    "table of neurons at hand": "return +document.documentElement.dataset.ready",
    "search for a token": """const begun = performance.now(), find = document.getElementById('find');
        find.value = 'w123'; find.dispatchEvent(new Event('input')); return performance.now() - begun""",
    "sort": """const find = document.getElementById('find'); find.value = ''; find.dispatchEvent(new Event('input'));
        const begun = performance.now(); document.querySelectorAll('#heads button')[2].click(); return performance.now() - begun""",
    "open a neuron": """const begun = performance.now(); document.querySelector('#rows td').click();
        return new Promise((done) => addEventListener('hashchange', () => setTimeout(() => done(performance.now() - begun))))""",
}


def synthetic_page(folder: Path, layers: int) -> Path:
    """Write the census and its page."""
    census = write_census(
        folder / "census", layers=layers, neurons=NEURONS, places=512, positional=PLANTED, dead=0.2, detectors=320,
        further_words=VOCABULARY - BYTES - len(WORDS),
    )  # fmt: skip
    write_whole(folder / "report.html", census_page(census, census_figures(census)))
    return folder / "report.html"


def times(browser: Chrome, page: Path) -> dict[str, float]:
    """Milliseconds of each of `MEASURED`, of one opening."""
    browser.get("about:blank")
    browser.get(page.resolve().as_uri())
    browser.execute_async_script(
        "const done = arguments[0], wait = () => document.documentElement.dataset.ready ? done() : setTimeout(wait, 5); wait()"
    )
    return {name: float(browser.execute_script(script)) for name, script in MEASURED.items()}


def main() -> None:
    """Open the page `--rounds` times; the table has the median and the slowest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="a report.html with a table of neurons")
    parser.add_argument("--layers", type=int, default=12, help="of the synthetic census")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        page = arguments.page or synthetic_page(Path(folder), arguments.layers)
        print(f"{page.stat().st_size / 1e6:.2f} MB, Chromium {browser.capabilities['browserVersion']}, milliseconds\n")
        rounds = [times(browser, page) for _ in range(arguments.rounds)]
    print("| | median | slowest |\n|---|---:|---:|")
    for name in MEASURED:
        taken = [one[name] for one in rounds]
        print(f"| {name} | {median(taken):,.0f} | {max(taken):,.0f} |")


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
