"""`thaw check`: what is wrong with the photos, before training on them.

    thaw check data=folder data.root=my/photos
    thaw check data=folder data.root=my/photos backbone=resnet18 --skip skip.txt
    thaw check --model logs/train/runs/2026-01-31_12-00-00

It decodes every photo and finds broken, odd and doubled ones; with a pretrained backbone also
labels in doubt, photos off topic and crops. No photo is touched. A check that was stopped goes on
where it was.
"""

import argparse
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cache, partial
from pathlib import Path
from textwrap import shorten

import numpy as np

from thaw import config, launch
from thaw.compose import compose_run
from thaw.data.picture_files import SUFFIXES, visible
from thaw.errors import check
from thaw.report.predictions import Predictions
from thaw.store import write_json
from thaw.text_table import text_table
from thaw.tools.check_alike import find_copies, look_alike
from thaw.tools.check_files import Finding, Listing, in_cores, see_all

KINDS = {
    "broken": "cannot be decoded: training stops there",
    "damaged": "decoded, but libjpeg says that its data is damaged: a part may be grey or shifted",
    "conflict": "one picture with two labels",
    "across": "one picture in two splits: what is measured there is too good",
    "exact": "the same pixels twice",
    "near": "nearly the same picture twice: a crop, another size, turned, the next of a burst",
    "label": "the label is in doubt, by photos that look alike",
    "model": "the model says another class, as surely as of photos that it gets right",
    "outlier": "unlike all others: off topic?",
    "flat": "black, white, one tone or a placeholder",
    "blurry": "no sharp edge. A soft subject looks the same to this measure: look first",
    "size": "tiny, huge or very long",
    "name": "content and name are of two formats. thaw goes by the content; others may not",
    "exif": "turned by EXIF. thaw turns it; others may not",
    "mode": "transparent, of several frames, or another colour mode. thaw makes it one RGB picture",
}
MOST = 48  # findings of a kind that are shown
DEFAULT = "broken,damaged,across"  # what (mostly) stops training, or makes figures too good


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Prints how many photos of each kind there are; writes the page and the skip list."""
    given = read(parser, words)
    photos, findings, notes = look(given)
    write = partial(write_findings, photos=photos, findings=findings, notes=notes)
    list(in_cores(write, [given.page], "page"))
    rows = [["kind", "photos", "what"]]
    for kind, about in KINDS.items():
        if found := {n for each in findings if kind in each.kinds for n in each.photos}:
            rows.append([kind, f"{len(found):,}", about])
    print(f"\n{text_table(rows, right=(1,)) if findings else 'Nothing odd was found.'}\n")
    print(*notes, f"\npage      {given.page}: photos, what is odd about each, its path", sep="\n")
    if given.model and given.page == given.model / "check.html":
        write_json(notes, given.model / "check.json")
        from thaw.report.page import write_page  # with torch, as in the functions below

        print(f"report    {write_page(given.model)}: links to it")
    if given.skip:  # behind what data.skip leaves out already
        out, old = left_out(given.kinds.split(","), findings), given.cfg.data.get("skip")
        before = Path(old).expanduser().read_text("utf-8", "surrogateescape") if old else ""
        text = f"{before.rstrip()}\n" if before else ""
        for n, why in out.items():
            text += f"# {' '.join(why.split())}\n{photos.paths[n].absolute()}\n"
        backup = given.skip.with_name(f"{given.skip.name}~")
        saved = given.skip.is_file() and shutil.copyfile(given.skip, backup)
        given.skip.write_text(text, "utf-8", "surrogateescape")
        note = f"; what was there is in {backup}" if saved else ""
        print(f"skip      {given.skip}: {len(out)} photos, {given.kinds}{note}")
        kept = [word for word in given.words if launch.key_of(word) != "data.skip"]
        command = shlex.join(["python", "train.py", *kept, f"data.skip={given.skip}"])
        print(f"next      look at the page, then {command}")
    elif findings:
        print(f"next      look at the page; --skip skip.txt lists photos to leave out ({DEFAULT})")


def read(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """The command line and its settings `cfg`; with --model its words begin with the run's."""
    about = (f"  {kind:<9} {about}" for kind, about in KINDS.items())
    parser.epilog, add = "\n".join(["kinds:", *about]), parser.add_argument
    add("words", nargs="*", metavar="data=...", help="settings of train.py")
    add("--page", type=Path, metavar="FILE", help="the page (check.html)")
    add("--skip", type=Path, metavar="FILE", help="write a list for data.skip=FILE (or give kinds)")
    add("--kinds", metavar="KIND,...", default=DEFAULT, help=f"what that list names ({DEFAULT})")
    add("--fast", action="store_true", help="leave out what needs the backbone")
    add("--model", type=Path, metavar="RUN", help="add what the model of a run doubts")
    given = parser.parse_intermixed_args(words)
    if {*str(given.skip).split(",")} <= {*KINDS}:  # kinds alone, for a file of the usual name
        given.kinds, given.skip = str(given.skip), Path("skip.txt")
    kinds = {*given.kinds.split(",")}
    check(kinds <= {*KINDS}, "--kinds", given.kinds, f"one or more of {','.join(KINDS)}")
    if given.model:
        files = (given.model / name for name in ("predictions.csv", "results.json"))
        tested = all(file.is_file() for file in files)
        check(tested, "--model", given.model, "the folder of a run that was tested")
        saved = launch.saved_words(given.model / ".hydra" / "hydra.yaml")
        replaced = {"resume", "ckpt_path", *map(launch.key_of, given.words)}
        given.words[:0] = [word for word in saved if launch.key_of(word) not in replaced]
    given.page = given.page or (given.model or Path()) / "check.html"
    given.cfg = compose_run(given.words)
    # thaw's own backbone, made for its demo, is used only where it was chosen
    chosen = "backbone" in map(launch.key_of, given.words)
    named = chosen or not given.cfg.backbone._target_.endswith(".tiny_backbone")
    given.by_features = named and not given.fast
    sought = {"label": given.by_features, "outlier": given.by_features, "model": given.model}
    allowed = "what is looked for: label, outlier need backbone= and no --fast; model needs --model"
    check(not given.skip or all(sought.get(kind, True) for kind in kinds), "--kinds",
          given.kinds, allowed)  # fmt: skip
    return given


