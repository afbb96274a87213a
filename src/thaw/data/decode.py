"""Decoding: any picture file -> RGB tensor.

torchvision decodes JPEGs 1.2 times as fast as Pillow, to the same bits. Pillow decodes all other
formats, and reads the header of all: it detects a GIF named .jpg, and refuses sizes without end.
"""

import contextlib
import functools
import io
import math
import stat
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from thaw.errors import PhotoError

# Pillow reads more, but its EPS reader starts Ghostscript: a photo must not run a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "HEIF", "JPEG2000")
with contextlib.suppress(ImportError):  # reads the photos of iPhones, where it is installed
    import_module("pillow_heif").register_heif_opener()
Image.init()
HEIC, AVIF = "HEIC: pip install pillow-heif", "AVIF: pip install 'pillow>=11.3'"
PLUGINS = {b"heic": HEIC, b"heix": HEIC, b"mif1": HEIC, b"avif": AVIF}  # by the file's bytes 8-11
MAX_RATIO = 200  # of the sides: with a short side of 224 pixels a long one of 45,000
MAX_BYTES = 2**30  # of a file: more is no photo
LARGE = 2**26  # pixels; a picture with more is read at half its size, which takes a fourth
say_once = functools.cache(print)  # in a process and in those that it forks
FORMATS = tuple(name for name in FORMATS if name in Image.OPEN)  # Pillow 11.0 has no AVIF


def decode(path: Path) -> Tensor:
    """Decodes a picture the way a person is meant to see it: uint8 (3, H, W), RGB.

    The EXIF orientation is applied, transparent areas become white, 16-bit grey values are scaled
    to 8 bits, an animation gives its first frame, and more than LARGE pixels give half the size.
    In memory the three values of a pixel lie together (strides 1, 3W, 3).

    Raises a PhotoError if the file is missing, broken or truncated, has more than 179 million
    pixels (Pillow's limit), or is so long and thin that resizing it would take all memory.
    """
    return decode_bytes(read_file(path), path)


def read_file(path: Path) -> bytes:
    """The content; a PhotoError for a pipe or a device, which may never end, and for 1 GiB."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
            raise OSError("it is no file, or a file of more than 1 GiB")
        return path.read_bytes()
    except OSError as error:
        raise _photo_error(path, str(error)) from error


def decode_bytes(data: bytes, name: str | Path, max_pixels: float = math.inf) -> Tensor:
    """As `decode`, for the content of a file; `name` is only for the error."""
    try:
        # what cannot be decoded raises; odd EXIF may only warn
        with warnings.catch_warnings(action="ignore"), open_image(data, max_pixels) as image:
            if math.prod(image.size) > LARGE:
                return from_pillow(_halved(image))
            if image.format in ("JPEG", "MPO"):  # MPO: a JPEG with more of them behind it
                encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                # if torchvision fails, Pillow tries as well: its messages say better what is wrong
                with contextlib.suppress(RuntimeError):
                    picture = decode_jpeg(encoded, ImageReadMode.RGB, apply_exif_orientation=True)
                    return cast(Tensor, picture)  # it is a list only for a list of files
            with contextlib.suppress(Exception):  # what is wrong with a second frame does not count
                if getattr(image, "is_animated", False):
                    say_once("of several frames or pages the first is used", file=sys.stderr)
            return from_pillow(image)
    except Exception as error:  # Pillow's plugins raise all kinds of exceptions on broken files
        cause = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            other = f"empty, or in none of the formats {', '.join(FORMATS)}"
            cause = f"it is {PLUGINS.get(data[8:12], other)}"
        raise _photo_error(name, cause) from error


def _photo_error(name: str | Path, cause: str) -> PhotoError:
    return PhotoError(f"Cannot read the picture {name}: {cause}. Delete it, or get a whole copy.")


def open_image(data: bytes, max_pixels: float = math.inf) -> Image.Image:
    """Reads the header alone; raises whatever Pillow does, or a ValueError on the size."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"it has {width} x {height} pixels; allowed are {max_pixels:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise ValueError(f"{width} x {height} pixels are no photo (limit: {MAX_RATIO} to 1)")
    return image


def _halved(image: Image.Image) -> Image.Image:
    image.draft(None, (image.width // 2, image.height // 2))  # a JPEG is decoded to that size
    if math.prod(image.size) > LARGE and not image.mode.startswith("I"):  # Pillow cannot there
        wider = {"P": "RGBA", "PA": "RGBA", "1": "L"}.get(image.mode)
        image = (image.convert(wider) if wider else image).reduce(2)
    return image


def from_pillow(image: Image.Image) -> Tensor:
    """Converts a picture of Pillow's as `decode` does: uint8 (3, H, W), RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F"):
        raise ValueError(f"numbers of Pillow's mode {image.mode} have no defined white")
    if image.mode.startswith("I;16"):  # convert("RGB") would clip at 255: nearly all white
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:  # an alpha channel, or a palette with a transparent colour
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
