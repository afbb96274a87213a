"""Lightning callbacks that steer a run: they say when; what to do is written elsewhere."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch.nn.modules.batchnorm import _BatchNorm

from thaw.data.loading import PhotoSampler
from thaw.errors import ConfigError
from thaw.finetune.plan import Plan
from thaw.finetune.plan_table import plan_table
from thaw.training.averaging import check_averaging

if TYPE_CHECKING:
    from thaw.training.module import TransferModule


class ApplyPlan(pl.Callback):
    """Sets what trains at the start of each epoch, from the plan and the epoch alone.

    Holds no state: on a resumed run the epoch says all. Lightning's BaseFinetuning, which keeps
    what it unfroze in the optimiser and the checkpoint, loses it on resume (Lightning issue 21901).
    """

    def __init__(self, notes: Sequence[str] = ()) -> None:
        self.notes = notes  # lines to print with the plan
        self.wrapped: list[bool] = []  # which parameters the DDP wrapper knows
        self.told: tuple[int, ...] = ()  # unfreeze epochs that were printed

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuses, before training, strategies in which an unfreeze is not proven right.

        Raises:
            ConfigError: names the strategy.
        """
        if stage == "fit" and type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            raise ConfigError(
                f"trainer.strategy={type(trainer.strategy).__name__}: thaw unfreezes under auto "
                "(one device), ddp and ddp_spawn; use trainer=default or trainer=ddp"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Prints and saves the plan, and applies it: a run resumed inside an epoch has no start."""
        module = _transfer(pl_module)
        print(f"\n{self._keep(trainer, module)}\n" if trainer.is_global_zero else "", end="")
        self._apply(trainer, module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Applies the epoch's phase; its own optimiser state, where asked, when it begins."""
        module = _transfer(pl_module)
        phase = module.phase
        if phase.settings.reset_optimizer and trainer.current_epoch == phase.start:
            trainer.optimizers[0].state.clear()
        if trainer.is_global_zero and module.plan.unfreeze_epochs != self.told:
            print(f"\n{module.monitor} stands still: {phase.name} begins at epoch {phase.start}")
            self._keep(trainer, module)
        self._apply(trainer, module)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object,
        batch: object, batch_idx: int,
    ) -> None:  # fmt: skip
        """At an epoch's end, gives all ranks the mean of their BatchNorm statistics.

        Else each validates a model of its own, and rank 0's is the one that is saved (timm's
        scripts do the same by default, as --dist-bn reduce).
        """
        if trainer.world_size == 1 or not trainer.is_last_batch:
            return
        for layer in _transfer(pl_module).classifier.modules():
            if isinstance(layer, _BatchNorm) and layer.training:
                for statistic in (layer.running_mean, layer.running_var):
                    if statistic is not None:
                        mean = trainer.strategy.reduce(statistic.clone(), reduce_op="mean")
                        statistic.copy_(cast(torch.Tensor, mean))

    def _keep(self, trainer: pl.Trainer, module: "TransferModule") -> str:
        """Writes plan.txt, and gives what is in it."""
        self.told = module.plan.unfreeze_epochs
        table = plan_table(
            module.plan, module.classifier, steps_per_epoch(trainer), mixes=module.mix is not None
        )
        text = "\n".join([*self.notes, table])
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.txt").write_text(text + "\n", encoding="utf-8")
        return text

    def _apply(self, trainer: pl.Trainer, module: "TransferModule") -> None:
        phase = module.phase
        model = module.classifier
        model.set_trainable(phase.rates.keys(), phase.batchnorm)
        steps = steps_per_epoch(trainer)
        for group in trainer.optimizers[0].param_groups:
            # the scheduler chose this rate before the epoch's validation, which can move a phase
            name = group["layer_groups"][0]
            group["lr"] = module.plan.rate(name, trainer.global_step, steps)
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if isinstance(sampler, PhotoSampler):
            sampler.augment = phase.settings.augment
        learns = [parameter.requires_grad for parameter in model.parameters()]
        if self.wrapped == learns:
            return
        strategy = trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # DDP averages the gradients of those parameters only that took one when it wrapped the
            # model; without this each rank trains a body of its own (Lightning issue 20340).
            strategy.model = strategy._setup_model(module)
            strategy._register_ddp_hooks()
        if model._compiled_call_impl is not None:
            torch._dynamo.reset()  # what was compiled knows a frozen body (pytorch 139476)
        self.wrapped = learns


class StopEarly(EarlyStopping):
    """Lightning's EarlyStopping, which here cannot fire before the last phase has begun.

    A frozen body reaches its best in a few epochs; patience counted from there would end the run
    before the body is ever trained.
    """

    def _run_early_stopping_check(self, trainer: pl.Trainer) -> None:
        plan = _transfer(trainer.lightning_module).plan
        if trainer.current_epoch >= plan.phases[-1].start:
            super()._run_early_stopping_check(trainer)


def check_callbacks(callbacks: Mapping[str, pl.Callback], plan: Plan) -> None:
    """Refuses those that never do anything in this plan, end it too soon, or break it.

    Args:
        callbacks: by their names in the configuration.
        plan: of the run.

    Raises:
        ConfigError: names the setting.
    """
    for name, callback in callbacks.items():
        if isinstance(callback, EarlyStopping):
            _check_stopping(name, callback, plan)
        check_averaging(name, callback, plan)


def _check_stopping(name: str, callback: EarlyStopping, plan: Plan) -> None:
    last = plan.phases[-1]
    key = f"callbacks.{name}.patience={callback.patience}"
    if callback.patience >= last.epochs and not plan.moves:
        raise ConfigError(
            f"{key}: has no effect, since the last phase ({last.name}) has {last.epochs} epochs; "
            f"allowed is 0 to {last.epochs - 1}, or callbacks=default for no early stopping"
        )
    if not isinstance(callback, StopEarly) and callback.patience < last.start:
        raise ConfigError(
            f"{key}: can end the run before epoch {last.start}, where the last phase "
            f"({last.name}) begins; use thaw.training.callbacks.StopEarly, which counts from "
            f"there, or a patience of {last.start} or more"
        )


def steps_per_epoch(trainer: pl.Trainer) -> int:
    """Optimiser steps in an epoch."""
    epochs = trainer.max_epochs
    assert epochs is not None
    return max(1, int(trainer.estimated_stepping_batches) // epochs)


def _transfer(module: pl.LightningModule) -> "TransferModule":
    return cast("TransferModule", module)
