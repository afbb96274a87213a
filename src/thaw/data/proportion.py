"""The order of photos for runs that read only some batches of them."""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thaw.data.photos import Photos, Splits


def in_proportion(splits: Splits, trainer: Mapping[str, Any], seed: int) -> Splits:
    """Orders photos so that the first ones of a split hold its classes in proportion.

    Only where the trainer's arguments limit the batches: in the order of the files, the first
    photos would be of one class, which is no sample of anything.
    """
    limits = [trainer.get(f"limit_{name}_batches") for name in ("train", "val", "test")]
    if not any((*limits, trainer.get("overfit_batches"), trainer.get("fast_dev_run"))):
        return splits

    def ordered(photos: Photos) -> Photos:
        draw, seen, counts = random.Random(seed), Counter[int](), Counter(photos.labels)
        places: dict[int, float] = {}  # 0-1, by a photo's rank in its class, which is drawn
        for index in draw.sample(range(len(photos)), len(photos)):
            label = photos.labels[index]
            places[index] = (seen[label] + draw.random()) / counts[label]
            seen[label] += 1
        return photos.subset(sorted(places, key=places.__getitem__))

    return replace(splits, **{name: ordered(photos) for name, photos in splits.items()})
