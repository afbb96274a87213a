"""Every file under conf/ composes, and builds what it says; no key is unknown, none is missing."""

import functools
import importlib.util
import inspect
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from models import SPEC
from omegaconf import DictConfig, OmegaConf
from runs import CONF, PLUGINS, ROOT, command, configuration
from torch import nn

from thaw import config, launch
from thaw.backbones.groups import LayerGroup
from thaw.errors import ConfigError
from thaw.finetune.plan import SETTINGS, Plan, make_phase
from thaw.training import device, metrics

RUN = Path("/somewhere/run")  # never written to
GROUPS = (  # of a backbone with a classifier of several layers
    LayerGroup("stem", depth=0.0), LayerGroup("middle", depth=0.5), LayerGroup("deep"),
    LayerGroup("fc", is_classifier=True), LayerGroup("head"),
)  # fmt: skip
# What train.py computes, so that it stands in no file.
COMPUTED = {
    "thaw.head": {"in_features", "num_classes"},
    "thaw.mlp_head": {"in_features", "num_classes"},
    "thaw.transforms": {"spec"},
    "thaw.mixing": {"num_classes"},
    "thaw.finetune": {"params", "groups", "max_epochs", "mixes", "limits_batches", "derived_lr"},
    "thaw.report": {"folder", "photos", "test_predictions"},
    "thaw.data": {"train_transform", "eval_transform", "shrink"},
}
launch.register_backbones()  # recipes choose some

# What a choice needs from the user, or from a machine with weights, to be built here.
NEEDED = {
    "data/folder": ["data.root=."],
    "data/csv": [f"data.csv={__file__}"],
    "backbone/tiny": ["backbone.weights=null"],
    "backbone/torchvision": ["backbone.name=resnet18", "backbone.weights=null"],
    "backbone/timm": ["backbone.name=resnet18", "backbone.weights=null"],
}
# Leaves of one constructor's plain defaults; the others choose values of their own.
DEFAULTS = [
    "augment/default", "backbone/cnn", "backbone/tiny", "backbone/torchvision", "backbone/timm",
    "head/linear", "head/norm_linear",
]  # fmt: skip
# Arguments that loggers pass on, so that no signature of theirs names them.
PASSED_ON = {"lightning.pytorch.loggers.WandbLogger": {"tags"}}  # to wandb.init


def files(*groups: str) -> list[str]:
    """`group/name` of the files of some groups."""
    found = [path for group in groups for path in sorted((CONF / group).glob("*.yaml"))]
    return [f"{path.parent.name}/{path.stem}" for path in found]


LEAVES = files("augment", "backbone", "callbacks", "data", "finetune", "head", "logger", "mix",
               "optim", "phase", "report", "trainer")  # fmt: skip
RECIPES = files("experiment", "debug", "hparams_search", "launcher")


FREE = ("augment", "callbacks", "head", "logger", "mix", "optim", "report", "trainer")


@functools.cache  # composing takes a quarter of a second: most of the time of these tests
def together(place: int) -> DictConfig:
    """The composed configuration with a choice of each group that goes with all other groups."""
    leaves = [names[place % len(names)] for names in map(files, FREE)]
    return configuration(RUN, *(leaf.replace("/", "=") for leaf in leaves))


@functools.cache
def chosen(leaf: str) -> DictConfig:
    """The composed configuration of a run into RUN with this choice."""
    group, _, name = leaf.partition("/")
    if group in FREE:
        return together(files(group).index(leaf))
    group = "phase@finetune.frozen" if group == "phase" else group
    return configuration(RUN, f"{group}={name}", *NEEDED.get(leaf, []))


def nodes(node: Any) -> list[Mapping[str, Any]]:
    """All nodes with a target, the node itself and nested ones."""
    if not isinstance(node, Mapping):
        return []
    inner = [found for value in node.values() for found in nodes(value)]
    return [node, *inner] if "_target_" in node else inner


def parameters(target: str) -> dict[str, inspect.Parameter]:
    """Named parameters of a target."""
    known = inspect.signature(get_object(target)).parameters
    return {
        name: parameter
        for name, parameter in known.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }


def is_ours(target: str) -> bool:
    """Whether the signature was written in thaw: some callbacks have that of Lightning's."""
    found = get_object(target)
    return target.startswith("thaw.") and (not inspect.isclass(found) or "__init__" in vars(found))


def keys(node: Mapping[str, Any]) -> set[str]:
    return {name for name in node if not name.startswith("_")}


