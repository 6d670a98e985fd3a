"""Turn a corpus into tokens on disk: python scripts/prepare_corpus.py corpus=local

On a finished store it reads every byte and compares checksums.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig
from rich.console import Console
from rich.table import Table

from corpora.config import CorpusConfig
from corpora.prepare import any_store
from corpora.store import SPLITS, TokenStore
from errors import plainly
from paths import quoted_paths
from settings import check_settings, configuration, setting_names


@dataclass
class PrepareConfig:
    """What scripts/prepare_corpus.py is told."""

    corpus: CorpusConfig = MISSING

    def __post_init__(self) -> None:
        check_settings(self)


ConfigStore.instance().store(name="prepare_corpus_schema", node=PrepareConfig)


def contents(store: TokenStore) -> Table:
    """Documents and tokens of every domain and split."""
    table = Table("split", "domain", caption=str(store.folder))
    table.add_column("documents", justify="right")
    table.add_column("tokens", justify="right")
    for split in SPLITS:
        for domain in store.domain_names:
            counted = store.manifest["splits"][split]["of_domain"][domain]
            table.add_row(split, domain, f"{counted['documents']:,}", f"{counted['tokens']:,}")
    return table


@hydra.main(version_base="1.3", config_path="../conf", config_name="prepare_corpus")
def main(cfg: DictConfig) -> None:
    with plainly():
        config = configuration(cfg, PrepareConfig)
        store = any_store(config.corpus)
        store.verify()
        Console().print(contents(store))


if __name__ == "__main__":
    sys.argv[1:] = quoted_paths(sys.argv[1:])
    with plainly(settings=setting_names(PrepareConfig)):
        main()
