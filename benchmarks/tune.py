"""Finds each peer's rates by validation accuracy, several trainings at once.

    python benchmarks/tune.py --data ../shared/data --device cuda --jobs 8 --out lite0.jsonl
    python benchmarks/tune.py ... --only timm,plain --seconds 400     starts nothing after that
    python benchmarks/tune.py --quick --out quick.jsonl               64 photos, 1 + 1 epochs
    python benchmarks/tune.py --out lite0.jsonl --seconds 0 --keep    the best into tuned.json

The grid is 3 rates of the head by 3 of the body: in the middle what the tool's own page uses
(`RATES` in job.py), then three times as much and a third, as people try rates. Where the best lies
on the edge, the grid goes on around it until the best is in the middle, so that no peer is held
to its page's values; at most `FAR` steps of three. All with --tuned, seed 0, and no look at
the test photos. A line of JSON a run; a run that is in the file already is left out.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from job import BACKBONES, RATES, fewer_photos

HERE = Path(__file__).resolve().parent
STEP = 3  # factor between neighbours of the grid
FAR = 3  # steps from the middle
LIMIT = 1800  # seconds for one run
Place = tuple[int, int]  # steps of the head's rate and of the body's from the middle
Runs = dict[str, dict[Place, float | None]]  # peer -> place -> val accuracy, None: failed


def around(centre: Place) -> list[Place]:
    """The 3 by 3 places there, the nearest first."""
    steps = sorted(itertools.product((0, -1, 1), repeat=2), key=lambda step: sum(map(abs, step)))
    places = [(centre[0] + head, centre[1] + body) for head, body in steps]
    return [place for place in places if max(map(abs, place)) <= FAR]


def best(runs: dict[Place, float | None]) -> Place | None:
    """The place with the highest accuracy, the first of equals; None: nothing ran."""
    done = {place: val for place, val in runs.items() if val is not None}
    return max(done, key=lambda place: done[place]) if done else None


def missing(runs: dict[Place, float | None]) -> list[Place]:
    """What the grid still lacks: the one around the middle, then the one around the best."""
    first = [place for place in around((0, 0)) if place not in runs]
    centre = best(runs)
    return first or [place for place in around(centre or (0, 0)) if place not in runs]


def rates(peer: str, place: Place) -> tuple[float, float]:
    """Of the head, of the body."""
    head, body = (middle * STEP**step for middle, step in zip(RATES[peer], place, strict=True))
    return float(f"{head:.3g}"), float(f"{body:.3g}")


def train(given: argparse.Namespace, peer: str, place: Place) -> dict:
    """Runs one; its line, with the error where it failed."""
    head, body = rates(peer, place)
    words = {"data": given.data, "backbone": given.backbone, "device": given.device,
             "head-rate": head, "body-rate": body, "seed": 0, "workers": 1,
             "frozen": given.frozen, "unfrozen": given.unfrozen}  # fmt: skip
    command = [sys.executable, str(HERE / f"peer_{peer}.py"), "--tuned", "--no-test"]
    command += [str(word) for key, value in words.items() for word in (f"--{key}", value)]
    started = time.time()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "BENCH_STARTED": str(started)}
    line = {"peer": peer, "backbone": given.backbone, "place": place, "head_rate": head,
            "body_rate": body}  # fmt: skip
    try:
        ended = subprocess.run(command, capture_output=True, text=True, env=environment,
                               timeout=LIMIT, check=True)  # fmt: skip
        line |= json.loads(ended.stdout.strip().splitlines()[-1])
    except subprocess.CalledProcessError as error:
        line["error"] = (error.stderr.strip().splitlines() or ["no output"])[-1]
    except subprocess.TimeoutExpired:
        line["error"] = f"no end after {LIMIT} s"
    return line


def read(file: Path, backbone: str) -> Runs:
    """What ran already; those that failed run again."""
    lines = file.read_text().splitlines() if file.exists() else []
    runs: Runs = {}
    for line in map(json.loads, lines):
        if line["backbone"] == backbone and "error" not in line:
            runs.setdefault(line["peer"], {})[tuple(line["place"])] = line["val"]
    return runs


def tune(given: argparse.Namespace) -> Runs:
    """Keeps `jobs` runs going, the peers in turn, until nothing is missing or time is up."""
    began = time.time()
    runs = {peer: {} for peer in given.only} | read(given.out, given.backbone)
    going: dict[Future, tuple[str, Place]] = {}
    with ThreadPoolExecutor(given.jobs) as pool:
        while True:
            turns = itertools.zip_longest(
                *([(peer, place) for place in missing(runs[peer])] for peer in given.only)
            )
            queue = [each for turn in turns for each in turn if each]
            queue = [each for each in queue if each not in going.values()]
            for peer, place in queue[: given.jobs - len(going)]:
                if time.time() - began < given.seconds:
                    going[pool.submit(train, given, peer, place)] = (peer, place)
            if not going:
                return runs
            for future in wait(going, return_when=FIRST_COMPLETED).done:
                peer, place = going.pop(future)
                line = future.result()
                runs[peer][place] = line.get("val")
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)


def summary(peer: str, runs: dict[Place, float | None]) -> dict | None:
    """What tuned.json says of a peer; `whole`: all neighbours of the best were measured."""
    if (place := best(runs)) is None:
        return None
    head, body = rates(peer, place)
    return {"head_rate": head, "body_rate": body, "val": runs[place], "runs": len(runs),
            "whole": not missing(runs)}  # fmt: skip


def options() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    data = os.environ.get("THAW_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=data, help="holds flowers-102/ and weights/")
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON a run")
    parser.add_argument("--backbone", choices=BACKBONES, default="lite0")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--only", default="timm,lightning,plain", help="peers, apart by commas")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="then starts no more")
    parser.add_argument("--quick", action="store_true", help="64 photos, 1 + 1 epochs")
    parser.add_argument("--keep", action="store_true", help="put the best into tuned.json")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if wrong := set(given.only) - set(RATES):
        parser.error(f"--only: {', '.join(wrong)} is no peer; allowed are {', '.join(RATES)}")
    given.frozen = given.unfrozen = 1 if given.quick else 5
    return given


def main() -> None:
    """Tunes, and prints the best of each peer."""
    given = options()
    with tempfile.TemporaryDirectory() as temporary:
        if given.quick:
            given.data = fewer_photos(given.data.resolve(), Path(temporary) / "data")
        runs = tune(given)
    found = {peer: record for peer in given.only if (record := summary(peer, runs[peer]))}
    print(json.dumps(found, indent=1))
    if given.keep:
        file = HERE / "tuned.json"
        tuned = json.loads(file.read_text(encoding="utf-8"))
        tuned.setdefault(given.backbone, {}).update(found)
        file.write_text(json.dumps(tuned, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
