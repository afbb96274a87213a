"""Features on disk are what their fingerprint says, or they are not used."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import small_classifier
from PIL import Image
from torch import nn

from thaw.data.dataset import PhotoDataset
from thaw.data.photos import Photos
from thaw.data.pictures import Pictures
from thaw.features.table import Features, fingerprint, open_table, read_table, view_key
from thaw.store import Store


def dataset(folder: Path, **changes: Any) -> PhotoDataset:
    paths = []
    for number in range(3):
        path = folder / f"{number}.png"
        if not path.exists():
            Image.new("RGB", (16, 16), (number * 50, 0, 0)).save(path)
        paths.append(path)
    transforms = {"transform": nn.Flatten(), "plain": nn.Identity(), **changes}
    return PhotoDataset(Photos(paths, [0, 1, 2]), **transforms)


def test_a_batch_has_the_view_that_its_key_asks_for() -> None:
    table = torch.arange(24.0).view(3, 2, 4)  # photos, views, features
    features = Features(table, torch.tensor([5, 6, 7]))
    found, labels = features.batch([(2, None), (0, 7), (1, 4)])
    assert torch.equal(found, torch.stack([table[2, 0], table[0, 1], table[1, 0]]))
    assert labels.tolist() == [7, 5, 6]


def test_the_first_view_is_that_of_evaluation_and_the_others_differ() -> None:
    keys = [view_key(index, view) for index in range(3) for view in range(3)]
    assert [index for index, _ in keys] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [seed is None for _, seed in keys] == [True, False, False] * 3
    drawn = [seed for _, seed in keys if seed is not None]
    assert len(set(drawn)) == 6


def what(folder: Path, body: nn.Module | None = None, **changes: Any) -> dict[str, Any]:
    cpu = torch.device("cpu")
    arguments = {"views": 2, "precision": "32-true", "device": cpu, **changes}
    photos = arguments.pop("photos", None) or dataset(folder)
    normalise = arguments.pop("normalise", nn.Identity())
    return fingerprint(body or small_classifier().body, photos, normalise, **arguments)


def test_the_fingerprint_names_everything_it_depends_on(tmp_path: Path) -> None:
    first = what(tmp_path)
    assert first == what(tmp_path)
    other = small_classifier().body
    with torch.no_grad():
        next(other.parameters()).view(-1)[0] += 1e-6
    statistics = small_classifier().body
    statistics.get_buffer("norm.running_mean").add_(1e-6)
    flagged = small_classifier().body
    flagged.transform_input = True  # pyright: ignore[reportArgumentType]  in no repr
    changed = [
        what(tmp_path, other),
        what(tmp_path, flagged),
        what(tmp_path, statistics),
        what(tmp_path, views=3),
        what(tmp_path, normalise=nn.ReLU()),
        what(tmp_path, device=torch.device("mps")),
        what(
            tmp_path, photos=dataset(tmp_path, pictures=Pictures([], torch.zeros(0, 4), "Shrink()"))
        ),
        what(tmp_path, precision="bf16-mixed"),
        what(tmp_path, photos=dataset(tmp_path, transform=nn.ReLU())),
        what(tmp_path, photos=dataset(tmp_path, plain=nn.ReLU())),
    ]
    Image.new("RGB", (17, 16)).save(tmp_path / "1.png")  # another photo under the same name
    changed.append(what(tmp_path))
    assert all(found != first for found in changed)
    assert json.loads(json.dumps(first)) == first


def test_drawn_views_do_not_matter_to_a_single_view(tmp_path: Path) -> None:
    other = dataset(tmp_path, transform=nn.ReLU())
    assert what(tmp_path, views=1) == what(tmp_path, views=1, photos=other)


def test_rows_are_all_views_with_their_labels() -> None:
    table = torch.arange(24.0).view(3, 2, 4)
    found, labels = Features(table, torch.tensor([5, 6, 7])).rows()
    assert torch.equal(found, torch.arange(24.0).view(6, 4))
    assert labels.tolist() == [5, 5, 6, 6, 7, 7]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "features", {"number": 3, "views": 2})
    shape = (3, 2, 4)
    found.take()
    found.begin(4 * 24)
    table = open_table(found.part, shape, torch.float32)
    table.copy_(torch.arange(24.0).view(shape))
    assert not found.is_whole()
    found.finish(shape=shape, dtype="float32")
    return found


def test_what_is_written_is_read(store: Store) -> None:
    assert store.is_whole()
    assert torch.equal(read_table(store), torch.arange(24.0).view(3, 2, 4))
    assert [path.suffix for path in sorted(store.path.parent.iterdir())] == [
        ".bin",
        ".json",
        ".lock",
    ]


@pytest.mark.parametrize("harm", ["truncated", "flipped", "foreign", "no note", "broken note"])
def test_a_file_that_is_not_what_it_says_is_not_used(store: Store, harm: str) -> None:
    content = store.path.read_bytes()
    if harm == "truncated":
        store.path.write_bytes(content[:-4])
    elif harm == "flipped":
        store.path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "foreign":
        note = json.loads(store.note.read_text())
        store.note.write_text(json.dumps({**note, "what": {"number": 3, "views": 1}}))
    elif harm == "no note":
        store.note.unlink()
    else:
        store.note.write_text("{")
    assert not store.is_whole()
