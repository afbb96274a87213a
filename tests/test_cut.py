"""Features from an earlier layer: what the whole body computes there, and nothing behind it."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.models
from models import SPEC, small_backbone
from runs import SMALL, configuration, draw_photos
from torch import Tensor, nn

import train
from thaw.backbones.backbone import Backbone, torchvision_backbone
from thaw.backbones.cut import cut
from thaw.backbones.groups import HEAD
from thaw.classifier import Classifier
from thaw.data.dataset import PhotoDataset
from thaw.data.photos import Photos
from thaw.errors import ConfigError
from thaw.features.table import fingerprint
from thaw.finetune import modes
from thaw.finetune.plan import PhaseSettings
from thaw.head import linear

# name, image size, layer group, the layer whose output that is, the dimensions of its places: the
# layers by the models' printed structure
LAYERS = [
    ("resnet18", 64, "conv1", "maxpool", (2, 3)),
    ("resnet18", 64, "layer2", "layer2", (2, 3)),
    ("vgg16", 32, "features.24-28", "avgpool", (2, 3)),
    ("vgg16", 32, "classifier.0", "classifier.2", ()),
    ("squeezenet1_0", 64, "features.0", "features.2", (2, 3)),
    ("mobilenet_v2", 64, "features.4-6", "features.6", (2, 3)),
    ("densenet121", 64, "features.denseblock1", "features.denseblock1", (2, 3)),
    ("convnext_tiny", 64, "features.2-3", "features.3", (2, 3)),
    ("swin_t", 64, "features.2-3", "features.3", (1, 2)),
    ("vit_b_16", 32, "encoder.layers.encoder_layer_3", "encoder.layers.encoder_layer_3", (1,)),
]


def output_of(model: nn.Module, layer: str, images: Tensor) -> Tensor:
    """What a layer of the whole model gives."""
    found: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda module, inputs, output: found.append(output)
    )
    with torch.no_grad():
        model.eval()(images)
    hook.remove()
    return found[0]


@pytest.mark.parametrize(("name", "size", "group", "layer", "places"), LAYERS)
def test_it_gives_what_the_whole_model_has_there(
    name: str, size: int, group: str, layer: str, places: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    whole = torchvision_backbone(name, None, size)
    images = torch.rand(2, 3, size, size)
    expected = output_of(whole.body, layer, images)
    expected = expected.mean(places) if places else expected
    short = cut(whole, group)
    with torch.no_grad():
        features = short.body.eval()(images)
    assert torch.equal(features, expected)
    assert features.shape == (2, short.out_features)
    assert short.groups[-1].name == group
    assert short.name == f"{name} up to {group}"


ALL = torchvision.models.list_models(module=torchvision.models)
ALL.remove("regnet_y_128gf")  # 2.6 GB of what regnet_y_32gf shows as well
# one of each family that is not above
FEW = {"alexnet", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v3_small",
       "regnet_y_400mf", "shufflenet_v2_x0_5", "swin_v2_t", "vgg11_bn"}  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in ALL]
)
def test_every_model_can_be_cut_in_the_middle(name: str) -> None:
    """Every parameter that is left is in one group; what is cut off is neither there nor run."""
    device = "cpu" if name.startswith("regnet") else "meta"  # those compute their widths with torch
    with torch.device(device):
        whole = torchvision_backbone(name, None)
        before = {group.name: len(group.parameters) for group in whole.groups}
        size = sum(value.numel() for value in whole.body.parameters())
        middle = whole.groups[len(whole.groups) // 2].name
        own = {id(module) for module in whole.body.modules()}  # some have identities of their own
        short = cut(whole, middle)
        model = Classifier(short, linear(short.out_features, 5))  # checks the cover
        for module in whole.body.modules():
            if isinstance(module, nn.Identity) and id(module) not in own:
                module.register_forward_pre_hook(lambda *_: pytest.fail("run behind the cut"))
        images = torch.zeros(2, 3, short.input_spec.size, short.input_spec.size)
        assert model.eval()(images).shape == (2, 5)
    kept = {group.name: len(group.parameters) for group in short.groups}
    assert kept == {name: before[name] for name in kept}
    assert list(before)[len(kept) - 1] == middle
    assert 0 < sum(value.numel() for value in short.body.parameters()) < size


def test_as_many_channels_as_pixels() -> None:
    """Swin's first stage at 384 pixels gives (N, 96, 96, 96): pixels, pixels, channels."""
    with torch.device("meta"):
        short = cut(torchvision_backbone("swin_t", None, 384), "features.0-1")
    assert short.body.places == (1, 2)
    assert short.out_features == 96


