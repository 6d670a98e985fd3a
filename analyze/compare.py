"""Set models side by side on one page: python analyze/compare.py runs=[runs/demo/baseline,runs/demo/nopos] out=runs/demo

Or of single checkpoints, of different sizes: python analyze/compare.py censuses=[CENSUS,CENSUS,CENSUS] out=DIR
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from rich.console import Console

from analyze.census.ownership import owned
from analyze.compare_runs import compare
from errors import UserError, plainly
from paths import expand_home, quoted_paths
from settings import check_settings, configuration, setting_names


@dataclass
class CompareConfig:
    """Which models, and where to."""

    runs: list[str] = field(default_factory=list)  # run folders with censuses, of analyze/run.py or live; or folders of such runs
    censuses: list[str] = field(default_factory=list)  # census folders, of models of any size
    null: str | None = None  # census of an untrained model, drawn beside
    out: str = "runs/comparison"  # folder for report.html and figures/

    def __post_init__(self) -> None:
        if not (self.runs or self.censuses):
            raise UserError(
                "Give runs=[RUN,RUN], folders of training runs, or censuses=[CENSUS,CENSUS], what analyze/run.py wrote."
            )
        expand_home(self, "runs", "censuses", "null", "out")
        check_settings(self)


ConfigStore.instance().store(name="compare_schema", node=CompareConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and compare."""
    with plainly():
        config = configuration(cfg, CompareConfig)
        runs, censuses = ([Path(folder) for folder in folders] for folders in (config.runs, config.censuses))
        with owned(Path(config.out)):
            compare(runs, censuses, Path(config.out), Console(stderr=True), Path(config.null) if config.null else None)


if __name__ == "__main__":
    sys.argv[1:] = quoted_paths(sys.argv[1:])
    with plainly(settings=setting_names(CompareConfig)):
        main()
