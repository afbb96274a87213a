"""What a setting means by layer groups: a name, the top of the body, a rule for the rates."""

from collections.abc import Collection, Sequence

from thaw.backbones.groups import HEAD, LayerGroup
from thaw.errors import ConfigError, check, near
from thaw.finetune.phases import Phase
from thaw.finetune.schedule import is_number

Groups = Sequence[LayerGroup]  # stem first, head last


def layer_rates(
    groups: Groups, phase: Phase, key: str = "finetune", trained: Collection[str] | None = None
) -> dict[str, float]:
    """Gives every layer group its learning rate in a phase, whose settings stand at `key`.

    The head has `lr`. With `lr_decay`, each group has this share of the rate of the one above it
    (ULMFiT, arXiv:1801.06146, section 3.2). With `min_lr_ratio`, rates fall linearly with depth,
    from `lr` at the deepest group that sees an image to this share of it at the stem. `rates`
    replaces these, by the name of a group, or of a module that holds groups, of those that are ever
    `trained` (None: all).
    """
    decay, ratio = phase.lr_decay, phase.min_lr_ratio
    for name, share in (("lr_decay", decay), ("min_lr_ratio", ratio)):
        fits = share is None or (is_number(share, 0, 1) and share > 0)
        check(fits, f"{key}.{name}", share, "above 0 to 1, or null")
    allowed = f"null beside lr_decay={decay}; set one of the two"
    check(decay is None or ratio is None, f"{key}.min_lr_ratio", ratio, allowed)
    rates: dict[str, float] = {}
    for place, group in enumerate(groups, start=1 - len(groups)):
        share = (decay or 1.0) ** -place if ratio is None else ratio + (1 - ratio) * group.depth
        rates[group.name] = phase.lr * share
    for name, rate in (phase.rates or {}).items():
        place, own = f"{key}.rates.{name}", groups_named(groups, name, f"{key}.rates")
        check(is_number(rate) and rate > 0, place, rate, "a positive rate, like 1e-4")
        if trained is not None:
            allowed = f"no rate for a group that never trains; {', '.join(sorted(trained))} train"
            check(not {*own}.isdisjoint(trained), place, rate, allowed)
        rates |= dict.fromkeys(own, rate)
    return rates


def groups_named(groups: Groups, name: str, key: str) -> list[str]:
    """Gives the names of the groups that `name` means: its own, or all in the module of it."""
    names = [group.name for group in groups]
    matches = [known for known in names if known == name or known.startswith(f"{name}.")]
    if not matches:
        raise ConfigError(
            f"{key}={name}: no such layer group{near(name, names)}. Allowed: {', '.join(names)}"
        )
    return matches


def top_groups(groups: Groups, top: object, key: str) -> list[str]:
    """Gives the names of the groups that train when the top of the body does, with the head.

    `top`, which stands at `key`, is a number of body groups (2), a share of them (0.5), the name of
    the lowest one, a list of names, or "classifier": the layers with which the weights' own
    classifier of several layers began (VGG, AlexNet). 0: the head alone, None: everything.
    """
    names = [group.name for group in groups]
    if top == "classifier":
        own = [group.name for group in groups if group.is_classifier]
        allowed = "not this with a backbone of a single last layer, which the head replaces; use "
        check(bool(own), key, top, allowed + "finetune=feature_extraction")
        return [*own, HEAD]
    if isinstance(top, str):
        return names[min(map(names.index, groups_named(groups[:-1], top, key))) :]
    if isinstance(top, list | tuple):
        wanted = {match for name in top for match in groups_named(groups, name, key)} | {HEAD}
        return [name for name in names if name in wanted]
    most = len(names) - 1
    number = most if top is None else round(top * most) if isinstance(top, float) else top
    allowed = f"a number of layer groups to {most}, a share (0.5), a name or a list of names, of "
    check(is_number(number, 0, most), key, top, allowed + ", ".join(names[:-1]))
    return names[most - int(number) :]  # pyright: ignore[reportArgumentType]
