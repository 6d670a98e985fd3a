"""The settings of a census; conf/analyze.yaml and its groups hold values only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from corpora.config import CorpusConfig
from device import check_name
from errors import UserError
from paths import expand_home
from settings import check_settings
from wandb_run import WandbConfig

SPLITTINGS = ("auto", "validation", "train", "all")
DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")
PLACES = {"residuals": ("auto", "memory", "pinned", "file"), "bits": ("auto", "memory", "file")}
FEWEST_KEPT = 50  # n-grams that a detector may need, and tokens that trigger suppression is answered for


@dataclass
class PositionRules:
    """How a position curve is read: the paper draws the types of its Figure 7, these numbers decide them. `T`: places of a sequence."""

    smoothing: int = 256  # the moving average is 2 * (T // smoothing) + 1 places wide
    run: int = 64  # a run is T // run consecutive places
    least_run: int = 2  # but at least so many
    zero: float = 0.05  # a curve reaches 0 with a run at most this high
    one: float = 0.95  # and 1 with a run at least this high
    strong_zero: float = 0.001  # the same for the strong versions
    strong_one: float = 0.999
    span: float = 0.5  # an oscillatory curve has at least this between its least and its greatest value
    outer: float = 0.25  # share of that span which counts as its lowest, and as its highest, part
    changes: int = 3  # and changes at least so often between runs in the two
    thin: float = 0.9  # share of variance that neighbouring places predict in the strong version of `other`
    indicated: float = 0.5  # a strong oscillatory neuron indicates the places where its curve is at least this high
    first: int = 8  # a neuron that fires almost only at places below this serves the first positions
    first_firings: int = 20  # if it fired at least this often

    def __post_init__(self) -> None:
        for name in ("smoothing", "run", "least_run", "changes", "first", "first_firings"):
            if getattr(self, name) < 1:
                raise UserError(f"thresholds.positions.{name}={getattr(self, name)} must be a whole number above 0.")
        for name in ("zero", "one", "strong_zero", "strong_one", "span", "outer", "thin", "indicated"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"thresholds.positions.{name}={getattr(self, name)} must be a share within 0..1.")


@dataclass
class Thresholds:
    """Where one type of neuron ends and the next begins. All are questions to finished counts; none needs the model again."""

    coverage: int = 95  # percent of a neuron's firings that "cover" it
    detection: int = 95  # percent of a token's occurrences at which its detector fires
    unigrams: int = 5  # most tokens that cover a token detector
    bigrams: int = 50  # most bigrams that cover a bigram detector
    trigrams: int = 50  # most trigrams that cover a trigram detector
    min_occurrences: int = 1  # rarer n-grams are left out of the detected lists; at most 16
    support_occurrences: int = 5  # an n-gram seen this often supports a detector; at most 16
    support: float = 0.5  # share of firings on such n-grams that `type` asks of a detector
    position_mi: float = 0.05  # nats of (corrected) mutual information with position, above which a neuron is positional
    positions: PositionRules = field(default_factory=PositionRules)

    def __post_init__(self) -> None:
        for name in ("coverage", "detection"):
            if not 0 < getattr(self, name) <= 100:
                raise UserError(f"thresholds.{name}={getattr(self, name)} must be a percentage, above 0 and at most 100.")
        for name in ("unigrams", "bigrams", "trigrams"):
            if getattr(self, name) < 1:
                raise UserError(f"thresholds.{name}={getattr(self, name)} must be a whole number above 0.")
        if not 0 <= self.support <= 1:
            raise UserError(f"thresholds.support={self.support} must be a share within 0..1.")
        if not self.position_mi >= 0:
            raise UserError(f"thresholds.position_mi={self.position_mi} must be at least 0 nats.")
        for name in ("min_occurrences", "support_occurrences"):
            if not 1 <= getattr(self, name) <= 16:
                raise UserError(
                    f"thresholds.{name}={getattr(self, name)} must be within 1..16: more than that is not kept apart."
                )

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Thresholds":
        """What `asdict` made plain, as in a census' meta.json; what it does not name has its default."""
        return cls(**{**plain, "positions": PositionRules(**plain.get("positions", {}))})


