"""Photos that cannot be read: all found before training, none that can be."""

import io
import os
import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_data_sources import folder, sizes

from thaw.data import broken, decode
from thaw.data.broken import find_broken
from thaw.errors import ConfigError


def encoded(format: str = "JPEG", size: int = 120, **options: object) -> bytes:
    """A picture with something at every place."""
    pixels = np.random.default_rng(0).integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).resize((size, size)).save(data, format, **options)
    return data.getvalue()


JPEG, PNG = encoded(), encoded("PNG")
HALF = len(JPEG) // 2
EXIF = Image.Exif()
EXIF[0x9286] = "\xff\xd9" * 9  # a comment that looks like the end
WHOLE = {
    "plain": JPEG,
    "progressive": encoded(progressive=True),
    "restarts": encoded(restart_marker_blocks=2),
    "exif": encoded(exif=EXIF),
    "trailer": JPEG + b"a phone's own data" + bytes(900),
    "png": PNG,
    "gif": encoded("GIF"),
}
BROKEN = {
    "empty": (b"", "empty, or in none of the formats"),
    "cut": (JPEG[:HALF], "truncated"),
    "zeros at the end": (JPEG[:HALF] + bytes(len(JPEG) - HALF), "truncated"),
    "zeros inside": (JPEG[:HALF] + bytes(300) + JPEG[HALF + 300 :], "Corrupt JPEG data"),
    "png": (PNG[:200] + b"??" + PNG[202:], "reading image file"),
    "gif": (encoded("GIF")[:900], "truncated"),
    "html": (b"<html><script>alert(1)</script>", "in none of the formats"),
    "svg": (
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
        "none of",
    ),
    "pdf": (b"%PDF-1.4\n1 0 obj <</Type /Catalog>> endobj\n", "in none of the formats"),
    "eps": (encoded("EPS"), "in none of the formats"),
}


def written(home: Path, name: str, data: bytes) -> Path:
    path = home / f"{name}.jpg"
    path.write_bytes(data)
    return path


def test_what_can_be_read_is_not_called_broken(tmp_path: Path) -> None:
    paths = [written(tmp_path, name, data) for name, data in WHOLE.items()]
    flat = tmp_path / "white.jpg"
    Image.new("RGB", (900, 900), "white").save(flat, optimize=True)
    assert bytes(64) in flat.read_bytes()  # as in a damaged file
    assert find_broken([*paths, flat]) == {}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_read_is_found(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And starts no program: Pillow would give an EPS to Ghostscript."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started a program"))
    data, why = BROKEN[kind]
    paths = [written(tmp_path, name, JPEG) for name in "abc"] + [written(tmp_path, "bad", data)]
    found = find_broken(paths)
    assert list(found) == [tmp_path / "bad.jpg"]
    assert why in found[tmp_path / "bad.jpg"]


def test_pipes_sockets_devices_and_sizes(tmp_path: Path) -> None:
    """None of them hangs or fills the memory."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound, (tmp_path / "huge.jpg").open("wb") as huge:
        bound.bind(str(tmp_path / "socket.jpg"))
        huge.truncate(2**31)
        Image.new("RGB", (30_000, 1)).save(tmp_path / "long.png")
        paths = sorted(tmp_path.iterdir())
        found = {path.name: why for path, why in find_broken(paths).items()}
    assert found.keys() == {"pipe.jpg", "zero.jpg", "socket.jpg", "huge.jpg", "long.png"}
    assert "30000 x 1 pixels are no photo" in found["long.png"]
    assert found["huge.jpg"] == "it is no file, or a file of more than 1 GiB"


def test_only_doubtful_photos_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken, "decode", pytest.fail)
    assert find_broken([written(tmp_path, name, JPEG) for name in "abc"]) == {}


def test_other_formats_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the threads and with their bar: of 20,000 WebP photos, one after another takes minutes."""
    monkeypatch.setattr(broken, "_fault", pytest.fail)
    paths = [tmp_path / f"{number}.webp" for number in range(3)]
    for path in paths:
        Image.new("RGB", (9, 9), "red").save(path)
    assert find_broken(paths) == {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three broken photos, one in each split."""
    for split, count in (("train", 6), ("val", 3), ("test", 3)):
        for name in "ab":
            (tmp_path / "p" / split / name).mkdir(parents=True)
            for i in range(count):
                written(tmp_path / "p" / split / name, str(i), JPEG)
        written(tmp_path / "p" / split / "a", "0", JPEG[:HALF])
    return tmp_path / "p"


def test_all_are_named_before_training(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        folder(root, train_transform=lambda image: image).setup()
    told = str(caught.value)
    assert told.startswith(f"data.on_bad_photo=error: 3 photos in {root} cannot be read:\n  train")
    for name in ("train/a/0.jpg: ", "val/a/0.jpg: ", "test/a/0.jpg: ", "data.on_bad_photo=skip"):
        assert name in told
    assert sizes(folder(root)) == (12, 6, 6)  # a tool that reads other photos goes on


def test_they_are_left_out(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = folder(root, on_bad_photo="skip")
    assert sizes(module) == (11, 5, 5)
    assert module.bad_photos == [f"{split}/a/0.jpg" for split in ("train", "val", "test")]
    assert "3 photos in" in capsys.readouterr().out
    for path in (root / "train" / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no training photo of class 'b' is left"):
        folder(root, on_bad_photo="skip").setup()


def test_a_hundred_lines_at_most(tmp_path: Path) -> None:
    told = broken.describe({tmp_path / f"{i}.jpg": "gone" for i in range(130)}, tmp_path, "x=y")
    assert len(told.splitlines()) == 102
    assert told.endswith("\n  and 30 more")


KINDS = [
    ("RGB", "JPEG"),
    ("L", "JPEG"),
    *((mode, "PNG") for mode in ("RGB", "P", "RGBA", "L", "1")),
]


@pytest.mark.parametrize(("mode", "format"), KINDS)
def test_large_pictures_are_read_at_half_their_size(
    tmp_path: Path, mode: str, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "LARGE", 10_000)
    image = Image.open(io.BytesIO(encoded(size=160))).convert(mode)
    image.save(tmp_path / "a", format)
    picture = decode.decode(tmp_path / "a")
    assert picture.shape == (3, 80, 80)
    expected = np.asarray(image.convert("RGB").reduce(2)).transpose(2, 0, 1)
    assert np.abs(picture.numpy().astype(int) - expected).mean() < 6


def test_a_large_16_bit_picture_keeps_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "LARGE", 10_000)
    Image.new("I;16", (160, 160), 65535).save(tmp_path / "a.png")
    assert decode.decode(tmp_path / "a.png").float().mean() == 255
