"""data.classes, data.skip and data.groups, over every source's base."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
from test_data import make
from test_data_sources import folder, make_flowers, make_pets, pairs, sizes, touch

from thaw.data.base import PhotoDataModule
from thaw.data.flowers102 import Flowers102
from thaw.data.pets import Pets
from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError


def parts(module: PhotoDataModule) -> list[Photos]:
    return [photos for _, photos in module.splits.items()]


def grouped(seed: int) -> tuple[Splits, dict[Path, str]]:
    """Three classes; groups of 1 to 9 photos, a few of them with photos of two classes."""
    rng = random.Random(seed)
    found, of = [], {}
    for number in range(90):
        labels = [number % 3] if rng.random() < 0.9 else [number % 3, (number + 1) % 3]
        for i in range(rng.randint(1, 9)):
            label = rng.choice(labels)
            path = Path(f"/nowhere/{label}/bear{number}_{i}.jpg")
            found.append((path, label))
            of[path] = f"bear{number}"
    return Splits(("a", "b", "c"), Photos.of(sorted(found)), None, None), of


@pytest.mark.parametrize("seed", range(6))
def test_no_group_is_in_two_splits_and_shares_are_kept(seed: int) -> None:
    splits, of = grouped(seed)
    module = make(splits, groups=r"bear\d+", val_fraction=0.25, seed=seed)
    assert module.val is not None
    groups = [{of[path] for path in part.paths} for part in parts(module)]
    assert not groups[0] & groups[1]
    assert sum(map(len, groups)) == len({*of.values()})
    assert set(pairs(module.train)) | set(pairs(module.val)) == set(pairs(splits.train))
    for label in range(3):
        share = module.val.labels.count(label) / splits.train.labels.count(label)
        assert 0.18 < share < 0.32
    again = make(splits, groups=r"bear\d+", val_fraction=0.25, seed=seed)
    assert again.splits == module.splits
    assert make(splits, groups=r"bear\d+", val_fraction=0.25, seed=9).val != module.val


@pytest.mark.parametrize("folds", [2, 5])
def test_folds_keep_groups_whole(folds: int) -> None:
    splits, of = grouped(0)
    validated = []
    for fold in range(folds):
        module = make(splits, groups=r"bear\d+", folds=folds, fold=fold)
        assert module.val is not None
        assert not {of[p] for p in module.train.paths} & {of[p] for p in module.val.paths}
        validated.append(module.val)
    assert sorted(p for part in validated for p in part.paths) == sorted(splits.train.paths)
    for label in range(3):
        counts = [part.labels.count(label) for part in validated]
        assert max(counts) - min(counts) <= 9  # the size of the largest group
    with pytest.raises(ConfigError, match=r"data\.folds=40: allowed is \d+ or less, as class"):
        make(splits, groups=r"bear\d+", folds=40).setup()


def test_groups_that_are_too_large_are_passed_over() -> None:
    """Of 104 photos 10 are wanted: the group of 90 is never drawn, and 14 are as near as 6."""
    sizes_of = {"x": 90, "y": 10, "z": 4}
    found = [(Path(f"/nowhere/a/{g}-{i}.jpg"), 0) for g, n in sizes_of.items() for i in range(n)]
    found += [(Path(f"/nowhere/b/u{i}-0.jpg"), 1) for i in range(10)]
    for seed in range(20):
        module = make(Splits(("a", "b"), Photos.of(found), None, None),
                      groups=r"([^/]+)-", val_fraction=0.1, seed=seed)  # fmt: skip
        assert module.val is not None
        drawn = {path.name[0] for path, label in pairs(module.val) if label == 0}
        assert drawn in ({"y"}, {"y", "z"})
        assert module.val.labels.count(1) == 1


def test_groups_that_cross_given_splits_or_are_not_there(tmp_path: Path) -> None:
    starts = (("train", 0), ("val", 3))
    touch(*(tmp_path / split / name / f"bear{i}_0.jpg" for split, start in starts
            for name in "ab" for i in range(start, start + 4)))  # fmt: skip
    with pytest.raises(ConfigError, match=r"group 'bear3' has photos in train and in val\. Move"):
        folder(tmp_path, groups=r"bear\d+").setup()
    with pytest.raises(ConfigError, match="group 'bear3' has photos in train and in val"):
        folder(tmp_path, groups=r"bear\d+", train_per_class=4).setup()
    with pytest.raises(ConfigError, match=r"\(bear: is no regular expression \(.*\)"):
        folder(tmp_path, groups="(bear").setup()
    with pytest.raises(ConfigError, match=r"wolf: is not in the path train/a/bear0_0\.jpg, so"):
        folder(tmp_path, groups="wolf").setup()
    assert sizes(folder(tmp_path, groups="^[^/]+/[ab]/bear.*")) == (8, 8, 0)


def test_a_class_in_one_group_alone_is_not_drawn_away() -> None:
    found = [(Path(f"/nowhere/{k}/g{g}-{i}.jpg"), k) for k in range(2) for g in range(3)
             for i in range(3)]  # fmt: skip
    found += [(Path(f"/nowhere/c/g9-{i}.jpg"), 2) for i in range(3)]
    module = make(Splits(("a", "b", "c"), Photos.of(found), None, None), groups=r"/(\d|c)/(g\d)")
    assert module.val is not None
    assert (module.train.labels.count(2), module.val.labels.count(2)) == (3, 0)


def test_classes_are_picked_and_ordered(tmp_path: Path) -> None:
    touch(*(tmp_path / name / f"{i}.jpg" for name in ("1", "2", "10") for i in range(10)))
    whole, some = folder(tmp_path), folder(tmp_path, classes=[10, "1"])
    assert whole.classes == ("1", "2", "10")
    assert some.classes == ("10", "1")
    for mine, all_ in zip(parts(some), parts(whole), strict=True):
        expected = {p: {0: 1, 2: 0}[label] for p, label in pairs(all_) if label != 1}
        assert dict(pairs(mine)) == expected  # the same photos are drawn
    for wrong, message in ((["1", "3"], r"no class '3'.* There are: 1, 2, 10"),
                           (["1"], "classes=.* two or more"),
                           (["1", "1"], "two or more different")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            folder(tmp_path, classes=wrong).setup()


def test_classes_of_every_source(tmp_path: Path) -> None:
    make_pets(tmp_path)
    module = Pets(data_dir=tmp_path, cache_dir=tmp_path, classes=["shiba_inu", "Bengal"])  # pyright: ignore
    assert module.classes == ("shiba_inu", "Bengal")
    assert sizes(module) == (16, 4, 4)


def test_photos_are_skipped_by_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(*(tmp_path / "p" / name / f"{i}.jpg" for name in "ab" for i in range(5)))
    touch(tmp_path / "p" / "a" / "x #1.jpg")
    listed = tmp_path / "skip.txt"
    listed.write_text(f"# bad ones\n\na/0.jpg\n./b/../b/3.jpg  # blurred\na/x #1.jpg\n"
                      f"{tmp_path / 'p' / 'b' / '4.jpg'}\n  a/0.jpg\n", "utf-8")  # fmt: skip
    module = folder(tmp_path / "p", skip=listed, val_fraction=0)
    left = {path.relative_to(tmp_path / "p").as_posix() for path in module.train.paths}
    assert left == {"a/1.jpg", "a/2.jpg", "a/3.jpg", "a/4.jpg", "b/0.jpg", "b/1.jpg", "b/2.jpg"}
    assert module.skipped == 4
    assert "4 photos are left out" in capsys.readouterr().out
    assert folder(tmp_path / "p").skipped == 0
    listed.write_text("a/0.jpg\n\na/99.jpg\n")
    with pytest.raises(ConfigError, match=r"skip\.txt, line 3: there is no photo a/99\.jpg\. Give"):
        folder(tmp_path / "p", skip=listed).setup()
    with pytest.raises(ConfigError, match=r"data\.skip=.*none\.txt: no such file"):
        folder(tmp_path / "p", skip=tmp_path / "none.txt").setup()


@pytest.mark.parametrize("prefix", ["", "flowers-102/"])
def test_test_photos_of_a_source_are_skipped(tmp_path: Path, prefix: str) -> None:
    make_flowers(tmp_path)
    (tmp_path / "skip.txt").write_text(f"{prefix}jpg/image_00008.jpg\n")
    module = Flowers102(data_dir=tmp_path, cache_dir=tmp_path, skip=tmp_path / "skip.txt")
    assert (sizes(module), module.skipped) == ((2, 2, 3), 1)


def test_a_split_is_written_and_sorted_as_it_was_drawn(tmp_path: Path) -> None:
    touch(*(tmp_path / "p" / name / f"{i}.jpg" for name in "ab" for i in range(10)))
    module = folder(tmp_path / "p", test_fraction=0.2)
    module.splits.write(tmp_path / "split.csv", module.folder)
    rows = [line.split(",") for line in (tmp_path / "split.csv").read_text().splitlines()]
    assert rows[0] == ["path", "split", "label"]
    assert [row[1] for row in rows[1:]] == ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    assert all(path.split("/")[0] == label for path, _, label in rows[1:])
    for split in ("train", "val", "test"):
        numbers = [row[0] for row in rows if row[1] == split]
        assert all(a < b for a, b in pairwise(numbers))


def test_a_class_without_training_photos_is_refused(tmp_path: Path) -> None:
    photos = Photos.of((Path(f"/nowhere/{k}/{i}.jpg"), k) for k in range(2) for i in range(9))
    (tmp_path / "skip.txt").write_text("".join(f"/nowhere/0/{i}.jpg\n" for i in range(9)))
    module = make(Splits(("a", "b"), photos, None, None), skip=tmp_path / "skip.txt")
    with pytest.raises(ConfigError, match="no training photo of class 'a' is left"):
        _ = module.splits


def test_too_few_groups_for_validation() -> None:
    photos = Photos.of((Path(f"/nowhere/{k}/{i}.jpg"), k) for k in range(2) for i in range(9))
    module = make(Splits(("a", "b"), photos, None, None), groups="^[^/]+")
    with pytest.raises(ConfigError, match="a pattern of more than"):
        _ = module.splits
