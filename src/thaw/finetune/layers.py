"""What a setting means by layer groups: a name, the top of the body, a rule for the rates."""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from thaw.backbones.groups import HEAD, LayerGroup
from thaw.errors import ConfigError, near

Groups = Sequence[LayerGroup]
Rates = Mapping[str, float]
Top = int | float | str | Sequence[str]


def layer_rates(
    groups: Groups,
    lr: float,
    *,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    named: Rates | None = None,
    key: str = "finetune",
) -> dict[str, float]:
    """Gives every layer group its learning rate.

    Args:
        groups: Layer groups, stem first, head last.
        lr: Rate of the head.
        lr_decay: Factor between a group and the next one towards the stem, 0-1 (ULMFiT,
            arXiv:1801.06146, section 3.2; BEiT, arXiv:2106.08254).
        min_lr_ratio: Rates fall linearly instead, from `lr` at the deepest group that sees an
            image (and at all groups behind it) to this share of `lr` at the stem.
        named: Rates that replace these, by the name of a group or of a module that holds groups.
        key: Where these settings stand in the configuration, for messages.

    Raises:
        ConfigError: A name that is no group's, a value out of its range, or both rules at once.
    """
    if lr_decay is not None and min_lr_ratio is not None:
        raise ConfigError(
            f"{key}.lr_decay={lr_decay} and {key}.min_lr_ratio={min_lr_ratio}: give one, "
            "exponential or linear rates, and set the other to null"
        )
    for name, value in (("lr_decay", lr_decay), ("min_lr_ratio", min_lr_ratio)):
        if value is not None and not (is_number(value) and 0 < value <= 1):
            raise ConfigError(f"{key}.{name}={value}: allowed is above 0 to 1, or null")
    if named is not None and not isinstance(named, Mapping):
        raise ConfigError(f"{key}.rates={named}: allowed is a mapping like {{layer4: 1e-4}}")
    last = len(groups) - 1
    rates: dict[str, float] = {}
    for place, group in enumerate(groups):
        share = (lr_decay or 1.0) ** (last - place)
        if min_lr_ratio is not None:
            share = min_lr_ratio + (1 - min_lr_ratio) * group.depth
        rates[group.name] = lr * share
    for name, rate in (named or {}).items():
        if not (is_number(rate) and rate > 0):
            raise ConfigError(f"{key}.rates.{name}={rate}: allowed is a positive rate, like 1e-4")
        rates.update(dict.fromkeys(groups_named(groups, name, f"{key}.rates"), rate))
    return rates


def groups_named(groups: Groups, name: str, key: str) -> list[str]:
    """Gives the names of the groups that `name` means: itself, or all in the module of that name.

    Args:
        groups: Layer groups to search.
        name: Name of a group or of a module.
        key: Where the name stands in the configuration, for messages.

    Raises:
        ConfigError: There is none; the message has the nearest names.
    """
    names = [group.name for group in groups]
    matches = [known for known in names if known == name or known.startswith(f"{name}.")]
    if not matches:
        raise ConfigError(
            f"{key}={name}: no such layer group{near(str(name), names)}. Allowed: "
            f"{', '.join(names)}"
        )
    return matches


def top_groups(groups: Groups, top: Top, key: str) -> set[str]:
    """Gives the names of the groups that train when the top of the body does, with the head.

    Args:
        groups: Layer groups, stem first, head last.
        top: A number of body groups (2), a share of them (0.5), the name of the lowest one, a list
            of names, or "classifier": the layers with which the weights' own classifier of several
            layers began (VGG, AlexNet, MobileNetV3).
        key: Where it stands in the configuration, for messages.

    Raises:
        ConfigError: There are no such groups.
    """
    body = [group.name for group in groups[:-1]]
    if top == "classifier":
        own = {group.name for group in groups if group.is_classifier}
        if not own:
            raise ConfigError(
                f"{key}=classifier: this backbone has a single last layer, and the head replaces "
                "it; use finetune=feature_extraction"
            )
        return own | {HEAD}
    if isinstance(top, str):
        lowest = min(body.index(name) for name in groups_named(groups[:-1], top, key))
        return {*body[lowest:], HEAD}
    if is_number(top):
        number = top if isinstance(top, int) else round(top * len(body))
        if not 1 <= number <= len(body):
            raise _bad_top(top, key, body)
        return {*body[len(body) - number :], HEAD}
    if not isinstance(top, Sequence):
        raise _bad_top(top, key, body)
    return {HEAD} | {match for name in top for match in groups_named(groups, name, key)}


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bad_top(top: object, key: str, body: list[str]) -> ConfigError:
    return ConfigError(
        f"{key}={top}: allowed is a number of layer groups from 1 to {len(body)}, a share of them "
        f"up to 1.0 (as 0.5), the name of the lowest, or a list of names, of {', '.join(body)}"
    )
