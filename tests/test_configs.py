"""Every option of every group composes, instantiates, and says nothing that its target does not take."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from birthplace_lm.architecture import build_model
from birthplace_lm.composing import (
    OF_A_RUN,
    ConfigError,
    build,
    check_targets,
    differences,
    literal,
    load_config,
    plain,
    save_config,
)
from birthplace_lm.corpus import CorpusError
from birthplace_lm.identity import run_name
from birthplace_lm.jobs import prepare
from birthplace_lm.stages import run
from birthplace_lm.world import World
from tests.helpers import CONFIGS, fits

GROUPS = (
    "data",
    "model",
    "attention",
    "positions",
    "corruption",
    "pretrain",
    "finetune",
    "trainer",
    "logger",
    "callbacks",
)
OF_PRETRAIN = ("optimizer", "schedule", "averaging", "distillation", "self_training")
NESTED = {group: f"{group}@pretrain.{group}" for group in OF_PRETRAIN}
NESTED["adaptation"] = "adaptation@finetune.adaptation"
OPTIONS = [
    (group, path.stem)
    for group in (*GROUPS, *NESTED, "experiment", "debug")
    for path in sorted((CONFIGS / group).glob("*.yaml"))
]


class Touches:
    """What a file from somebody else could hold: unpickled, it leaves a trace."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.path,)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides))


def settings(*overrides: str) -> dict[str, Any]:
    return plain(composed(*overrides))


def test_every_folder_of_configs_is_a_group_that_is_tested() -> None:
    folders = {path.name for path in CONFIGS.iterdir() if path.is_dir()}
    assert folders == {*GROUPS, *NESTED, "experiment", "debug", "hydra", "search"}  # search: in test_search.py


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_builds(group: str, option: str, tmp_path: Path) -> None:
    overrides = [f"{NESTED.get(group, group)}={option}", f"data.dir={tmp_path}"]
    needs_folder = (option in ("cs224n", "files") and group == "data") or option.startswith("cs224n_")
    if group == "positions" and not fits("vanilla", option):
        pytest.fail(f"vanilla attention takes every position, but not {option}")
    if group == "attention" and not fits(option, "learned"):
        overrides.append("positions=none")
    if group in ("distillation", "self_training") and option == "runs":
        overrides.append(f"pretrain.{group}.runs=[runs/a]")  # loaded in test_distillation.py and test_self_training.py
    config = settings(*(overrides if needs_folder else overrides[:1] + overrides[2:]))
    model = build_model(config, 50)
    build(config["data"])
    if recipe := config["pretrain"]["distillation"]:
        build({key: value for key, value in recipe.items() if key != "runs"})([build_model(config, 50)])
    if recipe := config["pretrain"]["self_training"]:
        build({key: value for key, value in recipe.items() if key != "runs"})
    build(config["corruption"], block_size=config["model"]["block_size"])
    for stage in ("pretrain", "finetune", "finetune_only"):
        if config[stage].get("adaptation"):
            build(config[stage]["adaptation"])(model)
        assert build(config[stage]["optimizer"])(model).param_groups
        assert 0 <= build(config[stage]["schedule"])(1000, 10_000) <= 1
    for callback in config["callbacks"].values():
        build(callback)
    if config["trainer"]["accelerator"] == "cpu":
        build(config["trainer"], logger=False)


