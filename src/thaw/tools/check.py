"""`thaw check`: what is wrong with the photos, before training on them.

    thaw check data=folder data.root=my/photos
    thaw check data=pets backbone=resnet18 --skip skip.txt --kinds exact,across,broken
    thaw check --model logs/train/runs/2026-01-31_12-00-00

It decodes every photo and finds broken, odd and doubled ones; with the features of the backbone
also labels in doubt and photos unlike all others. No photo is touched. A check that was stopped
goes on where it was.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from thaw import config, launch
from thaw.data.photos import SUFFIXES, visible
from thaw.errors import ConfigError
from thaw.text_table import text_table
from thaw.tools import check_findings
from thaw.tools.check_files import see_all
from thaw.tools.check_findings import KINDS, Finding, Listing, some
from thaw.tools.check_page import write_page


def main(words: Sequence[str]) -> int:
    """Prints how many photos of each kind there are; writes the page and the skip list."""
    given = read(words)
    photos, findings, notes = look(given)
    rows = [["kind", "photos", "what"]]
    for kind, about in KINDS.items():
        found = {n for each in findings if kind in each.kinds for n in each.photos}
        rows.append([kind, f"{len(found):,}", about.partition(". ")[0]])
    print(f"\n{text_table(rows, right=(1,))}")
    print(f"\n{text_table(check_findings.by_splits(photos, findings), right=(1, 2, 3))}\n")
    print("\n".join(notes))
    print(f"page      {write_page(given.page, photos, findings, notes)}")
    if given.skip:
        left_out = skip_lines(given.kinds.split(","), photos, findings)
        text = "".join(f"# {why}\n{path}\n" for path, why in left_out.items())
        given.skip.write_text(text, "utf-8", "surrogateescape")
        print(f"skip      {len(left_out)} photos: data.skip={given.skip}")
    return 0


def read(words: Sequence[str]) -> argparse.Namespace:
    """The command line; with --model its words begin with those of the run."""
    parser = argparse.ArgumentParser(
        "thaw check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {kind:<9} {about}" for kind, about in KINDS.items()),
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="data=...", help="settings of train.py")
    parser.add_argument("--page", type=Path, metavar="FILE", default=Path("check.html"),
                        help="where the page goes (check.html)")  # fmt: skip
    parser.add_argument("--skip", type=Path, metavar="FILE", help="write a list for data.skip=FILE")
    parser.add_argument("--kinds", metavar="KIND,...", default="broken,exact,across",
                        help="what that list names (broken,exact,across)")  # fmt: skip
    parser.add_argument("--fast", action="store_true", help="leave out what needs the backbone")
    parser.add_argument("--model", type=Path, metavar="RUN", help="add what a run's model doubts")
    given = parser.parse_intermixed_args(words)
    if unknown := set(given.kinds.split(",")) - set(KINDS):
        raise ConfigError(f"--kinds {','.join(unknown)}: allowed are {', '.join(KINDS)}")
    if not given.fast and importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            "thaw check: needs scikit-learn, an extra: pip install '.[probe]'; or give --fast"
        )
    if given.model:
        saved, chosen = given.model / ".hydra" / "hydra.yaml", {*map(launch.key_of, given.words)}
        if not (saved.is_file() and (given.model / "predictions.csv").is_file()):
            raise ConfigError(f"--model {given.model}: give the folder of a run that was tested")
        chosen |= {"resume", "ckpt_path"}
        own = [word for word in launch.saved_words(saved) if launch.key_of(word) not in chosen]
        if "data" in chosen:  # nothing of the run's own photos holds for others
            own = [word for word in own if not launch.key_of(word).startswith("data.")]
        given.words = [*own, *given.words]
    return given


def look(given: argparse.Namespace) -> tuple[Listing, list[Finding], list[str]]:
    """The photos, what was found in them, and sentences about all of them."""
    cfg = launch.compose_run(given.words)
    config.check_keys(cfg)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # it imports torch, this need not
        photos, others = pool.submit(listed, given.words).result()
    cache = Path(cfg.paths.cache_dir).expanduser() / "check"
    seen = see_all([*photos.paths, *others], cache)
    findings = [Finding((kind,), (n,), why) for n, _ in enumerate(photos.paths)
                for kind, why in seen[n].notes.items()]  # fmt: skip
    nearest = None
    if not given.fast:
        found, nearest = check_findings.of_features(photos, seen, cfg, cache)
        findings += found
    findings += check_findings.of_copies(photos, seen, nearest)
    notes = check_findings.class_notes(photos)
    if others:
        notes_of = [" and ".join(each.notes.values()) for each in seen[len(photos.paths) :]]
        names = [f"{path.name} {odd}" for path, odd in zip(others, notes_of, strict=True) if odd]
        notes.append(f"{len(others)} pictures beside them are in no split{some(names)}")
    if given.model:
        found, accuracies = check_findings.of_model(given.model, photos, findings)
        findings, notes = findings + found, notes + accuracies
    return photos, findings, notes


def listed(words: Sequence[str]) -> tuple[Listing, list[Path]]:
    """The photos of the source that the words choose, and pictures beside them in no split."""
    data = config.build(launch.compose_run(words).data, "data")
    splits = {name: part for name in ("train", "val", "test") if (part := getattr(data, name))}
    photos = Listing(
        [path for part in splits.values() for path in part.paths],
        [label for part in splits.values() for label in part.labels],
        [name for name, part in splits.items() for _ in part.paths], data.classes,
    )  # fmt: skip
    known, folders = {*photos.paths}, sorted({path.parent for path in photos.paths})
    beside = (path for folder in folders for path in visible(folder) if path not in known)
    return photos, [path for path in beside if path.suffix.lower() in SUFFIXES]


def skip_lines(
    kinds: Sequence[str], photos: Listing, findings: Sequence[Finding]
) -> dict[Path, str]:
    """The photos to leave out for findings of some kinds, and why."""
    return {
        photos.paths[n].absolute(): f"{', '.join(each.kinds)}: {each.why}"
        for each in findings if {*kinds}.intersection(each.kinds) for n in each.left_out()
    }  # fmt: skip