def look(given: argparse.Namespace) -> tuple[Listing, list[Finding], list[str]]:
    """The photos, what was found in them, and sentences about all of them."""
    ((photos, beside),) = in_cores(list_photos, [given.words], "listing")
    paths, splits = photos.paths, photos.splits
    seen = see_all([*paths, *beside], Path(given.cfg.paths.cache_dir).expanduser() / "check")
    findings = [Finding((kind,), (n,), why) for n in range(len(paths))
                for kind, why in seen[n].notes.items()]  # fmt: skip
    notes, near = class_notes(photos), []
    if given.by_features:
        found, near = look_alike(photos, seen, given.cfg)
        findings += found
    else:
        notes.append("Not looked for: labels in doubt, photos off topic and crops need a backbone, "
                     "as backbone=resnet18, and no --fast.")  # fmt: skip
    findings += find_copies(photos, seen, near)
    if beside:
        odd = [f"{path.name} {' and '.join(each.notes.values())}".strip()
               for path, each in zip(beside, seen[len(paths) :], strict=True)]  # fmt: skip
        notes.append(f"{len(beside)} pictures beside the photos are in no split: "
                     f"{shorten(', '.join(odd), 300)}")  # fmt: skip
    pairs = [(" and ".join(splits[n] for n in each.photos), each.kinds)
             for each in findings if len(each.photos) == 2]  # fmt: skip
    copies = Counter((pair, kind) for pair, kinds in pairs for kind in kinds)
    for pair in sorted({pair for pair, _ in pairs}):
        exact, alike, two = (copies[pair, kind] for kind in ("exact", "near", "conflict"))
        notes.append(f"Copies in {pair}: {exact} exact, {alike} near, {two} with two labels.")
    if given.model:
        doubted, accuracies = of_model(given.model, photos, findings)
        findings, notes = findings + doubted, notes + accuracies
    return photos, findings, notes


