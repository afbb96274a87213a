"""From a photo on disk to what the exported model takes, with Pillow and numpy alone.

    python preprocess.py model.onnx photo.jpg ...      needs onnxruntime too

`thaw export` wrote this file beside the model, and tested the model through it. Everything that it
needs to know stands in the model's metadata.
"""

import json
import sys
from contextlib import suppress
from importlib import import_module

import numpy as np
from PIL import Image, ImageOps

with suppress(ImportError):  # HEIC, with pip install pillow-heif
    import_module("pillow_heif").register_heif_opener()
Image.init()
FORMATS = "JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF"
FORMATS = [name for name in FORMATS if name in Image.OPEN]  # not EPS, which runs Ghostscript


def prepare(path, spec):
    """The photo as uint8 (1, 3, S, S), RGB; `spec` is the model's metadata "input"."""
    with Image.open(path, formats=FORMATS) as file:
        image = ImageOps.exif_transpose(file)
    if max(image.size) > 200 * min(image.size):  # it would fill the memory when it is resized
        raise ValueError(f"{path}: {image.width} x {image.height} pixels are no photo")
    if image.mode in ("I", "F"):
        raise ValueError(f"{path}: numbers of Pillow's mode {image.mode} have no defined white")
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip at 255
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:  # what is transparent becomes white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    size, crop = spec["size"], spec.get("crop", "center")
    if crop == "squash":
        sides = [size, size]
    elif crop == "pad":  # the long side to `size`, and the mean colour beside the short one
        sides = [max(1, round(size * side / max(image.size))) for side in image.size]
    else:  # the short side to `resize`, of which the centre is taken
        sides = [spec["resize"] * side // min(image.size) for side in image.size]
    kind = Image.Resampling[spec["interpolation"].upper()]
    image = image.resize((sides[0], image.height), kind)  # across first, as torchvision does it;
    image = image.resize(sides, kind)  # of tall pictures Pillow would begin with the other side
    view = Image.new("RGB", (size, size), tuple(round(255 * mean) for mean in spec["mean"]))
    corner = [(size - side) // 2 if crop == "pad" else -round((side - size) / 2) for side in sides]
    view.paste(image, tuple(corner))
    return np.array(view).transpose(2, 0, 1)[None]


if __name__ == "__main__":
    import onnxruntime

    session = onnxruntime.InferenceSession(sys.argv[1])
    facts = session.get_modelmeta().custom_metadata_map
    classes, spec = json.loads(facts["classes"]), json.loads(facts["input"])
    shape = [*session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[-1]]
    if shape != [3, spec["size"], spec["size"], len(classes)] or spec["resize"] > 4096:
        sys.exit(f"{sys.argv[1]}: its metadata are not of its graph ({shape}); export it again")
    for path in sys.argv[2:]:
        row = np.array(session.run(None, {"images": prepare(path, spec)})).flatten()
        top = [{"label": classes[k], "probability": float(row[k])} for k in (-row).argsort()[:5]]
        print(json.dumps({"path": path, **top[0], "top": top}))
