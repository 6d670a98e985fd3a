"""The dashboard of neuron evolution on wandb, over all runs of a project: python scripts/wandb_dashboard.py --entity NAME

Saved there when somebody is logged in; otherwise, or with WANDB_MODE=offline, its specification is written to a file, and said so.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # the repository, not this folder

import wandb
import wandb_workspaces.reports.v2.interface as panels
import wandb_workspaces.workspaces as workspaces

from analyze.neuron_types.taxonomy import TYPES
from errors import BEGINS_AGAIN, plainly
from files import write_whole
from wandb_run import PROJECT, mode_of_environment

CENSUSES = ("live", "census")  # taken while training; taken of milestones
VARIANT = panels.Config("variant")  # of a run: all but its seed
POSITIONAL = ("oscillatory", "both", "one", "other")


def line(title: str, *names: str, regex: str | None = None, x: str = "step", **options: Any) -> Any:
    """A line plot against one of our own axes."""
    return panels.LinePlot(title=title, x=x, y=list(names), metric_regex=regex, **options)


def of_layers(title: str, name: str, **options: Any) -> list[Any]:
    """A number of the layer table, a line per layer, for each kind of census."""
    return [line(f"{title} ({census})", regex=f"^{census}/layer_[0-9]+/{name}$", log_x=True, **options) for census in CENSUSES]


def sections() -> dict[str, list[Any]]:
    """The panels, by section."""
    training = [line("training loss", "loss"), line("validation loss", "val_loss"), line("loss by tokens", "loss", x="tokens")]
    training += [line("learning rate", "lr"), line("gradient norm", "grad_norm"), line("tokens per second", "tokens_per_second")]
    across: dict[str, Any] = {
        "groupby": VARIANT,
        "groupby_aggfunc": "mean",
        "groupby_rangefunc": "stddev",
        "aggregate": True,
        "log_x": True,
    }
    comparison = [line(f"{kind} neurons, mean and spread over seeds", f"live/type/{kind}", **across) for kind in TYPES]
    return {
        "training": training,
        "dead": [*of_layers("dead share", "dead_share"), *of_layers("mean frequency of alive", "mean_frequency_alive")],
        "detectors": [
            *of_layers("token detectors", "token_detectors"),
            *of_layers("trigram detectors", "trigram_detectors"),
            *of_layers("detected tokens", "detected_tokens"),
            *(panels.WeavePanelSummaryTable(table_name=f"{census}/detectors") for census in CENSUSES),
        ],
        "positional": [
            *of_layers("positional neurons", "positional"),
            *(panel for kind in POSITIONAL for panel in of_layers(f"{kind}, strong", f"positional_{kind}_strong")),
        ],
        "comparison": [*comparison, panels.RunComparer(diff_only="split")],
    }


def dashboard(entity: str, project: str) -> Any:
    """The workspace."""
    made = [workspaces.Section(name=name, panels=found, is_open=True) for name, found in sections().items()]
    return workspaces.Workspace(entity=entity, project=project, name="Neuron evolution", sections=made)


def save(entity: str | None, project: str, file: Path) -> str:
    """Save the dashboard on wandb, or its specification in the file; returns what was done.

    Raises:
        UserError: WANDB_MODE or WANDB_DISABLED holds nonsense.
    """
    mode, by = mode_of_environment()
    try:
        if by and mode != "online":
            raise ConnectionError(f"{by} of the environment")
        made = dashboard(entity or str(wandb.Api().default_entity), project)
        made.save()
        return f"saved: {made.url}"
    except Exception as refused:  # nobody is logged in, there is no network, the server says no: wandb raises whatever it finds
        reason = str(refused).splitlines()[0] if str(refused) else type(refused).__name__
    specification = dashboard(entity or "ENTITY", project)._to_model().model_dump(by_alias=True, mode="json")
    write_whole(file, json.dumps(specification, indent=2) + "\n")
    return f"not saved on wandb ({reason}); the dashboard's specification is in {file}"


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entity", help="whose project it is; by default that of who is logged in")
    project = os.environ.get("WANDB_PROJECT") or PROJECT
    parser.add_argument("--project", default=project, help="as wandb.project of the runs")
    parser.add_argument("--out", type=Path, default=Path("runs/wandb_dashboard.json"), help="for the specification")
    arguments = parser.parse_args()
    print(save(arguments.entity, arguments.project, arguments.out))


if __name__ == "__main__":
    with plainly(after=BEGINS_AGAIN):
        main()
