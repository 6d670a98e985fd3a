"""Train an OPT variant: python train/run.py model=nopos"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from errors import plainly
from train.config import TrainConfig
from train.training import train


@hydra.main(version_base="1.3", config_path="../conf", config_name="train")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and train."""
    with plainly():
        config = OmegaConf.to_object(cfg)
        assert isinstance(config, TrainConfig)
        train(config, overrides=list(HydraConfig.get().overrides.task))


if __name__ == "__main__":
    with plainly():
        main()
