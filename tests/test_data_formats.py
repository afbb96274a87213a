"""Files that are no plain photos: pipes, formats that want a package, several frames."""

import os
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import DataLoader

from thaw.data import decode as module
from thaw.data.dataset import PhotoDataset
from thaw.data.decode import FORMATS, decode
from thaw.data.photos import Photos
from thaw.errors import PhotoError


def frames(path: Path, format: str, colours: str = "rb") -> Path:
    first, *others = (Image.new("RGB", (8, 6), {"r": "red", "b": "blue"}[c]) for c in colours)
    first.save(path, format, save_all=True, append_images=others)
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
    tmp_path: Path, format: str, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [frames(tmp_path / f"{i}.{format.lower()}", format) for i in range(6)]
    module._said[0] = 0
    assert decode(frames(tmp_path / "one", format, "b"))[2].float().mean() > 240
    assert capfd.readouterr().err == ""  # a single one is nothing to say
    data = PhotoDataset(Photos(tuple(paths), (0,) * 6), lambda image: image)
    for image, _ in DataLoader(data, batch_size=None, num_workers=2):
        assert image[0].float().mean() > 240  # red
        assert image[2].float().mean() < 15
    assert capfd.readouterr().err.count("of several frames or pages, the first is used") == 1
