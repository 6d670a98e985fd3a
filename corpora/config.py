"""settings -> corpus: what a corpus is made of and where its tokens are kept."""

import re
from dataclasses import dataclass, field

from errors import UserError
from paths import expand_home

SOURCES = ("local", "files", "openwebtext", "pile", "hub", "tokens")
LARGEST_VOCABULARY = 1_000_000  # ids of a BPE trained here
LONGEST_NAME = 100  # characters, so that a folder of this name and a hash can be made everywhere
SPLITTINGS = ("hash", "nanogpt")


@dataclass
class CorpusConfig:
    """One corpus. The values of the known ones are in conf/corpus/."""

    name: str  # what its folder and reports call it
    source: str  # one of SOURCES
    path: str | None = None  # file, folder or glob with the text; hub: name of a data set, or its folder; tokens: .npy or .bin
    domains: dict[str, str] = field(
        default_factory=dict
    )  # files, pile: name of a domain -> its file, folder or glob; instead of path
    subset: str | None = None  # hub: configuration of the data set, such as en of allenai/c4; null: the only one
    part: str = "train"  # hub: the data set's own split to read; what is kept from training is chosen from it
    text: str = "text"  # files, pile, openwebtext, hub: the field or column that holds the text
    strict: bool = (
        False  # of rows without a text there (null, a number, a list): true refuses them, false leaves them out and counts
    )
    tokenizer: str | None = None  # tokenizer folder, tokenizer.json or hub name; null: train a byte-level BPE on this corpus
    vocab_size: int = 4096  # ids of a BPE trained here, its 4 special and 256 byte ids among them
    bytes_per_domain: int | None = None  # UTF-8 bytes of text to take from each domain, whole documents; null: all there is
    distinct: bool = True  # of equal texts keep the first and of blank ones none; false: every document as it comes
    validation_share: float = 0.05  # share of documents, between 0 and 1, kept from training
    split: str = "hash"  # hash: by the text alone, whatever the other documents | nanogpt: nanoGPT's own, needs distinct=false
    store: str = "data"  # folder that holds the token stores
    workers: int | None = None  # processes that tokenise; null: one a core; any number gives the same bytes
    mark_bytes: int = 50_000_000  # of text between two marks of what is done; a kill costs that much at most
    bos_id: int = 2  # tokens, .npy: the id that opens a sequence and is not counted; the others ask their tokenizer
    eos: int | None = None  # tokens, nanoGPT's .bin: the id that ends every document, opens a sequence and is not counted
    seed: int = 0  # local: of the generated mathematics

    @property
    def from_hub(self) -> bool:
        """Whether its text has to be fetched."""
        return self.source == "openwebtext" and not self.path

    @property
    def stream(self) -> bool:
        """Whether its tokens are one stream, nanoGPT's .bin, and not the sequences of an array."""
        return self.source == "tokens" and (self.path or "").lower().endswith(".bin")

    def __post_init__(self) -> None:
        expand_home(self, "store", "tokenizer", "path", "domains")
        if not re.fullmatch(r"[^\W_][\w .+@-]*", self.name) or len(self.name) > LONGEST_NAME:
            raise UserError(
                f"corpus.name={self.name[:LONGEST_NAME]!r} names a folder: give up to {LONGEST_NAME} letters, digits, blanks "
                "and any of _ . + @ -, beginning with a letter or a digit."
            )
        if self.source not in SOURCES:
            raise UserError(f"corpus.source={self.source!r} is none of {', '.join(SOURCES)}.")
        if self.path is not None and self.domains:
            raise UserError("corpus.path and corpus.domains exclude each other: give one path, or a path for every domain.")
        if self.domains and self.source not in ("files", "pile"):
            raise UserError(f"corpus.domains is for the sources files and pile, not {self.source}: leave it out.")
        if self.source in ("files", "hub", "tokens") and self.path is None and not self.domains:
            raise UserError(
                f"corpus={self.name} needs to know where to read: add corpus.path={'NAME' if self.source == 'hub' else 'FILE'}."
            )
        if self.split not in SPLITTINGS:
            raise UserError(f"corpus.split={self.split!r} is none of {', '.join(SPLITTINGS)}.")
        if self.split == "nanogpt" and (
            self.distinct or self.bytes_per_domain is not None or self.source not in ("files", "openwebtext")
        ):
            raise UserError(
                "corpus.split=nanogpt draws from all documents of files or OpenWebText as they come: it needs corpus.distinct=false, "
                "corpus.bytes_per_domain=null and corpus.source=files or openwebtext."
            )
        if self.workers is not None and self.workers < 1:
            raise UserError(f"corpus.workers={self.workers} must be at least 1, or null for one a core.")
        if self.mark_bytes < 1:
            raise UserError(f"corpus.mark_bytes={self.mark_bytes} must be at least 1.")
        if not 0 < self.validation_share < 1:
            raise UserError(f"corpus.validation_share={self.validation_share} must lie between 0 and 1, like 0.05.")
        if self.tokenizer is None and not 260 <= self.vocab_size <= LARGEST_VOCABULARY:
            raise UserError(
                f"corpus.vocab_size={self.vocab_size} must be at least 260 (256 bytes and 4 special ids) and at most "
                f"{LARGEST_VOCABULARY:,}."
            )
        if self.bytes_per_domain is not None and self.bytes_per_domain < 1:
            raise UserError(f"corpus.bytes_per_domain={self.bytes_per_domain} must be at least 1, or null for all there is.")
        for setting, id in (("bos_id", self.bos_id), ("eos", self.eos)):
            if id is not None and not 0 <= id < 2**31:
                raise UserError(f"corpus.{setting}={id} must be a token id, 0 or more and below 2^31.")
        if self.stream and self.eos is None:
            raise UserError(
                f"corpus.path={self.path} is a stream of ids: say which one ends a document, corpus.eos=50256 for GPT-2's."
            )
        if not self.stream and self.eos is not None:
            raise UserError("corpus.eos is for corpus=tokens with a .bin file; for a .npy give corpus.bos_id.")
        if self.source != "hub" and (self.subset is not None or self.part != "train"):
            raise UserError(f"corpus.subset and corpus.part are for corpus=hub, not {self.source}: leave them out.")
