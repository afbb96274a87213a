"""`thaw check`: what it sees in files, which copies and doubts it finds; it changes nothing."""

import hashlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from PIL import Image, ImageFilter

from thaw.errors import ConfigError
from thaw.report.predictions import Predictions
from thaw.tools import check, check_copies, check_files, check_findings
from thaw.tools.check_findings import Finding, Listing

T = TypeVar("T")


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


def photo(seed: int, size: tuple[int, int] = (120, 90)) -> Image.Image:
    """Something like a photo: coarse coloured blobs with fine grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 255, (7, 9, 3), np.uint8))
    grain = rng.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(coarse.resize(size)) + grain).clip(0, 255).astype(np.uint8))


def notes(path: Path) -> dict[str, str]:
    return check_files.see(str(path)).notes


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
        ("blurry", "has edges", "a.png", photo(0).filter(ImageFilter.GaussianBlur(4)), {}),
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


@pytest.mark.parametrize(("orientation", "what"), [(6, ""), (0, "the invalid ")])
def test_exif_orientation(orientation: int, what: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo(0).save(tmp_path / "a.jpg", exif=exif)
    assert notes(tmp_path / "a.jpg") == {"exif": f"has {what}EXIF orientation {orientation}"}


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
    seen = check_files.see(str(path))
    assert list(seen.notes) == ["broken"]
    assert (seen.pixels, seen.thumbnail) == ("", "")
    assert check_files._key(path)


def test_a_check_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for n, path in enumerate(paths):
        photo(n).save(path)
    read: list[str] = []

    def here(work: Callable[[str], T], items: list[str], title: str) -> Iterator[T]:
        read.extend(items)
        return map(work, items)

    monkeypatch.setattr(check_files, "in_all_cores", here)
    before = check_files.see_all(paths, tmp_path / "cache")
    assert read == [str(path) for path in paths]
    assert check_files.see_all(paths, tmp_path / "cache") == before
    assert len(read) == 4
    (cached,) = (tmp_path / "cache").iterdir()
    cached.write_text(cached.read_text()[:-40])  # killed while it wrote the last one
    photo(9).save(paths[1])
    after = check_files.see_all(paths, tmp_path / "cache")
    assert read[4:] == [str(paths[1]), str(paths[3])]
    assert [one == two for one, two in zip(before, after, strict=True)] == [True, False, True, True]
    check_files.see_all(paths, tmp_path / "cache")
    assert len(read) == 6


def test_copies_are_found_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [photo(seed) for seed in range(12)]
    pictures += [
        pictures[3],  # 12
        pictures[4].resize((90, 68)),  # 13
        pictures[5].crop((10, 8, 110, 84)),  # 14: only features lead to it
    ]
    paths = [tmp_path / f"{n}.{'png' if n in (3, 12) else 'jpg'}" for n in range(15)]
    for path, picture in zip(paths, pictures, strict=True):
        picture.save(path)
    monkeypatch.setattr(check_copies, "in_all_cores", lambda work, items, title: map(work, items))
    seen = [check_files.see(str(path)) for path in paths]
    distances = np.full((15, 1), 0.9)
    distances[14] = 0.1
    nearest = np.arange(15), distances, np.full((15, 1), 5)
    found = check_copies.find_copies(paths, seen, [0] * 12 + [2, 0, 0], nearest)
    assert {pair[:2] for pair in found} == {(3, 12), (4, 13), (5, 14)}
    assert found[0] == (3, 12, 1.0)
    found = check_copies.find_copies(paths, seen, [2] * 12 + [1, 0, 0])
    assert {(12, 3), (13, 4)} <= {pair[:2] for pair in found}  # that of the lower rank comes first


def test_close_pairs_need_not_compare_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    thumbnails = rng.integers(0, 255, (3000, 256), np.uint8)
    changed = (thumbnails[:100] + rng.normal(0, 6, (100, 256))).clip(0, 255).astype(np.uint8)
    pairs = {
        tuple(pair)
        for pair in check_copies.close_pairs(np.concatenate([thumbnails, changed])).tolist()
    }
    assert sum((n, 3000 + n) in pairs for n in range(100)) >= 99
    assert len(pairs) < 150
    assert len(check_copies.close_pairs(np.repeat(thumbnails[:1], 500, axis=0))) == 5 * 500


def test_kinds_of_copies_and_what_a_list_leaves_out() -> None:
    photos = Listing([Path(f"/{n}.jpg") for n in range(6)], [0, 0, 0, 1, 1, 1],
                     ["train", "test", "val", "train", "train", "train"], ("a", "b"))  # fmt: skip
    findings = [
        Finding(("across", "exact"), (1, 0), "the same pixels"),
        Finding(("conflict", "across", "near"), (2, 3), "correlation 0.95"),
        Finding(("near",), (4, 5), "correlation 0.92"),
        Finding(("broken",), (0,), "it is empty"),
    ]

    def names(*kinds: str) -> list[str]:
        return [path.name for path in check.skip_lines(kinds, photos, findings)]

    assert names("exact") == ["0.jpg"]
    assert names("across") == ["0.jpg", "2.jpg", "3.jpg"]
    assert names("near", "broken") == ["2.jpg", "3.jpg", "5.jpg", "0.jpg"]
    assert names("label") == []
    rows = check_findings.by_splits(photos, findings)
    assert ["test and train", "1", "0", "0"] in rows
    assert ["val and train", "0", "1", "1"] in rows
    assert ["train and train", "0", "1", "0"] in rows


def test_sizes_of_classes() -> None:
    photos = Listing([Path()] * 7, [0, 0, 0, 0, 0, 1, 3], ["train"] * 4 + ["val", "train", "val"],
                     ("a", "b", "c", "d"))  # fmt: skip
    assert check_findings.class_notes(photos) == [
        "4 classes of 0 to 5 photos, 1 to 5.0.",
        "2 classes have one photo: b, d.",
        "2 classes have none in val: c, b.",
        "2 classes have none in train: c, d.",
    ]


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
    added, notes = check_findings.of_model(tmp_path, photos, odd)
    assert [(each.kinds, each.photos) for each in added] == [(("model",), (3,))]
    assert "95.0%" in added[0].why
    shares = [note.partition(": ")[2] for note in notes]
    assert shares == [
        "0.7500 of 8 photos.",
        "0.7143 of 7 photos.",
        "0.8571 of 7 photos.",
        "0.8333 of 6 photos.",
    ]


def made(root: Path) -> dict[Path, str]:
    """Photos of two classes in two splits, with one of each trouble; and their hashes."""
    for n in range(24):
        name, split = ("cold", "warm")[n % 2], ("train", "train", "test")[n // 2 % 3]
        picture = Image.blend(photo(n, (64, 64)), plain(("blue", "red")[n % 2]), 0.5)
        (root / split / name).mkdir(parents=True, exist_ok=True)
        picture.save(root / split / name / f"{n}.png")
    (root / "train/cold/copy.png").write_bytes((root / "test/cold/4.png").read_bytes())
    (root / "train/warm/wrong <b>.png").write_bytes((root / "train/cold/0.png").read_bytes())
    (root / "train/warm/half.png").write_bytes((root / "train/cold/0.png").read_bytes()[:200])
    return hashes(root)


def hashes(root: Path) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}


def test_the_fast_check_needs_no_torch_and_changes_nothing(tmp_path: Path) -> None:
    before = made(tmp_path / "photos")
    words = ["data=folder", f"data.root={tmp_path}/photos", f"paths.cache_dir={tmp_path}/cache",
             "--fast", "--page", f"{tmp_path}/check.html", "--skip", f"{tmp_path}/skip.txt",
             "--kinds", "across,conflict"]  # fmt: skip
    script = (
        "import sys\nfrom thaw import cli\nif __name__ == '__main__':\n"
        f"    print(cli.main(['check', *{words!r}]), 'torch' in sys.modules)"
    )
    (tmp_path / "run.py").write_text(script)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py")], check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "0 False"
    assert hashes(tmp_path / "photos") == before
    rows = dict(line.split()[:2] for line in done.stdout.splitlines() if " " in line)
    assert (rows["broken"], rows["conflict"], rows["across"]) == ("1", "2", "2")
    listed = [line for line in (tmp_path / "skip.txt").read_text().splitlines() if line[0] != "#"]
    folder = tmp_path / "photos/train"
    assert sorted(listed) == sorted(
        str(folder / each) for each in ("cold/copy.png", "cold/0.png", "warm/wrong <b>.png")
    )
    from test_page import Reader  # with all that makes a run, which the other tests do without

    page = Reader(tmp_path / "check.html")
    assert "cannot be read" in page.text
    assert "wrong <b>.png" in page.text
    assert all(source.startswith("data:image/jpeg") for source in page.sources)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--skip", "x", "--kinds", "exact,twice"],
            r"^--kinds twice: allowed are broken, conflict",
        ),
        (["--model", "nowhere"], r"^--model nowhere: give the folder of a run that was tested"),
    ],
)
def test_words_that_cannot_be_understood(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check.read(words)


@pytest.mark.photos
def test_the_known_faults_of_flowers_and_pets(data_dir: Path, tmp_path: Path) -> None:
    words = [f"paths.data_dir={data_dir}", f"paths.cache_dir={tmp_path}", "--fast"]
    _, _, notes = check.look(check.read(["data=pets", *words]))
    assert any("Abyssinian_34.jpg is a GIF, named .jpg" in note for note in notes)
    photos, findings, _ = check.look(check.read(["data=flowers102", *words]))
    exact = {tuple(photos.paths[n].stem[-5:] for n in each.photos) for each in findings
             if {"across", "exact"} <= {*each.kinds}}  # fmt: skip
    assert {("07309", "07307"), ("08067", "08077")} <= exact
