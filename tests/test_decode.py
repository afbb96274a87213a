"""Every kind of picture file, against colours known beforehand."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from thaw.data.decode import decode
from thaw.errors import PhotoError

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def halves(left: tuple[int, ...], right: tuple[int, ...], mode: str = "RGB") -> Image.Image:
    """24 x 8 pixels, the left half in one colour and the right half in another."""
    image = Image.new(mode, (24, 8), left)
    image.paste(right, (12, 0, 24, 8))
    return image


def scene(seed: int = 0) -> Image.Image:
    """A soft random picture of odd size: compression has something to do, at every edge."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((71, 53), Image.Resampling.BICUBIC)


def saved(image: Image.Image, path: Path, format: str, **options: object) -> Path:
    image.save(path, format, **options)
    return path


def ends(path: Path) -> tuple[list[int], list[int]]:
    """Colours near the left and the right edge."""
    image = decode(path)
    assert image.shape == (3, 8, 24)
    assert image.dtype == torch.uint8
    return image[:, 4, 1].tolist(), image[:, 4, 22].tolist()


def test_rgb_png_is_exact_and_lies_as_pixels(tmp_path: Path) -> None:
    image = scene()
    decoded = decode(saved(image, tmp_path / "a.png", "PNG"))
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), np.array(image))
    assert decoded.stride() == (1, 3 * 71, 3)


KINDS = [
    (mode, options)
    for mode in ("RGB", "L", "CMYK")
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"quality": 20})
]


@pytest.mark.parametrize(("mode", "options"), [*KINDS, ("RGB", {"keep_rgb": True})], ids=str)
def test_jpeg_is_to_the_bit_what_pillow_gives(tmp_path: Path, mode: str, options: dict) -> None:
    path = saved(scene().convert(mode), tmp_path / "a.jpg", "JPEG", **options)
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    decoded = decode(path)
    assert np.array_equal(decoded.permute(1, 2, 0).numpy(), expected)
    assert decoded.stride() == (1, 3 * 71, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation(tmp_path: Path, orientation: int, format: str) -> None:
    """1 to 8 as the EXIF standard says; 0 (in some Pets) and 9 mean nothing."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(scene(), tmp_path / "a", format, exif=exif)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((71, 53) if 5 <= orientation <= 8 else (53, 71))
    assert np.array_equal(decode(path).permute(1, 2, 0).numpy(), expected)


def test_alpha_lies_on_white(tmp_path: Path) -> None:
    image = halves((255, 0, 0, 255), (0, 0, 255, 0), "RGBA")
    assert ends(saved(image, tmp_path / "a.png", "PNG")) == ([*RED], [*WHITE])
    image = halves((0, 0, 0, 0), (0, 0, 0, 51), "RGBA")  # a fifth of black on white: 204
    assert ends(saved(image, tmp_path / "a.png", "PNG")) == ([*WHITE], [204, 204, 204])


def test_gray_with_alpha(tmp_path: Path) -> None:
    path = saved(halves((10, 255), (10, 0), "LA"), tmp_path / "a.png", "PNG")
    assert ends(path) == ([10, 10, 10], [*WHITE])


@pytest.mark.parametrize("format", ["GIF", "PNG"])
def test_palette(tmp_path: Path, format: str) -> None:
    image = halves(RED, BLUE).quantize(2)
    assert ends(saved(image, tmp_path / "a", format)) == ([*RED], [*BLUE])
    path = saved(image, tmp_path / "a", format, transparency=image.getpixel((22, 4)))
    assert ends(path) == ([*RED], [*WHITE])


def test_palette_with_a_table_of_alphas(tmp_path: Path) -> None:
    image = halves(RED, BLUE).quantize(2)
    alphas = bytes(0 if index == image.getpixel((22, 4)) else 255 for index in range(2))
    path = saved(image, tmp_path / "a.png", "PNG", transparency=alphas)
    assert ends(path) == ([*RED], [*WHITE])


def test_one_bit(tmp_path: Path) -> None:
    path = saved(halves((0,), (255,), "L").convert("1"), tmp_path / "a.png", "PNG")
    assert ends(path) == ([0, 0, 0], [*WHITE])


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_gray_is_scaled(tmp_path: Path, format: str) -> None:
    """v / 257, rounded: 65535 is white, 300 nearly black (cut at 255 it would be white)."""
    values = np.array([[0, 128, 129, 300, 32768, 65535]], dtype=np.uint16)
    image = decode(saved(Image.fromarray(values), tmp_path / "a", format))
    assert image[:, 0].tolist() == [[0, 0, 1, 1, 128, 255]] * 3


def test_big_endian_16_bit_gray(tmp_path: Path) -> None:
    values = np.array([[0, 300, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert decode(saved(image, tmp_path / "a.tif", "TIFF"))[0, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_white_are_refused(tmp_path: Path, mode: str) -> None:
    path = saved(Image.new(mode, (4, 4)), tmp_path / "a.tif", "TIFF")
    with pytest.raises(PhotoError, match="no defined white"):
        decode(path)


def test_cmyk_as_photoshop_writes_it(tmp_path: Path) -> None:
    """Inverted numbers and an Adobe mark: red is red, not cyan."""
    path = saved(halves(RED, BLUE).convert("CMYK"), tmp_path / "a.jpg", "JPEG", quality=95)
    assert b"Adobe" in path.read_bytes()
    left, right = ends(path)
    assert left[0] > 240
    assert max(left[1:]) < 15
    assert right[2] > 240
    assert max(right[:2]) < 15


@pytest.mark.parametrize("format", ["WEBP", "BMP", "TIFF", "PPM", "JPEG2000"])
def test_other_formats_by_content(tmp_path: Path, format: str) -> None:
    options = {"lossless": True} if format == "WEBP" else {}
    path = saved(halves(RED, BLUE), tmp_path / "a.jpg", format, **options)
    assert ends(path) == ([*RED], [*BLUE])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.8])
def test_cut_short(tmp_path: Path, format: str, kept: float) -> None:
    buffer = io.BytesIO()
    scene().save(buffer, format)
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue()[: int(len(buffer.getvalue()) * kept)])
    with pytest.raises(PhotoError, match=r"Cannot read the picture .*a\.jpg: .+\. Delete it"):
        decode(path)


def test_missing_and_no_picture(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match=r"b\.jpg: .*No such file"):
        decode(tmp_path / "b.jpg")
    (tmp_path / "c.jpg").write_text("not a picture")
    with pytest.raises(PhotoError, match=r"c\.jpg: it is empty, or in none"):
        decode(tmp_path / "c.jpg")


def test_postscript_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript on it, whatever its name is."""
    path = saved(scene(), tmp_path / "a.jpg", "EPS")
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("started a program"))
    with pytest.raises(PhotoError, match="in none of the formats JPEG, PNG"):
        decode(path)


def test_large_photos_are_read_and_bombs_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow warns from its limit on and refuses from twice of it; a warning stops no run."""
    path = saved(scene(), tmp_path / "a.jpg", "JPEG")  # 71 x 53 = 3763 pixels
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(path).shape == (3, 53, 71)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with pytest.raises(PhotoError, match="exceeds limit"):
        decode(path)


@pytest.mark.photos
def test_gif_and_png_among_the_pets(data_dir: Path) -> None:
    for number, format in ((34, "GIF"), (5, "PNG")):
        path = data_dir / "oxford-iiit-pet" / "images" / f"Abyssinian_{number}.jpg"
        with Image.open(path) as image:
            assert image.format == format
            size = image.size
        picture = decode(path)
        assert picture.shape == (3, size[1], size[0])
        assert picture.float().std() > 20
