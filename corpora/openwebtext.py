"""text -> documents: OpenWebText, from the hub or from local copies of its parquet files."""

from collections.abc import Iterator
from pathlib import Path

from corpora.config import CorpusConfig
from corpora.document import Document, in_turn
from corpora.files import file_documents, files
from corpora.hub import reachable
from errors import UserError

REPOSITORY, REVISION = "Skylion007/openwebtext", "refs/convert/parquet"  # its loading script no longer runs anywhere


def openwebtext(config: CorpusConfig) -> Iterator[Document]:
    """The documents of local files where `config.path` names them, else of the hub's, one file fetched after another."""
    if config.path:
        return files(config)
    if not reachable():
        raise UserError(_not_here("the hub cannot be reached"))
    return in_turn({config.name: _from_hub(config.name)}, config.bytes_per_domain)


def _from_hub(domain: str) -> Iterator[Document]:
    from huggingface_hub import hf_hub_download, list_repo_files  # here: a second, that the other sources need not wait

    try:
        names = list_repo_files(REPOSITORY, repo_type="dataset", revision=REVISION)
        for name in sorted(name for name in names if name.endswith(".parquet")):
            copy = Path(hf_hub_download(REPOSITORY, name, repo_type="dataset", revision=REVISION))
            yield from file_documents(domain, [copy])
    except UserError:
        raise
    except Exception as mistake:  # the hub's client has a class for every way a download can fail, from two libraries
        raise UserError(_not_here(f"{type(mistake).__name__} from the hub")) from mistake


def _not_here(why: str) -> str:
    return (
        f"OpenWebText is not on this machine and cannot be fetched: {why}. Run `python scripts/prepare_corpus.py corpus=openwebtext` "
        "where there is a network (or here, with corpus.path=FOLDER of its parquet files), "
        "or train on this machine's own text: `python train/run.py model=nopos size=8m corpus=local`."
    )
