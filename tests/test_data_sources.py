"""The sources, on small copies of their layouts and, with THAW_DATA, on the real photos."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from thaw.data import dogs_vs_cats, flowers102, pets
from thaw.data.base import PhotoDataModule
from thaw.data.dogs_vs_cats import DogsVsCats
from thaw.data.flowers102 import Flowers102
from thaw.data.folder import Folder
from thaw.data.pets import Pets
from thaw.data.photos import Photos
from thaw.errors import ConfigError, DownloadError

ROOT = Path(__file__).parents[1]


def touch(*paths: Path, content: bytes | None = None) -> None:
    """Files that differ from each other, unless `content` is given; they need be no pictures."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode() if content is None else content)


def pairs(photos: Photos | None) -> list[tuple[Path, int]]:
    assert photos is not None
    return list(zip(photos.paths, photos.labels, strict=True))


def names(photos: Photos | None, root: Path) -> list[tuple[str, int]]:
    return [(path.relative_to(root).as_posix(), label) for path, label in pairs(photos)]


def size(photos: Photos | None) -> int:
    return 0 if photos is None else len(photos)


def sizes(module: PhotoDataModule) -> tuple[int, int, int]:
    return len(module.train), size(module.val), size(module.test)


# --- folder ---


def folder(root: Path, **arguments: object) -> Folder:
    return Folder(data_dir=root, cache_dir=root, root=root, **arguments)  # pyright: ignore


def test_classes_alone(tmp_path: Path) -> None:
    """Natural order of classes and files; folders inside classes; hidden and other files not."""
    touch(*(tmp_path / name for name in ("10/b.jpg", "2/10.PNG", "2/9.jpg", "1/deep/c.webp")))
    touch(tmp_path / "1" / ".hidden.jpg", tmp_path / ".git" / "a.jpg", tmp_path / "1" / "Thumbs.db")
    module = folder(tmp_path, val_fraction=0)
    assert module.classes == ("1", "2", "10")
    expected = [("1/deep/c.webp", 0), ("2/9.jpg", 1), ("2/10.PNG", 1), ("10/b.jpg", 2)]
    assert names(module.train, tmp_path) == expected
    assert (module.val, module.test) == (None, None)


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_train_val_test_folders(tmp_path: Path, val: str) -> None:
    for split, count in (("train", 3), (val, 2), ("test", 1)):
        touch(*(tmp_path / split / name / f"{i}.jpg" for name in "ab" for i in range(count)))
    module = folder(tmp_path)
    assert sizes(module) == (6, 4, 2)
    assert names(module.test, tmp_path) == [("test/a/0.jpg", 0), ("test/b/0.jpg", 1)]


def test_train_alone_and_drawn_test(tmp_path: Path) -> None:
    touch(*(tmp_path / "train" / name / f"{i}.jpg" for name in "ab" for i in range(10)))
    one, two = (folder(tmp_path, test_fraction=0.2, seed=seed) for seed in (1, 2))
    assert sizes(one) == (12, 4, 4)  # 2 of 10 per class to test, then 0.2 of 8, rounded
    assert one.test == two.test
    assert one.val != two.val


def test_a_class_named_train_is_a_class(tmp_path: Path) -> None:
    touch(*(tmp_path / name / f"{i}.jpg" for name in ("train", "plane") for i in range(3)))
    assert folder(tmp_path).classes == ("plane", "train")


def test_a_relative_root_is_seen_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(*(tmp_path / "photos" / name / "0.jpg" for name in "ab"))
    monkeypatch.chdir(tmp_path)
    assert len(folder(Path("photos")).train) == 2


def test_what_is_left_out_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(*(tmp_path / "train" / name / "0.jpg" for name in "abc"), tmp_path / "val/a/0.jpg")
    touch(tmp_path / "train/a/notes.txt", tmp_path / "train/b/x.mp4", tmp_path / "models/m.pth")
    folder(tmp_path).setup()
    said = capsys.readouterr().out
    assert "not read, beside train/: models" in said
    assert "train: 2 files are left out, as notes.txt" in said
    assert "val       no photo of 2 classes: b, c" in said


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "found 0 class folders"),
        (["a.jpg", "b.jpg"], "found 0 class folders"),
        (["a/0.jpg"], "found 1 class folders"),
        (["a/0.jpg", "b/.hidden.jpg"], r"folder .*b holds no pictures"),
        (["a/0.jpg", "b/readme.txt"], r"folder .*b holds no pictures"),
        (["train/a/0.jpg", "train/b/0.jpg", "val/c/0.jpg"], r"has class folders .*: c\."),
        (["train/a/0.jpg", "train/b/0.jpg", "val/notes.txt"], r"val holds no pictures"),
        (["train/a/0.jpg", "train/b/0.jpg", "val/a/0.jpg", "valid/a/0.jpg"], "two folders for val"),
        (["train/0.jpg", "test/0.jpg"], "found 1 class folders"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, files: list[str], message: str) -> None:
    touch(*(tmp_path / "root" / name for name in files))
    (tmp_path / "root").mkdir(exist_ok=True)
    with pytest.raises(ConfigError, match=message):
        folder(tmp_path / "root").setup()


