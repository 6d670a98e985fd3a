"""torch.compile, as a run finds it."""

import torch

from train.loss import slopes_compiled


def compile_anew() -> None:
    """Forget what earlier runs of this process compiled, and fail, rather than go on without, where a run compiles too often.

    torch keeps eight compilations of a function. Each variant of a sweep takes two, and the ninth would be computed uncompiled.
    """
    torch.compiler.reset()
    slopes_compiled.cache_clear()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
