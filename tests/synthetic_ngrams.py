"""What the neurons of a synthetic census detect and write: columns, n-grams with their counts, a vocabulary of bytes and words."""

from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORDS = ["Ġthe", "The", "Ġweather", "ĠWeather", "</script><b>x", "Ċ", 'Ġ"q"&', "Ġself", "Ġimport", "Ġ=", "Ġ1", "Ġ2", "Ġreturn"]
BYTES = 256
BIGRAMS, TRIGRAMS = 40, 3  # of every third detector, of every second
NGRAMS: dict[str, Any] = {
    "layer": pl.Int32,
    "neuron": pl.Int32,
    "n": pl.Int8,
    "ids": pl.List(pl.Int32),
    "fires": pl.Int64,
    "occurrences": pl.Int64,
}


def tokenizer(further_words: int) -> Tokenizer:
    """All bytes, `WORDS`, and further ones such as "Ġw17"."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS, *(f"Ġw{i}" for i in range(further_words))]
    made = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    made.decoder = decoders.ByteLevel()
    return made


def detected_tokens(neuron: int, rng: np.random.Generator) -> list[int]:
    """Three words; every second detector's first is one that would break out of a page."""
    tokens = [int(t) for t in BYTES + rng.choice(len(WORDS), 3, replace=False)]
    return [BYTES + WORDS.index("</script><b>x"), *tokens[1:]] if neuron % 2 == 0 else tokens


def with_ngrams(neurons: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The neurons with their columns about bigrams and trigrams; each length of n-gram needs more of them."""
    detector, neuron = pl.col("token_detector"), pl.col("neuron")
    bigram, trigram = detector & (neuron % 3 == 0), detector & (neuron % 2 == 1)
    more = {name: pl.Series(10 ** rng.uniform(0, 0.7, neurons.height)) for name in ("bigrams", "trigrams")}
    covering = {"bigrams_95": pl.col("unigrams_95") * more["bigrams"]}
    covering["trigrams_95"] = pl.when(trigram).then(20).otherwise(covering["bigrams_95"] * more["trigrams"])
    return neurons.with_columns(
        **{name: many.cast(pl.Int64) for name, many in covering.items()},
        bigram_detector=bigram, n_detected_bigrams=pl.when(bigram).then(BIGRAMS).otherwise(0),
        bigram_support=pl.when(bigram).then(0.9).otherwise(0.0),
        trigram_detector=trigram, n_detected_trigrams=pl.when(trigram).then(TRIGRAMS).otherwise(0), trigram_support=0.0,
    )  # fmt: skip


def with_writes(neurons: pl.DataFrame, vocabulary: int, rng: np.random.Generator) -> pl.DataFrame:
    """The neurons with what weights add."""
    projection = pl.when("token_detector").then(pl.Series(rng.normal(-0.5, 1, neurons.height)))
    lists = {name: rng.integers(BYTES, vocabulary, (neurons.height, 10)).tolist() for name in ("top_promoted", "top_suppressed")}
    return neurons.with_columns(
        trigger_projection=projection, trigger_projection_centered=projection + 0.1, suppresses_trigger=projection < 0,
        **{name: pl.Series(ids, dtype=pl.List(pl.Int32)) for name, ids in lists.items()},
    )  # fmt: skip


def ngrams(neurons: pl.DataFrame, occurrences: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """The detected tokens; of some detectors bigrams, and of some trigrams, that end on those."""
    rows: list[tuple[int, int, int, list[int], int, int]] = []
    columns = ("layer", "neuron", "detected_tokens", "n_detected_bigrams", "n_detected_trigrams")
    for layer, neuron, tokens, bigrams, trigrams in neurons.filter("token_detector").select(columns).iter_rows():
        rows += [(layer, neuron, 1, [t], int(0.97 * occurrences[t]), int(occurrences[t])) for t in tokens]
        first = [-1, *rng.integers(BYTES, size=max(0, bigrams - 1)).tolist()]
        rows += [(layer, neuron, 2, [first[i], tokens[0]], 50 - i, 50 - i) for i in range(bigrams)]
        rows += [(layer, neuron, 3, [1, 1, token], 30, 30) for token in tokens[:trigrams]]
    return pl.DataFrame(rows, schema=NGRAMS, orient="row")
