"""Lightning callbacks that steer a run: they say when; what to do is written elsewhere."""

import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from tqdm import tqdm

from thaw.backbones.groups import HEAD
from thaw.data.loading import PhotoSampler, ResumableLoader
from thaw.errors import ConfigError
from thaw.features.key import feature_key
from thaw.features.table import Features, load_or_compute
from thaw.finetune.plan import Plan, plan_table
from thaw.stopping import signals
from thaw.training.module import TransferModule
from thaw.training.record import current_rates


class ApplyPlan(pl.Callback):
    """Sets what trains in each epoch from the plan alone; a resumed run can lose no state of it."""

    def __init__(self, notes: Sequence[str] = ()) -> None:
        self.notes = notes  # lines to print with the plan
        self.wrapped: list[bool] = []  # which parameters the DDP wrapper knows
        self.printed: tuple[int, ...] | None = None  # unfreeze epochs in the plan printed last

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Applies the plan: a run that is resumed inside an epoch has no start of it."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        was, now = pl_module.saved_batches, int(trainer.num_training_batches)
        if was is not None and 0 < done < was != now:
            fault = f"stands after {done} of {was} batches of an epoch, which has {now} now"
            hint = "keep batch size, devices and photos, or give ckpt_path=RUN/checkpoints/best-..."
            raise ConfigError(f"resume: the checkpoint {fault}; {hint}")
        plan: Plan = pl_module.plan  # a resumed one keeps the number of steps that it began with
        pl_module.set_plan([*plan.values], plan.steps_per_epoch or steps_per_epoch(trainer))
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Prints and saves a plan that is new, or that a plateau has moved, and applies it."""
        phase, model = pl_module.phase, pl_module.classifier
        if trainer.is_global_zero and pl_module.plan.unfreeze_epochs != self.printed:
            self.printed = pl_module.plan.unfreeze_epochs
            batch = getattr(trainer.train_dataloader, "batch_size", None) or 0
            images = batch * trainer.accumulate_grad_batches * trainer.world_size
            table = plan_table(pl_module.plan, model, steps_per_epoch(trainer), images)
            text = "\n".join([*self.notes, table])
            print(f"\n{text}\n")
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "plan.txt").write_text(f"{text}\n", encoding="utf-8")
        model.set_trainable(phase.rates.keys(), phase.batchnorm, phase.depthwise)
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if isinstance(sampler, PhotoSampler):
            sampler.augment = phase.augment
        learns = [parameter.requires_grad for parameter in model.parameters()]
        if self.wrapped != learns and isinstance(strategy := trainer.strategy, DDPStrategy):
            # DDP averages gradients only of the parameters that required one when it wrapped the
            # model; without this each rank would train a body of its own (Lightning issue 20340)
            strategy.model = strategy._setup_model(pl_module)
            strategy._register_ddp_hooks()
        if self.wrapped != learns and model._compiled_call_impl is not None:
            torch._dynamo.reset()  # the graph was made with the body frozen (pytorch 139476)
        self.wrapped = learns

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes the learning rate of every group, which nothing else does; logs some of them."""
        step = batch_idx // trainer.accumulate_grad_batches  # its batches share a rate
        progress = step / steps_per_epoch(trainer)
        for group in trainer.optimizers[0].param_groups:
            name = group["layer_groups"][0]  # those that share a group have the same rate
            group["lr"] = pl_module.plan.learning_rate(name, trainer.current_epoch, progress)
        every = trainer.log_every_n_steps  # 0: never
        if every and (batch_idx == 0 or trainer.global_step % every == 0):
            for logger in trainer.loggers:
                logger.log_metrics(current_rates(trainer), step=trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any, **__: Any) -> None:
        """Gives all ranks the first one's BatchNorm statistics; DDP does so before steps alone."""
        if trainer.world_size > 1 and trainer.is_last_batch:
            for statistic in pl_module.classifier.buffers():
                torch.distributed.broadcast(statistic, src=0)


class CacheFeatures(pl.Callback):
    """Computes features at the start of a phase that trains the head alone, and serves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.features: dict[tuple[str, int], Features | None] = {}  # None: not to be written

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # a run that is resumed inside an epoch does not call on_train_epoch_start for it
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready:
            self.on_train_epoch_start(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning makes the validation loader before the first validation, not before."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        views = pl_module.phase.cached_views
        if not views:
            self.features.clear()
        train, val = trainer.train_dataloader, trainer.val_dataloaders
        for key, loader in ((("train", views), train), (("val", 1), val)):
            if isinstance(loader, ResumableLoader):
                if views and key not in self.features:
                    self.features[key] = self._load(trainer, pl_module, loader, *key)
                loader.features = self.features.get(key)

    def _load(
        self, trainer: pl.Trainer, module: TransferModule, loader: ResumableLoader, split: str,
        views: int,
    ) -> Features | None:  # fmt: skip
        dataset, model = cast(Any, loader.dataset), module.classifier
        make_key = partial(
            feature_key, [model.body, model.fold], dataset, module.normalise, views=views,
            precision=str(trainer.precision), device=module.device,
        )  # fmt: skip

        def run(images: Tensor) -> Tensor:
            """(N, 3, H, W) -> (N, D), as a training step would."""
            signals.check()  # nothing of the pass is kept, so a stop need not wait for its end
            assert module.classifier.trainable == {HEAD}
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                return module.classifier.features(module.prepare(images.to(module.device)))

        started = time.perf_counter()
        try:
            features, was_there = load_or_compute(
                self.folder, make_key, loader, run, views=views,
                title=f"caching features of {split}",
            )  # fmt: skip
            size, seconds = features.table.nbytes / 1e6, time.perf_counter() - started
            message = " from cache" if was_there else f", {size:,.1f} MB in {seconds:.1f} s"
        except OSError as error:
            hint = "Set paths.cache_dir to a folder with room, or finetune.cache_features=false"
            features, message = None, f": going on without a cache, since {error}. {hint}"
        if trainer.is_global_zero:  # above the bar, if any
            number = f"{views} view{'s' if views > 1 else ''}"
            tqdm.write(f"features  {split}: {len(dataset):,} photos x {number}{message}")
        return features


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Gives the optimiser steps of an epoch; the last one may have fewer batches than others."""
    return math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)
