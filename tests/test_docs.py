"""README and docs/settings.md tell the truth: files exist, commands compose, targets are there."""

import json
import re
import shlex
import sys
from itertools import chain, zip_longest
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from runs import PLUGINS, ROOT, configuration

import thaw
import train
from thaw import config, launch

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for block in BLOCKS
        for line in block.splitlines()
        if line.startswith(("python train.py", "make "))
    }
)
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
TABLE = sorted(
    {
        setting
        for setting in re.findall(r"`('?[a-z_.]+=[^`]*)`", SETTINGS)
        if not any(mark in setting for mark in ("...", "<", "NAME", "resume="))  # patterns
    }
)


def overrides_of(command: str) -> list[str]:
    """Hydra overrides of a README command, without what only Hydra's own command line knows."""
    arguments = re.search(r'ARGS="(.*)"', command)
    words = shlex.split(arguments[1] if arguments else command.partition("train.py")[2])
    return [word for word in words if word not in ("-m", "--help") and "resume=" not in word]


@pytest.fixture(scope="module", autouse=True)
def backbones() -> None:
    launch.register_backbones()


def test_there_are_commands() -> None:
    assert len([command for command in COMMANDS if command.startswith("python")]) >= 4
    assert "make train" in COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command: str, tmp_path: Path) -> None:
    if command.startswith("make "):
        target = command.split()[1]
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for choice, plugin in PLUGINS.items():
        if choice in command:
            pytest.importorskip(plugin)
    chosen = []
    for override in OverridesParser.create().parse_overrides(overrides_of(command)):
        first = (
            next(iter(override.sweep_string_iterator())) if override.is_sweep_override() else None
        )
        chosen.append(f"{override.key_or_group}={first}" if first else override.input_line)
    cfg = configuration(tmp_path, *[word for word in chosen if word is not None])
    config.check_keys(cfg)


@pytest.mark.slow
def test_settings_of_the_table(tmp_path: Path) -> None:
    """Each setting that stands as code in the table composes; one of each group at a time."""
    groups: dict[str, list[list[str]]] = {}
    for words in map(shlex.split, TABLE):
        groups.setdefault(re.split("[.=]", words[0])[0], []).append(words)
    for together in zip_longest(*groups.values(), fillvalue=()):
        configuration(tmp_path, *chain(*together))


def test_the_file_tree_is_the_file_tree() -> None:
    tree = next(block for block in BLOCKS if "src/thaw/" in block)
    named = set(re.findall(r"^  (\w+\.py)", tree, re.MULTILINE))
    package = ROOT / "src" / "thaw"
    there = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert named <= there
    assert there - {"errors.py", "seeds.py"} <= set(re.findall(r"\w+\.py", tree))
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == rooms
    for top in re.findall(r"^(\S+)", tree, re.MULTILINE):
        assert (ROOT / top).exists(), top


def test_what_is_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/own.md: its files, written as it says, make a run."""
    text = (ROOT / "docs" / "own.md").read_text("utf-8")
    for path, content in re.findall(r"^```\w+\n# (\S+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    monkeypatch.syspath_prepend(tmp_path / "src")
    (tmp_path / "photos").mkdir()
    for n in range(12):
        Image.new("RGB", (80, 70), ("navy", "gold")[n % 2]).save(
            tmp_path / "photos" / f"{('cat', 'dog')[n % 2]}.{n}.jpg"
        )
    choices = ["data=by_name", "backbone=my_net", "head=cosine", "callbacks=shout"]
    cfg = configuration(
        tmp_path / "run", *choices, f"hydra.searchpath=[file://{tmp_path}/conf]",
        f"data.root={tmp_path}/photos", "data.test_fraction=0.2", f"paths.cache_dir={tmp_path}",
        "trainer=cpu", "trainer.max_epochs=2", "finetune.unfreeze_epoch=1", "logger=none",
    )  # fmt: skip
    results = train.run(cfg)
    assert results["status"] == "finished"
    assert "test/acc" in results
    assert re.search(r"validated [01]\.", capsys.readouterr().out)
    body, head = sys.modules["my_net"].my_net().body, sys.modules["cosine"].Cosine(16, 2)
    model = thaw.load(tmp_path / "run", body=body, head=head)
    assert model.predict([tmp_path / "photos" / "cat.0.jpg"])[0].label in ("cat", "dog")


def test_the_table_of_proofs_is_the_measured_one() -> None:
    """benchmarks/proofs.json, which `make proofs` writes."""
    table = json.loads((ROOT / "benchmarks" / "proofs.json").read_text())["table"]
    for name, row in table.items():
        verdicts = [row[system]["verdict"] for system in ("thaw", "lightning", "fts", "timm")]
        line = next(line for line in README.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")[1:]]
        assert cells == verdicts, name
