"""Fine-tune a pretrained backbone on photos.

    python train.py                                      tiny backbone, drawn flowers, offline
    python train.py backbone=resnet50 data=flowers102    downloads both on first use
    python train.py data=folder data.root=my/photos      one folder a class

`run` reads downward: backbone -> data -> model -> plan -> trainer -> fit -> test -> results.
"""

import logging
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from thaw import config, launch
from thaw.errors import ConfigError
from thaw.jobs import job


def run(cfg: DictConfig) -> dict[str, Any]:
    """Trains, tests and reports as `cfg` says; returns what results.json holds.

    Which weights win: those of `ckpt_path` or `resume` (with optimiser and epoch) over
    `backbone.weights`; null there means from scratch.

    Raises:
        ThawError: a setting, a photo or a download that the user can mend.
        Interrupted: stopped by Ctrl-C or SIGTERM, with a checkpoint to go on from.
    """
    # Imported here, not above: --help, --cfg and shell completion should not wait for torch.
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import ModelCheckpoint

    from thaw import report, transforms
    from thaw.backbones.cut import cut
    from thaw.classifier import Classifier
    from thaw.training import device, metrics
    from thaw.training.caching import CacheFeatures
    from thaw.training.callbacks import ApplyPlan, check_callbacks
    from thaw.training.checkpoints import GracefulStop
    from thaw.training.module import TransferModule
    from thaw.training.progress import Record

    # 1. Settings
    started = time.perf_counter()
    config.check_keys(cfg)
    settings = config.plain(cfg)
    output = Path(cfg.paths.output_dir)
    checkpoint = launch.last_checkpoint(cfg.resume) if cfg.resume else cfg.ckpt_path
    if not cfg.train and not checkpoint:
        raise ConfigError("train=false: needs a trained model to test, give ckpt_path=FILE")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # its tips are not of this run
    warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)  # lightning on torch 2.15
    if cfg.resume:
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists")  # it is meant to
    device.check_trainer(settings["trainer"])
    device.keep_freed_memory()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    # 2. Backbone: it owns the input spec, so it comes before the data
    backbone = config.build(cfg.backbone, "backbone")
    if cfg.finetune.get("features_from") is not None:
        if cfg.save_backbone:
            raise ConfigError(
                f"save_backbone={cfg.save_backbone}: finetune.features_from leaves no whole "
                "body to save; leave one of the two out"
            )
        backbone = cut(backbone, cfg.finetune.features_from)

    # 3. Data
    data = config.build(
        cfg.data,
        "data",
        train_transform=config.build(cfg.augment, "augment", spec=backbone.input_spec),
        eval_transform=transforms.eval_transform(backbone.input_spec),
        shrink=transforms.Shrink(backbone.input_spec),
    )

    # 4. Model
    sizes = {"in_features": backbone.out_features, "num_classes": len(data.classes)}
    classifier = Classifier(backbone, config.build(cfg.head, "head", **sizes))
    if cfg.compile:
        classifier.compile()  # in place: names in checkpoints stay as they are

    # 5. Plan: what trains when, at which rate
    plan = config.build(
        cfg.finetune, "finetune", groups=classifier.groups, max_epochs=cfg.trainer.max_epochs
    )
    mix = cfg.mix and config.build(cfg.mix, "mix", num_classes=len(data.classes))
    validates = data.val is not None and cfg.trainer.limit_val_batches != 0
    if cfg.trainer.limit_train_batches is not None or cfg.trainer.overfit_batches:
        plan = replace(plan, cache=plan.cache.on_some_batches())
    plan.check(
        monitor=cfg.monitor, validates=validates, mixes=mix is not None,
        validate_every=cfg.trainer.check_val_every_n_epoch,
    )  # fmt: skip
    trainer_settings = device.trainer_settings(settings["trainer"], validates=validates)
    module = TransferModule(
        classifier,
        plan,
        config.build(
            device.optimizer_settings(settings["optim"], trainer_settings),
            "optim",
            reserved={"lr": "finetune.frozen.lr, finetune.unfrozen.lr"},
        ),
        classes=data.classes,
        monitor=cfg.monitor,
        normalise=transforms.normalise(backbone.input_spec),
        mix=mix,
        label_smoothing=cfg.label_smoothing,
        channels_last=backbone.is_convolutional,
        seed=cfg.seed,
        config=settings,
    )

    # 6. Trainer
    callbacks = config.build_all(
        metrics.monitor_modes(
            settings["callbacks"], validates=validates,
            validate_every=cfg.trainer.check_val_every_n_epoch,
        ),
        "callbacks",
    )  # fmt: skip
    check_callbacks(callbacks, plan)
    record = Record(plan)
    notes = (f"backbone {backbone.name}, {backbone.weights}", backbone.licence, data.licence)
    cache = CacheFeatures(Path(cfg.paths.cache_dir) / "features")
    stop = GracefulStop(output / "checkpoints")
    loggers = list(config.build_all(settings["logger"], "logger").values())
    trainer: pl.Trainer = config.build(
        trainer_settings,
        "trainer",
        callbacks=[ApplyPlan(notes), record, cache, *callbacks.values(), stop],
        logger=loggers,
        enable_progress_bar="progress" in callbacks,
    )

    report.log_config(loggers, OmegaConf.to_yaml(cfg, resolve=True))

    # 7. Fit, and choose the epoch by the validation metric
    if cfg.train:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        if not record.history:  # ddp_spawn trained in processes of its own
            saved = torch.load(launch.last_checkpoint(output), weights_only=True)
            module.on_load_checkpoint(saved)
            record.take(saved["record"])
        record.plan = module.plan
    best = checkpoint
    if cfg.train and isinstance(trainer.checkpoint_callback, ModelCheckpoint):
        best = trainer.checkpoint_callback.best_model_path or None
    scores = record.metrics_of(best) if cfg.train else {}
    if best:
        state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)

    # 8. Test: the split is read here and nowhere else
    if cfg.test and data.test is not None:
        trainer.test(module, data, verbose=False)
        scores |= {name: float(value) for name, value in trainer.callback_metrics.items()}

    # 9. Results
    results = report.make_results(
        classifier, record, scores,
        seconds=round(time.perf_counter() - started, 3),
        seed=cfg.seed, device=device.describe(module.device), tags=settings["tags"],
        best_checkpoint=str(best) if best else None,
    )  # fmt: skip
    if trainer.is_global_zero:
        report.write(output, results, record)
        report.log_final(loggers, settings, scores)
        if cfg.save_backbone:
            report.save_body(classifier, Path(cfg.save_backbone))
        print(report.summary(results), f"{'folder':<10}{output}", sep="\n")
    return results


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float | None:
    """One job of Hydra's; a sweep over hyperparameters optimises what it returns."""
    return job.perform(run, cfg)


if __name__ == "__main__":
    launch.register_backbones()
    with launch.explained():
        sys.argv[1:] = launch.resume_arguments(sys.argv[1:])
        main()
