"""The data module that all photo sources share.

A source says where its photos are (`find_splits`) and, if they can be downloaded, how
(`prepare_data`). Everything else - validation split, few-shot, loaders - is done here.
"""

import os
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from thaw.data.broken import describe, find_broken
from thaw.data.dataset import PhotoDataset, Pictures, Transform, read_pictures
from thaw.data.loading import choose_batch_size, make_loader
from thaw.data.photos import Photos, Splits
from thaw.data.splitting import add_test_split, draw_per_class, split_fold, split_fraction
from thaw.data.workers import choose_workers
from thaw.errors import ConfigError, check

DEFAULT_VAL_FRACTION = 0.2  # what fast.ai reports on; of 10 photos a class it leaves 8 to train on


@rank_zero_only
def print_once(text: str) -> None:
    """Prints in the first process only; file names need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode(), flush=True)


def check_names(classes: Sequence[str]) -> None:
    """Refuses names of classes that cannot be written, or not be told apart when they are read."""
    if wrong := [name for name in classes if not name.isprintable()]:
        raise ConfigError(f"the name of class {wrong[0]!a} is not in UTF-8; give it another name")
    if len({unicodedata.normalize("NFC", name) for name in classes}) < len(classes):
        raise ConfigError(f"the names of two classes look the same: {list(classes)!a}; rename one")


class Classes:
    """`data.classes`: set to the names that are wanted (None: all), read as those of the labels."""

    def __get__(self, module: Any, owner: type) -> Any:
        return module and module.splits.classes  # of the class itself: None, the default

    def __set__(self, module: Any, names: Sequence[str] | None) -> None:
        module.wanted = names


# A dataclass, so that a source lists its own arguments only and still has one flat signature.
# eq=False: data modules are compared by identity.
@dataclass(kw_only=True, eq=False)
class PhotoDataModule(LightningDataModule):
    """Base of all photo sources.

    If there are no photos for `val` or `test`, it is None, and its loader is an empty list. A
    transform makes uint8 (3, H', W') of uint8 (3, H, W).
    """

    licence: ClassVar[str]  # of the photos; every source sets it, and `name`
    wanted: ClassVar[Any] = None  # what data.classes says
    test_fraction = 0.0  # 0-1, of the training photos; a setting of sources without test photos

    data_dir: Path  # of downloaded photos; only downloads write there
    cache_dir: Path  # for everything generated
    classes: Classes = Classes()  # to use, in the order of the labels; None: all
    groups: str | None = None  # regular expression: what it finds in a path is in one split only
    skip: Path | None = None  # text file of photos to leave out
    on_bad_photo: Literal["error", "skip"] = "error"  # before training, all that cannot be read
    batch_size: int | Literal["auto"] = "auto"  # images per device and step
    num_workers: int | None = None  # processes that decode, per device; None: chosen
    val_fraction: float | None = None  # 0-1, of the training photos; None: the source's own, or 0.2
    folds: int | None = None  # k-fold: parts of the training and validation photos, by class
    fold: int = 0  # the part (0 to folds - 1) to validate on; the others train
    train_per_class: int | None = None  # few-shot: drawn after validation; None: all
    balanced: bool = False  # whether every class is seen equally often in training
    cache: Literal["none", "ram"] = "none"  # ram: decode once, shrink and keep in memory
    crop: str = "center"  # how evaluation makes photos square; read by what makes the transforms
    seed: int = 0  # of validation and few-shot, and of the order and views in training
    train_transform: Transform | None = None
    eval_transform: Transform | None = None
    shrink: Transform | None = None  # to the size that the cache keeps

    def __post_init__(self) -> None:
        super().__init__()
        self.data_dir = Path(self.data_dir).expanduser()
        self.cache_dir = Path(self.cache_dir).expanduser()
        self._pictures: dict[str, Pictures | None] = {}  # by split
        self.folder = self.data_dir  # that lists of photos are relative to
        self.skipped = 0  # photos that data.skip left out
        self.bad_photos: list[str] = []  # those that data.on_bad_photo=skip left out
        self.group_of: Callable[[Path], str] | None = None  # of a photo; data.groups, or a source's
        fits = isinstance(self.wanted, list | tuple | None)
        check(fits, "data.classes", self.wanted, "a list of names, or null")
        self.check("groups", isinstance(self.groups, str | None), "text, or null")
        self.check("skip", isinstance(self.skip, str | Path | None), "a text file, or null")
        self.check("on_bad_photo", self.on_bad_photo in ("error", "skip"), "error or skip")
        if self.batch_size != "auto":
            self.check_integer("batch_size", 1, ", or auto")
        for key, least in (("num_workers", 0), ("train_per_class", 1), ("folds", 2), ("fold", 0)):
            self.check_integer(key, least)
        for key in ("test_fraction", "val_fraction"):
            value = getattr(self, key)
            fits = value is None or (type(value) in (int, float) and 0 <= value < 1)
            self.check(key, fits, "0 to below 1")
        if self.folds is not None:
            self.check("val_fraction", self.val_fraction is None, "null, since data.folds is set")
        rule = f"0 to below data.folds={self.folds}" if self.folds else "0, or set data.folds too"
        self.check("fold", self.fold < (self.folds or 1), rule)
        self.check("balanced", isinstance(self.balanced, bool), "true or false")
        self.check("cache", self.cache in ("none", "ram"), "none or ram")

    def check(self, key: str, fits: bool, allowed: str) -> None:
        """Raises a ConfigError unless the value of a setting fits."""
        check(fits, f"data.{key}", getattr(self, key), allowed)

    def check_integer(self, key: str, least: int, also: str = "") -> None:
        """Checks a whole number; null is allowed where it is the default."""
        value, optional = getattr(self, key), getattr(type(self), key) is None
        fits = (type(value) is int and value >= least) or (optional and value is None)
        self.check(key, fits, f"{least} or more{', or null' if optional else also}")

    def find_splits(self) -> Splits:
        """Lists every photo of every split, in a fixed order; each source writes its own."""
        raise NotImplementedError

    @cached_property
    def splits(self) -> Splits:
        """The photos of every split, after the draws; finding them prints how many there are."""
        from thaw.data import choose  # which imports this module

        self.prepare_data()
        source = self.find_splits()
        if (self.wanted, self.groups, self.skip, self.group_of) != (None,) * 4:
            source = choose.narrow(self, source)
        check_names(source.classes)
        splits = self._draw_splits(add_test_split(source, self.test_fraction))
        if source.train.groups:
            wants_val = self.val_fraction != 0
            choose.check_groups(splits, source, wants_val=wants_val)
        # Tools make no views for training, and tell of a broken photo when they come to it.
        if self.train_transform or self.on_bad_photo == "skip":
            splits = self._without_broken(splits)
        val, test = (len(photos) if photos else 0 for photos in (splits.val, splits.test))
        counts = f"{len(splits.train):,} train, {val or 'no'} val, {test or 'no'} test photos"
        print_once(f"data      {self.name}: {len(splits.classes)} classes, {counts}")
        for name, photos in splits.items():
            there = {splits.classes[label] for label in set(photos.labels)}
            if absent := [each for each in splits.classes if each not in there]:
                print_once(f"{name:<10}no photo of {len(absent)} classes: {', '.join(absent)}")
        return splits

    def images_per_step(self, devices: int) -> int:
        """The batch size of each device, chosen by the number of training photos if it is auto."""
        if self.batch_size != "auto":
            return self.batch_size
        return max(1, choose_batch_size(len(self.train)) // devices)

    def setup(self, stage: str | None = None) -> None:
        _ = self.splits  # finds the photos, unless that is done

    train = property(lambda self: self.splits.train)
    val = property(lambda self: self.splits.val)
    test = property(lambda self: self.splits.test)

    def train_dataloader(self) -> DataLoader:
        return self._loader(self.train, "train")

    def val_dataloader(self) -> DataLoader | list:
        return [] if self.val is None else self._loader(self.val, "val")

    def test_dataloader(self) -> DataLoader | list:
        return [] if self.test is None else self._loader(self.test, "test")

    def _draw_splits(self, source: Splits) -> Splits:
        """Draws the validation photos, then the few-shot subset.

        In this order `train_per_class` does not change the validation photos.
        """
        train, val, classes = source.train, source.val, source.classes
        fraction = self.val_fraction
        if self.folds is not None:
            val, train = split_fold(train + val if val else train, self.folds, self.fold, classes)
        elif val and fraction is not None:
            raise ConfigError(
                f"data.val_fraction={fraction} has no effect: {self.name} comes with {len(val)} "
                "validation photos of its own. Set data.val_fraction=null."
            )
        elif val is None or fraction is not None:
            fraction = DEFAULT_VAL_FRACTION if fraction is None else fraction
            val, train = split_fraction(train, fraction, rule=f"val {self.seed}")
        if self.train_per_class is not None:
            rule = f"train {self.seed}"
            train = draw_per_class(train, self.train_per_class, classes, rule=rule)
        return Splits(classes, train, val or None, source.test or None)

    def _without_broken(self, splits: Splits) -> Splits:
        broken = find_broken([path for _, part in splits.items() for path in part.paths])
        told = describe(broken, self.folder, f"data.on_bad_photo={self.on_bad_photo}")
        if broken and self.on_bad_photo == "error":
            hint = "Replace or delete them, or leave them out with data.on_bad_photo=skip"
            raise ConfigError(f"{told}\n{hint}")
        if broken:
            print_once(f"{told}\n{'':<10}They are left out.")
        self.bad_photos = [os.path.relpath(path, self.folder) for path in broken]
        return splits.without(broken, "data.on_bad_photo=skip")

    def _loader(self, photos: Photos, split: str) -> DataLoader:
        train, trainer = split == "train", self.trainer
        transform = self.train_transform if train else self.eval_transform
        if transform is None or (self.cache == "ram" and self.shrink is None):
            raise ConfigError(
                f"{self.name}: give train_transform, eval_transform and, for cache=ram, shrink."
            )
        devices, ranks = (trainer.num_devices, trainer.world_size) if trainer else (1, 1)
        on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
        workers = self.num_workers
        if workers is None:
            workers = choose_workers(len(photos), devices, on_cpu=on_cpu)
        # the test photos are read only once anyway
        if self.shrink and self.cache == "ram" and split not in ("test", *self._pictures):
            self._pictures[split] = read_pictures(
                photos, self.shrink, num_workers=workers, label=f"{split}, {len(photos):,} photos",
                processes=devices, verbose=trainer is None or trainer.is_global_zero,
            )  # fmt: skip
        loader = make_loader(
            PhotoDataset(photos, transform, self.eval_transform, self._pictures.get(split)),
            labels=photos.labels, batch_size=self.images_per_step(ranks), num_workers=workers,
            train=train, seed=self.seed, balanced=self.balanced,
            rank=trainer.global_rank if trainer else 0, world_size=ranks,
        )  # fmt: skip
        if trainer and train:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            loader.consumed = lambda: progress.current.ready
        return loader
