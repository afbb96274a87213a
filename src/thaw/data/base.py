"""The data module that all photo sources share.

A source says where its photos are (`find_splits`) and, if they can be downloaded, how
(`prepare_data`). Everything else - validation split, few-shot, loaders - is done here.
"""

import math
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import DataLoader

from thaw.backbones.backbone import Crop
from thaw.data import loading, splitting
from thaw.data.broken import describe, find_broken
from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError, check, shown


@rank_zero_only
def print_once(text: str) -> None:
    """Prints in the first process only; file names need not be UTF-8."""
    print(text.encode(errors="backslashreplace").decode(), flush=True)


class Classes:
    """`data.classes`: set to the names that are wanted (None: all), read as those of the labels."""

    def __get__(self, module: Any, owner: type) -> Any:
        return module and module.splits.classes  # of the class itself: None, the default

    def __set__(self, module: Any, names: Sequence[str | int] | None) -> None:
        module.wanted = None if names is None else tuple(map(str, names))


# A dataclass, so that a source lists its own arguments only and still has one flat signature.
# eq=False: data modules are compared by identity.
@dataclass(kw_only=True, eq=False)
class PhotoDataModule(LightningDataModule):
    """Base of all photo sources.

    If there are no photos for `val` or `test`, it is None, and its loader is an empty list. A
    transform makes uint8 (3, H', W') of uint8 (3, H, W).
    """

    licence: ClassVar[str]  # of the photos; every source sets it, and `name`
    home: ClassVar[str] = ""  # the folder of the photos below data_dir
    wanted: ClassVar[tuple[str, ...] | None] = None  # what data.classes says
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
    crop: Crop = "center"  # how evaluation makes photos square; read by what makes the transforms
    seed: int = 0  # of validation and few-shot, and of the order and views in training
    train_transform: loading.Transform | None = None
    eval_transform: loading.Transform | None = None
    shrink: loading.Transform | None = None  # to the size that the cache keeps

    def __post_init__(self) -> None:
        super().__init__()
        self.data_dir = Path(self.data_dir).expanduser()
        self.folder = self.data_dir / self.home
        self.cache_dir = Path(self.cache_dir).expanduser()
        self._pictures: dict[str, loading.Pictures | None] = {}  # by split
        self.skipped = 0  # photos that data.skip left out
        self.bad_photos: list[str] = []  # those that data.on_bad_photo=skip left out
        fits, rule = None in (self.folds, self.val_fraction), "null, since data.folds is set"
        check(fits, "data.val_fraction", self.val_fraction, rule)
        rule = f"0 to below data.folds={self.folds}" if self.folds else "0, or set data.folds too"
        check(self.fold < (self.folds or 1), "data.fold", self.fold, rule)

    def find_splits(self) -> Splits:
        """Lists all photos, in a fixed order; may set `folder`, which lists are relative to."""
        raise NotImplementedError

    @cached_property
    def splits(self) -> Splits:
        """The photos of every split, after the draws; finding them prints how many there are."""
        self.prepare_data()
        source = found = self.find_splits()
        if self.skip is not None:
            out = splitting.read_skip(Path(self.skip), (self.folder, self.data_dir), found)
            print_once(f"data      data.skip={self.skip}: {len(out)} photos are left out")
            self.skipped, source = len(out), source.without(out)
        if self.wanted is not None:
            source = source.only(self.wanted)
        seen: set[str] = set()
        for name in source.classes:
            is_text = not re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", name)
            if not is_text or (form := unicodedata.normalize("NFC", name)) in seen:
                fault = "looks like that of another" if is_text else "is not in UTF-8"
                raise ConfigError(f"the name of class {name!a} {fault}; rename it")
            seen.add(form)
        if self.groups and not source.train.groups:
            source = source.change(splitting.grouping(self.groups, self.folder))
        splits = self._draw_splits(source)
        if groups := splitting.count_groups(splits):
            rule = f"a pattern of more than {groups} groups, or data.val_fraction=0 (no validation)"
            check(bool(splits.val) or self.val_fraction == 0, "data.groups", self.groups, rule)
            print_once(f"data      {groups:,} groups, none of them in two splits")
        # Tools make no views for training, and tell of a broken photo when they come to it.
        if self.train_transform or self.on_bad_photo == "skip":
            splits = self._without_broken(splits)
        if lost := found.names(found.train) & {*splits.classes} - splits.names(splits.train):
            fault = f"no training photo of class {min(lost)!r} is left by data.skip, data.groups or"
            raise ConfigError(f"{fault} data.on_bad_photo; keep some, or change data.classes")
        val, test = (len(photos) if photos else 0 for photos in (splits.val, splits.test))
        counts = f"{len(splits.train):,} train, {val or 'no'} val, {test or 'no'} test photos"
        print_once(f"data      {self.name}: {len(splits.classes)} classes, {counts}")
        for name, photos in splits.items():
            there = splits.names(photos)
            if absent := [each for each in splits.classes if each not in there]:
                print_once(f"{name:<10}no photo of {len(absent)} classes: {', '.join(absent)}")
        return splits

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
        """Draws the test photos, validation, then the few-shot subset, which changes neither."""
        for key, own in (("test_fraction", source.test), ("val_fraction", source.val)):
            given, unset = getattr(self, key), getattr(type(self), key)
            rule = f"{shown(unset)}: {self.name} has {len(own or ())} {key[:-9]} photos of its own"
            check(not own or given == unset, f"data.{key}", given, rule)
        classes, train, val, test = source.classes, source.train, source.val, source.test
        if self.test_fraction:
            test, train = splitting.split_fraction(train, self.test_fraction, rule="test")
        if self.folds is not None:
            both = train + val if val else train
            val, train = splitting.split_fold(both, self.folds, self.fold, classes)
        elif val is None or self.val_fraction is not None:
            # a fifth is what fast.ai reports on; of 10 photos a class it leaves 8 to train on
            fraction = 0.2 if self.val_fraction is None else self.val_fraction
            val, train = splitting.split_fraction(train, fraction, rule=f"val {self.seed}")
        if self.train_per_class is not None:
            rule = f"train {self.seed}"
            train = splitting.draw_per_class(train, self.train_per_class, classes, rule=rule)
        return Splits(classes, train, val or None, test or None)

    def _without_broken(self, splits: Splits) -> Splits:
        broken = find_broken([path for _, part in splits.items() for path in part.paths])
        told = describe(broken, self.folder, f"data.on_bad_photo={self.on_bad_photo}")
        if broken and self.on_bad_photo == "error":
            raise ConfigError(f"{told}\nReplace or delete them, or set data.on_bad_photo=skip")
        if broken:
            print_once(f"{told}\n{'':<10}They are left out.")
        self.bad_photos = [os.path.relpath(path, self.folder) for path in broken]
        return splits.without(broken)

    def _loader(self, photos: Photos, split: str) -> DataLoader:
        train, trainer = split == "train", self.trainer
        transform = self.train_transform if train else self.eval_transform
        if transform is None or (self.cache == "ram" and self.shrink is None):
            words = "give train_transform, eval_transform and, for cache=ram, shrink"
            raise ConfigError(f"{self.name}: {words}")
        devices, ranks = (trainer.num_devices, trainer.world_size) if trainer else (1, 1)
        on_cpu = trainer is None or trainer.strategy.root_device.type == "cpu"
        workers = self.num_workers
        if workers is None:
            workers = loading.choose_workers(len(photos), devices, on_cpu=on_cpu)
        batch_size = self.batch_size
        if batch_size == "auto":
            # The power of two, 16 to 64, that makes an epoch about 32 steps: a few hundred photos
            # need more steps than batches of 64 give them, and BatchNorm with its pretrained
            # statistics does not mind small batches (measured in benchmarks/LOG.md).
            power = 2 ** round(math.log2(max(1, len(self.train)) / 32))
            batch_size = max(1, min(64, max(16, power)) // ranks)
        # the test photos are read only once anyway
        if self.shrink and self.cache == "ram" and split not in ("test", *self._pictures):
            self._pictures[split] = loading.read_pictures(
                photos, self.shrink, num_workers=workers, label=f"{split}, {len(photos):,} photos",
                processes=devices, verbose=trainer is None or trainer.is_global_zero,
            )  # fmt: skip
        loader = loading.make_loader(
            loading.PhotoDataset(photos, transform, self.eval_transform, self._pictures.get(split)),
            labels=photos.labels, batch_size=batch_size, num_workers=workers,
            train=train, seed=self.seed, balanced=self.balanced,
            rank=trainer.global_rank if trainer else 0, world_size=ranks,
        )  # fmt: skip
        if trainer and train:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            loader.consumed = lambda: progress.current.ready
        return loader
