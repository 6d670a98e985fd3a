"""What a synthetic census lacks of a real one's page: detected n-grams with counts, promoted and suppressed tokens, many words."""

from typing import Any

import numpy as np
import polars as pl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from analyze.folder import Census, open_census
from tests.synthetic_census import WORDS

BIGRAMS = 40  # of every third detector
NGRAMS: dict[str, Any] = {
    "layer": pl.Int32,
    "neuron": pl.Int32,
    "n": pl.Int8,
    "ids": pl.List(pl.Int32),
    "fires": pl.Int64,
    "occurrences": pl.Int64,
}


def with_ngrams(census: Census, further_words: int = 0, seed: int = 0) -> Census:
    """The census with ngrams.parquet and what weights add; the vocabulary is bytes, `WORDS` and `further_words`, such as "Ġw17"."""
    rng = np.random.default_rng(seed)
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *WORDS, *(f"Ġw{i}" for i in range(further_words))]
    if census.tokenizer:
        _tokenizer(pieces).save(str(census.path / "tokenizer.json"))
    neurons = _with_columns(census.neurons, len(pieces), rng)
    neurons.write_parquet(census.path / "neurons.parquet")
    _ngrams(neurons, rng.integers(60, 1000, len(pieces)), rng).write_parquet(census.path / "ngrams.parquet")
    return open_census(census.path)


def _with_columns(neurons: pl.DataFrame, vocabulary: int, rng: np.random.Generator) -> pl.DataFrame:
    bigram = pl.col("token_detector") & (pl.col("neuron") % 3 == 0)
    projection = pl.when("token_detector").then(pl.Series(rng.normal(-0.5, 1, neurons.height)))
    lists = {name: rng.integers(256, vocabulary, (neurons.height, 10)).tolist() for name in ("top_promoted", "top_suppressed")}
    return neurons.with_columns(
        bigrams_95=pl.col("unigrams_95"), bigram_detector=bigram, n_detected_bigrams=pl.when(bigram).then(BIGRAMS).otherwise(0),
        bigram_support=pl.when(bigram).then(0.9).otherwise(0.0), trigrams_95=pl.col("unigrams_95"), trigram_detector=False,
        n_detected_trigrams=0, trigram_support=0.0, trigger_projection=projection, trigger_projection_centered=projection + 0.1,
        suppresses_trigger=projection < 0, **{name: pl.Series(ids, dtype=pl.List(pl.Int32)) for name, ids in lists.items()},
    )  # fmt: skip


def _ngrams(neurons: pl.DataFrame, occurrences: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    """The detected tokens, and of every third detector bigrams that end on the first of them."""
    rows: list[tuple[int, int, int, list[int], int, int]] = []
    detectors = neurons.filter("token_detector").select("layer", "neuron", "detected_tokens", "n_detected_bigrams")
    for layer, neuron, tokens, bigrams in detectors.iter_rows():
        rows += [(layer, neuron, 1, [t], int(0.97 * occurrences[t]), int(occurrences[t])) for t in tokens]
        rows += [
            (layer, neuron, 2, [-1 if i == 0 else int(rng.integers(256)), tokens[0]], 50 - i, 50 - i) for i in range(bigrams)
        ]
    return pl.DataFrame(rows, schema=NGRAMS, orient="row")


def _tokenizer(pieces: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    made.decoder = decoders.ByteLevel()
    return made
