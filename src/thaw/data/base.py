"""The data module that all photo sources share.

A source says where its photos are (`find_splits`) and, if they can be downloaded, how (`download`).
Everything else - validation split, few-shot, loaders - is done here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from thaw.data.checks import check, check_folds, is_fraction, is_integer
from thaw.data.dataset import PhotoDataset, Transform
from thaw.data.loading import make_loader
from thaw.data.photos import Photos, Splits
from thaw.data.pictures import Pictures, read_pictures
from thaw.data.splitting import draw_per_class, split_fold, split_fraction
from thaw.data.workers import choose_workers
from thaw.errors import ConfigError

# Used if the source has no validation photos and data.val_fraction is null. fast.ai reports on 0.2;
# of 10 photos a class it leaves 8 to train on.
DEFAULT_VAL_FRACTION = 0.2

Cache = Literal["none", "ram"]


@rank_zero_only
def print_once(line: str) -> None:
    """Print a line in the first process only."""
    print(line, flush=True)


# A dataclass, so that a source lists its own arguments only and still has one flat signature, which
# conf/data/<name>.yaml is checked against. eq=False: data modules are compared by identity.
@dataclass(kw_only=True, eq=False)
class PhotoDataModule(LightningDataModule):
    """Base of all photo sources.

    `classes` (names in the order of the labels), `train`, `val` and `test` call `setup` themselves.
    If there are no photos for `val` or `test`, it is None, and its loader is an empty list.

    Args:
        data_dir: folder of downloaded photos; only downloads write there.
        cache_dir: folder for everything generated.
        batch_size: images per device and step.
        num_workers: processes that decode, per device; None: chosen for the machine.
        val_fraction: fraction (0-1) of the training photos to validate on, class by class; 0: none;
            None: the source's own validation photos, or 0.2.
        folds: k-fold cross-validation: number of parts that the training photos, with the source's
            own validation photos, are split into, class by class; the same for every seed.
        fold: the part (0 to folds - 1) to validate on; the others train.
        train_per_class: few-shot: training photos per class, drawn after validation; None: all.
        balanced: True: every class is seen equally often in training.
        cache: "ram": decode each training and validation photo once and keep it in memory, as small
            as evaluation needs it; training views are then cropped from that.
        seed: of the splits (validation, few-shot) and of the order and views in training.
        train_transform: uint8 (3, H, W) -> uint8 (3, H', W'); needed by the training loader.
        eval_transform: the same, for the other loaders.
        shrink: the same, to the size that the cache keeps; needed by the cache.
    """

    licence: ClassVar[str]  # of the photos; every source sets it, and `name`

    data_dir: Path
    cache_dir: Path
    batch_size: int = 64
    num_workers: int | None = None
    val_fraction: float | None = None
    folds: int | None = None
    fold: int = 0
    train_per_class: int | None = None
    balanced: bool = False
    cache: Cache = "none"
    seed: int = 0
    train_transform: Transform | None = None
    eval_transform: Transform | None = None
    shrink: Transform | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.data_dir = Path(self.data_dir).expanduser()
        self.cache_dir = Path(self.cache_dir).expanduser()
        self._splits: Splits | None = None
        self._pictures: dict[str, Pictures | None] = {}  # by split
        workers, fraction, few = self.num_workers, self.val_fraction, self.train_per_class
        check("batch_size", self.batch_size, is_integer(self.batch_size, 1), "1 or more images")
        allowed = workers is None or is_integer(workers, 0)
        check("num_workers", workers, allowed, "0 or more processes, or null to choose for you")
        allowed = fraction is None or is_fraction(fraction)
        rule = "a fraction from 0 (no validation) to below 1, or null for the source's own choice"
        check("val_fraction", fraction, allowed, rule)
        allowed = few is None or is_integer(few, 1)
        check("train_per_class", few, allowed, "1 or more photos per class, or null for all")
        check("balanced", self.balanced, isinstance(self.balanced, bool), "true or false")
        check("cache", self.cache, self.cache in get_args(Cache), " or ".join(get_args(Cache)))
        check_folds(self.folds, self.fold, fraction)

    def download(self) -> None:
        """Download what is missing; do nothing, and write nothing, if all is there."""

    def find_splits(self) -> Splits:
        """List every photo of every split, in a fixed order; each source writes its own."""
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.download()

    def setup(self, stage: str | None = None) -> None:
        """Find the photos, draw the splits and print how many there are; once."""
        if self._splits is None:
            self._splits = self._draw_splits(self.find_splits())
            counts = [f"{len(self._splits.classes)} classes, {len(self._splits.train):,} train"]
            for split, photos in (("val", self._splits.val), ("test", self._splits.test)):
                counts.append(f"{len(photos):,} {split}" if photos else f"no {split}")
            print_once(f"{'data':<10}{self.name}: {', '.join(counts)} photos")

    @property
    def classes(self) -> tuple[str, ...]:
        return self._ready().classes

    @property
    def train(self) -> Photos:
        return self._ready().train

    @property
    def val(self) -> Photos | None:
        return self._ready().val

    @property
    def test(self) -> Photos | None:
        return self._ready().test

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, self.train_transform, "train")

    def val_dataloader(self) -> DataLoader | list:
        return [] if self.val is None else self._loader(self.val, self.eval_transform, "val")

    def test_dataloader(self) -> DataLoader | list:
        return [] if self.test is None else self._loader(self.test, self.eval_transform, "test")

    def _ready(self) -> Splits:
        if self._splits is None:
            self.prepare_data()
            self.setup()
        assert self._splits is not None
        return self._splits

    def _draw_splits(self, source: Splits) -> Splits:
        """Validation is drawn before few-shot, so that `train_per_class` does not change it."""
        train, val = source.train, source.val
        if self.folds is not None:
            both = train + val if val is not None else train
            val, train = split_fold(both, self.folds, self.fold, source.classes)
        elif val is not None and len(val) and self.val_fraction is not None:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction} has no effect: {self.name} comes with "
                f"{len(val)} validation photos of its own. Set data.val_fraction=null."
            )
        elif val is None or self.val_fraction is not None:
            fraction = DEFAULT_VAL_FRACTION if self.val_fraction is None else self.val_fraction
            val, train = split_fraction(train, fraction, rule=f"val {self.seed}")
        if self.train_per_class is not None:
            rule = f"train {self.seed}"
            train = draw_per_class(train, self.train_per_class, source.classes, rule=rule)
        return Splits(source.classes, train, val or None, source.test or None)

    def _loader(self, photos: Photos, transform: Transform | None, split: str) -> DataLoader:
        train = split == "train"
        trainer = self.trainer
        if transform is None:
            key = "train_transform" if train else "eval_transform"
            raise ConfigError(f"{self.name}: {key} is None; give it before asking for a loader.")
        workers = self.num_workers
        if workers is None:
            devices = trainer.num_devices if trainer else 1
            workers = choose_workers(len(photos), devices, on_cpu=self._trains_on_cpu())
        pictures = self._cached(photos, split, workers)
        loader = make_loader(
            PhotoDataset(photos, transform, self.eval_transform, pictures),
            labels=photos.labels, batch_size=self.batch_size, num_workers=workers,
            train=train, seed=self.seed, balanced=self.balanced,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )  # fmt: skip
        if trainer and train:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            loader.consumed = lambda: progress.current.ready
        return loader

    def _cached(self, photos: Photos, split: str, workers: int) -> Pictures | None:
        """Decoded pictures of a split; not of the test split, which is read only once anyway."""
        if self.cache == "none" or split == "test":
            return None
        if self.shrink is None:
            raise ConfigError(f"{self.name}: shrink is None; data.cache={self.cache} needs it.")
        if split not in self._pictures:
            trainer = self.trainer
            self._pictures[split] = read_pictures(
                photos, self.shrink, num_workers=workers, label=f"{split}, {len(photos):,} photos",
                processes=trainer.num_devices if trainer else 1,
                verbose=trainer is None or trainer.is_global_zero,
            )  # fmt: skip
        return self._pictures[split]

    def _trains_on_cpu(self) -> bool:
        if self.trainer is not None:
            return self.trainer.strategy.root_device.type == "cpu"
        return not (torch.cuda.is_available() or torch.backends.mps.is_available())
