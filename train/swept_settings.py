"""The arguments of a sweep -> which settings are swept, for every job to know: hydra hands each its own values alone."""

import re
from collections.abc import Sequence

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

NOTE = "NEURON_CENSUS_SWEPT"  # in hydra.job.env_set, which reaches the jobs of every launcher

PLAIN = re.compile(r"[\w./@]+")


def noted(arguments: Sequence[str]) -> list[str]:
    """The arguments, and with --multirun the names of the settings of which they give several values."""
    given = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    try:
        names = [
            override.key_or_group for override in OverridesParser.create().parse_overrides(given) if override.is_sweep_override()
        ]
    except OverrideParseException:
        return list(arguments)  # hydra says so
    if not names or not {"-m", "--multirun"} & set(arguments):
        return list(arguments)
    plain = " ".join(name for name in names if PLAIN.fullmatch(name))
    return [*arguments, f"+hydra.job.env_set.{NOTE}='{plain}'"]


def swept(hydra: HydraConf) -> list[str]:
    """The swept settings of this job with its values, in their order: those of its command, then those of its experiment."""
    names = [*str(hydra.job.env_set.get(NOTE, "")).split(), *map(str, getattr(hydra.sweeper, "params", None) or {})]
    settings = {override.partition("=")[0]: override for override in hydra.overrides.task}
    return [settings[name] for name in dict.fromkeys(names) if name in settings]