def test_root_that_is_missing_and_fraction_without_effect(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.root=.*nowhere is no folder .*ROOT/train"):
        folder(tmp_path / "nowhere").setup()
    touch(*(tmp_path / split / n / "0.jpg" for split in ("train", "test") for n in "ab"))
    with pytest.raises(ConfigError, match=r"test_fraction=0\.5: allowed is 0: folder has"):
        folder(tmp_path, test_fraction=0.5).setup()


# --- dogs_vs_cats ---


def dogs(data_dir: Path, **arguments: object) -> DogsVsCats:
    return DogsVsCats(data_dir=data_dir, cache_dir=data_dir, **arguments)  # pyright: ignore


def test_kaggle_layout(tmp_path: Path) -> None:
    home = tmp_path / "dogs-vs-cats"
    touch(*(home / "train" / f"{name}.{i}.jpg" for name in ("cat", "dog") for i in range(20)))
    touch(home / "test1" / "1.jpg", home / "train" / "._cat.0.jpg")
    module = dogs(tmp_path)
    assert module.classes == ("cat", "dog")
    assert sizes(module) == (26, 6, 8)  # 4 of 20 per class to test, then 0.2 of 16, rounded
    for photos in (module.train, module.val, module.test):
        for path, label in pairs(photos):
            assert path.name.startswith(("cat.", "dog.")[label])
    assert module.test == dogs(tmp_path, seed=5).test
    assert module.val != dogs(tmp_path, seed=5).val


def test_fastai_layout_keeps_its_validation(tmp_path: Path) -> None:
    home = tmp_path / "dogscats"
    for name in ("cat", "dog"):
        touch(*(home / "train" / f"{name}s" / f"{name}.{i}.jpg" for i in range(10)))
        touch(*(home / "valid" / f"{name}s" / f"{name}.{i}.jpg" for i in range(10, 13)))
    touch(home / "test1" / "1.jpg", home / "sample" / "train" / "cats" / "cat.0.jpg")
    assert sizes(dogs(tmp_path)) == (16, 6, 4)
    assert sizes(dogs(tmp_path, test_fraction=0)) == (20, 6, 0)


@pytest.mark.parametrize("home", ["", "kagglecatsanddogs_5340"])
def test_microsoft_layout_and_its_empty_files(
    tmp_path: Path, home: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / home / "PetImages"
    touch(*(images / name / f"{i}.jpg" for name in ("Cat", "Dog") for i in range(10)))
    touch(images / "Cat" / "Thumbs.db")
    touch(images / "Cat" / "666.jpg", images / "Dog" / "11702.jpg", content=b"")
    assert len(dogs(tmp_path, test_fraction=0, val_fraction=0).train) == 20
    said = capsys.readouterr().out
    assert "2 empty files are left out: Cat/666.jpg, Dog/11702.jpg" in said


def test_several_layouts_and_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(*(tmp_path / "PetImages" / name / f"{i}.jpg" for name in ("Cat", "Dog") for i in "12"))
    for name in ("cat", "dog"):
        touch(*(tmp_path / "dogscats" / "train" / f"{name}s" / f"{i}.jpg" for i in range(5)))
    assert len(dogs(tmp_path, test_fraction=0, val_fraction=0).train) == 10
    assert "dogscats/train/{}s/*.jpg" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="no photos of cats and dogs in a known layout"):
        dogs(tmp_path / "nowhere").find_splits()


# --- pets ---


def make_pets(data_dir: Path) -> Path:
    """Three breeds of 10 trainval and 2 test photos."""
    home = data_dir / "oxford-iiit-pet"
    breeds = (("Bengal", 2, 1), ("american_bulldog", 1, 2), ("shiba_inu", 3, 2))
    for split, start, stop in (("trainval", 0, 10), ("test", 10, 12)):
        lines = ["# NAME CLASS SPECIES BREED"]
        for breed, label, species in breeds:
            for i in range(start, stop):
                lines.append(f"{breed}_{i} {label} {species} 1")
                touch(home / "images" / f"{breed}_{i}.jpg")
        (home / "annotations").mkdir(exist_ok=True)
        (home / "annotations" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    touch(home / "images" / "Abyssinian_100.mat")
    return home


def test_breeds_and_cat_or_dog(tmp_path: Path) -> None:
    home = make_pets(tmp_path)
    module = Pets(data_dir=tmp_path, cache_dir=tmp_path)
    assert module.classes == ("american_bulldog", "Bengal", "shiba_inu")
    assert sizes(module) == (24, 6, 6)
    for name, label in names(module.test, home / "images"):
        assert name.startswith(module.classes[label] + "_")
    binary = Pets(data_dir=tmp_path, cache_dir=tmp_path, target="binary")
    assert binary.classes == ("cat", "dog")
    assert binary.test is not None
    assert [binary.test.labels.count(label) for label in (0, 1)] == [2, 4]


def test_pets_that_are_cut_wrongly(tmp_path: Path) -> None:
    home = make_pets(tmp_path)
    (home / "images" / "Bengal_3.jpg").unlink()
    listed = r"1 photos in .*-pet cannot be read:\n  images/Bengal_3\.jpg: .*No such file"
    for path in (home / "images").glob("*.jpg"):
        Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(ConfigError, match=listed):
        Pets(data_dir=tmp_path, cache_dir=tmp_path, train_transform=lambda image: image).setup()


# --- flowers102 ---


def make_flowers(data_dir: Path) -> Path:
    """Two classes; photos 1 to 8: two train, two validation, four test."""
    home = data_dir / "flowers-102"
    touch(*(home / "jpg" / f"image_{number:05d}.jpg" for number in range(1, 9)))
    savemat(home / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 2, 2, 1, 1]], np.uint8)})
    ids = {"trnid": [[2, 1]], "valid": [[3, 4]], "tstid": [[8, 7, 6, 5]]}
    savemat(home / "setid.mat", {key: np.array(value, np.uint16) for key, value in ids.items()})
    return home


