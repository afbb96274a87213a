"""The order of the photos is a function of (seed, epoch), however it is divided or resumed."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import Dataset, SequentialSampler

from thaw.data import loading
from thaw.data.loading import (
    Key,
    PhotoSampler,
    ResumableLoader,
    as_key,
    choose_workers,
    collate,
    make_loader,
    usable_cpus,
)
from thaw.seeds import derive


class Keys(Dataset):
    """Gives back what it was asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: Key | int) -> tuple[torch.Tensor, int | None]:
        index, view_seed = as_key(key)
        return torch.full((3, 1, 1), index), view_seed


def loader(size: int = 10, batch_size: int = 4, **settings: Any) -> ResumableLoader:
    arguments = {"train": True, "seed": 0, "num_workers": 0, **settings}
    return make_loader(Keys(size), labels=[0] * size, batch_size=batch_size, **arguments)


def epoch(sampler: PhotoSampler, number: int) -> list[tuple[int, int]]:
    sampler.set_epoch(number)
    return list(sampler)


def test_an_epoch_is_every_photo_once_in_another_order() -> None:
    sampler = PhotoSampler([0] * 50, train=True, seed=1)
    first, second = epoch(sampler, 0), epoch(sampler, 1)
    assert sorted(index for index, _ in first) == list(range(50))
    assert [index for index, _ in first] != [index for index, _ in second]
    assert dict(first) != dict(second)  # other views too
    assert epoch(sampler, 0) == first


def test_seeds_give_other_orders() -> None:
    orders = {tuple(epoch(PhotoSampler([0] * 50, train=True, seed=seed), 0)) for seed in range(5)}
    assert len(orders) == 5


