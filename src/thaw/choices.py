"""What can be chosen: the files of conf/, and backbones without a file or their library."""

import re
from collections.abc import KeysView
from importlib.metadata import distribution
from pathlib import Path

from hydra.core.config_store import ConfigNode, ConfigStore
from omegaconf import OmegaConf


def conf_dir() -> Path:
    """The folder conf/ of the current directory if that is a thaw project, else thaw's own."""
    here = Path.cwd()
    is_ours = (here / "conf" / "train.yaml").is_file() and (here / "train.py").is_file()
    return (here if is_ours else Path(__file__).resolve().parents[2]) / "conf"


def torchvision_names() -> list[str]:
    """Names of torchvision's classifiers, read from its source: importing it takes seconds."""
    folder = distribution("torchvision").locate_file("torchvision/models")
    pattern = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)
    text = "".join(file.read_text("utf-8") for file in Path(str(folder)).glob("*.py"))
    return sorted(pattern.findall(text))


class TimmNames(dict[str, ConfigNode]):
    """Any timm name is a choice; whether timm has it is checked when the backbone is built."""

    def __contains__(self, file: object) -> bool:
        return str(file).endswith(".yaml")

    def keys(self) -> KeysView[str]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {"<any name of timm>.yaml": None}.keys()

    def __missing__(self, file: str) -> ConfigNode:
        name = file.removesuffix(".yaml")
        node = OmegaConf.create({"defaults": ["/backbone/timm@_here_", "_self_"], "name": name})
        return ConfigNode(file, node, group="backbone/timm", package="backbone", provider="timm")


def register_backbones() -> None:
    """Makes each torchvision model and each `timm/<name>` a choice, as if it had a file."""
    store = ConfigStore.instance()
    # Hydra copies this store for each group that --help lists, which takes 3 of 4.3 seconds.
    ConfigStore.__deepcopy__ = lambda self, memo: self  # pyright: ignore[reportAttributeAccessIssue]
    for name in torchvision_names():
        node = {"defaults": ["torchvision", "_self_"], "name": name}
        store.store(group="backbone", name=name, node=node, provider="torchvision")
    store.repo["backbone"]["timm"] = TimmNames()
