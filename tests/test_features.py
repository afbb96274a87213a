"""Features are reused only where everything that they depend on is the same."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import torch
from models import SPEC, small_classifier
from PIL import Image
from runs import ROOT
from torch import nn

from thaw.backbones.backbone import Crop
from thaw.backbones.folding import fold
from thaw.data.loading import PhotoDataset
from thaw.data.photos import Photos
from thaw.features.key import Description, feature_key
from thaw.features.table import Features, view_key
from thaw.transforms import eval_transform


def dataset(folder: Path, **changes: Any) -> PhotoDataset:
    paths = []
    for number in range(3):
        path = folder / f"{number}.png"
        if not path.exists():
            Image.new("RGB", (16, 16), (number * 50, 0, 0)).save(path)
        paths.append(path)
    transforms = {"transform": nn.Flatten(), "plain": nn.Identity(), **changes}
    return PhotoDataset(Photos(tuple(paths), (0, 1, 2)), **transforms)


def test_a_batch_has_the_view_that_its_key_asks_for() -> None:
    table = torch.arange(24.0).view(3, 2, 4)  # photos, views, features
    features = Features(table, torch.tensor([5, 6, 7]))
    found, labels = features.batch([(2, None), (0, 7), (1, 4), (2, 0)])
    assert torch.equal(found, torch.stack([table[2, 0], table[0, 1], table[1, 0], table[2, 0]]))
    assert labels.tolist() == [7, 5, 6, 7]


def test_the_first_view_is_that_of_evaluation_and_the_others_differ() -> None:
    keys = [view_key(index, view) for index in range(3) for view in range(3)]
    assert [index for index, _ in keys] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [seed is None for _, seed in keys] == [True, False, False] * 3
    drawn = [seed for _, seed in keys if seed is not None]
    assert len(set(drawn)) == 6


def key_of(folder: Path, body: object = None, **changes: Any) -> dict[str, Any]:
    cpu = torch.device("cpu")
    arguments = {"views": 2, "precision": "32-true", "device": cpu, **changes}
    photos = arguments.pop("photos", None) or dataset(folder)
    normalise = arguments.pop("normalise", nn.Identity())
    return feature_key(body or small_classifier().body, photos, normalise, **arguments)


class Shrunk:
    """Stands in for decoded pictures."""

    shrunk = "Resize(18)"


def test_the_key_names_everything_that_features_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = key_of(tmp_path)
    assert first == key_of(tmp_path)
    weights, statistics, flagged, layers = (small_classifier().body for _ in range(4))
    with torch.no_grad():
        next(weights.parameters()).view(-1)[0] += 1e-6
    statistics.get_buffer("norm.running_mean").add_(1e-6)
    flagged.transform_input = True  # pyright: ignore[reportArgumentType]  in no repr
    layers.low[2] = nn.GELU()  # pyright: ignore[reportIndexIssue]  without weights, as ReLU
    kept = dataset(tmp_path)
    kept.pictures = Shrunk()  # pyright: ignore[reportAttributeAccessIssue]
    changed = [
        *(key_of(tmp_path, body) for body in (weights, statistics, flagged, layers)),
        key_of(tmp_path, [small_classifier().body, fold]),
        key_of(tmp_path, views=3),
        key_of(tmp_path, normalise=nn.ReLU()),
        key_of(tmp_path, device=torch.device("mps")),
        key_of(tmp_path, precision="bf16-mixed"),
        key_of(tmp_path, photos=kept),
        key_of(tmp_path, photos=dataset(tmp_path, transform=nn.ReLU())),
        key_of(tmp_path, photos=dataset(tmp_path, plain=nn.ReLU())),
    ]
    for package in ("torch", "torchvision", "PIL", "thaw"):
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[package], "__version__", "0")
            changed.append(key_of(tmp_path))
    Image.new("RGB", (17, 16)).save(tmp_path / "1.png")  # another photo under the same name
    changed.append(key_of(tmp_path))
    assert first not in changed
    assert len({json.dumps(key, sort_keys=True) for key in changed}) == len(changed)
    assert json.loads(json.dumps(first)) == first


def test_a_photo_replaced_at_equal_size_and_modification_time(tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(b"one")
    before, times = Photos((photo,), (0,)).fingerprint(), photo.stat()
    (tmp_path / "b.png").write_bytes(b"two")
    (tmp_path / "b.png").replace(photo)
    os.utime(photo, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert photo.stat().st_mtime_ns == times.st_mtime_ns
    assert Photos((photo,), (0,)).fingerprint() != before


def test_the_way_that_photos_are_made_square_is_in_the_key(tmp_path: Path) -> None:
    views = [eval_transform(replace(SPEC, crop=crop)) for crop in get_args(Crop)]
    keys = [key_of(tmp_path, views=1, photos=dataset(tmp_path, plain=view)) for view in views]
    assert len({key["objects"] for key in keys}) == 3


def test_drawn_views_do_not_matter_to_a_single_view(tmp_path: Path) -> None:
    other = dataset(tmp_path, transform=nn.ReLU())
    assert key_of(tmp_path, views=1) == key_of(tmp_path, views=1, photos=other)


MINE = """
import torch
from mine import helpers
from mine.settings import SIGNS

