"""Ends runs at many moments, lets them go on, and compares them with one that was left alone.

python tests/kills.py 30 [seed]     # 30 times kill -9 at random moments, and at each named one

Each run is a fork of this process, which has imported everything, so that it takes a second or two.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fits import difference
from runs import SMALL, TWO_AND_TWO, draw_photos

import train
from thaw import model_folder, store
from thaw.classifier import Classifier
from thaw.report import run_files
from thaw.training import callbacks, checkpoints
from thaw.training.module import TransferModule

WORDS = (*(word for word in SMALL if not word.startswith("callbacks=")), *TWO_AND_TWO,
         "callbacks.last.every_seconds=0", "callbacks.progress=null", "finetune.cached_views=1",
         "head.dropout=0.3")  # fmt: skip

# where a run is ended: an object, its function, which call of it, and whether before or after it
MOMENTS: dict[str, tuple[Any, str, int]] = {
    "before fit": (model_folder, "describe", 1),
    "caching train": (Classifier, "features", 2),
    "caching val": (Classifier, "features", 8),
    "frozen": (TransferModule, "training_step", 8),
    "at the unfreeze": (callbacks.ApplyPlan, "on_train_epoch_start", 3),
    "unfrozen": (TransferModule, "training_step", 15),
    "validating": (TransferModule, "validation_step", 7),
    "saving best": (checkpoints.SaveBest, "on_train_epoch_end", 2),
    "saving last": (checkpoints.SaveLast, "on_train_epoch_end", 3),
    "writing a checkpoint": (os, "fsync", 4),
    "renaming a checkpoint": (Path, "replace", 7),
    "testing": (TransferModule, "test_step", 2),
    "model folder": (model_folder, "save_model", 1),
    "results": (run_files, "write", 1),
    "hyperparameters": (run_files, "log_final", 1),
}


def fork(words: Sequence[str], output: Path, before: Callable[[], None] = lambda: None) -> int:
    """Starts `python train.py` with these words, in a process group of its own; returns its id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setpgid(0, 0)
        log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1) for number in (1, 2))
        before()
        sys.argv = ["train.py", *words]
        try:
            train.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 71
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """The exit code; below 0: minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at(moment: str, act: Callable[[], None]) -> Callable[[], None]:
    """What makes a run do `act` at a named moment; give it to `fork`."""
    owner, name, number = MOMENTS[moment]

    def patch() -> None:
        plain, calls = getattr(owner, name), [0]

        def patched(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] == number:
                act()
            return plain(*arguments, **named)

        setattr(owner, name, patched)

    return patch


class Place:
    """A folder with drawn photos and a run of them that was left alone."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.folder, self.more = folder, more
        self.photos = draw_photos(folder / "photos")
        started = time.monotonic()
        assert self.run("whole") == 0, self.said("whole")
        self.seconds = time.monotonic() - started

    def words(self, name: str) -> list[str]:
        """The command of a run; of one that was begun, that which goes on with it."""
        run = self.folder / name
        if (run / ".hydra" / "hydra.yaml").is_file():
            return [f"resume={run}"]
        return [*WORDS, *self.more, f"data.root={self.photos}", f"hydra.run.dir={run}",
                f"paths.root_dir={self.folder}", f"paths.cache_dir={run}-cache"]  # fmt: skip

    def start(self, name: str, before: Callable[[], None] = lambda: None) -> int:
        return fork(self.words(name), self.folder / f"{name}.txt", before)

    def run(self, name: str, before: Callable[[], None] = lambda: None) -> int:
        return wait(self.start(name, before))

    def said(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text()

    def check_begun(self, name: str) -> None:
        """No file of an ended run is half a file that counts."""
        for path in (self.folder / name).glob("checkpoints/*.ckpt"):
            store.read_checkpoint(path)

    def check_ended(self, name: str) -> None:
        """The run has the bits of the whole one, and nothing lies about."""
        one, two = (store.read_checkpoint(self.folder / each / "checkpoints" / "last.ckpt")
                    for each in ("whole", name))  # fmt: skip
        assert difference(one["state_dict"], two["state_dict"]) == []
        assert difference(one["optimizer_states"], two["optimizer_states"]) == []
        files = [sorted(str(path.relative_to(self.folder / each))
                        for path in (self.folder / each).rglob("*") if path.is_file()
                        and path.suffix != ".lock" and ".hydra" not in path.parts)
                 for each in ("whole", name)]  # fmt: skip
        assert files[0] == files[1]
        assert not [*(self.folder / f"{name}-cache").rglob("*part")]


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def survives(place: Place, name: str, killed: int) -> None:
    assert killed in (0, -signal.SIGKILL), place.said(name)
    place.check_begun(name)
    assert place.run(name) == 0, place.said(name)
    place.check_ended(name)


def kill_at_random(place: Place, name: str, draw: random.Random) -> None:
    """kill -9 after a random part of the whole run's time, then goes on with it."""
    child = place.start(name)
    time.sleep(draw.uniform(0, 1) * place.seconds)
    os.kill(child, signal.SIGKILL)
    survives(place, name, wait(child))


def kill_at(place: Place, name: str, moment: str) -> None:
    survives(place, name, place.run(name, at(moment, kill)))


def main(number: int, seed: int) -> None:
    torch.set_num_threads(1)
    place, draw, lived = Place(Path(tempfile.mkdtemp(prefix="kills-"))), random.Random(seed), []
    print(f"the whole run: {place.seconds:.1f} s, in {place.folder}")
    tries = [(f"random {each}", lambda name: kill_at_random(place, name, draw))
             for each in range(number)]  # fmt: skip
    tries += [(moment, lambda name, moment=moment: kill_at(place, name, moment))
              for moment in MOMENTS]  # fmt: skip
    for title, attempt in tries:
        name = title.replace(" ", "-")
        try:
            attempt(name)
            lived.append(title)
        except (AssertionError, ValueError) as error:
            print(f"{title}: {str(error)[-600:]}")
    print(f"{len(lived)} of {len(tries)} survived")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
