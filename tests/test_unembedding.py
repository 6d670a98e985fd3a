"""However files hold the unembedding, effects on logits are computed with the one that transformers takes; or a sentence says why not."""

import json
from pathlib import Path
from typing import Any

import layouts
import pytest
import tiny
import torch
from layouts import LAYOUTS, Weights
from reading import read_model
from transformers import AutoModelForCausalLM

from analyze.neuron_types.logit_attribution import effects
from errors import UserError
from models.checkpoint import Checkpoint
from models.open_checkpoint import open_checkpoint
from models.opt import OPT

EMBEDDING, UNEMBEDDING = "model.decoder.embed_tokens.weight", "lm_head.weight"
SHAPES: dict[str, dict[str, Any]] = {"as wide": {}, "350m-like": {"norm": "post", "final_norm": False, "embed_dim": 20}}


def written(folder: Path, model: OPT, weights: Weights, layout: str = "bin", **entries: Any) -> Path:
    """The weights under these names, with a config.json that has other entries."""
    layouts.write(folder, model, weights, layout)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    return folder


def full(model: OPT) -> Weights:
    return layouts.weights_of(model, dtype=torch.float32)


@torch.no_grad()
def assert_as_theirs(folder: Path, shape: dict[str, Any]) -> Checkpoint:
    """Logits of the whole model and effects of directions are those of transformers."""
    checkpoint = open_checkpoint(str(folder))
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # type: ignore[no-untyped-call]
    ids = torch.randint(4, 40, (2, 24), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(read_model(checkpoint)(ids), theirs(ids).logits, atol=1e-4, rtol=0)
    u, decoder = torch.randn(5, 32, generator=torch.Generator().manual_seed(2)), theirs.model.decoder
    expected = theirs.lm_head(decoder.project_out(u) if "embed_dim" in shape else u)
    ends = checkpoint.ends(torch.float32)
    torch.testing.assert_close(effects(ends, u), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(effects(ends, u, tokens=torch.tensor([7, 3])), expected[:, [7, 3]], atol=1e-4, rtol=0)
    return checkpoint


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_unembedding_of_its_own_is_used(shape: dict[str, Any], layout: str, tmp_path: Path) -> None:
    model = tiny.random_model(tied=False, **shape)
    checkpoint = assert_as_theirs(written(tmp_path / "m", model, full(model), layout), shape)
    assert not checkpoint.config.tied and checkpoint.notes == []


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_of_a_tied_pair_either_is_enough(shape: dict[str, Any], tmp_path: Path) -> None:
    model = tiny.random_model(**shape)
    weights = full(model)
    both = weights | {UNEMBEDDING: weights[EMBEDDING].clone()}
    shared = weights | {UNEMBEDDING: weights[EMBEDDING]}
    alone = {name: tensor for name, tensor in both.items() if name != EMBEDDING}
    for kind, stored in {"both": both, "shared": shared, "alone": alone}.items():
        checkpoint = assert_as_theirs(written(tmp_path / kind, model, stored), shape)
        assert checkpoint.config.tied and checkpoint.notes == [], kind


def test_a_tied_pair_that_differs_is_taken_as_it_is_and_said(tmp_path: Path) -> None:
    model = tiny.random_model(tied=False)
    checkpoint = assert_as_theirs(written(tmp_path / "m", model, full(model), tie_word_embeddings=True), {})
    (note,) = checkpoint.notes
    assert not checkpoint.config.tied and "lm_head.weight is not the token embedding, although config.json ties them" in note


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_a_pair_of_two_dtypes_is_compared_by_its_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny.random_model()
    halves = {name: tensor.half().float() for name, tensor in full(model).items()}
    other = halves[EMBEDDING].to(dtype)
    written(tmp_path / "same", model, halves | {UNEMBEDDING: other})
    assert open_checkpoint(str(tmp_path / "same")).config.tied
    other = other.clone()
    other[39, 31] += 0.5
    written(tmp_path / "other", model, halves | {UNEMBEDDING: other})
    assert not open_checkpoint(str(tmp_path / "other")).config.tied


@pytest.mark.parametrize("name", ["decoder.output_projection.weight", "output_projection.weight", "module.lm_head.weight"])
def test_other_names_of_the_unembedding_are_known(name: str, tmp_path: Path) -> None:
    model = tiny.random_model(tied=False)
    weights = full(model)
    written(
        tmp_path / "m",
        model,
        {key: tensor for key, tensor in weights.items() if key != UNEMBEDDING} | {name: weights[UNEMBEDDING]},
    )
    assert torch.equal(open_checkpoint(str(tmp_path / "m")).ends(torch.float32).unembedding, weights[UNEMBEDDING])


def test_two_unembeddings_are_refused(tmp_path: Path) -> None:
    model = tiny.random_model(tied=False)
    weights = full(model)
    written(tmp_path / "m", model, weights | {"decoder.output_projection.weight": weights[UNEMBEDDING] + 1})
    with pytest.raises(UserError, match="several unembeddings"):
        open_checkpoint(str(tmp_path / "m"))


def test_an_untied_one_that_is_missing_is_named(tmp_path: Path) -> None:
    model = tiny.random_model()
    written(tmp_path / "m", model, full(model), tie_word_embeddings=False)
    with pytest.raises(UserError, match=r"no lm_head\.weight, but its config\.json says tie_word_embeddings=false"):
        open_checkpoint(str(tmp_path / "m"))


def test_one_of_another_shape_is_named(tmp_path: Path) -> None:
    model = tiny.random_model(tied=False)
    weights = full(model)
    written(tmp_path / "m", model, weights | {UNEMBEDDING: weights[UNEMBEDDING][:-1].clone()})
    with pytest.raises(UserError, match=r"decoder\.lm_head\.weight is \(39, 32\), but config\.json asks for \(40, 32\)"):
        open_checkpoint(str(tmp_path / "m"))


def test_a_final_norm_without_a_gain_leaves_effects_as_they_are(tmp_path: Path) -> None:
    model = tiny.random_model(gains=False, biases=False)
    checkpoint = assert_as_theirs(written(tmp_path / "m", model, full(model)), {})
    ends, u = checkpoint.ends(torch.float32), torch.randn(5, 32)
    assert torch.equal(effects(ends, u, gain=True), effects(ends, u))
