"""A model in training -> censuses of it at chosen steps, on one held-out sample, by the code of analyze/run.py."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning as L
import torch
from rich.console import Console

from analyze.census.distributed import Ranks
from analyze.census.job import CensusTask
from analyze.census.take import take
from analyze.config import AnalyzeConfig
from analyze.pipeline import sequences_for
from analyze.tables.census import open_census
from analyze.tables.evolution import write_evolution
from analyze.tables.labels import evenly_spaced
from analyze.wandb_log import mirror_census
from checksums import write_object
from corpora.prepare import finished_store
from corpora.tokenizer import bos_id, open_tokenizer
from errors import why
from locks import only_writer
from models.checkpoint import save_checkpoint
from models.open_checkpoint import open_checkpoint
from train.cost_estimate import Plan
from train.folder import BegunOtherwise
from train.graceful_stop import GaveWay
from train.live_folder import (
    SAMPLE,
    census_name,
    finished,
    forget_after,
    is_finished,
    lacks_census,
    missing,
    passing_folder,
    read_sample,
    recorded,
)
from train.live_messages import chosen_words, missed_words
from train.module import Training
from train.ranks import Together
from wandb_run import Mirror, WandbConfig

LEAST_TOKENS = 8192  # of a sample that is chosen by time
MOST_TOKENS = 1_000_000  # of one, however much time there is
HEADROOM = 0.85  # of the share that is planned with; the rest is for what takes longer than it did at the trial
ENOUGH = 20  # steps that show how fast training is
Within = Callable[[], AbstractContextManager[None]]


def affordable(steps: list[int], seconds: float, of_least: float, least: int) -> tuple[int, list[int]]:
    """Tokens of a census, and at which of the steps, so that all take at most `seconds` if one of `least` tokens takes `of_least`.

    Fewer tokens before fewer steps, in whole multiples of `least`; steps are left out evenly. A census of k times the tokens takes
    less than k times as long, so this is on the safe side.
    """
    multiple = int(seconds / (of_least * max(1, len(steps))))
    if multiple >= 1:
        return min(multiple * least, max(least, MOST_TOKENS // least * least)), steps
    return least, evenly_spaced(steps, fits) if (fits := int(seconds / of_least)) else []


class LiveCensus(L.Callback):
    """Takes the censuses of a run while it trains, in `RUN/live`; changes nothing in the run. The first rank takes them alone.

    Whatever goes wrong in one is said, and training goes on without it. A signal ends it, for the run to stop after its step.
    It comes after what writes the milestone and last.ckpt. A run that ended in a census takes it when it goes on: from last.ckpt
    if that is of its step, also of the last one, else when the step is made again.
    """

    def __init__(
        self, run: Path, plan: Plan, mirror: Mirror, together: Together, console: Console, pause: Within, giving_way: Within
    ) -> None:
        self.out, self.plan, self.mirror, self.console, self.pause = run / "live", plan, mirror, console, pause
        self.giving_way = giving_way
        self.together, self.due = together, list[int]()  # the steps of censuses, for all ranks
        self.sample: dict[str, Any] = {}  # tokens, steps, and what the censuses took, in seconds; kept in sample.json
        self.available = MOST_TOKENS  # of the text kept from training, once a trial has read it
        self.began = 0.0  # when training did, after the first census; 0: not yet

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Choose the sample, or go on with that of the run; forget censuses of steps that will be made again."""
        if steps := module.config.census_steps:
            with self.pause(), _untouched(module):
                self.due = self.together.told(lambda: self._chosen(module, steps))
            self._together(module, trainer.global_step)
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, module: Training, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Take a census if this step asks for one."""
        self._together(module, trainer.global_step)

    def _together(self, module: Training, step: int) -> None:
        if step not in self.due:
            return
        with self.pause():
            self.together.told(lambda: self._take_all_due(module, step))

    def _take_all_due(self, module: Training, step: int) -> None:
        if self._take_if_due(module, step):
            self._made_good(module, step)

    def teardown(self, trainer: L.Trainer, module: Training, stage: str) -> None:  # type: ignore[override]
        """Write what changed from census to census, and say what it cost; before, take the last census if it is lacking."""
        if not self.began and self.together.told(lambda: lacks_census(self.out.parent, trainer.global_step)):
            self.together.told(lambda: self._take_the_last(module))
        self._sum_up(trainer)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """The same after an error, where Lightning calls no teardown."""
        self._sum_up(trainer)

    def _sum_up(self, trainer: L.Trainer) -> None:
        begun = time.perf_counter()
        if not (trainer.is_global_zero and self.began and self.sample):
            return
        module = cast(Training, trainer.lightning_module)
        if trainer.global_step >= module.config.steps:
            self._made_good(module, trainer.global_step)
        try:
            lacking = missing(self.out, self.sample, trainer.global_step)
            if gone := [step for step in lacking if not self._milestone(step).is_dir()]:
                self._say(missed_words(gone))
            if not (folders := finished(self.out)):
                return
            censuses = [open_census(folder) for folder in folders]
            with only_writer(self.out, "out="):
                write_evolution(censuses, self.out)
            self._spend("evolution", begun)
            trained = self.sample["trained"] = round(self.sample["trained"] + time.perf_counter() - self.began, 3)
            self.sample["compared"] = [folder.name for folder in folders]
            self._write_sample()
        except Exception as mistake:  # the run is kept, or what stopped it is said
            self._say(f"what changed from census to census is not written: {why(mistake)}")
            return
        once = f"; {self.sample['seconds']['once']:.1f} s more to load machine code" if "once" in self.sample["seconds"] else ""
        read = max(census.meta["corpus"]["sequences"] * census.meta["corpus"]["context"] for census in censuses)
        self._say(
            f"{len(folders)} live censuses of {read:,} tokens took {self._spent():.1f} s, "
            f"{100 * self._spent() / trained:.1f} % of {trained:.0f} s of training{once}  ->  {self.out}"
        )

    def _take_if_due(self, module: Training, step: int) -> bool:
        """Take one; whether there is time for others: no signal ended it."""
        try:
            with self.giving_way():
                self._take(module, step)
        except GaveWay:
            self._say(f"the live census at step {step:,} is left to the next start")
            return False
        except Exception as mistake:  # training goes on
            self._say(f"no live census at step {step:,}: {why(mistake)}")
        return True

    def _take_the_last(self, module: Training) -> None:
        self.sample, self.began = read_sample(self.out) or {}, time.perf_counter()
        self.plan.start = module.global_step
        forget_after(self.out, module.global_step)
        self._take_all_due(module, module.global_step)

    def _take(self, module: Training, step: int) -> None:
        if step not in self.sample["steps"] or is_finished(self.out / census_name(step)):
            return
        if self._too_dear(module, step):
            self._leave_out(step, module.config.live.share)
            return
        self._take_now(module, step)

    def _take_now(self, module: Training, step: int, milestone: Path | None = None) -> None:
        begun = time.perf_counter()
        with _untouched(module):
            out = self._census(module, self.sample["tokens"], self.out / census_name(step), milestone)
            mirror_census(self.mirror, open_census(out), "live")
        self._spend(str(step), begun)

    def _leave_out(self, step: int, share: float) -> None:
        self.sample["left_out"] = [*self.sample.get("left_out", []), step]
        self._write_sample()
        self._say(f"the live census at step {step:,} is left out: all would take more than live.share={share:g}")

    def _write_sample(self) -> None:
        write_object(self.out / SAMPLE, self.sample)

    def _make_good(self, module: Training, before: int) -> None:
        """Take the censuses of earlier steps that are missing, a disk having been full, where a milestone has kept the weights."""
        for step in missing(self.out, self.sample, before):
            if (milestone := self._milestone(step)).is_dir():
                self._take_now(module, step, milestone)
                self._say(f"the live census at step {step:,}, which was missing, is taken of its milestone")

    def _milestone(self, step: int) -> Path:
        return self.out.parent / "milestones" / census_name(step)

    def _made_good(self, module: Training, before: int) -> None:
        try:
            with self.giving_way():
                self._make_good(module, before)
        except GaveWay:
            self._say("live censuses that are missing are left to the next start")
        except Exception as mistake:  # training goes on
            self._say(f"live censuses that are missing cannot be taken of their milestones: {why(mistake)}")

    def _too_dear(self, module: Training, step: int) -> bool:
        """Whether one more census takes the whole past the share, at the speed that training has shown."""
        if module.config.live.tokens is not None or 0 < step == self.plan.start:  # chosen before the run ended in it
            return False
        taken = [seconds for what, seconds in self.sample["seconds"].items() if what.isdigit()]
        done, steps = step - self.plan.start, module.config.steps
        planned = self.plan.seconds * steps / (steps - self.plan.start)
        shown = (time.perf_counter() - self.began) / done * steps if done >= ENOUGH else 0.0
        return self._spent() + max(taken, default=0.0) > module.config.live.share * max(planned, shown)

    def _chosen(self, module: Training, steps: list[int]) -> list[int]:
        """The steps to take a census at; none where even the trial of one fails, and the next start tries again.

        Raises:
            UserError: the run has another sample than what is asked for.
        """
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            forget_after(self.out, module.global_step)
            self._choose(module, steps)
            self._made_good(module, module.global_step)
        except BegunOtherwise:
            raise
        except Exception as mistake:  # training goes on
            self.sample = {}
            self._say(f"no live censuses, for the trial of one failed: {why(mistake)} live.spacing=off does without them.")
        return list(self.sample.get("steps", []))

    def _choose(self, module: Training, steps: list[int]) -> None:
        """Tokens and steps: those recorded; else those asked for, or those that a trial says fit the share."""
        live = module.config.live
        if found := recorded(self.out, steps, live.tokens, self._say):
            self.sample = found
            if live.tokens not in (None, self.sample["tokens"]):
                raise BegunOtherwise(
                    f"live.tokens={live.tokens}, but {self.out} was begun with {self.sample['tokens']}: one run, one sample. "
                    f"Give back that number, or remove {self.out}."
                )
            before = set(self.sample["asked"]) - set(self.sample["steps"])
            self.sample |= {"asked": steps, "steps": [step for step in steps if step not in before]}
            return
        self.sample = {"asked": steps, "steps": steps, "tokens": live.tokens, "trained": 0.0, "seconds": {}}
        if live.tokens is None:
            self._choose_by_trial(module, steps)
        self._write_sample()

    def _choose_by_trial(self, module: Training, steps: list[int]) -> None:
        live, context = module.config.live, module.config.model.context
        least = max(1, LEAST_TOKENS // context) * context
        of_least = self._trial(module, context, least)
        seconds = HEADROOM * live.share * self.plan.seconds - of_least
        self.sample["tokens"], self.sample["steps"] = affordable(steps, seconds, of_least, least)
        self.sample["tokens"] = min(self.sample["tokens"], self.available)
        needed = of_least * (len(steps) + 1) / HEADROOM / max(self.plan.seconds, 1e-9)
        chosen, tokens = self.sample["steps"], self.sample["tokens"]
        self._say(chosen_words(tokens, chosen, len(steps), live.share, self.plan.seconds, of_least, needed))

    def _trial(self, module: Training, once: int, least: int) -> float:
        """Seconds that a census of `least` tokens takes, after one of `once` that loads the kernels' machine code, or makes it."""
        with passing_folder(self.out) as folder:
            for name, tokens in (("once", once), ("trial", least)):
                begun = time.perf_counter()
                corpus = open_census(self._census(module, tokens, folder / name)).meta["corpus"]
                self._spend(name, begun)
            self.available = corpus["read"]["available"] * corpus["context"]
        return float(self.sample["seconds"]["trial"])

    def _census(self, module: Training, tokens: int, out: Path, milestone: Path | None = None) -> Path:
        """Take one of the model as it is, written like a milestone and read like one; or of a milestone."""
        run, config = self.out.parent, module.config
        if module.device.type == "cuda":
            torch.cuda.empty_cache()  # what training's peak left there counts as taken where a census plans its room
        settings: dict[str, Any] = {"device": str(module.device), "wandb": WandbConfig(mode="disabled"), "split": "validation"}
        asked = AnalyzeConfig(ckpt=str(run), out=str(out), corpus=config.corpus, tokens=tokens, **settings)
        with passing_folder(self.out) as folder:
            if milestone is None:
                tokenizer = finished_store(config.corpus).tokenizer_file  # whole, where the run's copy may be damaged by now
                milestone = folder / "model"
                save_checkpoint(module.model, milestone, module.state, tokenizer, bos_id(open_tokenizer(str(tokenizer))))
            checkpoint = replace(open_checkpoint(str(milestone)), path=run)
            take(CensusTask(checkpoint, sequences_for(checkpoint, asked, Ranks()), out, asked), Console(quiet=True), Ranks())
        return out

    def _spend(self, what: str, begun: float) -> None:
        self.sample["seconds"][what] = round(time.perf_counter() - begun, 4)
        if (self.out / SAMPLE).is_file():
            self._write_sample()

    def _spent(self) -> float:
        """Seconds of everything but the machine code, which is loaded, or made, once."""
        return float(sum(seconds for what, seconds in self.sample["seconds"].items() if what != "once"))

    def _say(self, words: str) -> None:
        self.console.print(words, markup=False, highlight=False, soft_wrap=True)


def _untouched(module: Training) -> AbstractContextManager[None]:
    """Leave the random numbers of the run as they are."""
    return torch.random.fork_rng(devices=[module.device] if module.device.type == "cuda" else [])