def list_photos(words: Sequence[str]) -> tuple[Listing, list[Path]]:
    """The photos of the source that the words choose, and pictures beside them in no split."""
    cfg = compose_run(words)
    config.check_keys(cfg)
    data = config.build(cfg.data, "data")
    rows = [(path, label, name) for name, part in data.splits.items()[::-1]
            for path, label in part.pairs()]  # fmt: skip
    paths, labels, splits = zip(*rows, strict=True)
    known, folders = {*paths}, sorted({path.parent for path in paths})
    beside = [path for folder in folders for path in visible(folder)
              if path not in known and path.suffix.lower() in SUFFIXES]  # fmt: skip
    return Listing(paths, labels, splits, data.classes), beside


def class_notes(photos: Listing) -> list[str]:
    counts = photos.counts()
    (least, few), *_, (most, many) = ((name, sum(row.values())) for name, row in counts.items())
    odd = {"one photo": [name for name, row in counts.items() if sum(row.values()) == 1]}
    for split in dict.fromkeys(photos.splits):
        odd[f"none in {split}"] = [name for name, row in counts.items() if not row[split]]
    return [f"{len(counts)} classes of {few:,} ({least}) to {many:,} ({most}) photos."] + [
        f"{len(names)} classes have {what}: {shorten(', '.join(names), 300)}"
        for what, names in odd.items() if names
    ]  # fmt: skip


def of_model(run: Path, photos: Listing, found: list[Finding]) -> tuple[list[Finding], list[str]]:
    """Labels that the model of a run doubts; its test accuracy, also without copies and doubts."""
    tested = Predictions.read(run / "predictions.csv")
    place = {str(path.absolute()): n for n, path in enumerate(photos.paths)}
    own, doubted = [place.get(path, -1) for path in tested.paths], list[Finding]()
    if max(own) < 0:
        return [], ["No test photo of the run is among these, so its model tells nothing of them."]
    for n in (n for n in tested.doubted().tolist() if own[n] >= 0):
        label, said = (tested.classes[int(each[n])] for each in (tested.labels, tested.predicted))
        why = f"{label}? The model says {said} with {tested.probability[n]:.1%}"
        doubted.append(Finding(("model",), (own[n],), why))
    copies = [each.photos[0] for each in found if "across" in each.kinds]
    copies += [each.photos[1] for each in found if len(each.photos) == 2]
    doubtful = [each.photos[0] for each in found if each.kinds == ("label",)]
    left = {"": [], " without copies": copies, " without labels in doubt": doubtful,
            " without both": copies + doubtful}  # fmt: skip
    told = []
    for what, out in left.items():
        right = np.array(tested.right)[~np.isin(own, out)]
        told.append(f"Test accuracy{what}: {right.mean():.4f} of {len(right):,} photos.")
    return doubted, told


def left_out(asked: Collection[str], findings: Sequence[Finding]) -> dict[int, str]:
    """The photos to leave out for findings of some kinds, and why.

    Of copies one always stays. Only where "conflict" is asked for, both of one picture with two
    labels go, since nobody knows which label is right.
    """
    out: dict[int, str] = {}
    wanted = [(len(each.photos) == 2 and "conflict" not in {*asked} & {*each.kinds}, each)
              for each in findings if {*asked}.intersection(each.kinds)]  # fmt: skip
    # in this order a copy that stays is not left out by a later one
    for one_stays, each in sorted(wanted, key=lambda pair: (pair[0], pair[1].photos)):
        if not one_stays or each.photos[0] not in out:
            gone = each.photos[1:] if one_stays else each.photos
            out |= dict.fromkeys(gone, f"{', '.join(each.kinds)}: {each.why}")
    return out


def write_findings(file: Path, photos: Listing, findings: list[Finding], notes: list[str]) -> None:
    """Writes the page of the photos by kind of finding, which needs nothing else."""
    from thaw.report import page

    shown = {kind: found for kind in KINDS
             if (found := [each for each in findings if each.kinds[0] == kind])}  # fmt: skip
    page.write_template(
        Path(__file__).with_name("check.html"), file,
        style=page.TEMPLATE.read_text("utf-8").split("style>")[1].removesuffix("</"),
        photos=photos, kinds=KINDS, shown=shown, most=MOST, notes=notes, small=cache(page.small),
    )  # fmt: skip
