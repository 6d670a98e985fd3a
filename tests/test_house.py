"""The house itself: imports point one way, every configuration composes, a variant is one line away from the baseline."""

import ast
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, flag_override

import analyze.config
import train.config
from models.opt import OPT

HERE = Path(__file__).parents[1]
LEAVES = {"allocator", "checksums", "device", "errors", "files", "hub_access", "locks", "paths", "provenance", "settings"}
LEAVES |= {"signals", "wandb_run"}
ROOMS = ("storage", "forward", "firing", "counts", "neuron_types", "tables", "census", "figures", "page")  # the data's one way
BESIDE = {"config", "jit", "machine"}  # of analyze/, what its rooms may import
MAY_IMPORT = {
    "corpora": {"checksums", "errors", "files", "locks", "hub_access", "paths"},
    "models": {"checksums", "errors", "files", "hub_access"},
    "analyze": {"models", "corpora"} | LEAVES,
    "train": {"models", "corpora", "analyze"} | LEAVES,
}
OURS = set(MAY_IMPORT) | LEAVES | {"scripts"}


def imported(file: Path) -> set[str]:
    """First names of what a file imports."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_point_one_way(room: str) -> None:
    files = list((HERE / room).rglob("*.py"))
    assert files
    for file in files:
        assert imported(file) & OURS <= MAY_IMPORT[room] | {room}, file


def test_rooms_of_the_analysis_import_downwards_alone() -> None:
    rooms = [path for path in (HERE / "analyze").iterdir() if path.is_dir() and list(path.glob("*.py"))]
    assert sorted(room.name for room in rooms) == sorted(ROOMS)
    for file in (file for room in rooms for file in room.rglob("*.py")):
        here = ROOMS.index(file.relative_to(HERE / "analyze").parts[0])
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("analyze."):
                room = str(node.module).split(".")[1]
                assert room in BESIDE or (room in ROOMS and ROOMS.index(room) <= here), f"{file} imports {node.module}"


def test_one_file_of_training_at_most_knows_the_analysis() -> None:
    assert sum("analyze" in imported(file) for file in (HERE / "train").rglob("*.py")) <= 1


def test_every_source_of_text_has_its_reader() -> None:
    from corpora.config import SOURCES
    from corpora.documents import READERS

    assert tuple(READERS) == SOURCES


def test_every_document_that_a_file_names_is_here() -> None:
    files = [file for room in (*MAY_IMPORT, "scripts", "tests") for file in (HERE / room).rglob("*.py")]
    named = {(file, name) for file in (*files, *HERE.glob("*.py")) for name in re.findall(r"[\w/]+\.md\b", file.read_text())}
    assert [(file, name) for file, name in named if not (HERE / name).is_file()] == []
    assert any(name == "docs/definitions.md" for _, name in named)


def test_no_file_hides_a_module_of_the_standard_library() -> None:
    import sys

    files = [file for room in (*MAY_IMPORT, "scripts", "tests") for file in (HERE / room).rglob("*.py")]
    hiding = {file.stem for file in (*files, *HERE.glob("*.py"))} & set(sys.stdlib_module_names)
    assert not hiding


def test_types_are_checked_in_every_file() -> None:
    checked = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["mypy"]["files"]
    assert set(checked) == {*MAY_IMPORT, "scripts", "tests", *(file.name for file in HERE.glob("*.py"))}


def composed(program: str, *overrides: str) -> DictConfig:
    """As Hydra hands it to the program: its own part, which names may be made of, is set apart."""
    with initialize_config_dir(str(HERE / "conf"), version_base="1.3"):
        found = compose(program, overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(found)
    with flag_override(found, ["readonly", "struct"], False):
        del found["hydra"]
    return found


def names(group: str) -> list[str]:
    folder = HERE / "conf" / group
    return sorted(file.relative_to(folder).with_suffix("").as_posix() for file in folder.rglob("*.yaml"))


def experiments(program: str) -> list[str]:
    """Experiments of a program: those of the analysis show their command."""
    shown = {name: "python analyze/run.py experiment=" + name for name in names("experiment")}
    for_analysis = {n for n, command in shown.items() if command in (HERE / "conf" / "experiment" / f"{n}.yaml").read_text()}
    return sorted(for_analysis if program == "analyze" else set(shown) - for_analysis)


TRAINING = [(group, name) for group in ("model", "size", "corpus") for name in names(group)]
TRAINING += [("experiment", name) for name in experiments("train")]


def trained(*overrides: str) -> train.config.TrainConfig:
    found = OmegaConf.to_object(composed("train", *overrides))
    assert isinstance(found, train.config.TrainConfig)
    return found


def analysed(*overrides: str) -> analyze.config.AnalyzeConfig:
    found = OmegaConf.to_object(composed("analyze", *overrides))
    assert isinstance(found, analyze.config.AnalyzeConfig)
    return found


PAPER = {"opt": 5, "opt_dead": 9, "opt_positions": 3}  # experiments of the analysis, and their domains
NEEDED = {"files": ["corpus.path=x"], "hub": ["corpus.path=x"], "tokens": ["corpus.path=x"]}


@pytest.mark.parametrize(("group", "name"), TRAINING)
def test_every_file_of_conf_composes_for_training(group: str, name: str) -> None:
    trained(f"{group}={name}", *NEEDED.get(name, []))


@pytest.mark.parametrize("name", names("corpus"))
def test_every_corpus_composes_for_analysis(name: str) -> None:
    analysed("ckpt=x", f"corpus={name}", *NEEDED.get(name, []))


@pytest.mark.parametrize("name", experiments("analyze"))
def test_every_experiment_of_the_analysis_composes(name: str) -> None:
    found = analysed("ckpt=x", f"experiment={name}")
    assert found.corpus.domains and found.context == 2048


def test_the_paper_s_tokens() -> None:
    read = {name: analysed("ckpt=x", f"experiment=paper/{name}") for name in PAPER}
    assert {name: len(found.corpus.domains) for name, found in read.items()} == PAPER
    assert {found.context for found in read.values()} == {2048}
    counted = {name: found.tokens // 2048 * 2047 for name, found in read.items()}  # not BOS
    assert counted["opt_dead"] > 20e6 and counted["opt"] > 5e6 and counted["opt_positions"] > 5e6
    assert set(read["opt_positions"].corpus.domains) < set(read["opt"].corpus.domains) < set(read["opt_dead"].corpus.domains)


SIZES = {  # hidden, layers, heads, FFN neurons, rows of the embedding (Zhang et al. 2022, table 1), parameters
    "125m": (768, 12, 12, 3072, 125_239_296),
    "350m": (1024, 24, 16, 4096, 331_196_416),
    "1.3b": (2048, 24, 32, 8192, 1_315_758_080),
    "2.7b": (2560, 32, 32, 10240, 2_651_596_800),
    "6.7b": (4096, 32, 32, 16384, 6_658_473_984),
    "13b": (5120, 40, 40, 20480, 12_853_473_280),
    "30b": (7168, 48, 56, 28672, 29_974_540_288),
    "66b": (9216, 64, 72, 36864, 65_719_701_504),
}


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_are_those_of_opt(size: str) -> None:
    config = trained(f"size={size}", f"model={'postln' if size == '350m' else 'baseline'}", "model.vocab_size=50272").model
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in OPT(config).parameters())
    assert (config.width, config.layers, config.heads, config.neurons, parameters) == SIZES[size]


@pytest.mark.parametrize("size", sorted({*SIZES, "8m", "25m"}))
def test_every_size_warms_up_and_decays_over_as_many_tokens(size: str) -> None:
    """375e6 and 300e9, whatever its batch (metaseq, launcher/opt_baselines.py)."""
    config = trained(f"size={size}")
    tokens = config.batch.tokens
    assert (config.optimizer.warmup_steps, config.optimizer.schedule_steps) == (375 * 10**6 // tokens, 300 * 10**9 // tokens)


def as_dict(config: DictConfig) -> dict[str, Any]:
    """As YAML has it."""
    found = OmegaConf.to_container(config)
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items()}


@pytest.mark.parametrize("variant", names("model"))
def test_a_variant_is_its_one_line_away_from_the_baseline(variant: str) -> None:
    lines = [line for line in (HERE / "conf" / "model" / f"{variant}.yaml").read_text().splitlines() if line.strip()]
    assert len(lines) == 1
    stated = OmegaConf.to_container(OmegaConf.create(lines[0]))
    ours, theirs = (as_dict(composed("train", f"model={m}")) for m in (variant, "baseline"))
    model, plain = ours.pop("model"), theirs.pop("model")
    assert {key: value for key, value in model.items() if value != plain[key]} == stated
    assert ours == theirs


@pytest.mark.parametrize("file", ["README.md", "corpora/openwebtext.py"])
def test_a_command_that_is_shown_for_this_machine_s_own_text_ends(file: str) -> None:
    """Tens of megabytes of text, and a CPU: 10 million tokens are some minutes of it."""
    shown = re.findall(r"python train/run\.py ([^#`\n]*\w)", (HERE / file).read_text())
    asked = [[re.sub(r",.*", "", word) for word in words.split() if "=" in word] for words in shown]
    local = [config for words in asked if (config := trained(*words)).corpus.source == "local"]
    assert local and all(config.steps * config.batch.tokens <= 10e6 for config in local), shown


def test_a_seed_is_one_setting_away_too() -> None:
    assert trained("seed=7") == replace(trained(), seed=7) != trained()


def test_the_default_training_is_the_paper_s() -> None:
    config = trained()
    assert (config.steps, config.milestones, config.batch.tokens) == (300_000, [50_000, 150_000, 300_000], 524_288)
    assert config.steps * config.batch.tokens == 157_286_400_000
    m = config.model
    assert (m.layers, m.width, m.heads, m.neurons, m.context, m.dropout, m.attention_dropout) == (
        12,
        768,
        12,
        3072,
        2048,
        0.1,
        0.1,
    )
    o = config.optimizer
    assert (o.learning_rate, o.final_learning_rate, o.warmup_steps, o.schedule_steps) == (6e-4, 6e-5, 715, 572_204)
    assert (o.beta1, o.beta2, o.epsilon, o.weight_decay, o.clip) == (0.9, 0.95, 1e-8, 0.1, 1.0)
