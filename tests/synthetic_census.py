"""A census folder with planted neurons, so that figures and pages can be drawn without a model."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file
from synthetic_ngrams import BYTES, WORDS, detected_tokens, ngrams, tokenizer, with_ngrams, with_writes

from analyze.config import PositionRules, Thresholds
from analyze.neuron_types.position import domain_difference
from analyze.neuron_types.position_coverage import team_columns
from analyze.neuron_types.trigger_suppression import SHARES
from analyze.storage.formats import FORMAT, write_meta
from analyze.tables.census import Census, open_census
from analyze.tables.layers import layer_table
from analyze.tables.neurons import SCHEMA

RULES = PositionRules()
PLANTED = {
    "oscillatory_strong": 2, "oscillatory_weak": 2, "both_strong": 2, "both_weak": 1,
    "one_strong": 2, "one_weak": 3, "other_strong": 2, "other_weak": 3,
}  # fmt: skip


def write_census(
    folder: Path,
    *,
    title: str = "baseline, step 1000",
    step: int | None = 1000,
    layers: int = 4,
    neurons: int = 64,
    places: int = 256,
    positional: dict[str, int] | None = None,
    dead: float = 0.1,
    detectors: int = 6,
    positions: str = "learned",
    norm: str = "pre",
    further_words: int = 0,
    weights: bool = True,
    seed: int = 0,
) -> Census:
    """Plant `positional[kind_strength]` neurons, detectors and dead neurons in every layer (fewer, the higher), and write the folder."""
    rng = np.random.default_rng(seed)
    (folder / "layers").mkdir(parents=True)
    seen = np.array([[0] + [60] * (places - 1), [0] + [40] * (places - 1)])
    planted = PLANTED if positional is None else positional
    rows: list[dict[str, Any]] = []
    teams: list[pl.DataFrame] = []
    for layer in range(layers):
        kinds = [kind for kind, count in planted.items() for _ in range(round(count * (1 - 0.6 * layer / layers)))][:neurons]
        n_dead = min(round(neurons * dead * (1 - layer / layers)), neurons - len(kinds))
        kinds += ["dead"] * n_dead + ["token"] * min(max(0, detectors - layer), neurons - len(kinds) - n_dead)
        kinds += ["plain"] * (neurons - len(kinds))
        curves = np.stack([_curve(kind, places, rng) for kind in kinds], axis=1)
        fired = rng.binomial(seen[:, :, None], curves[None]).astype(np.int32)
        save_file({"fired_at": fired}, folder / "layers" / f"layer_{layer:03d}.safetensors")
        rows += [_neuron(layer, n, kind, fired[:, :, n], seen, rng) for n, kind in enumerate(kinds)]
        teams.append(team_columns(_table(rows[-neurons:]), fired, seen, RULES))
    tokenizer(further_words).save(str(folder / "tokenizer.json"))
    occurrences = rng.integers(60, 1000, BYTES + len(WORDS) + further_words)
    save_file({"seen_at": seen.astype(np.int64), "token_occurrences": occurrences}, folder / "corpus.safetensors")
    _write_tables(folder, with_ngrams(_table(rows), rng), pl.concat(teams), occurrences, weights, rng)
    model = {"layers": layers, "width": neurons // 4, "heads": 4, "neurons": neurons, "positions": positions, "norm": norm,
             "final_norm": True, "context": places, "vocab_size": len(occurrences)}  # fmt: skip
    _write_meta(folder, title, step, model, int(seen.sum()))
    return open_census(folder)


def _table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, {name: SCHEMA[name] for name in rows[0]})


def _write_tables(
    folder: Path, neurons: pl.DataFrame, teams: pl.DataFrame, occurrences: np.ndarray, weights: bool, rng: np.random.Generator
) -> None:
    detected = ngrams(neurons, occurrences, rng)
    layers = layer_table(neurons, detected, RULES).hstack(teams)
    if weights:
        neurons = with_writes(neurons, len(occurrences), rng)
        layers = layers.with_columns(pl.lit(None, pl.Float64).alias(name) for name in SHARES).with_columns(
            suppressing_share_raw=pl.when(pl.col("token_detectors") > 0).then(0.8), random_suppressing_share_raw=0.5
        )
    for name, table in (("neurons", neurons), ("ngrams", detected), ("layers", layers)):
        table.write_parquet(folder / f"{name}.parquet")


def _curve(kind: str, places: int, rng: np.random.Generator) -> np.ndarray:
    x = np.arange(places) / places
    shift = rng.uniform()
    wave = np.clip(0.5 + 1.5 * np.sin(2 * np.pi * (2 * x + shift)), 0, 1)
    edge = np.clip((x - 0.2 - 0.6 * shift) * 30, 0, 1)
    noise = rng.normal(0, 0.05, places)
    match kind:
        case "oscillatory_strong":
            return wave
        case "oscillatory_weak":
            return np.clip(0.1 + 0.75 * wave + noise, 0, 1)
        case "both_strong":
            return edge
        case "both_weak":
            return np.clip(0.03 + 0.94 * edge, 0, 1)
        case "one_strong":
            return 0.75 * edge
        case "one_weak":
            return np.clip(0.02 + 0.7 * edge + noise * edge, 0, 1)
        case "other_strong":
            return 0.15 + 0.65 * x
        case "other_weak":
            return np.clip(0.15 + 0.65 * x + 3 * noise, 0, 1)
        case "dead":
            return np.zeros(places)
    return np.full(places, 10 ** rng.uniform(-2.5, -0.7))


def _neuron(layer: int, neuron: int, kind: str, fired: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """A row of the neuron table, from firings and visits `[domain, place]`."""
    between = domain_difference(fired[:, :, None], seen, 4)[0]
    fired, seen = fired.sum(0), seen.sum(0)
    n, n_fired = int(seen.sum()), int(fired.sum())
    fr, f, weight = fired[1:] / seen[1:], n_fired / n, seen[1:] / n
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.nan_to_num(fr * np.log(fr / f)) + np.nan_to_num((1 - fr) * np.log((1 - fr) / (1 - f)))
    mi = float((weight * terms).sum()) if 0 < f < 1 else 0.0
    corrected = max(0.0, mi - (len(fr) - 1) / (2 * n))
    position_type = kind.rsplit("_", 1)[0] if "_" in kind else None
    tokens = detected_tokens(neuron, rng) if kind == "token" else []
    row_type = "dead" if n_fired == 0 else "token" if tokens else "positional" if position_type else "other"
    return {
        "layer": layer, "neuron": neuron, "n_tokens": n, "n_fired": n_fired, "n_fired_bos": int(rng.integers(0, 100)),
        "frequency": f, "max_pre": float(np.float32(rng.normal(2, 1) if n_fired else -abs(rng.normal()))),
        "first_fired": None if n_fired == 0 else int(rng.geometric(min(1.0, max(f, 1e-4)))) - 1, "dead": n_fired == 0,
        "unigrams_95": 0 if n_fired == 0 else 3 if tokens else int(10 ** rng.uniform(0.8, 4)),
        "token_detector": bool(tokens), "detected_tokens": tokens, "token_support": 0.97 if tokens else 0.0,
        "position_mi": mi, "position_domain_difference": between if position_type else None,
        "position_mi_corrected": corrected, "position_type": position_type,
        "position_strong": kind.endswith("strong") if position_type else None,
        "last_position_95": None if n_fired == 0 else int(np.searchsorted(fired.cumsum(), 0.95 * n_fired)), "type": row_type,
    }  # fmt: skip


def _write_meta(folder: Path, title: str, step: int | None, model: dict[str, Any], n: int) -> None:
    meta = {
        "format": FORMAT, "title": title,
        "checkpoint": {"path": f"runs/{title}", "sha256": "ab" * 32, "step": step, "tokens_trained": (step or 0) * 8192, "model": model},
        "corpus": {"name": "synthetic", "fingerprint": "0123456789abcdef", "domains": [{"name": "prose", "sequences": 60},
                   {"name": "code", "sequences": 40}], "n_tokens": n, "sequences": 100, "context": model["context"], "bos_id": 2},
        "thresholds": asdict(Thresholds()), "dead_bound": 1 - 0.05 ** (1 / n), "position_bias": 0.005,
        "tokenizer": "tokenizer.json",
        "environment": {"python": "3.11", "packages": {"torch": "2.11"}}, "git": ["0123abcd"],
    }  # fmt: skip
    write_meta(folder, meta)
