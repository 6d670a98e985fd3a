"""settings -> corpus: what a corpus is made of and where its tokens are kept."""

from dataclasses import dataclass, field

from corpora.home import expand_home
from errors import UserError

SOURCES = ("local", "files", "openwebtext", "pile", "tokens")
SPLITTINGS = ("hash", "nanogpt")


@dataclass
class CorpusConfig:
    """One corpus. The values of the known ones are in conf/corpus/."""

    name: str  # what its folder and reports call it
    source: str  # one of SOURCES
    path: str | None = None  # file, folder or glob with the text; tokens: the .npy; openwebtext: null is the hub
    domains: dict[str, str] = field(
        default_factory=dict
    )  # files, pile: name of a domain -> its file, folder or glob; instead of path
    tokenizer: str | None = None  # tokenizer folder, tokenizer.json or hub name; null: train a byte-level BPE on this corpus
    vocab_size: int = 4096  # ids of a BPE trained here, its 4 special and 256 byte ids among them
    bytes_per_domain: int | None = None  # UTF-8 bytes of text to take from each domain, whole documents; null: all there is
    distinct: bool = True  # of equal texts keep the first and of blank ones none; false: every document as it comes
    validation_share: float = 0.05  # share of documents, between 0 and 1, kept from training
    split: str = "hash"  # hash: by the text alone, whatever the other documents | nanogpt: nanoGPT's own, needs distinct=false
    store: str = "data"  # folder that holds the token stores
    workers: int | None = None  # processes that tokenise; null: one a core; any number gives the same bytes
    mark_bytes: int = 50_000_000  # of text between two marks of what is done; a kill costs that much at most
    bos_id: int = 2  # tokens: the id that opens a sequence and is not counted; the others ask their tokenizer
    seed: int = 0  # local: of the generated mathematics

    @property
    def from_hub(self) -> bool:
        """Whether its text has to be fetched."""
        return self.source == "openwebtext" and not self.path

    def __post_init__(self) -> None:
        expand_home(self, "store", "tokenizer")
        if self.source not in SOURCES:
            raise UserError(f"corpus.source={self.source!r} is none of {', '.join(SOURCES)}.")
        if self.path is not None and self.domains:
            raise UserError("corpus.path and corpus.domains exclude each other: give one path, or a path for every domain.")
        if self.domains and self.source not in ("files", "pile"):
            raise UserError(f"corpus.domains is for the sources files and pile, not {self.source}: leave it out.")
        if self.source in ("files", "tokens") and self.path is None and not self.domains:
            raise UserError(f"corpus={self.name} needs to know where to read: add corpus.path=FILE.")
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
        if self.tokenizer is None and self.vocab_size < 260:
            raise UserError(f"corpus.vocab_size={self.vocab_size} must be at least 260: 256 bytes and 4 special ids.")
        if self.bytes_per_domain is not None and self.bytes_per_domain < 1:
            raise UserError(f"corpus.bytes_per_domain={self.bytes_per_domain} must be at least 1, or null for all there is.")
        if self.bos_id < 0:
            raise UserError(f"corpus.bos_id={self.bos_id} must be a token id, 0 or more.")
