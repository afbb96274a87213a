"""What the value of a setting may be, by its annotation and by its name."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from thaw.errors import check, shown

Rule = tuple[Callable[[Any], bool], str]  # whether a value fits, and what is allowed


def within(kinds: tuple[type, ...], least: float, most: float, allowed: str, *others: Any) -> Rule:
    """A finite number of some types in a range, or one of some other values."""
    words = ", or ".join([allowed, *map(shown, others)])
    return lambda v: v in others or (type(v) in kinds and least <= v <= most), words


def count(least: int, *others: Any) -> Rule:
    """A whole number from the least on, or one of some other values."""
    return within(INT, least, 2**32 - 1, f"a whole number, {least} or more", *others)


def batches(*others: Any) -> Rule:
    """Batches of an epoch, or one of some values that mean all or none."""
    words = ["a whole number of batches", "a share above 0, up to 1.0", *map(shown, others)]
    return lambda v: v in others or (type(v) is int and v > 0) or (
        type(v) is float and 0 < v <= 1), ", or ".join(words)  # fmt: skip


INT, REAL, CORES, HUGE = (int,), (int, float), os.cpu_count() or 1, 1e30
BELOW_1 = 1 - 2**-53
TRUTH: Rule = (lambda v: isinstance(v, bool), "true or false")
FILE: Rule = (lambda v: v is None or (type(v) is str and v > ""), "a path, or null")
RATE: Rule = (lambda v: type(v) not in REAL or 0 < v <= 10, "a rate above 0, up to 10, like 1e-3")
SHARE, DEGREES = within(REAL, 0, 1, "a number, 0 to 1"), "a number of degrees, 0 to"
SEED = within(INT, 0, 2**32 - 1, "a whole number from 0 to 4294967295")
RANGES: dict[str, Rule] = {  # * is any part of a name
    "train": TRUTH, "test": TRUTH, "compile": TRUTH, "ckpt_path": FILE, "resume": FILE,
    "task_name": (lambda v: type(v) in (str, int) and not {"", ".", ".."} & {*str(v).split("/")},
                  "the name of a folder in logs/, without .. in it"),
    "tags": (lambda v: isinstance(v, list), "a list of words, like [a,b]"),
    # paths.output_dir is null in the tools
    "paths.[!o]*": (lambda v: type(v) is str and v > "", "the path of a folder"),
    "seed": SEED, "data.seed": SEED,
    "label_smoothing": within(REAL, 0, 0.99, "a share, 0 to 0.99"),
    "backbone.image_size": within(INT, 8, 4096, "8 to 4096 pixels", None),
    "head.dropout": within(REAL, 0, BELOW_1, "a number, 0 to below 1"),
    "head.hidden.*": within(INT, 1, 1 << 16, "a list of whole numbers, 1 to 65536"),
    "data.classes": (lambda v: isinstance(v, list | None), "a list of two or more names, or null"),
    "data.batch_size": count(1, "auto"), "data.train_per_class": count(1, None),
    "data.num_workers": within(INT, 0, max(64, 4 * CORES), f"0 to {max(64, 4 * CORES)}", None),
    "data.folds": count(2, None), "data.fold": count(0),
    "data.*_fraction": within(REAL, 0, BELOW_1, "a number, 0 to below 1", None),
    "data.train_pictures": within(INT, 1, 30, "1 to 30"),
    "data.val_pictures": within(INT, 0, 10, "0 to 10"),
    "data.test_pictures": within(INT, 0, 25, "0 to 25"),
    "augment.horizontal_flip": SHARE, "augment.color_jitter": SHARE, "augment.erasing": SHARE,
    "augment.rotation": within(REAL, 0, 180, f"{DEGREES} 180"),
    "augment.shear": within(REAL, 0, 60, f"{DEGREES} 60"),
    "mix.*_alpha": within(REAL, 1e-9, HUGE, "a number above 0, like 0.2", None),
    "finetune.*.lr": RATE, "finetune.rates.*": RATE,
    "optim.weight_decay": within(REAL, 0, HUGE, "0 or more"), "optim.momentum": SHARE,
    "optim.betas.*": within(REAL, 0, BELOW_1, "two numbers, 0 to below 1"),
    "trainer.accelerator": (lambda v: v in ("auto", "cpu", "gpu", "cuda", "mps"),
                            "auto, cpu, gpu, cuda or mps"),
    "trainer.devices": (lambda v: type(v) is not int or v <= max(8, CORES),
                        f"auto, or 1 to {max(8, CORES)}"),
    "trainer.num_nodes": count(1), "trainer.accumulate_grad_batches": count(1),
    "trainer.check_val_every_n_epoch": count(1), "trainer.log_every_n_steps": count(0),
    "trainer.gradient_clip_val": within(REAL, 0, HUGE, "0 or more", None),
    "trainer.limit_train_batches": batches(None), "trainer.limit_val_batches": batches(None, 0),
    "trainer.limit_test_batches": batches(None, 0), "trainer.overfit_batches": batches(0),
    "trainer.num_sanity_val_steps": count(-1), "callbacks.*.save_top_k": count(-1),
    "callbacks.checkpoint.filename": (
        lambda v: not re.search("[/{}]", re.sub("{[^{}]*}", "", str(v))),
        "a name without / outside of {METRIC}, in which each { is closed"),
    "callbacks.*.patience": count(0), "callbacks.*.images": count(1),
    "callbacks.*.every_seconds": within(REAL, 0, HUGE, "0 or more seconds"),
    "callbacks.*.decay": within(REAL, 1e-9, BELOW_1, "a number above 0, below 1"),
}  # fmt: skip


def check_ranges(settings: Mapping[str, Any]) -> None:
    """Refuses values out of their ranges, and batches of one photo where BatchNorm counts."""
    found = dict(leaves(settings))
    for key, value in found.items():
        for name in filter(lambda name: fnmatchcase(key, name), RANGES):
            fits, allowed = RANGES[name]
            check(fits(value), key, value, allowed)
        check(type(value) is not float or abs(value) <= HUGE, key, value, "a finite number")
    for key, value in (("head.norm", "batch"), ("finetune.batchnorm", "train")):
        alone = found.get("data.batch_size") == 1 and found.get(key) == value
        check(not alone, "data.batch_size", 1, f"2 or more, since {key}={value}")


def leaves(settings: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting and every group of settings, by its dotted name."""
    for name, value in enumerate(settings) if isinstance(settings, list) else settings.items():
        yield f"{above}{name}", value
        if isinstance(value, Mapping | list):
            yield from leaves(value, f"{above}{name}.")


