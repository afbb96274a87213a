"""`thaw predict`: what a trained model says of photos.

    thaw predict logs/train/runs/2026-01-31_12-00-00 my/photos --csv labels.csv
    thaw predict RUN my/photos --csv labels.csv --resume             # go on after Ctrl-C
    thaw predict RUN my/photos --copy-into sorted --unsure 0.6       # a folder for each class

Photos that cannot be read are named and passed over; the exit status 1 says that there were some.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from thaw.data.decode import decode
from thaw.data.loading import choose_workers
from thaw.data.picture_files import SUFFIXES, picture_files
from thaw.errors import ConfigError, PhotoError, check
from thaw.image_classifier import ImageClassifier, load
from thaw.store import sha256
from thaw.tools.predict_files import Output, readable
from thaw.training.device import keep_freed_memory

Batch = tuple[list[Path], Tensor, list[str]]  # photos, views (N, 3, S, S), errors of other photos


def main(parser: ArgumentParser, words: Sequence[str]) -> int:
    """Predicts photo after photo; 1 where one could not be read, which stderr names."""
    given = _parsed(parser, words)
    device, files = choose_device(given.device), _find(given)
    keep_freed_memory()
    model = load(given.model).to(device)
    weights = model.facts.get("sha256") or sha256(given.model.expanduser())  # of a checkpoint
    given.top = min(given.top, len(model.classes))
    broken = 0
    hidden = None if given.file else True  # None: where stderr is no terminal
    with (
        torch.inference_mode(),
        Output(given, weights) as output,
        tqdm(total=len(files), initial=output.number, unit=" photos", disable=hidden) as bar,
    ):
        files = [path for path in files if readable(path) not in output.done]
        for paths, views, errors in decoded(files, model, given.batch_size, device):
            for error in errors:
                tqdm.write(error, file=sys.stderr)
            broken += len(errors)
            if paths:
                sides = [views, views.flip(-1)] if given.tta else [views]
                found = torch.stack([model(side.to(device)) for side in sides]).mean(0)  # N K
                output.add(paths, model.named(found))
            bar.update(len(paths) + len(errors))
    if broken:
        print(f"{broken} photos could not be read, see above", file=sys.stderr)
    return 1 if broken else 0


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The command line; `form` and `file` say what is written where, file=None: on the screen."""
    add = parser.add_argument
    add("model", type=Path, help="folder of a run, the model folder in it, or a checkpoint")
    add("photos", nargs="+", type=Path, metavar="photo_or_folder", help="folders: at any depth")
    add("--top", type=int, default=5, metavar="N", help="classes to show (5)")
    add("--batch-size", type=int, default=64, metavar="N", help="photos computed at once (64)")
    add("--tta", action="store_true", help="average over each photo and its mirror image")
    output = parser.add_mutually_exclusive_group()
    for form, about in (("csv", "a table"), ("json", "one list"), ("jsonl", "a line for each")):
        output.add_argument(f"--{form}", metavar="FILE", help=f"write {about}; - is the screen")
    add("--resume", action="store_true", help="pass over photos that FILE has, and add the others")
    add("--unsure", type=float, default=0.0, metavar="P", help="mark photos with less probability")
    add("--copy-into", type=Path, metavar="DIR", help="copy photos to DIR/<class>, or DIR/unsure")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_args(words)
    check(given.top >= 1, "--top", given.top, "1 or more")
    check(given.batch_size >= 1, "--batch-size", given.batch_size, "1 or more")
    check(0 <= given.unsure <= 1, "--unsure", given.unsure, "a probability, 0 to 1")
    given.form = next((form for form in ("csv", "json", "jsonl") if getattr(given, form)), "text")
    file = getattr(given, given.form, "-")
    given.file = None if file == "-" else Path(file)
    if given.resume and (given.form not in ("csv", "jsonl") or not given.file):
        raise ConfigError("--resume: needs --csv FILE or --jsonl FILE")
    return given


def read_views(transform: Callable[[Tensor], Tensor], files: list[Path]) -> Batch:
    """The views of photos, and the errors of those that cannot be read."""
    paths, views, errors = list[Path](), list[Tensor](), list[str]()
    for path in files:
        try:
            views.append(transform(decode(path)))
            paths.append(path)
        except PhotoError as error:
            errors.append(str(error))
    return paths, torch.stack(views) if views else torch.empty(0), errors


def decoded(
    files: Sequence[Path], model: ImageClassifier, size: int, device: torch.device
) -> DataLoader[Batch]:
    """Decodes the files in worker processes, in their order, `size` in a batch."""
    workers = choose_workers(len(files), 1, on_cpu=device.type == "cpu")
    views = partial(read_views, model.transform)
    return DataLoader(files, size, num_workers=workers, collate_fn=views)  # pyright: ignore


def _find(given: Namespace) -> list[Path]:
    """The photos that were named, and those in the folders that were named."""
    files: list[Path] = []
    for path in given.photos:
        if not path.exists():
            raise ConfigError(f"{path}: no such photo or folder (looked in {Path.cwd()})")
        found = list(picture_files(path)) if path.is_dir() else [path]
        if not found:
            raise ConfigError(f"{path}: holds no photos ({' '.join(SUFFIXES)})")
        target = given.copy_into
        if path.is_dir() and target and target.resolve().is_relative_to(path.resolve()):
            raise ConfigError(
                f"--copy-into {target}: lies in {path}, whose photos are read, so the copies would "
                "be read too; give a folder outside"
            )
        files += found
    return files


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
