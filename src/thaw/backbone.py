"""A name -> a pretrained body, its input spec and its layer groups.

The backbone owns the preprocessing that its weights were trained with, so image size, mean, std
and interpolation stand in no configuration file.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torchvision.models
from torch import nn
from torchvision.models import WeightsEnum
from torchvision.transforms import InterpolationMode

from thaw import cnn, groups, tiny, tracing
from thaw.errors import ConfigError, near
from thaw.groups import Granularity, LayerGroup
from thaw.pretrained import is_path, load_into, official_file, read_weights

IMAGENET_LICENCE = (
    "weights: BSD-3-Clause (torchvision), trained on ImageNet-1k, whose pictures are licensed for "
    "non-commercial research only"
)


@dataclass(frozen=True)
class InputSpec:
    """What a backbone wants to see.

    Attributes:
        size: side of the square input, in pixels.
        resize: short side of the picture before the centre crop of `size`, in pixels.
        mean, std: of each channel (R, G, B), for values in 0-1.
        interpolation: used when resizing.
    """

    size: int
    resize: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def at(self, size: int) -> "InputSpec":
        """The same spec at another input size, with the same share of the picture cropped off."""
        return replace(self, size=size, resize=round(size * self.resize / self.size))


@dataclass(frozen=True)
class Backbone:
    """A body without its last layer.

    Attributes:
        name: as the user chose it.
        body: (N, 3, H, W) -> (N, D).
        out_features: D.
        input_spec: what the body wants to see.
        groups: layer groups, stem first; every parameter of the body is in exactly one.
        licence: of the weights, one line.
        weights: what was loaded, one line ("random" for none).
    """

    name: str
    body: nn.Module
    out_features: int
    input_spec: InputSpec
    groups: tuple[LayerGroup, ...]
    licence: str
    weights: str

    @property
    def is_convolutional(self) -> bool:
        """Whether most weights are convolutions: such bodies run faster in channels_last."""
        convolutions = sum(
            module.weight.numel() for module in self.body.modules() if isinstance(module, nn.Conv2d)
        )
        return convolutions > 0.5 * sum(weight.numel() for weight in self.body.parameters())


def torchvision_backbone(
    name: str,
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """Any of torchvision's classification models.

    Args:
        name: as in `torchvision.models.list_models(module=torchvision.models)`.
        weights: "DEFAULT" (the best that torchvision has), a name from the model's weights enum
            ("IMAGENET1K_V1"), a path (.pth, .pt or .safetensors), or None for random weights.
        image_size: side of the input in pixels; None takes the size the weights were trained at.
        granularity: of the layer groups, see `groups.split`.

    Raises:
        ConfigError: an unknown name or weights, a file that does not fit, a size the model cannot
            take.
        DownloadError: the weights are not here and cannot be fetched.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ConfigError(
            f"backbone.name={name}: no such torchvision model{near(name, known)}. "
            "`python train.py --help` lists them."
        )
    enum = torchvision.models.get_model_weights(name)
    entry = _choose(name, weights, enum)
    # random weights and weights by path: the preprocessing of the default ones
    preset = (entry or enum.DEFAULT).transforms()  # pyright: ignore[reportAttributeAccessIssue]
    spec = InputSpec(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation,
    )
    if image_size is not None:
        spec = spec.at(image_size)
    options: dict[str, Any] = {}
    if name.startswith("vit_"):
        options["image_size"] = spec.size  # its position embedding has one place a patch
    elif name in ("googlenet", "inception_v3"):
        # as torchvision builds them for its weights, which were made for other mean and std
        options.update(transform_input=weights is not None, init_weights=weights is None)

    def make() -> nn.Module:
        return torchvision.models.get_model(name, weights=None, **options)

    if entry is not None:
        file = official_file(entry.url)
        licence = entry.meta.get("license", IMAGENET_LICENCE)
    elif weights is not None:
        file, licence = weights, f"weights: {weights}, licence unknown to thaw"
    else:
        file, licence = None, "weights: random"
    label = "random" if weights is None else (entry.name if entry is not None else weights)
    return _assemble(name, make, str(file) if file else None, spec, licence, label, granularity)


