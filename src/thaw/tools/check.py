"""`thaw check`: what is wrong with the photos, before training on them.

    thaw check data=folder data.root=my/photos
    thaw check data=folder data.root=my/photos backbone=resnet18 --skip skip.txt
    thaw check --model logs/train/runs/2026-01-31_12-00-00

It decodes every photo and finds broken, odd and doubled ones; with a pretrained backbone also
labels in doubt, photos off topic and crops. No photo is touched. A check that was stopped goes on
where it was.
"""

import argparse
import importlib.util
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thaw import config, launch
from thaw.data.photos import SUFFIXES, visible
from thaw.errors import ConfigError, check
from thaw.report.predictions import Predictions
from thaw.store import write_json
from thaw.text_table import text_table
from thaw.tools.check_files import Run, cores, see_all
from thaw.tools.check_findings import KINDS, Finding, Listing, left_out
from thaw.tools.check_page import by_splits, class_notes, some, write_page

DEFAULT = "broken,across"  # kinds on a list: what stops training, and what makes figures too good
NO_FEATURES = "labels in doubt, photos off topic and crops need a backbone, as backbone=resnet18"


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Prints how many photos of each kind there are; writes the page and the skip list."""
    given = read(parser, words)
    with cores() as run:
        photos, findings, notes = look(given, run)
        page = write_page(given.page, photos, findings, notes, run)
    rows = [["kind", "photos", "what"]]
    for kind, about in KINDS.items():
        if found := {n for each in findings if kind in each.kinds for n in each.photos}:
            rows.append([kind, f"{len(found):,}", about])
    print(f"\n{text_table(rows, right=(1,)) if findings else 'Nothing odd was found.'}\n")
    if copies := by_splits(photos, findings):
        print(f"{text_table(copies, right=(1, 2, 3))}\n")
    print("\n".join(notes))
    print(f"\npage      {page}: the photos, what is odd about each, and its path")
    if given.model and page == given.model / "check.html":
        link(given.model, notes)
    if given.skip:
        write_list(given, photos, left_out(given.kinds, findings))
    elif findings:
        print(f"next      look at the page; --skip skip.txt lists photos to leave out ({DEFAULT})")
    return 0


def read(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The command line; with --model its words begin with those of the run."""
    kinds = "\n".join(f"  {kind:<9} {about}" for kind, about in KINDS.items())
    parser.epilog = f"kinds:\n{kinds}"
    parser.add_argument("words", nargs="*", metavar="data=...", help="settings of train.py")
    parser.add_argument("--page", type=Path, metavar="FILE", help="the page (check.html)")
    parser.add_argument("--skip", type=Path, metavar="FILE", help="write a list for data.skip=FILE")
    parser.add_argument("--kinds", metavar="KIND,...", default=DEFAULT,
                        help=f"what that list names ({DEFAULT})")  # fmt: skip
    parser.add_argument("--fast", action="store_true", help="leave out what needs the backbone")
    parser.add_argument("--model", type=Path, metavar="RUN", help="add what a run's model doubts")
    given = parser.parse_intermixed_args(words)
    kinds, given.kinds = given.kinds, given.kinds.split(",")
    check({*given.kinds} <= {*KINDS}, "--kinds", kinds, f"one or more of {','.join(KINDS)}")
    kinds = f"a file to write; give kinds as --kinds {given.skip}"
    check(not {*str(given.skip).split(",")} & {*KINDS}, "--skip", given.skip, kinds)
    if given.model:
        saved, chosen = given.model / ".hydra" / "hydra.yaml", {*map(launch.key_of, given.words)}
        tested = saved.is_file() and (given.model / "predictions.csv").is_file()
        check(tested, "--model", given.model, "the folder of a run that was tested")
        own = {word: launch.key_of(word) for word in launch.saved_words(saved)}
        # with data=other nothing of the run's own photos holds
        given.words = [
            word for word, key in own.items() if key not in {*chosen, "resume", "ckpt_path"}
            and not ("data" in chosen and key.startswith("data."))
        ] + given.words  # fmt: skip
    given.page = given.page or (given.model or Path()) / "check.html"
    return given


