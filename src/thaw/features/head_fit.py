"""`head.fit`: the head is solved on cached features before the first step, not trained by steps."""

import time
from dataclasses import replace
from typing import Any, cast

import lightning.pytorch as pl
import torch

from thaw.backbones.groups import HEAD
from thaw.errors import ConfigError
from thaw.features.solvers import Solution, logistic, ridge, svm
from thaw.finetune.plan import Plan
from thaw.head import Fit, LinearHead
from thaw.training.module import TransferModule


def plan_with_fit(
    plan: Plan, fit: Fit, *, validates: bool, validate_every: int, mixes: bool, balanced: bool
) -> Plan:
    """The plan whose first phase solves the head: one epoch on cached features, at rate 0.

    Args:
        plan: of the run.
        fit: how; "sgd" leaves the plan as it is.
        validates: whether there is a validation, which the strength is chosen on.
        validate_every: epochs between two of them.
        mixes, balanced: whether pictures are mixed, and classes drawn equally often.

    Raises:
        ConfigError: names the setting that does not go with it.
    """
    if fit == "sgd":
        return plan
    first = plan.phases[0]
    mended = ""
    if first.rates.keys() != {HEAD}:
        mended = "needs a first phase that trains the head alone, like finetune=freeze_unfreeze"
    elif first.epochs != 1:
        key = "finetune.phases.1.start" if plan.mode == "phases" else "finetune.unfreeze_epoch"
        key = "trainer.max_epochs" if len(plan.phases) == 1 else key
        mended = f"solves the head before the first step, and {first.epochs} epochs would repeat " \
                 f"it; set {key}=1"  # fmt: skip
    elif not validates:
        mended = "chooses its strength on validation photos; set data.val_fraction=0.2 and no " \
                 "trainer.limit_val_batches=0"  # fmt: skip
    elif validate_every != 1:
        mended = "needs a validation after its epoch; set trainer.check_val_every_n_epoch=1"
    elif mixes and first.settings.mix:
        mended = f"has no mixed pictures; set {first.key}.mix=false"
    elif balanced:
        mended = "counts every photo once, so data.balanced=true has no effect; set false"
    elif plan.cache.features is False:
        mended = "works on cached features; set finetune.cache_features=auto"
    if mended:
        raise ConfigError(f"head.fit={fit}: {mended}, or head.fit=sgd")
    solved = replace(first, fit=fit, rates={HEAD: 0.0})
    cache = replace(plan.cache, features=True)
    return replace(plan, phases=(solved, *plan.phases[1:]), cache=cache)


class FitHead(pl.Callback):
    """Solves the head at the start of the run, once the features are there."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In a phase that is to be solved.

        Raises:
            ConfigError: there was no room for features.
        """
        module = cast(TransferModule, pl_module)
        phase = module.phase
        if phase.fit == "sgd" or trainer.current_epoch != phase.start:
            return
        sources: list[Any] = [trainer.train_dataloader, trainer.val_dataloaders]
        train, val = (source.features for source in sources)
        if train is None or val is None:
            raise ConfigError(
                f"head.fit={phase.fit}: there is no room for its features; set paths.cache_dir to "
                "a folder on a larger disk, or head.fit=sgd"
            )
        started = time.perf_counter()
        solved = None
        if trainer.is_global_zero:
            solved = _solve(phase.fit, module, train.rows(), val.rows())
        solved = cast(Solution, trainer.strategy.broadcast(solved))
        (layer,) = (m for m in module.classifier.head.modules() if isinstance(m, LinearHead))
        with torch.no_grad():
            layer.weight.copy_(solved.weight)
            layer.bias.copy_(solved.bias)
        if trainer.is_global_zero:
            print(
                f"head solved by {phase.fit} in {time.perf_counter() - started:.1f} s: strength "
                f"{solved.strength:.1e} of {len(solved.tried)} tried, val/acc {solved.accuracy:.4f}"
            )


def _solve(fit: Fit, module: TransferModule, train: Any, val: Any) -> Solution:
    classes = len(module.hparams["classes"])
    if fit == "ridge":
        return ridge(train, val, classes)
    if fit == "svm":
        return svm(train, val, classes)
    return logistic(train, val, classes, label_smoothing=module.label_smoothing)
