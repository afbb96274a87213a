"""`thaw serve` on loopback: the same answers as thaw.load gives, and what it stands.

    python benchmarks/serving.py ../runs/lite0            # a finished run whose photos are there

First all photos of the run's test split go through POST /predict and through `thaw.load(run)
.predict`. Then clients that each wait for their answer send one photo a request. Clients and server
share the machine.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
import requests

import thaw
from thaw.tools.evaluate import data_of

THAW = "from thaw.cli import main; raise SystemExit(main())"
WARM_UP = 1000  # requests, until all threads and sizes of a batch have had their turn


@contextmanager
def serving(run: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The address and the process of a server."""
    words = [sys.executable, "-c", THAW, "serve", str(run), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found, "the server did not start"
        try:
            yield found[0], psutil.Process(server.pid)
        finally:
            server.terminate()


def ask(session: requests.Session, address: str, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The answer to one request with these photos."""
    files = [("photos", (path.name, path.read_bytes())) for path in paths]
    answer = session.post(f"{address}/predict", files=files, timeout=120)
    answer.raise_for_status()
    return answer.json()


def parity(run: Path, paths: list[Path]) -> dict[str, float]:
    """Labels and probabilities of all photos, served and not."""
    began = time.perf_counter()
    expected = thaw.load(run).predict(paths)
    alone = time.perf_counter() - began
    session = requests.Session()
    with serving(run) as (address, _), ThreadPoolExecutor(4) as clients:
        began = time.perf_counter()
        groups = [paths[start : start + 32] for start in range(0, len(paths), 32)]
        answers = clients.map(lambda group: ask(session, address, group), groups)
        found = [each for answer in answers for each in answer]
        served = time.perf_counter() - began
    pairs = list(zip(found, expected, strict=True))
    return {
        "photos": len(pairs),
        "same label": sum(ours["label"] == theirs.label for ours, theirs in pairs),
        "largest difference of a probability": max(
            abs(top["probability"] - theirs.probabilities[top["label"]])
            for ours, theirs in pairs for top in ours["top"]
        ),
        "photos a second, served": len(pairs) / served,
        "photos a second, thaw.load": len(pairs) / alone,
    }  # fmt: skip


def load(run: Path, paths: Sequence[Path], number: int, clients: int) -> dict[str, Any]:
    """Requests a second, latency in milliseconds, and the server's memory in MiB."""
    seconds: list[float] = []
    errors = 0

    def client(share: Sequence[Path]) -> None:
        nonlocal errors
        with requests.Session() as session:
            for path in share:
                began = time.perf_counter()
                try:
                    errors += "error" in ask(session, address, [path])[0]
                except requests.RequestException:
                    errors += 1
                seconds.append(time.perf_counter() - began)

    def all_clients(number: int) -> float:
        seconds.clear()
        photos = list(islice(cycle(paths), number))
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, (photos[start::clients] for start in range(clients))))
        return time.perf_counter() - began

    with serving(run) as (address, process):
        all_clients(WARM_UP)
        before = process.memory_info().rss
        spent = all_clients(number)
        after = process.memory_info().rss
    return {
        "requests": number, "clients": clients, "errors": errors,
        "requests a second": round(number / spent, 1), "p50": round(1000 * median(seconds), 1),
        "p95": round(1000 * quantiles(seconds, n=20)[-1], 1),
        "memory before": before >> 20, "memory after": after >> 20,
    }  # fmt: skip


def main() -> None:
    """Prints a line of JSON for each measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    test = data_of(given.run).test
    assert test is not None, "the run has no test split"
    paths = list(test.paths)
    print(json.dumps(parity(given.run, paths)), flush=True)
    for _ in range(given.repeats):
        print(json.dumps(load(given.run, paths, given.requests, given.clients)), flush=True)


if __name__ == "__main__":
    main()
