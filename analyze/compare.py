"""Set runs side by side on one page: python analyze/compare.py runs=[runs/demo/baseline,runs/demo/nopos] out=runs/demo"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from analyze.analysis import compare_runs
from errors import UserError, plainly


@dataclass
class CompareConfig:
    """Which runs, and where to."""

    runs: list[str] = field(default_factory=list)  # run folders whose censuses analyze/run.py has taken
    out: str = "runs/comparison"  # folder for report.html and figures/

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("runs= is missing: give run folders, like runs=[runs/demo/baseline,runs/demo/nopos].")


ConfigStore.instance().store(name="compare_schema", node=CompareConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="compare")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and compare."""
    with plainly():
        config = OmegaConf.to_object(cfg)
        assert isinstance(config, CompareConfig)
        compare_runs([Path(run) for run in config.runs], Path(config.out), Console(stderr=True))


if __name__ == "__main__":
    with plainly():
        main()
