"""Decoding: any picture file -> RGB tensor.

JPEGs are decoded by torchvision, which takes 1.34 ms for 500 x 375 pixels where Pillow takes 1.66,
to the same bits (one thread, median of 7). Pillow decodes all other formats, and reads the header
of all: it detects a GIF that is named .jpg, and refuses sizes that no memory could hold.
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

# Multi-picture JPEGs (MPO) hold further pictures behind the first one, as some phones write them.
JPEG_FORMATS = ("JPEG", "MPO")
# Pillow reads more formats, but its EPS reader starts Ghostscript: a photo must not run a program.
Image.init()
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
FORMATS = tuple(name for name in FORMATS if name in Image.OPEN)  # Pillow 11.0 has no AVIF


def decode(path: Path) -> Tensor:
    """Decode a picture the way a person is meant to see it.

    The EXIF orientation is applied, transparent areas become white, 16-bit grey values are scaled
    to 8 bits, and an animation gives its first frame. The format is read from the file's content;
    its name does not matter.

    Args:
        path: of the file.

    Returns:
        uint8 (3, H, W), RGB. In memory the three values of a pixel lie together (strides 1, 3W, 3):
        both decoders write that way, and torchvision resizes it 1.4 times as fast as planes.

    Raises:
        PhotoError: the file is missing, broken or truncated, or has more than 179 million pixels
            (Pillow's limit against files that unpack to more than the memory).
    """
    try:
        data = path.read_bytes()
        # Pillow warns about large photos, odd EXIF and odd palettes. What it can decode is fine
        # here, and what it cannot decode raises.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(data)
    except Exception as error:  # Pillow's plugins raise all kinds of exceptions on broken files
        raise PhotoError(
            f"Cannot read the picture {path}: {_cause(path, error)}. Delete it, or replace it by a "
            "whole copy."
        ) from error


def _cause(path: Path, error: Exception) -> str:
    if not path.is_file() or path.stat().st_size == 0:
        return "the file is missing or empty"
    if isinstance(error, UnidentifiedImageError):
        return f"it is no picture, or in none of the formats {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def _decode(data: bytes) -> Tensor:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.format in JPEG_FORMATS:
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            # if torchvision fails, Pillow tries as well: its messages say better what is wrong
            with contextlib.suppress(RuntimeError):
                picture = decode_jpeg(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
                assert isinstance(picture, Tensor)  # it is a list only for a list of files
                return picture
        return from_pillow(image)


def from_pillow(image: Image.Image) -> Tensor:
    """Converts a picture of Pillow's as `decode` does: uint8 (3, H, W), RGB.

    Raises:
        ValueError: a kind of picture that cannot be shown as RGB.
    """
    pixels = np.array(_to_rgb(ImageOps.exif_transpose(image)))  # (H, W, 3)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its numbers (Pillow mode {image.mode}) have no defined white; save it "
            "with 8 or 16 bits"
        )
    if image.mode.startswith("I;16"):  # convert("RGB") would clip at 255: nearly all white
        grey = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:  # an alpha channel, or a palette with a transparent colour
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return image.convert("RGB")