@pytest.mark.parametrize(
    ("split", "expected"),
    [("official", (2, 2, 4)), ("trainval", (4, 0, 4)), ("swapped", (4, 4, 0))],
)
def test_flower_splits(tmp_path: Path, split: str, expected: tuple[int, int, int]) -> None:
    home = make_flowers(tmp_path)
    module = Flowers102(data_dir=tmp_path, cache_dir=tmp_path, split=split)  # pyright: ignore
    assert sizes(module) == expected
    tested = [(f"image_{i:05d}.jpg", label) for i, label in ((5, 1), (6, 1), (7, 0), (8, 0))]
    photos = module.train if split == "swapped" else module.test
    assert names(photos, home / "jpg") == tested


def test_validation_of_a_refit_can_be_drawn(tmp_path: Path) -> None:
    make_flowers(tmp_path)
    module = Flowers102(data_dir=tmp_path, cache_dir=tmp_path, split="trainval", val_fraction=0.5)
    assert sizes(module) == (2, 2, 4)
    with pytest.raises(ConfigError, match=r"data\.val_fraction=0\.5: allowed is null: "):
        Flowers102(data_dir=tmp_path, cache_dir=tmp_path, val_fraction=0.5).setup()


# --- downloads ---


@pytest.mark.parametrize("module", [flowers102, pets, dogs_vs_cats])
def test_without_a_network_the_folder_is_named(
    module: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {flowers102: Flowers102, pets: Pets, dogs_vs_cats: DogsVsCats}[module]
    monkeypatch.setattr(module, "URL", "http://127.0.0.1:9/photos.tgz")  # nobody listens there
    with pytest.raises(DownloadError) as caught:
        source(data_dir=tmp_path, cache_dir=tmp_path).prepare_data()
    for part in ("refused", "put ", str(tmp_path), "paths.data_dir", "data=demo"):
        assert part in str(caught.value)


@pytest.mark.parametrize("source", [Flowers102, Pets, DogsVsCats])
def test_nothing_is_written_where_the_photos_are(source: type, tmp_path: Path) -> None:
    make_flowers(tmp_path)
    make_pets(tmp_path)
    touch(
        *(
            tmp_path / "dogs-vs-cats/train" / f"{name}.{i}.jpg"
            for name in ("cat", "dog")
            for i in "12"
        )
    )
    before = sorted(tmp_path.rglob("*"))
    source(data_dir=tmp_path, cache_dir=tmp_path / "cache").prepare_data()
    assert sorted(tmp_path.rglob("*")) == before


# --- the real photos ---


@pytest.mark.photos
def test_real_flowers_as_torchvision_reads_them(data_dir: Path) -> None:
    from torchvision.datasets import Flowers102 as Reference

    module = Flowers102(data_dir=data_dir, cache_dir=data_dir)
    assert tuple(Reference.classes) == module.classes
    for split, photos in (("train", module.train), ("val", module.val), ("test", module.test)):
        reference = Reference(data_dir, split)
        expected = zip(reference._image_files, reference._labels, strict=True)
        assert set(pairs(photos)) == set(expected)


@pytest.mark.photos
def test_real_pets_as_torchvision_reads_them(data_dir: Path) -> None:
    from torchvision.datasets import OxfordIIITPet as Reference

    module = Pets(data_dir=data_dir, cache_dir=data_dir, val_fraction=0)
    assert [name.replace("_", " ").title() for name in module.classes] == Reference(
        data_dir
    ).classes
    for split, photos in (("trainval", module.train), ("test", module.test)):
        reference = Reference(data_dir, split)
        expected = zip(reference._images, reference._labels, strict=True)
        assert set(pairs(photos)) == set(expected)


@pytest.mark.photos
def test_real_dogs_vs_cats(data_dir: Path) -> None:
    assert sizes(DogsVsCats(data_dir=data_dir, cache_dir=data_dir)) == (1282, 320, 400)
