"""`thaw predict`: what a trained model says of photos."""

import argparse
import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from thaw.data.decode import decode
from thaw.data.photos import SUFFIXES, picture_files
from thaw.data.workers import FEW_PHOTOS, choose_workers
from thaw.errors import ConfigError, PhotoError
from thaw.image_classifier import Prediction, load

Batch = tuple[list[Path], Tensor, list[str]]  # photos, views (N, 3, S, S), errors of other photos
Write = Callable[[Path, Prediction], None]


def main(words: Sequence[str]) -> int:
    """Predicts photo after photo; those that cannot be read are named on stderr and passed over.

    Args:
        words: The words of the command line after `thaw predict`.

    Returns:
        The exit status: 1 where a photo could not be read; the results of all others are there.

    Raises:
        ConfigError: There is no model or no photo, or a number or a device cannot be used.
    """
    given = _parsed(words)
    device = choose_device(given.device)
    _check_photos(given.photos)
    model = load(given.model).to(device)
    top = min(given.top, len(model.classes))
    batches = Batches(given.photos, model.transform, given.batch_size)
    number = sum(1 for _ in islice(_files(given.photos), FEW_PHOTOS))  # enough to choose by
    workers = choose_workers(number, 1, on_cpu=device.type == "cpu")
    broken = 0
    with _writer(given, top) as write, torch.inference_mode():
        for paths, views, errors in DataLoader(batches, batch_size=None, num_workers=workers):
            for error in errors:
                print(error, file=sys.stderr)
            broken += len(errors)
            predictions = model.named(model(views.to(device))) if paths else []
            for path, prediction in zip(paths, predictions, strict=True):
                write(path, prediction)
    if broken:
        print(f"{broken} photos could not be read, see above", file=sys.stderr)
    return 1 if broken else 0


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("thaw predict", description=__doc__)
    parser.add_argument("model", type=Path, help="folder of a run, or the model folder in it")
    parser.add_argument(
        "photos", nargs="+", type=Path, metavar="photo_or_folder",
        help="photos, and folders that are searched for photos at any depth",
    )  # fmt: skip
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes to show (5)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="photos (64)")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--csv", metavar="FILE", help="write a table; - is standard output")
    output.add_argument("--json", metavar="FILE", help="write a list; - is standard output")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_args(words)
    for name, value in (("--top", given.top), ("--batch-size", given.batch_size)):
        if value < 1:
            raise ConfigError(f"{name} {value}: allowed is 1 or more")
    return given


class Batches(IterableDataset[Batch]):
    """Decoded photos in batches; the list of files is never in memory as a whole.

    Each of W worker processes walks through the folders and decodes every W-th batch. The loader
    asks the workers in turn, so the order is that of the files.
    """

    def __init__(
        self, photos: Sequence[Path], transform: Callable[[Tensor], Tensor], batch_size: int
    ) -> None:
        self.photos, self.transform, self.batch_size = photos, transform, batch_size

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of this worker."""
        worker = get_worker_info()
        files = _files(self.photos)
        batches = iter(lambda: list(islice(files, self.batch_size)), [])
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        return map(self._read, islice(batches, first, None, step))

    def _read(self, files: list[Path]) -> Batch:
        paths: list[Path] = []
        views: list[Tensor] = []
        errors: list[str] = []
        for path in files:
            try:
                views.append(self.transform(decode(path)))
                paths.append(path)
            except PhotoError as error:
                errors.append(str(error))
        return paths, torch.stack(views) if views else torch.empty(0), errors


def _files(photos: Sequence[Path]) -> Iterator[Path]:
    """The photos that were named, and those in the folders that were named."""
    return chain.from_iterable(picture_files(path) if path.is_dir() else [path] for path in photos)


def _check_photos(photos: Sequence[Path]) -> None:
    for path in photos:
        if not path.exists():
            raise ConfigError(f"{path}: no such photo or folder (looked in {Path.cwd()})")
        if path.is_dir() and next(picture_files(path), None) is None:
            raise ConfigError(f"{path}: holds no photos ({' '.join(SUFFIXES)})")


def choose_device(name: str) -> torch.device:
    """The device of that name; auto: the accelerator, else the CPU. ConfigError if it has none."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).partition("\n")[0]
        raise ConfigError(f"--device {name}: cannot be used ({cause}); try auto or cpu") from error


@contextmanager
def _writer(given: argparse.Namespace, top: int) -> Iterator[Write]:
    """Writes one prediction at a time in the form that was asked for."""
    target = given.csv or given.json or "-"
    if target == "-":
        with _form(given, top, sys.stdout) as write:
            yield write
        return
    path = Path(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file, _form(given, top, file) as write:
        yield write


@contextmanager
def _form(given: argparse.Namespace, top: int, file: TextIO) -> Iterator[Write]:
    def best(prediction: Prediction) -> list[tuple[str, float]]:
        return list(islice(prediction.probabilities.items(), top))

    if given.json:
        before = "[\n"

        def write(path: Path, prediction: Prediction) -> None:
            nonlocal before
            found = [{"label": label, "probability": value} for label, value in best(prediction)]
            record: dict[str, Any] = {"path": _readable(path), **found[0], "top": found}
            file.write(before + json.dumps(record, ensure_ascii=False))
            before = ",\n"

        yield write
        file.write("\n]\n" if before == ",\n" else "[]\n")
    elif given.csv:
        table = csv.writer(file, lineterminator="\n")
        further = [f"{name}_{place}" for place in range(2, top + 1)
                   for name in ("label", "probability")]  # fmt: skip
        table.writerow(["path", "label", "probability", *further])
        yield lambda path, prediction: table.writerow(
            [_readable(path), *chain.from_iterable((a, f"{p:.6f}") for a, p in best(prediction))]
        )
    else:
        yield lambda path, prediction: print(
            _readable(path), *(f"{label} {value:.2f}" for label, value in best(prediction)),
            sep="  ", file=file,
        )  # fmt: skip


def _readable(path: Path) -> str:
    """The path, with marks for what is not UTF-8 in it: such a name must not end the run."""
    return os.fsencode(path).decode(errors="replace")
