"""documents -> tokens: the tokenizer, trained here or opened."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from corpora.long_texts import pieces
from errors import UserError
from hub_access import reachable

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>"]  # ids 0 to 3, as OPT has them


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of `vocab_size` ids, the special ones as OPT's. The same texts give the same tokenizer."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in pieces(text, cuttable=True)), trainer)
    return _plain(tokenizer)


def open_tokenizer(where: str) -> Tokenizer:
    """The tokenizer of a folder, a tokenizer.json or a hub name. `UserError` where there is none.

    A folder or hub name without tokenizer.json, such as facebook/opt-125m with its vocab.json and merges.txt, is read by transformers.
    """
    path = Path(where)
    file = path / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        try:
            return _plain(Tokenizer.from_buffer(file.read_bytes()))  # by name it fails where the locale is not UTF-8
        except Exception as mistake:  # tokenizers raises nothing narrower
            raise UserError(
                f"{file} is not a tokenizer: {mistake}. Give a folder with tokenizer.json, or a hub name."
            ) from mistake
    if not path.exists() and (path.is_absolute() or path.suffix == ".json" or where.count("/") > 1):
        raise UserError(f"tokenizer {where} does not exist. Give a folder with tokenizer.json, that file itself, or a hub name.")
    return _plain(_by_transformers(where))


def _by_transformers(where: str) -> Tokenizer:
    from transformers import AutoTokenizer  # takes seconds, and most tokenizers do without

    try:
        backend = AutoTokenizer.from_pretrained(where, local_files_only=Path(where).exists() or not reachable()).backend_tokenizer
    except Exception as mistake:  # a missing file, no network, a broken folder: transformers has a class for each
        raise UserError(
            f"no tokenizer at {where}: neither a folder with tokenizer.json (or vocab.json and merges.txt), nor to be had from the hub. "
            f"Copy it here from a machine with a network, or leave corpus.tokenizer=null to train one."
        ) from mistake
    assert isinstance(backend, Tokenizer)
    return backend


def _plain(tokenizer: Tokenizer) -> Tokenizer:
    """Text is only text: nothing is cut or padded, and a `</s>` that somebody wrote is five characters, not the end of a document."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """sha256 of what decides the ids of a text: everything in tokenizer.json but cutting, padding and added special tokens."""
    parts = json.loads(tokenizer.to_str())
    kept = {key: part for key, part in parts.items() if key not in ("truncation", "padding", "post_processor")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def bos_id(tokenizer: Tokenizer) -> int:
    """The id that ends every document and opens every sequence: of `</s>` (OPT) or `<|endoftext|>` (GPT-2, Pythia)."""
    for token in ("</s>", "<|endoftext|>"):
        if (found := tokenizer.token_to_id(token)) is not None:
            return int(found)
    raise UserError("this tokenizer has neither </s> nor <|endoftext|> to end a document with: take another one.")


def id_count(tokenizer: Tokenizer) -> int:
    """One more than the highest id."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