class Body(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 4)

    def forward(self, x):
        return SIGNS["x"][0] * helpers.last(self.layer(x))

class Brighter:
    def __init__(self, by):
        self.by = by

    def __call__(self, image):
        return image + self.by

def darker(image, by):
    return image - by

def by_closure(by):
    def change(image):
        return image - by
    return change
"""
HELPERS = """
def last(x):
    return x
"""
SETTINGS = """
SIGNS = {"x": [1]}
"""


class Own:
    """A package of the user's, edited between two runs."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "mine"
        self.folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))
        for name, text in (("__init__", ""), ("code", MINE), ("helpers", HELPERS),
                           ("settings", SETTINGS)):  # fmt: skip
            (self.folder / f"{name}.py").write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / f"{name}.py"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    def load(self) -> ModuleType:
        """As a new process would."""
        for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module("mine.code")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    (tmp_path / "src").mkdir()
    return Own(tmp_path / "src", monkeypatch)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("code", "helpers.last(self", "-helpers.last(self"),
        ("helpers", "return x", "return x * x"),
        ("settings", "[1]", "[2]"),
    ],
)
def test_an_edited_forward_has_new_features(
    own: Own, tmp_path: Path, file: str, old: str, new: str
) -> None:
    """With the same weights; also where what was edited is imported: a helper or a constant."""
    before = key_of(tmp_path, own.load().Body())
    assert key_of(tmp_path, own.load().Body()) == before
    own.edit(file, old, new)
    assert key_of(tmp_path, own.load().Body()) != before


TRANSFORMS: dict[str, Any] = {
    "object": lambda code, by: code.Brighter(by),
    "function": lambda code, by: partial(code.darker, by=by),
    "closure": lambda code, by: code.by_closure(by),
    "method": lambda code, by: code.Brighter(by).__call__,
}


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_an_edited_transform_has_new_features(own: Own, tmp_path: Path, kind: str) -> None:
    """Its code and its settings count, though they are in no repr."""
    place = "plain" if kind in ("object", "closure") else "transform"

    def key(by: int = 1) -> dict[str, Any]:
        return key_of(tmp_path, photos=dataset(tmp_path, **{place: make(own.load(), by)}))

    make = TRANSFORMS[kind]
    before = key()
    assert key() == before
    assert key(by=2) != before
    own.edit("code", "image - by" if kind in ("function", "closure") else "image + self.by", "-1")
    assert key() != before


def test_thaws_own_code_that_reads_photos_counts(tmp_path: Path) -> None:
    """An edit of decode.py in a clone; the code that trains does not matter."""
    sources = key_of(tmp_path)["sources"]
    assert {"thaw.data.decode", "thaw.transforms", "thaw.classifier"} <= sources.keys()
    assert not [name for name in sources if name.startswith(("thaw.training", "thaw.finetune"))]


def test_code_whose_source_cannot_be_had_is_never_reused() -> None:
    names: dict[str, Any] = {"__name__": "nowhere"}
    # Python 3.13 would find `python -c`, by which pytest's workers are started, for <string>
    exec(compile("def change(image): return image", "<nowhere>", "exec"), names)
    one, two = Description(), Description()
    one.add(names["change"])
    two.add(names["change"])
    assert one.sources != two.sources


@pytest.mark.slow
def test_another_process_finds_the_same_key(tmp_path: Path) -> None:
    """With another hash seed, and other modules loaded before."""
    dataset(tmp_path)
    code = (
        "import sys; sys.path.insert(0, 'tests'); import json, pathlib, thaw.finetune.plan;"
        "import test_features as t;"
        f"print(json.dumps(t.key_of(pathlib.Path({str(tmp_path)!r}), t.network())))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True,
                           capture_output=True, text=True)  # fmt: skip
    assert json.loads(found.stdout) == key_of(tmp_path, network())


def network() -> nn.Module:
    """A body of torchvision's, whose layers hold functions, sets and lists."""
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    return mobilenet_v3_small()
