"""timm's models as backbones. timm is an extra of thaw: pip install -e '.[timm]'.

timm's records say what the weights expect and which parameters belong together (`group_matcher`).
"""

import importlib
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn
from torchvision.transforms import InterpolationMode

from thaw.backbones import groups, tracing
from thaw.backbones.backbone import Backbone, InputSpec, make_traced
from thaw.backbones.folding import fold
from thaw.backbones.groups import Granularity, LayerGroup, only_vectors
from thaw.backbones.pretrained import OFFLINE, Source, differences, own_source, read_weights
from thaw.backbones.rebuild import without_values
from thaw.backbones.tracing import Trace
from thaw.errors import ConfigError, DownloadError, near

Record = Mapping[str, Any]  # a `pretrained_cfg` of timm


def timm_backbone(
    name: str, weights: str | None = "DEFAULT", image_size: int | None = None,
    granularity: Granularity = "stage",
) -> Backbone:  # fmt: skip
    """Builds any of timm's models as a backbone.

    The arguments are those of `torchvision_backbone`, with these differences: `name` is one of
    `timm.list_models()`, with or without the tag of its weights (convnext_nano.in12k); "DEFAULT"
    weights are those of the tag, or timm's first; the groups "stage" and "block" are timm's own.
    """
    record = pretrained_cfg(name)
    full_name = f"timm/{name}"
    others = f"; other weights are timm/{name.partition('.')[0]}.TAG"
    source = own_source(weights, ["DEFAULT"], others)
    if source is None and not any(record.get(key) for key in ("url", "hf_hub_id", "file")):
        remedy = "give a path, or null for random ones"
        raise ConfigError(f"backbone.weights=DEFAULT: timm has no weights of {name}; {remedy}")
    spec = input_spec(record).at(image_size)
    make = partial(create, name, record)
    with without_values():  # a wrong size is told before anything is fetched
        _, seen = make_traced(full_name, lambda size: _without_last_layer(make(size)), spec.size)
    if source is None:
        label = str(record.get("tag") or "DEFAULT")
        source = Source(label, f"weights: {declared_licence(record)}")
        try:
            model = make(spec.size, pretrained=True)
        except Exception as error:  # timm's downloader raises the errors of four libraries
            cause = " ".join(f"{type(error).__name__}: {error}".split())[:400]
            place = f"{full_name} from {record.get('hf_hub_id') or record.get('url')}"
            message = f"Could not get the weights of {place}: {cause}. What to do: {OFFLINE}"
            raise DownloadError(message) from error
    else:
        model = _load(name, record, spec.size, weights) if weights else make(spec.size)
    body = _without_last_layer(model)
    parts = ordered_groups(body, seen, granularity)
    features = tracing.run_without_data(body, spec.size).shape[1]
    facts = source.licence, source.label, "timm", fold
    return Backbone(full_name, body, features, spec, parts, *facts)


def import_timm() -> Any:
    """Returns the package timm, or tells how to install it."""
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        remedy = "timm is an extra of thaw's: pip install -e '.[timm]'"
        raise ConfigError(f"backbone=timm: {error.name} is not installed. {remedy}") from error


def pretrained_cfg(name: str) -> dict[str, Any]:
    """Returns timm's record of the weights of a model, or raises ConfigError: it has none."""
    timm = import_timm()
    architecture = name.partition(".")[0]
    if not timm.is_model(name) or "/" in name:
        raise ConfigError(
            f"backbone.name={name}: no such model of timm{near(architecture, timm.list_models())}. "
            "thaw models 'timm/*resnet*' lists those whose name has resnet in it"
        )
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False).to_dict()
    except RuntimeError as error:
        known = timm.list_models(architecture, include_tags=True)
        tags = ", ".join(other.partition(".")[2] for other in known)
        raise ConfigError(
            f"backbone.name={name}: timm has no such weights of {architecture}; it has {tags}"
        ) from error


