"""census folder -> its tables, its counts by position and the text of its tokens, read-only."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from tokenizers import Tokenizer

from analyze.config import Thresholds
from analyze.storage.census_files import check_finished, read_table, read_tokenizer
from analyze.storage.formats import read_meta
from analyze.storage.stored import opened
from analyze.tables.positions import serves_first_positions
from errors import UserError

VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True)
class Census:
    """One model's neurons, counted and sorted: what `analyze/run.py` left in a folder."""

    path: Path
    meta: dict[str, Any]
    neurons: pl.DataFrame
    layers: pl.DataFrame
    tokenizer: Tokenizer | None = None

    @property
    def title(self) -> str:
        """The model's name with its training step, such as "nopos, step 1000"."""
        return str(self.meta["title"])

    @property
    def run(self) -> str:
        """The title without the step: what all milestones of one run share."""
        return self.title.rsplit(", step ", 1)[0]

    @property
    def step(self) -> int | None:
        """The training step of the checkpoint; None when it does not say."""
        step = self.meta["checkpoint"]["step"]
        return None if step is None else int(step)

    @property
    def n_tokens(self) -> int:
        """`N`, the number of counted positions."""
        return int(self.meta["corpus"]["n_tokens"])

    @property
    def domains(self) -> list[str]:
        """Names of the domains of which something was read: one may be too short for a sequence."""
        return [str(domain["name"]) for domain in self.meta["corpus"]["domains"] if domain["sequences"]]

    @property
    def position_threshold(self) -> float:
        """The mutual information, in nats, above which a neuron is positional."""
        return float(self.meta["thresholds"]["position_mi"])

    @property
    def thresholds(self) -> Thresholds:
        """Where one type ends and the next begins, as the tables were made."""
        return Thresholds.of(self.meta["thresholds"])

    @property
    def threshold_values(self) -> dict[str, Any]:
        """Thresholds by the names that commands take, such as positions.run."""
        values = asdict(self.thresholds)
        return values | {f"positions.{name}": value for name, value in values.pop("positions").items()}

    @property
    def post_norm(self) -> bool:
        """Whether LayerNorm comes after each sub-block, as in OPT-350m."""
        return bool(self.meta["checkpoint"]["model"].get("norm") == "post")

    def first_positions(self) -> pl.DataFrame:
        """The neurons that serve the first few positions only, those that fire most first."""
        return self.neurons.filter(serves_first_positions(self.thresholds.positions)).sort("n_fired", descending=True)

    @cached_property
    def seen_at(self) -> Int[np.ndarray, " position"]:
        """How often each position was counted, over all domains."""
        seen = opened(self.path / "corpus.safetensors").arrays["seen_at"]
        return np.asarray(seen.sum(axis=0, dtype=np.int64))

    def position_curves(self, layer: int, neurons: Sequence[int]) -> Float[np.ndarray, "neuron position"]:
        """Frequency of each neuron at each position, over all domains; NaN where no position was counted."""
        fired = np.zeros((len(self.seen_at), len(neurons)), dtype=np.int64)
        fired_at = opened(self.path / "layers" / f"layer_{layer:03d}.safetensors").arrays["fired_at"]
        for of_domain in fired_at:  # mapped, a domain at a time: a layer of OPT-66b is 300 MB each
            fired += of_domain[:, list(neurons)]
        seen = np.where(self.seen_at == 0, np.nan, self.seen_at)
        return np.ascontiguousarray((fired / seen[:, None]).T)

    def written(self, layer: int, neuron: int) -> dict[str, Float[np.ndarray, " top"]]:
        """What a neuron adds to the logits of its `top_promoted` and `top_suppressed`; empty where weights were not at hand."""
        name = f"writes/layer_{layer:03d}.safetensors"
        file = self.path / name
        if not file.is_file() and name not in self.meta.get("counted", []):
            return {}
        found, names = opened(file).arrays, {"top_promoted": "promoted_by", "top_suppressed": "suppressed_by"}
        return {column: np.array(found[name][neuron]) for column, name in names.items()}

    def token_text(self, token: int) -> str:
        """The token as a person reads it: spaces as ␣, newlines as ↵; half a character as its bytes; `#id` without a tokenizer."""
        piece = None if self.tokenizer is None else self.tokenizer.id_to_token(token)
        if self.tokenizer is None or piece is None:
            return f"#{token}"
        text = self.tokenizer.decode([token], skip_special_tokens=False)
        return (text if text and "\ufffd" not in text else piece).translate(VISIBLE)


def open_census(folder: str | Path) -> Census:
    """The census in a folder, its tables read and its counts left on disk until they are asked for."""
    folder = Path(folder)
    if not (folder / "meta.json").is_file():
        raise UserError(f"{folder} is no finished census: meta.json is missing. Run analyze/run.py with out={folder} first.")
    meta = read_meta(folder)
    check_finished(folder, meta)
    return Census(
        path=folder,
        meta=meta,
        neurons=read_table(folder, meta, "neurons").sort("layer", "neuron"),
        layers=read_table(folder, meta, "layers").sort("layer"),
        tokenizer=read_tokenizer(folder, meta),
    )
