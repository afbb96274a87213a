"""`thaw check`: what it sees in files, which copies and doubts it finds; it changes nothing."""

import hashlib
import os
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

from thaw.errors import ConfigError, trouble
from thaw.report.predictions import Predictions
from thaw.tools import check, check_alike, check_files
from thaw.tools.check import left_out
from thaw.tools.check_files import Finding, Listing, Seen, see_all


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def photo(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Something like a photo: coarse coloured blobs with fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (7, 9, 3), np.uint8))
    grain = rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse.resize(size)) + grain).clip(0, 255).astype(np.uint8))


def notes(path: Path) -> dict[str, str]:
    return check_files.see(path).notes


def test_an_ordinary_photo_has_no_notes(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "a.jpg")
    photo(0).convert("L").save(tmp_path / "b.png")
    assert notes(tmp_path / "a.jpg") == notes(tmp_path / "b.png") == {}


@pytest.mark.parametrize(
    ("kind", "said", "name", "picture", "options"),
    [
        ("name", "is a GIF, named .jpg", "a.jpg", photo(0), {"format": "GIF"}),
        ("mode", "is RGBA, transparent", "a.png", photo(0).convert("RGBA"), {}),
        ("mode", "is CMYK", "a.jpg", photo(0).convert("CMYK"), {}),
        ("mode", "is I;16", "a.png",
         Image.fromarray(np.asarray(photo(0).convert("L")).astype(np.uint16) * 257), {}),
        ("size", "has 20 x 20 pixels", "a.png", photo(0, (20, 20)), {}),
        ("size", "has 400 x 90 pixels", "a.png", photo(0, (400, 90)), {}),
        ("flat", "has grey values 3 to 3 of 255 alone", "a.png", plain("#030303"), {}),
        ("flat", "has grey values 250 to 250", "a.png", plain("#fafafa"), {}),
        ("blurry", "has edges", "a.png", photo(0).filter(ImageFilter.GaussianBlur(3)), {}),
        ("broken", "300 x 1 pixels are no photo", "a.png", photo(0, (300, 1)), {}),
    ],
)  # fmt: skip
def test_what_is_odd_about_a_file(
    kind: str, said: str, name: str, picture: Image.Image, options: dict[str, str], tmp_path: Path
) -> None:
    picture.save(tmp_path / name, **options)
    found = notes(tmp_path / name)
    assert said in found[kind]
    assert found.keys() <= {kind, "mode"}  # a GIF has a palette too


