"""What a setting means by layer groups: a name, the top of the body, a rule for their rates."""

from collections.abc import Collection, Mapping, Sequence

from thaw.backbones.groups import HEAD, LayerGroup
from thaw.errors import ConfigError, near

Groups = Sequence[LayerGroup]
Rates = Mapping[str, float]
Top = int | float | str | Sequence[str]


def layer_rates(
    groups: Sequence[LayerGroup],
    lr: float,
    *,
    lr_decay: float | None = None,
    min_lr_ratio: float | None = None,
    named: Mapping[str, float] | None = None,
    key: str = "finetune",
) -> dict[str, float]:
    """Layer-wise rates by name of the group.

    Args:
        groups: stem first, head last.
        lr: of the head.
        lr_decay: each group towards the stem has this share of the rate above it, 0-1
            (ULMFiT, arXiv:1801.06146, section 3.2; BEiT, arXiv:2106.08254).
        min_lr_ratio: instead, rates fall linearly from `lr` at the deepest group that sees an
            image (and at all behind it) to this share of it at the stem.
        named: rates that replace these, by the name of a group or of a module that holds some.
        key: where all of these stand in the configuration, for messages.

    Raises:
        ConfigError: a name that is no group's, a value out of its range, or both rules at once.
    """
    if lr_decay is not None and min_lr_ratio is not None:
        raise ConfigError(
            f"{key}.lr_decay={lr_decay} and {key}.min_lr_ratio={min_lr_ratio}: give one, "
            "exponential or linear rates, and set the other to null"
        )
    for name, value in (("lr_decay", lr_decay), ("min_lr_ratio", min_lr_ratio)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"{key}.{name}={value}: allowed is above 0 to 1, or null")
    for name, value in (named or {}).items():
        if not value > 0:
            raise ConfigError(f"{key}.rates.{name}={value}: allowed is a positive rate, like 1e-4")
    last = len(groups) - 1
    rates: dict[str, float] = {}
    for place, group in enumerate(groups):
        share = (lr_decay or 1.0) ** (last - place)
        if min_lr_ratio is not None:
            share = min_lr_ratio + (1 - min_lr_ratio) * group.depth
        rates[group.name] = lr * share
    for name, rate in (named or {}).items():
        rates.update(dict.fromkeys(find(groups, name, f"{key}.rates"), rate))
    return rates


def find(groups: Sequence[LayerGroup], name: str, key: str) -> list[str]:
    """Names of the groups that `name` means: itself, or all in the module of that name.

    Raises:
        ConfigError: none; with the nearest names, and `key` in front.
    """
    names = [group.name for group in groups]
    found = [known for known in names if known == name or known.startswith(f"{name}.")]
    if not found:
        raise ConfigError(
            f"{key}={name}: no such layer group{near(str(name), names)}. Allowed: "
            f"{', '.join(names)}"
        )
    return found


def top_of(groups: Groups, top: Top, key: str) -> set[str]:
    """Names of the groups that `top` means, with the head.

    Args:
        groups: stem first, head last.
        top: a number of body groups (2), a share of them (0.5), the name of the lowest, or a list.
        key: where it stands in the configuration, for messages.

    Raises:
        ConfigError: no such groups, or none.
    """
    body = [group.name for group in groups[:-1]]
    if isinstance(top, str):
        lowest = min(body.index(name) for name in find(groups[:-1], top, key))
        return {*body[lowest:], HEAD}
    if isinstance(top, int | float):
        number = top if isinstance(top, int) else round(top * len(body))
        if isinstance(top, bool) or not 1 <= number <= len(body):
            raise ConfigError(
                f"{key}={top}: allowed is a number of layer groups from 1 to {len(body)}, a share "
                f"of them up to 1.0 (as 0.5), the name of the lowest, or a list of names, of "
                f"{', '.join(body)}"
            )
        return {*body[len(body) - number :], HEAD}
    return {HEAD} | {found for name in top for found in find(groups, name, key)}


def check_named(
    groups: Groups, rates: Rates | None, trained: Collection[str], key: str = "finetune"
) -> None:
    """Refuses rates of groups that never train."""
    for name in rates or {}:
        if idle := set(find(groups, name, f"{key}.rates")) - set(trained):
            raise ConfigError(
                f"{key}.rates.{name}: has no effect, since {', '.join(sorted(idle))} stays frozen; "
                "leave it out"
            )
