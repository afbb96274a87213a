"""The classic recipes: each is what was published, and runs on small drawn pictures."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from PIL import Image
from runs import configuration
from scipy.io import savemat
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torchvision.transforms import v2

import train
from thaw import config, launch, transforms
from thaw.backbones.groups import HEAD
from thaw.classifier import Classifier
from thaw.finetune.plan import Plan
from thaw.finetune.rates import parameter_groups

NOWHERE = Path("/somewhere/run")  # never written to


class Published(NamedTuple):
    """What a recipe's text says. `phases`: name -> epochs."""

    backbone: str
    data: str
    batch: int
    optimizer: str
    phases: dict[str, int]


FLOWERS = {"frozen": 16, "unfrozen": 8}
RECIPES = {
    "dogs_vs_cats_cnn_scratch": Published("cnn", "dogs_vs_cats", 32, "Adam", {"unfrozen": 10}),
    "dogs_vs_cats_resnet101_features": Published(
        "resnet101", "dogs_vs_cats", 32, "Adam", {"frozen": 1}
    ),
    "dogs_vs_cats_resnet18_finetune": Published(
        "resnet18", "dogs_vs_cats", 4, "SGD", {"unfrozen": 25}
    ),
    "dogs_vs_cats_resnet18_features": Published(
        "resnet18", "dogs_vs_cats", 4, "SGD", {"frozen": 25}
    ),
    "pets_resnet34_features": Published("resnet34", "pets", 64, "Adam", {"frozen": 30}),
    "flowers102_vgg16_bn": Published("vgg16_bn", "flowers102", 64, "Adam", FLOWERS),
    "flowers102_resnet50": Published("resnet50", "flowers102", 64, "Adam", FLOWERS),
    "flowers102_resnet152": Published("resnet152", "flowers102", 64, "Adam", FLOWERS),
}


@pytest.fixture(scope="module", autouse=True)
def backbones() -> None:
    launch.register_backbones()


@cache
def composed(name: str) -> DictConfig:
    return configuration(NOWHERE, f"experiment={name}")


@cache
def built(name: str) -> tuple[Classifier, Plan, torch.optim.Optimizer]:
    """As train.py builds them, but without values, so that VGG16 takes no memory."""
    cfg = composed(name)
    with torch.device("meta"):
        backbone = config.build({**cfg.backbone, "weights": None}, "backbone")
        head = config.build(cfg.head, "head", in_features=backbone.out_features, num_classes=7)
        model = Classifier(backbone, head)
    plan = config.build(
        cfg.finetune, "finetune", groups=model.groups, max_epochs=cfg.trainer.max_epochs
    )
    # there are no fused kernels for tensors without values
    make = config.build({**config.plain(cfg.optim), "fused": False}, "optim")
    return model, plan, make(parameter_groups(model, [phase.rates for phase in plan.phases]))


def rates(name: str, group: str = HEAD) -> list[float]:
    """At the start of each epoch."""
    plan = built(name)[1]
    return [plan.learning_rate(group, epoch, 0.0) for epoch in range(plan.phases[-1].end)]


