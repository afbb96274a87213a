"""The job that every system of bench.py does, so that no peer differs in what is not its own:
which photos, views, epochs and weights, what is timed, and the one line of JSON at the end.

    python benchmarks/peer_plain.py --data ../shared/data     any peer runs by itself too
    python benchmarks/peer_plain.py --tuned --body-rate 3e-4  as a careful user would have it

The views are those of torchvision's ImageNet recipes at 128 pixels, with thaw's crop scale. The
network is timm's for all peers; `mobilenetv2_100` is torchvision's MobileNetV2 under other names:
its tensors stand in the same order with the same shapes, and its output is equal to the bit.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from scipy.io import loadmat, savemat
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import InterpolationMode

CLASSES = 102
BATCH = 64
SIZE = 128  # pixels of the crop that the network sees
RESIZE = 146  # pixels of the short side before the centre crop: 128 * 256 / 224
CROP_SCALE = (0.35, 1.0)  # share of the picture's area
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of MobileNetV2's weights
SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}  # in the official setid.mat
QUICK_PHOTOS = 64  # to train on: one batch, which fastai needs
QUICK_EACH = {"train": 8, "val": 2, "test": 4}  # photos of each class; eight classes
SMOOTHING = 0.3  # thaw's label smoothing, which the tuned peers have too
RATES = {  # what each tool's own page uses: of the head, of the body
    "plain": (1e-3, 1e-4),
    "lightning": (1e-3, 1e-4),  # the callback's tenth
    "timm": (2e-3, 1e-3),  # those that thaw began with, as timm names none
    "fastai": (2e-3, 2e-5),  # base_lr, and base_lr / lr_mult
}


@dataclass(frozen=True)
class Backbone:
    """A network and what its weights expect.

    name:  timm's
    file:  in weights/
    """

    name: str
    file: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: InterpolationMode


_HALF = (0.5, 0.5, 0.5)
BACKBONES = {
    "lite0": Backbone("tf_efficientnet_lite0", "tf_efficientnet_lite0.safetensors", _HALF, _HALF,
                      InterpolationMode.BICUBIC),
    "mobilenet_v2": Backbone("mobilenetv2_100", "mobilenet_v2.pth", MEAN, STD,
                             InterpolationMode.BILINEAR),
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """What bench.py asks of a peer.

    data:       folder that holds flowers-102/ and weights/
    frozen:     epochs with a frozen body
    unfrozen:   epochs with everything, after those; 0: none
    workers:    processes that decode
    backbone:   one of `BACKBONES`
    device:     cpu or cuda
    head_rate, body_rate:  see `RATES`
    tuned:      with label smoothing, a cosine and the body's BatchNorm in eval mode
    test:       whether the test photos are looked at
    """

    data: Path
    frozen: int = 0
    unfrozen: int = 0
    seed: int = 0
    workers: int = 1
    backbone: str = "mobilenet_v2"  # floors.py's
    device: str = "cpu"
    head_rate: float = 0.0
    body_rate: float = 0.0
    tuned: bool = False
    test: bool = True

    @property
    def weights(self) -> Path:
        """Of the backbone."""
        return self.data / "weights" / BACKBONES[self.backbone].file

    @property
    def smoothing(self) -> float:
        """Share 0-1 of the target that is spread over all classes."""
        return SMOOTHING if self.tuned else 0.0

    def network(self, **settings: float) -> nn.Module:
        """timm's network, ImageNet weights and classifier; `settings` are create_model's."""
        import timm  # not above: watch.py is imported by thaw's runs too

        model = timm.create_model(BACKBONES[self.backbone].name, **settings)
        if self.weights.suffix == ".pth":  # torchvision's names, in the same order
            values = torch.load(self.weights, weights_only=True).values()
            model.load_state_dict(dict(zip(model.state_dict(), values, strict=True)))
        else:
            timm.models.load_checkpoint(model, str(self.weights))
        return model

    def view(self, split: str) -> transforms.Compose:
        """Photo -> (3, SIZE, SIZE): a random crop of train, the centre of val and test."""
        backbone = BACKBONES[self.backbone]
        how = backbone.interpolation
        crop: list = [transforms.Resize(RESIZE, how), transforms.CenterCrop(SIZE)]
        if split == "train":
            crop = [transforms.RandomResizedCrop(SIZE, CROP_SCALE, interpolation=how),
                    transforms.RandomHorizontalFlip()]  # fmt: skip
        normalise = transforms.Normalize(backbone.mean, backbone.std)
        return transforms.Compose([*crop, transforms.ToTensor(), normalise])

    def photos(self, split: str) -> tuple[list[Path], list[int]]:
        """Paths and labels (0-101) of train, val or test of the official split."""
        folder = self.data / "flowers-102"
        labels = loadmat(folder / "imagelabels.mat", squeeze_me=True)["labels"]  # 1 to 102
        numbers = sorted(loadmat(folder / "setid.mat", squeeze_me=True)[SPLITS[split]].tolist())
        paths = [folder / "jpg" / f"image_{number:05d}.jpg" for number in numbers]
        return paths, [int(labels[number - 1]) - 1 for number in numbers]

    def loader(self, split: str) -> DataLoader:
        """As recipes write it, over what torchvision.datasets.Flowers102 gives."""
        photos = Flowers(*self.photos(split), self.view(split))
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


def keep_statistics(body: nn.Module) -> None:
    """After train(): BatchNorm goes on with the statistics that the weights came with."""
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


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


def asked(peer: str) -> Job:
    """The job of the command line of a peer, with its own rates where none are given."""
    parser = arguments()
    parser.add_argument("--frozen", type=int, default=5, help="epochs")
    parser.add_argument("--unfrozen", type=int, default=5, help="epochs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backbone", choices=BACKBONES, default="lite0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--head-rate", type=float, default=RATES[peer][0], help="learning rate")
    parser.add_argument("--body-rate", type=float, default=RATES[peer][1], help="learning rate")
    parser.add_argument("--tuned", action="store_true", help="as a careful user would have it")
    parser.add_argument("--no-test", action="store_false", dest="test", help="validation only")
    return Job(**vars(parser.parse_args()))


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