PLAIN: dict[Any, Rule] = {  # what a file has for a type
    bool: TRUTH, int: (lambda v: type(v) is int, "a whole number"),
    float: (lambda v: type(v) in REAL, "a number"), str: (lambda v: type(v) is str, "text"),
    Path: (lambda v: type(v) is str and v > "", "a path"), NoneType: (lambda v: v is None, "null"),
    dict: (lambda v: isinstance(v, Mapping), "a mapping"),
}  # fmt: skip
PLAIN[Mapping] = PLAIN[dict]


def rules(kind: Any) -> list[Rule]:
    """What an annotation allows, one rule for each type in it; none for types that no file has."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return [rule for part in parts for rule in rules(part)]
    if origin is Literal:
        return [(lambda v: any(v == part and type(v) is type(part) for part in parts),
                 ", ".join(map(str, parts)))]  # fmt: skip
    if origin not in (list, tuple, Sequence):
        return [PLAIN[origin]] if origin in PLAIN else []
    length = len(parts) if origin is tuple and parts and ... not in parts else None
    each = rules(parts[0]) if parts else []
    return [(lambda v: isinstance(v, list | tuple) and length in (None, len(v)) and all(
        not each or any(fits(one) for fits, _ in each) for one in v),
        f"a list of {length}" if length else "a list")]  # fmt: skip


def check_kind(kind: Any, key: str, value: Any) -> None:
    """Refuses a value that is not of an annotated type; a node with a target becomes an object."""
    allowed = rules(kind)
    if allowed and not (isinstance(value, Mapping) and "_target_" in value):
        fits = any(fits(value) for fits, _ in allowed)
        check(fits, key, value, ", or ".join(dict.fromkeys(words for _, words in allowed)))
