"""Everything that features depend on, as plain values: equal keys mean equal features."""

import hashlib
import inspect
import os
import sys
from collections.abc import Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thaw import classifier, transforms

PLAIN = (bool, int, float, complex, str, bytes, type(None), Enum, Path, torch.dtype, torch.device)
REFERENCES = ("__qualname__", "__defaults__", "__kwdefaults__", "__closure__", "cell_contents",
        "__self__", "__func__", "func", "args", "keywords")  # fmt: skip


def feature_key(body: object, dataset: Any, normalise: object, *, views: int,
                precision: str, device: torch.device) -> dict[str, Any]:  # fmt: skip
    """Everything that the features of a `PhotoDataset` depend on: objects, their code, photos."""
    described = Description()
    # classifier.py runs the body, and transforms.py shrinks the pictures of data.cache=ram
    described.add([body, normalise, dataset.plain, type(dataset), classifier, transforms])
    if views > 1:
        described.add([dataset.transform, getattr(dataset.pictures, "shrunk", None)])
    packages = {"torch", "torchvision", "PIL", "thaw"} | described.packages
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "objects": described.hash.hexdigest(),
        "sources": described.sources,
        "photos": dataset.photos.fingerprint(),
        "views": views,
        "numbers": [precision, torch.backends.cudnn.allow_tf32,
                    torch.get_float32_matmul_precision(), name],
        "versions": {each: getattr(sys.modules.get(each), "__version__", "") for each in packages},
    }  # fmt: skip


class Description:
    """A hash of all values that some objects hold, and the code that they run."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.sources: dict[str, str] = {}  # module -> hash of its file, for code of no library
        self.packages: set[str] = set()  # the libraries that the other code is from
        self._seen: dict[int, tuple[int, object]] = {}  # by id; keeps the objects alive

    def add(self, value: object) -> None:
        """Adds a value and everything that it holds."""
        parts: list[Any] = []
        if isinstance(value, PLAIN):
            text = repr(value)
        elif id(value) in self._seen:
            text = f"object {self._seen[id(value)][0]}"
        else:
            self._seen[id(value)] = len(self._seen), value
            parts = self._parts(value)
            text = f"{type(value).__qualname__} of {len(parts)}"
        self.hash.update(f"{text}\n".encode())
        for part in parts:
            self.add(part)

    def _parts(self, value: Any) -> list[Any]:
        """What an object holds; code and the numbers of tensors are noted here."""
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().view(-1)
            self.hash.update(flat.view(torch.uint8).numpy().data)
            return [value.dtype, *value.shape]
        if isinstance(value, np.ndarray):
            return [torch.tensor(value)]
        if isinstance(value, Mapping):
            return list(value.items())
        if isinstance(value, list | tuple | set | frozenset):
            return sorted(value, key=repr) if isinstance(value, set | frozenset) else list(value)
        if isinstance(value, ModuleType | FunctionType | type):
            for code in getattr(value, "__mro__", [value]):
                self._add_code(code)
        if isinstance(value, ModuleType | type):
            return [value.__name__]
        if isinstance(value, FunctionType | MethodType | CellType | partial):
            return [getattr(value, name, None) for name in REFERENCES]
        if not hasattr(value, "__dict__"):
            return [repr(value).partition(" at 0x")[0]]
        # `training` differs between a probe and a run; a frozen body is in eval mode in both
        return [type(value), {name: of for name, of in vars(value).items() if name != "training"}]

    def _add_code(self, thing: Any) -> None:
        """Adds the file of a module, class or function, and of what is imported there."""
        is_module = isinstance(thing, ModuleType)
        name = str(getattr(thing, "__name__" if is_module else "__module__", ""))
        module, package = sys.modules.get(name), name.partition(".")[0]
        if not name or name in self.sources or package in sys.stdlib_module_names:
            return
        home = str(getattr(sys.modules.get(package), "__file__", ""))
        file = getattr(module, "__file__", None)
        if {"site-packages", "dist-packages"} & set(Path(home).parts):
            self.packages.add(package)
        elif file is not None:
            # constants too: `from my_settings import CROP` names no module whose file to hash
            constants = [(key, of) for key, of in sorted(vars(module).items())
                         if not key.startswith("__") and _is_constant(of)]  # fmt: skip
            content = Path(file).read_bytes() + repr(constants).encode()
            self.sources[name] = hashlib.sha256(content).hexdigest()
            for value in vars(module).values():
                self._add_code(value)
        elif isinstance(thing, type | FunctionType):  # written in a notebook
            try:
                source = inspect.getsource(thing)
            except (OSError, TypeError):
                source = os.urandom(16).hex()  # cannot be known, so no other key may be equal
            self.sources[f"{name}.{thing.__qualname__}"] = source


def _is_constant(value: object) -> bool:
    """Whether a value consists of numbers, strings, tuples, lists and dicts only."""
    if isinstance(value, dict):
        return all(map(_is_constant, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return all(map(_is_constant, value))
    return isinstance(value, bool | int | float | complex | str | bytes | None)
