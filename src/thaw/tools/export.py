"""`thaw export`: a trained model as a file for other programs, which gives the same answers there.

The file takes images uint8 (N, 3, S, S), RGB, with any N, and gives calibrated probabilities
(N, K). Beside it lie preprocess.py, which makes such images of photos without torch, and
export.json, which says how exported and trained model were compared. An export that gives other
answers is not kept.
"""

import dataclasses
import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from thaw.errors import ConfigError, check
from thaw.image_classifier import load
from thaw.store import write_json
from thaw.tools import preprocess
from thaw.tools.export_formats import Precision, export
from thaw.tools.export_parity import Parity, compare, find_photos, make_kinds
from thaw.tools.preprocess import prepare
from thaw.tools.run_data import run_of

TOLERANCE = 0.05  # of a probability, 0-1
OTHER_LABELS = 0.01  # share of the photos that may get another label, 0-1, not by int8
MAX_LOSS = 0.01  # of accuracy, 0-1
FACTS = "export.json"
STALE = ("model.onnx", "model.onnx.data", "model.pt2")  # not of this export, where it is replaced


def main(parser: ArgumentParser, words: Sequence[str]) -> None:
    """Exports a model, compares it with the trained one on photos, and keeps it if they agree."""
    given = _parsed(parser, words)
    precision: Precision = "half" if given.half else "int8" if given.int8 else "float"
    model = load(given.model)
    run, out = run_of(given.model), _folder(given, precision)
    if out.exists() and not (out / FACTS).is_file():
        raise ConfigError(f"--out {out}: exists and is no export; give a folder that is not there")
    nearest = next(parent for parent in out.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(prefix=".export-", dir=nearest) as scratch:
        folder, made = Path(scratch) / "export", Path(scratch) / "photos"
        folder.mkdir()
        made.mkdir()
        source, photos, calibrating = find_photos(run, given.photos, made)
        if precision == "int8" and not calibrating:
            raise ConfigError("--int8: needs photos to calibrate on; give them by --photos FOLDER")
        views = (prepare(path, model.facts["input"]) for path in calibrating)
        predict = export(model, folder / f"model.{given.format}", precision, views)
        kinds = make_kinds(photos[0][0], made)
        print(f"photos         {len(photos)} {source}, and one of them in {len(kinds)} other forms")
        parity = compare(model, predict, [*kinds, *photos])
        name = parity.farthest.removeprefix(f"{made}/")  # a folder that is gone soon
        parity = dataclasses.replace(parity, farthest=name)
        _judge(parity, given)
        shutil.copy(preprocess.__file__, folder / "preprocess.py")
        facts = {"format": given.format, "precision": precision, "photos": source}
        write_json({**facts, "parity": dataclasses.asdict(parity)}, folder / FACTS)
        out.mkdir(parents=True, exist_ok=True)
        written = [path.replace(out / path.name) for path in sorted(folder.iterdir())]
    for path in {out / name for name in STALE}.difference(written):
        path.unlink(missing_ok=True)
    for path in written:
        print(f"{path.stat().st_size / 1e6:8.3f} MB    {path}")


def _folder(given: Namespace, precision: Precision) -> Path:
    """Where to write: --out, else a folder that no other model, format or precision has."""
    if given.out:
        return given.out.expanduser().absolute()
    parts = [given.model.stem] if given.model.suffix == ".ckpt" else []
    parts += [given.format] if precision == "float" else [given.format, precision]
    return run_of(given.model) / "export" / "-".join(parts)


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    parser.add_argument("model", type=Path, help="folder of a run, a model folder, or a checkpoint")
    parser.add_argument("--format", choices=("onnx", "pt2"), default="onnx",
                        help="onnx (default), or pt2 for torch.export.load")  # fmt: skip
    fewer = parser.add_mutually_exclusive_group()
    fewer.add_argument("--half", action="store_true", help="float16 weights: half the size")
    fewer.add_argument("--int8", action="store_true", help="8-bit weights: a quarter; onnx only")
    parser.add_argument("--out", type=Path, help="folder to write (RUN/export/FORMAT)")
    parser.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="photos to use, one folder a class: every "
        "second one calibrates --int8, the others compare (those of the run, or drawn flowers)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, metavar="P", help="the export fails if any probability differs "
        f"by more than this ({TOLERANCE}; any with --int8), or more than {OTHER_LABELS:.0%}% of "
        "the labels",
    )  # fmt: skip
    parser.add_argument(
        "--max-loss", type=float, metavar="P", help="it fails if it loses more accuracy than this "
        f"(--int8: {MAX_LOSS}, else any); where no class is known, agreement with the model",
    )  # fmt: skip
    given = parser.parse_args(words)
    if given.format == "pt2" and given.int8:
        raise ConfigError("--format pt2 --int8: is not offered; give --format onnx, or --half")
    tolerance, max_loss = (1.0, MAX_LOSS) if given.int8 else (TOLERANCE, 1.0)
    given.tolerance = tolerance if given.tolerance is None else given.tolerance
    given.max_loss = max_loss if given.max_loss is None else given.max_loss
    for name, value in (("--tolerance", given.tolerance), ("--max-loss", given.max_loss)):
        check(0 <= value <= 1, name, value, "0 to 1")
    return given


def _judge(parity: Parity, given: Namespace) -> None:
    """Prints what was measured; raises a ConfigError if it is not good enough."""
    share, difference = parity.differing / parity.photos, parity.difference
    print(
        f"labels         {parity.differing} of {parity.photos} differ ({share:.2%})\n"
        f"probabilities  differ by up to {difference:.4f} ({parity.farthest})\n"
        f"accuracy       {parity.before:.4f} before, {parity.after:.4f} after "
        f"({parity.known} photos of known class)\n"
        f"seconds        {parity.seconds_before:.4f} a photo before, {parity.seconds_after:.4f} "
        "after, from its file to its probabilities"
    )
    loss, other = parity.before - parity.after, 1 if given.int8 else OTHER_LABELS
    if loss > given.max_loss or share > other or difference > given.tolerance:
        raise ConfigError(
            f"--tolerance {given.tolerance} --max-loss {given.max_loss}: the exported model gives "
            f"other answers, so nothing was written: {share:.2%} of the labels differ (allowed: "
            f"{other:.0%}), probabilities by up to {difference:.4f}, most on {parity.farthest}, "
            f"and {loss:.4f} of the accuracy is lost. Where that is near enough, allow more by "
            "these options; or export with more bits"
        )