def test_a_module_means_its_last_group() -> None:
    with torch.device("meta"):
        whole = torchvision_backbone("resnet18", None, granularity="block")
        assert cut(whole, "layer2").groups[-1].name == "layer2.1"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("layer9", r"features_from=layer9: no such layer group.*did you mean .*layer1, layer2"),
        ("layer4", r"features_from=layer4: has no effect, since layer4 is the last .*conv1, layer"),
    ],
)
def test_unknown_and_idle_groups(name: str, words: str) -> None:
    with torch.device("meta"), pytest.raises(ConfigError, match=rf"^finetune\.{words}"):
        cut(torchvision_backbone("resnet18", None), name)


def test_a_layer_without_a_tensor_is_refused() -> None:
    """An attention gives a pair."""
    with torch.device("meta"):
        whole = torchvision_backbone("vit_b_32", None, granularity="layer")
        first = whole.groups[0]
        alone = replace(first, modules=("encoder.layers.encoder_layer_0.self_attention",))
        with pytest.raises(ConfigError, match=r"gives no tensor .*granularity=block"):
            cut(replace(whole, groups=(alone, *whole.groups[1:])), first.name)


def test_the_plan_is_of_a_body_that_was_cut() -> None:
    settings = PhaseSettings(lr=1e-3)
    whole = small_backbone()
    groups = Classifier(whole, linear(8, 4)).groups
    with pytest.raises(ConfigError, match=r"features_from=low: the body goes on to deep"):
        modes.feature_extraction(groups, 3, frozen=settings, features_from="low")
    short = cut(small_backbone(), "low")
    groups = Classifier(short, linear(short.out_features, 4)).groups
    plan = modes.feature_extraction(groups, 3, frozen=settings, features_from="low")
    assert plan.groups == ("conv", "low", HEAD)


def test_features_of_another_cut_have_another_name(tmp_path: Path) -> None:
    """Also where no weight tells them apart: behind a layer, or behind its activation."""
    dataset = PhotoDataset(Photos((), ()), nn.Identity())

    def name(backbone: Backbone) -> dict[str, Any]:
        return fingerprint(backbone.body, dataset, None, views=1, precision="32-true",
                           device=torch.device("cpu"))  # fmt: skip

    whole = small_backbone()
    one, two = (cut(copy.deepcopy(whole), group) for group in ("low", "middle"))
    assert name(one) == name(cut(copy.deepcopy(whole), "low"))
    assert len({str(name(backbone)) for backbone in (whole, one, two)}) == 3
    other = cut(copy.deepcopy(whole), "low")
    other.body.last = "low.0"
    assert name(other) != name(one)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run(photos: Path, tmp_path: Path, capsys: Any, compiled: bool) -> None:
    """On cached features and on photos; the plan says so; only what is left is saved."""
    accuracies = []
    for cached in ("true", "false"):
        results = train.run(configuration(
            tmp_path / cached, *SMALL, f"data.root={photos}", "finetune=feature_extraction",
            "finetune.features_from=layer2", f"finetune.cache_features={cached}",
            "augment=none", "trainer.max_epochs=6", "finetune.frozen.lr=0.1",
            f"compile={compiled}", f"paths.cache_dir={tmp_path / 'cache'}",
        ))  # fmt: skip
        accuracies.append(results["test/acc"])
    printed = capsys.readouterr().out
    assert "backbone tiny up to layer2, random" in printed
    assert "\nlayer2 " in printed
    assert "layer3" not in printed
    assert accuracies[0] == accuracies[1] > 0.5
    state = torch.load(results["best_checkpoint"], weights_only=True)["state_dict"]
    assert state["classifier.head.weight"].shape == (3, 40)
    assert not any("layer3" in name or "layer4" in name for name in state)


def test_unknown_groups_stop_the_run(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features_from=layer7: no such.*layer1"):
        train.run(configuration(
            tmp_path, *SMALL, f"data.root={photos}", "finetune=feature_extraction",
            "finetune.features_from=layer7",
        ))  # fmt: skip


def test_there_is_no_body_to_save(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"save_backbone=.*features_from leaves no whole body"):
        train.run(configuration(
            tmp_path, *SMALL, f"data.root={photos}", "finetune=feature_extraction",
            "finetune.features_from=layer2", f"save_backbone={tmp_path}/body.safetensors",
        ))  # fmt: skip


def test_it_can_be_compiled_and_exported() -> None:
    """The exception leaves no trace in a graph: one whole graph, nothing falls back to Python."""
    body = cut(small_backbone(), "middle").body.eval()
    images = torch.rand(2, 3, SPEC.size, SPEC.size)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = body(images)
        compiled = torch.compile(body, backend="eager", fullgraph=True)
        assert torch.equal(compiled(images), expected)
        program = torch.export.export(body, (images,), strict=True)  # False runs the exception
        assert torch.allclose(program.module()(images), expected, atol=1e-6)
