"""timm's models as backbones: an extra, pip install '.[timm]'.

timm says itself what its weights want to see (`pretrained_cfg`), how the last layer comes off
(`reset_classifier`) and which parameters go together in which order (`group_matcher`). Its layer
decay is not used: that writes rates which only timm's own schedulers read.
"""

import importlib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from torchvision.transforms import InterpolationMode

from thaw.backbones import groups, licences, tracing
from thaw.backbones.backbone import Backbone, InputSpec, make_traced, width
from thaw.backbones.groups import LayerGroup
from thaw.backbones.parts import Granularity, only_vectors
from thaw.backbones.pretrained import differences, is_path, read_weights
from thaw.backbones.tracing import Trace
from thaw.errors import ConfigError, DownloadError, near


def timm_backbone(
    name: str,
    weights: str | None = "DEFAULT",
    image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:
    """Any of timm's models.

    Args:
        name: as in `timm.list_models()`, with or without the tag of its weights
            (convnext_nano.in12k).
        weights: "DEFAULT" (those of the tag, else timm's first), a path (.pth, .pt or
            .safetensors), or None for random weights.
        image_size: side of the input in pixels; None takes the size the weights were trained at.
        granularity: of the layer groups. "stage" and "block" are timm's own, coarse and fine; for
            "module" and "layer" see `groups.split`.

    Raises:
        ConfigError: timm is not installed, an unknown name or weights, a file that does not fit, a
            size the model cannot take.
        DownloadError: the weights are not here and cannot be fetched.
    """
    cfg = pretrained_cfg(name)
    _check_weights(name, weights, cfg)
    spec = input_spec(cfg)
    if image_size is not None:
        spec = spec.at(image_size)
    full_name = f"timm/{name}"
    make = partial(create, name, cfg)
    with tracing.without_values():
        _, seen = make_traced(full_name, lambda size: _without_last_layer(make(size)), spec.size)
    label = weights or "random"
    if weights is None:
        model, licence = make(spec.size), licences.RANDOM
    elif weights == "DEFAULT":
        try:
            model = make(spec.size, {"pretrained": True})
        except Exception as error:  # timm's downloader lets out those of four libraries
            raise _not_fetched(name, cfg, error) from error
        licence, label = licences.of_timm(cfg).line, str(cfg.get("tag") or "DEFAULT")
    else:
        model, licence = _load(name, cfg, spec.size, weights), licences.of_file(weights)
    taken_off = last_layer(model, cfg)
    body = _without_last_layer(model)
    layer_groups = ordered_groups(body, seen, granularity)
    features = width(full_name, body, spec.size)
    return Backbone(
        full_name, body, features, spec, layer_groups, licence, label, taken_off, "timm"
    )  # fmt: skip


def import_timm() -> Any:
    """timm.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"backbone=timm: a package is not installed ({error}). timm is an extra of thaw's: "
            "pip install '.[timm]'"
        ) from error


def pretrained_cfg(name: str) -> dict[str, Any]:
    """What timm knows of the weights of a model, without building it.

    Raises:
        ConfigError: no such model, or no such weights of it.
    """
    timm = import_timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(name) or "/" in name:
        raise ConfigError(
            f"backbone.name={name}: no such model of timm{near(architecture, timm.list_models())}. "
            "thaw models 'timm/*resnet*' lists those whose name has resnet in it"
        )
    try:
        found = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        known = timm.list_models(architecture, include_tags=True)
        tags = ", ".join(other.partition(".")[2] for other in known)
        raise ConfigError(
            f"backbone.name={name}: timm has no such weights of {architecture}; it has {tags}"
        ) from error
    return found.to_dict()


def input_spec(cfg: Mapping[str, Any]) -> InputSpec:
    """What the weights want to see; where timm squeezes pictures into a square, thaw crops them.

    Raises:
        ConfigError: inputs that are no square colour pictures.
    """
    data = importlib.import_module("timm.data").resolve_data_config(pretrained_cfg=dict(cfg))
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:
        raise ConfigError(
            f"backbone.name={cfg['architecture']}: wants {channels} channels of {height} x {width} "
            "pixels; thaw gives square colour pictures"
        )
    return InputSpec(
        size=height,
        resize=math.floor(height / data["crop_pct"]),  # as timm's own transform has it
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=InterpolationMode(data["interpolation"]),
    )


def create(
    name: str, cfg: Mapping[str, Any], size: int, weights: Mapping[str, Any] | None = None
) -> nn.Module:
    """The whole model for inputs of `size` pixels; without `weights` it has random ones."""
    fixed = {"img_size": size} if cfg.get("fixed_input_size") else {}
    return import_timm().create_model(name, **fixed, **(weights or {}))


def last_layer(model: nn.Module, cfg: Mapping[str, Any]) -> str:
    """Where the class scores are made, as "fc (Linear)"; nothing where timm has no last layer."""
    names = cfg.get("classifier") or ()
    return ", ".join(
        tracing.described(model, name)
        for name in ((names,) if isinstance(names, str) else names)
        if not isinstance(model.get_submodule(name), nn.Identity)
    )


def ordered_groups(
    body: nn.Module, seen: Trace, granularity: Granularity = "stage"
) -> tuple[LayerGroup, ...]:
    """Layer groups in timm's order, stem first; norms that stand alone join the group before.

    A model without an order of timm's is split as any other.
    """
    matcher = getattr(body, "group_matcher", None)
    if matcher is None or granularity not in ("stage", "block"):
        return groups.split(body, seen, granularity)
    group_parameters = importlib.import_module("timm.models").group_parameters
    layers = group_parameters(body, matcher(coarse=granularity == "stage"))
    weights = dict(body.named_parameters())
    owned: list[list[str]] = []
    for _, names in sorted(layers.items()):
        if owned and only_vectors(weights[name] for name in names):
            owned[-1] += names
        else:
            owned.append(list(names))
    parts = [sorted(_modules_of(body, set(names)), key=seen.first_run) for names in owned]
    return groups.gather(body, seen, parts, [tuple(names) for names in owned])


def _modules_of(body: nn.Module, parameters: set[str], inside: str = "") -> list[str]:
    """The largest modules all of whose parameters are among these."""
    found: list[str] = []
    for child, module in body.get_submodule(inside).named_children():
        name = f"{inside}.{child}" if inside else child
        own = {f"{name}.{parameter}" for parameter, _ in module.named_parameters()}
        if own and own <= parameters:
            found.append(name)
        elif own & parameters:
            found += _modules_of(body, parameters, name)
    return found


def _without_last_layer(model: Any) -> nn.Module:
    model.reset_classifier(0)
    return model


def _check_weights(name: str, weights: str | None, cfg: Mapping[str, Any]) -> None:
    architecture = name.partition(".")[0]
    if weights is not None and weights != "DEFAULT" and not is_path(weights):
        raise ConfigError(
            f"backbone.weights={weights}: a model of timm has DEFAULT, a path (.pth, .pt, "
            f".safetensors) or null; other weights of it stand in the name: timm/{architecture}.TAG"
        )
    if weights == "DEFAULT" and not (cfg.get("url") or cfg.get("hf_hub_id") or cfg.get("file")):
        raise ConfigError(
            f"backbone.weights=DEFAULT: timm has no weights of {name}; give a path, or null for "
            "random ones"
        )


def _load(name: str, cfg: Mapping[str, Any], size: int, file: str) -> nn.Module:
    """The model with weights from a file: timm's own, its authors', or a body saved by thaw.

    timm converts what it knows, resizes position embeddings, and is strict. But the last layer
    may have other classes or be missing, since it is replaced: then its random one stands in.
    """
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in read_weights(file).items()
    }
    own = create(name, cfg, size).state_dict()
    heads = cfg.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    last = {key: value for key, value in own.items() if key.startswith(heads)}
    misfit = {key for key in last if key in state and state[key].shape != last[key].shape}
    errors: list[Exception] = []
    # the second for bodies: a last layer put in first would tell timm that the names are its own
    for names in (misfit, last):
        source = {"state_dict": state | {key: last[key] for key in names}, "label_offset": 0}
        try:
            model: Any = create(
                name, cfg, size, {"pretrained": True, "pretrained_cfg_overlay": source}
            )
        except Exception as error:  # whatever converting names that it does not know runs into
            errors.append(error)
        else:
            model.pretrained_cfg.pop("state_dict")  # else the weights stay in memory twice
            return model
    found = differences(own, state, heads) or str(errors[0]).partition("\n")[0]
    raise ConfigError(
        f"backbone.weights={file}: these are not weights of timm/{name} ({found})"
    ) from errors[0]


def _not_fetched(name: str, cfg: Mapping[str, Any], error: Exception) -> DownloadError:
    place = cfg.get("hf_hub_id") or cfg.get("url")
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    return DownloadError(
        f"Could not get the weights of timm/{name} from {place}: {cause[:400]}. What to do: give "
        "a file with backbone.weights=PATH, or train from random weights with "
        "backbone.weights=null, or try thaw offline with backbone=tiny data=demo."
    )
