"""What a run of bench.py is asked for, where it runs, and the photos of a quick one."""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench_runs import HERE, PEERS, Bench
from job import SPLITS
from scipy.io import loadmat, savemat

QUICK_PHOTOS = 64  # to train on: one batch, which fastai needs
QUICK_EACH = {"train": 8, "val": 2, "test": 4}  # photos of each class; eight classes


def names_in(allowed: list[str]) -> Callable[[str], list[str]]:
    """For argparse: a,b -> ["a", "b"], in the order of `allowed`."""

    def read(text: str) -> list[str]:
        if wrong := set(text.split(",")) - set(allowed):
            raise argparse.ArgumentTypeError(
                f"{', '.join(wrong)}: allowed are {', '.join(allowed)}"
            )
        return [name for name in allowed if name in text.split(",")]

    return read


def options(about: str, parts: list[str]) -> argparse.Namespace:
    """Of the command line.

    Args:
        about: for --help.
        parts: that there are.
    """
    parser = argparse.ArgumentParser(description=about)
    data = os.environ.get("THAW_DATA", "../shared/data")
    cpus = usable_cpus()
    holds = "holds flowers-102/ and weights/mobilenet_v2.pth; default: THAW_DATA"
    parser.add_argument("--data", type=Path, default=data, help=holds)
    parser.add_argument("--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[0])
    parser.add_argument("--part", type=names_in(parts), dest="parts")
    order = [*PEERS, "thaw"]
    parser.add_argument("--only", type=names_in(order), default=order, help="systems")
    parser.add_argument("--repeats", type=int, default=3, help="of what is short")
    parser.add_argument("--threads", type=int, default=cpus, help="of tensor operations")
    parser.add_argument("--workers", type=int, default=max(1, cpus // 2), help="decoding processes")
    parser.add_argument("--quick", action="store_true", help="64 photos, 1 + 1 epochs")
    more = "keep what logs/bench/bench.json has, run what it lacks: parts, systems, seeds"
    parser.add_argument("--resume", action="store_true", help=more)
    parser.add_argument("--thaw", default="", help="further settings of thaw, apart by spaces")
    given = parser.parse_args()
    given.parts = given.parts or [name for name in parts if name != "overhead" or not given.quick]
    for needed in ("flowers-102/setid.mat", "weights/mobilenet_v2.pth"):
        if not (given.data / needed).exists():
            parser.error(f"{given.data / needed} is missing; name the folder that holds it: "
                         "THAW_DATA=<folder> make bench")  # fmt: skip
    given.data = given.data.resolve()
    return given


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def environment(bench: Bench) -> dict[str, Any]:
    """Everything that can change a figure."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = next((x.split(": ")[1] for x in lines if x.startswith("model name")), platform.machine())
    packages = ("torch", "torchvision", "lightning", "fastai", "timm")
    versions = [f"{name} {version(name)}" for name in packages]
    git = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=12"],
                         capture_output=True, text=True, check=False).stdout.strip()  # fmt: skip
    return {
        "command": f"python {' '.join(sys.argv)}",
        "thaw": f"commit {git or 'unknown'}",
        "versions": f"python {platform.python_version()}, " + ", ".join(versions),
        "machine": f"{cpu}, {os.cpu_count()} CPUs",
        "threads": f"{bench.threads} for tensors, {bench.workers} decoding process(es)",
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }


def version(package: str) -> str:
    """Of an installed one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise SystemExit(
            f"{package} is not installed; use `make bench`, which puts it beside .venv"
        ) from None


def fewer_photos(data: Path, folder: Path) -> Path:
    """A folder like `data` with few photos, of the first eight classes."""
    flowers = folder / "flowers-102"
    flowers.mkdir(parents=True)
    (folder / "weights").symlink_to(data / "weights")
    for name in ("jpg", "imagelabels.mat"):
        (flowers / name).symlink_to(data / "flowers-102" / name)
    ids = loadmat(data / "flowers-102" / "setid.mat", squeeze_me=True)
    labels = loadmat(data / "flowers-102" / "imagelabels.mat", squeeze_me=True)["labels"]
    few = {}
    for split, each in QUICK_EACH.items():
        numbers = ids[SPLITS[split]]
        classes = range(1, QUICK_PHOTOS // QUICK_EACH["train"] + 1)
        few[SPLITS[split]] = [n for k in classes for n in numbers[labels[numbers - 1] == k][:each]]
    savemat(flowers / "setid.mat", few)
    return folder
