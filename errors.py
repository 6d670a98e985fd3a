"""How a program ends: 0 done; 1 a mistake of the user, in a sentence, or a bug, with its traceback; 75 stopped before its end."""

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from signal import Signals

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from signals import Stopped, heeded, received

GOES_ON = "what is finished is kept, and the same command goes on from there"
BEGINS_AGAIN = "the same command begins again"
MISTAKE, WRONG_USAGE = 1, 2  # the latter is argparse's, also inside hydra
UNKNOWN = re.compile(  # how hydra and omegaconf call a setting that is none
    r"Could not override '(.*)'\.|Could not delete from config\. '(.*)' does not exist|Key '.*' not in '.*'\s+full_key: (.*)"
)


class UserError(ValueError):
    """Something the user can mend. The message names the value, what is allowed and what to do."""


def why(mistake: Exception) -> str:
    """What went wrong, for a sentence of ours: a `UserError` as it is, anything else with its type."""
    return str(mistake) if isinstance(mistake, UserError) else f"{type(mistake).__name__}: {mistake}"


@contextmanager
def plainly(*also: Signals, after: str = GOES_ON, settings: Sequence[str] = ()) -> Iterator[None]:
    """Run a program's `main`, and end it with the exit code that its end has.

    A `UserError`, a configuration that does not compose and arguments that are none are mistakes: a sentence, and 1. SIGTERM and
    Ctrl-C, and the signals `also` named, stop the program: a sentence that says what holds `after` it, and 75. Anything else is a
    bug of ours and keeps its traceback. `settings` are the names that the program knows, for one that is none.
    """
    use_utf8()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hydra hands exceptions on instead of printing its own account of them
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a letter that the locale lacks is no reason to end
    with heeded(*also):
        try:
            yield
            if stopped_by := received():  # a sweep, whose variants have stopped
                raise Stopped(stopped_by.name)
        except UserError as mistake:
            sys.exit(f"error: {mistake}")
        except (HydraException, OmegaConfBaseException) as mistake:
            sys.exit(f"error: {composing(mistake, settings)}")
        except Stopped as stopped:
            if stopped.why:
                _say_stopped(f" ({stopped.why})", after)
            raise Stopped from None
        except KeyboardInterrupt:
            _say_stopped("", after)
            raise Stopped from None
        except RuntimeError as broken:  # joblib's, of a process that what stops the sweep ended before it heeded signals
            if not (received() and type(broken).__module__.startswith("joblib.")):
                raise
            _say_stopped("", after)
            raise Stopped from None
        except SystemExit as ended:
            sys.exit(MISTAKE if ended.code == WRONG_USAGE else ended.code)


def _say_stopped(why: str, after: str) -> None:
    print(f"\nstopped{why}: {after}", file=sys.stderr, flush=True)


def use_utf8() -> None:
    """Start this program again in Python's UTF-8 mode where the locale is none of UTF-8: paths and texts may hold any letter."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.orig_argv:
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def composing(mistake: HydraException | OmegaConfBaseException, settings: Sequence[str] = ()) -> str:
    """Why a configuration does not compose."""
    said, cause = str(mistake), str(mistake.__cause__ or "")
    if isinstance(mistake, OverrideParseException):
        setting, _, value = mistake.override.partition("=")
        if settings and setting.lstrip("+~") not in settings:
            return no_setting(setting.lstrip("+~"), settings)
        return f"{mistake.override} cannot be read: give the value in quotes of its own, \"{setting}='{value}'\"."
    if unknown := UNKNOWN.search(said):
        return no_setting(unknown[unknown.lastindex or 0], settings)
    if (group := re.match(r"Error merging override \+*([\w.]+)=(.*)", said)) and "is not a subclass of" in cause:
        parts = [name for name in settings if name.startswith(f"{group[1]}.")]
        return f"{group[0].rpartition(' ')[2]}: {group[1]} is made of several settings; give one of {', '.join(parts)}."
    return _one_line(mistake)


def no_setting(name: str, settings: Sequence[str]) -> str:
    """That a name is no setting, and which are like it: as a whole, or in their last part."""
    last = {setting: setting.rpartition(".")[2] for setting in settings}
    whole = get_close_matches(name, settings, n=2)
    in_part = get_close_matches(name.rpartition(".")[2], last.values(), n=2, cutoff=0.75)
    near = dict.fromkeys([*(setting for like in in_part for setting in settings if last[setting] == like), *whole])
    near_first = sorted(near, key=lambda setting: (last[setting] != name, setting not in whole))[:3]
    return f"{name} is no setting of this program" + (
        f"; did you mean {' or '.join(near_first)}?" if near_first else "; --help shows all."
    )


def _one_line(mistake: BaseException) -> str:
    cause = mistake.__cause__ if isinstance(mistake.__cause__, UserError) else mistake
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    noise = ("full_key:", "object_type=", "reference_type=", "Config search path", "provider=", "Available options in")
    kept = [line for line in lines if not line.startswith(noise)]
    if len(kept) > 1 and "Could not find" in kept[0]:  # what follows are the names there are
        return f"{kept[0]}; there are {', '.join(kept[1:])}."
    because = str(mistake.__cause__ or "").split("\n")[0]
    return " ".join(kept) + (f" ({because})" if because and cause is mistake else "")