@pytest.mark.parametrize("orientation", [6, 0])
def test_exif_orientation(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(0).save(tmp_path / "a.jpg", exif=exif)
    assert notes(tmp_path / "a.jpg") == {"exif": f"has EXIF orientation {orientation}"}


def test_two_colours_are_a_placeholder(tmp_path: Path) -> None:
    picture = Image.new("RGB", (100, 100), "#999999")
    picture.paste("#333333", (30, 40, 70, 50))
    picture.save(tmp_path / "a.png")
    assert notes(tmp_path / "a.png") == {"flat": "has two colours in nine tenths of its area"}


@pytest.mark.parametrize("content", [b"", b"<html>", "half", None])
def test_broken_files(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photo(0).save(path)
    whole = path.read_bytes()
    if content is None:
        path.unlink()
        path.symlink_to(tmp_path / "gone.jpg")
    else:
        path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    seen = check_files.see(path)
    assert list(seen.notes) == ["broken"]
    assert (seen.pixels, seen.grey) == ("", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_files, "in_cores", lambda work, items, _title: map(work, items))
        assert check_files.see_all([path], tmp_path / "cache")[0].notes == seen.notes


def test_what_stops_training_is_on_the_usual_list(tmp_path: Path) -> None:
    from thaw.data.broken import find_broken

    photo(0).save(path := tmp_path / "a.jpg", quality=95)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 300] = bytes(300)
    path.write_bytes(data)
    assert "Corrupt JPEG" in find_broken([path])[path]
    assert list(notes(path)) == ["damaged"]
    given = check.read(ArgumentParser(), ["data=demo", "--skip", "skip.txt"])
    assert given.kinds == "broken,damaged,across"


def test_a_check_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        photo(n).save(path)
    read: list[Path] = []

    def in_cores(work: Callable[[Path], Seen], items: list[Path], title: str) -> Iterator[Seen]:
        read.extend(items)
        return map(work, items)

    monkeypatch.setattr(check_files, "in_cores", in_cores)
    before = see_all(paths, tmp_path / "cache")
    assert read == paths
    assert see_all(paths, tmp_path / "cache") == before
    assert len(read) == 4
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_text(cached.read_text()[:-40])  # killed while it wrote the last one
    photo(9).save(paths[1])
    after = see_all(paths, tmp_path / "cache")
    assert read[4:] == [paths[1], paths[3]]
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, True, True]
    see_all(paths, tmp_path / "cache")
    assert len(read) == 6
    paths[2].write_bytes(b"")
    assert "broken" in see_all(paths, tmp_path / "cache")[2].notes
    monkeypatch.setattr(check_files, "see", lambda path: after[0])  # a package that reads it
    assert see_all(paths, tmp_path / "cache")[2] == after[0]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are looked for in this process."""
    monkeypatch.setattr(check_alike, "in_cores", lambda work, items, title: map(work, items))


def test_copies_are_found_and_others_are_not(tmp_path: Path, here: None) -> None:
    pictures = [photo(seed) for seed in range(12)]
    pictures += [
        pictures[3],  # 12
        pictures[4].resize((90, 68)),  # 13
        pictures[5].crop((10, 8, 110, 84)),  # 14: only features lead to it
        ImageOps.mirror(pictures[6]),  # 15
        plain("white"), plain("#fefefe"),  # all that is flat looks alike
        pictures[7].rotate(90, expand=True), pictures[8].rotate(180),  # 18, 19
        pictures[9].resize((90, 90)), ImageOps.mirror(pictures[10].rotate(270, expand=True)),
    ]  # fmt: skip
    paths = [tmp_path / f"{n}.{'png' if n in (3, 12) else 'jpg'}" for n in range(len(pictures))]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    seen = [check_files.see(path) for path in paths]
    labels, splits = [0] * 12 + [1] + [0] * 9, ["test"] * 13 + ["train"] * 9
    photos = Listing(paths, labels, splits, ("a", "b"))
    found = check_alike.find_copies(photos, seen, [(14, 5), (0, 1), (2, 2), (10, 21)])
    assert [each for each in found if each.photos == (3, 12)] == [found[0]]
    assert {each.photos: each.kinds for each in found} == {
        (3, 12): ("conflict", "exact"), (4, 13): ("across", "near"),
        (5, 14): ("across", "near"), (6, 15): ("across", "near"),
        (7, 18): ("across", "near"), (8, 19): ("across", "near"),
        (9, 20): ("across", "near"), (10, 21): ("across", "near"),
    }  # fmt: skip
    assert (5, 14) not in {each.photos for each in check_alike.find_copies(photos, seen)}


@pytest.mark.parametrize("labels", [[0, 0], [0, 1]])
def test_copies_with_two_labels_must_be_more_alike(
    labels: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos of two things under one horizon are not one picture with two labels."""
    grey = bytes(64).hex()
    seen = [Seen({}, str(n), 8, grey) for n in (1, 2)]
    photos = Listing([Path("a"), Path("b")], labels, ["train"] * 2, ("a", "b"))

    def alike(work: object, items: list[object], title: str) -> list[float]:
        return [0.93] * len(items)

    monkeypatch.setattr(check_alike, "in_cores", alike)
    found = check_alike.find_copies(photos, seen, [(0, 1)])
    assert len(found) == (labels == [0, 0])


@pytest.mark.parametrize(
    ("kinds", "out"),
    [
        ("exact", {2, 3}),
        ("across", {2, 3}),  # 4 stays, since its other half is gone
        ("near", {1, 4, 6}),
        ("near,across", {1, 2, 3, 6}),
        ("conflict", {2, 4}),
        ("broken", {5}),
        ("label", set()),
    ],
)
def test_a_list_names_what_was_asked_and_never_both_copies(kinds: str, out: set[int]) -> None:
    findings = [
        Finding(("near",), (1, 2), ""),
        Finding(("across", "exact"), (0, 3), ""),
        Finding(("conflict", "across", "near"), (2, 4), ""),
        Finding(("near",), (0, 1), ""),
        Finding(("near",), (0, 6), ""),
        Finding(("broken",), (5,), ""),
        Finding(("across", "exact"), (0, 2), ""),
    ]
    assert {*left_out(kinds.split(","), findings)} == out


