"""The base of all sources: splits, few-shot, loaders, and what is refused."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from thaw.data.base import PhotoDataModule
from thaw.data.loading import PhotoDataset
from thaw.data.photos import Photos, Splits
from thaw.errors import ConfigError, PhotoError


def some(per_class: int, start: int = 0) -> Photos:
    """Photos of two classes that are not there: only their names count."""
    keys = [(label, i) for label in range(2) for i in range(start, start + per_class)]
    paths = tuple(Path(f"/nowhere/{label}/{i}.jpg") for label, i in keys)
    return Photos(paths, tuple(label for label, _ in keys))


@dataclass(kw_only=True, eq=False)
class Source(PhotoDataModule):
    """Finds what it is given."""

    name = "source"
    licence = "none"
    source: Splits
    looked: int = 0
    test_fraction: float = 0

    def find_splits(self) -> Splits:
        self.looked += 1
        return self.source


def make(splits: Splits | None = None, **arguments: object) -> Source:
    splits = splits or Splits(("a", "b"), some(20), None, some(5, 100))
    return Source(data_dir=Path(), cache_dir=Path(), source=splits, **arguments)  # pyright: ignore


NONE = Photos((), ())


def test_validation_is_drawn_given_or_absent() -> None:
    drawn = make()
    assert drawn.val is not None
    assert (len(drawn.train), len(drawn.val)) == (32, 8)
    assert not set(drawn.train.paths) & set(drawn.val.paths)
    given = make(Splits(("a", "b"), some(20), some(3, 50), None))
    assert given.val == some(3, 50)
    assert (given.train, given.test) == (some(20), None)
    assert make(val_fraction=0).val is None
    refit = make(Splits(("a", "b"), some(20), NONE, None))
    assert (refit.val, len(refit.train)) == (None, 40)
    half = make(Splits(("a", "b"), some(20), NONE, None), val_fraction=0.5)
    assert half.val is not None
    assert len(half.val) == 20


def test_a_fraction_beside_given_validation_is_refused() -> None:
    module = make(Splits(("a", "b"), some(20), some(3, 50), None), val_fraction=0.1)
    with pytest.raises(ConfigError, match=r"val_fraction=0\.1: allowed is null: source has"):
        module.setup()


def test_few_shot_leaves_validation_and_test_alone() -> None:
    whole, few = make(), make(train_per_class=3)
    assert (few.val, few.test) == (whole.val, whole.test)
    assert [few.train.labels.count(label) for label in (0, 1)] == [3, 3]
    assert set(few.train.paths) < set(whole.train.paths)


def uneven(*per_class: int) -> Photos:
    """Photos that are not there, as many of each class as is said."""
    keys = [(label, i) for label, number in enumerate(per_class) for i in range(number)]
    return Photos(
        tuple(Path(f"/nowhere/{label}/{i}.jpg") for label, i in keys),
        tuple(label for label, _ in keys),
    )


@pytest.mark.parametrize("folds", [2, 5, 7])
@pytest.mark.parametrize("own", [NONE, some(3, 50), None], ids=["empty", "own", "drawn"])
def test_folds_are_disjoint_stratified_and_make_up_all_photos(
    folds: int, own: Photos | None
) -> None:
    """Over a sweep of seeds and folds: each seed's folds validate on every photo once."""
    train, test = uneven(7, 11, 9), some(5, 100)
    every = set(train.paths) | set(own.paths if own else ())
    splits = Splits(("a", "b", "c"), train, own, test)
    parts = []
    for fold in range(folds):
        by_seed = [make(splits, folds=folds, fold=fold, seed=seed) for seed in (0, 1)]
        assert by_seed[0].val == by_seed[1].val
        module = by_seed[0]
        assert module.val is not None
        assert module.test == test
        assert set(module.train.paths) | set(module.val.paths) == every
        assert not set(module.train.paths) & set(module.val.paths)
        parts.append(module.val)
    validated = [path for part in parts for path in part.paths]
    assert len(validated) == len(set(validated)) == len(every)
    assert set(validated) == every
    for label in range(3):  # of each class, and of the whole: equal up to one photo
        counts = [part.labels.count(label) for part in parts]
        assert max(counts) - min(counts) <= 1
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_few_shot_takes_from_the_other_folds() -> None:
    whole, few = (make(folds=4, fold=3, train_per_class=count) for count in (None, 3))
    assert few.val == whole.val
    assert [few.train.labels.count(label) for label in (0, 1)] == [3, 3]
    assert set(few.train.paths) < set(whole.train.paths)
    with pytest.raises(ConfigError, match=r"train_per_class=16: allowed is 15 or less"):
        make(folds=4, train_per_class=16).setup()


