"""A setting that is none is refused with the names that are like it, however it was given; so is one that hydra cannot read."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from analyze import draw
from analyze.config import Thresholds
from analyze.recompute import changed
from analyze.tables.variants import variants
from errors import UserError, composing, no_setting
from settings import configuration, setting_names, written_settings
from train.config import TrainConfig

CONF = Path(__file__).parents[1] / "conf"
NAMES = [*setting_names(TrainConfig), "size", "experiment"]


def refused(*overrides: str, conf: Path = CONF) -> str:
    """What is said of a run with these settings."""
    try:
        with initialize_config_dir(str(conf), version_base="1.3"):
            configuration(compose("train", overrides=["corpus=local", *overrides]), TrainConfig)
    except UserError as mistake:
        return str(mistake)
    except (HydraException, OmegaConfBaseException) as mistake:
        return composing(mistake, NAMES)
    raise AssertionError("it composes")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("sead=1", "sead is no setting of this program; did you mean seed"),
        ("learning_rate=1", "did you mean optimizer.learning_rate or"),
        ("modle=nopos", "did you mean model or"),
        ("model.layer=3", "model.layer is no setting of this program; did you mean model.layers or"),
        ("+live.stepss=1", "live.stepss is no setting of this program; did you mean live.steps or"),
        ("++nam=x", "nam is no setting of this program; did you mean name or"),
        ("~nam", "did you mean name or"),
        ("zzz=1", "zzz is no setting of this program; --help shows all."),
        ("sead=a=b", "did you mean seed"),
        ("precision=a=b", "give the value in quotes of its own, \"precision='a=b'\"."),
        ("live=off", "live=off: live is made of several settings; give one of live.spacing, live.steps, "),
        ("steps=abc", "'abc' of type 'str' could not be converted to Integer"),
    ],
)
def test_a_setting_that_is_none_names_those_that_are_like_it(given: str, said: str) -> None:
    assert said in refused(given)


def test_one_in_a_file_is_refused_alike(tmp_path: Path) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "experiment" / "x.yaml").write_text("# @package _global_\noptimizer: {learnin_rate: 3}\n")
    assert "optimizer.learnin_rate is no setting of this program; did you mean optimizer.learning_rate" in refused(
        "experiment=x", conf=tmp_path / "conf"
    )


def test_a_threshold_that_is_none_is_refused_alike() -> None:
    with pytest.raises(OmegaConfBaseException) as mistake:
        changed(Thresholds(), {"positon_mi": 1.0})
    assert composing(mistake.value, draw.SETTINGS).endswith("did you mean thresholds.position_mi?")


def test_nearest_names_come_first() -> None:
    assert no_setting("tokens", ["batch.tokens", "live.tokens", "stoke"]) == (
        "tokens is no setting of this program; did you mean live.tokens or batch.tokens or stoke?"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
        "a: [1\n",
        "- 1\n",
        "a: !!python/object/apply:os.getcwd []\n",
        "\x00",
    ],
)
def test_settings_of_a_run_that_are_damaged_or_unfold_for_ever_are_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "run" / "config.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml .* copy it again"):
        variants({file.parent: []})
    file.write_text("model: {layers: 2}\nsteps: 3\n")
    assert written_settings(file) == {"model": {"layers": 2}, "steps": 3}
