"""Any picture file -> RGB tensor.

JPEGs go through torchvision and the rest through Pillow. Measured here, 1 thread, median of 7: a
photo of 500 x 375 takes 1.34 ms (Pillow alone 1.66), one of short side 160 px 0.41 ms (0.49), to
the same bits (torchvision 0.29, Pillow 13; tests/test_decode.py holds them to that). Pillow always
reads the header, within that time: it tells a GIF named .jpg, and a size no memory could hold.
"""

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from thaw.errors import PhotoError

# MPO: a JPEG with more pictures behind the first, as phones write them.
JPEG_FORMATS = ("JPEG", "MPO")


def decode(path: Path) -> Tensor:
    """Read a picture as it is meant to be seen: uint8 (3, H, W), RGB.

    EXIF orientation is applied, transparency is laid on white, 16-bit gray is scaled to 8 bits, of
    an animation the first frame counts. The file's name says nothing: its content does.

    Memory lies as H, W, C (strides 1, 3W, 3). That is how both decoders write, and torchvision's
    antialiased resize of uint8 is 1.4 times as fast on it as on planes.

    PhotoError where the file is missing, broken or cut short, or of more than 179 million pixels
    (Pillow's limit against files that unpack to more than the memory).
    """
    try:
        data = path.read_bytes()
        # Pillow warns of large photos and of odd EXIF or palettes; every picture that it can show
        # is fine here, and what it cannot show raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data)
    except Exception as error:  # Pillow's plugins raise all sorts on broken files
        raise PhotoError(
            f"Cannot read the picture {path}: {_cause(path, error)}. Delete it, or replace it by a "
            "whole copy."
        ) from error


def _cause(path: Path, error: Exception) -> str:
    if not path.is_file() or path.stat().st_size == 0:
        return "the file is missing or empty"
    if isinstance(error, UnidentifiedImageError):
        return "it is no picture, or in a format unknown to Pillow"
    return str(error) or type(error).__name__


def _decode(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data)) as image:
        if image.format in JPEG_FORMATS:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            # on an error Pillow has the last word, and says better what is wrong
            with contextlib.suppress(RuntimeError):
                picture = decode_jpeg(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
                assert isinstance(picture, Tensor)  # a list only for a list of files
                return picture
        return from_pillow(image)


def from_pillow(image: Image.Image) -> Tensor:
    """A picture of Pillow's as `decode` gives it: uint8 (3, H, W), RGB, as it is meant to be seen.

    Raises:
        ValueError: a kind of picture that cannot be shown as RGB.
    """
    pixels = np.array(_rgb(ImageOps.exif_transpose(image)))  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its numbers (Pillow mode {image.mode}) have no defined white; save it "
            "with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):  # convert("RGB") would cut at 255: nearly all white
        gray = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((gray + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:  # alpha, or a palette with a transparent colour
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")
