"""The other systems of proofs.py, each used as its documentation says; where that was read stands
beside it.

    python benchmarks/peers.py SYSTEM RUNS.json     trains each run of a list; proofs.py calls it
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BackboneFinetuning, BaseFinetuning, ModelCheckpoint
from probe import DECAY, EPOCHS, LAYERS, LR, STEPS, UNFREEZE, Body, Run, Watch, falling
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Module(pl.LightningModule):
    """The network with a user's LightningModule around it; the systems differ in the optimiser."""

    def __init__(self, system: str, run: Run) -> None:
        super().__init__()
        self.system, self.run = system, run
        self.backbone, self.head = Body(), nn.Linear(8, 3)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """As timm's models have it (timm/models/resnet.py), for `param_groups_layer_decay`."""
        return {"stem": r"^backbone\.stem", "blocks": r"^backbone\.stage(\d+)"}

    def configure_optimizers(self) -> Any:
        if self.system == "timm":  # docs: huggingface.co/docs/timm/reference/optimizers
            from timm.optim import param_groups_layer_decay

            tuned: Any = param_groups_layer_decay(self, weight_decay=0.0, layer_decay=DECAY)
        elif self.system == "lightning":  # the example in BackboneFinetuning's docstring (2.6.6)
            tuned = self.head.parameters()
        else:  # finetuning-scheduler takes out what phase 0 does not name (enforce_phase0_params)
            tuned = [p for p in self.parameters() if p.requires_grad]
        adam = self.run.optimiser == "adamw"
        optimiser = optim.AdamW(tuned, 5e-3) if adam else optim.SGD(tuned, LR)
        if not self.run.schedule:
            return optimiser
        every = "epoch" if self.run.schedule == "ReduceLROnPlateau" else "step"
        scheduler = make_scheduler(self.run.schedule, optimiser)
        setting = {"scheduler": scheduler, "interval": every, "monitor": "val_loss"}
        return {"optimizer": optimiser, "lr_scheduler": setting}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout as a function of the step, see `Run.ordinary`."""
        if not self.run.ordinary:
            torch.manual_seed(self.trainer.current_epoch * STEPS + batch_idx)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Logs val_loss, which finetuning-scheduler and ReduceLROnPlateau go by."""
        self.log("val_loss", self.training_step(batch, batch_idx), sync_dist=True)


SCHEDULES: dict[str, dict[str, Any]] = {
    "LambdaLR": {"lr_lambda": falling},
    "StepLR": {"step_size": STEPS, "gamma": 0.5},
    "ExponentialLR": {"gamma": 0.95},
    "CosineAnnealingLR": {"T_max": EPOCHS * STEPS},
    "CosineAnnealingWarmRestarts": {"T_0": 2 * STEPS},
    "OneCycleLR": {"max_lr": LR, "total_steps": EPOCHS * STEPS},
    "ReduceLROnPlateau": {"factor": 0.5, "patience": 0, "threshold": 10.0},  # falls every epoch
}


def make_scheduler(name: str, optimiser: optim.Optimizer) -> Any:
    return getattr(optim.lr_scheduler, name)(optimiser, **SCHEDULES[name])


class LayerByLayer(BaseFinetuning):
    """The class to inherit from, by its docstring (2.6.6): one group a layer for layer-wise rates.

    Its only use is to ask for them; BackboneFinetuning has one rate for the whole body.
    """

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.backbone)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: optim.Optimizer) -> None:
        """Unfreezes all layers, each at its rate."""
        if epoch == UNFREEZE:
            for depth, name in enumerate(reversed(LAYERS), 1):
                layer = pl_module.backbone.get_submodule(name)
                self.unfreeze_and_add_param_group(layer, optimizer, lr=LR * DECAY**depth)


def callbacks(system: str, run: Run) -> list[pl.Callback]:
    """What freezes, what saves, and the probe."""
    kept: dict[str, Any] = {"dirpath": f"{run.folder}/checkpoints", "save_top_k": -1}
    if run.ordinary:
        kept |= {"every_n_train_steps": STEPS // 2, "filename": "{step}"}
    else:
        kept |= {"filename": "{epoch}"}
    watch = Watch(run.folder)
    if system == "timm":
        return [ModelCheckpoint(**kept), watch]
    if system == "lightning":
        freeze = LayerByLayer() if run.layerwise else BackboneFinetuning(UNFREEZE)
        return [freeze, ModelCheckpoint(**kept), watch]
    # docs: finetuning-scheduler.readthedocs.io, "Specifying a Fine-Tuning Schedule", "EarlyStopping
    # and Epoch-Driven Phase Transition Criteria"; restore_best=False keeps the run one line
    from finetuning_scheduler import FinetuningScheduler, FTSCheckpoint

    phases: dict[int, dict[str, Any]] = {0: {"params": [r"head\..*"]}}
    if run.layerwise:
        for depth, name in enumerate(reversed(LAYERS), 1):
            phases[depth] = {"params": [rf"backbone\.{name}\..*"], "lr": LR * DECAY**depth}
    else:
        phases[1] = {"params": [r"backbone\..*"], "lr": LR / 10 if run.optimiser == "sgd" else 1e-3}
    for depth, phase in phases.items():
        phase["max_transition_epoch"] = UNFREEZE + depth if depth < len(phases) - 1 else EPOCHS
    scheduler = FinetuningScheduler(
        ft_schedule=phases, epoch_transitions_only=True, restore_best=False,
        apply_lambdas_new_pgs=True, log_dir=run.folder,
    )  # fmt: skip
    return [scheduler, FTSCheckpoint(monitor="val_loss", **kept), watch]


def train(system: str, run: Run) -> None:
    """One training, as a user's script has it."""
    pl.seed_everything(0, workers=True, verbose=False)
    images = 4 * STEPS
    labels = torch.arange(images) % 3
    pictures = torch.randn(images, 3, 16, 16) + labels.view(-1, 1, 1, 1)
    data = TensorDataset(pictures, labels)
    loader = DataLoader(data, 4 // run.devices, shuffle=run.ordinary)
    trainer = pl.Trainer(
        accelerator="cpu", devices=run.devices, strategy="ddp" if run.devices > 1 else "auto",
        max_epochs=EPOCHS, accumulate_grad_batches=run.accumulate, logger=False,
        callbacks=callbacks(system, run), default_root_dir=run.folder, log_every_n_steps=1,
        num_sanity_val_steps=0, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    validation = DataLoader(data, 12)
    trainer.fit(Module(system, run), loader, validation, ckpt_path=run.resume or None)


def main(system: str, file: str) -> None:
    """Every run of a list; an exception goes to error.txt beside its results."""
    warnings.filterwarnings("ignore")
    for settings in json.loads(Path(file).read_text()):
        run = Run(**settings)
        try:
            train(system, run)
        except Exception as error:  # whatever a system raises is its result in the table
            said = (str(error).splitlines() or [""])[0]
            (Path(run.folder) / "error.txt").write_text(f"{type(error).__name__}: {said}")
            if run.devices > 1:
                raise


if __name__ == "__main__":
    main(*sys.argv[1:])
