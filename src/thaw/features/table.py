"""Features of photos as a table: (P, V, D) for P photos in V views with D numbers each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thaw.seeds import derive

Key = tuple[int, int | None]  # (index of the photo, seed of its view; None: the evaluation view)


@dataclass(frozen=True)
class Features:
    """What a frozen body gives for each view of each photo.

    Attributes:
        table: (P, V, D); view 0 is the evaluation view.
        labels: (P,)
    """

    table: Tensor
    labels: Tensor

    def batch(self, keys: Sequence[Key | int]) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,) of N keys.

        A key is (index, view seed), as the training loader's sampler gives it, or a bare index for
        the evaluation view, as Lightning's own samplers give it (`trainer.overfit_batches`).
        """
        photos = torch.tensor([key if isinstance(key, int) else key[0] for key in keys])
        views = torch.tensor([self.view(key) for key in keys])
        return self.table[photos, views], self.labels[photos]

    def view(self, key: Key | int) -> int:
        """The number of the view that a key asks for: its view seed, modulo V."""
        seed = None if isinstance(key, int) else key[1]
        return 0 if seed is None else seed % self.table.shape[1]


def view_key(index: int, view: int) -> Key:
    """The key of a photo's view: view 0 is the evaluation view, the others are drawn at random.

    The draws do not depend on the seed of the run, so that runs with other seeds share one file.
    The run's seed decides which of the views each step sees, and the order of the photos.
    """
    return index, None if view == 0 else derive(index, view)
