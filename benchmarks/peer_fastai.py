"""fastai's fine_tune: its own head, augmentation on batches, one-cycle with two groups of rates.

    python benchmarks/peer_fastai.py --data ../shared/data    fastai in PYTHONPATH, see `make bench`

After docs.fast.ai/tutorial.vision.html: items resized, then `aug_transforms` to the network's size
on the batch (there 460 then 224 pixels; the photos here are 160 pixels, so 160 then 128), then
`fine_tune` with its default rate. The official split comes in as a column of a table, as
docs.fast.ai/vision.data.html has it. --tuned: label smoothing, `base_lr` and `lr_mult` (base_lr by
the lowest rate), `train_bn=False` and the body's BatchNorm in eval mode; one-cycle ends in a cosine
anyway. The last epoch is the result.
"""

import warnings

import pandas as pd
import torch
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    LabelSmoothingCrossEntropy,
    Learner,
    Normalize,
    Resize,
    TrainEvalCallback,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)
from job import BACKBONES, BATCH, SIZE, Job, Stopwatch, asked, keep_statistics

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


class KeepStatistics(Callback):
    """fastai's BnFreeze keeps those of frozen layers alone."""

    run_after = TrainEvalCallback

    def before_train(self) -> None:
        keep_statistics(self.model[0])


def make_learner(job: Job) -> Learner:
    """Photos, network and weights."""
    rows = []
    for split in ("train", "val"):
        paths, labels = job.photos(split)
        rows += [(str(p), f"{k:03d}", split == "val") for p, k in zip(paths, labels, strict=True)]
    backbone = BACKBONES[job.backbone]
    normalise = Normalize.from_stats(backbone.mean, backbone.std, cuda=job.device == "cuda")
    dls = ImageDataLoaders.from_df(
        pd.DataFrame(rows, columns=["name", "label", "is_valid"]), path="/", bs=BATCH,
        valid_col="is_valid", item_tfms=Resize(ITEM_SIZE), num_workers=job.workers,
        batch_tfms=[*aug_transforms(size=SIZE), normalise], device=torch.device(job.device),
    )  # fmt: skip
    learn = vision_learner(
        dls, backbone.name, pretrained=False, metrics=accuracy, train_bn=not job.tuned,
        loss_func=LabelSmoothingCrossEntropy(job.smoothing) if job.tuned else None,
        cbs=KeepStatistics() if job.tuned else None,
    )  # fmt: skip
    body = job.network()
    body.reset_classifier(0)
    learn.model[0].model.load_state_dict(body.state_dict())
    return learn


def tested(job: Job, learn: Learner) -> float:
    """Share of the test photos whose best class is right."""
    paths, labels = job.photos("test")
    names = pd.DataFrame({"name": [str(path) for path in paths]})
    scores, _ = learn.get_preds(dl=learn.dls.test_dl(names))
    vocabulary = torch.tensor([int(name) for name in learn.dls.vocab])
    return (vocabulary[scores.argmax(1)] == torch.tensor(labels)).float().mean().item()


def main() -> None:
    warnings.filterwarnings("ignore", ".*torch.jit.script.*")  # fastai 2.8 on torch 2.15
    watch, job = Stopwatch(), asked("fastai")
    set_seed(job.seed)
    learn = make_learner(job)
    learn.add_cb(Clock(watch))
    learn.fine_tune(job.unfrozen, job.head_rate, job.frozen, lr_mult=job.head_rate / job.body_rate)
    learn.remove_cb(Clock)
    val = float(learn.recorder.values[-1][-1])
    with watch.part("test"), learn.no_bar():
        test = tested(job, learn) if job.test else None
    watch.line(val, test)


if __name__ == "__main__":
    main()
