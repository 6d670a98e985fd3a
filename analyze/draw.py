"""Tables, figures and pages anew from stored counts, without the model: python analyze/draw.py out=runs/census/opt-125m-local

With other thresholds: ... thresholds.position_mi=0.1. A run, or a folder of runs, is drawn whole: python analyze/draw.py out=runs/demo
What was counted while a run trained, which has no pages yet, gets them too: python analyze/draw.py out=RUN/live
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig
from rich.console import Console

from analyze.config import Thresholds
from analyze.recompute import redraw
from errors import UserError, plainly
from paths import expand_home, quoted_paths
from settings import check_settings, configuration, setting_names


@dataclass
class DrawConfig:
    """What to draw."""

    out: str = ""  # census folder, folder of a run's censuses, run folder, or folder of runs
    thresholds: dict[str, Any] = field(default_factory=dict)  # those that change, as for analyze/run.py; the others stay
    null: str | None = None  # census of an untrained model of the same shape, drawn beside; null: a run's milestone at step 0

    def __post_init__(self) -> None:
        if not self.out:
            raise UserError("out= is missing: give a census folder, a run folder, or a folder of runs.")
        expand_home(self, "out", "null")
        check_settings(self)


SETTINGS = [*setting_names(DrawConfig), *setting_names(Thresholds, "thresholds.")]
ConfigStore.instance().store(name="draw_schema", node=DrawConfig)


@hydra.main(version_base="1.3", config_path="../conf", config_name="draw")
def main(cfg: DictConfig) -> None:
    """Compose the configuration and draw."""
    with plainly(settings=SETTINGS):
        config = configuration(cfg, DrawConfig)
        redraw(Path(config.out), config.thresholds, Path(config.null) if config.null else None, Console(stderr=True))


if __name__ == "__main__":
    # thresholds holds only what is given; hydra wants ++ before a name that is not there yet
    sys.argv[1:] = [re.sub(r"^thresholds\.", "++thresholds.", argument) for argument in sys.argv[1:]]
    sys.argv[1:] = quoted_paths(sys.argv[1:])
    with plainly(settings=SETTINGS):
        main()