def torch_rates(epochs: int, make: Callable[..., Any], values: Any = None) -> list[float]:
    """Of torch's own scheduler, from 1e-3."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1e-3)
    scheduler, found = make(optimizer), []
    for epoch in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([] if values is None else [values[epoch]]))
    return found


def test_every_recipe_on_real_photos_is_checked_here() -> None:
    folder = Path(train.__file__).parent / "conf" / "experiment"
    files = {path.stem for path in folder.glob("*.yaml") if not path.stem.startswith("demo_")}
    assert files - {"quick", "best"} == set(RECIPES)  # those fit any photos


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_published(name: str) -> None:
    said, cfg = RECIPES[name], composed(name)
    _, plan, optimizer = built(name)
    assert cfg.backbone.get("name", "cnn") == said.backbone
    assert cfg.backbone.weights == (None if said.backbone == "cnn" else "DEFAULT")
    assert cfg.backbone.image_size is None  # that of the weights
    assert cfg.data._target_.split(".")[2] == said.data
    assert cfg.data.batch_size == said.batch
    assert type(optimizer).__name__ == said.optimizer
    assert {phase.name: phase.epochs for phase in plan.phases} == said.phases
    for phase in plan.phases:
        everything = phase.name == "unfrozen"
        assert set(phase.rates) == (set(plan.groups) if everything else {HEAD})
        assert phase.warmup_epochs == 0
        assert not everything or phase.depthwise == "train"
    assert cfg.task_name == name
    assert cfg.label_smoothing == 0
    assert cfg.trainer.gradient_clip_val is None  # the optimiser as torch has it
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    assert (optimizer.defaults.get("betas"), optimizer.defaults.get("eps")) in (
        ((0.9, 0.999), 1e-8), (None, None),
    )  # fmt: skip


def test_the_net_from_scratch() -> None:
    model = built("dogs_vs_cats_cnn_scratch")[0]
    kinds = [
        (layer.out_channels, layer.kernel_size) for layer in model.modules()
        if isinstance(layer, nn.Conv2d)
    ]  # fmt: skip
    assert kinds == [(32, (3, 3)), (64, (3, 3)), (128, (3, 3))]
    pools = [layer.kernel_size for layer in model.modules() if isinstance(layer, nn.MaxPool2d)]
    assert pools == [2, 2, 2]
    assert isinstance(model.head, nn.Sequential)
    dropout, last = model.head
    assert isinstance(dropout, nn.Dropout)
    assert (dropout.p, last.in_features) == (0.2, 128)
    assert rates("dogs_vs_cats_cnn_scratch") == [1e-3] * 10
    assert rates("dogs_vs_cats_resnet101_features") == [1e-3]


@pytest.mark.parametrize("kind", ["finetune", "features"])
def test_resnet18_by_steps(kind: str) -> None:
    name = f"dogs_vs_cats_resnet18_{kind}"
    model, _, optimizer = built(name)
    expected = torch_rates(25, lambda optimizer: StepLR(optimizer, step_size=7, gamma=0.1))
    assert rates(name) == pytest.approx(expected, rel=1e-9)
    names = model.group_names if kind == "finetune" else [HEAD]
    for group in names:
        assert rates(name, group) == rates(name)
    if kind == "features":
        assert rates(name, "layer4") == [0.0] * 25
    assert (optimizer.defaults["momentum"], optimizer.defaults["nesterov"]) == (0.9, False)


def test_pets_on_a_plateau() -> None:
    """As torch's scheduler, on accuracies that stand still twice."""
    name = "pets_resnet34_features"
    plan = built(name)[1]
    values = [0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.8, *[0.79] * 23]
    expected = torch_rates(
        30,
        lambda optimizer: ReduceLROnPlateau(
            optimizer, mode="max", factor=0.1, patience=2, threshold=0.0
        ),
        values,
    )
    found = [plan.after(values[:epoch]).learning_rate(HEAD, epoch, 0.0) for epoch in range(30)]
    # torch's own least change is 1e-8, where it stops
    assert [rate for rate in found if rate > 1e-7] == pytest.approx(
        [rate for rate in expected if rate > 1e-7], rel=1e-9
    )
    assert len({*found}) > 3
    cfg = composed(name)
    assert cfg.data.val_fraction == 0.5
    assert cfg.trainer.precision == "auto"
    assert not plan.phases[0].augment  # the weights' own preprocessing
    assert plan.phases[0].cached_views == 1


