"""Photos as pairs of picture and label."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from thaw.data.decode import decode
from thaw.data.loading import Key, as_key
from thaw.data.photos import Photos
from thaw.data.pictures import Pictures

Transform = Callable[[Tensor], Tensor]


class PhotoDataset(Dataset[tuple[Tensor, int]]):
    """Pairs of transformed picture and label.

    Args:
        photos: which photos.
        transform: uint8 (3, H, W) -> uint8 (3, H', W'); random for training.
        plain: the same, for the evaluation view; None: `transform`.
        pictures: the photos decoded and shrunk; None: the files are decoded each time.
    """

    def __init__(
        self, photos: Photos, transform: Transform, plain: Transform | None = None,
        pictures: Pictures | None = None,
    ) -> None:  # fmt: skip
        self.photos = photos
        self.transform = transform
        self.plain = plain or transform
        self.random = transform is not plain
        self.pictures = pictures

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, key: Key | int) -> tuple[Tensor, int]:
        """The picture (3, H', W') and label of a key of `PhotoSampler`, or of an index alone.

        The view's seed alone decides what a random transform does. So the views are the same with
        any number of workers and after a resume.
        """
        index, view_seed = as_key(key)
        label = self.photos.labels[index]
        pictures = self.pictures
        picture = decode(self.photos.paths[index]) if pictures is None else pictures[index]
        if view_seed is None or not self.random:
            return self.plain(picture), label
        # The CPU's generator only: torch.manual_seed would seed the GPUs too, and with
        # num_workers=0 every training step would repeat the same dropout masks.
        state = torch.get_rng_state()
        try:
            torch.default_generator.manual_seed(view_seed)
            return self.transform(picture), label
        finally:
            torch.set_rng_state(state)