def test_more_folds_than_photos_of_a_class() -> None:
    splits = Splits(("a", "b", "c"), uneven(9, 3, 8), uneven(0, 1), None)
    assert make(splits, folds=4).val is not None
    with pytest.raises(ConfigError, match=r"data\.folds=5: allowed is 4 or less, as class 'b'"):
        make(splits, folds=5).setup()


def test_the_seed_draws_and_test_stays() -> None:
    assert make(seed=1).val == make(seed=1).val
    assert make(seed=1).val != make(seed=2).val
    assert make(seed=1, train_per_class=3).train != make(seed=2, train_per_class=3).train
    assert make(seed=1).test == make(seed=2).test


def test_classes_come_before_the_trainer_and_setup_looks_once() -> None:
    module = make()
    assert module.classes == ("a", "b")
    module.prepare_data()
    module.setup("fit")
    module.setup("test")
    assert module.looked == 1


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({"fold": 3, "folds": 3}, "0 to below data.folds=3"),
        ({"fold": 1}, "0, or set data.folds too"),
        ({"val_fraction": 0, "folds": 3}, "null, since data.folds is set"),
    ],
)
def test_settings_that_contradict_each_other(arguments: dict[str, object], rule: str) -> None:
    key, value = next(iter(arguments.items()))
    with pytest.raises(ConfigError) as caught:
        make(**arguments)
    assert str(caught.value) == f"data.{key}={value}: allowed is {rule}"


def test_test_photos_are_held_out_once() -> None:
    drawn = make(Splits(("a", "b"), some(10), NONE, None), test_fraction=0.3)
    assert drawn.test is not None
    assert [drawn.test.labels.count(label) for label in (0, 1)] == [3, 3]
    assert [drawn.train.labels.count(label) for label in (0, 1)] == [7, 7]
    assert make(Splits(("a", "b"), some(10), NONE, None)).test is None
    with pytest.raises(ConfigError, match=r"data\.test_fraction=0\.1: allowed is .*: source has"):
        make(test_fraction=0.1).setup()


def noise(image: Tensor) -> Tensor:
    return image.float() + torch.rand(3, 8, 8)


@pytest.fixture
def pictures(tmp_path: Path) -> Photos:
    for i in range(6):
        Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)).save(tmp_path / f"{i}.png")
    return Photos(tuple(tmp_path / f"{i}.png" for i in range(6)), (0, 1) * 3)


def test_a_view_is_a_function_of_its_seed(pictures: Photos) -> None:
    dataset = PhotoDataset(pictures, noise)
    image, label = dataset[3, 7]
    assert label == 1
    assert torch.equal(image.floor()[:, 0, 0], torch.tensor([3.0, 6.0, 9.0]))
    torch.rand(5)
    assert torch.equal(dataset[3, 7][0], image)
    assert not torch.equal(dataset[3, 8][0], image)


def test_a_view_leaves_the_random_state_alone(pictures: Photos) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    PhotoDataset(pictures, noise)[0, 0]
    assert torch.equal(torch.rand(4), expected)


def loaded(module: Source) -> list[Tensor]:
    return [images for images, _ in module.train_dataloader()]


def test_workers_do_not_change_the_pictures(pictures: Photos) -> None:
    splits = Splits(("a", "b"), pictures, NONE, None)
    one, two = (
        loaded(make(splits, num_workers=n, batch_size=2, train_transform=noise)) for n in (0, 2)
    )
    assert len(one) == 3
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_a_broken_photo_keeps_its_error_in_a_worker(pictures: Photos) -> None:
    module = make(Splits(("a", "b"), pictures, NONE, None), num_workers=1, train_transform=noise)
    module.setup()
    pictures.paths[0].write_bytes(b"")  # after the check
    with pytest.raises(PhotoError, match=r"0\.png: it is empty"):
        loaded(module)


def test_loaders_need_transforms() -> None:
    with pytest.raises(ConfigError, match="source: give train_transform, eval_transform"):
        make().train_dataloader()
    with pytest.raises(ConfigError, match="cache=ram, shrink"):
        make(eval_transform=noise, cache="ram").test_dataloader()


def test_what_was_found_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    make().setup()
    assert (
        capsys.readouterr().out == "data      source: 2 classes, 32 train, 8 val, 10 test photos\n"
    )
    module = make(Splits(("a", "b"), some(1000), NONE, None))
    module.setup()
    module.setup()
    said = capsys.readouterr().out
    assert said == "data      source: 2 classes, 2,000 train, no val, no test photos\n"
