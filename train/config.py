"""The settings of a training run; conf/train.yaml and its groups hold values only."""

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from corpora.config import CorpusConfig
from device import check_name
from errors import UserError
from models.config import OPTConfig
from paths import expand_home
from settings import check_settings
from wandb_run import WandbConfig

PRECISIONS = ("auto", "float32", "bfloat16")
COMPILE = ("auto", "true", "false")
SPACINGS = ("log", "milestones", "off")


def _at_least(least: int, values: dict[str, int | None]) -> None:
    """`UserError` for the first setting below `least`; one that is null is left open."""
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"{name}={value} must be at least {least}.")


@dataclass
class BatchConfig:
    """How many tokens a step learns from, and how many sequences go through the model at once."""

    tokens: int = 524_288  # per optimizer step, over all ranks
    micro: int = 4  # sequences per micro-batch and rank; the rest is gradient accumulation
    workers: int = 0  # processes that read ahead; any number gives the same batches

    def __post_init__(self) -> None:
        _at_least(1, {"batch.tokens": self.tokens, "batch.micro": self.micro})
        _at_least(0, {"batch.workers": self.workers})


@dataclass
class OptimizerConfig:
    """AdamW on all parameters and the schedule of metaseq's launcher/opt_baselines.py."""

    learning_rate: float = 6e-4  # peak, reached at the end of the warm-up
    final_learning_rate: float = 6e-5  # reached at schedule_steps, constant after
    warmup_steps: int = 715  # linear from 0
    schedule_steps: int = 572_204  # where the linear decay ends; not where training ends
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0  # greatest norm of the gradient; 1e9: none is ever cut

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise UserError(
                f"optimizer.clip={self.clip:g} must be above 0, or the model learns nothing: gradients are cut to that norm. "
                "A norm that none reaches, like optimizer.clip=1e9, leaves them alone."
            )
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= value < 1:
                raise UserError(f"optimizer.{name}={value:g} must be at least 0 and below 1.")
        for name in ("learning_rate", "final_learning_rate", "epsilon", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"optimizer.{name}={getattr(self, name):g} must be 0 or more.")
        if not 0 <= self.warmup_steps <= self.schedule_steps:
            raise UserError(
                f"optimizer.warmup_steps={self.warmup_steps} must lie between 0 and schedule_steps={self.schedule_steps}."
            )


@dataclass
class ValidationConfig:
    """A fixed sample of the validation split."""

    every: int = 1000  # steps; also at milestones and at the end
    sequences: int = 256  # of context + 1 ids

    def __post_init__(self) -> None:
        _at_least(1, {"validation.every": self.every, "validation.sequences": self.sequences})


@dataclass
class WatchConfig:
    """When a run stops by itself, besides a loss or gradient that is not a number."""

    spike: float | None = 2.0  # nats that a step's loss may lie above the mean of those before; null: any number
    window: int = 100  # steps in that mean; no spike is seen before there are as many

    def __post_init__(self) -> None:
        if self.window < 1 or (self.spike is not None and self.spike <= 0):
            raise UserError(f"watch.window={self.window} must be at least 1 and watch.spike={self.spike} above 0, or null.")


@dataclass
class LiveConfig:
    """Censuses taken while the model trains, on one held-out sample."""

    spacing: str = "log"  # log: at steps 1, 2, 5, 10, 20, 50 ... and milestones | milestones | off
    steps: list[int] = field(default_factory=list)  # further steps
    share: float = 0.02  # of the training time that all of them may take; sample and steps are chosen by it
    tokens: int | None = None  # positions of the sample, whatever they take; null: as many as `share` allows

    def __post_init__(self) -> None:
        if self.spacing not in SPACINGS:
            raise UserError(f"live.spacing={self.spacing!r} is none of {', '.join(SPACINGS)}.")
        if self.spacing == "off" and self.steps:
            raise UserError(
                f"live.spacing=off takes no census at all, not even at live.steps={self.steps}: leave one of them out, or take "
                "live.spacing=milestones."
            )
        if not 0 < self.share <= 1:
            raise UserError(f"live.share={self.share} must be a share of the training time, above 0 and at most 1, like 0.02.")
        if self.tokens is not None and self.tokens < 1:
            raise UserError(f"live.tokens={self.tokens} leaves nothing to read; give at least the length of one sequence.")


