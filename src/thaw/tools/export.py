"""`thaw export`: a trained model as a file for other programs, which gives the same answers there.

The file takes images uint8 (N, 3, S, S), RGB, with any N, and gives calibrated probabilities
(N, K). Beside it lie preprocess.py, which makes such images of photos without torch, and
export.json, which says how exported and trained model were compared. An export that gives other
answers is not kept.
"""

import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch

from thaw.data.decode import decode
from thaw.data.demo import ARCHIVE
from thaw.data.photos import Photos
from thaw.data.picture_files import picture_files
from thaw.errors import ConfigError, PhotoError, ThawError, check, reason
from thaw.image_classifier import ImageClassifier, load
from thaw.store import write_json
from thaw.tools import preprocess
from thaw.tools.evaluate import data_of, run_of
from thaw.tools.export_formats import Run, export
from thaw.tools.preprocess import prepare

Labelled = tuple[Path, str | None]  # a photo, and the name of its class where that is known

TOLERANCE = 0.05  # of a probability, 0-1
OTHER_LABELS = 0.01  # share of the photos that may get another label, 0-1, not by int8
MAX_LOSS = 0.01  # of accuracy, 0-1
TESTED, CALIBRATING = 500, 200  # photos at most
STEP = 33  # where there are no photos, every 33rd of the demo's 1,040 drawn flowers
BATCH, ALONE = 8, 16  # photos at once; how many of the first photos also go one by one
FACTS = "export.json"
STALE = ("model.onnx", "model.onnx.data", "model.pt2")  # not of this export, where it is replaced


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Exports a model, compares it with the trained one on photos, and keeps it if they agree."""
    given = _parsed(parser, words)
    model, run, out = load(given.model), run_of(given.model), given.out.expanduser().absolute()
    if out.exists() and not (out / FACTS).is_file():
        raise ConfigError(f"--out {out}: exists and is no export; give a folder that is not there")
    nearest = next(parent for parent in out.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix=".export-", dir=nearest) as scratch:
        folder, drawn = Path(scratch) / "export", Path(scratch) / "photos"
        folder.mkdir()
        source, photos, calibrating = find_photos(run, given.photos, drawn)
        if given.precision == "int8" and not calibrating:
            raise ConfigError("--int8: needs photos to calibrate on; give them by --photos FOLDER")
        views = (prepare(path, model.facts["input"]) for path in calibrating)
        predict = export(model, folder / f"model.{given.format}", given.precision, views)
        print(f"photos         {len(photos)} {source}")
        parity = compare(model, predict, photos)
        _judge(parity, given)
        shutil.copy(preprocess.__file__, folder / "preprocess.py")
        facts = {"format": given.format, "precision": given.precision, "photos": source}
        write_json({**facts, "parity": asdict(parity)}, folder / FACTS)
        out.mkdir(parents=True, exist_ok=True)
        written = [path.replace(out / path.name) for path in sorted(folder.iterdir())]
    for path in {out / name for name in STALE}.difference(written):
        path.unlink(missing_ok=True)
    for path in written:
        print(f"{path.stat().st_size / 1e6:8.3f} MB    {path}")


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    add = parser.add_argument
    add("model", type=Path, help="folder of a run, a model folder, or a checkpoint")
    add("--format", choices=("onnx", "pt2"), default="onnx", help="onnx, or pt2 of torch.export")
    fewer = parser.add_mutually_exclusive_group()
    fewer.add_argument("--half", dest="precision", action="store_const", const="half",
                       default="float", help="float16 weights: half the size")  # fmt: skip
    fewer.add_argument("--int8", dest="precision", action="store_const", const="int8",
                       help="8-bit weights: a quarter; onnx only")  # fmt: skip
    add("--out", type=Path, help="folder to write (RUN/export/FORMAT)")
    add("--photos", type=Path, metavar="FOLDER", help="photos to use, one folder a class: every "
        "second one calibrates --int8, the others compare (of the run, or drawn)")  # fmt: skip
    add("--tolerance", type=float, metavar="P", help="it fails if any probability differs by more "
        f"({TOLERANCE}; any with --int8), or over {OTHER_LABELS:.0%}% of the labels")  # fmt: skip
    add("--max-loss", type=float, metavar="P", help="it fails if it loses more accuracy than this "
        f"(--int8: {MAX_LOSS}, else any); without classes, agreement")  # fmt: skip
    given = parser.parse_args(words)
    is_int8 = given.precision == "int8"
    if given.format == "pt2" and is_int8:
        raise ConfigError("--format pt2 --int8: is not offered; give --format onnx, or --half")
    if given.tolerance is None:
        given.tolerance = 1.0 if is_int8 else TOLERANCE
    if given.max_loss is None:
        given.max_loss = MAX_LOSS if is_int8 else 1.0
    for name, value in (("--tolerance", given.tolerance), ("--max-loss", given.max_loss)):
        check(0 <= value <= 1, name, value, "0 to 1")
    if not given.out:  # a folder that no other model, format or precision has
        parts = [given.model.stem] if given.model.suffix == ".ckpt" else []
        parts += [given.format] if given.precision == "float" else [given.format, given.precision]
        given.out = run_of(given.model) / "export" / "-".join(parts)
    return given


@dataclass(frozen=True)
class Parity:
    """What was compared: the trained model before, the exported one after."""

    photos: int
    differing: int  # photos that get another label
    difference: float  # the largest, of any probability of any photo
    farthest: str  # the photo where that is
    known: int  # photos whose class is known; if none is, the trained model's answers are right
    before: float  # accuracy, 0-1
    after: float


def compare(model: ImageClassifier, run: Run, photos: Sequence[Labelled]) -> Parity:
    """Sends each photo from its file through both, and the first ones one by one as well."""
    before, after, alone = [], [], []
    for start in range(0, len(photos), BATCH):
        paths = [path for path, _ in photos[start : start + BATCH]]
        with torch.inference_mode():  # as `thaw predict` gives them
            views = torch.stack([model.transform(decode(path)) for path in paths])
            before.append(model(views).numpy())
        images = [prepare(path, model.facts["input"]) for path in paths]
        after.append(run(np.concatenate(images)))
        alone += map(run, images) if start < ALONE else after[-1:]
    expected, got, single = map(np.concatenate, (before, after, alone))  # (P, K) each
    difference = np.abs([got - expected, single - expected]).max((0, 2))  # (P,)
    difference = np.nan_to_num(difference, nan=1.0)  # what is no number is as wrong as can be
    best, classes, farthest = expected.argmax(1), model.classes, int(difference.argmax())
    differs = (got.argmax(1) != best) | (single.argmax(1) != best)
    labels = np.array([classes.index(name) if name in classes else -1 for _, name in photos])
    known = labels >= 0
    right, counted = (labels, known) if known.any() else (best, slice(None))
    shares = (float((rows.argmax(1) == right)[counted].mean()) for rows in (expected, got))
    name, largest = "/".join(photos[farthest][0].parts[-2:]), float(difference[farthest])
    return Parity(len(photos), int(differs.sum()), largest, name, int(known.sum()), *shares)


def _judge(parity: Parity, given: Namespace) -> None:
    """Prints what was measured; raises a ConfigError if it is not good enough."""
    share, difference = parity.differing / parity.photos, parity.difference
    print(
        f"labels         {parity.differing} of {parity.photos} differ ({share:.2%})\n"
        f"probabilities  differ by up to {difference:.4f} ({parity.farthest})\n"
        f"accuracy       {parity.before:.4f} before, {parity.after:.4f} after "
        f"({parity.known} photos of known class)"
    )
    loss, other = parity.before - parity.after, 1 if given.precision == "int8" else OTHER_LABELS
    if loss > given.max_loss or share > other or difference > given.tolerance:
        raise ConfigError(
            f"--tolerance {given.tolerance} --max-loss {given.max_loss}: the exported model gives "
            f"other answers, so nothing was written: {share:.2%} of the labels differ (allowed: "
            f"{other:.0%}), probabilities by up to {difference:.4f}, most on {parity.farthest}, "
            f"and {loss:.4f} of the accuracy is lost. Where that is near enough, allow more by "
            "these options; or export with more bits"
        )


def find_photos(
    run: Path, folder: Path | None, scratch: Path
) -> tuple[str, list[Labelled], list[Path]]:
    """What the photos are, those to test on, and other ones to calibrate on (maybe none).

    Args:
        run: Folder of the run. Its validation photos test, its training photos calibrate.
        folder: Photos to take instead, at any depth; the name of the folder that a photo lies in
            counts as its class. Every second one calibrates.
        scratch: Where drawn flowers go if there are no photos. Nothing is calibrated on them.
    """
    if folder is not None:
        paths = picture_files(folder) if folder.is_dir() else ()
        every = [(path, path.parent.name) for path in paths]
        source, parts = f"photos of {folder}", (every[::2], every[1::2])
    else:
        try:
            data = data_of(run)
            data.prepare_data = lambda: None  # photos that are gone are not downloaded for this
            source, parts = "validation photos of the run", [
                [(path, data.classes[label]) for path, label in part.pairs()]
                for part in (data.val or Photos((), ()), data.train)
            ]  # fmt: skip
        except (ThawError, OSError) as error:
            print(f"The run's own photos cannot be had ({reason(error)}).")
            source, parts = "", ((), ())
    tested, calibrating = _some(parts[0], TESTED), _some(parts[1], CALIBRATING)
    if tested:
        return source, tested, [path for path, _ in calibrating]
    if folder is not None:
        raise ConfigError(f"--photos {folder}: holds no photos that can be read; give others")
    with ZipFile(ARCHIVE) as archive:
        drawn = [Path(archive.extract(name, scratch)) for name in archive.namelist()[::STEP]]
    # a model of real flowers may know such a name too
    return "drawn flowers", [(path, None) for path in drawn], []


def _some(photos: Sequence[Labelled], most: int) -> list[Labelled]:
    """At most `most` of the photos that can be read, evenly spaced: of a list by class, all."""
    places = np.linspace(0, len(photos) - 1, min(most, len(photos))).round().astype(int)
    whole, errors = [], []
    for photo in (photos[place] for place in places):
        try:
            decode(photo[0])
            whole.append(photo)
        except PhotoError as error:
            errors.append(error)
    if errors:
        print(f"{len(errors)} of {len(places)} photos passed over, the first: {errors[0]}")
    return whole
