"""`thaw evaluate`: measures a trained model on labelled photos, and makes the page of them.

    thaw evaluate logs/train/runs/2026-01-31_12-00-00 data=pets
    thaw evaluate logs/train/runs/2026-01-31_12-00-00 --photos my/photos

With settings of train.py (`data=`, `data.*`, `paths.*`) it measures on the test split of those
photos, without any on that of the run. --photos is a folder with one sub-folder a class.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from tqdm import tqdm

from thaw import config, launch
from thaw.compose import compose_run
from thaw.data.base import PhotoDataModule
from thaw.data.broken import TOLD
from thaw.data.photos import Photos
from thaw.data.picture_files import SUFFIXES, picture_files, visible
from thaw.errors import ConfigError, PhotoError, check
from thaw.image_classifier import ImageClassifier, load
from thaw.report.page import write_page
from thaw.report.predictions import Predictions
from thaw.store import read_plain, write_json
from thaw.tools.predict import choose_device, decoded
from thaw.training.metrics import best_class

READ = ("data", "paths")  # what a word may set here
# Of every source: these make loaders, views and draws for training, on which no test photo depends.
UNREAD = {field.name for field in fields(PhotoDataModule)}
UNREAD -= {"data_dir", "cache_dir", "classes", "groups", "skip", "on_bad_photo"}


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Prints the metrics; writes predictions.csv, results.json and report.html into a folder."""
    given, began = _parsed(parser, words), time.perf_counter()
    device = choose_device(given.device)
    model = load(given.model).to(device)
    tested = predictions_of(model, labelled_photos(given, model.classes), given.batch_size)
    metrics = tested.metrics()
    given.out.mkdir(parents=True, exist_ok=True)
    tested.write(given.out / "predictions.csv")
    results = {
        **{f"test/{name}": value for name, value in metrics.items()},
        "phases": [],
        "model": str(given.model.absolute()),
        "photos": str(given.photos or f"test split of {' '.join(given.words) or 'the run'}"),
        "device": str(device),
        "seconds": round(time.perf_counter() - began, 3),
        "classes": tested.classes,
    }
    write_json(results, given.out / "results.json")
    page = write_page(given.out, full=given.full)
    low, high = tested.interval()
    print("   ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    print(f"{len(tested):,} photos; the 95 % interval of acc is {low:.4f} to {high:.4f}")
    print(f"page      {page}")


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    add = parser.add_argument
    add("model", type=Path, help="folder of a run, a model folder, or a checkpoint")
    add("words", nargs="*", metavar="data=...", help="settings of train.py")
    add("--photos", type=Path, metavar="DIR", help="one sub-folder a class")
    add("--out", type=Path, metavar="DIR", default="evaluation", help="to write into (evaluation)")
    add("--full", action="store_true", help="add heat maps")
    add("--batch-size", type=int, default=64, metavar="N", help="photos (64)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    given = parser.parse_intermixed_args(words)
    if given.photos and given.words:
        raise ConfigError(f"--photos {given.photos}: give either this or {' '.join(given.words)}")
    check(given.batch_size >= 1, "--batch-size", given.batch_size, "1 or more")
    if (given.out / ".hydra").exists():
        raise ConfigError(f"--out {given.out}: is the folder of a run; choose another one")
    file = given.out / "results.json"
    before = file.is_file() and read_plain(file).get("model")
    if before and Path(str(before)).resolve() != given.model.resolve():
        raise ConfigError(f"--out {given.out}: holds the page of {before}; choose another folder")
    return given


def labelled_photos(given: Namespace, classes: Sequence[str]) -> Photos:
    """The photos to measure on, with the model's labels: classes are the same where names are."""
    if given.photos:
        inside = [*visible(given.photos)] if given.photos.is_dir() else ()
        if loose := sum(path.is_file() and path.suffix.lower() in SUFFIXES for path in inside):
            print(f"photos    {given.photos}: {loose} files in no class folder are left out")
        pairs = [(path, folder.name) for folder in inside if folder.is_dir()
                 for path in picture_files(folder)]  # fmt: skip
        if not pairs:
            raise ConfigError(f"--photos {given.photos}: has no photos in sub-folders, one a class")
    else:
        data = data_of(given.model, given.words)
        if data.test is None:
            raise ConfigError(f"{' '.join(given.words) or given.model}: there are no test photos")
        pairs = [(path, data.classes[label]) for path, label in data.test.pairs()]
    if unknown := sorted({name for _, name in pairs}.difference(classes)):
        raise ConfigError(
            f"the photos are of classes that the model does not know: {', '.join(unknown)}. It "
            f"knows: {', '.join(classes)}"
        )
    return Photos.of((path, classes.index(name)) for path, name in pairs)


@torch.inference_mode()
def predictions_of(model: ImageClassifier, photos: Photos, batch_size: int) -> Predictions:
    """What a model says of photos, computed as in the test of a run."""
    device, rows, broken = next(model.parameters()).device, [], []
    batches = decoded(photos.paths, model, batch_size, device)
    for _, views, errors in tqdm(batches, "photos", leave=False, disable=None):
        broken += errors
        if not broken:
            scores = model.head(model.features(views.to(device)))
            rows.append(best_class(scores, model.temperature).cpu())
    if broken:
        told = f"{len(broken)} photos cannot be read; data=... data.on_bad_photo=skip leaves out:"
        raise PhotoError("\n".join([told, *broken[:TOLD]]))
    return Predictions.of(photos, model.classes, torch.cat(rows).double().numpy())


def run_of(model: Path) -> Path:
    """The folder of the run that a model folder or a checkpoint is of; else that folder itself."""
    path = model.expanduser().absolute()
    folder = path.parent if path.suffix == ".ckpt" else path
    is_part = folder.name in ("model", "checkpoints") and (folder.parent / ".hydra").is_dir()
    return folder.parent if is_part else folder


def data_of(run: Path, words: Sequence[str] = ()) -> PhotoDataModule:
    """The data module of a run, which says what its photos are; it makes no views of them.

    Args:
        run: The folder of a run, or the model folder or a checkpoint in it.
        words: Settings of train.py that change the test photos. With `data=pets` among them nothing
            of the run is read; without it they are added to the run's words.
    """
    for word in words:
        group, _, key = launch.key_of(word).partition(".")
        if group not in READ or (group == "data" and key in UNREAD):
            raise ConfigError(
                f"{word}: is not read here. Allowed is what chooses test photos: data=, data.*, "
                "paths.*; --batch-size says how many are computed at once, crop is the model's own"
            )
    saved = run_of(run) / ".hydra" / "hydra.yaml"
    replaced = {*map(launch.key_of, words), "resume", "ckpt_path"}
    own: list[str] = []
    if "data" not in replaced:
        if not saved.is_file():
            raise ConfigError(
                f"{run}: is no run's folder ({saved} is missing), so its photos are unknown; give "
                "the run's folder, or choose photos, as data=folder data.root=my/photos"
            )
        replaced |= {f"data.{key}" for key in UNREAD} if words else set()  # they may not fit others
        own = [word for word in launch.saved_words(saved) if launch.key_of(word) not in replaced]
    cfg = compose_run([*own, *words])
    config.check_keys(cfg)
    return config.build(cfg.data, "data")
