"""A file of features is whole or not there, whoever fills it: one process, or several ranks."""

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from filelock import FileLock
from models import small_backbone
from runs import draw_photos
from torch import Tensor
from torch.utils.data import DataLoader

from thaw import transforms
from thaw.data.folder import Folder
from thaw.data.loading import PhotoDataset, collate
from thaw.features import table as filling
from thaw.features.table import Features, load_or_compute, view_key
from thaw.store import Store

# Python 3.12 warns of a fork beside torch's threads; the ranks here use one thread and no GPU
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


def dataset(photos: Path) -> PhotoDataset:
    spec = small_backbone().input_spec
    train = transforms.train_transform(spec)
    train_photos = Folder(root=photos, data_dir=photos, cache_dir=photos).find_splits().train
    return PhotoDataset(train_photos, train, transforms.eval_transform(spec))


class Body:
    """The small network without Lightning, and how many images it has seen."""

    def __init__(self, kind: torch.dtype = torch.float32) -> None:
        backbone = small_backbone()
        self.body = backbone.body.eval()
        self.normalise = transforms.normalise(backbone.input_spec)
        self.kind = kind
        self.images = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.body(self.normalise(images)).to(self.kind)


def load(
    photos: Path, folder: Path, run: Callable[[Tensor], Tensor], key: Any = "key",
    batch_size: int = 5, **changes: Any,
) -> tuple[Features, bool]:  # fmt: skip
    every = dataset(photos)
    loader = DataLoader(every, batch_size=batch_size, collate_fn=collate)
    return load_or_compute(folder, lambda: {"key": key}, loader, run, **{"views": 2, **changes})


def expected(photos: Path) -> Tensor:
    """(24, 2, 8), one image at a time."""
    every, run = dataset(photos), Body()
    rows = [run(every[view_key(index, view)][0][None]) for index in range(24) for view in (0, 1)]
    return torch.cat(rows).view(24, 2, 8)


def files(folder: Path) -> list[str]:
    return sorted({path.suffix for path in folder.iterdir()} - {".lock"})


@pytest.mark.parametrize(
    ("batch_size", "kind"), [(5, torch.float32), (64, torch.bfloat16), (1, torch.float32)]
)
def test_each_row_is_what_the_body_gives_for_the_view(
    photos: Path, tmp_path: Path, batch_size: int, kind: torch.dtype
) -> None:
    features, was_there = load(photos, tmp_path, Body(kind), batch_size=batch_size)
    assert not was_there
    assert features.table.dtype == kind
    tolerance = 1e-6 if kind == torch.float32 else 0.02
    assert torch.allclose(features.table.float(), expected(photos), atol=tolerance)
    assert features.labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
    assert files(tmp_path) == [".bin", ".json"]


def test_the_second_time_nothing_runs_and_a_broken_file_is_made_again(
    photos: Path, tmp_path: Path
) -> None:
    one, _ = load(photos, tmp_path, Body())
    table = one.table.clone()
    again, was_there = load(photos, tmp_path, lambda _: pytest.fail("ran"))
    assert was_there
    assert torch.equal(table, again.table)
    file = next(tmp_path.glob("*.bin"))
    file.write_bytes(file.read_bytes()[:-8])
    third, was_there = load(photos, tmp_path, Body())
    assert not was_there
    assert torch.equal(table, third.table)


def test_a_filled_folder_that_is_read_only_is_used(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = load(photos, tmp_path, Body())[0].table.clone()

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(filling.Store, "clear_parts", read_only)
    monkeypatch.setattr(FileLock, "acquire", read_only)
    monkeypatch.setattr(os, "access", lambda *_: False)  # then torch may not open it for writing
    again, was_there = load(photos, tmp_path, lambda _: pytest.fail("ran"))
    assert was_there
    assert torch.equal(table, again.table)


def test_a_pass_that_is_killed_leaves_nothing_that_is_trusted(photos: Path, tmp_path: Path) -> None:
    body = Body()

    def killed(images: Tensor) -> Tensor:
        if body.images > 20:
            raise KeyboardInterrupt
        return body(images)

    with pytest.raises(KeyboardInterrupt):
        load(photos, tmp_path, killed)
    assert files(tmp_path) == []
    assert torch.allclose(load(photos, tmp_path, Body())[0].table, expected(photos), atol=1e-6)


def rank_of_two(
    number: int, work: Callable[[int], object], meeting: Path, results: Any
) -> None:  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=2)
    try:
        results.put((number, work(number)))
    except OSError as error:
        results.put((number, f"OSError: {error}"))
    finally:
        dist.destroy_process_group()


