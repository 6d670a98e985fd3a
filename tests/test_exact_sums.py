"""Products of a census are added up in float32, and what runs after it in the same process finds the settings as they were."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from test_census import taken

from analyze.census import layer_loop as counting
from analyze.firing import mask as firings
from device import exact_sums

MATMUL = torch.backends.cuda.matmul
NAMES = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction", "allow_tf32")


def settings() -> list[Any]:
    return [getattr(MATMUL, name) for name in NAMES]


def test_a_census_adds_up_in_float32_and_leaves_the_settings_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.saved(tmp_path / "model", tiny.random_model())
    before, within = settings(), []

    def noted(*arguments: Any) -> firings.Firings:
        within.append(settings())
        return firings.record(*arguments)

    assert any(before), "torch's own settings add up bfloat16 in bfloat16"
    monkeypatch.setattr(counting, "record", noted)
    taken(tmp_path, tiny.random_ids())
    assert within == [[False] * 3] * 3 and settings() == before


def test_settings_come_back_after_an_error() -> None:
    before = settings()
    with pytest.raises(KeyError), exact_sums():
        raise KeyError
    assert settings() == before
