"""Folders as people have them: names of splits, links, system files, and what is no class."""

import os
from pathlib import Path

import pytest
from test_data_sources import folder, names, sizes, touch

from thaw.errors import ConfigError


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("val", ["val", "Valid", "validation"])
@pytest.mark.parametrize("test", ["test", "Testing"])
def test_all_names_of_splits(tmp_path: Path, train: str, val: str, test: str) -> None:
    for split, count in ((train, 3), (val, 2), (test, 1)):
        touch(*(tmp_path / split / name / f"{i}.jpg" for name in "ab" for i in range(count)))
    module = folder(tmp_path)
    assert module.classes == ("a", "b")
    assert sizes(module) == (6, 4, 2)


def test_splits_beside_class_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Class folders train; test/ with class folders is a split, and without them has no labels."""
    touch(*(tmp_path / name / f"{i}.jpg" for name in ("cat", "dog") for i in range(4)))
    touch(tmp_path / "test" / "1.jpg")
    assert folder(tmp_path).classes == ("cat", "dog")
    assert "test: has no class folders, so its photos have no labels" in capsys.readouterr().out
    assert folder(tmp_path, classes=["cat", "test"]).classes == ("cat", "test")
    touch(tmp_path / "test" / "dog" / "2.jpg", tmp_path / "val" / "cat" / "3.jpg")
    module = folder(tmp_path)
    assert names(module.val, tmp_path) == [("val/cat/3.jpg", 0)]
    assert names(module.test, tmp_path) == [("test/dog/2.jpg", 1)]
    assert "test: 1 files are left out, as 1.jpg" in capsys.readouterr().out


def test_a_test_folder_without_labels_beside_train(tmp_path: Path) -> None:
    touch(*(tmp_path / "train" / name / f"{i}.jpg" for name in "ab" for i in range(5)))
    touch(tmp_path / "test" / "1.jpg")
    module = folder(tmp_path)
    assert sizes(module) == (8, 2, 0)


def test_links_are_followed_but_not_in_circles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """cases.md: with links that lead back up, 12 photos became 1,452."""
    home, other = tmp_path / "home", tmp_path / "other"
    touch(*(home / name / f"{i}.jpg" for name in "ab" for i in range(6)))
    touch(*(other / f"{i}.jpg" for i in range(3)))
    (home / "c").symlink_to(other)
    (home / "a" / "up").symlink_to(home)
    (home / "a" / "here").symlink_to(home / "a")
    (home / "root").symlink_to(tmp_path)
    (home / "a" / "x").symlink_to(tmp_path / "one")
    touch(tmp_path / "one" / "1.jpg", tmp_path / "two" / "2.jpg")
    (tmp_path / "one" / "y").symlink_to(tmp_path / "two")
    (tmp_path / "two" / "z").symlink_to(tmp_path / "one")
    module = folder(home, val_fraction=0)
    assert module.classes == ("a", "b", "c")
    assert [module.train.labels.count(label) for label in range(3)] == [8, 6, 3]
    said = capsys.readouterr().out
    assert "ignored 4 hidden or system files and links that lead back up" in said


def test_system_files_are_ignored_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        touch(*(tmp_path / split / name / f"{i}.jpg" for name in "ab" for i in range(4)))
    touch(tmp_path / "__MACOSX" / "train" / "a" / "._0.jpg", tmp_path / "train" / "Thumbs.db")
    touch(tmp_path / "train" / ".ipynb_checkpoints" / "0.jpg", tmp_path / "test" / ".DS_Store")
    touch(tmp_path / "train" / "a" / "@eaDir" / "0.jpg" / "SYNOPHOTO_THUMB_M.jpg")
    touch(tmp_path / "train" / "b" / ".hidden.jpg", tmp_path / "train" / "b" / ".trash" / "1.jpg")
    module = folder(tmp_path, val_fraction=0)
    assert (module.classes, sizes(module)) == (("a", "b"), (8, 0, 8))
    said = capsys.readouterr().out
    assert said.count("hidden or system files") == 1
    assert "ignored 7 hidden or system files" in said
    assert "left out" not in said


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["x/cat/0.jpg", "x/dog/0.jpg"], r"found 1 class folders.* Is it data\.root=.*x\?"),
        (["x/train/a/0.jpg", "x/train/b/0.jpg", "x/val/a/0.jpg"], r"Is it data\.root=.*x\?"),
        (["x/a/0.jpg", "x/b/0.jpg", "y/a/0.jpg", "y/b/0.jpg"],
         r"all of x, y hold the same folders, a, b\. If .*data\.classes=\[x,y\]"),
        (["cat/0.jpg", "dog/0.jpg", "val/0.jpg"], r"val holds no pictures .* in class folders"),
        (["train/a/0.jpg", "Training/a/0.jpg"], "two folders for train photos"),
        (["a\u0308/0.jpg", "\u00e4/0.jpg"], r"class '\\xe4' looks like that of another"),
        (["test/a/0.jpg", "val/a/0.jpg"], "found 0 class folders"),
    ],
)  # fmt: skip
def test_folders_that_are_no_classes(tmp_path: Path, files: list[str], message: str) -> None:
    touch(*(tmp_path / "root" / name for name in files))
    with pytest.raises(ConfigError, match=message):
        folder(tmp_path / "root").setup()


def test_equal_folders_in_classes_are_taken_when_the_classes_are_named(tmp_path: Path) -> None:
    touch(*(tmp_path / name / year / f"{i}.jpg" for name in ("cat", "dog")
            for year in ("2023", "2024") for i in range(3)))  # fmt: skip
    module = folder(tmp_path, classes=["dog", "cat"], val_fraction=0)
    assert module.classes == ("dog", "cat")
    assert module.train.labels.count(0) == 6
    assert {path.parts[-3] for path, label in module.train.pairs() if label == 0} == {"dog"}


def test_one_folder_under_two_names(tmp_path: Path) -> None:
    touch(*(tmp_path / "train" / name / "0.jpg" for name in "ab"))
    (tmp_path / "val").symlink_to(tmp_path / "train")
    with pytest.raises(ConfigError, match="two of train, val are the same folder"):
        folder(tmp_path).setup()


def test_names_that_are_not_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The fingerprint, the draws, the table and what is printed take them; a class must not."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(5):
            (tmp_path / name / os.fsdecode(b"\xe4%d.jpg" % i)).write_bytes(b"x")
    (tmp_path / "a" / os.fsdecode(b"\xe4.txt")).write_bytes(b"x")
    module = folder(tmp_path)
    assert sizes(module) == (8, 2, 0)
    assert "left out, as \\udce4.txt" in capsys.readouterr().out
    assert len(module.train.fingerprint()) == 64
    table = tmp_path / "split.csv"
    module.splits.write(table, module.folder)
    assert table.read_bytes().count(b"\xe4") == 10
    (tmp_path / "b").rename(tmp_path / os.fsdecode(b"\xe4"))
    with pytest.raises(ConfigError, match="is not in UTF-8; rename it"):
        folder(tmp_path).setup()


def test_names_of_classes_in_any_script(tmp_path: Path) -> None:
    """With the wide space of Japanese and the joiner of Persian, which Python calls unprintable."""
    names = ("\u5c71\u3000\u7530", "\u0645\u06cc\u200c\u0631\u0648\u062f")
    touch(*(tmp_path / name / f"{i}.jpg" for name in names for i in range(5)))
    assert sizes(folder(tmp_path)) == (8, 2, 0)


def test_the_draw_does_not_depend_on_the_order_of_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(*(tmp_path / name / f"{i}.jpg" for name in "ab" for i in range(20)))
    first = folder(tmp_path, seed=3, test_fraction=0.2).splits
    plain = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(plain(path), key=hash))
    assert folder(tmp_path, seed=3, test_fraction=0.2).splits == first
