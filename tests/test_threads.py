"""Several threads count what one does: the other tests, side by side, compute on one each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from safetensors.numpy import load_file
from test_census import taken

from analyze.jit import on_all_cores


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Leave torch with as many threads as it has."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_task_is_done_once_and_results_keep_their_order(threads: int) -> None:
    torch.set_num_threads(threads)
    done: list[int] = []

    def work(number: int) -> int:
        done.append(number)
        return number**2

    assert on_all_cores(work, [(number,) for number in range(50)]) == [number**2 for number in range(50)]
    assert sorted(done) == list(range(50))


def test_a_census_on_several_threads_counts_what_one_does(tmp_path: Path) -> None:
    """In float64, where no pre-activation is so near zero that the order of a sum decides its sign."""
    tiny.saved(tmp_path / "model", tiny.random_model())
    found = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        out = taken(tmp_path, tiny.random_ids(sequences=23), f"of_{threads}", dtype="float64")
        found.append([load_file(file) for file in sorted((out / "layers").iterdir())])
    one = found[0]
    assert len(one) == 3
    for several in found[1:]:
        for ours, theirs in zip(several, one, strict=True):
            assert ours.keys() == theirs.keys() and all((ours[name] == theirs[name]).all() for name in set(ours) - {"max_pre"})
