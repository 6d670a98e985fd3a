"""Censuses side by side -> whether they were counted on one basis: text, thresholds, counted tokens. If not, numbers differ by that too."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from analyze.tables.census import Census
from errors import UserError

TOLD_APART = ("name", "split", "context", "bos_id")  # of two texts of which one may be the beginning of the other


def check_seeds(variant: str, runs: Sequence[Sequence[Census]]) -> None:
    """Censuses of the seeds of a variant, at one step, are averaged: they need one basis.

    Live censuses choose how many tokens they read, so theirs may differ in that; `uneven` says so.

    Raises:
        UserError: two of them have another.
    """
    for run, other in combinations(runs, 2):
        at = {census.step: census for census in other}
        for census in run:
            how = _differences(census, at[census.step]) if census.step in at else {}
            chosen = list(how) == ["counted tokens"] and _live(census) and _live(at[census.step])
            if how and not chosen:
                raise UserError(_refusal(variant, census, at[census.step], how))


def uneven(censuses: Sequence[Census]) -> list[str]:
    """A sentence on each thing in which the bases of these differ."""
    told = []
    if (counts := sorted({census.n_tokens for census in censuses}))[1:]:
        told.append(
            f"Counted on {counts[0]:,} to {counts[-1]:,} tokens: dead counts, supports and the bias of mutual information depend on it."
        )
    if len({_text(census) for census in censuses}) > 1 or _other_ids(censuses):
        told.append(
            "Not counted on one text: what differs may be the text. What was counted, at the end of the page, names each."
        )
    if apart := _apart([census.threshold_values for census in censuses]):
        values = "; ".join(f"{name} {' or '.join(map(str, of))}" for name, of in apart.items())
        told.append(
            f"Not all have the same thresholds ({values}): what differs may be these. draw.py sets them without counting anew."
        )
    return told


def _differences(one: Census, other: Census) -> dict[str, str]:
    """What differs, and how in words."""
    how = {}
    if _text(one) != _text(other) or _other_ids([one, other]):
        how["text"] = " and ".join(f"{c.meta['corpus']['name']} {c.meta['corpus']['fingerprint'][:12]}" for c in (one, other))
    if apart := _apart([one.threshold_values, other.threshold_values]):
        how["thresholds"] = ", ".join(f"{name} {' and '.join(map(str, of))}" for name, of in apart.items())
    if one.n_tokens != other.n_tokens:
        how["counted tokens"] = f"{one.n_tokens:,} and {other.n_tokens:,}"
    return how


def _refusal(variant: str, one: Census, other: Census, how: Mapping[str, str]) -> str:
    told = "; ".join(f"{name}: {words}" for name, words in how.items())
    if list(how) == ["thresholds"]:
        todo = "give both runs the same by `python analyze/draw.py out=RUN thresholds.NAME=VALUE`"
    else:
        todo = (
            "run `python analyze/run.py ckpt=RUN` on each with the same settings, or train with live.tokens=N, the same for all"
        )
    return f"{one.path} and {other.path} are seeds of one variant, {variant}, not counted alike ({told}); {todo}."


def _live(census: Census) -> bool:
    """Whether it was taken while its run trained."""
    return census.path.parent.name == "live"


def _text(census: Census) -> str:
    """What tells texts apart that need not be equally long."""
    corpus = census.meta["corpus"]
    return json.dumps([*(corpus.get(name) for name in TOLD_APART), [domain["name"] for domain in corpus["domains"]]])


def _other_ids(censuses: Sequence[Census]) -> bool:
    """Whether of equally long texts, whose ids must be the same, some are not."""
    seen = {(census.n_tokens, census.meta["corpus"]["fingerprint"]) for census in censuses}
    return len({n_tokens for n_tokens, _ in seen}) < len(seen)


def _apart(settings: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The settings that are not the same in all, with their values in the order they come."""
    names = dict.fromkeys(name for each in settings for name in each)
    values = {name: list(dict.fromkeys(each.get(name) for each in settings)) for name in names}
    return {name: of for name, of in values.items() if len(of) > 1}
