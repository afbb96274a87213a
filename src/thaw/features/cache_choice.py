"""Which phases train on cached features of the frozen body, and on how many views of each photo."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from thaw.backbones.groups import HEAD
from thaw.errors import ConfigError, shown

When = Literal["auto"] | bool
VIEWS = 2  # as good as 4 after 5 + 5 epochs, 1 is worse by 0.7 points; see benchmarks/LOG.md


@dataclass(frozen=True)
class CacheChoice:
    """A mode's `finetune.cache_features` and `finetune.views`.

    Attributes:
        features: True: in every phase that trains the head alone on unmixed pictures, before the
            body was ever trained; the body then runs once for each view, not once an epoch.
            "auto": in those of them that take more epochs than views, so that it saves something.
            False: never.
        views: of each training photo: the evaluation view, then drawn ones; None: `VIEWS`.
            Validation photos have the evaluation view alone, and so have training photos where
            nothing is augmented.
    """

    features: When = False
    views: int | None = None

    def views_in(self, trains: Collection[str], *, epochs: int, augment: bool, mixes: bool) -> int:
        """Views of each training photo in a phase; 0: it reads photos.

        Args:
            trains: names of the layer groups that train.
            epochs: of the phase.
            augment: whether views are drawn.
            mixes: whether mixup or CutMix is on.
        """
        views = (self.views or VIEWS) if augment else 1
        if self.features is False or set(trains) != {HEAD} or mixes:
            return 0
        return views if self.features is True or epochs > views else 0

    def on_some_batches(self) -> "CacheChoice":
        """The choice of a run on some batches of each epoch: `auto` does not go through all."""
        return CacheChoice(False) if self.features == "auto" else self

    def check(self) -> None:
        """Refuses what is not allowed.

        Raises:
            ConfigError: names the setting.
        """
        if self.features != "auto" and not isinstance(self.features, bool):
            raise ConfigError(
                f"finetune.cache_features={shown(self.features)}: allowed are auto, true, false"
            )
        whole = isinstance(self.views, int) and not isinstance(self.views, bool)
        if self.views is not None and not (whole and self.views >= 1):
            raise ConfigError(
                f"finetune.views={shown(self.views)}: allowed is 1 or more views, or null for what "
                "was measured to suit"
            )
