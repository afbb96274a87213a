"""Fine-tune a pretrained backbone on photos.

python train.py                                      tiny backbone, drawn flowers, offline
python train.py backbone=resnet50 data=flowers102    downloads both on first use
python train.py backbone=resnet18 data=folder data.root=my/photos    one folder a class
"""

import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from thaw import config, launch, store, sweeps
from thaw.errors import ConfigError

CONF = str(Path(__file__).resolve().with_name("conf"))  # so `train.main()` works from any folder


def run(cfg: DictConfig) -> dict[str, Any]:
    """Trains, tests and reports as `cfg` says; returns the content of results.json.

    The weights come from the checkpoint in `resume`, else from `ckpt_path` (both with the optimiser
    and the epoch), else from `backbone.weights`. With `backbone.weights=null` they are random.
    """
    # Imported here, not above: --help, --cfg and shell completion should not wait for torch.
    import lightning.pytorch as pl

    from thaw import model_folder, transforms
    from thaw.classifier import Classifier
    from thaw.data.splitting import in_proportion
    from thaw.finetune.rates import unfrozen_lr
    from thaw.report import run_files
    from thaw.training import checkpoints, device, ending, metrics
    from thaw.training.callbacks import ApplyPlan, CacheFeatures
    from thaw.training.module import TransferModule
    from thaw.training.record import Record

    # 1. Settings
    started, revision = time.perf_counter(), run_files.git_revision()
    config.check_keys(cfg)
    settings, output = config.plain(cfg), Path(cfg.paths.output_dir)
    if cfg.resume and not cfg.train:
        instead = f"use ckpt_path={cfg.resume}/checkpoints/best-...ckpt"
        raise ConfigError(f"resume={cfg.resume} train=false: would overwrite that run; {instead}")
    checkpoint = checkpoints.newest_whole(cfg.resume, settings) or cfg.ckpt_path
    if checkpoint:
        store.read_checkpoint(checkpoint)
    elif not cfg.train:
        raise ConfigError("train=false: needs a trained model to test; give ckpt_path=FILE")
    device.quiet_lightning()
    trainer_settings = device.trainer_settings(settings["trainer"], settings["backbone"])
    device.keep_freed_memory()
    pl.seed_everything(cfg.seed, workers=True, verbose=False)

    # 2. Backbone: it owns the input spec, so it comes before the data
    backbone = config.build(cfg.backbone, "backbone").cropped(cfg.data.get("crop", "center"))
    spec = backbone.input_spec

    # 3. Data
    data = config.build(
        cfg.data, "data", train_transform=config.build(cfg.augment, "augment", spec=spec),
        eval_transform=transforms.eval_transform(spec), shrink=transforms.Shrink(spec),
    )  # fmt: skip
    data.splits = in_proportion(data.splits, cfg.trainer, cfg.seed)
    validates = data.val is not None and cfg.trainer.limit_val_batches != 0

    # 4. Model
    sizes = {"in_features": backbone.out_features, "num_classes": len(data.classes)}
    classifier = Classifier(backbone, config.build(cfg.head, "head", **sizes))
    if cfg.compile:
        classifier.compile()  # in place: the names in checkpoints stay as they are
    model = model_folder.describe(backbone, settings, data.classes, data.licence)

    # 5. Plan: what trains when, at which rate
    mix = cfg.mix and config.build(cfg.mix, "mix", num_classes=len(data.classes))
    plan = config.build(
        cfg.finetune, "finetune", groups=classifier.groups, max_epochs=cfg.trainer.max_epochs,
        derived_lr=lambda epochs: unfrozen_lr(backbone, len(data.train), len(data.classes), epochs),
        mixes=mix is not None,
        limits_batches=bool(cfg.trainer.limit_train_batches or cfg.trainer.overfit_batches),
    )  # fmt: skip
    measured: Any = {"monitor": cfg.monitor, "validates": validates}
    plan.check(**measured, validate_every=cfg.trainer.check_val_every_n_epoch)
    trainer_settings |= {} if validates else {"limit_val_batches": 0}
    optim = device.optimizer_settings(settings["optim"], trainer_settings)
    taken = {"lr": "finetune.frozen.lr, finetune.unfrozen.lr", "params": "thaw itself"}
    make_optimizer = config.build(optim, "optim", taken=taken)
    module = TransferModule(
        classifier, plan, make_optimizer, classes=data.classes, monitor=cfg.monitor,
        normalise=transforms.normalise(spec), mix=mix, label_smoothing=cfg.label_smoothing,
        channels_last=device.uses_channels_last(backbone, cfg.trainer, len(data.train)),
        seed=cfg.seed, config=settings, model=model,
    )  # fmt: skip

    # 6. Trainer
    nodes = metrics.monitor_modes(settings["callbacks"], **measured)
    callbacks = config.build_all(nodes, "callbacks")
    record = Record(plan)
    notes = (f"backbone {backbone.name}, {backbone.weights}", backbone.licence, data.licence)
    cache = CacheFeatures(Path(cfg.paths.cache_dir).expanduser() / "features")
    loggers = list(config.build_all(settings["logger"], "logger").values())
    trainer: pl.Trainer = config.build(
        trainer_settings, "trainer", logger=loggers, plugins=checkpoints.WholeFiles(),
        callbacks=[ApplyPlan(notes), record, cache, ending.StopDiverged(), *callbacks.values(),
                   checkpoints.GracefulStop(output / "checkpoints")], enable_progress_bar=False,
    )  # fmt: skip

    # 7. Fit, then go back to the best epoch by the validation metric
    if cfg.train:
        checkpoint = ending.fit(trainer, module, data, checkpoint, record)
    scores = record.metrics_of(module.load_checkpoint(checkpoint) if checkpoint else None)

    # 8. Test: the split is read here and nowhere else
    if cfg.test and data.test is not None:
        trainer.test(module, data, verbose=False)
        scores |= {name: float(value) for name, value in trainer.callback_metrics.items()}

    # 9. Results
    results = run_files.make_results(
        classifier, record, scores, seconds=round(time.perf_counter() - started, 3),
        seed=cfg.seed, device=device.describe(trainer.strategy.root_device), git=revision,
        best_checkpoint=checkpoint and str(checkpoint), data=data, tags=settings["tags"],
    )  # fmt: skip
    if trainer.is_global_zero:
        model_folder.save_model(
            output / "model", classifier, model, temperature=module.temperature, metrics=scores,
            versions=results["versions"], git=revision,
        )  # fmt: skip
        run_files.write(output, results, record, data)
        if cfg.report:
            tested = {"photos": data.test, "test_predictions": module.test_predictions}
            config.build(cfg.report, "report", folder=output, **tested)
        run_files.log_final(loggers, settings, scores)
        print(run_files.summary(results, output))
    if record.error:
        raise record.error
    return results


@launch.command
@hydra.main(version_base="1.3", config_path=CONF, config_name="train")
def main(cfg: DictConfig) -> float | None:
    """The command line; a search over hyperparameters optimises the value that it returns."""
    return sweeps.perform(run, cfg)


if __name__ == "__main__":
    main()
