"""Whether an exported model says of photos on disk what the trained model says of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from thaw.data.decode import decode
from thaw.image_classifier import ImageClassifier
from thaw.tools.export_formats import Run
from thaw.tools.export_photos import Labelled
from thaw.tools.preprocess import prepare

BATCH, ALONE = 8, 16  # photos at once; how many of the first photos also go one by one


@dataclass(frozen=True)
class Parity:
    """What was compared: the trained model before, the exported one after."""

    photos: int
    differing: int  # photos that get another label
    difference: float  # the largest, of any probability of any photo
    farthest: str  # the photo where that is
    known: int  # photos whose class is known; if none is, the trained model's answers are right
    before: float  # accuracy, 0-1
    after: float
    seconds_before: float  # for one photo, from its file to its probabilities, in batches of 8
    seconds_after: float


def compare(model: ImageClassifier, run: Run, photos: Sequence[Labelled]) -> Parity:
    """Sends each photo from its file through both, and the first ones one by one as well."""
    spec = model.facts["input"]
    paths = [path for path, _ in photos]
    before, after, alone, seconds = [], [], [], np.zeros(2)
    for start in range(0, len(paths), BATCH):
        some = paths[start : start + BATCH]
        views = [prepare(path, spec) for path in some]
        if start < ALONE:
            alone += [run(view) for view in views]  # also warms up, as the next line does
            _trained(model, some)
        times = [time.perf_counter()]
        before.append(_trained(model, some))
        times.append(time.perf_counter())
        after.append(run(np.concatenate([prepare(path, spec) for path in some])))
        times.append(time.perf_counter())
        seconds += np.diff(times)
    expected, got = np.concatenate(before), np.concatenate(after)  # (P, K) both
    single = np.concatenate([*alone, got[len(alone) :]])
    difference = np.maximum(np.abs(got - expected), np.abs(single - expected)).max(1)  # (P,)
    difference = np.nan_to_num(difference, nan=1.0)  # what is no number is as wrong as can be
    best = expected.argmax(1)
    differs = (got.argmax(1) != best) | (single.argmax(1) != best)
    classes = model.classes
    labels = np.array([classes.index(name) if name in classes else -1 for _, name in photos])
    known = labels >= 0
    right, counted = (labels, known) if known.any() else (best, slice(None))
    accuracy = [float((rows.argmax(1) == right)[counted].mean()) for rows in (expected, got)]
    farthest = int(difference.argmax())
    return Parity(
        len(paths), int(differs.sum()), float(difference[farthest]), str(paths[farthest]),
        int(known.sum()), *accuracy, *(seconds / len(paths)).tolist(),
    )  # fmt: skip


@torch.inference_mode()
def _trained(model: ImageClassifier, paths: Sequence[Path]) -> NDArray[np.floating]:
    """Probabilities (N, K) as `thaw predict` gives them."""
    views = [model.transform(decode(path)) for path in paths]
    return model(torch.stack(views)).numpy()
