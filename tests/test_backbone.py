"""A name -> body, input spec and weights; what does not fit is said."""

from pathlib import Path

import pytest
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import nn
from torchvision.models import RegNet_Y_16GF_Weights, ResNet18_Weights, Swin_T_Weights

from thaw.backbones.pretrained import read_weights
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.classifier import Classifier
from thaw.errors import ConfigError, DownloadError


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a ResNet-18 that nobody trained, as torchvision saves them."""
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


def reference(file: Path) -> nn.Module:
    model = torchvision.models.resnet18(weights=None)
    model.load_state_dict(torch.load(file, weights_only=True))
    model.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return model.eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_by_path(resnet_file: Path, tmp_path: Path, suffix: str) -> None:
    file = resnet_file
    if suffix == ".safetensors":
        file = tmp_path / "resnet18.safetensors"
        save_file(torch.load(resnet_file, weights_only=True), file)
    backbone = torchvision_backbone("resnet18", weights=str(file), image_size=64)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(backbone.body.eval()(images), reference(resnet_file)(images))
    assert backbone.out_features == 512


def test_weights_inside_a_checkpoint(resnet_file: Path, tmp_path: Path) -> None:
    state = torch.load(resnet_file, weights_only=True)
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(wrapped, tmp_path / "checkpoint.pth")
    backbone = torchvision_backbone("resnet18", str(tmp_path / "checkpoint.pth"), 64)
    assert torch.equal(backbone.body.get_parameter("conv1.weight"), state["conv1.weight"])


@pytest.mark.parametrize("kind", ["model folder", "checkpoint"])
def test_weights_of_a_thaw_model(resnet_file: Path, tmp_path: Path, kind: str) -> None:
    """The body of a model folder or of a run's checkpoint, without its head."""
    state = torch.load(resnet_file, weights_only=True)
    model = Classifier(torchvision_backbone("resnet18", str(resnet_file), 64), nn.Linear(512, 3))
    if kind == "model folder":
        file = tmp_path / "model.safetensors"
        save_file(model.state_dict(), file)
    else:
        file = tmp_path / "best.ckpt"
        named = {f"classifier.{name}": value for name, value in model.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": named, "record": {"a": [1.0]}}, file)
    body = torchvision_backbone("resnet18", str(file), 64).body
    assert all(torch.equal(value, state[name]) for name, value in body.state_dict().items())


def test_a_models_own_body_is_no_prefix(tmp_path: Path) -> None:
    """Some networks (TResNet) call a module of theirs "body", and another "head"."""
    whole = {"body.conv.weight": torch.ones(1), "head.fc.weight": torch.ones(2)}
    save_file(whole, tmp_path / "theirs.safetensors")
    assert read_weights(tmp_path / "theirs.safetensors", whole).keys() == whole.keys()
    trained = {"body.body.conv.weight": torch.ones(1), "head.weight": torch.ones(3)}
    save_file(trained, tmp_path / "ours.safetensors")
    assert list(read_weights(tmp_path / "ours.safetensors", whole)) == ["body.conv.weight"]


def test_a_head_of_other_classes_is_dropped(tmp_path: Path) -> None:
    model = torchvision.models.resnet18(weights=None, num_classes=7)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    assert torchvision_backbone("resnet18", str(tmp_path / "seven.pth"), 64).out_features == 512


def test_old_densenet_names(tmp_path: Path) -> None:
    """torchvision's own DenseNet files still have a dot that its DenseNet lost."""
    model = torchvision.models.densenet121(weights=None)
    state = {
        name.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value
        for name, value in model.state_dict().items()
    }
    assert any("norm.1." in name for name in state)
    torch.save(state, tmp_path / "old.pth")
    backbone = torchvision_backbone("densenet121", str(tmp_path / "old.pth"), 64)
    name = "features.denseblock1.denselayer1.conv2.weight"
    assert torch.equal(backbone.body.get_parameter(name), model.get_parameter(name))


def test_auxiliary_heads_are_left_out(tmp_path: Path) -> None:
    """GoogLeNet's own files have two."""
    model = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    body = torchvision_backbone("googlenet", str(tmp_path / "a.pth"), 64).body
    assert not any("aux" in name for name, _ in body.named_modules())
    assert torch.equal(
        body.get_parameter("conv1.conv.weight"), model.get_parameter("conv1.conv.weight")
    )


@pytest.mark.slow
def test_vit_takes_another_size(tmp_path: Path) -> None:
    """Its position embedding is interpolated, as torchvision does."""
    torch.manual_seed(0)
    model = torchvision.models.vit_b_32(weights=None)
    nn.init.normal_(model.encoder.pos_embedding)
    torch.save(model.state_dict(), tmp_path / "vit.pth")
    backbone = torchvision_backbone("vit_b_32", str(tmp_path / "vit.pth"), image_size=96)
    embedding = backbone.body.get_parameter("encoder.pos_embedding")
    assert embedding.shape == (1, 1 + 3 * 3, 768)
    assert torch.equal(embedding[:, 0], model.encoder.pos_embedding[:, 0])


def test_input_spec_is_the_weights_own() -> None:
    spec = torchvision_backbone("swin_t", weights=None).input_spec
    preset = Swin_T_Weights.DEFAULT.transforms()
    assert (spec.size, spec.resize) == (preset.crop_size[0], preset.resize_size[0])
    assert spec.mean == tuple(preset.mean)
    assert spec.interpolation == preset.interpolation
    smaller = torchvision_backbone("resnet18", weights=None, image_size=112).input_spec
    crop = ResNet18_Weights.DEFAULT.transforms()
    assert smaller.size / smaller.resize == pytest.approx(
        crop.crop_size[0] / crop.resize_size[0], abs=0.01
    )


def test_code_in_a_weight_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # pyright: ignore[reportReturnType]

    torch.save({"conv1.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ConfigError, match=r"cannot be read as weights \(it needs \w+\)") as error:
        torchvision_backbone("resnet18", str(tmp_path / "evil.pth"))
    assert "weights_only" not in str(error.value)  # with which torch says that it would be run
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "resnet81"}, ["backbone.name=resnet81", "resnet18", "thaw models"]),
        ({"weights": "IMAGENET1K_V3"}, ["backbone.weights=IMAGENET1K_V3", "IMAGENET1K_V1", "null"]),
        ({"weights": "no/such.pth"}, ["backbone.weights=no/such.pth", "no such file"]),
        (  # a smallest size: 63
            {"name": "alexnet", "weights": None, "image_size": 8},
            ["backbone.image_size=8", "alexnet cannot take this size", "image_size=null"],
        ),
        (  # windows of 7 in every stage
            {"name": "maxvit_t", "weights": None, "image_size": 64},
            ["backbone.image_size=64", "partition", "image_size=null"],
        ),
    ],
)
def test_bad_settings_are_named(arguments: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        torchvision_backbone(**{"name": "resnet18", **arguments})
    assert all(word in str(error.value) for word in words), str(error.value)


def test_weights_of_another_model_are_refused(resnet_file: Path) -> None:
    with pytest.raises(ConfigError, match="not weights of resnet50") as error:
        torchvision_backbone("resnet50", str(resnet_file))
    assert "missing" in str(error.value)
    with pytest.raises(ConfigError, match="not weights of resnet34") as error:
        torchvision_backbone("resnet34", str(resnet_file))
    assert "layer1.2" in str(error.value)


def test_a_wrong_size_is_told_before_weights_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.backbones.torchvision_backbone.official_file", pytest.fail)
    with pytest.raises(ConfigError, match=r"backbone\.image_size=8: alexnet cannot take this "):
        torchvision_backbone("alexnet", image_size=8)


@pytest.mark.parametrize("name", [pytest.param("maxvit_t", marks=pytest.mark.slow), "swin_v2_t"])
def test_another_size_gives_features(name: str) -> None:
    """Models with windows or places for patches are built for the size."""
    with torch.device("meta"):
        backbone = torchvision_backbone(name, None, image_size=448)
        features = backbone.body.eval()(torch.zeros(2, 3, 448, 448))
    assert features.shape == (2, backbone.out_features)


def test_the_licence_line(monkeypatch: pytest.MonkeyPatch, resnet_file: Path) -> None:
    """What the publisher declares: torchvision does so for SWAG's weights only."""
    monkeypatch.setattr(
        "thaw.backbones.torchvision_backbone.official_file", lambda url: resnet_file
    )
    declared = RegNet_Y_16GF_Weights.IMAGENET1K_SWAG_E2E_V1.meta["license"]
    assert declared == "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"
    line = "weights: no licence declared by torchvision"
    assert torchvision_backbone("resnet18", image_size=64).licence == line
    monkeypatch.setitem(ResNet18_Weights.DEFAULT.meta, "license", declared)
    assert torchvision_backbone("resnet18", image_size=64).licence == f"weights: {declared}"
    own = torchvision_backbone("resnet18", str(resnet_file), 64).licence
    assert own == f"weights: your own file, {resnet_file}"
    assert torchvision_backbone("resnet18", None).licence == "weights: random"
    assert tiny_backbone().licence == "weights: MIT (thaw, generated pictures)"
    assert "for photos: backbone=resnet18" in tiny_backbone().weights  # else it trains on them


def test_without_network_the_remedies_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    nowhere = "http://127.0.0.1:9/resnet18-f37072fd.pth"  # port 9: nothing listens
    monkeypatch.setattr(ResNet18_Weights.DEFAULT.value, "url", nowhere)
    with pytest.raises(DownloadError) as error:
        torchvision_backbone("resnet18")
    for remedy in ("backbone.weights=PATH", "backbone.weights=null", "data=demo", str(tmp_path)):
        assert remedy in str(error.value)
