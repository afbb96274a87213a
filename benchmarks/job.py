"""The job that every system of bench.py does, so that no peer differs in what is not its own:
which photos, views, epochs and weights, what is timed, and the one line of JSON at the end.

    python benchmarks/peer_plain.py --data ../shared/data     any peer runs by itself too

The views are those of torchvision's ImageNet recipes at 128 pixels, with thaw's crop scale.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from scipy.io import loadmat
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

CLASSES = 102
BATCH = 64
SIZE = 128  # pixels of the crop that the network sees
RESIZE = 146  # pixels of the short side before the centre crop: 128 * 256 / 224
CROP_SCALE = (0.35, 1.0)  # share of the picture's area
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the weights
SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # in the official setid.mat
_TO_TENSOR = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
_CROP = transforms.RandomResizedCrop(SIZE, scale=CROP_SCALE)
TRAIN_VIEW = transforms.Compose([_CROP, transforms.RandomHorizontalFlip(), *_TO_TENSOR])
EVAL_VIEW = transforms.Compose(
    [transforms.Resize(RESIZE), transforms.CenterCrop(SIZE), *_TO_TENSOR]
)


@dataclass(frozen=True)
class Job:
    """What bench.py asks of a peer.

    data:       folder that holds flowers-102/ and weights/mobilenet_v2.pth
    frozen:     epochs with a frozen body
    unfrozen:   epochs with everything, after those; 0: none
    workers:    processes that decode
    """

    data: Path
    frozen: int = 0
    unfrozen: int = 0
    seed: int = 0
    workers: int = 1

    @property
    def weights(self) -> Path:
        """Of torchvision.models.mobilenet_v2."""
        return self.data / "weights" / "mobilenet_v2.pth"

    def photos(self, split: str) -> tuple[list[Path], list[int]]:
        """Paths and labels (0-101) of train, val or test of the official split."""
        folder = self.data / "flowers-102"
        labels = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"]  # 1 to 102
        numbers = sorted(loadmat(folder / "setid.mat", squeeze_me=True)[SPLITS[split]].tolist())
        paths = [folder / "jpg" / f"image_{number:05d}.jpg" for number in numbers]
        return paths, [int(labels[number - 1]) - 1 for number in numbers]

    def loader(self, split: str) -> DataLoader:
        """As recipes write it, over what torchvision.datasets.Flowers102 gives."""
        photos = Flowers(*self.photos(split), TRAIN_VIEW if split == "train" else EVAL_VIEW)
        return DataLoader(photos, BATCH, shuffle=split == "train", num_workers=self.workers)


class Flowers(Dataset):
    """torchvision's Flowers102 without the checksum of setid.mat, which --quick makes shorter."""

    def __init__(self, paths: list[Path], labels: list[int], view: transforms.Compose) -> None:
        self.paths, self.labels, self.view = paths, labels, view

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.open(self.paths[index]).convert("RGB")
        return self.view(image), self.labels[index]


class Stopwatch:
    """Seconds of the parts of a job, from the start of the process on.

    Attributes:
        seconds: by part; "startup" ends with the first optimiser step, "trained" with the last.
    """

    def __init__(self) -> None:
        # bench.py says when it started this process; imports came first
        self.started = float(os.environ.get("BENCH_STARTED", time.time()))
        self.seconds: dict[str, float] = {}

    def step(self) -> None:
        """After each optimiser step."""
        self.seconds.setdefault("startup", time.time() - self.started)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times "frozen", "unfrozen" or "test"; a phase counts its validations."""
        began = time.time()
        yield
        self.seconds[name] = time.time() - began
        if name != "test":
            self.seconds["trained"] = time.time() - self.started

    def line(self, val: float, test: float | None) -> None:
        """The last line that a peer prints; accuracies are shares 0-1."""
        print(json.dumps({"seconds": self.seconds, "val": val, "test": test}), flush=True)


def arguments() -> argparse.ArgumentParser:
    """What the command line of every script here has."""
    parser = argparse.ArgumentParser()
    default = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="holds flowers-102/, weights/")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    return parser


def asked() -> Job:
    """The job of the command line."""
    parser = arguments()
    parser.add_argument("--frozen", type=int, default=5, help="epochs")
    parser.add_argument("--unfrozen", type=int, default=5, help="epochs")
    parser.add_argument("--seed", type=int, default=0)
    return Job(**vars(parser.parse_args()))
