"""Whatever is damaged, the step that trusts it names it or gives the numbers of the whole: no others, and no traceback."""

from pathlib import Path

import pytest
from damage import DAMAGES, FOUND, HARMLESS, Outcome, Step, Trusted, outcomes, report, wrong
from damages import trusted_folders

from errors import UserError


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> list[Trusted]:
    return trusted_folders(tmp_path_factory.mktemp("trusted"))


def test_some_damages(trusted: list[Trusted]) -> None:
    found = list(outcomes(trusted, 12, seed=0))
    assert not wrong(found), report(found)
    assert {outcome.found for outcome in found} == {FOUND, HARMLESS}


@pytest.mark.long
def test_two_hundred_damages(trusted: list[Trusted], capsys: pytest.CaptureFixture[str]) -> None:
    found = list(outcomes(trusted, 200, seed=1))
    with capsys.disabled():
        print(f"\n{report(found)}")
    assert not wrong(found)
    assert {outcome.damage for outcome in found} == set(DAMAGES) and {outcome.of for outcome in found} == {
        t.name for t in trusted
    }


def test_what_goes_wrong_is_seen(tmp_path: Path) -> None:
    """A step that reads a number and checks nothing."""
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "number.txt").write_text("12345678")

    def unnamed(folder: Path) -> list[object]:
        if (folder / "number.txt").read_text() != "12345678":
            raise UserError("something is wrong.")
        return []

    steps: dict[str, Step] = {
        "trusts": lambda folder: [int((folder / "number.txt").read_text())],
        "trusts nothing": lambda folder: [len(list(folder.iterdir())) >= 0],
        "does not say": unnamed,
    }
    found = list(outcomes([Trusted("x", tmp_path / "x", steps)], 12, seed=0))
    assert {o.found.split(":")[0] for o in found} >= {"OTHER NUMBERS", "TRACEBACK", "harmless"}
    assert not wrong([o for o in found if o.step == "trusts nothing"])
    assert (tmp_path / "x" / "number.txt").read_text() == "12345678"
    bad = Outcome("x", "number.txt", "a cut", "trusts", "OTHER NUMBERS")
    assert "x number.txt, a cut, at trusts: OTHER NUMBERS" in report([bad])
