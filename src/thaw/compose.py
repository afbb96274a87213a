"""The configuration of a run without the run, for tools and notebooks."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from thaw.errors import ConfigError
from thaw.launch import check_choices, conf_dir, in_words, register_backbones


def compose_run(words: Sequence[str]) -> DictConfig:
    """The configuration of `python train.py <words>`, with paths.output_dir=null."""
    register_backbones()
    try:
        check_choices(words)
        with initialize_config_dir(str(conf_dir().resolve()), version_base="1.3"):
            return compose("train", [*words, "paths.output_dir=null"])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(in_words(error, words)) from error
