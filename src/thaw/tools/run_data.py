"""The photos of a run, or other photos for its model."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from thaw import config, launch
from thaw.data.base import PhotoDataModule
from thaw.errors import ConfigError

READ = ("data", "paths")  # what a word may set here
# Of every source: these make loaders, views and draws for training, on which no test photo depends.
UNREAD = {field.name for field in fields(PhotoDataModule)}
UNREAD -= {"data_dir", "cache_dir", "classes", "groups", "skip"}


def run_of(model: Path) -> Path:
    """The folder of the run that a model folder or a checkpoint is of; else that folder itself."""
    path = model.expanduser().absolute()
    folder = path.parent if path.suffix == ".ckpt" else path
    is_part = folder.name in ("model", "checkpoints") and (folder.parent / ".hydra").is_dir()
    return folder.parent if is_part else folder


def data_of(run: Path, words: Sequence[str] = ()) -> PhotoDataModule:
    """The data module of a run, which says what its photos are; it makes no views of them.

    Args:
        run: The folder of a run, or the model folder or a checkpoint in it.
        words: Settings of train.py that change the test photos. With `data=pets` among them nothing
            of the run is read; without it they are added to the run's words.
    """
    for word in words:
        group, _, key = launch.key_of(word).partition(".")
        if group not in READ or (group == "data" and key in UNREAD):
            raise ConfigError(
                f"{word}: is not read here. Allowed is what chooses test photos: data=, data.*, "
                "paths.*; --batch-size says how many are computed at once, crop is the model's own"
            )
    saved = run_of(run) / ".hydra" / "hydra.yaml"
    replaced = {*map(launch.key_of, words), "resume", "ckpt_path"}
    own: list[str] = []
    if "data" not in replaced:
        if not saved.is_file():
            raise ConfigError(
                f"{run}: is no run's folder ({saved} is missing), so its photos are unknown; give "
                "the run's folder, or choose photos, as data=folder data.root=my/photos"
            )
        own = [word for word in launch.saved_words(saved) if launch.key_of(word) not in replaced]
    cfg = launch.compose_run([*own, *words])
    config.check_keys(cfg)
    return config.build(cfg.data, "data")
