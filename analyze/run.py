"""Sort the neurons of a model into types: python analyze/run.py ckpt=facebook/opt-125m"""

import re
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import hydra
from omegaconf import DictConfig

from allocator import keep_freed
from analyze.config import AnalyzeConfig
from analyze.pipeline import analyze
from errors import plainly
from paths import quoted_paths
from settings import configuration, setting_names


@hydra.main(version_base="1.3", config_path="../conf", config_name="analyze")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and take the census."""
    with plainly():
        config = configuration(cfg, AnalyzeConfig)
        if config.host_memory is None:  # who sets a limit wants memory given back rather
            keep_freed()
        analyze(config)


if __name__ == "__main__":
    # hydra would take layers=0,1,5 for a sweep of three runs
    sys.argv[1:] = [re.sub(r"^(layers=)(\d+(?:,\d+)*)$", r"\1'\2'", argument) for argument in sys.argv[1:]]
    sys.argv[1:] = quoted_paths(sys.argv[1:])
    with plainly(settings=[*setting_names(AnalyzeConfig), "experiment"]):
        main()