@pytest.mark.parametrize("name", ["flowers102_vgg16_bn", "flowers102_resnet50"])
def test_flowers_in_two_phases(name: str) -> None:
    cfg = composed(name)
    assert cfg.data.split == "swapped"
    assert rates(name) == pytest.approx([1e-3] * 16 + [1e-4] * 8)
    spec = transforms.InputSpec(32, 36, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    steps = {
        type(step): step for step in config.build(cfg.augment, "augment", spec=spec).transforms
    }
    assert {v2.ColorJitter, v2.RandomHorizontalFlip, v2.RandomAffine} <= steps.keys()
    affine = steps[v2.RandomAffine]
    assert affine.degrees[1] > 0
    assert affine.shear[1] > 0


def test_rates_of_a_resnet_are_divided_by_three() -> None:
    name = "flowers102_resnet50"
    order = ["head", "layer4", "layer3", "layer2", "layer1", "bn1", "conv1"]
    for place, group in enumerate(order):
        assert rates(name, group)[16:] == pytest.approx([1e-4 / 3**place] * 8, rel=1e-6)


def test_rates_of_vgg_fall_linearly() -> None:
    """From 1e-4 at the last of 44 layers to 1e-7 at the first, as np.linspace gives it."""
    name = "flowers102_vgg16_bn"
    expected = np.linspace(1e-7, 1e-4, 44)
    groups = built(name)[0].group_names
    features = [group for group in groups if group.startswith("features.")]
    assert len(features) == 26  # 13 convolutions and 13 norms
    for group in features:
        layer = int(group.split(".")[1])
        assert rates(name, group)[16:] == pytest.approx([expected[layer]] * 8, rel=1e-6)


# --- runs ---


def noise(path: Path, label: int, generator: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = generator.integers(0, 160, (40, 40, 3), dtype=np.uint8)
    pixels[..., label % 3] += 60
    Image.fromarray(pixels).save(path, quality=90)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures in the official layouts of the three data sets."""
    root, generator = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        for number in range(20):
            noise(root / "dogs-vs-cats" / "train" / f"{name}.{number}.jpg", label, generator)
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, name in enumerate(("Abyssinian", "beagle", "Bengal")):
        for number in range(12):
            file = root / "oxford-iiit-pet" / "images" / f"{name}_{number}.jpg"
            noise(file, label, generator)
            split = lists["trainval" if number < 8 else "test"]
            split.append(f"{file.stem} {label + 1} {1 + (name == 'beagle')} 1")
    (root / "oxford-iiit-pet" / "annotations").mkdir()
    for split, lines in lists.items():
        file = root / "oxford-iiit-pet" / "annotations" / f"{split}.txt"
        file.write_text("\n".join(lines) + "\n")
    flowers = root / "flowers-102"
    for number in range(24):
        noise(flowers / "jpg" / f"image_{number + 1:05d}.jpg", number % 3, generator)
    savemat(flowers / "imagelabels.mat", {"labels": np.array([[1, 2, 3] * 8], np.uint8)})
    ids = {"trnid": range(1, 7), "valid": range(7, 13), "tstid": range(13, 25)}
    savemat(flowers / "setid.mat", {key: np.array([[*own]], np.uint16) for key, own in ids.items()})
    return root


# Where the whole recipe takes half a minute: the same phases, shorter.
SHORT = {
    "dogs_vs_cats_resnet18_finetune": ["trainer.max_epochs=8"],
    "flowers102_resnet50": ["trainer.max_epochs=4", "finetune.unfreeze_epoch=2"],
}
FAST, SLOW = "dogs_vs_cats_cnn_scratch", ("pets_resnet34_features", "flowers102_resnet50")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name != FAST)
                  + [pytest.mark.every] * (name not in (FAST, *SLOW)))
     for name in RECIPES],
)  # fmt: skip
def test_it_runs(drawn: Path, tmp_path: Path, name: str) -> None:
    """The whole recipe at 32 pixels, from random weights, leaving no checkpoints."""
    results = train.run(configuration(
        tmp_path, f"experiment={name}", "backbone.weights=null", "backbone.image_size=32",
        f"paths.data_dir={drawn}", f"paths.cache_dir={tmp_path / 'cache'}", "data.num_workers=0",
        "trainer=cpu", "trainer.log_every_n_steps=1", "callbacks=none", "logger=none",
        "callbacks.checkpoint=null", "callbacks.last=null", *SHORT.get(name, []),
    ))  # fmt: skip
    done = {phase["name"]: phase["epochs"] for phase in results["phases"]}
    assert done.keys() == RECIPES[name].phases.keys()
    assert name in SHORT or done == RECIPES[name].phases
    assert math.isfinite(results["val/loss"])
    assert 0 <= results["val/acc"] <= 1
    assert ("test/acc" in results) == (RECIPES[name].data != "flowers102")
