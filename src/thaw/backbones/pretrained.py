"""Weight files: where they come from, how they are read, and whether they fit."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from thaw.errors import ConfigError

SUFFIXES = (".pth", ".pt", ".safetensors")

# torchvision's DenseNet files are older than its DenseNet: "norm.1" there is "norm1" here
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def is_path(weights: str) -> bool:
    """Whether a `backbone.weights` is a file rather than a name."""
    return weights.endswith(SUFFIXES) or "/" in weights


def official_file(url: str) -> Path:
    """torchvision's weight file, fetched on first use into torch hub's folder.

    Raises:
        DownloadError: it is not here and cannot be fetched.
    """
    from thaw.download import fetch  # imports network libraries, which thaw.load has no use for

    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    digest = re.search(r"-([0-9a-f]{8,})\.", name)  # torch hub's convention: start of the sha256
    fetch(
        url,
        path,
        checksum=f"sha256:{digest[1]}" if digest else None,
        remedy=(
            f"put the file at {path}, or give another one with backbone.weights=PATH, or train "
            "from random weights with backbone.weights=null, or try thaw offline with "
            "backbone=tiny data=demo"
        ),
    )
    return path


def read_weights(file: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a .pth, .pt or .safetensors file; no code in it is run.

    A file that holds more than weights (a training checkpoint) is looked into: `state_dict` or
    `model`.

    Raises:
        ConfigError: no such file, or not a file of named tensors.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"backbone.weights={file}: no such file (looked at {path.resolve()})")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # three libraries' errors, all saying: not a readable weight file
        raise ConfigError(
            f"backbone.weights={file}: cannot be read as weights ({error}). "
            "Allowed: a state dict saved by torch.save, or .safetensors"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ConfigError(f"backbone.weights={file}: holds no state dict (name -> tensor)")
    return {name.removeprefix("module."): value for name, value in content.items()}


def load_into(
    model: nn.Module, state: Mapping[str, Tensor], *, last_layer: str, name: str, source: str
) -> None:
    """Loads `state` into the whole model, strictly but for its last layer, which is replaced.

    Raises:
        ConfigError: names that are missing, unknown, or of another shape; values that are no
            numbers.
    """
    state = {
        _OLD_DENSENET.sub(r"\1\2", key): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }
    if isinstance(model, VisionTransformer):
        state = interpolate_embeddings(model.image_size, model.patch_size, state)  # pyright: ignore[reportArgumentType]
    own = model.state_dict()
    last = last_layer + "."
    # auxiliary heads are dropped after loading, and the counter is newer than some files
    optional = {
        key for key in own if key.lower().startswith("aux") or key.endswith("num_batches_tracked")
    }
    if found := differences(own, state, (last,), optional):
        raise ConfigError(f"backbone.weights={source}: these are not weights of {name} ({found})")
    fitting = {
        key: value for key, value in state.items() if key in own and own[key].shape == value.shape
    }
    broken = [
        key for key, value in fitting.items()
        if not key.startswith(last) and value.is_floating_point() and not value.isfinite().all()
    ]  # fmt: skip
    if broken:
        raise ConfigError(
            f"backbone.weights={source}: these weights of {name} are not numbers in "
            f"{', '.join(broken[:3])} (as in torchvision's IMAGENET1K_FEATURES of VGG16, which has "
            "convolutions only); choose others"
        )
    model.load_state_dict(fitting, strict=False)  # checked above, by name and shape


def differences(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    ignored: tuple[str, ...] = (),
    optional: Collection[str] = (),
) -> str:
    """What keeps `state` from being loaded into a model that has `own`; nothing: it fits.

    Args:
        own: the model's.
        state: the file's.
        ignored: starts of names that need not fit.
        optional: names that may be missing.
    """
    own = {key: value for key, value in own.items() if not key.startswith(ignored)}
    state = {key: value for key, value in state.items() if not key.startswith(ignored)}
    shapes = [
        f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
        for key in sorted(set(own) & set(state))
        if state[key].shape != own[key].shape
    ]
    parts = [
        f"{what}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" * (len(names) > 3))
        for what, names in (
            ("missing", sorted(set(own) - set(state) - set(optional))),
            ("unknown", sorted(set(state) - set(own))),
            ("shape", shapes),
        )
        if names
    ]
    return "; ".join(parts)
