"""fastai's fine_tune: its own head, augmentation on batches, one-cycle with two groups of rates.

    python benchmarks/peer_fastai.py --data ../shared/data    fastai in PYTHONPATH, see `make bench`

After docs.fast.ai/tutorial.vision.html: items resized, then `aug_transforms` to the network's size
on the batch (there 460 then 224 pixels; the photos here are 160 pixels, so 160 then 128), then
`fine_tune` with its default rate. The official split comes in as a column of a table, as
docs.fast.ai/vision.data.html has it. The last epoch is the result.
"""

import warnings

import pandas as pd
import torch
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    default_split,
    imagenet_stats,
    model_meta,
    set_seed,
    vision_learner,
)
from job import BATCH, SIZE, Job, Stopwatch, asked
from torchvision.models import mobilenet_v2

ITEM_SIZE = 160  # pixels, before the augmentation on batches


class Clock(Callback):
    """The first fit is the frozen phase, the second the unfrozen one."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch, self.left = watch, ["frozen", "unfrozen"]

    def before_fit(self) -> None:
        self.part = self.watch.part(self.left.pop(0))
        self.part.__enter__()

    def after_step(self) -> None:
        self.watch.step()

    def after_fit(self) -> None:
        self.part.__exit__(None, None, None)


def make_learner(job: Job) -> Learner:
    """Photos, network and weights."""
    rows = []
    for split in ("train", "val"):
        paths, labels = job.photos(split)
        rows += [(str(p), f"{k:03d}", split == "val") for p, k in zip(paths, labels, strict=True)]
    dls = ImageDataLoaders.from_df(
        pd.DataFrame(rows, columns=["name", "label", "is_valid"]), path="/", bs=BATCH,
        valid_col="is_valid", item_tfms=Resize(ITEM_SIZE), num_workers=job.workers,
        batch_tfms=[*aug_transforms(size=SIZE), Normalize.from_stats(*imagenet_stats)],
        device=torch.device("cpu"),
    )  # fmt: skip
    # fastai knows where to cut ResNets and others; of this network it must be told
    model_meta[mobilenet_v2] = {"cut": -1, "split": default_split, "stats": imagenet_stats}
    learn = vision_learner(dls, mobilenet_v2, pretrained=False, metrics=accuracy)
    state = torch.load(job.weights, weights_only=True)
    body = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    learn.model[0][0].load_state_dict(body)
    return learn


def main() -> None:
    warnings.filterwarnings("ignore", ".*torch.jit.script.*")  # fastai 2.8 on torch 2.15
    watch, job = Stopwatch(), asked()
    set_seed(job.seed)
    learn = make_learner(job)
    learn.add_cb(Clock(watch))
    learn.fine_tune(job.unfrozen, freeze_epochs=job.frozen)
    learn.remove_cb(Clock)
    val = float(learn.recorder.values[-1][-1])
    paths, labels = job.photos("test")
    with watch.part("test"), learn.no_bar():
        names = pd.DataFrame({"name": [str(path) for path in paths]})
        scores, _ = learn.get_preds(dl=learn.dls.test_dl(names))
    vocabulary = torch.tensor([int(name) for name in learn.dls.vocab])
    watch.line(val, (vocabulary[scores.argmax(1)] == torch.tensor(labels)).float().mean().item())


if __name__ == "__main__":
    main()
