"""Errors that a user can mend, which are printed as one paragraph, and a run's interruption."""

import difflib
import errno
import os
from collections.abc import Collection, Iterable, Mapping
from signal import Signals

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO,
        errno.ENOTDIR, errno.EEXIST)  # fmt: skip


class ThawError(Exception):
    """Base of the errors that a user can mend; the message says how."""


class ConfigError(ThawError, ValueError):
    """A setting that cannot work: the message names the key, the value got and what is allowed."""


class PhotoError(ThawError):
    """A picture file that cannot be read."""


class DownloadError(ThawError):
    """A file that could not be fetched: no network, a broken transfer or a wrong checksum."""


class Interrupted(BaseException):
    """A signal asked this process to stop. No error, so `except Exception` lets it pass."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {Signals(number).name}")
        self.number = number


def reason(error: BaseException) -> str:
    """The message of an error that the user can mend; of another one its type and first line."""
    if isinstance(error, ThawError):  # a DataLoader's worker puts its stack in front of the message
        return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
    first = str(error).strip().partition("\n")[0].strip()
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def trouble(error: Exception) -> str | None:
    """What went wrong at a disk, in the memory or for Lightning, in words; None: another error."""
    for each in (error, error.__context__):  # torch says that "it failed", after the reason
        if any(os.strerror(number) in str(each) for number in DISK):
            said = str(each).rpartition("[Errno ")[2].partition("] ")[2] or each
            return f"{said}: make room, allow writing, or change paths.root_dir or paths.cache_dir"
    if type(error).__name__ == "MisconfigurationException":  # of Lightning, on a setting
        return str(error)
    if type(error).__name__ == "BrokenProcessPool":  # of `thaw check`, which keeps what it read
        return "a process that reads photos was killed (too little memory?); start again to go on"
    killed = "a process that loads photos was killed: lower data.num_workers or data.batch_size"
    return killed if "DataLoader worker (pid" in str(error) else None


def shown(value: object) -> str:
    """A value as it stands in a configuration file."""
    return "null" if value is None else str(value)


def check(fits: bool, key: str, value: object, allowed: str) -> None:
    """Refuses a value out of its range, by a ConfigError "key=value: allowed is ..."."""
    if not fits:
        raise ConfigError(f"{key}={shown(value)}: allowed is {allowed}")


def check_known(given: Mapping[str, object], known: Collection[str], prefix: str = "") -> None:
    """Refuses keys, which stand behind the prefix, that nothing reads, such as a typo."""
    for key in given:
        if key not in known:
            hint = f"{near(str(key), known)}. Allowed: {', '.join(known)}"
            raise ConfigError(f"{prefix}{key}={shown(given[key])}: nothing reads this key{hint}")


def near(word: str, known: Collection[str], places: Iterable[str] = ()) -> str:
    """ "; did you mean ...?" with the nearest known words, or the places that end in one."""
    found = difflib.get_close_matches(word, list(known), n=3)
    found = found or [each for each in known if len(word) > 2 and word in each][:3]
    exact = {word} & {*known} or {*found}
    found = [each for each in places if each.rpartition(".")[2] in exact][:4] or found
    return f"; did you mean {' or '.join(found)}?" if found else ""