def on_two_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `work(rank)` gives on two gloo ranks, or the OSError it raises."""
    processes = multiprocessing.get_context("fork")
    results: Any = processes.Queue()
    meeting = folder / f"meeting{len(list(folder.glob('meeting*')))}"
    ranks = [
        processes.Process(target=rank_of_two, args=(number, work, meeting, results))
        for number in (0, 1)
    ]
    for rank in ranks:
        rank.start()
    got = dict(results.get(timeout=60) for _ in ranks)
    for rank in ranks:
        rank.join()
    return [got[0], got[1]]


def summary(result: tuple[Features, bool], body: Body) -> tuple[list[Any], bool, int]:
    """Plain values that can be handed to another process."""
    features, was_there = result
    return features.table.tolist(), was_there, body.images


def test_two_ranks_share_the_work_and_the_file(photos: Path, tmp_path: Path) -> None:
    """Rank 0's key counts; the other's differs, as where photos were unpacked on each node."""
    cache = tmp_path / "cache"

    def work(rank: int) -> Any:
        body = Body()
        return summary(load(photos, cache, body, key=f"of rank {rank}"), body)

    first = on_two_ranks(work, tmp_path)
    for table, was_there, images in first:
        assert not was_there
        assert images == 24
        assert torch.allclose(torch.tensor(table), expected(photos), atol=1e-6)
    assert len(list(cache.glob("*.bin"))) == 1
    assert files(cache) == [".bin", ".json"]
    again = on_two_ranks(work, tmp_path)
    assert [row[1:] for row in again] == [(True, 0)] * 2
    assert again[0][0] == again[1][0] == first[0][0]
    alone, was_there = load(photos, cache, Body(), key="of rank 0")
    assert was_there
    assert alone.table.tolist() == first[0][0]


@pytest.mark.parametrize("there", ["nothing", "of rank 0"])
def test_ranks_that_do_not_see_one_folder(photos: Path, tmp_path: Path, there: str) -> None:
    """As two nodes without a shared disk: all ranks hear it, and no half a table is left."""
    folders = [tmp_path / "node0", tmp_path / "node1"]
    if there != "nothing":
        load(photos, folders[0], Body())

    def work(rank: int) -> Any:
        return summary(load(photos, folders[rank], Body()), Body())

    for result in on_two_ranks(work, tmp_path):
        assert isinstance(result, str)
        assert "is not one folder for all ranks" in result
    for folder in folders:
        assert not list(folder.glob("*part"))
    assert len(list(folders[0].glob("*.bin"))) == (there != "nothing")
    features, was_there = load(photos, folders[0], Body())  # what is left there is whole
    assert was_there == (there != "nothing")
    assert torch.allclose(features.table, expected(photos), atol=1e-6)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_disk_that_is_full_on_one_rank_is_told_to_all(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    def work(rank: int) -> Any:
        body = Body()

        def full(images: Tensor) -> Tensor:
            if rank == failing and body.images > 10:
                raise OSError(errno.ENOSPC, "No space left on device")
            return body(images)

        return summary(load(photos, tmp_path / "cache", full), body)

    for result in on_two_ranks(work, tmp_path):
        assert isinstance(result, str)
        assert "No space left on device" in result
    assert files(tmp_path / "cache") == []


@pytest.mark.parametrize(
    ("differ", "message"),
    [("types", "trainer.precision"), ("photos", "different photos"), ("key", "no such photo")],
)
def test_ranks_that_differ_are_told_so_on_all_ranks(
    photos: Path, tmp_path: Path, differ: str, message: str
) -> None:
    """Both 16-bit types have rows of equal size, so sizes alone would not show it."""
    cache = tmp_path / "cache"

    def work(rank: int) -> Any:
        every = dataset(photos)
        kind = torch.float16
        if rank == 1 and differ == "types":
            kind = torch.bfloat16
        if rank == 1 and differ == "photos":
            every.photos = every.photos.subset(list(reversed(range(len(every)))))

        def make_key() -> dict[str, Any]:
            if rank == 1 and differ == "key":
                raise FileNotFoundError("no such photo")
            return {"key": "key"}

        loader = DataLoader(every, batch_size=5, collate_fn=collate)
        return summary(load_or_compute(cache, make_key, loader, Body(kind), views=2), Body())

    for result in on_two_ranks(work, tmp_path):
        assert isinstance(result, str)
        assert message in result
    assert not cache.exists() or files(cache) == []


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_part_that_is_not_whole_is_never_used(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """Whatever went wrong on the other rank, as writes that another node never sees."""
    plain = filling.fill

    def broken(file: Path, *arguments: Any, **named: Any) -> Any:
        wrote = plain(file, *arguments, **named)
        if dist.get_rank() == 1 and harm == "missing":
            file.unlink()
        elif dist.get_rank() == 1:
            file.write_bytes(file.read_bytes()[:-4])
        return wrote

    monkeypatch.setattr(filling, "fill", broken)

    def work(rank: int) -> Any:
        return summary(load(photos, tmp_path / "cache", Body()), Body())

    for result in on_two_ranks(work, tmp_path):
        assert isinstance(result, str)
        assert ("No such file" if harm == "missing" else "is not whole") in result
    assert files(tmp_path / "cache") == []


def test_a_stale_part_of_a_killed_run_is_not_taken_for_one_of_this(
    photos: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path, {"key": "key"})
    for name in ("0", "old-0", "old-1"):
        store.part(name).write_bytes(b"\0" * 768)
    features, _ = load(photos, tmp_path, Body())
    assert torch.allclose(features.table, expected(photos), atol=1e-6)
    assert files(tmp_path) == [".bin", ".json"]
