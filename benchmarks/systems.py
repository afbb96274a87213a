"""Starts the trainings of proofs.py in processes of their own: thaw's and the others'."""

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from probe import DECAY, EPOCHS, LR, UNFREEZE, Run

HERE = Path(__file__).resolve().parent
LIMIT = 240  # seconds for one process
PEERS = {"lightning": "lightning", "fts": "finetuning-scheduler", "timm": "timm"}  # on PyPI
TITLES = {
    "thaw": "thaw",
    "lightning": "Lightning BackboneFinetuning (layer by layer: BaseFinetuning)",
    "fts": "finetuning-scheduler",
    "timm": "timm param_groups_layer_decay",
}

FALLING = "{_target_:hydra.utils.get_method,path:probe.falling}"


def _torch(name: str, settings: str) -> list[str]:
    target = f"_target_:torch.optim.lr_scheduler.{name},_partial_:true"
    return [f"finetune.unfrozen.schedule={{{target},{settings}}}"]


THAW_SCHEDULES: dict[str, list[str]] = {  # torch's own classes, which thaw moves once an epoch
    "LambdaLR": _torch("LambdaLR", f"lr_lambda:{FALLING}"),
    "StepLR": _torch("StepLR", "step_size:1,gamma:0.5"),
    "ExponentialLR": _torch("ExponentialLR", "gamma:0.95"),
    "CosineAnnealingLR": _torch("CosineAnnealingLR", "T_max:4"),
    "CosineAnnealingWarmRestarts": _torch("CosineAnnealingWarmRestarts", "T_0:2"),
    "OneCycleLR": _torch("OneCycleLR", f"max_lr:{LR},total_steps:4,cycle_momentum:false"),
    "ReduceLROnPlateau": [  # thaw reads the metric itself
        "finetune.unfrozen.schedule=plateau", "finetune.unfrozen.gamma=0.5",
        "finetune.unfrozen.patience=0",
    ],
}  # fmt: skip
RUNS = {  # "whole/epoch=3": the checkpoint that the run "whole" left after epoch 3
    "whole": Run(),
    "before": Run(resume="whole/epoch=0"),
    "after": Run(resume="whole/epoch=3"),
    "layers": Run(optimiser="sgd", layerwise=True),
    "ordinary": Run(ordinary=True),
    "inside": Run(ordinary=True, resume="ordinary/step=15"),
    "stopped": Run(stop_at=15),
    "continued": Run(resume="stopped"),
    "ddp1": Run(devices=2),
    "ddp2": Run(devices=2, accumulate=2),
    **{name: Run(optimiser="sgd", schedule=name) for name in THAW_SCHEDULES},
}
THAW_ONLY = ("stopped", "continued")
PLAIN = [
    "optim=sgd", "optim.momentum=0", "optim.nesterov=false", "optim.weight_decay=0",
    "trainer.gradient_clip_val=null", f"finetune.frozen.lr={LR}", f"finetune.unfrozen.lr={LR}",
    "finetune.unfrozen.warmup_epochs=0", f"finetune.lr_decay={DECAY}",
]  # fmt: skip


class FailedError(Exception):
    """A system that raised; the message is its first line."""


def thaw_command(run: Run, photos: Path) -> list[str]:
    """The command line of a run of thaw."""
    if run.resume and Path(run.resume).is_dir():
        return [sys.executable, str(HERE.parent / "train.py"), f"resume={run.resume}"]
    settings = [
        "~backbone", "+backbone._target_=probe.thaw_backbone", "data=folder",
        f"data.root={photos}", f"data.batch_size={4 // run.devices}", "data.num_workers=0",
        "trainer.log_every_n_steps=1", f"trainer.max_epochs={EPOCHS}", "callbacks=none",
        "logger=none", f"finetune.unfreeze_epoch={UNFREEZE}",
        "callbacks.checkpoint.save_top_k=-1", "callbacks.checkpoint.filename='epoch={epoch}'",
        f"hydra.run.dir={run.folder}", f"paths.root_dir={run.folder}", "test=false",
        "+callbacks.watch._target_=probe.Watch",
        f"+callbacks.watch.folder={run.folder}", f"+callbacks.watch.stop_at={run.stop_at}",
        f"trainer.accumulate_grad_batches={run.accumulate}",
    ]  # fmt: skip
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    settings += two if run.devices > 1 else ["trainer=cpu"]
    settings += PLAIN if run.optimiser == "sgd" else ["finetune.unfrozen.warmup_epochs=0.5"]
    settings += THAW_SCHEDULES[run.schedule] if run.schedule else []
    settings += ["finetune.unfrozen.schedule=constant"] if run.layerwise else []
    settings += [f"ckpt_path='{run.resume}'"] if run.resume else []
    return [sys.executable, str(HERE.parent / "train.py"), *settings]


