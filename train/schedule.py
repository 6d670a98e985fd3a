"""The learning rate of a step, and the seed of its dropout: pure functions, so that resuming needs no state."""

import numpy as np

from train.config import OptimizerConfig


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Rate of the update that ends step `step` (from 0): linear warm-up, linear decay, then constant.

    Step 0 learns at 0, step `warmup_steps` at the peak, step `schedule_steps` and all later ones at the final rate
    (metaseq's polynomial_decay scheduler).
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if step >= config.schedule_steps:
        return config.final_learning_rate
    left = (config.schedule_steps - step) / (config.schedule_steps - config.warmup_steps)
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * left


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """Seed of torch's generators for one micro-batch of a step, whichever rank takes it."""
    words = np.random.SeedSequence([seed, step, micro_batch]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1
