"""Names of folders: short, safe, telling, and never shared."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from thaw.jobs.job_folder import LONGEST, claim, folder_name

from thaw.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "fixed", "name"),
    [
        (["backbone=resnet18", "seed=1"], [], "3_backbone-resnet18_seed-1"),
        (["backbone=resnet18", "seed=1", "trainer=cpu"], ["trainer"], "3_backbone-resnet18_seed-1"),
        (["finetune.frozen.lr=1e-3", "finetune.unfrozen.lr=1e-2"], [],
         "3_frozen.lr-1e-3_unfrozen.lr-1e-2"),
        (["finetune.frozen.lr=1e-3"], [], "3_lr-1e-3"),
        (["lr=1", "optim.lr=2"], [], "3_lr-1_optim.lr-2"),
        (["+trainer.fast=true", "~callbacks.last="], [], "3_fast-true_last"),
        (["finetune.unfrozen.lr=0.00123456789"], [], "3_lr-0.001235"),
        (["data.root=/my photos/*: a", "head.hidden=[512,256]"], [],
         "3_root-my-photos-a_hidden-512-256"),
        (["data.root='größe'"], [], "3_root-gr-e"),
        ([], [], "3"),
    ],
)  # fmt: skip
def test_a_folder_says_what_differs(words: list[str], fixed: list[str], name: str) -> None:
    assert folder_name(3, words, fixed) == name
    parsed = OverridesParser.create().parse_overrides([f"ckpt_path=logs/{name}/last.ckpt"])
    assert parsed[0].value() == f"logs/{name}/last.ckpt"  # needs no quotes


def test_a_long_name_is_cut_and_still_tells_two_apart(tmp_path: Path) -> None:
    names = [folder_name(0, [f"tags={'x' * 300}{end}"]) for end in "ab"]
    assert names[0] != names[1]
    for name in names:
        assert len(name.encode()) == LONGEST
        (tmp_path / name).mkdir()


def test_processes_at_the_same_time_get_folders_of_their_own(tmp_path: Path) -> None:
    with ProcessPoolExecutor(8, mp_context=get_context("fork")) as pool:
        found = list(pool.map(claim, [tmp_path / "logs" / "2026-01-31_12-00-00"] * 40))
    assert len(set(found)) == 40
    names = {path.name for path in found}
    assert names == {"2026-01-31_12-00-00", *(f"2026-01-31_12-00-00_{n}" for n in range(2, 41))}


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/run: cannot be made .*paths\.root_dir"):
        claim(tmp_path / "file" / "run")