class System:
    """Trains in processes of their own, each run once, and reads what the probe left."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder / name
        self.photos = self.folder / "photos"
        if name == "thaw" and not self.photos.exists():
            draw_photos(self.photos)

    def train(self, *names: str) -> None:
        """Those of `RUNS` that have not been trained yet."""
        if self.name != "thaw" and not names[0].startswith("ddp"):
            # starting a process takes longer than all of these together
            names = tuple(n for n, run in RUNS.items() if run.devices == 1 and n not in THAW_ONLY)
        todo = [self._prepare(n) for n in names if not (self.folder / n).exists()]
        if self.name == "thaw":
            for run in todo:
                self._call(run.folder, thaw_command(run, self.photos), fails=not run.stop_at)
        elif todo:
            file = Path(todo[0].folder) / "runs.json"
            file.write_text(json.dumps([asdict(run) for run in todo]))
            command = [sys.executable, str(HERE / "peers.py"), self.name, str(file)]
            self._call(todo[0].folder, command, fails=True)

    def _prepare(self, name: str) -> Run:
        run, folder = RUNS[name], self.folder / name
        folder.mkdir(parents=True)
        source, _, place = run.resume.partition("/")
        resume = run.resume and str(self.folder / source)
        if place:
            resume += f"/checkpoints/{place}.ckpt"
        return replace(run, folder=str(folder), resume=resume)

    def _call(self, folder: str, command: list[str], *, fails: bool) -> None:
        paths = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        error, started = Path(folder) / "error.txt", time.perf_counter()
        with (Path(folder) / "output.txt").open("w") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=HERE.parent,
                start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)  # ranks too
                error.write_text(f"no end after {LIMIT} s")
                return
        (Path(folder) / "seconds.txt").write_text(f"{time.perf_counter() - started:.1f}")
        if code and fails and not error.exists():
            lines = (Path(folder) / "output.txt").read_text().strip().splitlines()
            said = [line for line in lines if "Error" in line] or lines
            error.write_text(said[-1].strip() if said else f"exit status {code}")

    @property
    def seconds(self) -> float:
        """Of all its processes so far."""
        return sum(float(file.read_text()) for file in self.folder.glob("*/seconds.txt"))

    def check(self, name: str) -> None:
        """Raises FailedError if the run raised."""
        if (error := self.folder / name / "error.txt").exists():
            raise FailedError(error.read_text())

    def saw(self, name: str, rank: int = 0) -> dict[str, Any]:
        """What the probe saw in a run.

        Raises:
            FailedError: the run raised.
        """
        self.check(name)
        folder = self.folder / name
        if not (folder / f"rank{rank}.pt").exists():
            raise FailedError("the run left nothing")
        return torch.load(folder / f"rank{rank}.pt", weights_only=True)


def draw_photos(folder: Path) -> None:
    """Three classes of coloured noise; 24 pictures to train on."""
    generator = np.random.default_rng(0)
    for split, number in (("train", 8), ("val", 4), ("test", 4)):
        for label, name in enumerate(("red", "green", "blue")):
            target = folder / split / name
            target.mkdir(parents=True)
            for index in range(number):
                pixels = generator.integers(0, 160, (24, 24, 3), dtype=np.uint8)
                pixels[..., label] += 60
                Image.fromarray(pixels).save(target / f"{index}.png")


def versions(names: list[str]) -> dict[str, str]:
    """Of the systems with these names; of thaw the commit too.

    Raises:
        SystemExit: a package is missing; says how to install it.
    """
    found = {}
    for system in names:
        package = PEERS.get(system, "thaw")
        try:
            found[system] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise SystemExit(
                f"{package} is not installed; use `make proofs`, which puts it beside .venv"
            ) from None
    if "thaw" in found:
        git = ["git", "describe", "--always", "--dirty"]
        commit = subprocess.run(git, capture_output=True, text=True, cwd=HERE, check=False).stdout
        found["thaw"] += f" ({commit.strip()})"
    return found
