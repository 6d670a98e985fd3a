"""One checkpoint to be counted on one set of sequences into one folder: the settings that follow, and where its files are."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from analyze.census.memory_plan import Shape
from analyze.config import AnalyzeConfig
from analyze.counts.recorders import recorders
from analyze.storage.scratch import Scratch
from corpora.sequences import Sequences
from device import Device, resolved
from models.checkpoint import Checkpoint

POSITIONS_AT_ONCE = {"cpu": 2048, "cuda": 16_384}  # of a micro-batch, unless its shape is given; a processor's cache holds few


@dataclass
class CensusTask:
    """One checkpoint to be counted on one set of sequences into one folder."""

    checkpoint: Checkpoint
    sequences: Sequences
    out: Path
    config: AnalyzeConfig
    chosen: Device | None = None  # where layers are computed; None: as the settings say

    @cached_property
    def device(self) -> Device:
        """Where layers are computed."""
        return self.chosen or resolved(self.config.device)

    @property
    def dtype(self) -> torch.dtype:
        """In which layers are computed: asked for, or `auto`: float32 on a CPU, on a GPU that of the checkpoint or of its training."""
        if self.config.dtype != "auto":
            dtype: torch.dtype = getattr(torch, self.config.dtype)
            return dtype
        return self.checkpoint.dtype if self.device.asynchronous else torch.float32

    @property
    def micro(self) -> int:
        """Sequences per micro-batch: no more than there are."""
        sequences, positions = self.sequences.ids.shape
        return self.config.micro or min(sequences, max(1, POSITIONS_AT_ONCE[self.device.kind] // positions))

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a folder's counts to be gone on with."""
        return {
            "checkpoint": self.checkpoint.sha256,
            "corpus": self.sequences.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "device": self.device.kind,
            "micro-batch": [self.micro, self.sequences.ids.shape[1]],
            "keep_ngrams": self.config.keep_ngrams,
            "recorders": [recorder.name for recorder in recorders()],
        }

    def shape(self, missing: list[int], processes: int = 1, local: int = 1) -> Shape:
        """What it takes to count the missing layers, by so many processes, of which so many are on one machine."""
        sequences, positions = self.sequences.ids.shape
        return Shape(
            self.checkpoint.config,
            sequences,
            positions,
            self.micro,
            self.dtype,
            walked=missing[-1] + 1,
            counted=len(missing),
            gpu=self.device.asynchronous,
            triton=self.device.triton,
            domains=len(self.sequences.domain_names),
            processes=processes,
            local=local,
        )

    @property
    def scratch(self) -> Scratch:
        """Where it keeps what it needs to go on after a kill, and what memory has no room for."""
        if self.config.scratch is None:
            return Scratch(self.out / "scratch")
        digest = hashlib.sha256(str(self.out.resolve()).encode()).hexdigest()[:12]
        return Scratch(Path(self.config.scratch) / f"{self.out.name}-{digest}")

    def counts_of(self, layer: int) -> Path:
        """Where the counts of a layer are kept."""
        return self.out / "layers" / f"layer_{layer:03d}.safetensors"

    def writes_of(self, layer: int) -> Path:
        """Where what a layer writes to the logits is kept."""
        return self.out / "writes" / f"layer_{layer:03d}.safetensors"

    @property
    def finished(self) -> list[int]:
        """Layers whose counts are stored, whichever command counted them."""
        return [layer for layer in range(self.checkpoint.config.layers) if self.counts_of(layer).exists()]

    @property
    def unfinished(self) -> list[int]:
        """Layers of which a file will be made: of what they write to the logits those of all that are counted."""
        return [*self.missing, *(layer for layer in self.finished if not self.writes_of(layer).exists())]

    @property
    def missing(self) -> list[int]:
        """Layers that are asked for and not counted yet."""
        chosen = self.config.chosen_layers(self.checkpoint.config.layers)
        return [layer for layer in chosen if not self.counts_of(layer).exists()]
