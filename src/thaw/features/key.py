"""Everything that features depend on, as plain values: equal keys mean equal features."""

import ast
import functools
import hashlib
import importlib.util
import inspect
import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from types import MethodType, ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), Enum, Path, torch.dtype, torch.device)


class Photographed(Protocol):
    """What the key reads of a dataset of photos."""

    photos: Any  # `photos.paths` are the files
    plain: Any  # transform of evaluation views
    transform: Any  # transform of drawn views
    pictures: Any  # decoded pictures, or None; `shrunk` says what was done to them


def feature_key(body: nn.Module, dataset: Photographed, normalise: object, *, views: int,
                precision: str, device: torch.device) -> dict[str, Any]:  # fmt: skip
    """Everything the features of a dataset's photos depend on.

    Args:
        body: its tensors, its settings, and the source code of its classes count.
        dataset: the files of its photos, its transforms, and the code that reads them count.
        normalise: uint8 images -> what the body takes.
        views: of each photo, see `view_key`.
        precision: Lightning's name of the precision that the body runs in.
        device: that the body runs on.
    """
    network, pictures = Description(), Description()
    network.add("body", body)
    network.add("normalise", normalise)
    pictures.add("dataset", type(dataset))
    pictures.add("plain", dataset.plain)
    if views > 1:
        pictures.add("drawn", dataset.transform)
        pictures.add("shrunk", getattr(dataset.pictures, "shrunk", None))
    packages = {"torch", "torchvision", "PIL", "thaw"} | network.packages | pictures.packages
    return {
        "body": network.hash.hexdigest(),
        "transforms": pictures.hash.hexdigest(),
        "sources": {**network.sources, **pictures.sources},
        "photos": files_key(dataset.photos.paths),
        "views": views,
        "precision": precision,
        "device": [
            platform.machine(),
            torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            torch.backends.cudnn.allow_tf32,
            torch.get_float32_matmul_precision(),
        ],
        "versions": {name: getattr(sys.modules.get(name), "__version__", None)
                     for name in packages},
    }  # fmt: skip


def files_key(paths: Sequence[Path]) -> str:
    """A hash of the files' paths, sizes, and times of modification and of change.

    A file that is replaced by one of equal size and modification time, as `cp -p` and `rsync -a`
    do it, has another change time (ctime).
    """
    known = hashlib.sha256()
    for path in paths:
        facts = path.stat()
        times = f"{facts.st_mtime_ns} {facts.st_ctime_ns}"
        known.update(f"{path.resolve()} {facts.st_size} {times}\n".encode())
    return known.hexdigest()


class Description:
    """All values that some objects hold, and the code that they run.

    Attributes:
        hash: of the values.
        sources: module -> hash of its file, for code that belongs to no installed library, and for
            all modules of that kind which it imports.
        packages: names of the libraries that the other code is from.
    """

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.sources: dict[str, str] = {}
        self.packages: set[str] = set()
        self._seen: dict[int, tuple[int, object]] = {}  # by id; keeps the objects alive

    def add(self, name: str, value: object) -> None:
        """Adds a value and everything that it holds."""
        if isinstance(value, PLAIN):
            self._write(name, repr(value))
        elif id(value) in self._seen:
            self._write(name, f"the object of number {self._seen[id(value)][0]}")
        else:
            self._seen[id(value)] = len(self._seen), value
            for part, inner in self._parts(name, value):
                self.add(f"{name}.{part}", inner)

    def _parts(self, name: str, value: Any) -> Iterator[tuple[str, object]]:
        """Writes down an object, and gives what it holds."""
        if isinstance(value, Tensor):
            self._write(name, f"{value.dtype} {tuple(value.shape)}")
            flat = value.detach().cpu().contiguous().view(-1)
            self.hash.update(flat.view(torch.uint8).numpy().data)
        elif isinstance(value, Mapping):
            yield from ((str(key), inner) for key, inner in value.items())
        elif isinstance(value, list | tuple):
            yield from ((str(place), inner) for place, inner in enumerate(value))
        elif isinstance(value, set | frozenset):
            self._write(name, str(sorted(map(repr, value))))
        elif isinstance(value, ModuleType):
            self._add_source(value.__name__)
        elif isinstance(value, type):
            self._write(name, value.__qualname__)
            for base in value.__mro__:
                self._add_source(base.__module__, base)
        elif isinstance(value, functools.partial):
            yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
        elif isinstance(value, MethodType):
            yield from (("self", value.__self__), ("func", value.__func__))
        elif inspect.isfunction(value):
            self._write(name, value.__qualname__)
            self._add_source(value.__module__, value)
            yield from (("defaults", value.__defaults__), ("keywords", value.__kwdefaults__))
            yield from inspect.getclosurevars(value).nonlocals.items()
        else:
            yield "type", type(value)
            if not hasattr(value, "__dict__"):
                self._write(name, re.sub(r" at 0x[0-9a-f]+", "", repr(value)))
                return
            for key, inner in vars(value).items():
                if key != "training":  # a frozen body runs in eval mode
                    # hooks are stored under numbers that count all hooks of the process
                    yield key, [*inner.values()] if key.endswith("_hooks") else inner

    def _write(self, name: str, text: str) -> None:
        self.hash.update(f"{name}: {text}\n".encode())

    def _add_source(self, module: str, thing: object = None) -> None:
        """Adds the file of a module, and the files of the modules that it imports.

        Args:
            module: its name; where it is from a library, the library's version counts.
            thing: the class or function of it that is used, None for what is only imported.
        """
        package = module.partition(".")[0]
        if module in self.sources or package in sys.stdlib_module_names:
            return
        if _is_library(package):
            self.packages |= {package} if thing is not None else set()
        elif (file := _file(module)) is not None:
            content = file.read_bytes()
            self.sources[module] = hashlib.sha256(content).hexdigest()
            for name in _imports(content, module, file) if file.suffix == ".py" else ():
                self._add_source(name)
        elif thing is not None:  # written in a notebook or an interactive session
            try:
                source = hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()  # pyright: ignore[reportArgumentType]
            except (OSError, TypeError):
                source = os.urandom(16).hex()  # cannot be known, so no other key may be equal
            self.sources[f"{module}.{getattr(thing, '__qualname__', '')}"] = source


def _imports(content: bytes, module: str, file: Path) -> Iterator[str]:
    """Names of the modules that a source file imports; not all of them need be modules."""
    parents = module.split(".") if file.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = parents[: len(parents) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _is_library(package: str) -> bool:
    file = _file(package)
    installed = file is not None and {"site-packages", "dist-packages"} & set(file.parts)
    return bool(installed) or package in ("torch", "torchvision")


def _file(module: str) -> Path | None:
    """The file of a module, imported or not; None where there is no such module or file."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if module not in sys.modules:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, AttributeError, ValueError):  # what should hold it is no package
            return None
        file = spec.origin if spec else None
    return Path(file) if file and Path(file).is_file() else None
