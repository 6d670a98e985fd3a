"""token store -> sequences: what the neurons are shown, [sequence, position], and where each one comes from."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, UInt8

from corpora.config import CorpusConfig
from corpora.notices import announce
from corpora.prepare import any_store
from corpora.store import SPLITS, TokenSplit, TokenStore
from corpora.token_files import read_array, read_stream
from errors import UserError


@dataclass(frozen=True)
class Read:
    """Of which part of a corpus sequences are, and how many whole ones there are."""

    split: str  # validation | train | all
    available: int  # in it
    everywhere: int  # in all of the corpus


@dataclass
class Sequences:
    """Token ids to analyse. Domains stand one after another, each in the order of its corpus."""

    ids: Int32[np.ndarray, "sequence position"]
    domains: UInt8[np.ndarray, " sequence"]  # an index into domain_names
    domain_names: list[str]
    bos_id: int  # positions with this id are not counted
    vocab_size: int | None  # of the tokenizer; None where ids came without one
    tokenizer_file: Path | None
    read: Read | None = None  # None where they did not come from a corpus with splits

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of ids, domains, domain names and BOS id."""
        beside = json.dumps([self.ids.shape, self.domain_names, self.bos_id]).encode()
        return hashlib.sha256(beside + self.domains.tobytes() + self.ids.tobytes()).hexdigest()


def census_sequences(
    config: CorpusConfig, tokens: int, context: int, tokenizer: str | None = None, split: str = "validation", bos: bool = True
) -> Sequences:
    """As many sequences of `context` tokens as fit into `tokens`, shared evenly between domains; fewer where the split ends.

    `split` is validation, train or all. Each sequence is the BOS id and the next `context` - 1 ids of one domain's documents,
    concatenated; without `bos`, `context` ids.
    A domain's last incomplete sequence is dropped. For a .npy of tokens the array's own first sequences, whatever `context` and `bos` say.
    The ids are those of `tokenizer`, the model's own, or where it came without one of the tokenizer that the corpus names.
    """
    if config.source == "tokens" and not config.stream:
        return _first(read_tokens(config), tokens)
    if context < 1 + bos:
        raise UserError(f"context={context} leaves no room for text: a sequence needs at least {1 + bos} tokens.")
    wanted = _sequence_count(tokens, context)
    if config.stream:
        assert config.path and config.eos is not None
        return _one_domain(read_stream(config.path, config.eos, wanted, context, bos), config.eos)
    if tokenizer is None and config.tokenizer is None:
        raise UserError(
            f"this checkpoint has no tokenizer, and one trained on corpus={config.name} would give it ids it never saw: name "
            "the tokenizer it was trained with, corpus.tokenizer=FOLDER, a tokenizer.json or a hub name like facebook/opt-125m."
        )
    store = any_store(config, tokenizer)
    split, parts = _parts(store, split, config)
    fresh = context - bos
    available, everywhere = (_available(store, of, fresh) for of in (parts, [store.split(name) for name in SPLITS]))
    shares = even_shares(available, wanted)
    _expect_sequences(
        dict(zip(store.domain_names, available, strict=True)), f"the {split} split of corpus={config.name}", context
    )
    ids = np.full((sum(shares), context), store.bos_id, dtype=np.int32)
    beginnings = [_beginning(parts, domain, share * fresh) for domain, share in enumerate(shares)]
    ids[:, int(bos) :] = np.concatenate(beginnings).reshape(-1, fresh)
    domains = np.repeat(np.arange(len(shares), dtype=np.uint8), shares)
    read = Read(split, sum(available), sum(everywhere))
    return Sequences(ids, domains, store.domain_names, store.bos_id, store.vocab_size, store.tokenizer_file, read)