def test_what_does_not_go_together_is_refused_before_the_data_are_looked_for(tmp_path: Path) -> None:
    nowhere = ("data=cs224n", f"data.dir={tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match="RotaryPositions acts on query-key scores, and a synthesizer has none"):
        prepare(settings("attention=synthesizer", "positions=rotary", *nowhere), ())
    with pytest.raises(ConfigError, match="3 heads do not divide the width 256"):
        prepare(settings("model.n_heads=3", *nowhere), ())
    with pytest.raises(CorpusError, match="not found"):
        prepare(settings(*nowhere), ())


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("+optimizer=muon", r"no setting optimizer: it is chosen for a stage, optimizer@pretrain\.optimizer=…"),
        ("+adaptation=lora", r"it is chosen for a stage, adaptation@finetune\.adaptation=…"),
        ("+atention=linear", "no setting atention: did you mean attention"),
        ("+lr=1", "no setting lr: there are ask_at_most, attention,"),
        ("+wandb.job_type=x", r"no setting wandb\.job_type: artifacts, entity,"),
        ("~positions", "the setting positions is missing: choose an option"),
        ("~logger", "the setting logger is missing"),
        ("~model", "the setting model is missing"),
    ],
)
def test_a_setting_that_nobody_asks_for_and_one_that_is_gone_are_errors(
    override: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(composed(override, f"paths.runs={tmp_path}"))
    assert not list(tmp_path.iterdir())


def test_wandb_is_told_by_its_own_variables_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_RUN_GROUP"):
        monkeypatch.delenv(name, raising=False)
    plain_words = settings("logger=wandb")["logger"]["wandb"]
    assert [plain_words[key] for key in ("mode", "project", "group", "tags")] == ["online", "birthplace_lm", None, []]
    for name, value in {"WANDB_MODE": "offline", "WANDB_PROJECT": "mine", "WANDB_RUN_GROUP": "g"}.items():
        monkeypatch.setenv(name, value)
    told = settings("logger=wandb", "wandb.tags=[a,b]", "wandb.notes=why")["logger"]["wandb"]
    keys = ("mode", "project", "group", "tags", "notes")
    assert [told[key] for key in keys] == ["offline", "mine", "g", ["a", "b"], "why"]
    assert settings("logger=wandb", "wandb.mode=disabled")["logger"]["wandb"]["mode"] == "disabled"


def test_a_factory_that_is_called_too_soon_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"missing .* required positional argument.*\(is _partial_: true missing"):
        build({"_target_": "birthplace_lm.attention.vanilla.VanillaAttention"})


@pytest.mark.parametrize("wanted", ["torch.optim.SGD", "pytorch_lightning.loggers.CSVLogger"])
def test_what_could_not_be_used_is_not_built(wanted: str) -> None:
    with pytest.raises(ConfigError, match=f"'{wanted}'; only names under birthplace_lm.adaptation"):
        build({"_target_": wanted, "_partial_": True})


def test_unknown_keys_are_errors() -> None:
    with pytest.raises(Exception, match="epoch_count"):
        composed("pretrain.epoch_count=3")


def test_the_handout_schedule_rises_again_only_there() -> None:
    for experiment, rises in (("cs224n_vanilla", False), ("cs224n_handout_schedule", True)):
        schedule = build(settings(f"experiment={experiment}", "data.dir=x")["pretrain"]["schedule"])
        total = 650 * 2937 * 127
        factors = [schedule(share * total / 100, total) for share in range(1, 101)]
        assert (max(factors[50:]) > 0.99) is rises and (factors[-1] > factors[-2]) is rises


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "torch.load", "birthplace_lmx.f"])
def test_targets_outside_the_allow_list_are_not_called(target: str, tmp_path: Path) -> None:
    node = {"model": {"deep": [{"_target_": target}]}}
    with pytest.raises(ConfigError, match=r"only names under birthplace_lm\."):
        check_targets(node)
    with pytest.raises(ConfigError):
        build(node["model"]["deep"][0])
    path = tmp_path / "config.yaml"
    path.write_text(f"model: {{_target_: {target}}}")
    with pytest.raises(ConfigError, match=target):
        load_config(path)


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("birthplace_lm.corruption.random_spans.torch.load", "torch.serialization.load"),
        ("birthplace_lm.optimization.torch.hub.load", "torch.hub.load"),
        ("birthplace_lm.sources.logging.FileHandler", "logging.FileHandler"),  # opens a file for writing
        ("birthplace_lm.callbacks.time.sleep", "time.sleep"),
        ("birthplace_lm.sources.map_folder", "birthplace_lm.mapped_files.map_folder"),
    ],
)
def test_what_a_part_imports_is_not_called(target: str, what: str, tmp_path: Path) -> None:
    """Dots lead from a module to everything that it imports, and on from there."""
    inner = {"_target_": target, "_args_": [str(tmp_path / "file")]}
    check_targets(inner)
    for node in (inner, {"_target_": "birthplace_lm.positions.none.NoPositions", "deep": [{"x": inner}]}):
        with pytest.raises(ConfigError, match=f"{target} is {what}, which no configuration may call"):
            build(node)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "birthplace_lm.sources.Folder", "_args_": ["FOLDER", False, 0, 0, 0, "CACHE"]},
        {"_target_": "birthplace_lm.world._publish", "part": "FOLDER", "folder": "CACHE"},
    ],
)
def test_a_run_folder_calls_nothing_in_a_way_that_no_run_writes_down(node: dict[str, Any], tmp_path: Path) -> None:
    """By place a folder could be named past the keys that are looked at."""
    with pytest.raises(ConfigError, match="is called in a way that no run writes down"):
        build(node, OF_A_RUN)


