"""Train an OPT variant: python train/run.py model=nopos; several: python train/run.py -m model=baseline,nopos seed=0,1,2"""

import os
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

HERE = str(Path(__file__).parents[1])  # the repository, not this folder
sys.path[0] = HERE
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, os.environ.get("PYTHONPATH"))))  # for the jobs of a sweep

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from corpora.home import quoted_paths
from errors import plainly
from memory import keep_freed
from settings import configuration, setting_names
from train.config import TrainConfig
from train.folder import run_name
from train.sweeping import noted, swept
from train.training import train


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and train. In a sweep, hydra goes on with the others when one run fails, and says so at the end."""
    with plainly() if HydraConfig.get().mode is RunMode.RUN else nullcontext():
        config = configuration(cfg, TrainConfig)
        keep_freed()
        name = config.name or run_name(HydraConfig.get().job.override_dirname, swept(HydraConfig.get()))
        job = HydraConfig.get().job.num if HydraConfig.get().mode is RunMode.MULTIRUN else 0
        train(replace(config, name=name), list(HydraConfig.get().overrides.task), job)


if __name__ == "__main__":
    sys.argv[1:] = noted(quoted_paths(sys.argv[1:]))
    with plainly([*setting_names(TrainConfig), "size", "experiment"]):
        main()
