"""timm's models as backbones: its input spec, its groups in its order, its layer decay."""

import re
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from order import reads
from torch import Tensor, nn
from torch.nn import functional

from thaw.backbones.backbone import Backbone
from thaw.backbones.groups import Granularity, LayerGroup
from thaw.backbones.rebuild import without_values
from thaw.backbones.timm_backbone import declared_licence, timm_backbone
from thaw.classifier import Classifier
from thaw.errors import ConfigError, DownloadError
from thaw.finetune.builder import layer_rates
from thaw.finetune.plan import Phase
from thaw.head import linear

# Small ones of each family, with a size in pixels that they take, and D: written down from their
# papers and model cards.
FAMILIES = {
    "resnet18": (64, 512),
    "convnext_atto": (64, 320),
    "vit_small_patch14_reg4_dinov2": (56, 384),
    "efficientnet_b0": (64, 1280),
    "vit_tiny_patch16_224": (64, 192),
    "swin_tiny_patch4_window7_224": (64, 768),
    "mobilenetv3_small_050": (64, 1024),
    "mobilenetv2_050": (64, 1280),
    "maxvit_tiny_tf_224": (64, 512),
}
FAST = ("resnet18", "vit_small_patch14_reg4_dinov2")
SLOW = ("convnext_atto", "swin_tiny_patch4_window7_224")
EACH = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)
                 + [pytest.mark.every] * (name not in FAST + SLOW))
    for name in FAMILIES
]  # fmt: skip


@pytest.fixture(scope="module")
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is not installed: pip install -e '.[timm]'")


def random_one(name: str, granularity: Granularity = "stage") -> Backbone:
    torch.manual_seed(0)
    return timm_backbone(name, None, FAMILIES[name][0], granularity)


@pytest.mark.parametrize("name", EACH)
def test_a_family_trains(name: str, timm: Any) -> None:
    """One real step: features (N, D), a gradient for every parameter, and every group moves."""
    size, features = FAMILIES[name]
    backbone = random_one(name)
    assert backbone.out_features == features
    model = Classifier(backbone, linear(features, 3, init="normal"))
    images = torch.rand(4, 3, size, size)  # N 3 H W
    assert model.features(images).shape == (4, features)
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    functional.cross_entropy(model.train()(images), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    assert all(value.grad is not None for value in model.parameters())
    for group, named in model.group_parameters():
        assert any(not torch.equal(value, before[key]) for key, value in named), group.name


@pytest.mark.parametrize("granularity", ["stage", "block", "layer"])
@pytest.mark.parametrize("name", EACH)
def test_groups_follow_the_real_order_of_execution(
    name: str, granularity: Granularity, timm: Any
) -> None:
    with without_values():
        backbone = random_one(name, granularity)
    place = reads(backbone.body, FAMILIES[name][0])
    every = sorted(key for key, _ in backbone.body.named_parameters())
    assert sorted(place) == every
    assert not any(f"{group.name}.".startswith("head.") for group in backbone.groups)  # thaw's
    assert sorted(key for group in backbone.groups for key in group.parameters) == every
    for before, after in pairwise(backbone.groups):
        last = max(before.parameters, key=place.__getitem__)
        first = min(after.parameters, key=place.__getitem__)
        assert place[last] < place[first], (last, first)


@pytest.mark.parametrize(
    ("name", "size", "merged"),
    [
        ("resnet18", 64, ()),
        ("vit_tiny_patch16_224", 16, ()),
        ("convnext_atto", 64, ("head.norm.",)),  # timm gives this norm the rate of the head
        pytest.param("swin_tiny_patch4_window7_224", 64, (), marks=pytest.mark.slow),
    ],
)
def test_rates_are_those_of_timms_layer_decay(
    name: str, size: int, merged: tuple[str, ...], timm: Any
) -> None:
    from timm.optim import param_groups_layer_decay

    decay = 0.5
    with without_values():
        backbone = timm_backbone(name, None, size, "block")
        whole = timm.create_model(name)
    rates = layer_rates([*backbone.groups, LayerGroup("head")], Phase(lr=1.0, lr_decay=decay))
    groups = param_groups_layer_decay(whole, layer_decay=decay)
    scales = {id(weight): group["lr_scale"] for group in groups for weight in group["params"]}
    known = {key: scales[id(weight)] for key, weight in whole.named_parameters()}
    for group in backbone.groups:
        for key in group.parameters:
            expected = decay if key.startswith(merged or ("-",)) else known[key]
            assert rates[group.name] == pytest.approx(expected), key


def test_the_input_spec_is_timms(timm: Any) -> None:
    """Against timm's own evaluation transform."""
    spec = timm_backbone("convnext_atto.d2_in1k", None).input_spec
    from timm.data import create_transform, resolve_model_data_config

    with without_values():
        model = timm.create_model("convnext_atto.d2_in1k")
    resize, crop, _, norm = create_transform(**resolve_model_data_config(model)).transforms
    assert (spec.size, spec.resize) == (crop.size[0], resize.size)
    assert spec.interpolation == resize.interpolation
    assert spec.mean == pytest.approx(norm.mean.tolist(), abs=1e-6)
    assert spec.std == pytest.approx(norm.std.tolist(), abs=1e-6)


def saved(timm: Any, name: str, path: Path, **options: Any) -> dict[str, Tensor]:
    """Weights that nobody trained, as timm's users save them."""
    torch.manual_seed(1)
    state = timm.create_model(name, **options).state_dict()
    torch.save(state, path)
    return state


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("resnet18", 7),
        pytest.param("convnext_atto", 1000, marks=pytest.mark.slow),
        pytest.param("swin_tiny_patch4_window7_224", 7, marks=pytest.mark.slow),
    ],
)
def test_weights_by_path(name: str, classes: int, tmp_path: Path, timm: Any) -> None:
    state = saved(timm, name, tmp_path / "a.pth", num_classes=classes)
    backbone = timm_backbone(name, str(tmp_path / "a.pth"))
    for key, value in backbone.body.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert "your own file" in backbone.licence
    assert not hasattr(backbone.body, "fc") or isinstance(backbone.body.fc, nn.Identity)


