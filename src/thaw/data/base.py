"""What all photo sources share: the data module.

A source says where its photos are (`find`) and, when they can be downloaded, how (`download`).
Everything else - drawing validation photos, few-shot, loaders - is here, once.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from thaw.data.checks import check, check_folds, is_share, is_whole
from thaw.data.crops import Crops, finished_on_device, resize
from thaw.data.dataset import PhotoDataset, Transform
from thaw.data.draw import draw, draw_fold, draw_per_class
from thaw.data.loading import Fetch, make_loader
from thaw.data.photos import Photos, Splits
from thaw.data.pictures import Pictures, Where, keep
from thaw.data.workers import choose_workers, computes_on_cpu
from thaw.errors import ConfigError

# Held out when the source has no validation photos and data.val_fraction is not given.
# 0.2 is what fast.ai reports on; with 10 photos a class it leaves 8 to train on and 2 to check.
DEFAULT_VAL_FRACTION = 0.2


# A dataclass, so that a source lists its own arguments only and still has one flat signature:
# conf/data/<name>.yaml is checked against it. eq=False: modules compare by identity.
@dataclass(kw_only=True, eq=False)
class PhotoDataModule(LightningDataModule):
    """Base of all photo sources.

    data_dir:         folder of downloaded photos; only downloads write there
    cache_dir:        folder for everything generated
    batch_size:       images per device and step
    num_workers:      per device: processes that decode, or threads that cut cached pictures where
                      the network is on the CPU or augment_on is "device"; None: chosen for the
                      machine
    val_fraction:     fraction (0-1) of the training photos held out for validation, class by
                      class; 0: none; None: the source's own validation photos, else 0.2
    folds:            number of parts that the training photos, with the source's own validation
                      photos, are split into, class by class (k-fold); the same for every seed
    fold:             the part (0 to folds - 1) that validates; the others train
    train_per_class:  training photos per class (few-shot), drawn after validation; None: all
    balanced:         True: every class is seen equally often in training
    cache:            "ram" or "disk": decode each training and validation photo once and keep it
                      as small as evaluation needs it; training views are then cut from that. In
                      "ram" each process has its own, "disk" is shared and there in the next run
    augment_on:       "cpu", or "device": crops of cached pictures are resized and flipped there
    seed:             of the draws (validation, few-shot) and of order and views in training
    train_transform, eval_transform:  uint8 (3, H, W) -> uint8 (3, H', W'); needed by the loaders
    shrink:           the same, to what the cache keeps; needed by it

    After `setup` (which `classes`, `train`, `val` and `test` call by themselves) `val` or `test`
    is None where there are no such photos, and its loader an empty list: Lightning skips that
    split, with a warning unless the Trainer has limit_val_batches=0.
    """

    licence: ClassVar[str]  # of the photos; beside it every source sets `name`

    data_dir: Path
    cache_dir: Path
    batch_size: int = 64
    num_workers: int | None = None
    val_fraction: float | None = None
    folds: int | None = None
    fold: int = 0
    train_per_class: int | None = None
    balanced: bool = False
    cache: Where = "none"
    augment_on: Literal["cpu", "device"] = "cpu"
    seed: int = 0
    train_transform: Transform | None = None
    eval_transform: Transform | None = None
    shrink: Transform | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.data_dir = Path(self.data_dir).expanduser()
        self.cache_dir = Path(self.cache_dir).expanduser()
        self._splits: Splits | None = None
        self._kept: dict[str, Pictures | None] = {}  # by split
        batch, workers, few = self.batch_size, self.num_workers, self.train_per_class
        check("batch_size", batch, is_whole(batch, 1), "1 or more images per device")
        allowed = workers is None or is_whole(workers, 0)
        check("num_workers", workers, allowed, "0 or more workers, or null for what suits")
        fraction = self.val_fraction
        allowed = fraction is None or is_share(fraction)
        rule = "a fraction from 0 (no validation) to below 1, or null for the source's own choice"
        check("val_fraction", fraction, allowed, rule)
        check_folds(self.folds, self.fold, fraction)
        allowed = few is None or is_whole(few, 1)
        check("train_per_class", few, allowed, "1 or more photos per class, or null for all")
        check("cache", self.cache, self.cache in get_args(Where), ", ".join(get_args(Where)))
        check("augment_on", self.augment_on, self.augment_on in ("cpu", "device"), "cpu, device")
        allowed = self.augment_on == "cpu" or self.cache != "none"
        check("augment_on", self.augment_on, allowed, "cpu, or data.cache=ram or disk beside it")
        check("balanced", self.balanced, isinstance(self.balanced, bool), "true or false")

    def download(self) -> None:
        """Fetch what is missing; does nothing, and writes nothing, when all is there."""

    def find(self) -> Splits:
        """Look at the files and name every photo of every split, in an order of its own.

        Each source writes its own; there is none to fall back on.
        """
        raise NotImplementedError

    def prepare_data(self) -> None:
        self.download()

    def setup(self, stage: str | None = None) -> None:
        if self._splits is None:
            self._splits = self._drawn(self.find())

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the labels."""
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
        return self._eval_loader(self.val, "val")

    def test_dataloader(self) -> DataLoader | list:
        return self._eval_loader(self.test, "test")

    def _ready(self) -> Splits:
        if self._splits is None:
            self.prepare_data()
            self.setup()
        assert self._splits is not None
        return self._splits

    def _drawn(self, found: Splits) -> Splits:
        """Validation first, then few-shot: so both draws stay apart, and N photos per class
        never change what is validated on."""
        train, val = found.train, found.val
        if self.folds is not None:
            every = train if val is None else train.joined(val)
            val, train = draw_fold(every, self.folds, self.fold, found.classes)
        elif val is not None and len(val) and self.val_fraction is not None:
            raise ConfigError(
                f"data.val_fraction={self.val_fraction} has no effect: {self.name} comes with "
                f"{len(val)} validation photos of its own. Set data.val_fraction=null."
            )
        elif val is None or self.val_fraction is not None:
            fraction = DEFAULT_VAL_FRACTION if self.val_fraction is None else self.val_fraction
            val, train = draw(train, fraction, rule=f"val {self.seed}")
        if self.train_per_class is not None:
            rule = f"train {self.seed}"
            train = draw_per_class(train, self.train_per_class, found.classes, rule=rule)
        return Splits(found.classes, train, val if len(val) else None, found.test or None)

    def _eval_loader(self, photos: Photos | None, split: str) -> DataLoader | list:
        return [] if photos is None else self._loader(photos, self.eval_transform, split)

    def _pictures(self, photos: Photos, split: str, workers: int) -> Pictures | None:
        """From the cache; the test split is read once, so it would gain nothing."""
        if self.cache == "none" or split == "test":
            return None
        trainer = self.trainer
        if split not in self._kept:
            if self.shrink is None:
                raise ConfigError(f"{self.name}: shrink is None; data.cache={self.cache} needs it.")
            self._kept[split] = keep(
                photos, self.shrink, self.cache, folder=self.cache_dir / "pictures",
                workers=workers, label=f"{split}, {len(photos):,} photos",
                sharers=trainer.num_devices if trainer else 1,
                loud=trainer is None or trainer.is_global_zero,
                bar=trainer is not None and trainer.progress_bar_callback is not None,
            )  # fmt: skip
        return self._kept[split]

    def _loader(self, photos: Photos, transform: Transform | None, split: str) -> DataLoader:
        train = split == "train"
        if transform is None:
            key = "train_transform" if train else "eval_transform"
            raise ConfigError(f"{self.name}: {key} is None; give it before asking for a loader.")
        if train and self.augment_on == "device":
            finished_on_device(transform)  # refuses before photos are decoded for nothing
        trainer = self.trainer
        on_cpu = computes_on_cpu(trainer)
        workers = self.num_workers
        if workers is None:
            devices = trainer.num_devices if trainer else 1
            workers = choose_workers(len(photos), devices, on_cpu=on_cpu)
        pictures = self._pictures(photos, split, workers)
        dataset = PhotoDataset(photos, transform, self.eval_transform, pictures)
        loader = make_loader(
            dataset,
            labels=photos.labels,
            batch_size=self.batch_size,
            num_workers=workers,
            train=train,
            seed=self.seed,
            balanced=self.balanced and train,
            fetch=self._fetch(dataset, train=train, on_cpu=on_cpu),
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        if trainer and train:
            progress = trainer.fit_loop.epoch_loop.batch_progress
            loader.consumed = lambda: progress.current.ready
        return loader

    def _fetch(self, dataset: PhotoDataset, *, train: bool, on_cpu: bool) -> Fetch | None:
        """What makes a batch of the dataset in threads; None: worker processes do."""
        if train and self.augment_on == "device":
            if dataset.suits_threads:
                return dataset.crops
            print("data.augment_on=device: no pictures are kept, so views are made on the CPU")
        return dataset.views if dataset.suits_threads and on_cpu else None

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Crops and labels -> views (N, 3, size, size) and labels; other batches as they are."""
        if not (isinstance(batch, list | tuple) and isinstance(batch[0], Crops)):
            return batch
        crop = finished_on_device(self.train_transform)
        return resize(batch[0], crop.size, crop.mode), batch[1]
