"""The order of the photos is a function of (seed, epoch), however it is divided or resumed."""

import threading
import time
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from thaw.data.loading import Key, PhotoSampler, ResumableLoader, collate, make_loader
from thaw.errors import PhotoError
from thaw.seeds import derive


class Keys(Dataset):
    """Gives back what it was asked for."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        index, view_seed = key
        return torch.full((3, 1, 1), index), view_seed


def loader(size: int = 10, batch_size: int = 4, threaded: bool = False, **settings: object):
    arguments = {"train": True, "seed": 0, "num_workers": 0, **settings}
    return in_batches(Keys(size), batch_size, threaded, **arguments)


def in_batches(keys: Keys, batch_size: int, threaded: bool, **settings: Any) -> ResumableLoader:
    def fetch(batch: list[Key]) -> Any:
        return collate([keys[key] for key in batch])  # pyright: ignore[reportArgumentType]

    settings["fetch"] = fetch if threaded else None
    return make_loader(keys, labels=[0] * len(keys), batch_size=batch_size, **settings)


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


@pytest.mark.parametrize(("workers", "threaded"), [(0, False), (2, False), (2, True)])
def test_a_resumed_epoch_goes_on_where_it_stood(workers: int, threaded: bool) -> None:
    whole = loader(num_workers=workers, threaded=threaded)
    whole.sampler.set_epoch(3)  # pyright: ignore[reportAttributeAccessIssue]
    expected = [batch[1].tolist() for batch in whole]
    resumed = loader(num_workers=workers, threaded=threaded)
    consumed = [1]
    resumed.consumed = lambda: consumed.pop()
    batches = iter(resumed)  # Lightning asks for it before it sets the epoch
    resumed.sampler.set_epoch(3)  # pyright: ignore[reportAttributeAccessIssue]
    assert [batch[1].tolist() for batch in batches] == expected[1:]
    resumed.consumed = None
    assert [batch[1].tolist() for batch in resumed] == expected  # the next epoch is whole


class Photos(Keys):
    """Keys of which one cannot be read, and which take longer the earlier they come."""

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        index, view_seed = key
        if index == 90:
            raise PhotoError("photo 90")
        time.sleep(0.002 * (index % 8 == 0))
        self.seen.append(threading.current_thread().name)
        return torch.full((3, 1, 1), index), view_seed

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.seen: list[str] = []


def test_threads_keep_the_order_and_end_with_the_loop() -> None:
    photos = Photos(80)
    threads = in_batches(photos, 8, True, num_workers=2, train=False, seed=0)
    found = [index for images, _ in threads for index in images[:, 0, 0, 0].tolist()]
    assert found == list(range(80))
    assert len(set(photos.seen)) == 2
    assert threading.current_thread().name not in photos.seen
    batches = iter(threads)
    next(batches)
    del batches  # as after limit_train_batches
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("views") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_goes_wrong_in_a_thread_is_raised_where_it_is_asked_for() -> None:
    threads = in_batches(Photos(91), 8, True, num_workers=2, train=False, seed=0)
    with pytest.raises(PhotoError, match="photo 90"):
        list(threads)


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
