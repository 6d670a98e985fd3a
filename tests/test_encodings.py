"""Positions told by formula: sinusoids, rotations and ALiBi by plain loops, by their laws and by others' code."""

import math

import pytest
import torch
from transformers import GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding, apply_rotary_pos_emb

from models.config import OPTConfig
from models.opt import Attention
from models.positions import alibi, alibi_slopes, rotated, sinusoids

CPU = torch.device("cpu")


def test_sinusoids_are_their_formula() -> None:
    found = sinusoids(2048, 6)
    for place in (0, 1, 2, 77, 2047):
        angles = [place / 10_000 ** (pair / 2) for pair in range(3)]
        expected = [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
        assert found[place].tolist() == pytest.approx(expected, abs=1e-6)


def test_rotation_is_that_of_gpt_neox() -> None:
    x = torch.randn(2, 3, 40, 16, generator=torch.Generator().manual_seed(0))
    settings = {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0}
    theirs = GPTNeoXRotaryEmbedding(GPTNeoXConfig(hidden_size=48, num_attention_heads=3, rope_parameters=settings))
    cos, sin = theirs(x, torch.arange(40)[None])
    expected, _ = apply_rotary_pos_emb(x, x, cos, sin)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(rotated(x), expected, atol=1e-5, rtol=0)


def test_products_of_rotated_vectors_depend_on_their_distance_alone() -> None:
    torch.manual_seed(0)
    q, k = (torch.randn(8).double().expand(1, 1, 2048, 8) for _ in range(2))  # the same two vectors everywhere
    scores = (rotated(q) @ rotated(k).mT)[0, 0]
    for distance in (0, 1, 5, 700):
        along = scores.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=1e-10, rtol=0)
    assert len(torch.unique(scores[:, 0].round(decimals=3))) > 500, "and do depend on it"
    torch.testing.assert_close(rotated(q).norm(dim=-1), q.norm(dim=-1))


@pytest.mark.parametrize(
    ("heads", "exponents"),
    [
        (1, [8]),
        (8, [1, 2, 3, 4, 5, 6, 7, 8]),
        (16, [0.5 * (head + 1) for head in range(16)]),
        (3, [4, 8, 2]),
        (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
    ],
)
def test_slopes_are_those_of_press_and_others(heads: int, exponents: list[float]) -> None:
    assert alibi_slopes(heads) == pytest.approx([2**-exponent for exponent in exponents], rel=1e-12)


@pytest.mark.parametrize("heads", [2, 3])
def test_alibi_is_its_formula(heads: int) -> None:
    found = alibi(heads, 20, CPU, torch.float32)
    for head, slope in enumerate(alibi_slopes(heads)):
        for i in range(20):
            expected = [-slope * (i - j) if j <= i else -math.inf for j in range(20)]
            assert found[head, i].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("positions", ["rotary", "alibi", "none"])
@torch.no_grad()
def test_attention_is_a_plain_loop_s(positions: str) -> None:
    torch.manual_seed(0)
    attention = Attention(OPTConfig(width=12, heads=3, positions=positions)).eval()
    x = torch.randn(1, 9, 12)
    q, k, v = ((proj(x)[0].view(9, 3, 4)) for proj in (attention.q_proj, attention.k_proj, attention.v_proj))
    if positions == "rotary":
        q, k = (rotated(y.transpose(0, 1)[None])[0].transpose(0, 1) for y in (q, k))
    slopes = alibi_slopes(3) if positions == "alibi" else [0.0] * 3
    mixed = torch.zeros(9, 3, 4)
    for i in range(9):
        for head in range(3):
            scores = torch.stack([q[i, head] @ k[j, head] / 2 - slopes[head] * (i - j) for j in range(i + 1)])
            mixed[i, head] = scores.softmax(0) @ v[: i + 1, head]
    torch.testing.assert_close(attention(x)[0], attention.out_proj(mixed.flatten(1)), atol=1e-6, rtol=1e-5)


def test_alibi_asked_first_without_gradients_serves_training_too() -> None:
    attention = Attention(OPTConfig(width=8, heads=2, positions="alibi", attention_dropout=0.0))  # the kernel that keeps the bias
    with torch.inference_mode():
        attention(torch.randn(1, 31, 8))
    attention(torch.randn(1, 31, 8)).sum().backward()
    assert attention.q_proj.weight.grad is not None
