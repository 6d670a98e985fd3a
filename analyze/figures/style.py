"""The colours of the figures and pages: told apart by the colour-blind, in grey print, on white paper and on a dark screen.

Every colour has a name, a shade for paper and a shade for a dark page; an inline SVG names them as CSS variables.
Those of types are in analyze/neuron_types/taxonomy.py; strong stands out, weak is faint.
"""

import re
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from matplotlib import rc_context

from analyze.neuron_types.taxonomy import NEURON_TYPES, POSITION_PATTERNS

_RAMP = (
    "#46085C",
    "#443A83",
    "#355F8D",
    "#26828E",
    "#20A486",
    "#4EC36B",
    "#8FD744",
    "#B9CF22",
)  # viridis; its palest end darkened
PALETTE: dict[str, tuple[str, str]] = {  # name: on paper, on a dark page
    "ink": ("#222222", "#E4E6E9"),
    "faint": ("#767676", "#9AA2AD"),
    "grid": ("#E2E2E2", "#343A42"),
    "paper": ("#FFFFFF", "#16191E"),
    **{f"{pattern.name}-strong": pattern.strong for pattern in POSITION_PATTERNS},
    **{f"{pattern.name}-weak": pattern.weak for pattern in POSITION_PATTERNS},
    **{f"type-{kind.name}": kind.colour for kind in NEURON_TYPES},
    "line-0": ("#0072B3", "#4DB2ED"),
    "line-1": ("#D55E00", "#FF8A4D"),
    "line-2": ("#009E74", "#23C798"),
    "line-3": ("#CC79A7", "#E79CC5"),
    "line-4": ("#B07A00", "#F0B93A"),
    "line-5": ("#555555", "#B6BCC5"),
    **{f"ramp-{i}": (paper, dark) for i, (paper, dark) in enumerate(zip(_RAMP, reversed(_RAMP), strict=True))},
}
INK, FAINT, GRID, PAPER = (PALETTE[name][0] for name in ("ink", "faint", "grid", "paper"))
TYPE_COLOURS = {kind.name: kind.colour[0] for kind in NEURON_TYPES}
LINE_COLOURS = tuple(PALETTE[f"line-{i}"][0] for i in range(6))
LINE_MARKERS = ("o", "s", "^", "D", "v", "P")

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "text.color": INK,
    "text.parse_math": False,  # names of models and runs hold any letter, `$` and `\\` among them
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "neuron-census",
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draw under the census's style, whatever matplotlib's own settings are, and leave those as they were."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> R:
        with rc_context(STYLE):  # type: ignore[arg-type]
            return draw(*args, **kwargs)

    return drawn


def position_colour(kind: str, strength: str) -> str:
    """The colour on paper of a type of positional neuron, such as ("one", "weak")."""
    return PALETTE[f"{kind}-{strength}"][0]


def ramp(count: int) -> list[str]:
    """`count` colours in order, the last the most intense: milestones, layers, buckets. At most eight differ."""
    last = len(_RAMP) - 1
    return [_RAMP[last - round(i * last / max(count - 1, 1))] for i in range(count)] if count > 1 else [_RAMP[2]]


def css_variables(dark: bool) -> str:
    """The palette as CSS custom properties, `--ink: #222222; ...`."""
    return " ".join(f"--{name}: {shades[dark]};" for name, shades in PALETTE.items())


_NAMES = {paper: name for name, (paper, _) in PALETTE.items()}
_ANY = re.compile("|".join(_NAMES), re.IGNORECASE)


def with_css_variables(svg: str) -> str:
    """The same SVG with the palette's colours by name, so that a page's light or dark scheme decides the shade."""
    return _ANY.sub(lambda found: f"var(--{_NAMES[found.group().upper()]})", svg)
