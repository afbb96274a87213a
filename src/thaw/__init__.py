"""thaw: transfer learning for image classification.

    model = thaw.load("logs/train/runs/2026-01-31_12-00-00")
    model.predict("photo.jpg")

Shape letters used at line ends everywhere: N images in a batch, C channels, H height, W width,
D features out of the body, K classes.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`thaw.load`, imported when it is asked for: torch takes a second."""
    if name == "load":
        return importlib.import_module("thaw.image_classifier").load
    raise AttributeError(f"module 'thaw' has no attribute {name!r}")