def test_ranks_share_the_batches_of_one_process() -> None:
    whole = list(epoch(PhotoSampler([0] * 24, train=True, seed=3), 2))
    halves = [
        epoch(PhotoSampler([0] * 24, train=True, seed=3, rank=rank, world_size=2), 2)
        for rank in (0, 1)
    ]
    for start in range(0, 24, 8):
        together = halves[0][start // 2 : start // 2 + 4] + halves[1][start // 2 : start // 2 + 4]
        assert set(together) == set(whole[start : start + 8])


def test_ranks_take_as_many_steps_in_training_and_no_photo_twice_in_evaluation() -> None:
    train = [PhotoSampler([0] * 7, train=True, seed=0, rank=r, world_size=2) for r in (0, 1)]
    assert (
        [len(list(sampler)) for sampler in train] == [len(sampler) for sampler in train] == [4] * 2
    )
    val = [PhotoSampler([0] * 7, train=False, seed=0, rank=r, world_size=2) for r in (0, 1)]
    assert sorted(index for sampler in val for index, _ in sampler) == list(range(7))
    assert [len(sampler) for sampler in val] == [4, 3]


def test_evaluation_is_in_the_order_of_the_files() -> None:
    sampler = PhotoSampler([0] * 9, train=False, seed=0)
    assert [index for index, _ in epoch(sampler, 5)] == list(range(9))
    assert epoch(sampler, 5) == epoch(sampler, 6)


def test_balanced_draws_every_class_as_often() -> None:
    labels = [0] * 900 + [1] * 100
    sampler = PhotoSampler(labels, train=True, seed=0, balanced=True)
    drawn = Counter(labels[index] for index, _ in epoch(sampler, 0))
    assert sum(drawn.values()) == 1000
    assert abs(drawn[1] - 500) < 4 * 250**0.5  # four standard deviations of a binomial


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_goes_on_where_it_stood(workers: int) -> None:
    whole = loader(num_workers=workers)
    whole.sampler.set_epoch(3)  # pyright: ignore[reportAttributeAccessIssue]
    expected = [batch[1].tolist() for batch in whole]
    resumed = loader(num_workers=workers)
    consumed = [1]
    resumed.consumed = lambda: consumed.pop()
    batches = iter(resumed)  # Lightning asks for it before it sets the epoch
    resumed.sampler.set_epoch(3)  # pyright: ignore[reportAttributeAccessIssue]
    assert [batch[1].tolist() for batch in batches] == expected[1:]
    resumed.consumed = None
    assert [batch[1].tolist() for batch in resumed] == expected  # the next epoch is whole


class Features:
    """Stands for a table of features."""

    def batch(self, keys: Sequence[Key]) -> tuple[torch.Tensor, torch.Tensor]:
        places, seeds = zip(*keys, strict=True)
        return torch.tensor(places), torch.tensor(seeds)


def test_features_come_in_the_order_of_the_photos() -> None:
    photos = [(images[:, 0, 0, 0].tolist(), seeds.tolist()) for images, seeds in loader()]
    table = loader()
    table.features = Features()
    assert [(rows.tolist(), seeds.tolist()) for rows, seeds in table] == photos
    table.consumed = lambda: 2
    assert [(rows.tolist(), seeds.tolist()) for rows, seeds in table] == photos[2:]


@pytest.mark.parametrize("features", [False, True])
def test_a_sampler_of_bare_indices_means_view_seed_0(features: bool) -> None:
    """Lightning's overfit_batches takes one, in a loader that it makes anew."""
    plain = ResumableLoader(Keys(5), batch_size=3, sampler=SequentialSampler(range(5)))
    plain.features = Features() if features else None
    assert [(images.flatten(1)[:, 0] if images.ndim > 1 else images).tolist()
            for images, _ in plain] == [[0, 1, 2], [3, 4]]  # fmt: skip
    assert [seeds.tolist() for _, seeds in plain] == [[0, 0, 0], [0, 0]]


class Seen(pl.LightningModule):
    """Trains one weight and notes which keys it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.keys: list[tuple[int, list[int], list[int]]] = []

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        images, seeds = batch
        self.keys.append((self.current_epoch, images[:, 0, 0, 0].tolist(), seeds.tolist()))
        return self.layer(images.float().mean().view(1)).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.0)


class SaveAfter(pl.Callback):
    """Saves a checkpoint after some batches."""

    def __init__(self, folder: Path, steps: set[int]) -> None:
        self.folder, self.steps = folder, steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.*enable_progress_bar:UserWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_resumed_run_sees_the_order_that_it_would_have_seen(workers: int, tmp_path: Path) -> None:
    """Lightning itself replays the order of epoch 0 with workers (since 2.5.3, issue 21938)."""

    def fit(*callbacks: pl.Callback, resume: Path | None = None) -> list:
        trainer = pl.Trainer(
            max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=list(callbacks),
            use_distributed_sampler=False, default_root_dir=tmp_path,
        )  # fmt: skip
        loaded = loader(num_workers=workers)
        loaded.consumed = lambda: trainer.fit_loop.epoch_loop.batch_progress.current.ready
        module = Seen()
        trainer.fit(module, loaded, ckpt_path=resume, weights_only=True)
        return module.keys

    whole = fit(SaveAfter(tmp_path, {3, 4, 5}))  # epochs of 3 batches: after one, and inside
    assert len({str(keys) for _, *keys in whole}) == 9
    for step in (3, 4, 5):
        assert fit(resume=tmp_path / f"{step}.ckpt") == whole[step:]


def test_a_batch_has_its_channels_last_however_its_pictures_lie() -> None:
    upright = torch.arange(3 * 4 * 5, dtype=torch.uint8).view(3, 4, 5)
    decoded = upright.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    images, labels = collate([(upright, 1), (decoded, 7)])
    assert torch.equal(images, torch.stack([upright, upright]))
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.tolist() == [1, 7]


def test_a_last_batch_of_one_photo_is_left_out_in_training() -> None:
    assert [len(batch[0]) for batch in loader(9)] == [4, 4]
    assert [len(batch[0]) for batch in loader(10)] == [4, 4, 2]
    assert [len(batch[0]) for batch in loader(9, train=False)] == [4, 4, 1]
    assert [len(batch[0]) for batch in loader(1)] == [1]


def test_derived_seeds_differ() -> None:
    seeds = {derive(seed, epoch) for seed in range(30) for epoch in range(30)}
    assert len(seeds) == 900
    assert derive(1, 2) == derive(1, 2) < 2**32
    torch.manual_seed(derive(1, 2))


def test_workers_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "usable_cpus", lambda: 6)
    assert choose_workers(10_000, 1, on_cpu=True) == 3  # the network needs the others
    assert choose_workers(100, 1, on_cpu=False) == 0  # not worth a process
    assert choose_workers(10_000, 1, on_cpu=False) == 6
    assert choose_workers(10_000, 4, on_cpu=False) == 1
    assert choose_workers(10_000, 16, on_cpu=False) == 1
    monkeypatch.setattr(loading, "usable_cpus", lambda: 64)
    assert choose_workers(10_000, 1, on_cpu=False) == 8


def test_usable_cpus_follow_the_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert usable_cpus() == 3
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert usable_cpus() == 7
