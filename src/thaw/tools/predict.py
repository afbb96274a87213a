"""`thaw predict`: what a trained model says of photos.

    thaw predict logs/train/runs/2026-01-31_12-00-00 my/photos --csv labels.csv
    thaw predict RUN my/photos --csv labels.csv --resume             # go on after Ctrl-C
    thaw predict RUN my/photos --copy-into sorted --unsure 0.6       # a folder for each class

Photos that cannot be read are named and passed over; the exit status 1 says that there were some.
"""

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from thaw.data.decode import decode
from thaw.data.photos import SUFFIXES, picture_files
from thaw.data.workers import choose_workers
from thaw.errors import ConfigError, PhotoError, check
from thaw.image_classifier import ImageClassifier, Prediction, load
from thaw.store import sha256
from thaw.tools.predict_files import Embeddings, Record, Rows, copy_into
from thaw.training.device import keep_freed_memory

Batch = tuple[list[Path], Tensor, list[str]]  # photos, views (N, 3, S, S), errors of other photos


def main(parser: ArgumentParser, words: Sequence[str]) -> int:
    """Predicts photo after photo; 1 where one could not be read, which stderr names."""
    given = _parsed(parser, words)
    device = choose_device(given.device)
    _check_photos(given.photos, given.copy_into)
    keep_freed_memory()
    model = load(given.model).to(device)
    given.top = min(given.top, len(model.classes))
    total = sum(1 for _ in _files(given.photos))
    broken = 0
    with ExitStack() as stack, torch.inference_mode():
        rows, embeddings = _outputs(given, model, stack)
        hidden = None if given.file else True  # None: where stderr is no terminal
        bar = tqdm(total=total, initial=rows.number, unit=" photos", disable=hidden)
        stack.enter_context(bar)
        files = (path for path in _files(given.photos) if _readable(path) not in rows.done)
        for paths, views, errors in decoded(files, total, model, given.batch_size, device):
            for error in errors:
                tqdm.write(error, file=sys.stderr)
            broken += len(errors)
            if paths:
                features, probabilities = _answers(model, views.to(device), mirrored=given.tta)
                pairs = zip(paths, model.named(probabilities), strict=True)
                records = [_record(given, *pair) for pair in pairs]
                if embeddings:
                    embeddings.add(features)
                rows.add(records)
            bar.update(len(paths) + len(errors))
    if broken:
        print(f"{broken} photos could not be read, see above", file=sys.stderr)
    return 1 if broken else 0


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The command line; `form` and `file` say what is written where, file=None: on the screen."""
    add = parser.add_argument
    add("model", type=Path, help="folder of a run, the model folder in it, or a checkpoint")
    add("photos", nargs="+", type=Path, metavar="photo_or_folder",
        help="photos, and folders that are searched for photos at any depth")  # fmt: skip
    add("--top", type=int, default=5, metavar="N", help="classes to show (5)")
    add("--batch-size", type=int, default=64, metavar="N", help="photos computed at once (64)")
    add("--tta", action="store_true", help="average over each photo and its mirror image")
    output = parser.add_mutually_exclusive_group()
    for form, about in (("csv", "a table"), ("json", "one list"), ("jsonl", "a line for each")):
        output.add_argument(f"--{form}", metavar="FILE", help=f"write {about}; - is the screen")
    add("--resume", action="store_true", help="pass over photos that FILE has, and add the others")
    add("--unsure", type=float, default=0.0, metavar="P", help="mark photos with less probability")
    add("--copy-into", type=Path, metavar="DIR", help="copy photos to DIR/<class>, or DIR/unsure")
    add("--embeddings", type=Path, metavar="FILE",
        help="write what the head gets, a row a photo: .npy or .safetensors")  # fmt: skip
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_args(words)
    check(given.top >= 1, "--top", given.top, "1 or more")
    check(given.batch_size >= 1, "--batch-size", given.batch_size, "1 or more")
    check(0 <= given.unsure <= 1, "--unsure", given.unsure, "a probability, 0 to 1")
    fits = not given.embeddings or given.embeddings.suffix in (".npy", ".safetensors")
    check(fits, "--embeddings", given.embeddings, "a file that ends in .npy or .safetensors")
    given.form = next((form for form in ("csv", "json", "jsonl") if getattr(given, form)), "text")
    file = getattr(given, given.form, "-")
    given.file = None if file == "-" else Path(file)
    if given.resume and (given.form not in ("csv", "jsonl") or not given.file):
        raise ConfigError(
            "--resume: needs --csv FILE or --jsonl FILE; a list of --json that was stopped has no "
            "end, so it cannot be gone on with"
        )
    return given


class Decoded(Dataset[Batch]):
    """Batches of decoded photos, of the paths that are asked for."""

    def __init__(self, transform: Callable[[Tensor], Tensor]) -> None:
        self.transform = transform

    def __getitem__(self, files: list[Path]) -> Batch:
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


def decoded(
    files: Iterator[Path], number: int, model: ImageClassifier, size: int, device: torch.device
) -> DataLoader[Batch]:
    """Decodes about `number` files in worker processes, in their order, `size` in a batch.

    The sampler names the files of a batch when a worker has room for it, so that of a million files
    no more than the names in one folder are in memory.
    """
    names = iter(lambda: list(islice(files, size)), [])
    workers = choose_workers(number, 1, on_cpu=device.type == "cpu")
    return DataLoader(Decoded(model.transform), sampler=names, batch_size=None, num_workers=workers)


def _outputs(
    given: Namespace, model: ImageClassifier, stack: ExitStack
) -> tuple[Rows, Embeddings | None]:
    """Opens the files to write to, and closes them with the stack."""
    weights = model.facts.get("sha256") or sha256(given.model.expanduser())  # of a checkpoint
    made_with = {"model": weights, "form": given.form, "--top": given.top, "--tta": given.tta,
                 "--unsure": given.unsure, "--embeddings": str(given.embeddings)}  # fmt: skip
    rows = Rows(given.form, given.file, given.top, marks=given.unsure > 0, resume=given.resume,
                made_with=made_with)  # fmt: skip
    stack.enter_context(rows)
    if given.embeddings is None:
        return rows, None
    width = model.facts["backbone"]["features"]
    return rows, stack.enter_context(Embeddings(given.embeddings, width, rows.number))


def _record(given: Namespace, path: Path, prediction: Prediction) -> Record:
    """The row of a photo, which is copied where that is asked for."""
    unsure = prediction.probability < given.unsure
    if given.copy_into:
        copy_into(given.copy_into, "unsure" if unsure else prediction.label, path)
    mark = {"unsure": unsure} if given.unsure else {}
    return {"path": _readable(path), **prediction.record(given.top), **mark}


def _answers(model: ImageClassifier, views: Tensor, *, mirrored: bool) -> tuple[Tensor, Tensor]:
    """Views (N, 3, S, S) -> features (N, D) and probabilities (N, K), means over both sides."""
    sides = [views, views.flip(-1)] if mirrored else [views]
    features = torch.stack([model.features(side) for side in sides])
    return features.mean(0), torch.stack([*map(model.probabilities, features)]).mean(0)


def _files(photos: Sequence[Path]) -> Iterator[Path]:
    """The photos that were named, and those in the folders that were named."""
    return chain.from_iterable(picture_files(path) if path.is_dir() else [path] for path in photos)


def _check_photos(photos: Sequence[Path], target: Path | None) -> None:
    for path in photos:
        if not path.exists():
            raise ConfigError(f"{path}: no such photo or folder (looked in {Path.cwd()})")
        if path.is_dir() and not any(picture_files(path)):
            raise ConfigError(f"{path}: holds no photos ({' '.join(SUFFIXES)})")
        if path.is_dir() and target and target.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"--copy-into {target}: lies in {path}, whose photos are read, so the copies would "
                "be read too; give a folder outside"
            )


def choose_device(name: str) -> torch.device:
    """The device of that name; auto: the accelerator, else the CPU. ConfigError if it has none."""
    if name == "auto":
        found = torch.accelerator.current_accelerator(check_available=True)
        return found or torch.device("cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        cause = str(error).partition("\n")[0]
        raise ConfigError(f"--device {name}: cannot be used ({cause}); try auto or cpu") from error


def _readable(path: Path) -> str:
    """The path, with marks for what is not UTF-8 in it: such a name must not end the run."""
    return os.fsencode(path).decode(errors="replace")
