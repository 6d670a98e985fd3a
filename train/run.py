"""Train an OPT variant: python train/run.py model=nopos; several: python train/run.py -m model=baseline,nopos seed=0,1,2"""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

HERE = str(Path(__file__).parents[1])  # the repository, not this folder
sys.path[0] = HERE
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))  # for the jobs of a sweep

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from allocator import keep_freed
from errors import plainly
from paths import quoted_paths
from settings import configuration, setting_names
from signals import WARNINGS
from train.config import TrainConfig
from train.folder import known_name, run_name
from train.sweep import announce_sweep, began, variant
from train.swept_settings import noted, swept
from train.training import train


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and train."""
    hydra_config = HydraConfig.get()
    alone = hydra_config.mode is RunMode.RUN
    with plainly(*WARNINGS) if alone else nullcontext():
        config = configuration(cfg, TrainConfig)
        keep_freed()
        name = run_name(hydra_config.job.override_dirname, swept(hydra_config))
        config = replace(config, name=config.name or known_name(Path(config.runs), name))
        job, overrides = 0 if alone else hydra_config.job.num, list(hydra_config.overrides.task)
        task = partial(train, config, overrides, job, began())
        task() if alone else variant(config.name, job, config.time_limit, task)


if __name__ == "__main__":
    sys.argv[1:] = noted(quoted_paths(sys.argv[1:]))
    announce_sweep()
    with plainly(*WARNINGS, settings=[*setting_names(TrainConfig), "size", "experiment"]):
        main()
