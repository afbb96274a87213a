"""What became of a run: status.json in its folder, and a lock that ends with its process.

A process that is killed writes nothing more, but the system takes its lock away: a status that says
"running" beside a free lock is that of a killed run, on whichever machine it ran.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from thaw.errors import ConfigError, Interrupted, reason
from thaw.store import write_json

State = Literal["running", "finished", "pruned", "failed", "stopped", "killed"]
DONE: tuple[State, ...] = ("finished", "pruned")  # not to be run again
WAIT = 2.0  # seconds; `is_held` has the lock for an instant


@dataclass(frozen=True)
class Status:
    """What status.json holds.

    Attributes:
        state: "stopped" by Ctrl-C or SIGTERM; "killed" is never written, but found by `read`.
        overrides: settings of the command line.
        job: number in its sweep; None for a run of its own.
        value: of the monitored metric, at the best epoch.
        error: why it failed, one paragraph.
        started, ended: ISO 8601, of the last go.
        host, pid: of the process.
    """

    state: State = "running"
    overrides: tuple[str, ...] = ()
    job: int | None = None
    value: float | None = None
    error: str | None = None
    started: str = ""
    ended: str | None = None
    host: str = ""
    pid: int = 0

    @property
    def seconds(self) -> float | None:
        """From start to end; None while it has none."""
        if self.ended is None:
            return None
        both = (datetime.fromisoformat(text) for text in (self.started, self.ended))
        begin, end = both
        return (end - begin).total_seconds()


def read(folder: Path) -> Status | None:
    """The status of a run's folder; None where no run has begun.

    Raises:
        ConfigError: status.json is none of thaw's.
    """
    file = folder / "status.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        names = [field.name for field in fields(Status)]  # another version may write more
        known = {name: content[name] for name in names if name in content}
        state, overrides = content["state"], tuple(content["overrides"])
        status = Status(**{**known, "state": state, "overrides": overrides})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: is no status of a run ({error}); move it away") from error
    if status.state == "running" and not is_held(folder):
        again = json.loads(file.read_text(encoding="utf-8"))["state"]  # it may have ended meanwhile
        return replace(status, state="killed") if again == "running" else read(folder)
    return status


def is_held(folder: Path) -> bool:
    """Whether a living process has the lock; also where one may not ask, in another's folder."""
    file = folder / "status.lock"
    if not file.exists():
        return False
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except OSError:  # Timeout is one; in a folder that is read-only the status is taken at its word
        return True
    lock.release()
    return False


def write(folder: Path, status: Status) -> None:
    """Writes status.json, whole or not at all."""
    write_json(asdict(status), folder / "status.json")


def keep(
    folder: Path, status: Status, work: Callable[[], Mapping[str, Any]], monitor: str
) -> float | None:
    """Does the work of a run, and writes down before and after what becomes of it.

    Args:
        folder: of the run.
        status: its overrides and number.
        work: gives what results.json holds.
        monitor: which of that is the run's value.

    Returns:
        That value; None where the run has none.

    Raises:
        ConfigError: another process is at work in the folder.
        BaseException: what the work raised.
    """
    with hold(folder / "status.lock", f"{folder}: another process is at work on this run"):
        status = replace(
            status, state="running", started=now(), host=socket.gethostname(), pid=os.getpid()
        )
        write(folder, status)
        try:
            results = work()
        except (Interrupted, KeyboardInterrupt, SystemExit):
            write(folder, replace(status, state="stopped", ended=now()))
            raise
        except BaseException as error:
            write(folder, replace(status, state="failed", error=reason(error), ended=now()))
            raise
        state: State = "pruned" if results.get("pruned") else "finished"
        value = results.get(monitor)
        write(folder, replace(status, state=state, value=value, ended=now()))
        return value


@contextmanager
def hold(file: Path, refusal: str) -> Iterator[None]:
    """Has a lock meanwhile.

    Args:
        file: of the lock; its folder is made.
        refusal: what to say where another process has it.

    Raises:
        ConfigError: another process has it.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        raise ConfigError(f"{refusal}; wait until it ends, or stop it") from None
    try:
        yield
    finally:
        lock.release()


def now() -> str:
    """The time, with its zone, to the millisecond."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
