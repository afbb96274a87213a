"""Photos as pairs of view and label."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.decode import decode
from thaw.data.loading import Key
from thaw.data.photos import Photos
from thaw.data.pictures import Pictures

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
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: Key | int) -> tuple[Tensor, int]:
        """Picture and label for key = (index, view seed), or a bare index for view seed 0.

        The view seed alone decides what a random transform does, so pictures are the same with
        any number of workers and after a resume.
        """
        index, view_seed = key if isinstance(key, tuple) else (key, 0)
        if self.pictures is not None:
            image = self.pictures[index]
        else:
            image = decode(self.photos.paths[index])
        if view_seed is None:
            return self.plain(image), self.photos.labels[index]
        # devices=[] and the CPU generator only: torch.manual_seed would reseed the GPUs as well,
        # and with num_workers=0 that would repeat the dropout masks of the training step.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(view_seed)
            return self.transform(image), self.photos.labels[index]