@pytest.mark.parametrize("target", ["birthplace_lm.replacing.replace_file", "birthplace_lm.replacing.os.getcwd"])
def test_what_is_no_part_is_not_called(target: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"only names under birthplace_lm\."):
        build({"_target_": target, "path": str(tmp_path / "file"), "content": "x"})


@pytest.mark.parametrize(
    "target",
    [
        "pytorch_lightning.strategies.strategy.Strategy.load_checkpoint",  # unpickles
        "birthplace_lm.world.World.write",
        "birthplace_lm.sources.Folder.corpus",
    ],
)
def test_only_classes_and_functions_of_modules_are_called(target: str, tmp_path: Path) -> None:
    """A method takes its object as an argument like any other, and a configuration can build that first."""
    node = {"_target_": target, "self": {"_target_": "birthplace_lm.world.World"}, "folder": str(tmp_path / "made")}
    with pytest.raises(ConfigError, match=r"no class or function of a module|may call"):
        build(node)
    assert not list(tmp_path.iterdir())


def test_nothing_of_a_run_folder_but_model_and_data_is_built(tmp_path: Path) -> None:
    """A folder from somebody else names a pickle, and a class of Lightning that would be harmless in a trainer."""
    evidence, weights = tmp_path / "evidence", tmp_path / "evil.ckpt"
    weights.write_bytes(pickle.dumps({"x": Touches(str(evidence))}))
    strategy = "pytorch_lightning.strategies"
    config = settings("model=small")
    for attention in (
        {
            "_target_": f"{strategy}.strategy.Strategy.load_checkpoint",
            "self": {"_target_": f"{strategy}.SingleDeviceStrategy"},
            "checkpoint_path": str(weights),
            "weights_only": False,
        },
        {"_target_": f"{strategy}.SingleDeviceStrategy"},
        {**config["attention"], "deep": {"_target_": "pytorch_lightning.loggers.CSVLogger", "save_dir": str(tmp_path)}},
    ):
        with pytest.raises(ConfigError, match=r"only names under birthplace_lm\.attention"):
            build_model({**config, "attention": attention}, 50)
    assert not evidence.exists()


def test_what_a_run_folder_says_is_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "of mine")
    (tmp_path / "config.yaml").write_text("name: ${oc.env:A_SECRET}\nlr: 1e-3\n")
    assert load_config(tmp_path / "config.yaml") == {"name": "${oc.env:A_SECRET}", "lr": 0.001}
    for text, said in (("- 1", "holds list, not settings"), ("a: [", "cannot be read"), ("a: b: c", "cannot be read")):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=said):
            load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("where", ["an unknown key", "a word", "a list", "a key", "deep"])
