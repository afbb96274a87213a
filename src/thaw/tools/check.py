"""`thaw check`: what is wrong with the photos, before training on them.

    thaw check data=folder data.root=my/photos
    thaw check data=pets backbone=resnet18 --skip skip.txt --kinds exact,across,broken
    thaw check --model logs/train/runs/2026-01-31_12-00-00

It decodes every photo and finds broken, odd and doubled ones; with the features of the backbone
also labels in doubt and photos unlike all others. No photo is touched: --skip writes a list of some
kinds for data.skip=FILE. What was seen is kept, so a check that was stopped goes on.
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
from thaw.tools.check_findings import KINDS, Finding, Listing
from thaw.tools.check_page import write_page


def main(words: Sequence[str]) -> int:
    """Prints what was found and how often; writes the page and the skip list."""
    given = read(words)
    photos, findings, notes = look(given)
    report(photos, findings, notes)
    print(f"page      {write_page(given.page, photos, findings, notes)}")
    if given.skip:
        print(f"skip      data.skip={given.skip}: {write_skip(given, photos, findings)} photos")
    return 0


def look(given: argparse.Namespace) -> tuple[Listing, list[Finding], list[str]]:
    """The photos, what was found in them, and sentences about all of them."""
    cfg = launch.compose_run(given.words)
    config.check_keys(cfg)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # it imports torch, this need not
        photos, others = pool.submit(listed, given.words).result()
    cache = Path(cfg.paths.cache_dir).expanduser() / "check"
    seen = see_all([*photos.paths, *others], cache)
    findings, nearest = check_findings.of_files(seen[: len(photos.paths)]), None
    if not given.fast:
        found, nearest = check_findings.of_features(photos, seen, cfg, cache)
        findings += found
    findings += check_findings.of_copies(photos, seen, nearest)
    notes = check_findings.class_notes(photos)
    if others:
        odd = [f"{path.name} ({'; '.join(each.notes.values())})" for path, each in
               zip(others, seen[len(photos.paths) :], strict=True) if each.notes]  # fmt: skip
        notes.append(f"{len(others)} pictures beside them are in no split{check_findings.some(odd)}.")
    if given.model:
        found, accuracies = check_findings.of_model(given.model, photos, findings)
        findings, notes = findings + found, notes + accuracies
    return photos, findings, notes


def read(words: Sequence[str]) -> argparse.Namespace:
    """The command line; with --model its words begin with those of the run."""
    parser = argparse.ArgumentParser(
        "thaw check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds:\n" + "\n".join(f"  {kind:<9} {about}" for kind, about in KINDS.items()),
    )  # fmt: skip
    parser.add_argument("words", nargs="*", metavar="data=...", help="settings of train.py")
    parser.add_argument("--page", type=Path, metavar="FILE", default=Path("check.html"),
                        help="where to write the page (check.html)")  # fmt: skip
    parser.add_argument("--skip", type=Path, metavar="FILE", help="write the list to leave out")
    parser.add_argument("--kinds", metavar="KIND,...", help="what it names (broken,exact,across)")
    parser.add_argument("--fast", action="store_true", help="without the backbone")
    parser.add_argument("--model", type=Path, metavar="RUN", help="add the doubts of a run's model")
    given = parser.parse_intermixed_args(words)
    if given.kinds and not given.skip:
        raise ConfigError("--kinds: says what --skip FILE names; give that too")
    given.kinds = (given.kinds or "broken,exact,across").split(",")
    if unknown := set(given.kinds) - set(KINDS):
        raise ConfigError(f"--kinds {','.join(unknown)}: allowed are {', '.join(KINDS)}")
    if not given.fast and importlib.util.find_spec("sklearn") is None:
        raise ConfigError(
            "thaw check: needs scikit-learn, an extra: pip install '.[probe]'; or give --fast"
        )
    if given.model:
        saved, chosen = given.model / ".hydra" / "hydra.yaml", {*map(launch.key_of, given.words)}
        if not (saved.is_file() and (given.model / "predictions.csv").is_file()):
            raise ConfigError(f"--model {given.model}: give the folder of a run that was tested")
        own = {word: launch.key_of(word) for word in launch.saved_words(saved)}
        given.words = [word for word, key in own.items()
                       if key not in {*chosen, "resume", "ckpt_path"}
                       and not ("data" in chosen and key.startswith("data."))] + given.words  # fmt: skip
    return given


def listed(words: Sequence[str]) -> tuple[Listing, list[Path]]:
    """The photos of the source that the words choose, and pictures beside them in no split."""
    cfg = launch.compose_run(words)
    data = config.build(cfg.data, "data")
    photos, splits = data.train, ["train"] * len(data.train)
    for name in ("val", "test"):
        if more := getattr(data, name):
            photos, splits = photos + more, splits + [name] * len(more)
    root = str(data.root.absolute()) if hasattr(data, "root") else ""
    known, folders = {*photos.paths}, {path.parent for path in photos.paths}
    others = [path for folder in sorted(folders) for path in visible(folder)
              if path.suffix.lower() in SUFFIXES and path not in known]  # fmt: skip
    return Listing(list(photos.paths), list(photos.labels), splits, data.classes, root), others


def report(photos: Listing, findings: Sequence[Finding], notes: Sequence[str]) -> None:
    """Prints how many photos each kind has, the copies by split, and the notes."""
    rows = [[kind, str(len({n for each in findings if kind in each.kinds for n in each.photos})),
             about.partition(";")[0]] for kind, about in KINDS.items()]  # fmt: skip
    print(f"\n{text_table([['kind', 'photos', 'what'], *(row for row in rows if row[1] != '0')], right=(1,))}\n")
    if pairs := check_findings.by_splits(photos, findings):
        print(f"{text_table(pairs, right=(1, 2, 3))}\n")
    print("\n".join([*notes, ""]))


def write_skip(given: argparse.Namespace, photos: Listing, findings: Sequence[Finding]) -> int:
    """Writes the list for data.skip of the kinds that were asked for; returns its length."""
    lines: dict[str, str] = {}
    for kind in given.kinds:
        for each in (each for each in findings if kind in each.kinds):
            for n in each.left_out(kind):
                path = photos.paths[n].absolute()
                inside = bool(photos.root) and path.is_relative_to(photos.root)
                name = str(path.relative_to(photos.root) if inside else path)
                lines.setdefault(name, f"# {kind}: {each.why}")
    text = "".join(f"{why}\n{name}\n" for name, why in lines.items())
    given.skip.write_text(f"# thaw check, {','.join(given.kinds)}\n{text}", "utf-8", "surrogateescape")
    return len(lines)
