"""What writes checkpoints, each whole, and what goes on from one or says why it cannot."""

import math
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from thaw.backbones import pretrained
from thaw.errors import ConfigError, Interrupted, shown
from thaw.ranges import leaves
from thaw.stopping import signals
from thaw.store import LAST, PREVIOUS, last_checkpoints, read_checkpoint

PLACES = re.compile(r"(^resume|^ckpt_path|^trust|dir|dirpath)$")  # settings of where files are
VALIDATION_SECONDS = 5.0  # to end a validation after a signal; schedulers kill after 10 to 30


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: it is whole, or the one before stays.

    Lightning 2.6.6 writes to $TMPDIR, whose move to another file system copies over the good file.
    Of last.ckpt the one before is kept as previous.ckpt.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        path = Path(path)
        part = path.with_suffix(".part")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())  # else a power cut could leave the new name, empty
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if path.name == LAST and path.is_file():
            path.replace(path.with_name(PREVIOUS))
        part.replace(path)


class SaveBest(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which saves only weights that were validated as they are.

    It still knows its files when the run's folder was moved, unlike Lightning (issue 11379). If the
    best one is not there, as after ckpt_path=FILE of another run, the search starts anew.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if self.monitor is None or pl_module.is_validated:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def moved(path: str) -> str:
            return path and str(Path(str(self.dirpath)) / Path(path).name)

        paths = {key: moved(path) for key, path in state_dict.items() if "model_path" in key}
        scores = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        if Path(paths["best_model_path"]).is_file():
            own = {"dirpath": str(self.dirpath), "best_k_models": scores}
            super().load_state_dict({**state_dict, **paths, **own})


def best_checkpoint(callbacks: Iterable[pl.Callback], monitor: str) -> str | None:
    """The file of the best epoch by `monitor`; None: none was saved, the last weights count."""
    for each in callbacks:  # without validation photos, a `SaveBest` by nothing has the last epoch
        known = (monitor, None) if isinstance(each, SaveBest) else (monitor,)
        if isinstance(each, ModelCheckpoint) and each.monitor in known:
            return each.best_model_path or None
    return None


class GracefulStop(Checkpoint):
    """On Ctrl-C or SIGTERM: finishes the step, saves last.ckpt and stops. Twice: stops at once.

    Between two steps the weights, the optimiser and the counters agree; in the middle of one they
    do not. After the last step of an epoch, the validation comes first, since a run resumed from
    there would skip it; one that takes long is left, and with it what the epoch has trained.

    It is the last callback, a Checkpoint: Lightning calls these after an average of the weights.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LAST

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals.handle()  # in place of Lightning's, which restores ours when it ends or fails
        # a run that is resumed inside an epoch does not call on_train_epoch_start for it
        signals.in_epoch = trainer.fit_loop.epoch_loop.batch_progress.current.ready > 0

    def on_test_start(self, *_: Any, **__: Any) -> None:
        signals.handle()

    def on_train_epoch_start(self, *_: Any, **__: Any) -> None:
        signals.in_epoch = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # gradients that wait for further batches are in no checkpoint
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0 and not trainer.is_last_batch:
            self._stop_if_asked(trainer)

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        signals.check(after=VALIDATION_SECONDS)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._stop_if_asked(trainer)
        signals.in_epoch = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        signals.in_epoch = False
        if isinstance(exception, Interrupted) and trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)  # ranks that this one started, if any

    def _stop_if_asked(self, trainer: pl.Trainer) -> None:
        # any rank may have got the signal; all ranks must ask together
        if trainer.strategy.reduce_boolean_decision(signals.asked is not None, all=False):
            trainer.save_checkpoint(self.path)
            raise Interrupted(signals.asked or signal.SIGTERM)


class SaveLast(Checkpoint):
    """Writes last.ckpt after every epoch, to resume from; where epochs are short, after some.

    Not after an epoch whose loss is no number: nothing good goes on from there. Lightning's
    `ModelCheckpoint(save_last=True)` writes it only after an epoch that is one of the best (2.6.6).
    """

    def __init__(self, dirpath: str, every_seconds: float = 2.0) -> None:
        self.path = Path(dirpath) / LAST
        self.every_seconds = every_seconds
        self.saved = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not math.isfinite(trainer.callback_metrics.get("train/loss", 0)):
            return
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        due = time.monotonic() - self.saved >= self.every_seconds
        if trainer.strategy.broadcast(ends or due):  # one clock decides for all ranks
            trainer.save_checkpoint(self.path)
            self.saved = time.monotonic()


def newest_whole(folder: str | Path | None, settings: Mapping[str, Any]) -> Path | None:
    """The checkpoint of a run to go on from, with a line on what `settings` has otherwise.

    None: none was saved yet. ConfigError: all are damaged, or those of a run that ended are gone.
    """
    broken = None
    for path in last_checkpoints(folder) if folder else ():
        try:
            checkpoint = read_checkpoint(path, "resume")
            print(f"resume    {path}: epoch {checkpoint['epoch'] + 1}", flush=True)
            if told := differences(checkpoint["hyper_parameters"].get("config"), settings):
                print(f"resume    other settings than before: {', '.join(told)}", flush=True)
            if broken:  # else saving would put it in the place of the whole one before it
                path.with_name(LAST).unlink(missing_ok=True)
            return path
        except ConfigError as error:
            broken = error
            print(error)
    if broken:
        raise broken
    if folder and (Path(folder) / "model").is_dir():
        raise ConfigError(f"resume={folder}: has ended, and has no last.ckpt any more; train anew")
    if folder:
        told = "has no checkpoint yet, and begins as it was started"
        print(f"resume    {folder}: {told}", flush=True)
    return None


def differences(before: Any, now: Mapping[str, Any]) -> list[str]:
    """The single settings that two configurations have otherwise, but for where files are."""
    old, new = (dict(leaves(each)) if isinstance(each, dict) else {} for each in (before, now))
    keys = [k for k in {**old, **new} if old.get(k) != new.get(k) and not PLACES.search(k)]
    # in ASCII: the file may be a stranger's, with signs that a terminal obeys
    return [ascii(f"{key}={shown(new.get(key))} (before: {shown(old.get(key))})")[1:-1]
            for key in keys if not isinstance(new.get(key), Mapping | list)]  # fmt: skip


def check_model(checkpoint: Mapping[str, Any], classes: list[str], own: Mapping[str, Any]) -> None:
    """Refuses a checkpoint of other classes (in label order), or of another model than `own`."""
    if not {"temperature", "plan"} <= checkpoint.keys():
        raise ConfigError("ckpt_path: is of another version of thaw; go on with that version")
    hyper, saved = checkpoint["hyper_parameters"], checkpoint["state_dict"]
    if list(hyper["classes"]) != list(classes):
        both = f"{', '.join(hyper['classes'])}. Data: {', '.join(classes)}"
        fault = f"knows other classes than the data, or in another order: {both}"
        raise ConfigError(f"ckpt_path: {fault}. Use the data of its training, or train anew")
    if misfit := pretrained.differences(own, saved):
        part = "backbone" if ".body." in misfit else "head"
        fault = f"its {part} is another one than {part}=... of this run ({misfit})"
        theirs = hyper.get("config", {}).get(part)
        raise ConfigError(f"ckpt_path: {fault}. It had {part}: {theirs}; choose the same")


def use_settings(checkpoint: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]) -> None:
    """Puts settings given beside `resume` into the optimiser states; refuses those of others."""
    for state in checkpoint.get("optimizer_states", []):
        there, here = (", ".join(" ".join([part["name"], *part["layer_groups"]]) for part in parts)
                       for parts in (state["param_groups"], groups))  # fmt: skip
        if there != here:
            fault = f"its optimiser has the groups {there}, this run {here}"
            hint = "go on with the backbone, granularity and layer-wise rates that it began with"
            raise ConfigError(f"ckpt_path: {fault}; {hint}")
        if state["param_groups"][0].keys() != groups[0].keys():
            fault = "was saved by another optimiser than optim=... of this run"
            raise ConfigError(f"ckpt_path: {fault}; choose the one that the run was started with")
        for saved, group in zip(state["param_groups"], groups, strict=True):
            saved.update({name: group[name] for name in group if name not in ("params", "lr")})
