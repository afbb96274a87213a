"""From a photo on disk to what the exported model takes, with Pillow and numpy alone.

    python preprocess.py model.onnx photo.jpg ...      needs onnxruntime too

`thaw export` wrote this file beside the model, and tested the model through it. Everything that it
needs to know stands in the model's metadata.
"""

import json
import sys

import numpy as np
from PIL import Image, ImageOps

Image.init()
FORMATS = "JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"
FORMATS = [name for name in FORMATS if name in Image.OPEN]  # not EPS, which runs Ghostscript


def prepare(path, spec):
    """The photo as uint8 (1, 3, S, S), RGB; `spec` is the model's metadata "input"."""
    with Image.open(path, formats=FORMATS) as file:
        image = ImageOps.exif_transpose(file)
    if image.mode in ("I", "F"):
        raise ValueError(f"{path}: numbers of Pillow's mode {image.mode} have no defined white")
    if image.mode.startswith("I;16"):  # 16-bit grey, which Pillow would clip at 255
        grey = np.asarray(image).astype(np.uint32)
        image = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
    elif image.has_transparency_data:  # what is transparent becomes white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    size, short = spec["size"], min(image.size)
    resized = [spec["resize"] * side // short for side in image.size]  # the short side to `resize`
    image = image.resize(resized, Image.Resampling[spec["interpolation"].upper()])
    left, top = (round((side - size) / 2) for side in resized)  # the centre of it
    image = image.crop((left, top, left + size, top + size))
    return np.array(image).transpose(2, 0, 1)[None]


if __name__ == "__main__":
    import onnxruntime

    session = onnxruntime.InferenceSession(sys.argv[1])
    facts = session.get_modelmeta().custom_metadata_map
    classes, spec = json.loads(facts["classes"]), json.loads(facts["input"])
    for path in sys.argv[2:]:
        (row,) = session.run(None, {"images": prepare(path, spec)})[0]
        top = [{"label": classes[k], "probability": float(row[k])} for k in (-row).argsort()[:5]]
        print(json.dumps({"path": path, **top[0], "top": top}))