@dataclass
class TrainConfig:
    """One training run."""

    name: str = ""  # of the run folder; empty: the overrides, apart from those a run can be gone on with (conf/train.yaml)
    runs: str = "runs"  # where run folders live
    seed: int = 0  # of weights, data order and dropout
    steps: int = 300_000  # optimizer steps
    milestones: list[int] = field(
        default_factory=lambda: [50_000, 150_000, 300_000]
    )  # steps whose weights are kept, 0: untrained; beyond the last step: left out
    log_every: int = 10  # steps between lines of metrics.jsonl
    checkpoint_every: int = 500  # steps between writes of checkpoints/last.ckpt
    precision: str = "auto"  # auto | float32 | bfloat16; auto: bfloat16 autocast where the machine computes in it
    device: str = "auto"  # auto | cpu | cuda | cuda:1, the GPU of that number
    threads: int | None = None  # of the CPU; null: as many as torch takes, shared by the processes of a machine
    compile: str = "auto"  # auto | true | false: torch.compile of the blocks and the loss; auto: on a GPU
    peak_flops: float | None = None  # FLOP/s of one device at most, for mfu; null: its data sheet's, where device.py has it
    time_limit: float | None = None  # hours of this process: it stops before, and the same command goes on; null: none
    watch: WatchConfig = field(default_factory=WatchConfig)
    model: OPTConfig = field(default_factory=OPTConfig)
    corpus: CorpusConfig = MISSING
    batch: BatchConfig = field(default_factory=BatchConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    live: LiveConfig = field(default_factory=LiveConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        expand_home(self, "runs")
        check_settings(self)
        if self.precision not in PRECISIONS:
            raise UserError(f"precision={self.precision!r} is none of {', '.join(PRECISIONS)}.")
        self.compile = self.compile.lower()  # YAML's true arrives as True
        if self.compile not in COMPILE:
            raise UserError(f"compile={self.compile!r} is none of {', '.join(COMPILE)}.")
        check_name(self.device)
        _at_least(1, {"steps": self.steps, "log_every": self.log_every, "checkpoint_every": self.checkpoint_every})
        _at_least(1, {"threads": self.threads})
        if not 0 <= self.seed < 2**63:
            raise UserError(f"seed={self.seed} must be 0 or more, and below 2**63.")
        if self.time_limit is not None and not self.time_limit >= 0:
            raise UserError(f"time_limit={self.time_limit:g} must be hours, 0 or more, or null.")
        if self.peak_flops is not None and self.peak_flops <= 0:
            raise UserError(f"peak_flops={self.peak_flops} must be above 0, or null.")

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose weights are kept: the milestones up to the end, and the end where those after step 0 lie beyond it."""
        within = {step for step in self.milestones if step <= self.steps}
        instead = {self.steps} if self._late and not any(within) else set()
        return sorted(within | instead)

    @property
    def _late(self) -> list[int]:
        return sorted({step for step in self.milestones if step > self.steps})

    @property
    def late_milestones(self) -> str:
        """Which milestones lie beyond the end of this run, and what becomes of them, in words; empty if none does."""
        if not self._late:
            return ""
        instead = (
            "left out"
            if self.steps in self.milestones or self.kept_steps[-1:] != [self.steps]
            else "the last step is kept instead"
        )
        return f"{', '.join(f'{step:,}' for step in self._late)}: beyond the last step, {self.steps:,}; {instead}"

    @property
    def census_steps(self) -> list[int]:
        """Steps at which `live` asks for a census: milestones, those of the list, and 1, 2, 5, 10, 20, 50 ... if spaced so."""
        if self.live.spacing == "off":
            return []
        spaced = [m * 10**k for k in range(12) for m in (1, 2, 5)] if self.live.spacing == "log" else []
        return sorted({step for step in (*self.kept_steps, *self.live.steps, *spaced) if step <= self.steps})

    def micro_steps(self, ranks: int = 1) -> int:
        """Micro-batches per optimizer step and rank.

        Raises:
            UserError: `batch.tokens` is not a whole number of micro-batches on all ranks.
        """
        at_once = self.batch.micro * self.model.context * ranks
        if self.batch.tokens < at_once or self.batch.tokens % at_once:
            raise UserError(
                f"batch.tokens={self.batch.tokens} is not a whole number of micro-batches of {self.batch.micro} sequences x "
                f"{self.model.context} positions x {ranks} ranks; choose a multiple of {max(at_once, self.model.context)}."
            )
        return self.batch.tokens // at_once


ConfigStore.instance().store(name="train_schema", node=TrainConfig)