def tiny_backbone(
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """thaw's own small residual net, trained by `python train.py experiment=demo_pretrain`.

    Args:
        weights: "DEFAULT" (shipped with thaw), a path, or None for random weights.
        image_size: side of the input in pixels; None takes the size it was trained at.
        granularity: of the layer groups, see `groups.split`.
    """
    if weights is not None and weights != "DEFAULT" and not is_path(weights):
        raise ConfigError(
            f"backbone.weights={weights}: backbone=tiny has DEFAULT, a path (.pth, .safetensors) "
            "or null"
        )
    own = tiny.INPUT
    spec = InputSpec(own.size, own.resize, own.mean, own.std)
    if image_size is not None:
        spec = spec.at(image_size)
    file = str(tiny.WEIGHTS) if weights == "DEFAULT" else weights
    licence = "weights: random" if weights is None else "weights: MIT (thaw, generated pictures)"

    def make() -> nn.Module:
        return tiny.TinyResNet(num_classes=1)  # the last layer is taken off

    return _assemble("tiny", make, file, spec, licence, weights or "random", granularity)


def cnn_backbone(
    weights: str | None = None,
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """The small convolutional net of `cnn`, for finetune=from_scratch.

    Args:
        weights: a path, or None for random weights; none come with it.
        image_size: side of the input in pixels; None: 128.
        granularity: of the layer groups, see `groups.split`.
    """
    if weights is not None and not is_path(weights):
        raise ConfigError(
            f"backbone.weights={weights}: backbone=cnn has a path (.pth, .safetensors) or null"
        )
    size = 128 if image_size is None else image_size
    if cnn.side_left(size) < 1:
        raise ConfigError(f"backbone.image_size={size}: backbone=cnn wants 22 or more pixels")
    # the usual crop, and means and deviations that suit any pictures: there are no weights to suit
    spec = InputSpec(224, 256, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)).at(size)
    licence = "weights: random" if weights is None else f"weights: {weights}, licence unknown"

    def make() -> nn.Module:
        return cnn.SmallCnn(num_classes=1, size=size)  # the last layer is taken off

    return _assemble("cnn", make, weights, spec, licence, weights or "random", granularity)


def _assemble(
    name: str,
    make: Callable[[], nn.Module],
    file: str | None,
    spec: InputSpec,
    licence: str,
    label: str,
    granularity: Granularity,
) -> Backbone:
    """Builds the model, loads its weights, takes its last layer off and splits the rest."""
    model = make()
    try:
        seen = tracing.trace(model, spec.size)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise ConfigError(
            f"backbone.image_size={spec.size}: {name} cannot take this size ({error}). "
            "Leave backbone.image_size=null for the size it was made for, or choose a larger one."
        ) from error
    last = tracing.last_layer(model, seen)
    if file is not None:
        load_into(model, read_weights(file), last_layer=last, name=name, source=file)
    for auxiliary in tracing.unused(model, seen):
        setattr(model, auxiliary, None)
        model.aux_logits = False  # pyright: ignore[reportArgumentType]  a plain flag there
    parent, _, child = last.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Identity())
    features = tracing.run_without_data(model, spec.size)  # (N, D)
    if features.ndim != 2:
        raise ConfigError(
            f"backbone.name={name}: its body gives {tuple(features.shape)}, not (N, D) features"
        )
    return Backbone(
        name=name,
        body=model,
        out_features=features.shape[1],
        input_spec=spec,
        groups=groups.split(model, seen, granularity),
        licence=licence,
        weights=label,
    )


def _choose(name: str, weights: str | None, enum: type[WeightsEnum]) -> WeightsEnum | None:
    """The entry of torchvision's enum that `weights` names; None for a path or for no weights."""
    if weights is None or is_path(weights):
        return None
    if weights in enum.__members__:
        return enum[weights]
    names = sorted({*enum.__members__, "DEFAULT"})
    raise ConfigError(
        f"backbone.weights={weights}: {name} has {', '.join(names)}; or give a path "
        f"(.pth, .pt, .safetensors), or null for random weights{near(weights, names)}"
    )
