"""Makes src/thaw/backbones/weights/tiny.safetensors, what backbone=tiny starts from.

    python benchmarks/tiny_weights/make.py --output tiny.safetensors

Draws 14,280 pictures of 136 classes of shapes and textures (about 50 s, kept in cache/shapes), none
of them a flower, so that fine-tuning on the demo is real transfer. Trains TinyResNet on them from
random weights (some minutes on a CPU) and writes the best epoch's body in half precision. Rates and
length were chosen in a plain PyTorch loop by the accuracy on the shapes' validation pictures.
Further words are settings of train.py, as trainer.max_epochs=1 to see that it starts.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from shapes import SHAPES, draw_shape

ROOT = Path(__file__).resolve().parents[2]
SIZE, QUALITY = 96, 92  # pixels; of JPEG
COUNTS = {"train": 100, "val": 5}  # pictures of each class
SETTINGS = (
    "data=folder",
    "backbone=tiny",
    "finetune=from_scratch",
    "finetune.unfrozen.lr=4e-3",
    "augment.crop_scale=[0.5,1.0]",
    "trainer.gradient_clip_val=null",
    "test=false",
)


def draw(folder: Path, counts: dict[str, int]) -> None:
    """Draws what is missing; a picture depends on its split, class and number only."""
    for number, (split, count) in enumerate(counts.items()):
        for label, name in enumerate(SHAPES):
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                path = folder / split / name / f"{i:04d}.jpg"
                if not path.exists():
                    rng = np.random.default_rng([number, label, i])
                    draw_shape(label, rng, SIZE).save(path, quality=QUALITY)


def body(run: Path) -> dict[str, torch.Tensor]:
    """The weights of a run's best epoch without the head, float32 -> float16."""
    best = max((run / "checkpoints").glob("best*.ckpt"), key=lambda path: path.stat().st_mtime)
    state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "classifier.body."
    return {
        name.removeprefix(prefix): (
            value.half() if value.is_floating_point() else value
        ).contiguous()
        for name, value in state.items()
        if name.startswith(prefix)
    }


def main() -> None:
    """Draws, trains, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--folder", type=Path, default=Path("cache/shapes"), help="of the pictures")
    parser.add_argument("--train", type=int, default=COUNTS["train"], help="pictures per class")
    given, settings = parser.parse_known_args()
    draw(given.folder, {**COUNTS, "train": given.train})
    run = given.output.with_suffix(".run").resolve()
    words = (
        *SETTINGS,
        f"data.root='{given.folder.resolve()}'",
        f"hydra.run.dir='{run}'",
        *settings,
    )
    subprocess.run([sys.executable, str(ROOT / "train.py"), *words], check=True)
    save_file(body(run), given.output)


if __name__ == "__main__":
    main()
