"""Weights and candidate triggers -> what a layer's neurons write to the logits, kept for whatever thresholds are asked later.

Neuron n adds a multiple of `u`, its column of fc2, to the residual stream, and with it a multiple of `E @ u` to the logits, `E` being
the unembedding. That needs weights, while which tokens are detected depends on thresholds, which may change when no weights are at
hand. So `LayerWrites` keeps, once per layer, `E @ u` on every token that *some* thresholds down to `LOOSEST` could call detected. A
detector under stricter thresholds is one under looser ones too, and its detected tokens are among theirs: the candidates are what the
loosest thresholds find, a small part of the layer's token counts. The random tokens of the baseline are drawn beside each candidate,
not beside each detected token, so they do not depend on thresholds either.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32, Int64
from torch import Tensor
from torch.nn.functional import linear

from analyze.config import Thresholds
from analyze.counts.layer import CorpusCounts, LayerCounts
from analyze.neuron_types.ngram_detectors import detectors
from analyze.storage.stored import Stored
from device import CPU, Device
from models.opt import Decoder

LOOSEST = Thresholds(coverage=80, detection=50, unigrams=50, min_occurrences=1)  # that projections are kept for
TOP = 10  # tokens in top_promoted and top_suppressed
DRAWS = 10  # random groups per detector
NEAREST = 50  # tokens in rank of occurrences that a random one is drawn from
SEED = 0
FEW = 1 / 16  # of the vocabulary: a copy of its embeddings is smaller than some hundred neurons' logits
NEURONS_AT_ONCE = 256  # whose logits are at hand together: 50,272 tokens x 256 neurons are 51 MB


@dataclass
class LayerWrites(Stored):
    """What one layer's neurons write to the logits. `E @ u` is in float32; conventions are raw and, given a final LayerNorm, gain."""

    top_promoted: Int32[np.ndarray, "neuron top"]  # tokens with the greatest `E @ u`, greatest first, then by id
    top_suppressed: Int32[np.ndarray, "neuron top"]  # with the least
    promoted_by: Float32[np.ndarray, "neuron top"]  # their `E @ u`
    suppressed_by: Float32[np.ndarray, "neuron top"]
    mean: Float32[np.ndarray, " neuron"]  # of `E @ u` over the vocabulary
    candidate_offsets: Int64[np.ndarray, " neuron_and_end"]  # neuron n's are candidate_ids[offsets[n]:offsets[n + 1]]
    candidate_ids: Int32[np.ndarray, " candidate"]
    projections: Float32[np.ndarray, "convention candidate group"]  # group 0: on the candidate; others: on a random token each


def candidate_tokens(counts: LayerCounts, corpus: CorpusCounts) -> list[list[int]]:
    """Every neuron's tokens that thresholds no looser than `LOOSEST` could call detected."""
    found = detectors(counts.unigrams, corpus.token_occurrences, LOOSEST.unigrams, LOOSEST)
    return found.detected.lists(len(counts.n_fired))


def layer_writes(
    ends: Decoder,
    fc2: Float[Tensor, "width neuron"],
    candidates: list[list[int]],
    occurrences: Int[np.ndarray, " token"],
    layer: int,
    device: Device | None = None,
) -> LayerWrites:
    """Multiply a layer's columns of fc2 with the unembedding, some hundred neurons at a time, on the device that has `ends`.

    `ends` and `fc2` are in float32; `layer` seeds the random tokens.
    """
    device = device or CPU()
    offsets = np.cumsum([0, *map(len, candidates)])
    ids = np.array([token for tokens in candidates for token in tokens], np.int32)
    matched = matched_tokens(candidates, occurrences, layer)
    asked = np.concatenate([ids[:, None], matched], axis=1)
    promoted, suppressed, promoted_by, suppressed_by, means, projections = zip(
        *_in_chunks(ends, fc2, offsets, asked, device), strict=True
    )
    return LayerWrites(
        top_promoted=np.concatenate(promoted),
        top_suppressed=np.concatenate(suppressed),
        promoted_by=np.concatenate(promoted_by),
        suppressed_by=np.concatenate(suppressed_by),
        mean=np.concatenate(means),
        candidate_offsets=offsets,
        candidate_ids=ids,
        projections=np.concatenate(projections, axis=1),
    )


