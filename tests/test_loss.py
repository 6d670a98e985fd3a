"""The loss in pieces is the loss at once, and so are its gradients."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

from train import loss
from train.loss import next_token_loss


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.from_numpy(tiny.random_ids(sequences=5))


@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("variant", [{}, {"norm": "post", "final_norm": False, "embed_dim": 20}], ids=["pre-LN", "350m-like"])
def test_loss_and_gradients_are_those_of_whole_logits(
    rows: int, variant: dict[str, Any], ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(loss.ROWS, "cpu", rows)
    ours, theirs = tiny.random_model(**variant), tiny.random_model(**variant)
    ours_loss = next_token_loss(ours, ids)
    theirs_loss = F.cross_entropy(theirs(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    (3 * ours_loss).backward()  # type: ignore[no-untyped-call]
    (3 * theirs_loss).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(ours_loss, theirs_loss)
    for (name, one), two in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if two.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, msg=name, atol=1e-6, rtol=1e-4)


def test_loss_and_gradients_are_those_of_transformers(ids: torch.Tensor, tmp_path: Path) -> None:
    ours = tiny.random_model(dropout=0.0, attention_dropout=0.0)
    theirs = AutoModelForCausalLM.from_pretrained(tiny.saved(tmp_path / "m", ours), dtype=torch.float32)
    ids = ids[:, :-1]  # one position must be left for the target
    found = next_token_loss(ours, ids)
    expected = theirs(ids, labels=ids).loss
    found.backward()  # type: ignore[no-untyped-call]
    expected.backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    named = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        grad = named[f"model.{name}"].grad
        torch.testing.assert_close(parameter.grad, grad, atol=1e-5, rtol=1e-4, msg=name)


def test_bfloat16_stays_near_float32(ids: torch.Tensor) -> None:
    model = tiny.random_model(std=0.1)
    exact = next_token_loss(model, ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = next_token_loss(model, ids)
    assert near.dtype == torch.float32 and abs(near - exact) < 0.02 * exact


def test_without_learning_nothing_is_kept(ids: torch.Tensor) -> None:
    model = tiny.random_model()
    with torch.no_grad():
        quiet = next_token_loss(model, ids)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, next_token_loss(model, ids).detach())