def declared_licence(record: Record) -> str:
    """The licence of the weights, as timm's record has it."""
    declared = record.get("license")
    return "no licence declared by timm" if declared in (None, "unknown") else str(declared)


def input_spec(record: Record) -> InputSpec:
    """What the weights expect. Where timm squeezes images into a square, thaw crops them."""
    data = importlib.import_module("timm.data").resolve_data_config(pretrained_cfg=dict(record))
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:
        raise ConfigError(
            f"backbone.name={record['architecture']}: expects {channels} channels of {height} x "
            f"{width} pixels; thaw gives square colour images"
        )
    resize = math.floor(height / data["crop_pct"])  # as in timm's own transform
    mean, std = tuple(data["mean"]), tuple(data["std"])
    return InputSpec(height, resize, mean, std, InterpolationMode(data["interpolation"]))


def create(name: str, record: Record, size: int, **options: Any) -> nn.Module:
    """Builds the whole model for inputs of `size` pixels, with random weights unless asked."""
    if record.get("fixed_input_size"):
        options["img_size"] = size
    return import_timm().create_model(name, **options)


def ordered_groups(
    body: nn.Module, seen: Trace, granularity: Granularity = "stage"
) -> tuple[LayerGroup, ...]:
    """timm's layer groups, stem first, or, where it has no order, those of any other model."""
    matcher = getattr(body, "group_matcher", None)
    if matcher is None or granularity not in ("stage", "block"):
        return groups.split(body, seen, granularity)
    group_parameters = importlib.import_module("timm.models").group_parameters
    layers = group_parameters(body, matcher(coarse=granularity == "stage"))
    weights = dict(body.named_parameters())
    owned: list[list[str]] = []
    for _, names in sorted(layers.items()):
        joins = owned and only_vectors(weights[name] for name in names)
        owned = [*owned[:-1], owned[-1] + names] if joins else [*owned, list(names)]
    parts = [sorted(_modules_of(body, set(names)), key=seen.first_run) for names in owned]
    return groups.gather(body, seen, parts, owned)


def _modules_of(body: nn.Module, parameters: set[str]) -> list[str]:
    """Returns the largest modules all of whose parameters are among these."""
    modules: list[str] = []
    for name, module in body.named_modules():  # what is in a module follows it
        own = {f"{name}.{key}" for key, _ in module.named_parameters()}
        if own and own <= parameters and not name.startswith(tuple(f"{m}." for m in modules[-1:])):
            modules.append(name)
    return modules


def _without_last_layer(model: Any) -> nn.Module:
    model.reset_classifier(0)
    return model


def _load(name: str, record: Record, size: int, file: str) -> nn.Module:
    """Builds the model with weights from a file: timm's, its authors' or a body trained by thaw.

    timm converts the names it knows, resizes position embeddings, and is strict. The last layer
    may have other classes or be missing, since it is replaced: then the random one stands in.
    """
    own = create(name, record, size).state_dict()
    state = read_weights(file, own)
    last_layers = record.get("classifier") or ()
    last_layers = (last_layers,) if isinstance(last_layers, str) else last_layers
    heads = tuple(f"{layer}." for layer in last_layers)
    last = {key: value for key, value in own.items() if key.startswith(heads)}
    # timm converts the names of a file unless the last layer has the model's own names. So a
    # missing last layer is added only if all other names are the model's own.
    is_body = own.keys() - last.keys() <= state.keys()
    for key, value in last.items():
        if state[key].shape != value.shape if key in state else is_body:
            state[key] = value
    overlay = {"state_dict": state, "label_offset": 0}
    try:
        model: Any = create(name, record, size, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # whatever converting names that it does not know runs into
        misfit = differences(own, state, heads) or str(error).partition("\n")[0]
        message = f"backbone.weights={file}: these are not weights of timm/{name} ({misfit})"
        raise ConfigError(message) from error
    model.pretrained_cfg.pop("state_dict")  # else the weights stay in memory twice
    return model
