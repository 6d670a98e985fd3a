"""A census folder with planted neurons, so that figures and pages can be drawn without a model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from analyze.folder import Census, open_census

KINDS = ("oscillatory", "both", "one", "other")
BUCKETS = {"1_5": 5, "6_10": 10, "11_20": 20, "21_50": 50, "51_200": 200, "201_1000": 1000, "1001_2000": 2000}
WORDS = ["Ġthe", "The", "Ġweather", "ĠWeather", "</script><b>x", "Ċ", 'Ġ"q"&', "Ġself", "Ġimport", "Ġ=", "Ġ1", "Ġ2", "Ġreturn"]


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
    tokenizer: bool = True,
    seed: int = 0,
) -> Census:
    """Plant `positional[kind_strength]` neurons, detectors and dead neurons in every layer (fewer, the higher), and write the folder."""
    rng = np.random.default_rng(seed)
    (folder / "layers").mkdir(parents=True)
    seen = np.array([[0] + [60] * (places - 1), [0] + [40] * (places - 1)])
    planted = (
        {"oscillatory_strong": 2, "oscillatory_weak": 2, "both_strong": 2, "both_weak": 1} if positional is None else positional
    )
    if positional is None:
        planted |= {"one_strong": 2, "one_weak": 3, "other_strong": 2, "other_weak": 3}
    rows: list[dict[str, Any]] = []
    for layer in range(layers):
        kinds = [kind for kind, count in planted.items() for _ in range(round(count * (1 - 0.6 * layer / layers)))][:neurons]
        n_dead = min(round(neurons * dead * (1 - layer / layers)), neurons - len(kinds))
        kinds += ["dead"] * n_dead + ["token"] * min(max(0, detectors - layer), neurons - len(kinds) - n_dead)
        kinds += ["plain"] * (neurons - len(kinds))
        curves = np.stack([_curve(kind, places, rng) for kind in kinds], axis=1)
        fired = rng.binomial(seen[:, :, None], curves[None]).astype(np.int32)
        save_file({"fired_at": fired}, folder / "layers" / f"layer_{layer:03d}.safetensors")
        rows += [_neuron(layer, n, kind, fired[:, :, n].sum(0), seen.sum(0), rng) for n, kind in enumerate(kinds)]
    occurrences = rng.integers(1, 1000, 256 + len(WORDS))
    save_file({"seen_at": seen.astype(np.int64), "token_occurrences": occurrences}, folder / "corpus.safetensors")
    table = pl.DataFrame(rows, schema_overrides={"layer": pl.Int32, "neuron": pl.Int32, "detected_tokens": pl.List(pl.Int32),
                                                  "first_fired": pl.Int64, "position_type": pl.String, "position_strong": pl.Boolean,
                                                  "last_position_95": pl.Int64}, infer_schema_length=None)  # fmt: skip
    table.write_parquet(folder / "neurons.parquet")
    _layers(table).write_parquet(folder / "layers.parquet")
    if tokenizer:
        _tokenizer().save(str(folder / "tokenizer.json"))
    _write_meta(folder, title, step, layers, neurons, places, positions, int(seen.sum()), tokenizer)
    return open_census(folder)


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
    n, n_fired = int(seen.sum()), int(fired.sum())
    fr, f, weight = fired[1:] / seen[1:], n_fired / n, seen[1:] / n
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.nan_to_num(fr * np.log(fr / f)) + np.nan_to_num((1 - fr) * np.log((1 - fr) / (1 - f)))
    mi = float((weight * terms).sum()) if 0 < f < 1 else 0.0
    corrected = max(0.0, mi - (len(fr) - 1) / (2 * n))
    position_type = kind.rsplit("_", 1)[0] if "_" in kind else None
    tokens = [int(t) for t in 256 + rng.choice(len(WORDS), 3, replace=False)] if kind == "token" else []
    if kind == "token" and neuron % 2 == 0:
        tokens[0] = 256 + WORDS.index("</script><b>x")
    row_type = "dead" if n_fired == 0 else "token" if tokens else "positional" if position_type else "other"
    return {
        "layer": layer, "neuron": neuron, "n_tokens": n, "n_fired": n_fired, "n_fired_bos": int(rng.integers(0, 100)),
        "frequency": f, "max_pre": float(np.float32(rng.normal(2, 1) if n_fired else -abs(rng.normal()))),
        "first_fired": None if n_fired == 0 else int(rng.geometric(min(1.0, max(f, 1e-4)))) - 1, "dead": n_fired == 0,
        "unigrams_95": 0 if n_fired == 0 else 3 if tokens else int(10 ** rng.uniform(0.8, 4)),
        "token_detector": bool(tokens), "detected_tokens": tokens, "token_support": 0.97 if tokens else 0.0, "position_mi": mi,
        "position_mi_corrected": corrected, "position_type": position_type,
        "position_strong": kind.endswith("strong") if position_type else None,
        "last_position_95": None if n_fired == 0 else int(np.searchsorted(fired.cumsum(), 0.95 * n_fired)), "type": row_type,
    }  # fmt: skip


def _layers(table: pl.DataFrame) -> pl.DataFrame:
    rows: list[dict[str, Any]] = []
    below: set[int] = set()
    before: set[int] = set()
    for (layer,), part in table.group_by("layer", maintain_order=True):
        alive = part.filter(~pl.col("dead"))
        detected = set(part["detected_tokens"].explode().drop_nulls().to_list())
        row = {"layer": layer, "neurons": len(part), "dead": int(part["dead"].sum()), "dead_share": float(part["dead"].to_numpy().mean()),
               "mean_frequency_alive": alive["frequency"].mean(), "token_detectors": int(part["token_detector"].sum()),
               "detected_tokens": len(detected), "detected_tokens_cumulative": len(below | detected),
               "detected_tokens_new": len(detected - below), "detected_tokens_new_vs_previous": len(detected - before)}  # fmt: skip
        low = 0
        for name, high in BUCKETS.items():
            row[f"unigrams_{name}"] = alive.filter(pl.col("unigrams_95").is_between(low + 1, high)).height
            low = high
        row["unigrams_over_2000"] = alive.filter(pl.col("unigrams_95") > low).height
        for kind in KINDS:
            for strong in (True, False):
                here = part.filter((pl.col("position_type") == kind) & (pl.col("position_strong") == strong))
                row[f"positional_{kind}_{'strong' if strong else 'weak'}"] = here.height
        row["positional"] = part["position_type"].is_not_null().sum()
        rows.append(row)
        below, before = below | detected, detected
    table_of_layers = pl.DataFrame(rows, infer_schema_length=None)
    return table_of_layers.with_columns(pl.col(pl.Int64).cast(pl.UInt32)).with_columns(pl.col("layer").cast(pl.Int32))


def _tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(alphabet + WORDS)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.decoder = decoders.ByteLevel()
    return made


def _write_meta(
    folder: Path, title: str, step: int | None, layers: int, neurons: int, places: int, positions: str, n: int, tokenizer: bool
) -> None:
    model = {"layers": layers, "width": neurons // 4, "heads": 4, "neurons": neurons, "positions": positions, "norm": "pre",
             "final_norm": True, "context": places, "vocab_size": 256 + len(WORDS)}  # fmt: skip
    meta = {
        "title": title,
        "checkpoint": {"path": f"runs/{title}", "sha256": "ab" * 32, "step": step, "tokens_trained": (step or 0) * 8192, "model": model},
        "corpus": {"name": "synthetic", "fingerprint": "0123456789abcdef", "domains": [{"name": "prose", "sequences": 60},
                   {"name": "code", "sequences": 40}], "n_tokens": n, "sequences": 100, "context": places, "bos_id": 2},
        "thresholds": {"position_mi": 0.05, "coverage": 95, "unigrams": 5}, "dead_bound": 1 - 0.05 ** (1 / n),
        "tokenizer": "tokenizer.json" if tokenizer else None,
        "environment": {"python": "3.11", "packages": {"torch": "2.11"}}, "git": ["0123abcd"],
    }  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
