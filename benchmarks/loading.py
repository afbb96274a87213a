"""Photos a second that thaw's loader gives, with and without decoded pictures kept in memory.

    python benchmarks/loading.py --data ../shared/data

Twice: the photos as they are (short side 160 pixels, 128-pixel crops), and some of them enlarged to
the size that cameras' photos of Pets and ImageNet have (long side 500, 224-pixel crops). The epochs
after the first count: in that one the cache is being filled. Beside them the loader that recipes
write, with PIL and torchvision.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median

from job import BATCH, CROP_SCALE, MEAN, STD, Flowers, Job, arguments
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as tv

from thaw import config, transforms
from thaw.compose import compose_run
from thaw.data.base import PhotoDataModule
from thaw.training.device import keep_freed_memory

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
    cfg = compose_run(settings)
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
    """The same of PIL and torchvision's transforms in a DataLoader, crops of `size` pixels."""
    crop = tv.RandomResizedCrop(size, scale=CROP_SCALE)
    view = tv.Compose([crop, tv.RandomHorizontalFlip(), tv.ToTensor(), tv.Normalize(MEAN, STD)])
    dataset = Flowers(photos, [0] * len(photos), view)
    loader = DataLoader(dataset, BATCH, True, num_workers=job.workers,
                        persistent_workers=job.workers > 0)  # fmt: skip
    seconds = []
    for _epoch in range(EPOCHS):
        began = time.perf_counter()
        for _batch in loader:
            pass
        seconds.append(time.perf_counter() - began)
    return len(photos) / median(seconds[1:])


def main() -> None:
    """Prints one line of JSON: by size and way, the images a second of each repeat."""
    parser = arguments()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--number", type=int, default=LARGE, help="of enlarged photos")
    given = parser.parse_args()
    keep_freed_memory()  # as train.py does
    job = Job(given.data.resolve(), workers=given.workers)
    ways = ("none", "ram", "recipe")
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
                words = [
                    *source, "backbone=mobilenet_v2", "backbone.weights=null",
                    f"backbone.image_size={size}", f"data.num_workers={job.workers}",
                ]  # fmt: skip
                for cache in ("none", "ram"):
                    rates[name][cache].append(loading([*words, f"data.cache={cache}"]))
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