def test_every_file_belongs_to_a_test() -> None:
    """A new group must be added to LEAVES or RECIPES."""
    every = {str(path.relative_to(CONF)) for path in CONF.rglob("*.yaml")}
    others = {"train.yaml", "hydra/default.yaml", "hydra/launcher/thaw.yaml", "paths/default.yaml",
              "local/default.yaml"}  # fmt: skip
    assert every - others == {f"{name}.yaml" for name in [*LEAVES, *RECIPES]}


def test_the_main_file_has_the_keys_that_train_reads() -> None:
    assert set(configuration(RUN)) == set(config.KEYS)


def test_the_recipe_is_the_one_that_was_measured() -> None:
    """benchmarks/LOG.md has the runs; another default wants new ones."""
    cfg = configuration(RUN)
    names = {"optim": "thaw.finetune.muon.Muon", "head": "thaw.head.norm_linear"}
    assert {group: cfg[group]["_target_"] for group in names} == names
    assert cfg.label_smoothing == 0.3
    assert (cfg.finetune.batchnorm, cfg.finetune.depthwise) == ("eval", "frozen")
    assert (cfg.finetune.frozen.lr, cfg.finetune.lr_decay) == (1e-3, 0.75)
    quick = configuration(RUN, "experiment=quick").finetune
    assert (quick.unfreeze_epoch, quick.frozen.lr, quick.unfrozen.lr) == (3, 2e-3, "auto")
    assert (quick.cached_views, quick.top) == (1, 0.5)


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_has_the_arguments_of_its_constructor(leaf: str) -> None:
    """None that it does not take; of our own constructors all that thaw does not compute."""
    group = leaf.partition("/")[0]
    group = "finetune" if group == "phase" else group  # where a phase's settings come to stand
    for node in nodes(config.plain(chosen(leaf))[group]):
        target = node["_target_"]
        known = set(parameters(target))
        assert keys(node) <= known | PASSED_ON.get(target, set()), target
        if is_ours(target):
            computed = COMPUTED.get(".".join(target.split(".")[:2]), set())
            assert keys(node) == known - computed, target


@pytest.mark.parametrize("leaf", DEFAULTS + files("data"))
def test_a_plain_leaf_has_the_defaults_of_its_constructor(leaf: str) -> None:
    """So that what a notebook builds without naming it is what train.py builds."""
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{leaf}.yaml"), resolve=False)
    assert isinstance(node, dict)
    known = parameters(node["_target_"])
    written = {}
    for name, value in node.items():
        wired = isinstance(value, str) and value.startswith("${")
        if name in known and known[name].default is not inspect.Parameter.empty and not wired:
            written[name] = tuple(value) if isinstance(value, list) else value
    assert written == {name: known[name].default for name in written}
    assert written


@pytest.mark.parametrize("leaf", files("backbone"))
def test_a_backbone_is_built(leaf: str) -> None:
    if leaf == "backbone/timm" and importlib.util.find_spec("timm") is None:
        with pytest.raises(ConfigError, match=r"backbone=timm: .*not installed.*\[timm\]"):
            config.build(chosen(leaf).backbone, "backbone")
        return
    backbone = config.build(chosen(leaf).backbone, "backbone")
    assert backbone.weights == "random"
    assert len(backbone.groups) > 2


@pytest.mark.parametrize("leaf", files("head"))
def test_a_head_is_built(leaf: str) -> None:
    head = config.build(chosen(leaf).head, "head", in_features=8, num_classes=3)
    assert head.eval()(torch.zeros(2, 8)).shape == (2, 3)


@pytest.mark.parametrize("leaf", files("augment"))
def test_an_augmentation_is_built(leaf: str) -> None:
    transform = config.build(chosen(leaf).augment, "augment", spec=SPEC)
    image = transform(torch.zeros(3, 30, 40, dtype=torch.uint8))
    assert image.shape == (3, SPEC.size, SPEC.size)
    assert image.dtype == torch.uint8


@pytest.mark.parametrize("leaf", files("data"))
def test_a_data_module_is_built(leaf: str) -> None:
    module = config.build(chosen(leaf).data, "data", train_transform=None, eval_transform=None)
    assert isinstance(module, LightningDataModule)
    assert module.name == leaf.partition("/")[2]
    assert str(module.cache_dir) == os.environ.get("THAW_CACHE", "cache")
    assert str(module.data_dir) == os.environ.get("THAW_DATA", "data")


def test_a_folder_of_photos_must_be_named() -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: has no value yet; .*data\.root=VALUE"):
        config.build(configuration(RUN, "data=folder").data, "data")