def test_sizes_of_classes() -> None:
    photos = Listing([Path()] * 7, [0, 0, 0, 0, 0, 1, 3], ["val"] * 2 + ["train"] * 4 + ["val"],
                     ("a", "b", "c", "d"))  # fmt: skip
    assert check.class_notes(photos) == [
        "4 classes of 0 (c) to 5 (a) photos.",
        "2 classes have one photo: b, d",
        "2 classes have none in val: c, b",
        "2 classes have none in train: c, d",
    ]
    assert photos.counts() == {
        "c": {"val": 0, "train": 0}, "b": {"val": 0, "train": 1},
        "d": {"val": 1, "train": 0}, "a": {"val": 2, "train": 3},
    }  # fmt: skip


def test_kinds_alone_go_to_a_file_of_the_usual_name() -> None:
    for words in (["--skip", "exact,across"], ["--skip", "skip.txt", "--kinds", "exact,across"]):
        given = check.read(ArgumentParser(), ["data=demo", *words])
        assert (given.skip, given.kinds) == (Path("skip.txt"), "exact,across")


def test_a_list_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may have added to it by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "look", lambda given: (Listing([], [], [], ()), [], []))
    monkeypatch.setattr(check, "in_cores", lambda *_: [])
    Path("skip.txt").write_text("mine.jpg\n")
    check.main(ArgumentParser(), ["data=demo", "--fast", "--skip", "skip.txt"])
    assert Path("skip.txt~").read_text() == "mine.jpg\n"
    assert Path("skip.txt").read_text() == ""
    Path("old.txt").write_text("mine.jpg")  # whose last line has no end
    check.main(ArgumentParser(), ["data=demo", "data.skip=old.txt", "--fast", "--skip", "new.txt"])
    assert Path("new.txt").read_text() == "mine.jpg\n"
    for name in ("old.txt", "new.txt"):
        Path(name).unlink()
    Path("photos").mkdir()
    with pytest.raises(IsADirectoryError):
        check.main(ArgumentParser(), ["data=demo", "--fast", "--skip", "photos"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "skip.txt", "skip.txt~"]


def test_what_a_model_doubts_and_its_accuracy_without_odd_photos(tmp_path: Path) -> None:
    photos = Listing(
        [tmp_path / f"{n}.jpg" for n in range(9)], [0] * 9, ["test"] * 8 + ["train"], ("a", "b")
    )
    labels, said = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 1, 0])
    sure = np.array([0.9, 0.9, 0.9, 0.95, 0.9, 0.9, 0.9, 0.6])
    Predictions(
        ["a", "b"], [str(path) for path in photos.paths[:8]], labels, said, sure, sure
    ).write(tmp_path / "predictions.csv")
    odd = [Finding(("label",), (3,), ""), Finding(("across", "near"), (0, 8), "")]
    added, notes = check.of_model(tmp_path, photos, odd)
    assert added == [Finding(("model",), (3,), "a? The model says b with 95.0%")]
    other = photos._replace(paths=[tmp_path / "other.jpg"] * 9)  # of a run on other photos
    nothing, told = check.of_model(tmp_path, other, odd)
    assert (nothing, len(told)) == ([], 1)
    assert told[0].startswith("No test photo of the run is among these")
    shares = [note.partition(": ")[2] for note in notes]
    assert shares == [
        "0.7500 of 8 photos.",
        "0.7143 of 7 photos.",
        "0.8571 of 7 photos.",
        "0.8333 of 6 photos.",
    ]