def test_the_authors_own_names_are_converted(tmp_path: Path, timm: Any) -> None:
    """DINOv2 with registers as Meta published it: other names, a place for the class token."""
    name = "vit_small_patch14_reg4_dinov2"
    state = saved(timm, name, tmp_path / "a.pth", img_size=56)
    meta = {key: value for key, value in state.items() if key != "reg_token"}
    meta["register_tokens"], meta["mask_token"] = state["reg_token"], torch.zeros(1, 384)
    place = torch.full((1, 1, 384), 0.25)
    meta["pos_embed"] = torch.cat([place, state["pos_embed"]], dim=1)
    torch.save(meta, tmp_path / "meta.pth")
    body = timm_backbone(name, str(tmp_path / "meta.pth"), 56).body
    assert torch.equal(body.get_parameter("reg_token"), state["reg_token"])
    assert torch.equal(body.get_parameter("cls_token"), state["cls_token"] + 0.25)
    assert torch.equal(body.get_parameter("pos_embed"), state["pos_embed"])


@pytest.mark.slow
def test_a_last_layer_of_another_name_is_converted(tmp_path: Path, timm: Any) -> None:
    """Swin as Microsoft published it; a last layer of timm's name would stop the conversion."""
    name = "swin_tiny_patch4_window7_224"
    state = saved(timm, name, tmp_path / "a.pth")
    theirs = {
        re.sub(r"layers\.(\d)\.downsample", lambda at: f"layers.{int(at[1]) - 1}.downsample", key)
        .replace("head.fc.", "head."): value
        for key, value in state.items()
    }  # fmt: skip
    torch.save(theirs, tmp_path / "theirs.pth")
    body = timm_backbone(name, str(tmp_path / "theirs.pth")).body.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in body.items())


def test_weights_of_another_model_are_refused(tmp_path: Path, timm: Any) -> None:
    saved(timm, "resnet18", tmp_path / "a.pth")
    with pytest.raises(ConfigError, match=r"these are not weights of timm/resnet34 \(missing: "):
        timm_backbone("resnet34", str(tmp_path / "a.pth"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet81"}, ["backbone.name=resnet81", "resnet18", "thaw models"]),
        ({"name": "resnet18.nobodys"}, ["backbone.name=resnet18.nobodys", "a1_in1k"]),
        ({"weights": "IMAGENET1K_V1"}, ["backbone.weights=IMAGENET1K_V1", "timm/resnet18.TAG"]),
        (
            {"name": "vit_tiny_patch16_224", "image_size": 8},
            ["backbone.image_size=8", "cannot take this size", "image_size=null"],
        ),
    ],
)
def test_bad_settings_are_named(arguments: dict, words: list[str], timm: Any) -> None:
    with pytest.raises(ConfigError) as error:
        timm_backbone(**{"name": "resnet18", "weights": None, **arguments})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_weights_that_timm_does_not_have(timm: Any) -> None:
    with pytest.raises(ConfigError, match=r"backbone\.weights=DEFAULT: timm has no weights of "):
        timm_backbone("resnet200.untrained")


def test_without_network_the_remedies_are_named(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """timm's own downloader, which finds nobody there."""
    from timm.models import _builder, _hub

    def nowhere(*_: Any, **__: Any) -> None:
        raise OSError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(_hub, "hf_hub_download", nowhere)
    monkeypatch.setattr(_hub, "_has_hf_hub", True)
    monkeypatch.setattr(_builder, "load_state_dict_from_url", nowhere)
    with pytest.raises(DownloadError) as error:
        timm_backbone("resnet18.a1_in1k", image_size=64)
    message = str(error.value)
    for word in ("timm/resnet18.a1_in1k", "name resolution", "backbone.weights=PATH", "data=demo"):
        assert word in message
    assert "\n" not in message


def test_licences_are_those_of_timms_records(timm: Any) -> None:
    record = timm.get_pretrained_cfg("convnext_nano.in12k").to_dict()
    assert declared_licence(record) == "apache-2.0"
    assert declared_licence({}) == declared_licence({"license": "unknown"})
    assert declared_licence({}) == "no licence declared by timm"


def test_without_timm_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        ConfigError, match=r"backbone=timm: .*not installed.*pip install -e '\.\[timm"
    ):
        timm_backbone("resnet18", None)
