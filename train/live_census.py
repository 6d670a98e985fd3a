"""A model in training -> censuses of it at chosen steps, on one held-out sample, by the code of analyze/run.py."""

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import lightning as L
import torch
from rich.console import Console

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
from corpora.tokenizer import bos_id, open_tokenizer
from errors import why
from models.checkpoint import save_checkpoint
from models.opening import open_checkpoint
from tracking import Mirror, WandbConfig
from train.folder import BegunOtherwise
from train.live_words import chosen_words, missed_words
from train.module import Training
from train.plan import Plan
from train.together import Together

LEAST_TOKENS = 8192  # of a sample that is chosen by time
MOST_TOKENS = 1_000_000  # of one, however much time there is
HEADROOM = 0.85  # of the share that is planned with; the rest is for what takes longer than it did at the trial
SAMPLE, PASSING = "sample.json", ".passing-"
ENOUGH = 20  # steps that show how fast training is
Pause = Callable[[], AbstractContextManager[None]]


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

    Whatever goes wrong in one is said, and training goes on without it.
    It comes before what writes last.ckpt, so that a run that is killed in a census makes the step, and the census, again.
    """

    def __init__(
        self, run: Path, plan: Plan, mirror: Mirror, together: Together, console: Console, pause: Pause = nullcontext
    ) -> None:
        self.out, self.plan, self.mirror, self.console, self.pause = run / "live", plan, mirror, console, pause
        self.together, self.due = together, list[int]()  # the steps of censuses, for all ranks
        self.sample: dict[str, Any] = {}  # tokens, steps, and what the censuses took, in seconds; kept in sample.json
        self.available = MOST_TOKENS  # of the text kept from training, once a trial has read it
        self.end = 0  # the last step of the run
        self.began = 0.0  # when training did, after the first census; 0: not yet

    def on_train_start(self, trainer: L.Trainer, module: Training) -> None:  # type: ignore[override]
        """Choose the sample, or go on with that of the run; forget censuses of steps that will be made again."""
        self.end = module.config.steps
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
            self.together.told(lambda: self._take_if_due(module, step))

    def teardown(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Write what changed from census to census, and say what it cost."""
        self._sum_up(trainer)

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """The same after an error, where Lightning calls no teardown."""
        self._sum_up(trainer)

    def _sum_up(self, trainer: L.Trainer) -> None:
        begun = time.perf_counter()
        if not (trainer.is_global_zero and self.began and self.sample):
            return
        try:
            if trainer.global_step >= self.end:
                self._make_good(cast(Training, trainer.lightning_module), self.end + 1)
            if missed := self._missing(trainer.global_step + 1):
                self._say(missed_words(missed))
            if not (folders := sorted(folder for folder in self.out.glob("step_*") if _finished(folder))):
                return
            censuses = [open_census(folder) for folder in folders]
            write_evolution(censuses, self.out)
            self._spend("evolution", begun)
            trained = self.sample["trained"] = round(self.sample["trained"] + time.perf_counter() - self.began, 3)
            write_whole(self.out / SAMPLE, json.dumps(self.sample, indent=2) + "\n")
        except Exception as mistake:  # the run is kept, or what stopped it is said
            self._say(f"what changed from census to census is not written: {why(mistake)}")
            return
        once = f"; {self.sample['seconds']['once']:.1f} s more to load machine code" if "once" in self.sample["seconds"] else ""
        read = max(census.meta["corpus"]["sequences"] * census.meta["corpus"]["context"] for census in censuses)
        self._say(
            f"{len(folders)} live censuses of {read:,} tokens took {self._spent():.1f} s, "
            f"{100 * self._spent() / trained:.1f} % of {trained:.0f} s of training{once}  ->  {self.out}"
        )

    def _take_if_due(self, module: Training, step: int) -> None:
        try:
            self._take(module, step)
            self._make_good(module, step)
        except Exception as mistake:  # training goes on
            self._say(f"no live census at step {step:,}: {why(mistake)}")

    def _take(self, module: Training, step: int) -> None:
        if step not in self.sample["steps"] or _finished(self.out / _name(step)):
            return
        if self._too_dear(module, step):
            self.sample["left_out"] = [*self.sample.get("left_out", []), step]
            self._say(
                f"the live census at step {step:,} is left out: all would take more than live.share={module.config.live.share:g}"
            )
            return
        begun = time.perf_counter()
        with _untouched(module):
            out = self._census(module, self.sample["tokens"], self.out / _name(step))
            mirror_census(self.mirror, open_census(out), "live")
        self._spend(str(step), begun)

    def _make_good(self, module: Training, before: int) -> None:
        """Take the censuses of earlier steps that are missing, a disk having been full, where a milestone has kept the weights."""
        for step in self._missing(before):
            milestone, begun = self.out.parent / "milestones" / _name(step), time.perf_counter()
            if milestone.is_dir():
                with _untouched(module):
                    mirror_census(
                        self.mirror,
                        open_census(self._census(module, self.sample["tokens"], self._place(step), milestone)),
                        "live",
                    )
                self._spend(str(step), begun)
                self._say(f"the live census at step {step:,}, which was missing, is taken of its milestone")

    def _missing(self, before: int) -> list[int]:
        """Steps before this one that were to have a census and have none, those left out as too dear aside."""
        due = set(self.sample.get("steps", [])) - set(self.sample.get("left_out", []))
        return sorted(step for step in due if step < before and not _finished(self._place(step)))

    def _place(self, step: int) -> Path:
        return self.out / _name(step)

    def _too_dear(self, module: Training, step: int) -> bool:
        """Whether one more census takes the whole past the share, at the speed that training has shown."""
        if module.config.live.tokens is not None:
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
            self._forget_after(module.global_step)
            self._choose(module, steps)
            self._make_good(module, module.global_step + 1)
        except BegunOtherwise:
            raise
        except Exception as mistake:  # training goes on
            self.sample = {}
            self._say(f"no live censuses, for the trial of one failed: {why(mistake)} live.spacing=off does without them.")
        return list(self.sample.get("steps", []))

    def _choose(self, module: Training, steps: list[int]) -> None:
        """Tokens and steps: those recorded; else those asked for, or those that a trial says fit the share."""
        live, file = module.config.live, self.out / SAMPLE
        if file.is_file():
            self.sample = json.loads(file.read_text())
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
        write_whole(file, json.dumps(self.sample, indent=2) + "\n")

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
        with TemporaryDirectory(dir=self.out, prefix=PASSING) as folder:
            for name, tokens in (("once", once), ("trial", least)):
                begun = time.perf_counter()
                corpus = open_census(self._census(module, tokens, Path(folder) / name)).meta["corpus"]
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
        with TemporaryDirectory(dir=self.out, prefix=PASSING) as folder:
            if milestone is None:
                milestone, tokenizer = Path(folder) / "model", run / "tokenizer.json"
                save_checkpoint(module.model, milestone, module.state, tokenizer, bos_id(open_tokenizer(str(tokenizer))))
            checkpoint = replace(open_checkpoint(str(milestone)), path=run)
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
