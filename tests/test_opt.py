"""Our OPT is transformers' OPT, for every variant that transformers can express."""

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, OPTForCausalLM

from models.checkpoint import open_checkpoint, save_checkpoint
from models.config import OPTConfig
from models.opt import OPT, initialise

SMALL = {"layers": 3, "width": 48, "heads": 4, "neurons": 96, "context": 32, "vocab_size": 60}
SHAPES = {
    "pre-LN": {},
    "350m-like": {"norm": "post", "final_norm": False, "embed_dim": 20},
    "nopos": {"positions": "none"},
    "pre-LN without final LayerNorm": {"final_norm": False},
}


def random_model(**variant) -> OPT:
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
def test_logits_and_firings_are_those_of_transformers(variant, ids, tmp_path) -> None:
    model = random_model(**variant)
    save_checkpoint(model, tmp_path / "m", {"step": 7})
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
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


@pytest.mark.parametrize("variant", [*SHAPES.values(), {"norm": "post"}], ids=[*SHAPES, "post-LN with final LayerNorm"])
@torch.no_grad()
def test_a_saved_model_opens_as_it_was(variant, ids, tmp_path) -> None:
    model = random_model(**variant)
    save_checkpoint(model, tmp_path / "m", {"step": 7, "tokens": 70})
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    assert checkpoint.config.positions == model.config.positions
    assert (checkpoint.step, checkpoint.tokens_trained) == (7, 70)
    assert torch.equal(checkpoint.model()(ids), model(ids))


def test_transformers_refuses_what_it_cannot_express(tmp_path) -> None:
    save_checkpoint(random_model(norm="post"), tmp_path / "m", {})
    with pytest.raises((ValueError, KeyError)):
        AutoModelForCausalLM.from_pretrained(tmp_path / "m")


@torch.no_grad()
def test_one_block_at_a_time_is_the_whole_model(ids, tmp_path) -> None:
    model = random_model(norm="post", final_norm=False, embed_dim=20)
    save_checkpoint(model, tmp_path / "m", {})
    checkpoint = open_checkpoint(str(tmp_path / "m"))
    ends = checkpoint.ends(torch.float32)
    x = ends.embed(ids)
    for layer in range(model.config.layers):
        x, _ = checkpoint.block(layer, torch.float32)(x)
    assert torch.equal(ends.unembed(x), model(ids))


def test_the_future_is_not_seen(ids) -> None:
    model = random_model()
    changed = ids.clone()
    changed[:, 20] = (changed[:, 20] + 1) % SMALL["vocab_size"]
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :20], after[:, :20])
    assert not torch.equal(before[:, 20:], after[:, 20:])


def test_initialisation_has_the_standard_deviations_of_metaseq() -> None:
    model = initialise(OPT(OPTConfig(layers=4, width=256, heads=4, neurons=1024, context=512, vocab_size=2000)), seed=3)
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            assert torch.equal(parameter, torch.full_like(parameter, float(name.endswith("weight"))))
        elif name.endswith("bias"):
            assert not parameter.any()
        else:
            std = 0.006 / math.sqrt(8) if ("out_proj" in name or "fc2" in name) else 0.006
            assert parameter.std().item() == pytest.approx(std, rel=0.02)


def test_the_same_seed_draws_the_same_weights() -> None:
    one, same, other = (initialise(OPT(OPTConfig(**SMALL)), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["decoder.layers.0.fc1.weight"], other["decoder.layers.0.fc1.weight"])
