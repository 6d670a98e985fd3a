"""censuses of one run -> the step slider of its page: at each step its positional neurons, its table, and every neuron's history."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np
import polars as pl

from analyze.figures.layout import Captioned
from analyze.figures.positions import positional_neurons
from analyze.figures.tooltips import step_lines
from analyze.neuron_types.taxonomy import TYPES
from analyze.page import neuron_payload as neuron_table
from analyze.page.binary_payload import Array, packed, rounded, whole
from analyze.page.inline_svg import inline, pictured
from analyze.page.neuron_payload import PATTERN_CODES, codes, left_out, table_block, table_rows
from analyze.tables.census import Census
from analyze.tables.history import NEURON
from analyze.tables.labels import step_label

AT_STEP = "positional_neurons_at_step"
ACROSS_STEPS = ("types_over_training", "births_over_training", "dead_over_training")  # figures whose axis are the steps
LEAST_ROWS = 1000  # neurons of an earlier milestone; all together as many as of one very large model, for the page's sake


def slider(milestones: Sequence[Census]) -> str:
    """The control itself; nothing where there is but one milestone."""
    if len(milestones) < 2:
        return ""
    last = len(milestones) - 1
    return (
        f"<label class=step><span>training step</span> <input id=step type=range min=0 max={last} value={last}>"
        f"<output id=step-told for=step>{escape(step_label(milestones[-1].step))}</output></label>"
    )


def at_last_step(milestones: Sequence[Census]) -> str:
    """The figure that the slider changes, as it is at first."""
    return inline(_at_step(milestones[-1], milestones), AT_STEP) if len(milestones) > 1 else ""


def step_blocks(milestones: Sequence[Census], over_training: Mapping[str, Captioned]) -> str:
    """What the slider draws from: figures and histories in one block, and a block of neurons for each milestone but the last."""
    if len(milestones) < 2:
        return ""
    *before, last = milestones
    rows = table_rows(last)
    most = max(LEAST_ROWS, (neuron_table.MOST_ROWS - rows.height) // len(before))
    numbers = [census.step or 0 for census in milestones]
    content = {
        "steps": [_words(census) for census in milestones],
        "left_out": [*(left_out(census, most) for census in before), left_out(last)],
        "pictures": [_picture(census, milestones) for census in milestones],
        "lines": {name: step_lines(over_training[name].figure, numbers) for name in ACROSS_STEPS if name in over_training},
    }
    blocks = [f'<script type="text/plain" id=steps>{packed(content, dict(_histories(milestones, rows)))}</script>']
    blocks += [f'<script type="text/plain" id=census-{i}>{table_block(census, most)}</script>' for i, census in enumerate(before)]
    return "".join(blocks)


def _words(census: Census) -> str:
    tokens = census.meta["checkpoint"]["tokens_trained"]
    return step_label(census.step) + (f", {tokens:,} tokens" if tokens else "")


def _at_step(census: Census, milestones: Sequence[Census]) -> Captioned:
    """Its positional neurons, at the scale of all milestones."""
    room = max(int(each.layers["positional"].max()) for each in milestones)  # type: ignore[arg-type]
    figure, caption = positional_neurons([census], room=room)
    return Captioned(figure, f"{_words(census).capitalize()}. {caption}")


def _picture(census: Census, milestones: Sequence[Census]) -> dict[str, object]:
    figure, caption = _at_step(census, milestones)
    picture, panels = pictured(figure, AT_STEP)
    return {"picture": picture, "panels": panels, "caption": caption}


def _histories(milestones: Sequence[Census], rows: pl.DataFrame) -> Iterator[tuple[str, Array]]:
    """Of every neuron in the last milestone's table what it was at each: one milestone after another."""
    told = [_told(census, rows) for census in milestones]
    yield "type", np.concatenate([codes(part["type"], TYPES) for part in told])
    yield "pattern", np.concatenate([codes(part["pattern"], PATTERN_CODES) for part in told]).astype("i4")
    yield "frequency", rounded(pl.concat([part["frequency"] for part in told]))
    yield "position_mi_corrected", rounded(pl.concat([part["position_mi_corrected"] for part in told]))
    yield "detected_tokens", whole(pl.concat([part["detected"] for part in told]))


def _told(census: Census, rows: pl.DataFrame) -> pl.DataFrame:
    strength = pl.when("position_strong").then(pl.lit(" strong")).otherwise(pl.lit(" weak"))
    here = census.neurons.select(
        *NEURON,
        "type",
        (pl.col("position_type") + strength).alias("pattern"),
        (pl.col("n_fired") / census.n_tokens).alias("frequency"),
        "position_mi_corrected",
        pl.col("detected_tokens").list.len().alias("detected"),
    )
    return rows.select(NEURON).join(here, on=NEURON, how="left", maintain_order="left")
