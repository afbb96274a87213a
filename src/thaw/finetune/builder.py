"""Writes the phases of a run from the settings of conf/finetune/."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

from thaw.backbones.groups import HEAD, LayerGroup
from thaw.classifier import BatchNormMode, DepthwiseMode
from thaw.errors import check, near
from thaw.finetune.plan import Phase, Plan, make_phase, settings_of
from thaw.finetune.rates import is_number, is_whole

Groups = Sequence[LayerGroup]  # stem first, head last
Derived = Callable[[int], tuple[float, str]]  # epochs of a phase -> rate and reason
CACHED_VIEWS = 2  # as good as 4 after 5 + 5 epochs; 1 is worse by 0.7 points (benchmarks/LOG.md)


def build_plan(
    groups: Groups, max_epochs: int, *, mode: str,
    frozen: Mapping[str, Any] | None = None, unfrozen: Mapping[str, Any] | None = None,
    unfreeze_epoch: int | None = None, unfreeze_on_plateau: int | None = None,
    top: int | float | str | Sequence[str] | None = None, every_epochs: int | None = None,
    lr_decay: float | None = None, min_lr_ratio: float | None = None,
    rates: Mapping[str, float] | None = None,
    batchnorm: BatchNormMode | None = None, depthwise: DepthwiseMode | None = None,
    cache_features: Literal["auto"] | bool | None = None, cached_views: int | None = None,
    phases: Sequence[Mapping[str, Any]] | None = None,
    mixes: bool = False, limits_batches: bool = False, derived_lr: Derived = lambda _: (1e-3, ""),
) -> Plan:  # fmt: skip
    """Writes the plan of a run, or raises ConfigError at a setting that cannot work.

    freeze_unfreeze.yaml in conf/finetune/ explains the settings; `MODES` says which a mode has.
    `mixes` says whether mixup or CutMix is chosen. With `limits_batches`, an epoch has only some of
    the batches, and nothing is cached. `derived_lr` says what `unfrozen.lr=auto` is, and why.
    """
    settings, note = settings_of(mode, locals()), ""
    if (settings.get("unfrozen") or {}).get("lr") == "auto":
        start: Any = settings.get("unfreeze_epoch")
        fixed = is_whole(start) and not settings.get("unfreeze_on_plateau")  # or it comes early
        lr, why = derived_lr(max_epochs - start if fixed else max_epochs)
        settings["unfrozen"] = {**settings["unfrozen"], "lr": lr}
        note = f"\nfinetune.unfrozen.lr=auto is {lr:.1e} {why}"
    views = CACHED_VIEWS if cached_views is None else cached_views
    check(is_whole(views), "finetune.cached_views", views, "1 or more views, or null")
    in_list = mode == "phases"
    items = _read(phases, max_epochs) if in_list else _write(groups, max_epochs, settings)
    made: list[Phase] = []
    # Features can be cached only in phases before the first one that trains a part of the body.
    caches = bool(cache_features) and not limits_batches
    keys = [f"finetune.phases.{n}" if in_list else "finetune" for n in range(len(items))]
    tops = [top_groups(groups, each.top, f"{at}.top") for at, each in zip(keys, items, strict=True)]
    for key, phase, names in zip(keys, items, tops, strict=True):
        rates = layer_rates(groups, phase, key, {*chain(*tops)})
        # a scheduler of torch that does not fit the phase raises its error here
        phase.share(0, 1.0, epochs=phase.epochs, steps_per_epoch=1)
        caches, mix = caches and names == [HEAD], phase.mix and mixes
        own = views if phase.augment else 1
        saves = caches and not mix and (cache_features is True or phase.epochs > own)
        made.append(replace(
            phase, start=made[-1].end if made else 0, rates={name: rates[name] for name in names},
            mix=mix, cached_views=own if saves else 0,
        ))  # fmt: skip
    return Plan(mode, tuple(group.name for group in groups), tuple(made), note=note)


def _write(groups: Groups, max_epochs: int, settings: Mapping[str, Any]) -> list[Phase]:
    """Turns the settings that a mode has into a list of phases."""
    plateau, start = settings.get("unfreeze_on_plateau"), 0
    phases: list[Phase] = []
    if "frozen" in settings:
        head = make_phase(settings["frozen"], "finetune.frozen", name="frozen", top=0,
                          epochs=max_epochs, end_on_plateau=plateau)  # fmt: skip
        if "unfrozen" not in settings:
            return [head]
        start = settings["unfreeze_epoch"]
        rule = f"a whole number from 1 to {max_epochs - 1}, below trainer.max_epochs={max_epochs}; "
        rule += "else use finetune=feature_extraction (never unfreeze) or finetune=full (at once)"
        check(is_whole(start) and start < max_epochs, "finetune.unfreeze_epoch", start, rule)
        phases.append(replace(head, epochs=start))
    body = make_phase(
        settings["unfrozen"], "finetune.unfrozen", name="unfrozen", epochs=max_epochs - start,
        rates=settings.get("rates") or {},
        **{name: settings.get(name, "train") for name in ("batchnorm", "depthwise")},
        **{name: settings.get(name) for name in ("top", "lr_decay", "min_lr_ratio")},
    )  # fmt: skip
    if "every_epochs" not in settings:
        return [*phases, body]
    every, order = settings["every_epochs"], top_groups(groups, body.top, "finetune.top")[::-1]
    number = len(order) - 1  # groups of the body that are unfrozen, one after another
    check(number > 0, "finetune.top", body.top, "1 or more layer groups to unfreeze, or null (all)")
    last = start + (number - 1) * every if is_whole(every) else max_epochs
    rule = f"1 or more epochs, so that {number} groups start after epoch {start} and before epoch "
    rule += f"{max_epochs}; raise trainer.max_epochs, or unfreeze fewer with finetune.top=<group>"
    check(last < max_epochs, "finetune.every_epochs", every, rule)
    for end, name in enumerate(order[1:-1], start=2):
        part = {"name": name, "top": order[:end], "epochs": every, "end_on_plateau": plateau}
        phases.append(replace(body, **part))
    return [*phases, replace(body, name=order[-1], top=order, epochs=max_epochs - last)]


def _read(phases: Any, max_epochs: int) -> list[Phase]:
    """Checks the list that the user writes."""
    fits = isinstance(phases, list | tuple) and len(phases) > 0
    check(fits, "finetune.phases", phases, "a list of one phase or more, like [{lr: 1e-3}]")
    made: list[Phase] = []
    left = max_epochs
    for number, given in enumerate(phases, start=1):
        key, is_last = f"finetune.phases.{number - 1}", number == len(phases)
        phase = make_phase(given, key)
        epochs = phase.epochs or (left if is_last else 0)
        allowed = f"{left}, or none, in the last phase" if is_last else f"1 to {left - 1}"
        fits = is_whole(epochs) and (epochs == left if is_last else epochs < left)
        check(fits, f"{key}.epochs", phase.epochs,
              f"{allowed}; {left} of trainer.max_epochs={max_epochs} are left")  # fmt: skip
        plateau, name = phase.end_on_plateau, phase.name or f"phase {number}"
        allowed = "null in the last phase; callbacks=early_stopping ends a run early"
        check(plateau is None or not is_last, f"{key}.end_on_plateau", plateau, allowed)
        check(all(name != other.name for other in made), f"{key}.name", name, "a name of its own")
        made.append(replace(phase, name=name, epochs=epochs))
        left -= epochs
    return made


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
        place, own = f"{key}.rates.{name}", groups_named(groups, str(name), f"{key}.rates")
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
    check(bool(matches), key, name, f"a layer group: {', '.join(names)}{near(str(name), names)}")
    return matches


def top_groups(groups: Groups, top: object, key: str) -> list[str]:
    """Gives the names of the groups that train when the top of the body does, with the head.

    `top`, at `key`, is a number of body groups (2), a share (0.5), the name of the lowest one, a
    list of names, or "classifier": the layers with which the weights' own classifier of several
    layers began (VGG, AlexNet). 0: the head alone, None: everything.
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