def _available(store: TokenStore, parts: list[TokenSplit], fresh: int) -> list[int]:
    """Whole sequences of so many ids in every domain of these splits."""
    return [sum(_tokens_of(part, domain) for part in parts) // fresh for domain in range(len(store.domain_names))]


def _sequence_count(tokens: int, context: int) -> int:
    if tokens < context:
        raise UserError(f"tokens={tokens} is too few: the analysis needs at least one sequence of {context} tokens.")
    return tokens // context


def even_shares(available: list[int], wanted: int) -> list[int]:
    """How many of `wanted` each one gives, dealt in turn; who has no more is passed over."""
    shares = [0] * len(available)
    while wanted and (left := [i for i, n in enumerate(available) if n > shares[i]]):
        each = max(1, min(wanted // len(left), min(available[i] - shares[i] for i in left)))
        for i in left[:wanted]:
            shares[i] += each
            wanted -= each
    return shares


def _expect_sequences(available: dict[str, int], where: str, context: int) -> None:
    """`UserError` where no domain has a whole sequence; a line on those that have none."""
    short = [name for name, n in available.items() if not n]
    if len(short) == len(available):
        raise UserError(
            f"{where} holds no whole sequence of {context} tokens: take a larger corpus, a larger corpus.validation_share, "
            "split=all or a shorter context."
        )
    if short:
        announce(
            f"{where} holds no whole sequence of {', '.join(short)}: this census says nothing of it. More text of it, a larger "
            "corpus.validation_share, split=all or a shorter context would."
        )


def _parts(store: TokenStore, split: str, config: CorpusConfig) -> tuple[str, list[TokenSplit]]:
    """The splits to read, and what they are called: one, with `all` both, and of a corpus of which one has nothing the other."""
    names = list(SPLITS[::-1]) if split == "all" else [split]
    parts = [store.split(name) for name in names]
    if any(part.n_documents for part in parts):
        return split, parts
    (other,) = (name for name in SPLITS if name != split)
    announce(f"no document of corpus={config.name} fell to the {split} split: reading the {other} split")
    return other, [store.split(other)]


def _tokens_of(split: TokenSplit, domain: int) -> int:
    return int(np.diff(split.offsets)[split.domains == domain].sum())


def _beginning(parts: list[TokenSplit], domain: int, n: int) -> Int32[np.ndarray, " token"]:
    """The first `n` ids of a domain's documents in their order, across the documents of other domains between them."""
    ids = np.empty(n, dtype=np.int32)
    done = 0
    for source, start, stop in ((part, *run) for part in parts for run in _runs(part, domain)):
        if done == n:
            break
        piece = source.read(start, min(stop, start + n - done))
        ids[done : done + len(piece)] = piece
        done += len(piece)
    assert done == n
    return ids


def _runs(split: TokenSplit, domain: int) -> Iterator[tuple[int, int]]:
    """From where to where in the split, in tokens, stand this domain's documents; neighbours as one."""
    inside = np.concatenate([[0], split.domains == domain, [0]]).astype(np.int8)
    change = np.diff(inside)
    first, last = np.flatnonzero(change == 1), np.flatnonzero(change == -1)
    for start, stop in zip(split.offsets[first], split.offsets[last], strict=True):
        yield int(start), int(stop)


def read_tokens(config: CorpusConfig) -> Sequences:
    """The array [S, T] of `config.path`, as it is: BOS included, one domain `tokens`."""
    return _one_domain(read_array(config.path or ""), config.bos_id)


def _one_domain(ids: Int32[np.ndarray, "sequence position"], bos_id: int) -> Sequences:
    return Sequences(ids, np.zeros(len(ids), dtype=np.uint8), ["tokens"], bos_id, None, None)


def _first(sequences: Sequences, tokens: int) -> Sequences:
    keep = _sequence_count(tokens, sequences.ids.shape[1])
    return Sequences(
        sequences.ids[:keep],
        sequences.domains[:keep],
        sequences.domain_names,
        sequences.bos_id,
        sequences.vocab_size,
        sequences.tokenizer_file,
    )


def check_against_model(sequences: Sequences, vocab_size: int, positions: int) -> None:
    """`UserError` where a model of `vocab_size` ids and `positions` places cannot take these sequences."""
    ids: Int[np.ndarray, "sequence position"] = sequences.ids
    if ids.shape[1] > positions:
        raise UserError(
            f"the sequences have {ids.shape[1]} positions, the model {positions}: save an array of {positions} or fewer."
        )
    check_tokenizer(sequences.vocab_size or 0, vocab_size)
    if ids.max() >= vocab_size:
        sequence, position = np.argwhere(ids >= vocab_size)[0]
        raise UserError(
            f"sequence {sequence} has the id {ids[sequence, position]} at position {position}, but the model knows "
            f"ids below {vocab_size} only: were these tokens made by this model's tokenizer?"
        )


def check_tokenizer(ids: int, rows: int) -> None:
    """`UserError` where a tokenizer of so many ids is larger than an embedding of so many rows."""
    if ids > rows:
        raise UserError(
            f"the tokenizer knows {ids} ids, but the model's embedding has {rows} rows: they do not belong together. "
            "Give the model's own tokenizer, or a checkpoint whose embedding has been made as large."
        )