def made(root: Path, number: int = 24) -> dict[Path, str]:
    """Photos of two classes in two splits, with one of each trouble; and their hashes."""
    for n in range(number):
        name, split = ("cold", "warm")[n % 2], ("train", "train", "test")[n // 2 % 3]
        picture = Image.blend(photo(n, (64, 64)), plain(("blue", "red")[n % 2]), 0.7)
        (root / split / name).mkdir(parents=True, exist_ok=True)
        picture.save(root / split / name / f"{n}.png")
    (root / "train/cold/copy.png").write_bytes((root / "test/cold/4.png").read_bytes())
    (root / "train/warm/wrong <b>.png").write_bytes((root / "train/cold/0.png").read_bytes())
    (root / "train/warm/half.png").write_bytes((root / "train/cold/0.png").read_bytes()[:200])
    return hashes(root)


def hashes(root: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}


@pytest.mark.slow  # other processes import torch
def test_the_fast_check_needs_no_torch_and_changes_nothing(tmp_path: Path) -> None:
    before = made(tmp_path / "photos")
    words = ["data=folder", f"data.root={tmp_path}/photos", f"paths.cache_dir={tmp_path}/cache",
             "--fast", "--page", f"{tmp_path}/new/check.html", "--skip", f"{tmp_path}/skip.txt",
             "--kinds", "across,conflict"]  # fmt: skip
    (tmp_path / "run.py").write_text(
        "import sys\nfrom thaw import cli\nif __name__ == '__main__':\n"
        f"    print(cli.main(['check', *{words!r}]), {{'torch', 'lightning'}} & {{*sys.modules}})"
    )
    command = [sys.executable, str(tmp_path / "run.py")]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "0 set()"
    assert hashes(tmp_path / "photos") == before
    rows = dict(line.split()[:2] for line in printed.splitlines() if " " in line)
    assert (rows["broken"], rows["conflict"], rows["across"]) == ("1", "2", "2")
    assert "2 classes of 13 (cold) to 14 (warm) photos." in printed
    assert "1 classes have none" not in printed
    assert "Copies in test and train: 1 exact, 0 near, 0 with two labels." in printed
    assert "Copies in train and train: 1 exact, 0 near, 1 with two labels." in printed
    listed = [line for line in (tmp_path / "skip.txt").read_text().splitlines() if line[0] != "#"]
    folder = tmp_path / "photos/train"
    assert sorted(listed) == sorted(
        str(folder / each) for each in ("cold/copy.png", "cold/0.png", "warm/wrong <b>.png")
    )
    from test_page import Reader  # with all that makes a run, which the other tests do without

    page = Reader(tmp_path / "new" / "check.html")
    assert "Classes, the smallest first class test val train cold 4 2 7 warm 4 2 8" in page.text
    assert "cannot be read" in page.text
    assert "wrong <b>.png" in page.text
    assert all(source.startswith("data:image/jpeg") for source in page.sources)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--skip", "x", "--kinds", "exact,twice"],
            r"^--kinds=exact,twice: allowed is one or more of broken,damaged",
        ),
        (
            ["backbone=resnet18", "--fast", "--skip", "x", "--kinds", "exact,label"],
            r"^--kinds=exact,label: allowed is what is looked for: .* need backbone=",
        ),
        (
            ["--skip", "x", "--kinds", "model"],
            r"^--kinds=model: allowed is what is looked for: .* model needs --model",
        ),
        (
            ["--model", "nowhere"],
            r"^--model=nowhere: allowed is the folder of a run that was tested",
        ),
    ],
)
def test_words_that_cannot_be_understood(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check.read(ArgumentParser(), words)


@pytest.mark.slow
@pytest.mark.photos
def test_the_known_faults_of_flowers_and_pets(data_dir: Path, tmp_path: Path) -> None:
    words = [f"paths.data_dir={data_dir}", f"paths.cache_dir={tmp_path}", "--fast"]
    _, _, notes = check.look(check.read(ArgumentParser(), ["data=pets", *words]))
    photos, findings, _ = check.look(check.read(ArgumentParser(), ["data=flowers102", *words]))
    assert any("Abyssinian_34.jpg is a GIF, named .jpg" in note for note in notes)
    exact = {tuple(photos.paths[n].stem[-5:] for n in each.photos) for each in findings
             if {"across", "exact"} <= {*each.kinds}}  # fmt: skip
    assert {("07309", "07307"), ("08067", "08077")} <= exact


def test_a_process_that_was_killed_is_told() -> None:
    with pytest.raises(BrokenProcessPool) as error:
        list(check_files.in_cores(os._exit, [1], "photos"))
    assert "was killed (too little memory?); start again to go on" in str(trouble(error.value))
