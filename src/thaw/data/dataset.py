"""Photos as pairs of view and label."""

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.crops import Crops, gather
from thaw.data.decode import decode
from thaw.data.loading import Key
from thaw.data.photos import Photos
from thaw.data.pictures import Pictures
from thaw.views import CropAndFlip

Transform = Callable[[Tensor], Tensor]


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Pairs of transformed picture and label.

    photos:     what to read
    transform:  uint8 (3, H, W) -> uint8 (3, H', W')
    plain:      the same for views that are not drawn; None: `transform` for those too
    pictures:   of the photos, decoded; None: they are decoded each time
    """

    def __init__(
        self,
        photos: Photos,
        transform: Transform,
        plain: Transform | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        self.photos = photos
        self.transform = transform
        self.plain = plain or transform
        self.draws = transform is not plain  # else its views are those that are not drawn
        self.pictures = pictures
        self.crop = transform if isinstance(transform, CropAndFlip) else None

    @property
    def suits_threads(self) -> bool:
        """Whether threads of one process can do the work, beside a network that computes.

        Not where photos are decoded, much of which is Python; and torch's global generator, which
        some views are drawn from, belongs to the network then.
        """
        return self.pictures is not None and (self.crop is not None or not self.draws)

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: Key | int) -> tuple[Tensor, int]:
        """Picture and label for key = (index, view seed), or a bare index for view seed 0.

        The view seed alone decides what a random transform does, so pictures are the same with
        any number of workers and after a resume.
        """
        index, view_seed = _parts(key)
        label = self.photos.labels[index]
        image = self._picture(index)
        if view_seed is None or not self.draws:
            return self.plain(image), label
        if self.crop is not None:
            return self.crop(image, view_seed), label
        # devices=[] and the CPU generator only: torch.manual_seed would reseed the GPUs as well,
        # and with num_workers=0 that would repeat the dropout masks of the training step.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(view_seed)
            return self.transform(image), label

    def views(self, keys: Sequence[Key | int]) -> tuple[Tensor, Tensor]:
        """Views (N, 3, H, W) and labels (N,) of N keys.

        As `collate` makes them, but each is copied while the processor's cache still holds it.
        """
        pairs = map(self.__getitem__, keys)
        first = next(pairs)
        channels, height, width = first[0].shape
        batch = first[0].new_empty(len(keys), height, width, channels).permute(0, 3, 1, 2)
        labels = []
        for place, (view, label) in zip(batch, chain([first], pairs), strict=True):
            place.copy_(view)
            labels.append(label)
        return batch, torch.tensor(labels)

    def crops(self, keys: Sequence[Key | int]) -> tuple[Crops, Tensor]:
        """The views of N keys before `crops.resize`, and labels (N,)."""
        assert self.crop is not None
        found: list[tuple[Tensor, bool]] = []
        labels = []
        for index, view_seed in map(_parts, keys):
            labels.append(self.photos.labels[index])
            picture = self._picture(index)
            if view_seed is None:  # as large as it shall be: resizing leaves it as it is
                found.append((self.plain(picture), False))
            else:
                found.append(self.crop.cut(picture, view_seed))
        return gather(found), torch.tensor(labels)

    def _picture(self, index: int) -> Tensor:
        """uint8 (3, H, W)."""
        if self.pictures is not None:
            return self.pictures[index]
        return decode(self.photos.paths[index])


def _parts(key: Key | int) -> Key:
    """Of a bare index too, which Lightning's `overfit_batches` asks for: its sampler knows no
    seeds."""
    return key if isinstance(key, tuple) else (key, 0)