def _in_chunks(
    ends: Decoder,
    fc2: Float[Tensor, "width neuron"],
    offsets: Int64[np.ndarray, " neuron_and_end"],
    asked: Int[np.ndarray, "candidate group"],
    device: Device,
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the six arrays of weights in `LayerWrites` for some neurons after others."""
    for begin in range(0, fc2.shape[1], NEURONS_AT_ONCE):
        u = device.put(fc2[:, begin : begin + NEURONS_AT_ONCE].T)
        sizes = np.diff(offsets[begin : begin + len(u) + 1])
        having = np.flatnonzero(sizes)  # only these need a second product for the gain, and only for the tokens asked for
        rows = np.repeat(np.arange(len(having)), sizes[having])
        tokens = asked[offsets[begin] : offsets[begin + len(u)]]
        with device.current(), torch.inference_mode():
            effect = effects(ends, u)
            found = [_picked(effect, having[rows], tokens, device)]
            if ends.config.final_norm:
                found.append(_with_gain(ends, u, having[rows], tokens, device))
            tops = [greatest(effect, device), greatest(-effect, device)]
            values = [device.fetch(effect.gather(1, device.put(torch.from_numpy(top).long()))).numpy() for top in tops]
            yield *tops, *values, device.fetch(effect.mean(1)).numpy(), np.stack(found)


def _with_gain(
    ends: Decoder,
    u: Float[Tensor, "neuron width"],
    rows: Int[np.ndarray, " candidate"],
    tokens: Int[np.ndarray, "candidate group"],
    device: Device,
) -> Float32[np.ndarray, "candidate group"]:
    """As `_picked`, with the gain: where few tokens are asked for, a copy of their embeddings is all that is multiplied."""
    having, rows = np.unique(rows, return_inverse=True)
    u, some = u[device.put(torch.from_numpy(having))], np.unique(tokens[tokens >= 0])
    if len(some) > FEW * ends.config.vocab_size:
        return _picked(effects(ends, u, gain=True), rows, tokens, device)
    places = np.where(tokens < 0, -1, np.searchsorted(some, tokens))
    return _picked(effects(ends, u, gain=True, tokens=device.put(torch.from_numpy(some).long())), rows, places, device)


def effects(
    ends: Decoder, u: Float[Tensor, "neuron width"], gain: bool = False, tokens: Int[Tensor, " token"] | None = None
) -> Float[Tensor, "neuron token"]:
    """`E @ u`: what `u` in the residual stream adds to every token's logit, or to those of `tokens`, by way of 350m's `project_out`.

    Of the final LayerNorm only the gain is put in, and only if asked: centering and division depend on the rest of the stream.
    """
    if gain and ends.config.gains:
        u = u * ends.final_layer_norm.weight
    if ends.config.projected:
        u = ends.project_out(u)
    return linear(u, ends.unembedding if tokens is None else ends.unembedding[tokens])


def greatest(effect: Float[Tensor, "neuron token"], device: Device) -> Int32[np.ndarray, "neuron top"]:
    """The tokens with the `TOP` greatest values of every row, greatest first, equal ones by id."""
    values, ids = effect.topk(min(TOP + 1, effect.shape[1]), dim=1)
    ids = ids[:, :TOP].sort(dim=1).values
    ids = ids.gather(1, effect.gather(1, ids).argsort(dim=1, descending=True, stable=True))
    found = device.fetch(ids).numpy().astype(np.int32)
    if values.shape[1] > TOP:
        tied = device.fetch(values[:, TOP - 1] == values[:, TOP]).numpy()  # then `topk` chose any of the equal ones
        if tied.any():
            rows = effect[device.put(torch.from_numpy(np.flatnonzero(tied)))]
            found[tied] = device.fetch(rows.argsort(dim=1, descending=True, stable=True)[:, :TOP]).numpy()
    return found


def _picked(
    effect: Float[Tensor, "neuron token"],
    rows: Int[np.ndarray, " candidate"],
    tokens: Int[np.ndarray, "candidate group"],
    device: Device,
) -> Float32[np.ndarray, "candidate group"]:
    """The effects of neurons `rows` on `tokens`; NaN for token -1."""
    where = device.put(torch.from_numpy(rows)[:, None]), device.put(torch.from_numpy(np.maximum(tokens, 0)))
    picked: np.ndarray = device.fetch(effect[where]).numpy()
    return np.where(tokens < 0, np.float32(np.nan), picked)


def matched_tokens(
    candidates: list[list[int]], occurrences: Int[np.ndarray, " token"], layer: int
) -> Int[np.ndarray, "candidate draw"]:
    """`DRAWS` random tokens for every candidate of every neuron, about as frequent as it; -1 where no token is left.

    All tokens that occur stand in rank of their occurrences (then by id); a neuron's candidates are taken out; each draw is uniform
    over the `NEAREST` that are left nearest to the candidate, half above and half below it, or at an end of the ranking the `NEAREST`
    last. Draws are independent, and the same for a layer whichever others are counted.
    """
    rng = np.random.default_rng([SEED, layer])
    by_rank = np.argsort(-occurrences, kind="stable")[: np.count_nonzero(occurrences)]
    rank = np.empty(len(occurrences), np.int64)
    rank[by_rank] = np.arange(len(by_rank))
    found = [np.empty((0, DRAWS), np.int64)]
    for tokens in filter(None, candidates):
        others = len(by_rank) - len(tokens)
        if not others:
            found.append(np.full((len(tokens), DRAWS), -1))
            continue
        taken_out = np.sort(rank[tokens])
        place = rank[tokens] - np.searchsorted(taken_out, rank[tokens])  # among the others
        first = np.clip(place - NEAREST // 2, 0, max(0, others - NEAREST))
        drawn = first[:, None] + rng.integers(min(NEAREST, others), size=(len(tokens), DRAWS))
        passed = np.searchsorted(taken_out - np.arange(len(tokens)), drawn, side="right")  # candidates that stand before it
        found.append(by_rank[drawn + passed])
    return np.concatenate(found)
