"""Weight files: where they come from, how they are read, and whether they fit."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from thaw.errors import ConfigError, near

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
# Before a body's names in a checkpoint of thaw, a model folder and a file from DataParallel.
PREFIXES = ("classifier.body.", "body.", "module.")
OFFLINE = (  # how messages on weights that cannot be fetched end
    "give a file with backbone.weights=PATH, train from random weights with backbone.weights=null, "
    "or try thaw offline with backbone=tiny data=demo"
)
# torchvision's DenseNet files are older than its DenseNet: "norm.1" there is "norm1" here.
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


@dataclass(frozen=True)
class Source:
    """Where weights come from: `label` and `licence` are one line each, for the user to read."""

    label: str
    licence: str
    fetch: Callable[[], Path] | None = None  # downloads the file if needed; None: random weights


def own_source(weights: str | None, names: Collection[str], hint: str = "") -> Source | None:
    """Returns the source for None (random) or a path, None for one of `names`; refuses others."""
    if weights is None or weights in names:
        return None if weights else Source("random", "weights: random")
    if weights.endswith(SUFFIXES) or "/" in weights:
        return Source(weights, f"weights: your own file, {weights}", lambda: Path(weights))
    paths = f"a path ({', '.join(SUFFIXES)})"
    rule = f"{', '.join([*names, paths])}, or null for random weights{near(weights, names)}{hint}"
    raise ConfigError(f"backbone.weights={weights}: allowed are {rule}")


def read_weights(file: str | Path, own: Collection[str] = ()) -> dict[str, Tensor]:
    """Reads tensors by name, in single precision, from a weight file; runs no code in it.

    Of a training checkpoint `state_dict` or `model` is used; a file of thaw gives the body without
    the head. `own` are the model's names; they tell which prefix the names in the file have.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ConfigError(f"backbone.weights={file}: no such file (looked at {path.resolve()})")
    try:
        is_plain = path.suffix == ".safetensors"
        content: Any = load_file(path) if is_plain else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # three libraries' errors, all saying: not a readable weight file
        allowed = "Allowed: a state dict saved by torch.save, or .safetensors"
        needed = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's text tells to run that code
        why = f"it needs {needed[1]}" if needed else type(error).__name__
        message = f"backbone.weights={file}: cannot be read as weights ({why}). {allowed}"
        raise ConfigError(message) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ConfigError(f"backbone.weights={file}: holds no state dict (name -> tensor)")
    # Some models of timm have a module called "body" themselves, so the model's own names decide.
    prefixes = (each for each in PREFIXES if any(each + name in content for name in own))
    prefix = next(prefixes, "")
    return {name.removeprefix(prefix): value.float() if value.is_floating_point() else value
            for name, value in content.items() if name.startswith(prefix)}  # fmt: skip


def load_into(model: nn.Module, file: Path, *, last_layer: str, name: str) -> None:
    """Loads a file; raises ConfigError if anything but the last layer does not fit the model."""
    own = model.state_dict()
    read = read_weights(file, own)
    state = {_OLD_DENSENET.sub(r"\1\2", key): value for key, value in read.items()}
    if isinstance(model, VisionTransformer):
        state = interpolate_embeddings(model.image_size, model.patch_size, state)  # pyright: ignore[reportArgumentType]
    ignored = (f"{last_layer}.", "aux", "Aux")  # GoogLeNet's auxiliary heads are not built
    if problems := differences(own, state, ignored):
        raise ConfigError(f"backbone.weights={file}: these are not weights of {name} ({problems})")
    fitting = {key: of for key, of in state.items() if key in own and own[key].shape == of.shape}
    model.load_state_dict(fitting, strict=False)  # checked above, by name and shape


def differences(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], ignored: tuple[str, ...] = ()
) -> str:
    """What does not fit, apart from names that begin with `ignored` and older files' counters."""
    mine, theirs = ({key: tuple(value.shape) for key, value in sorted(tensors.items())
                     if not key.startswith(ignored)} for tensors in (own, state))  # fmt: skip
    problems = {
        "missing": [k for k in mine if k not in theirs and not k.endswith("num_batches_tracked")],
        "unknown": [k for k in theirs if k not in mine],
        "shape": [f"{k}: {theirs[k]} in the file, {mine[k]} in the model"
                  for k in mine if k in theirs and theirs[k] != mine[k]],
    }  # fmt: skip
    return "; ".join(f"{what}: {', '.join(names[:3])}{', ...' if names[3:] else ''}"
                     for what, names in problems.items() if names)  # fmt: skip