def test_what_is_built_of_a_run_folder_is_not_looked_up_either(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver can make a node, with a `_target_` that no check has seen, out of what was a word to every check."""
    monkeypatch.setenv("A_SECRET", "of mine")
    evidence, config = tmp_path / "evidence", settings()
    call = f"{{_target_: pathlib.Path.touch, _args_: [{{_target_: pathlib.Path, _args_: ['{evidence}']}}]}}"
    word = f'${{oc.create:"{call}"}}'
    changed: dict[Any, Any] = {
        "an unknown key": {"extra": word},
        "a word": {"dropout": "${oc.env:A_SECRET}"},
        "a list": {"_args_": ["plain", word]},
        "a key": {"${oc.env:A_SECRET}": 1},
        "deep": {"extra": {"deeper": [{"deepest": word}]}},
    }[where]
    save_config({**config, "attention": {**config["attention"], **changed}}, tmp_path / "config.yaml")
    read = load_config(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="nothing in it is looked up") as refused:
        build_model(read, 50)
    assert not evidence.exists() and "of mine" not in str(refused.value)


@given(st.text(alphabet="\\${}a:b,'\" "))
def test_text_that_is_taken_literally_comes_back_as_it_was(text: str) -> None:
    settings = {"key": text, "list": [text, {"deep": text}], "number": 1, "nothing": None}
    assert plain(literal(settings)) == settings


def test_what_hydra_composed_is_looked_up() -> None:
    node = {"_target_": "birthplace_lm.schedules.WarmupCosine", "_partial_": True, "a": "${b}", "b": 2}
    assert build(OmegaConf.create(node)).keywords == {"a": 2, "b": 2}


def test_a_target_that_is_not_there_is_told_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"birthplace_lm\.attention\.vanilla\.Nothing cannot be found"):
        build({"_target_": "birthplace_lm.attention.vanilla.Nothing"})


def test_errors_of_constructors_are_told_in_one_line() -> None:
    config = settings("model.n_heads=3")
    with pytest.raises(ConfigError, match="3 heads do not divide the width 256"):
        build_model(config, 50)


def test_differences_are_listed_by_key() -> None:
    one, other = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 4}, "e": 5}
    assert differences(one, other) == [("a.c", 2, 4), ("d", 3, None), ("e", None, 5)]


def test_the_folders_name_is_one_folder() -> None:
    """Also where a choice comes from the record of a run that is started from, which may be somebody else's."""
    told = settings("experiment=demo")
    choices = {"experiment": "group/demo", "attention": "../../../elsewhere/x", "positions": "rotary"}
    assert run_name({**told, "choices": choices}, World(people=20).corpus()).startswith(
        "group_demo-.._.._.._elsewhere_x-rotary-s0-"
    )


def test_the_folders_name_changes_with_what_changes_the_result_alone() -> None:
    corpus = World(people=20).corpus()
    base = settings("experiment=demo")
    name = run_name(base, corpus)
    for same in (["paths.runs=/elsewhere"], ["callbacks=none"], ["logger=wandb"], ["checkpoint.keep=5"], ["threads=1"]):
        assert run_name(settings("experiment=demo", *same), corpus) == name
    for shown in ("enable_progress_bar=true", "enable_model_summary=true", "num_sanity_val_steps=2"):
        assert run_name(settings("experiment=demo", f"trainer.{shown}"), corpus) == name
    for same in (["+trainer.profiler=simple"], ["+trainer.default_root_dir=x"]):
        assert run_name(settings("experiment=demo", *same), corpus) == name
    others = [["seed=1"], ["pretrain.epochs=7"], ["attention.qk_norm=false"], ["trainer.gradient_clip_val=2.0"]]
    averaging = "+callbacks.mean={_target_: pytorch_lightning.callbacks.EMAWeightAveraging}"
    others.append([averaging])  # it decides about the weights, as this package's own callbacks do not
    names = {run_name(settings("experiment=demo", *other), corpus) for other in others}
    assert len(names | {name, run_name(base, World(people=20, seed=1).corpus())}) == len(others) + 2
