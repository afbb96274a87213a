"""Photos a second that thaw's loader gives, with and without decoded pictures kept in memory.

    python benchmarks/loading.py --data ../shared/data

Twice: the photos as they are (short side 160 pixels, 128-pixel crops), and some of them enlarged to
the size that cameras' photos of Pets and ImageNet have (long side 500, 224-pixel crops). The epochs
after the first count: in that one the cache is being filled. Beside them two more: the loader that
recipes write (PIL and torchvision), and a floor of any loader that cuts random-resized crops:
torch's antialiased resize alone, of crops that lie in memory, on one core.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from hydra import compose, initialize_config_dir
from job import BATCH, CROP_SCALE, MEAN, STD, Flowers, Job
from PIL import Image
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader
from torchvision import transforms as tv

from thaw import config, launch, transforms
from thaw.backbones.backbone import InputSpec
from thaw.data.base import PhotoDataModule
from thaw.data.decode import decode
from thaw.training.device import keep_freed_memory

CONF = Path(__file__).resolve().parents[1] / "conf"
LONG_SIDE, QUALITY, LARGE = 500, 90, 300  # pixels, of JPEG, photos
EPOCHS = 4
SIZES = {"160 px -> 128 px": 128, "500 px -> 224 px": 224}


def enlarged(job: Job, folder: Path, number: int) -> Path:
    """A folder of training photos with a long side of 500 pixels, class by class."""
    for path, label in list(zip(*job.photos("train"), strict=True))[:number]:
        image = Image.open(path).convert("RGB")
        scale = LONG_SIDE / max(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        target = folder / f"{label:03d}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        image.resize(size, Image.Resampling.BICUBIC).save(target, quality=QUALITY)
    return folder


def loading(settings: list[str]) -> float:
    """Images a second of thaw's training loader, median of its epochs after the first.

    Args:
        settings: as on the command line of train.py.
    """
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", settings)
    spec = config.build(cfg.backbone, "backbone").input_spec
    data: PhotoDataModule = config.build(
        cfg.data,
        "data",
        train_transform=config.build(cfg.augment, "augment", spec=spec),
        eval_transform=transforms.eval_transform(spec),
        shrink=transforms.Shrink(spec),
    )
    loader = data.train_dataloader()
    rates = []
    for epoch in range(EPOCHS):
        loader.sampler.set_epoch(epoch)  # pyright: ignore[reportAttributeAccessIssue]
        images, began = 0, time.perf_counter()
        for _, labels in loader:
            images += len(labels)
        rates.append(images / (time.perf_counter() - began))
    return median(rates[1:])


def recipe(job: Job, photos: list[Path], size: int) -> float:
    """Images a second of PIL and torchvision's transforms in a DataLoader, as `loading`.

    Args:
        photos: to read.
        size: of the crops, pixels.
    """
    crop = tv.RandomResizedCrop(size, scale=CROP_SCALE)
    view = tv.Compose([crop, tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize(MEAN, STD)])
    dataset = Flowers(photos, [0] * len(photos), view)
    loader = DataLoader(dataset, BATCH, True, num_workers=job.workers, persistent_workers=True)
    seconds = []
    for _epoch in range(EPOCHS):
        began = time.perf_counter()
        for _batch in loader:
            pass
        seconds.append(time.perf_counter() - began)
    return len(photos) / median(seconds[1:])


def resize_alone(photos: list[Path], size: int) -> float:
    """Images a second of one core that only resizes crops which it has in memory already.

    Args:
        photos: to cut the crops from, made as small as `data.cache` keeps them.
        size: of the result, pixels.
    """
    shrink = transforms.Shrink(InputSpec(size, round(size * 256 / 224), MEAN, STD))
    crops = []
    for path in photos[:LARGE]:
        picture = shrink(decode(path))
        top, left, height, width = tv.RandomResizedCrop.get_params(
            picture, list(CROP_SCALE), [3 / 4, 4 / 3]
        )
        crop = picture[None, :, top : top + height, left : left + width]
        crops.append(crop.contiguous(memory_format=torch.channels_last))  # as the cache has them
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    began = time.perf_counter()
    for crop in crops:
        interpolate(crop, (size, size), mode="bilinear", antialias=True)
    seconds = time.perf_counter() - began
    torch.set_num_threads(threads)
    return len(crops) / seconds


def main() -> None:
    """Prints one line of JSON: by size and way, the images a second of each repeat."""
    parser = argparse.ArgumentParser()
    default = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=default, help="holds flowers-102/")
    parser.add_argument("--workers", type=int, default=1, help="processes that decode")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--number", type=int, default=LARGE, help="of enlarged photos")
    given = parser.parse_args()
    keep_freed_memory()  # as train.py does
    job = Job(given.data.resolve(), frozen=0, unfrozen=0, seed=0, workers=given.workers)
    launch.register_backbones()
    kinds = {
        "none": ["data.cache=none"],
        "ram": ["data.cache=ram"],
    }
    ways = (*kinds, "recipe", "resize")
    rates: dict[str, dict[str, list[float]]] = {name: {way: [] for way in ways} for name in SIZES}
    with tempfile.TemporaryDirectory() as temporary:
        large = enlarged(job, Path(temporary) / "large", given.number)
        sources = (
            ["data=flowers102", f"paths.data_dir='{job.data}'"],
            ["data=folder", f"data.root='{large}'", "data.val_fraction=0"],
        )
        files = job.photos("train")[0], sorted(large.rglob("*.jpg"))
        for _ in range(given.repeats):
            for (name, size), source, paths in zip(SIZES.items(), sources, files, strict=True):
                rates[name]["recipe"].append(recipe(job, paths, size))
                rates[name]["resize"].append(resize_alone(paths, size))
                for kind, words in kinds.items():
                    rate = loading(
                        [
                            *source, *words, "backbone=mobilenet_v2", "backbone.weights=null",
                            f"backbone.image_size={size}", f"data.num_workers={job.workers}",
                            f"paths.cache_dir='{temporary}/cache'",
                        ]
                    )  # fmt: skip
                    rates[name][kind].append(rate)
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