@pytest.mark.parametrize("leaf", files("finetune"))
def test_a_plan_is_built(leaf: str) -> None:
    cfg = chosen(leaf)
    assert build_plan(cfg).mode == leaf.partition("/")[2]
    assert (cfg.backbone.weights is None) == (leaf == "finetune/from_scratch")


@pytest.mark.parametrize("leaf", files("phase"))
def test_the_settings_of_a_phase_are_built(leaf: str) -> None:
    name = leaf.partition("/")[2]
    cfg = configuration(RUN, f"phase@finetune.frozen={name}")
    node = config.plain(cfg.finetune.frozen)
    assert list(node) == list(SETTINGS)
    if name == "none":
        assert set(node.values()) == {None}
    else:
        rate = 1e-3 if node["lr"] == "auto" else node["lr"]  # build_plan knows what auto is
        make_phase({**node, "lr": rate}, "finetune.frozen", name="frozen")


def test_all_modes_have_the_same_keys() -> None:
    """So that a sweep over some of them with a common setting composes."""
    found = [config.plain(chosen(leaf))["finetune"] for leaf in files("finetune")]
    for node in found:
        assert node.keys() == found[0].keys()
        for name in ("frozen", "unfrozen"):
            assert node[name].keys() == found[0][name].keys()


def test_a_short_run_just_works() -> None:
    cfg = configuration(RUN, "trainer.max_epochs=2", "finetune.unfreeze_epoch=1")
    assert [phase.warmup(phase.epochs) for phase in build_plan(cfg).phases] == [0, 0.5]


@pytest.mark.parametrize("leaf", files("mix"))
def test_mixing_is_built(leaf: str) -> None:
    node = chosen(leaf).mix
    assert (node is None) == (leaf == "mix/none")
    if node is not None:
        mix = config.build(node, "mix", num_classes=3)
        images, targets = mix(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]))
        assert images.shape == (4, 3, 8, 8)
        assert targets.sum(1) == pytest.approx([1.0] * 4)


@pytest.mark.parametrize("leaf", files("optim"))
def test_an_optimiser_is_built(leaf: str) -> None:
    node = device.optimizer_settings(config.plain(chosen(leaf))["optim"], {})
    make = config.build(node, "optim", taken={"lr": "elsewhere"})
    optimizer = make([{"params": [nn.Parameter(torch.zeros(2))], "lr": 1.0}])
    assert type(optimizer).__name__.lower() == leaf.partition("/")[2]


@pytest.mark.parametrize("leaf", files("trainer"))
def test_a_trainer_is_built(leaf: str) -> None:
    node = config.plain(chosen(leaf))["trainer"]
    here = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not here.get(node["accelerator"], True):
        with pytest.raises(ConfigError, match=r"trainer\.accelerator=(gpu|mps): .* no such device"):
            device.trainer_settings(node)
        return
    trainer = config.build(device.trainer_settings(node), "trainer", logger=False)
    assert isinstance(trainer, Trainer)
    assert trainer.max_epochs == 10
    assert trainer.default_root_dir == str(RUN)
    assert ("DDP" in type(trainer.strategy).__name__) == (leaf == "trainer/ddp")


@pytest.mark.parametrize("leaf", files("callbacks"))
def test_callbacks_are_built(leaf: str) -> None:
    settings = config.plain(chosen(leaf))["callbacks"]
    made = config.build_all(
        metrics.monitor_modes(settings, monitor="val/acc", validates=True), "callbacks"
    )
    assert all(isinstance(callback, Callback) for callback in made.values())
    assert ("progress" in made) == (leaf != "callbacks/none")
    assert ("early_stopping" in made) == (leaf == "callbacks/early_stopping")
    assert made["checkpoint"].dirpath == str(RUN / "checkpoints")
    assert {made[name].mode for name in made if hasattr(made[name], "mode")} == {"max"}


@pytest.mark.parametrize("leaf", files("logger"))
def test_loggers_are_built(leaf: str) -> None:
    name = leaf.partition("/")[2]
    if name in ("wandb", "mlflow") and importlib.util.find_spec(name) is None:
        with pytest.raises(
            ConfigError, match=rf"logger\.{name}: .*not installed.*pip install.*{name}"
        ):
            config.build_all(chosen(leaf).logger, "logger")
        return
    made = config.build_all(chosen(leaf).logger, "logger")
    assert list(made) == ([] if name == "none" else [name])
    assert all(isinstance(logger, Logger) for logger in made.values())