@dataclass
class AnalyzeConfig:
    """One census, or one for every milestone of a run."""

    ckpt: str = ""  # HuggingFace folder or hub name, milestone, .ckpt, or run folder
    out: str | None = None  # census folder; null: RUN/census for a run folder and its milestones, else runs/census/NAME-CORPUS
    null: str | None = None  # census of an untrained model of the same shape, drawn beside; null: a run's milestone at step 0
    corpus: CorpusConfig = MISSING
    split: str = "auto"  # of the corpus: auto | validation | train | all; auto: validation for runs of train/run.py, else all
    tokens: int = 5_000_000  # positions to read, BOS included; as many whole sequences as fit
    context: int | None = None  # positions of a sequence; null: as many as the model has, for corpus=tokens as the array has
    bos: bool = True  # put </s> at position 0 of every sequence; not for corpus=tokens
    layers: str = "all"  # all | first_half | a list such as 0,1,5
    device: str = "auto"  # auto | cpu | cuda | cuda:1, the GPU of that number
    dtype: str = "auto"  # auto: float32 on a CPU, float16 on a GPU
    micro: int | None = None  # sequences per micro-batch; null: 2,048 positions, on a GPU 16,384; part of what `out` remembers
    keep_ngrams: int | None = (
        100  # at least 50: which n-grams they are is kept of neurons that so many cover to 80 %; null: of all
    )
    gpu_memory: float | None = None  # GB of the GPU that may be taken; null: nine tenths of what is free
    host_memory: float | None = None  # GB of memory that may be taken; null: nine tenths of what is free
    scratch: str | None = None  # folder for what memory has no room for; null: `out`
    residuals: str = "auto"  # residual streams: auto | memory (of the GPU, if there is one) | pinned (beside the GPU) | file
    bits: str = "auto"  # a layer's firing bits: auto | memory | file
    plan_only: bool = False  # print where everything would lie and how long it would take, and stop
    threads: int | None = None  # of the CPU; null: as many as torch takes
    thresholds: Thresholds = field(default_factory=Thresholds)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        if not self.ckpt:
            raise UserError("ckpt= is missing: give a HuggingFace folder or hub name, a milestone, a .ckpt file or a run folder.")
        check_name(self.device)
        for name, value, allowed in (
            ("split", self.split, SPLITTINGS),
            ("dtype", self.dtype, DTYPES),
            ("residuals", self.residuals, PLACES["residuals"]),
            ("bits", self.bits, PLACES["bits"]),
        ):
            if value not in allowed:
                raise UserError(f"{name}={value!r} is none of {', '.join(allowed)}.")
        if self.keep_ngrams is not None and self.keep_ngrams < FEWEST_KEPT:
            raise UserError(f"keep_ngrams={self.keep_ngrams} must be null or at least {FEWEST_KEPT}: detectors need that many.")
        for name in ("micro", "context", "threads", "gpu_memory", "host_memory"):
            if (amount := getattr(self, name)) is not None and amount <= 0:
                raise UserError(f"{name}={amount} must be above 0, or null.")
        if self.tokens < 1:
            raise UserError(f"tokens={self.tokens} leaves nothing to read; give at least the length of one sequence.")
        if not re.fullmatch(r"all|first_half|\[?\d{1,9}( *, *\d{1,9})*\]?", self.layers):
            raise UserError(f"layers={self.layers[:60]} is not all, first_half or a list of layers such as 0,1,5.")
        if isinstance(self.corpus, CorpusConfig) and self.corpus.source == "tokens" and self.split != "auto":
            raise UserError(f"split={self.split}: corpus=tokens has no splits; leave it out.")
        expand_home(self, "ckpt", "out", "null", "scratch")
        check_settings(self)

    def chosen_layers(self, layers: int) -> list[int]:
        """Numbers of the layers to count, of `layers` in the model.

        Raises:
            UserError: not all, first_half or a list of layers that the model has.
        """
        if self.layers == "all":
            return list(range(layers))
        if self.layers == "first_half":
            return list(range(max(1, layers // 2)))
        chosen = sorted({int(number) for number in self.layers.strip("[]").split(",")})
        if chosen[-1] >= layers:
            raise UserError(f"layers={self.layers} is not all, first_half or a list of layers within 0..{layers - 1}.")
        return chosen


ConfigStore.instance().store(name="analyze_schema", node=AnalyzeConfig)
