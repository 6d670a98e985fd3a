"""config.json and its like as damage and odd programs leave them: every value is taken, or refused in a sentence that names it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from errors import UserError
from models.checkpoint import Checkpoint
from models.config import OPTConfig
from models.huggingface import huggingface
from models.open_checkpoint import open_checkpoint

FIELDS = sorted({*huggingface(tiny.random_model().config), "neuron_census", "quantization_config"})
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 10**9, 10**18, 10**40, 2.5, math.nan, math.inf, -math.inf, "", "x", "32", [], [1], {}, {"a": {"b": [1]}},
]  # fmt: skip
OURS = ["positions", "final_norm", "init_std"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the versions before wrote it, whose files had no checksums: those would name every change as damage."""
    folder = tiny.saved(tmp_path_factory.mktemp("described") / "m", tiny.random_model(), step=3, tokens=40, name="run")
    state = json.loads((folder / "training_state.json").read_text())
    (folder / "training_state.json").write_text(json.dumps({k: v for k, v in state.items() if k not in ("xxh3", "checksum")}))
    return folder


def opened(folder: Path, file: str, entries: dict[str, Any]) -> Checkpoint | str:
    """With another file beside the weights: the checkpoint, or what is said."""
    kept = (folder / file).read_text()
    (folder / file).write_text(json.dumps(entries))
    try:
        return open_checkpoint(str(folder))
    except UserError as said:
        return str(said)
    finally:
        (folder / file).write_text(kept)


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("field", FIELDS)
def test_any_value_of_config_json_is_taken_or_named(field: str, odd: Any, folder: Path) -> None:
    """A size that is taken is the one of the weights; nothing else makes another model of it."""
    entries = json.loads((folder / "config.json").read_text())
    found = opened(folder, "config.json", entries | {field: odd})
    if isinstance(found, str):
        assert str(folder) in found and len(found) < 400 and found.endswith(".")
        assert field in found or "model of type" in found or "model_type" in found or "asks for" in found or "unexpected" in found or "is quantised" in found or "lacks decoder" in found or "does not divide" in found  # fmt: skip # noqa: E501
    else:
        sizes = ("layers", "width", "neurons", "context", "vocab_size")
        assert [getattr(found.config, name) for name in sizes] == [tiny.SHAPE[name] for name in sizes]


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd not in (True, False, None)], ids=repr)
@pytest.mark.parametrize("field", OURS)
def test_any_value_of_our_own_entry_is_taken_or_named(field: str, odd: Any, folder: Path) -> None:
    entries = json.loads((folder / "config.json").read_text())
    entries["neuron_census"] = {"positions": "learned", field: odd}
    found = opened(folder, "config.json", entries)
    if isinstance(found, str):
        assert f"{field}=" in found
    else:
        assert field == "init_std" and 0 <= odd <= 1000


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", "null", '{"a": 1, "a": 2}', "[" * 100_000, "\udce9"], ids=lambda c: c[:20]
)
@pytest.mark.parametrize("file", ["config.json", "training_state.json"])
def test_a_damaged_file_is_named(file: str, content: str, folder: Path) -> None:
    kept = (folder / file).read_bytes()
    (folder / file).write_bytes(content.encode(errors="surrogateescape"))
    try:
        with pytest.raises(UserError, match=rf"{file} (cannot be read as JSON|holds no JSON object)"):
            open_checkpoint(str(folder))
    finally:
        (folder / file).write_bytes(kept)


@pytest.mark.parametrize("odd", [True, -1, 2.5, math.nan, "x", [], {}], ids=repr)
@pytest.mark.parametrize("field", ["step", "tokens", "name", "precision"])
def test_odd_values_of_training_state_are_named(field: str, odd: Any, folder: Path) -> None:
    state = json.loads((folder / "training_state.json").read_text())
    found = opened(folder, "training_state.json", state | {field: odd})
    if isinstance(found, str):
        assert "training_state.json" in found and f"{field}=" in found
    else:
        assert odd == "x" and field in ("name", "precision")


def test_a_billion_layers_are_refused_at_once(folder: Path) -> None:
    """Of those that are no more than any model may have, before anything is made of them: against what the files hold."""
    entries = json.loads((folder / "config.json").read_text())
    for layers, said in ((10**9, "num_hidden_layers=1000000000"), (9_999, "asks for 9,999 layers")):
        found = opened(folder, "config.json", entries | {"num_hidden_layers": layers})
        assert isinstance(found, str) and said in found


@pytest.mark.parametrize(("field", "odd"), [("width", "32"), ("layers", 2.0), ("tied", 1), ("dropout", math.nan), ("norm", None)])
def test_a_ckpt_s_values_are_checked_too(field: str, odd: Any, tmp_path: Path) -> None:
    model = tiny.random_model()
    stored = {"model": vars(model.config) | {field: odd}, "state_dict": model.state_dict(), "global_step": 3}
    torch.save(stored, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=rf"model\.{field}="):
        open_checkpoint(str(tmp_path / "x.ckpt"))


def test_a_model_s_numbers_are_whole_finite_and_possible() -> None:
    for setting in ({"init_std": math.nan}, {"init_std": math.inf}, {"layers": 10**9}, {"embed_dim": 0}, {"dropout": math.nan}):
        with pytest.raises(UserError, match=rf"model\.{next(iter(setting))}="):
            OPTConfig(**setting)