@pytest.mark.slow
@pytest.mark.parametrize("leaf", RECIPES)
def test_a_recipe_composes_and_every_node_of_it_stands(leaf: str) -> None:
    if leaf.replace("/", "=") in PLUGINS:
        pytest.importorskip(PLUGINS[leaf.replace("/", "=")])
    cfg = chosen(leaf)
    config.check_keys(cfg)
    assert build_plan(cfg).phases
    settings = config.plain(cfg)
    for node in (node for part in settings.values() for node in nodes(part)):
        known = parameters(node["_target_"])
        assert keys(node) <= set(known) | PASSED_ON.get(node["_target_"], set())
    group, _, name = leaf.partition("/")
    assert f"{group}={name}" in (CONF / f"{leaf}.yaml").read_text("utf-8"), "give the command"


def build_plan(cfg: DictConfig) -> Plan:
    return config.build(cfg.finetune, "finetune", groups=GROUPS, max_epochs=cfg.trainer.max_epochs)


def test_every_torchvision_model_is_a_choice_and_a_pattern_finds_some() -> None:
    """python train.py -m 'backbone=glob(resnet*)'"""
    launch.register_backbones()
    names = launch.torchvision_names()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        own = {"cnn", "tiny", "torchvision", "timm"}
        assert set(loader.get_group_options("backbone")) == {*names, *own}
        for name in (names[0], names[-1]):
            assert compose(f"backbone/{name}").backbone == {
                "_target_": "thaw.backbones.torchvision_backbone.torchvision_backbone",
                "name": name, "weights": "DEFAULT", "image_size": None, "granularity": "stage",
            }  # fmt: skip
        parser = OverridesParser.create(config_loader=loader)
        sweep = parser.parse_overrides(["backbone=glob(resnet*)"])[0]
        assert list(sweep.sweep_string_iterator()) == [
            "resnet101", "resnet152", "resnet18", "resnet34", "resnet50",
        ]  # fmt: skip


def test_every_timm_model_is_a_choice() -> None:
    """On the command line, in a sweep beside torchvision's, and in an experiment."""
    launch.register_backbones()
    expected = {
        "_target_": "thaw.backbones.timm_backbone.timm_backbone", "name": "convnext_nano.in12k",
        "weights": "DEFAULT", "image_size": None, "granularity": "stage",
    }  # fmt: skip
    assert configuration(RUN, "backbone=timm/convnext_nano.in12k").backbone == expected
    other = configuration(RUN, "backbone=timm", "backbone.name=convnext_nano.in12k").backbone
    assert other == expected
    cfg = configuration(RUN, "backbone=timm/convnext_nano.in12k", "backbone.weights=null")
    assert cfg.backbone == {**expected, "weights": None}
    words = "backbone=resnet18,timm/convnext_nano.in12k"
    sweep = OverridesParser.create().parse_overrides([words])[0]
    chosen = [f"backbone={name}" for name in sweep.sweep_string_iterator()]
    assert [configuration(RUN, word).backbone.name for word in chosen] == [
        "resnet18", "convnext_nano.in12k",
    ]  # fmt: skip


def answer(*arguments: str, **environment: str) -> str:
    """What train.py prints, having imported none of the packages that take seconds."""
    python, *rest = command(*arguments)
    done = subprocess.run(
        [python, "-X", "importtime", *rest],
        cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported
    assert imported.isdisjoint({"torch", "torchvision", "lightning", "numpy", "matplotlib"})
    return done.stdout


def test_help_lists_the_choices_and_is_quick() -> None:
    choices = dict(line.split(": ", 1) for line in answer("--help").splitlines() if ": " in line)
    assert {"resnet50", "tiny", "vit_b_16"} <= set(choices["backbone"].split(", "))
    assert choices["backbone/timm"] == "<any name of timm>"
    for group in ("augment", "callbacks", "data", "finetune", "head", "logger", "optim", "trainer"):
        names = [name.partition("/")[2] for name in files(group)]
        assert choices[group] == ", ".join(names)


@pytest.mark.slow
def test_the_configuration_can_be_shown_and_is_quick() -> None:
    shown = answer("--cfg", "job", "backbone=resnet50", "data=flowers102")
    assert "thaw.data.flowers102.Flowers102" in shown
    assert "name: resnet50" in shown


@pytest.mark.slow
def test_names_complete_in_a_shell() -> None:
    line = "python train.py backbone=resnet1"
    assert answer("-sc", "query=bash", COMP_LINE=line).split() == [
        "backbone=resnet101", "backbone=resnet152", "backbone=resnet18",
    ]  # fmt: skip
