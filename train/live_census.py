"""A model in training -> censuses of it at chosen steps, on one held-out sample, by the code of analyze/run.py."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning as L
import torch
from rich.console import Console
from safetensors import SafetensorError

from analyze.analysis import sequences_for
from analyze.census import take
from analyze.config import AnalyzeConfig
from analyze.drawing import spread
from analyze.evolution import write_evolution
from analyze.folder import open_census
from analyze.mirroring import mirror_census
from analyze.ranks import Ranks
from analyze.task import CensusTask
from analyze.writing import write_whole
from errors import UserError
from models.checkpoint import save_checkpoint
from models.opening import open_checkpoint
from tracking import Mirror, WandbConfig
from train.config import TrainConfig
from train.module import Training
from train.plan import Plan

LEAST_TOKENS = 8192  # of a sample that is chosen by time
MOST_TOKENS = 1_000_000  # of one, however much time there is
HEADROOM = 0.85  # of the share that is planned with; the rest is for what takes longer than it did at the trial
SAMPLE, PASSING = "sample.json", ".passing-"
FAILURES = (UserError, OSError, SafetensorError, torch.OutOfMemoryError)  # a value that is not finite, a full disk, a full GPU
ENOUGH = 20  # steps that show how fast training is
Pause = Callable[[], AbstractContextManager[None]]


def census_steps(config: TrainConfig) -> list[int]:
    """Steps at which `live` asks for a census: milestones, those of the list, and 1, 2, 5, 10, 20, 50 ... if spaced so."""
    if config.live.spacing == "off":
        return []
    spaced = [m * 10**k for k in range(12) for m in (1, 2, 5)] if config.live.spacing == "log" else []
    return sorted({step for step in (*config.milestones, *config.live.steps, *spaced) if step <= config.steps})


def affordable(steps: list[int], seconds: float, of_least: float, least: int) -> tuple[int, list[int]]:
    """Tokens of a census, and at which of the steps, so that all take at most `seconds` if one of `least` tokens takes `of_least`.

    Fewer tokens before fewer steps, in whole multiples of `least`; steps are left out evenly. A census of k times the tokens takes
    less than k times as long, so this is on the safe side.
    """
    multiple = int(seconds / (of_least * max(1, len(steps))))
    if multiple >= 1:
        return min(multiple * least, max(least, MOST_TOKENS // least * least)), steps
    return least, spread(steps, fits) if (fits := int(seconds / of_least)) else []


class LiveCensus(L.Callback):
    """Takes the censuses of a run while it trains, in `RUN/live`; changes nothing in the run. The first rank takes them alone.

    It comes before what writes last.ckpt, so that a run that is killed in a census makes the step, and the census, again.
    """

    def __init__(self, run: Path, plan: Plan, mirror: Mirror, console: Console, pause: Pause = nullcontext) -> None:
        self.out, self.plan, self.mirror, self.console, self.pause = run / "live", plan, mirror, console, pause
        self.sample: dict[str, Any] = {}  # tokens, steps, and what the censuses took, in seconds; kept in sample.json
        self.began = 0.0  # when training did, after the first census; 0: not yet

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Choose the sample, or go on with that of the run; forget censuses of steps that will be made again."""
        if trainer.is_global_zero and (steps := census_steps(module.config)):
            self.out.mkdir(parents=True, exist_ok=True)
            with self.pause(), _untouched(module):
                self._forget_after(trainer.global_step)
                self._choose(module, steps)
            self._take_if_due(module, trainer.global_step)
        self.began = time.perf_counter()
        trainer.strategy.barrier()

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Take a census if this step asks for one."""
        if trainer.is_global_zero:
            self._take_if_due(module, trainer.global_step)

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Write what changed from census to census, and say what it cost."""
        self._sum_up(trainer)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """The same after an error, where Lightning calls no teardown."""
        self._sum_up(trainer)

    def _sum_up(self, trainer: L.Trainer) -> None:
        folders = sorted(folder for folder in self.out.glob("step_*") if _finished(folder))
        if not (trainer.is_global_zero and self.began and self.sample and folders):
            return
        begun = time.perf_counter()
        try:
            write_evolution([open_census(folder) for folder in folders], self.out)
            self._spend("evolution", begun)
            trained = self.sample["trained"] = round(self.sample["trained"] + time.perf_counter() - self.began, 3)
            write_whole(self.out / SAMPLE, json.dumps(self.sample, indent=2) + "\n")
        except FAILURES as mistake:  # the run is kept, or what stopped it is said
            self._say(f"what changed from census to census is not written: {mistake}")
            return
        once = f"; {self.sample['seconds']['once']:.1f} s more to load machine code" if "once" in self.sample["seconds"] else ""
        self._say(
            f"{len(folders)} live censuses of {self.sample['tokens']:,} tokens took {self._spent():.1f} s, "
            f"{100 * self._spent() / trained:.1f} % of {trained:.0f} s of training{once}  ->  {self.out}"
        )

    def _take_if_due(self, module: Training, step: int) -> None:
        if step not in self.sample.get("steps", []) or _finished(self.out / _name(step)):
            return
        if self._too_dear(module, step):
            self._say(
                f"the live census at step {step:,} is left out: all would take more than live.share={module.config.live.share:g}"
            )
            return
        begun = time.perf_counter()
        with self.pause(), _untouched(module):
            try:
                out = self._census(module, step, self.sample["tokens"], self.out / _name(step))
            except FAILURES as mistake:  # training goes on
                self._say(f"no live census at step {step:,}: {mistake}")
                return
            mirror_census(self.mirror, open_census(out), "live")
        self._spend(str(step), begun)

    def _too_dear(self, module: Training, step: int) -> bool:
        """Whether one more census takes the whole past the share, at the speed that training has shown."""
        if module.config.live.tokens is not None:
            return False
        taken = [seconds for what, seconds in self.sample["seconds"].items() if what.isdigit()]
        done, steps = step - self.plan.start, module.config.steps
        planned = self.plan.seconds * steps / (steps - self.plan.start)
        shown = (time.perf_counter() - self.began) / done * steps if done >= ENOUGH else 0.0
        return self._spent() + max(taken, default=0.0) > module.config.live.share * max(planned, shown)

    def _choose(self, module: Training, steps: list[int]) -> None:
        """Tokens and steps: those recorded; else those asked for, or those that a trial says fit the share."""
        live, file = module.config.live, self.out / SAMPLE
        if file.is_file():
            self.sample = json.loads(file.read_text())
            if live.tokens not in (None, self.sample["tokens"]):
                raise UserError(
                    f"live.tokens={live.tokens}, but {self.out} was begun with {self.sample['tokens']}: one run, one sample. "
                    f"Give back that number, or remove {self.out}."
                )
            before = set(self.sample["asked"]) - set(self.sample["steps"])
            self.sample |= {"asked": steps, "steps": [step for step in steps if step not in before]}
            return
        self.sample = {"asked": steps, "steps": steps, "tokens": live.tokens, "trained": 0.0, "seconds": {}}
        if live.tokens is None:
            try:
                self._choose_by_trial(module, steps)
            except FAILURES as mistake:  # training goes on, and the next start tries again
                self.sample = {}
                self._say(f"no live censuses, for the trial of one failed: {mistake} live.spacing=off does without them.")
                return
        write_whole(file, json.dumps(self.sample, indent=2) + "\n")

    def _choose_by_trial(self, module: Training, steps: list[int]) -> None:
        live, context = module.config.live, module.config.model.context
        least = max(1, LEAST_TOKENS // context) * context
        of_least = self._trial(module, context, least)
        seconds = HEADROOM * live.share * self.plan.seconds - of_least
        self.sample["tokens"], self.sample["steps"] = affordable(steps, seconds, of_least, least)
        chosen = self.sample["steps"]
        listed = f"steps {', '.join(f'{step:,}' for step in chosen)}" if chosen else "none"
        self._say(
            f"live censuses of {self.sample['tokens']:,} tokens at {len(chosen)} of {len(steps)} steps, in {100 * live.share:g} % of "
            f"{self.plan.seconds:.0f} s: {listed}"
            + ("" if chosen else f"; one takes {of_least:.2f} s (a larger live.share, or live.tokens)")
        )

    def _trial(self, module: Training, once: int, least: int) -> float:
        """Seconds that a census of `least` tokens takes, after one of `once` that loads the kernels' machine code, or makes it."""
        with TemporaryDirectory(dir=self.out, prefix=PASSING) as folder:
            for name, tokens in (("once", once), ("trial", least)):
                begun = time.perf_counter()
                self._census(module, 0, tokens, Path(folder) / name)
                self._spend(name, begun)
        return float(self.sample["seconds"]["trial"])

    def _census(self, module: Training, step: int, tokens: int, out: Path) -> Path:
        """Take one of the model as it is: written like a milestone, and read like one."""
        run, config = self.out.parent, module.config
        device = "cuda" if module.device.type == "cuda" else "cpu"
        if device == "cuda":
            torch.cuda.empty_cache()  # what training's peak left there counts as taken where a census plans its room
        settings: dict[str, Any] = {"device": device, "wandb": WandbConfig(mode="disabled")}
        asked = AnalyzeConfig(ckpt=str(run), out=str(out), corpus=config.corpus, tokens=tokens, **settings)
        with TemporaryDirectory(dir=self.out, prefix=PASSING) as folder:
            state = {"step": step, "tokens": step * config.batch.tokens, "name": config.name}
            save_checkpoint(module.model, Path(folder) / "model", state, run / "tokenizer.json")
            checkpoint = replace(open_checkpoint(str(Path(folder) / "model")), path=run)
            take(CensusTask(checkpoint, sequences_for(checkpoint, asked, Ranks()), out, asked), Console(quiet=True), Ranks())
        return out

    def _forget_after(self, step: int) -> None:
        for folder in self.out.glob("step_*"):
            if int(folder.name.removeprefix("step_")) > step:
                shutil.rmtree(folder)
        for left in self.out.glob(f"{PASSING}*"):  # by a run that was killed
            shutil.rmtree(left)

    def _spend(self, what: str, begun: float) -> None:
        self.sample["seconds"][what] = round(time.perf_counter() - begun, 4)
        if (self.out / SAMPLE).is_file():
            write_whole(self.out / SAMPLE, json.dumps(self.sample, indent=2) + "\n")

    def _spent(self) -> float:
        """Seconds of everything but the machine code, which is loaded, or made, once."""
        return float(sum(seconds for what, seconds in self.sample["seconds"].items() if what != "once"))

    def _say(self, words: str) -> None:
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)


def _name(step: int) -> str:
    return f"step_{step:09d}"


def _finished(census: Path) -> bool:
    """Whether a census is whole: its meta.json is complete at the very end."""
    meta = census / "meta.json"
    return meta.is_file() and "title" in json.loads(meta.read_text())


def _untouched(module: Training) -> AbstractContextManager[None]:
    """Leave the random numbers of the run as they are."""
    return torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else [])
