"""Names of groups: what differs, in as few words as say it."""

from thaw.compare.names import distinguish


def test_what_differs_and_nothing_else() -> None:
    rows = [{"lr": rate, "epochs": 10, "head.dropout": 0.1} for rate in (0.1, 0.01)]
    assert distinguish(rows, ()) == ["lr=0.1", "lr=0.01"]
    assert distinguish(rows[:1], ()) == ["all"]


def test_what_follows_from_a_choice_is_not_told() -> None:
    rows = [
        {"backbone.name": "vit_b_16", "backbone": "vit_b_16", "backbone.image_size": 224},
        {"backbone.name": "resnet18", "backbone": "resnet18", "backbone.image_size": None},
        {"backbone.name": "resnet18", "backbone": "resnet18", "backbone.image_size": 160},
    ]
    assert distinguish(rows[:2], {"backbone"}) == ["backbone=vit_b_16", "backbone=resnet18"]
    assert distinguish(rows, {"backbone"}) == [
        "backbone=vit_b_16, backbone.image_size=224",
        "backbone=resnet18, backbone.image_size=null",
        "backbone=resnet18, backbone.image_size=160",
    ]


def test_what_was_typed_is_told_though_it_follows() -> None:
    """Else the table would say that only the backbones differ."""
    rows = [{"backbone": "a", "optim.lr": 0.1}, {"backbone": "b", "optim.lr": 0.2}]
    assert distinguish(rows, {"backbone", "optim.lr"}) == [
        "backbone=a, optim.lr=0.1", "backbone=b, optim.lr=0.2",
    ]  # fmt: skip
    # a mapping that was typed holds it; a choice of a file does not
    assert distinguish(rows, {"backbone", "optim"}) == ["backbone=a", "backbone=b"]
    nested = [{"backbone": "a", "f.rates.x": 1}, {"backbone": "b", "f.rates.x": 2}]
    assert distinguish(nested, {"backbone", "f.rates"}) == [
        "backbone=a, f.rates.x=1", "backbone=b, f.rates.x=2",
    ]  # fmt: skip


def test_a_missing_setting_counts_as_null() -> None:
    assert distinguish([{"a": 1}, {"a": 1, "b": None}], ()) == ["all", "all"]
    assert distinguish([{"a": 1}, {"a": 1, "b": 2}], ()) == ["otherwise", "b=2"]


def test_long_values_are_cut_where_that_leaves_them_apart() -> None:
    paths = [{"weights": f"/some/where/{name}.pth"} for name in "ab"]
    assert distinguish(paths, ()) == ["weights=a.pth", "weights=b.pth"]
    alike = [{"weights": f"/{folder}/w.pth"} for folder in "ab"]
    assert distinguish(alike, ()) == ["weights=/a/w.pth", "weights=/b/w.pth"]
    lists = [{"phases": [{"start": start, "groups": "x" * 60}]} for start in (1, 2)]
    names = distinguish(lists, ())
    assert names[0].startswith('phases=[{"groups":"xxx')
    assert names[0] != names[1]


def test_choices_come_first_in_a_fixed_order() -> None:
    rows = [{"z": i, "finetune": i, "data": i, "optim.lr": i, "backbone": i} for i in (0, 1)]
    typed = set(rows[0])
    assert distinguish(rows, typed)[0] == "data=0, backbone=0, finetune=0, z=0, optim.lr=0"
