"""preprocess.py, which is copied beside an export, sees a photo as thaw sees it."""

import dataclasses
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode

from thaw.backbones.backbone import Crop, InputSpec
from thaw.data.decode import decode
from thaw.tools.preprocess import prepare
from thaw.transforms import eval_transform

BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC
SPEC = InputSpec(48, 57, (0.6, 0.5, 0.1), (0.2, 0.2, 0.2))


def scene(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A soft picture of large and small forms, no two sides of which are alike."""
    rng = np.random.default_rng(0)
    large, small = (rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8) for cells in (5, 31))
    images = [Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)
              for cells in (large, small)]  # fmt: skip
    return Image.blend(*images, 0.3).convert(mode)


def difference(path: Path, spec: InputSpec = SPEC) -> tuple[int, float]:
    """Largest and mean difference of a value, in grey levels of 256."""
    expected = eval_transform(spec)(decode(path)).numpy()
    facts = dataclasses.asdict(spec) | {"interpolation": spec.interpolation.value}
    got = prepare(path, facts)
    assert got.dtype == np.uint8
    assert got.shape == (1, 3, spec.size, spec.size)
    levels = np.abs(got[0].astype(int) - expected)
    return int(levels.max()), float(levels.mean())


@pytest.mark.parametrize("interpolation", [BILINEAR, BICUBIC])
@pytest.mark.parametrize("crop", get_args(Crop))
@pytest.mark.parametrize("size", [(200, 90), (91, 203), (57, 57), (48, 80), (30, 41), (500, 9)])
def test_the_view_of_every_shape_differs_by_two_grey_levels_at_most(
    tmp_path: Path, size: tuple[int, int], crop: Crop, interpolation: InterpolationMode
) -> None:
    """Pillow and torchvision round their weights differently; a pixel's shift makes tens."""
    scene(*size).save(tmp_path / "a.png")
    spec = dataclasses.replace(SPEC, crop=crop, interpolation=interpolation)
    largest, mean = difference(tmp_path / "a.png", spec)
    assert largest <= 2
    assert mean < 0.04


def test_a_model_of_an_older_thaw_has_no_crop(tmp_path: Path) -> None:
    scene(200, 90).save(tmp_path / "a.png")
    facts = dataclasses.asdict(SPEC) | {"interpolation": "bilinear"}
    expected = prepare(tmp_path / "a.png", facts)
    del facts["crop"]
    assert np.array_equal(prepare(tmp_path / "a.png", facts), expected)


KINDS: list[tuple[str, str, dict[str, Any]]] = [
    ("L", "jpg", {}), ("CMYK", "jpg", {}), ("P", "png", {}), ("P", "gif", {"transparency": 3}),
    ("1", "png", {}), ("I;16", "png", {}), ("RGBA", "png", {}), ("LA", "png", {}),
    ("RGBA", "webp", {"lossless": True}), ("RGB", "bmp", {}), ("CMYK", "tiff", {}),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "ending", "options"), KINDS, ids=str)
def test_every_kind_of_picture(
    tmp_path: Path, mode: str, ending: str, options: dict[str, Any]
) -> None:
    image = scene(120, 90).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 200)
    if mode in ("RGBA", "LA"):
        image.putalpha(scene(120, 90, "L"))
    image.save(tmp_path / f"a.{ending}", **options)
    with Image.open(tmp_path / f"a.{ending}") as written:
        assert written.mode == mode
    largest, mean = difference(tmp_path / f"a.{ending}")
    assert largest <= 2
    assert mean < 0.04


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    scene(120, 80).save(tmp_path / "a.jpg", exif=exif)
    assert difference(tmp_path / "a.jpg")[0] <= 2


def test_what_thaw_refuses_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((9, 9), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff: .*mode F"):
        prepare(tmp_path / "a.tiff", {})
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    with pytest.raises(OSError, match="cannot identify"):  # it would start Ghostscript
        prepare(tmp_path / "a.eps", {})
    Image.new("1", (1, 30_000)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: 1 x 30000 pixels are no photo"):
        prepare(tmp_path / "a.png", {})


@pytest.mark.photos
def test_real_photos(data_dir: Path) -> None:
    """Every 400th of Flowers102, at the sizes that models are trained at."""
    paths = sorted((data_dir / "flowers-102" / "jpg").glob("*.jpg"))[::400]
    assert len(paths) > 20
    for path in paths:
        for size, resize in ((128, 146), (224, 256)):
            for interpolation in (BILINEAR, BICUBIC):
                spec = dataclasses.replace(SPEC, size=size, resize=resize)
                spec = dataclasses.replace(spec, interpolation=interpolation)
                largest, mean = difference(path, spec)
                assert largest <= 2
                assert mean < 0.04
