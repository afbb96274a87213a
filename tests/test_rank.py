"""`thaw rank`: what it reads, what it leaves out, and that its files serve training."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.collections import PathCollection
from runs import ROOT, configuration, draw_photos

import train
from benchmarks import rank as order
from thaw import cli, launch
from thaw.data import dataset
from thaw.errors import ConfigError
from thaw.features.scores import Probe
from thaw.verbs.rank import Wish, read
from thaw.verbs.ranking import Scored, draw, front, report
from thaw.verbs.subject import backbone_of, word


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture
def words(photos: Path, tmp_path: Path) -> list[str]:
    return [
        "data=folder", f"data.root={photos}", "data.num_workers=0", "backbone.image_size=32",
        "trainer=cpu", f"paths.root_dir={tmp_path}", f"paths.cache_dir={tmp_path / 'cache'}",
    ]  # fmt: skip


def test_the_command_line() -> None:
    wish = read(["data=pets", "backbones=[a, b]", "weights.b=my file.pth", "seed=1", "backbones=c"])
    assert wish == Wish(
        {"a": ["backbone=a"], "b": ["backbone=b", "backbone.weights='my file.pth'"],
         "c": ["backbone=c"]},
        ["data=pets", "seed=1"],
    )  # fmt: skip


def test_a_folder_of_weights(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    (tmp_path / "b.safetensors").touch()
    wish = read(["backbones=a,b,c", f"weights_dir={tmp_path}", "weights.b=other.pth"])
    assert wish.chosen == {
        "a": ["backbone=a", f"backbone.weights={tmp_path}/a.pth"],
        "b": ["backbone=b", "backbone.weights=other.pth"],
        "c": ["backbone=c"],
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], r"^backbones: names none.*thaw rank data=pets"),
        (["backbones="], r"^backbones: names none"),
        (["backbone=resnet18"], r"^backbone=resnet18: .*backbones=resnet18,"),
        (["backbones=resnet18", "weights.resnt18=x"], r"^weights\.resnt18=x: .*mean resnet18\?"),
        (["backbones=a", "weights_dir=/nowhere"], r"^weights_dir=/nowhere: is no folder"),
        (["backbones=a", "weights_dir=/"], r"^weights_dir=/: has no file .* like a\.pth"),
    ],
)
def test_words_that_cannot_be_understood(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(given)


@pytest.mark.parametrize(
    "value", ["a b.pth", "it's.pth", "a,b.pth", "x=y.pth", r"a\b.pth", "a b\\"]
)
def test_a_value_that_hydra_would_take_apart_is_quoted(value: str, tmp_path: Path) -> None:
    cfg = configuration(tmp_path, word("backbone.weights", value))
    assert cfg.backbone.weights == value


def test_a_misspelt_backbone_stops_before_anything_is_measured(
    words: list[str], tmp_path: Path, capsys: Any
) -> None:
    with pytest.raises(SystemExit):
        cli.main(["rank", *words, "backbones=tiny,resnet81"])
    assert "resnet81" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_rank_from_end_to_end(
    words: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are ranked, one is left out with its reason; training then finds the features."""
    monkeypatch.chdir(ROOT)
    opened: set[str] = set()
    plain = dataset.decode
    monkeypatch.setattr(dataset, "decode", lambda path: opened.add(str(path)) or plain(path))
    nowhere = tmp_path / "squeezenet1_0.pth"
    cli.main(
        ["rank", *words, "backbones=tiny,squeezenet1_0,shufflenet_v2_x0_5",
         f"weights.squeezenet1_0={nowhere}", "weights.shufflenet_v2_x0_5=null"]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert f"left out: squeezenet1_0: backbone.weights={nowhere}: no such file" in printed
    assert len(opened) == 24 + 12  # training and validation
    assert not [path for path in opened if "/test/" in path]
    folder = Path(re.search(r"^folder  (.*)$", printed, re.MULTILINE)[1])  # pyright: ignore[reportOptionalSubscript]
    content = json.loads((folder / "rank.json").read_text())
    ranked = content["ranked"]
    assert ranked[0]["probe"] >= ranked[1]["probe"]
    assert {row["name"]: row["width"] for row in ranked} == {
        "tiny": 128, "shufflenet_v2_x0_5": 1024,
    }  # fmt: skip
    assert all(row["forward"] > row["training"] > 0 for row in ranked)
    assert set(content["failed"]) == {"squeezenet1_0"}
    assert (folder / "rank.png").stat().st_size > 10_000
    # the command for the winner, and the files that it finds
    command = shlex.split(content["command"])
    assert command[: 2 + len(words)] == ["python", "train.py", *words]
    assert command[2 + len(words)] == f"backbone={ranked[0]['name']}"
    assert content["command"] in printed
    cfg = configuration(
        tmp_path / "run", *command[2:], "finetune=feature_extraction", "finetune.views=1",
        "finetune.cache_features=true", "trainer.max_epochs=2", "callbacks=none", "logger=none",
        "test=false",
    )  # fmt: skip
    train.run(cfg)
    trained = capsys.readouterr().out
    assert "features from cache: train, 24 photos, 1 view each" in trained
    assert "features from cache: val, 12 photos, 1 view each" in trained


def test_one_that_does_not_fit_costs_the_others_nothing(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def measure(name: str, *_: Any) -> tuple[Scored, Probe]:
        if name == "cnn":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return replace(ONE, name=name), probed(8)

    monkeypatch.setattr("thaw.verbs.rank.measure", measure)
    cli.main(["rank", *words, "backbones=cnn,tiny"])
    printed = capsys.readouterr().out
    assert "cnn: left out, does not fit at data.batch_size=64 (CUDA out of memory.)" in printed
    assert "backbone=tiny" in printed.splitlines()[-2]


def test_the_backbone_is_cut_as_in_the_run(words: list[str]) -> None:
    cut = ["finetune=feature_extraction", "finetune.features_from=layer2", "backbone=tiny"]
    assert backbone_of(launch.compose_run([*words, *cut])).out_features == 40


def test_none_can_be_built(words: list[str], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        cli.main(["rank", *words, "backbones=tiny", f"weights.tiny={tmp_path}/none.pth"])
    assert "backbones=tiny: none of them can be built" in capsys.readouterr().err


ONE = Scored("one", "DEFAULT", 224, 11_200_000, 512, 0.8, 0.02, 0.7, 5, -0.3, 100.0, 30.0)


def probed(right: int) -> Probe:
    return Probe(right / 100, 0.1, torch.arange(100) < right)


def test_the_table_says_what_may_be_chance() -> None:
    found = [
        (ONE, probed(80)),
        (replace(ONE, name="two", probe=0.78), probed(78)),
        (replace(ONE, name="three", probe=0.5), probed(50)),
    ]
    lines = report(found, {"four": "no network"}).splitlines()
    assert [line.split()[1] for line in lines[2:5]] == ["one", "two", "three"]
    assert "2.0 ~" in lines[3]  # two photos in a hundred
    assert "30.0 " in lines[4]
    assert "~" not in lines[4]
    assert lines[-1] == "left out: four: no network"


def test_the_picture_has_each_backbone_once_in_its_own_style() -> None:
    """In both halves, at its place, and in the legend by rank."""
    many = [
        replace(ONE, name=f"net{place}", probe=0.9 - 0.02 * place, forward=100.0 * (place + 1))
        for place in range(12)
    ]
    figure = draw(many)
    legend = figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == [f"{place + 1}. net{place}" for place in range(12)]
    styles = [(line.get_color(), line.get_marker()) for line in legend.get_lines()]
    assert len(set(styles)) == 12
    for axes, field in zip(figure.axes, ("forward", "training"), strict=True):
        drawn = [part for part in axes.collections if isinstance(part, PathCollection)]
        places = [tuple(part.get_offsets()[0]) for part in drawn]
        assert places == [(1000 / getattr(net, field), net.probe) for net in many]


def test_the_line_is_of_those_that_nothing_beats() -> None:
    points = [(1.0, 0.5), (2.0, 0.4), (3.0, 0.7), (3.0, 0.6), (9.0, 0.7)]
    assert front(points) == [(1.0, 0.5), (3.0, 0.6), (3.0, 0.7)]


@pytest.mark.parametrize("verb", ["rank", "advise"])
def test_the_readmes_commands_are_understood(verb: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(rf"^thaw {verb} (.*?)(?:  #.*)?$", text, re.MULTILINE)
    assert commands
    for command in commands:
        words = shlex.split(command)
        wish = read(words) if verb == "rank" else Wish({"": []}, words)
        for chosen in wish.chosen.values():
            launch.compose_run([*wish.others, *chosen])


def test_the_measured_orders_are_those_of_the_page_and_the_readme() -> None:
    """benchmarks/rank.json, which benchmarks/rank.py writes."""
    known = json.loads((ROOT / "benchmarks" / "rank.json").read_text())
    text = "\n".join(order.page(known)) + "\n"
    assert (ROOT / "benchmarks" / "rank.md").read_text() == text
    flowers, pets, tiny = (
        [f"{order.tau(known[group], score):.2f}" for score in order.SCORES]
        for group in ("groups flowers102", "groups pets", "tiny")
    )
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"Kendall's tau {flowers[0]} and {pets[0]} (kNN {flowers[1]}, {pets[1]}; LogME "
        f"{flowers[2]}, {pets[2]}), on six small nets {tiny[0]} ({tiny[1]}; {tiny[2]})" in readme
    )
    assert all(order.tau(known["photos"], score) == 1 for score in order.SCORES)
