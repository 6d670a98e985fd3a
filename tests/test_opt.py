"""Our OPT is transformers' OPT, for every variant that transformers can express; every variant keeps the laws of a decoder."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import layouts
import pytest
import torch
from layouts import LAYOUTS, PREFIXES
from reading import read_block, read_model
from transformers import AutoModelForCausalLM, OPTForCausalLM

from errors import UserError
from models.checkpoint import save_checkpoint
from models.config import OPTConfig
from models.open_checkpoint import open_checkpoint
from models.opt import OPT, initialise

SMALL: dict[str, Any] = {"layers": 3, "width": 48, "heads": 4, "neurons": 96, "context": 32, "vocab_size": 60}
SHAPES = {
    "pre-LN": {},
    "350m-like": {"norm": "post", "final_norm": False, "embed_dim": 20},
    "nopos": {"positions": "none"},
    "pre-LN without final LayerNorm": {"final_norm": False},
    "sinusoidal": {"positions": "sinusoidal"},
    "gelu": {"activation": "gelu"},
    "galactica's": {"activation": "gelu", "biases": False, "gains": False},
    "galactica's with gains": {"activation": "gelu", "biases": False},
    "untied": {"tied": False},
    "350m-like, untied": {"norm": "post", "final_norm": False, "embed_dim": 20, "tied": False},
    "relu_squared": {"activation": "relu_squared", "norm": "post", "final_norm": False},
}
OURS_ALONE = {
    "post-LN with final LayerNorm": {"norm": "post"},
    "rotary": {"positions": "rotary"},
    "alibi": {"positions": "alibi", "heads": 3},
}
EVERY = SHAPES | OURS_ALONE


ON_DISK = {
    "pre-LN": {},
    "350m-like": SHAPES["350m-like"],
    "heads of 64": {"width": 128, "heads": 2},
    "heads of 80": {"width": 160, "heads": 2},
}


def random_model(**variant: Any) -> OPT:
    """A model with weights far from their initial ones: every bias and gain is drawn too."""
    torch.manual_seed(0)
    model = OPT(OPTConfig(**(SMALL | variant))).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(4, SMALL["vocab_size"], (3, 32), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", SHAPES.values(), ids=SHAPES)
@torch.no_grad()
def test_logits_and_firings_are_those_of_transformers(variant: dict[str, Any], ids: torch.Tensor, tmp_path: Path) -> None:
    model = random_model(**variant)
    save_checkpoint(model, tmp_path / "m", {"step": 7})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    assert isinstance(theirs, OPTForCausalLM)
    seen = []
    for layer in theirs.model.decoder.layers:
        layer.fc1.register_forward_hook(lambda _module, _input, output: seen.append(output.view(*ids.shape, -1)))
    logits = theirs(ids).logits
    torch.testing.assert_close(model(ids), logits, atol=1e-4, rtol=0)
    x = model.decoder.embed(ids)
    for block, expected in zip(model.decoder.layers, seen, strict=True):
        x, pre = block(x)
        assert torch.equal(pre > 0, expected > 0)
        torch.testing.assert_close(pre, expected, atol=1e-4, rtol=0)
    assert 0.05 < (pre > 0).float().mean() < 0.95


@pytest.mark.parametrize("variant", EVERY.values(), ids=EVERY)
@torch.no_grad()
def test_a_saved_model_opens_as_it_was(variant: dict[str, Any], ids: torch.Tensor, tmp_path: Path) -> None:
    model = random_model(**variant)
    save_checkpoint(model, tmp_path / "m", {"step": 7, "tokens": 70})
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    assert checkpoint.config == replace(model.config, embed_dim=model.config.token_width)
    assert (checkpoint.step, checkpoint.tokens_trained) == (7, 70)
    assert torch.equal(read_model(checkpoint)(ids), model(ids))


@pytest.mark.parametrize(
    ("variant", "lacks"),
    [
        ({"norm": "post"}, "final LayerNorm after post-LayerNorm"),
        ({"positions": "rotary"}, "rotary positions"),
        ({"positions": "alibi"}, "alibi positions"),
    ],
)
def test_transformers_refuses_what_it_cannot_express_and_the_milestone_says_why(
    variant: dict[str, Any], lacks: str, tmp_path: Path
) -> None:
    save_checkpoint(random_model(**variant), tmp_path / "m", {})
    with pytest.raises((ValueError, KeyError)):
        AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert lacks in json.loads((tmp_path / "m" / "config.json").read_text())["neuron_census"]["note"]


@pytest.mark.parametrize("variant", EVERY.values(), ids=EVERY)
@torch.no_grad()
def test_one_block_at_a_time_is_the_whole_model(variant: dict[str, Any], ids: torch.Tensor, tmp_path: Path) -> None:
    model = random_model(**variant)
    save_checkpoint(model, tmp_path / "m", {})
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    ends = checkpoint.ends(torch.float32)
    x = ends.embed(ids)
    for layer in range(model.config.layers):
        x, _ = read_block(checkpoint, layer)(x)
    assert torch.equal(ends.unembed(x), model(ids))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("variant", ON_DISK.values(), ids=ON_DISK)
@torch.no_grad()
def test_layer_by_layer_is_the_whole_model_is_transformers(
    variant: dict[str, Any], layout: str, prefix: str, ids: torch.Tensor, tmp_path: Path
) -> None:
    model = random_model(**variant)
    layouts.write(tmp_path / "m", model, layouts.weights_of(model, prefix), layout)
    whole_of_theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    theirs = whole_of_theirs.model.decoder
    streams, seen = [], []
    for layer in theirs.layers:
        layer.register_forward_hook(lambda _module, _input, output: streams.append(output))
        layer.fc1.register_forward_hook(lambda _module, _input, output: seen.append(output.view(*ids.shape, -1)))
    theirs(ids)
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    whole, ends = read_model(checkpoint), checkpoint.ends(torch.float32)
    x = y = ends.embed(ids)
    for number, block in enumerate(whole.decoder.layers):
        y, pre = read_block(checkpoint, number)(y)
        x, _ = block(x)
        assert torch.equal(x, y)
        assert torch.equal(pre > 0, seen[number] > 0)
        torch.testing.assert_close(y, streams[number], atol=1e-4, rtol=0)
    assert torch.equal(ends.unembed(y), whole(ids))


@pytest.mark.parametrize("variant", EVERY.values(), ids=EVERY)
@torch.no_grad()
def test_the_future_is_not_seen(variant: dict[str, Any], ids: torch.Tensor) -> None:
    model = random_model(**variant)
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 1) % SMALL["vocab_size"]
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi"])
@torch.no_grad()
def test_the_order_of_what_came_before_tells_only_models_with_positions(positions: str, ids: torch.Tensor) -> None:
    swapped = ids[:, [1, 0, *range(2, 32)]]  # of one layer, whose attention would otherwise see a set
    for kind, told in ((positions, True), ("none", False)):
        model = random_model(positions=kind, layers=1)
        difference = (model(ids) - model(swapped))[:, 2:].abs().max()
        assert difference > 1e-3 if told else difference < 1e-4


@pytest.mark.parametrize(
    "setting", [{"width": 15, "heads": 3, "positions": "sinusoidal"}, {"width": 12, "heads": 4, "positions": "rotary"}]
)
def test_an_odd_width_has_no_pairs_to_turn(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="even width"):
        OPTConfig(**setting)


@pytest.mark.parametrize(("field", "value"), [("positions", "rope"), ("norm", "rms"), ("activation", "silu")])
def test_a_choice_that_is_none_is_told_the_choices(field: str, value: str) -> None:
    setting: dict[str, Any] = {field: value}
    with pytest.raises(UserError, match=rf"model.{field}='{value}' is none of"):
        OPTConfig(**setting)


def test_the_activation_of_another_opt_is_read_or_named(tmp_path: Path) -> None:
    save_checkpoint(random_model(activation="relu_squared"), tmp_path / "m", {})
    file = tmp_path / "m" / "config.json"
    entries = json.loads(file.read_text())
    assert entries["activation_function"] == "relu2" and "writes anything" in entries["neuron_census"]["fires"]
    (tmp_path / "m" / "training_state.json").unlink()  # other programs write none
    file.write_text(json.dumps(entries | {"activation_function": "silu"}))
    with pytest.raises(UserError, match="'silu'; only 'relu', 'gelu', 'relu2'"):
        open_checkpoint(str(tmp_path / "m"))


def test_initialisation_has_the_standard_deviations_of_metaseq() -> None:
    shape: dict[str, Any] = {
        "layers": 4,
        "width": 256,
        "heads": 4,
        "neurons": 1024,
        "embed_dim": 200,
        "context": 512,
        "vocab_size": 2000,
    }
    model = initialise(OPT(OPTConfig(**shape)), seed=3)
    kinds = {name.split(".")[-2] for name, _ in model.named_parameters()}
    assert kinds == {"embed_tokens", "embed_positions", "project_in", "project_out", "q_proj", "k_proj", "v_proj", "out_proj",
                     "self_attn_layer_norm", "fc1", "fc2", "final_layer_norm"}  # fmt: skip
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            std = 0.006 / math.sqrt(8) if ("out_proj" in name or "fc2" in name) else 0.006
            assert parameter.std().item() == pytest.approx(std, rel=0.02)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("embed_dim", [None, 20])
@pytest.mark.parametrize("positions", ["learned", "none", "sinusoidal", "rotary", "alibi"])
def test_the_residual_stream_is_in_float32_whatever_the_variant(
    positions: str, embed_dim: int | None, norm: str, ids: torch.Tensor
) -> None:
    """Under bfloat16 autocast only products are coarser, or variants would differ by their precision too."""
    model = random_model(positions=positions, embed_dim=embed_dim, norm=norm)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = model.decoder.embed(ids)
        seen = [x.dtype] + [(x := block(x)[0]).dtype for block in model.decoder.layers]
    assert set(seen) == {torch.float32}


def test_another_s_config_does_not_say_what_its_training_began_from(tmp_path: Path) -> None:
    """transformers writes init_std 0.02 for every OPT; ours is kept."""
    save_checkpoint(random_model(init_std=0.01), tmp_path / "ours", {})
    assert open_checkpoint(str(tmp_path / "ours")).config.init_std == 0.01
    entries = json.loads((tmp_path / "ours" / "config.json").read_text()) | {"init_std": 0.02}
    del entries["neuron_census"]
    (tmp_path / "ours" / "training_state.json").unlink()  # transformers writes none
    (tmp_path / "ours" / "config.json").write_text(json.dumps(entries))
    assert open_checkpoint(str(tmp_path / "ours")).config.init_std == 0.006


def test_the_same_seed_draws_the_same_weights() -> None:
    one, same, other = (initialise(OPT(OPTConfig(**SMALL)), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["decoder.layers.0.fc1.weight"], other["decoder.layers.0.fc1.weight"])
