"""A user's mistake, and how it is said: one or two sentences on standard error, no traceback."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException


class UserError(ValueError):
    """Something the user can mend. The message names the value, what is allowed and what to do."""


def why(mistake: Exception) -> str:
    """What went wrong, for a sentence of ours: a `UserError` as it is, anything else with its type."""
    return str(mistake) if isinstance(mistake, UserError) else f"{type(mistake).__name__}: {mistake}"


@contextmanager
def plainly() -> Iterator[None]:
    """Run a program's `main`: a `UserError`, or a configuration that does not compose, ends in its sentence and exit code 1.

    Anything else is a bug of ours and keeps its traceback.
    """
    use_utf8()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra hands exceptions on instead of printing its own account of them
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the locale lacks is no reason to end
    try:
        yield
    except UserError as mistake:
        sys.exit(f"error: {mistake}")
    except (HydraException, OmegaConfBaseException) as mistake:
        sys.exit(f"error: {_one_line(mistake)}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from what is finished")


def use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode where the locale is none of UTF-8: paths and texts may hold any letter."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.orig_argv:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _one_line(mistake: BaseException) -> str:
    cause = mistake.__cause__ if isinstance(mistake.__cause__, UserError) else mistake
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    noise = ("full_key:", "object_type=", "reference_type=", "Config search path", "provider=", "Available options in")
    kept = [line for line in lines if not line.startswith(noise)]
    if len(kept) > 1 and "Could not find" in kept[0]:  # what follows are the names there are
        return f"{kept[0]}; there are {', '.join(kept[1:])}."
    because = str(mistake.__cause__ or "").split("\n")[0]
    return " ".join(kept) + (f" ({because})" if because and cause is mistake else "")
