"""Streams and events of a GPU, with types."""

import torch


def event(timing: bool = False) -> torch.cuda.Event:
    """A new event; one that keeps the time if `timing`."""
    made: torch.cuda.Event = torch.cuda.Event(enable_timing=timing)  # type: ignore[no-untyped-call]
    return made


def stream(device: torch.device) -> torch.cuda.Stream:
    """A new stream."""
    made: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return made