def look(given: argparse.Namespace, run: Run) -> tuple[Listing, list[Finding], list[str]]:
    """The photos, what was found in them, and sentences about all of them."""
    cfg = launch.compose_run(given.words)
    by_features = has_features(cfg, given)
    if importlib.util.find_spec("sklearn") is None:
        raise ConfigError("thaw check: needs scikit-learn, an extra: pip install '.[probe]'")
    from thaw.tools.check_copies import find_copies

    ((photos, others),) = run(listed, [given.words], "photos")
    seen = see_all(run, [*photos.paths, *others], Path(cfg.paths.cache_dir).expanduser() / "check")
    findings = [Finding((kind,), (n,), why) for n, _ in enumerate(photos.paths)
                for kind, why in seen[n].notes.items()]  # fmt: skip
    notes, near = class_notes(photos), []
    if by_features:
        from thaw.tools.check_labels import look_alike  # with torch

        found, near = look_alike(photos, seen, cfg)
        findings += found
    else:
        notes.append(f"Not looked for: {NO_FEATURES}.")
    findings += find_copies(photos, seen, run, near)
    if others:
        beside = zip(others, seen[len(photos.paths) :], strict=True)
        odd = [f"{path.name} {' and '.join(each.notes.values())}".strip() for path, each in beside]
        notes.append(f"{len(others)} pictures beside the photos are in no split{some(odd)}")
    if given.model:
        found, accuracies = of_model(given.model, photos, findings)
        findings, notes = findings + found, notes + accuracies
    return photos, findings, notes


def has_features(cfg: Any, given: argparse.Namespace) -> bool:
    """Whether a backbone is used: not thaw's own, made for its demo, unless it was chosen."""
    is_chosen = "backbone" in map(launch.key_of, given.words) or cfg.data._target_.endswith(".Demo")
    used = not given.fast and (is_chosen or not cfg.backbone._target_.endswith(".tiny_backbone"))
    if given.skip and not used and {"label", "outlier"}.intersection(given.kinds):
        raise ConfigError(f"--kinds {','.join(given.kinds)}: {NO_FEATURES}")
    return used


def listed(words: Sequence[str]) -> tuple[Listing, list[Path]]:
    """The photos of the source that the words choose, and pictures beside them in no split."""
    cfg = launch.compose_run(words)
    config.check_keys(cfg)  # it imports torch too
    data = config.build(cfg.data, "data")
    splits = data.splits.items()[::-1]  # the first of two copies is kept
    photos = Listing(
        [path for _, part in splits for path in part.paths],
        [label for _, part in splits for label in part.labels],
        [name for name, part in splits for _ in part.paths], data.classes,
    )  # fmt: skip
    known, folders = {*photos.paths}, sorted({path.parent for path in photos.paths})
    beside = (path for folder in folders for path in visible(folder) if path not in known)
    return photos, [path for path in beside if path.suffix.lower() in SUFFIXES]


def of_model(
    run: Path, photos: Listing, findings: Sequence[Finding]
) -> tuple[list[Finding], list[str]]:
    """Test photos whose label the model of a run doubts; its accuracy without odd ones."""
    tested = Predictions.read(run / "predictions.csv")
    places = {str(path.absolute()): n for n, path in enumerate(photos.paths)}
    own, added = np.array([places.get(path, -1) for path in tested.paths]), []
    for n in (int(n) for n in tested.doubted() if own[n] >= 0):
        label, said = tested.classes[tested.labels[n]], tested.classes[tested.predicted[n]]
        why = f"{label}? The model says {said} with {tested.probability[n]:.1%}"
        added.append(Finding(("model",), (int(own[n]),), why))
    doubled = [each.photos[0] for each in findings if "across" in each.kinds]
    doubled += [each.photos[1] for each in findings if len(each.photos) == 2]
    doubtful = [n for each in findings if each.kinds == ("label",) for n in each.photos]
    left = {"": [], " without copies": doubled, " without labels in doubt": doubtful,
            " without both": doubled + doubtful}  # fmt: skip
    all_right: Any = tested.right
    right = {what: all_right[~np.isin(own, odd)] for what, odd in left.items()}
    return added, [f"Test accuracy of the model{what}: {each.mean():.4f} of {len(each):,} photos."
                   for what, each in right.items()]  # fmt: skip


def link(run: Path, notes: Sequence[str]) -> None:
    """Makes the page of a run again, with the notes and a link."""
    from thaw.report.page import write_page

    write_json([*notes], run / "check.json")
    print(f"report    {write_page(run)}: links to it")


def write_list(given: argparse.Namespace, photos: Listing, out: dict[int, str]) -> None:
    """Writes the skip list, behind what data.skip leaves out already, and says the next command."""
    skip = [word for word in given.words if launch.key_of(word) == "data.skip"]
    old = Path(launch.unquoted("".join(skip[-1:]).partition("=")[2])).expanduser()
    before = old.read_text("utf-8", "surrogateescape") if old.is_file() else ""
    lines = [f"# {' '.join(why.split())}\n{photos.paths[n].absolute()}\n" for n, why in out.items()]
    given.skip.write_text(before + "".join(lines), "utf-8", "surrogateescape")
    print(f"skip      {given.skip}: {len(out)} photos, {', '.join(given.kinds)}")
    command = ["python", "train.py", *[word for word in given.words if word not in skip]]
    print(f"next      look at the page, then {shlex.join([*command, f'data.skip={given.skip}'])}")
