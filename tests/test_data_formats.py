"""Files that are no plain photos: pipes, formats that want a package, several frames."""

import functools
import os
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from thaw.data import decode as module
from thaw.data.decode import FORMATS, decode
from thaw.data.loading import PhotoDataset
from thaw.data.photos import Photos
from thaw.errors import PhotoError


def frames(path: Path, format: str) -> Path:
    first, second = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    first.save(path, format, save_all=True, append_images=[second])
    return path


def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(PhotoError, match=r"a\.jpg: it is no file"):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("brand", "package"),
    [(b"heic", "pip install pillow-heif"), (b"avif", "pip install 'pillow>=11")],
)
def test_the_package_for_a_format_is_named(
    tmp_path: Path, brand: bytes, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = tuple(name for name in FORMATS if name not in ("HEIF", "AVIF"))
    monkeypatch.setattr(module, "FORMATS", others)
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(40))
    with pytest.raises(PhotoError, match=package):
        decode(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypisom" + bytes(40))  # a film
    with pytest.raises(PhotoError, match="in none of the formats"):
        decode(tmp_path / "a.jpg")


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_used_and_said_once(
    tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "say_once", functools.cache(print))
    paths = [frames(tmp_path / f"{i}.{format.lower()}", format) for i in range(4)]
    Image.new("RGB", (8, 6), "red").save(tmp_path / "one", format)
    decode(tmp_path / "one")
    assert capfd.readouterr().err == ""  # a single one is nothing to say
    decode(paths[0])
    data = PhotoDataset(Photos(tuple(paths), (0,) * 4), lambda image: image)
    for image, _ in DataLoader(data, batch_size=None, num_workers=2):
        red, _, blue = image.float().mean((1, 2)).tolist()
        assert red > 240
        assert blue < 15
    assert capfd.readouterr().err.count("of several frames or pages the first is used") == 1
