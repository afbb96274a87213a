"""Weight files: where they come from, how they are read, and whether they fit."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from thaw.errors import ConfigError, near

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")

# What stands in front of a body's names in the checkpoint of a thaw run, in thaw's model folder,
# and in a file saved from DataParallel.
PREFIXES = ("classifier.body.", "body.", "module.")

# torchvision's DenseNet files are older than its DenseNet: "norm.1" there is "norm1" here.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def check_weights(weights: str | None, names: Collection[str], hint: str = "") -> bool:
    """Returns whether a `backbone.weights` is the path of a file.

    Args:
        weights: A name, a path or None.
        names: The names that the backbone has.
        hint: What else to tell whoever gives another name.

    Raises:
        ConfigError: It is neither None, nor a path, nor one of these names.
    """
    if weights is None or weights in names:
        return False
    if weights.endswith(SUFFIXES) or "/" in weights:
        return True
    raise ConfigError(
        f"backbone.weights={weights}: allowed are {', '.join([*names, 'a path'])} "
        f"({', '.join(SUFFIXES)}), or null for random weights{near(weights, names)}{hint}"
    )


def official_file(url: str) -> Path:
    """Returns torchvision's weight file, which is fetched on first use into torch hub's folder.

    Raises:
        DownloadError: It is not on this machine and cannot be fetched.
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


def read_weights(file: str | Path, own: Collection[str] = ()) -> dict[str, Tensor]:
    """Reads tensors by name from a .pth, .pt, .ckpt or .safetensors file; runs no code in it.

    In a file that holds more than weights (a training checkpoint), `state_dict` or `model` is
    used. A file of thaw (a run's checkpoint, or model.safetensors of its model folder) gives the
    body, without the head.

    Args:
        file: The path.
        own: Names of the tensors of the model that the file is for; they tell which prefix the
            names in the file have.

    Raises:
        ConfigError: There is no such file, or it is not a file of named tensors.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"backbone.weights={file}: no such file (looked at {path.resolve()})")
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
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
    # Some models of timm have a module called "body" themselves, so their own names decide.
    for prefix in PREFIXES:
        if any(prefix + name in content for name in own):
            return {
                name.removeprefix(prefix): value
                for name, value in content.items()
                if name.startswith(prefix)
            }
    return dict(content)


def as_float(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the tensors in single precision (files may be in half); integers stay as they are."""
    return {
        name: value.float() if value.is_floating_point() else value for name, value in state.items()
    }


def load_into(
    model: nn.Module, state: Mapping[str, Tensor], *, last_layer: str, name: str, source: str
) -> None:
    """Loads `state` into the whole model. Everything but the last layer, which is replaced, must
    fit.

    Args:
        model: The model, with its last layer.
        state: The tensors by name.
        last_layer: Name of the layer whose tensors may be missing or have other shapes.
        name, source: Of the model and of the file, for messages.

    Raises:
        ConfigError: Names are missing or unknown, shapes differ, or values are not finite.
    """
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in as_float(state).items()}
    if isinstance(model, VisionTransformer):
        state = interpolate_embeddings(model.image_size, model.patch_size, state)  # pyright: ignore[reportArgumentType]
    own = model.state_dict()
    last = last_layer + "."
    # Auxiliary heads are removed after loading, and the counter is newer than some files.
    optional = {
        key for key in own if key.lower().startswith("aux") or key.endswith("num_batches_tracked")
    }
    if problems := differences(own, state, (last,), optional):
        raise ConfigError(
            f"backbone.weights={source}: these are not weights of {name} ({problems})"
        )
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
    """Returns what keeps `state` from being loaded into a model; an empty string if it fits.

    Args:
        own: The model's tensors.
        state: The file's tensors.
        ignored: Starts of the names that need not fit.
        optional: Names that may be missing.
    """
    own = {key: value for key, value in own.items() if not key.startswith(ignored)}
    state = {key: value for key, value in state.items() if not key.startswith(ignored)}
    problems = {
        "missing": sorted(set(own) - set(state) - set(optional)),
        "unknown": sorted(set(state) - set(own)),
        "shape": [
            f"{key}: {tuple(state[key].shape)} in the file, {tuple(own[key].shape)} in the model"
            for key in sorted(set(own) & set(state))
            if state[key].shape != own[key].shape
        ],
    }
    return "; ".join(
        f"{what}: {', '.join(names[:3])}" + (f" and {len(names) - 3} more" * (len(names) > 3))
        for what, names in problems.items()
        if names
    )
