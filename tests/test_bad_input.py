"""Wrong settings: each is told in one paragraph, with the key, the value and what is allowed."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from runs import ROOT, SMALL, TWO_AND_TWO, draw_photos

import train
from thaw import config, launch
from thaw.compose import compose_run
from thaw.errors import ConfigError

# A command line's words, and what must be said of them besides the key and the value given.
WRONG = """
seed=-1                                   | whole number
seed=abc                                  | whole number
seed=1.5                                  | whole number
seed=                                     | whole number
seed=null                                 | whole number
seed=true                                 | whole number
seed=99999999999                          | whole number
seed=[1]                                  | whole number
task_name=../../evil                      | name
task_name=/tmp/evil                       | name
task_name=                                | name
task_name=null                            | name
task_name=[a]                             | name
tags=abc                                  | list
tags={a:1}                                | tags={a:1}
monitor=acc                               | val/acc
monitor=test/acc                          | val/acc
monitor=null                              | val/acc
monitor=[val/acc]                         | val/acc
train=maybe                               | true or false
train=null                                | true or false
train=1                                   | true or false
train=false                               | ckpt_path=FILE
test=maybe                                | true or false
test=0                                    | true or false
compile=maybe                             | true or false
compile=null                              | true or false
label_smoothing=2                         | 0 to
label_smoothing=-0.1                      | 0 to
label_smoothing=abc                       | 0 to
label_smoothing=nan                       | 0 to
label_smoothing=null                      | 0 to
label_smoothing=1                         | 0 to
ckpt_path=/nowhere/last.ckpt              | no such file
ckpt_path=README.md                       | checkpoint
ckpt_path=3                               | a path
resume=/nowhere                           | no run to go on from
resume=src                                | no run to go on from
foo=1                                     | has no foo
+foo=1                                    | nothing reads this key
lr=1e-3                                   | finetune.frozen.lr
epochs=3                                  | trainer.max_epochs
batch_size=8                              | data.batch_size
optim.lr=0.1                              | finetune.frozen.lr
+optim.lr=0.1                             | finetune.frozen.lr
backbone=resnet999                        | did you mean resnet
backbone=                                 | no such choice
backbone=../../etc                        | _target_
backbone.name=resnet18                    | has no name
backbone.weights=/nowhere.pth             | no such file
backbone.weights=README.md                | DEFAULT
backbone.weights=IMAGENET1K_V9            | DEFAULT
backbone.weights=3                        | text
backbone.weights=[a]                      | text
backbone.weights=true                     | text
backbone.image_size=100000                | pixels
backbone.image_size=64.5                  | pixels
backbone.image_size=[64,64]               | pixels
backbone.image_size=7                     | pixels
backbone.image_size=0                     | pixels
backbone.image_size=-1                    | pixels
backbone.image_size=abc                   | pixels
backbone.image_size=true                  | pixels
backbone.granularity=fine                 | stage
backbone.granularity=3                    | stage
backbone._target_=thaw.nothing            | cannot be found
backbone._target_=3                       | cannot be found
backbone=cnn backbone.weights=null backbone.image_size=8 | 22
head=linaer                               | did you mean linear
head=                                     | no such choice
head.dropout=1.5                          | 0 to below 1
head.dropout=-1                           | 0 to below 1
head.dropout=abc                          | number
head.dropout=null                         | number
head.dropout=[0.1]                        | number
head.init=ones                            | zeros
head.init=3                               | zeros
head.hidden=512                           | has no hidden
head=mlp head.hidden=512                  | list
head=mlp head.hidden=[0]                  | list of whole
head=mlp head.hidden=[a]                  | list of whole
head=mlp head.hidden=[99999999999]        | 1 to 65536
head=mlp head.hidden=[true]               | list of whole
head=mlp head.hidden=[1.5]                | list of whole
head=mlp head.hidden=null                 | list
head=mlp head.norm=group                  | batch
head=mlp data.batch_size=1                | 2 or more
data=imagenet                             | did you mean|csv
data=flowers                              | did you mean flowers102
data.root=/nowhere                        | is no folder
data.root=README.md                       | folder
data.root=3                               | a path
data.batch_size=0                         | 1 or more
data.batch_size=-4                        | 1 or more
data.batch_size=4.5                       | whole number
data.batch_size=abc                       | whole number
data.batch_size=null                      | whole number
data.num_workers=5000                     | 0 to
data.num_workers=-1                       | 0
data.num_workers=abc                      | 0
data.num_workers=1.5                      | 0
data.val_fraction=2                       | 0 to below 1
data.val_fraction=abc                     | number
data.val_fraction=0.2                     | photos of its own
data.folds=1                              | 2 or more
data.folds=abc                            | whole number
data.fold=3                               | data.folds
data.train_per_class=0                    | 1 or more
data.train_per_class=1000                 | 8
data.train_per_class=abc                  | whole number
data.balanced=maybe                       | true or false
data.cache=disk                           | none, ram
data.crop=left                            | center
data.crop=3                               | center
data.classes=red                          | list
data.classes=[pink]                       | two or more
data.classes=[]                           | list
data.groups=3                             | text
data.groups='('                           | regular expression
data.skip=/nowhere.txt                    | no such file
data.seed=-1                              | whole number
data.seed=abc                             | whole number
data.test_fraction=1                      | 0 to below 1
data.rooot=x                              | did you mean root?
data=csv data.csv=/nowhere.csv            | allowed is a file
data=flowers102 data.split=half           | official
data=pets data.target=colour              | breed
data=demo data.train_pictures=0           | 1 to 30
data=demo data.train_pictures=x           | 1 to 30
augment=strnog                            | did you mean strong
augment.crop_scale=[0.5]                  | a list of 2
augment.crop_scale=[1,0.5]                | [low, high]
augment.crop_scale=[a,b]                  | a list of 2
augment.crop_scale=0.5                    | a list of 2
augment.horizontal_flip=2                 | 0 to 1
augment.horizontal_flip=x                 | number
augment.rotation=900                      | 0 to 180
augment.rotation=[1,2]                    | number
augment.shear=-5                          | 0 to 60
augment.color_jitter=x                    | number
augment.color_jitter=3                    | 0 to 1
augment.policy=auto                       | trivial
augment.erasing=-1                        | 0 to 1
mix=mixup mix.mixup_alpha=-1              | above 0
mix=mixup mix.mixup_alpha=abc             | number
mix=mixup mix.mixup_alpha=null            | give one
mix=mxup                                  | did you mean mixup
mix.mixup_alpha=0.2                       | choose mix=
mix={a:1}                                 | no such choice
finetune=freeze                           | did you mean freeze_unfreeze
finetune.mode=freeze                      | freeze_unfreeze
finetune.unfreeze_epoch=0                 | whole number
finetune.unfreeze_epoch=99                | whole number
finetune.unfreeze_epoch=1.5               | whole number
finetune.unfreeze_epoch=abc               | whole number|whole number
finetune.frozen.lr=abc                    | rate
finetune.frozen.lr=inf                    | rate
finetune.frozen.lr=1e9                    | rate
finetune.frozen.lr=-1                     | rate
finetune.frozen.lr=0                      | rate
finetune.frozen.lr=nan                    | rate
finetune.frozen.lr=null                   | rate
finetune.frozen.lr=auto                   | rate
finetune.frozen.lr=[1e-3]                 | rate
finetune.unfrozen.lr=abc                  | rate
finetune.unfrozen.schedule=triangle       | cosine
finetune.unfrozen.schedule={_target_:torch.optim.lr_scheduler.StepLR,_partial_:true} | step_size
finetune.unfrozen.schedule={_target_:torch.optim.lr_scheduler.StepLR} | optimizer
finetune.unfrozen.schedule={_target_:os.getcwd} | scheduler
finetune.unfrozen.warmup_epochs=-1        | 0 or more
finetune.unfrozen.warmup_epochs=abc       | 0 or more
finetune.unfrozen.gamma=0.5               | null with this schedule
finetune.unfrozen.schedule=step finetune.unfrozen.step_epochs=0 | epochs
finetune.unfrozen.augment=maybe           | true or false
finetune.lr_decay=2                       | 0
finetune.lr_decay=abc                     | 0|number
finetune.lr_decay=-1                      | 0
finetune.min_lr_ratio=0.1                 | lr_decay
finetune.rates=[1,2]                      | mapping
finetune.rates={nosuch:1e-3}              | layer
finetune.rates={layer4:abc}               | rate
finetune.batchnorm=off                    | eval
finetune.depthwise=off                    | frozen
finetune.cache_features=maybe             | auto
finetune.cached_views=0                   | 1 or more
finetune.phases=5                         | phases
finetune=phases finetune.phases=5         | list
finetune=phases finetune.phases=[]        | list
finetune=phases finetune.phases=[{lr:abc}] | rate
finetune=phases finetune.phases=[{lr:1e-3,epochs:99}] | epochs
finetune=partial finetune.unfreeze_epoch=2 finetune.top=nosuch      | layer
finetune=partial finetune.unfreeze_epoch=2 finetune.top=[nosuch]    | layer
finetune=partial finetune.unfreeze_epoch=2 finetune.top=-1          | layer
finetune=partial finetune.unfreeze_epoch=2 finetune.top=1.5         | layer
finetune=gradual finetune.every_epochs=0  | 1 or more
finetune.top=2                            | partial
finetune.unfreeze_on_plateau=0            | 1 or more
optim=lion                                | adamw
optim=sdg                                 | did you mean sgd
optim.weight_decay=-1                     | 0 or more
optim.weight_decay=abc                    | 0 or more
optim.weight_decay=nan                    | 0 or more
optim.betas=[2,3]                         | beta
optim.betas=0.9                           | a list of 2
optim.betas=[0.9]                         | a list of 2
optim.fused=maybe                         | true or false
optim=adamw optim.momentum=0.9 | has no momentum
optim=sgd optim.momentum=-1               | momentum
optim=sgd optim.momentum=abc              | number
optim=sgd optim.momentum=0                | Nesterov
optim=adamw +optim.eps=-1 | epsilon
optim=adamw +optim.amsgrad=perhaps                    | true or false
trainer=tpu                               | did you mean|cpu
trainer.precision=fp7                     | 32-true
trainer.precision=fp16                    | 16-mixed
trainer.precision=[16]                    | 32-true
trainer.devices=0                         | Trainer(devices=0)
trainer.devices=-1                        | int > 0
trainer.devices=[0,1]                     | int > 0
trainer.devices=99                        | 1 to 8
trainer.devices=abc                       | int > 0
trainer.devices=1.5                       | whole number
trainer.accelerator=quantum               | cpu
trainer.accelerator=tpu                   | cpu
trainer.accelerator=gpu                   | cpu or auto
trainer.accelerator=null                  | cpu
+trainer.strategy=fsdp                    | ddp
+trainer.strategy=[ddp]                   | ddp
trainer.max_epochs=0                      | 1 or more
trainer.max_epochs=-1                     | 1 or more
trainer.max_epochs=1.5                    | 1 or more
trainer.max_epochs=abc                    | 1 or more
trainer.max_epochs=null                   | 1 or more
trainer.min_epochs=abc                    | whole number
trainer.gradient_clip_val=x               | 0
trainer.gradient_clip_val=-1              | 0
trainer.gradient_clip_val=nan             | 0
+trainer.gradient_clip_algorithm=abc      | norm
trainer.accumulate_grad_batches=0         | 1 or more
trainer.accumulate_grad_batches=1.5       | 1 or more
trainer.accumulate_grad_batches={4:2}     | 1 or more
trainer.limit_train_batches=0             | whole number
trainer.limit_train_batches=2.5           | whole number
trainer.limit_train_batches=-1            | whole number
trainer.limit_train_batches=abc           | whole number
trainer.limit_val_batches=-1              | whole number
trainer.limit_val_batches=1.5             | whole number
trainer.limit_test_batches=x              | whole number
trainer.overfit_batches=-1                | whole number
trainer.overfit_batches=1.5               | whole number
trainer.sync_batchnorm=maybe              | true or false
trainer.log_every_n_steps=-1              | 0 or more
trainer.log_every_n_steps=abc             | 0 or more
trainer.num_sanity_val_steps=-5           | -1
trainer.check_val_every_n_epoch=0         | 1 or more
trainer.check_val_every_n_epoch=null      | 1 or more
trainer.deterministic=maybe               | true or false
trainer.benchmark=maybe                   | true or false
trainer.max_epoch=3                       | did you mean max_epochs
trainer.default_root_dir=[a]              | text
+trainer.max_time=abc                     | max_time
+trainer.max_steps=-7                     | max_steps
+trainer.enable_checkpointing=false       | enable_checkpointing
+trainer.fast_dev_run=maybe               | true or false
+trainer.profiler=nosuch                  | simple
+trainer.logger=false                     | thaw itself
+trainer.callbacks=[]                     | thaw itself
+trainer.plugins=abc                      | plugins
+trainer.num_nodes=0                      | num_nodes
callbacks=early                           | did you mean early_stopping
callbacks.checkpoint.save_top_k=-5        | -1
callbacks.checkpoint.save_top_k=abc       | -1
callbacks.checkpoint.monitor=val/loss     | monitor=val/loss
callbacks.checkpoint.filename=3           | text
+callbacks.checkpoint.every_n_epochs=-1   | every_n_epochs
+callbacks.checkpoint.every_n_epoch=2     | did you mean every_n_epochs
+callbacks.checkpoint.mode=up             | mode
callbacks.last.every_seconds=abc          | 0 or more
callbacks.last.every_seconds=-1           | 0
+callbacks.mine=5                         | _target_
+callbacks.mine={_target_:lightning.pytorch.callbacks.ModelCheckpont} | cannot be found
callbacks=default callbacks.first_batch.images=0  | 1 or more
callbacks=default callbacks.first_batch.images=x  | 1 or more
callbacks=early_stopping callbacks.early_stopping.patience=-1   | 0 or more
callbacks=early_stopping callbacks.early_stopping.patience=abc  | 0 or more
callbacks=early_stopping callbacks.early_stopping.monitor=acc   | val/acc
callbacks=early_stopping callbacks.early_stopping.min_delta=x   | number
callbacks=ema callbacks.ema.decay=1       | above 0
callbacks=ema callbacks.ema.decay=abc     | number
logger=tensorbord                         | did you mean tensorboard
logger=false                              | no such choice
logger=[tensorboard,nosuch]               | no such choice
logger=tensorboard logger.tensorboard.save_dir=5 | text
logger=tensorboard logger.tensorboard.flush_secs=x | has no flush_secs
report=fsat                               | did you mean fast
report=fast report.full=maybe             | true or false
report=fast report.fulll=true             | did you mean full
paths.data_dri=x                          | did you mean data_dir
paths=null                                | no such choice
paths.cache_dir=null                      | path|folder
paths.root_dir=3                          | path|folder
experiment=nosuch                         | no such choice
debug=overfitt                            | did you mean overfit
hparams_search=optun                      | did you mean optuna
launcher=slrum                            | did you mean slurm
seed=1,2                                  | -m
seed=1 seed=2 backbone=tiny backbone=cnn  | chosen twice
+seed=1                                   | seed=1
~nothing                                  | nothing
seed                                      | KEY=VALUE
head.dropout=[                            | head.dropout=[
optim=[adam,sgd]                          | one of the files
backbone=[resnet18,resnet34]              | one of the files
mix=[mixup,cutmix]                        | one of the files
finetune=[full,partial]                   | one of the files
-m optim=[adam,sgd]                       | one of the files
optim=ADAM                                | adamw
data=                                     | no such choice
logger=[]                                 | logger=none
callbacks=[]                              | callbacks=none
~callbacks                                | is gone
~optim                                    | is gone
~tags                                     | is gone
~finetune.mode                            | is needed
~data._target_                            | _target_
++optim.lr=0.1                            | finetune.frozen.lr
++seed=0x10                               | whole number
ckpt_path=                                | a path
ckpt_path=/dev/zero                       | no such file
ckpt_path=/tmp                            | no such file
data.root=                                | a path
data.root=/dev/null                       | is no folder
data=csv data.csv=                        | a path
data.skip=                                | a path
label_smoothing=1e400                     | 0 to
label_smoothing=.inf                      | 0 to
label_smoothing=2020-01-01                | 0 to
label_smoothing='0.1'                     | 0 to
finetune.frozen.lr=-0.0                   | rate
finetune.frozen.lr=1e-400                 | rate
finetune.frozen.lr={a:1}                  | rate
finetune.rates={1:1e-3}                   | layer
finetune.unfreeze_epoch=true              | whole number
finetune.unfrozen=[a]                     | mapping|ListConfig
data.batch_size=true                      | whole number
data.fold=-0.0                            | whole number
data.classes=[red,red]                    | different
data.cache=RAM                            | none, ram
data._target_=thaw.data.folder            | cannot be found
optim._target_=[a]                        | cannot be found
optim=sgd optim.momentum=nan              | 0 to 1
optim=sgd optim.momentum=5                | 0 to 1
+optim.eps=1e400                          | finite
trainer.precision=16-MIXED                | 16-mixed
trainer.limit_train_batches=true          | whole number
+trainer.max_time={minutes:nan}           | finite
+callbacks.mine={_target_:lightning.pytorch.callbacks.BackboneFinetuning} | finetune=
callbacks=default callbacks.checkpoint.filename=../../evil | without /
callbacks=default callbacks.checkpoint.filename=/tmp/evil  | without /
callbacks=default callbacks.checkpoint.filename='best-{epoch'  | closed
=3                                        | =3
"""
ROWS = [
    pytest.param(*map(str.strip, row.rsplit(" | ", 1)), marks=[pytest.mark.slow] * (place % 3 > 0))
    for place, row in enumerate(WRONG.strip().splitlines())
]  # all of them take a minute


class Accepted(Exception):  # noqa: N818  the opposite of an error
    """The run would begin to train."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@functools.cache  # most rows differ from one command in the value of a setting
def composed(*words: str) -> DictConfig:
    return compose_run(words)


def configured(photos: Path, words: list[str]) -> DictConfig:
    """What train.py would get of a command, by the shortest way."""
    given = {launch.key_of(word) for word in words}
    groups = {"data": ("data",), "finetune": TWO_AND_TWO}
    other = {key for group in given & {*groups} for key in map(launch.key_of, groups[group])}
    base = [word for word in (*SMALL, *TWO_AND_TWO, f"data.root={photos}")
            if launch.key_of(word) not in given | other
            and not ("data" in given and word.startswith("data.root"))]  # fmt: skip
    *first, last = words
    common = composed(*base, *first)
    missing = object()
    there = "." in last and OmegaConf.select(common, launch.key_of(last), default=missing)
    if there is False or there is missing or last[0] in "+~":
        return composed.__wrapped__(*base, *words)
    cfg = common.copy()
    value = OverridesParser.create().parse_override(last).value()
    OmegaConf.update(cfg, launch.key_of(last), value, merge=False)
    return cfg


def told(photos: Path, output: Path, words: list[str]) -> str:
    """What a command is refused with, before it trains."""
    with pytest.raises(ConfigError) as error:  # noqa: PT012  whichever step tells it
        words = launch.resume_words(words)
        launch.check_choices(words)
        cfg = configured(photos, words)
        cfg.paths.output_dir = str(output)
        train.run(cfg)
    return str(error.value)


@pytest.mark.parametrize(("command", "need"), ROWS)
def test_a_wrong_setting_is_told(
    command: str, need: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(self: pl.Trainer, module: pl.LightningModule, *_: object, **__: object) -> None:
        module.configure_optimizers()
        raise Accepted

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    words = command.split()
    said = told(photos, tmp_path, words)
    assert re.search("|".join(map(re.escape, need.split("|"))), said), said
    assert launch.key_of(words[-1]).rpartition(".")[2] in said
    assert "\n" not in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("word", ["seed=${seed}", "seed=${nosuch}", "seed=${oc.env:NO_SUCH}"])
def test_what_stands_for_nothing_is_told(word: str) -> None:
    with pytest.raises(OmegaConfBaseException) as error:
        config.check_keys(compose_run([word]))
    assert re.search(
        r"^seed: .*; give a value without \$\{\.\.\.\}$", launch.in_words(error.value, [])
    )


@pytest.mark.parametrize("word", ["hydra.run.dir=", "paths.output_dir=/tmp/x"])
def test_the_folder_of_a_run_has_one_name(
    word: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", word, f"paths.root_dir={tmp_path}"])
    with pytest.raises(SystemExit):
        train.main()
    assert "hydra.run.dir" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("command", ["seed=abc", "task_name=../../evil", "trainer.devices=99"])
def test_a_wrong_setting_ends_the_command_line(command: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(ROOT / "train.py"), command, "trainer=cpu",
                           f"paths.root_dir={tmp_path}"], capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"\nerror: {command}: allowed is ")
    assert done.stderr.count("\n") == 2
    assert not (tmp_path.parent / "evil").exists()
