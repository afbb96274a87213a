"""What pyproject.toml puts into the wheel."""

import tomllib

from runs import ROOT


def test_the_wheel_has_every_file_that_code_reads() -> None:
    """Python files are in it anyway."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packed = {
        file
        for package, patterns in settings["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for file in (ROOT / "src" / package.replace(".", "/")).glob(pattern)
    }
    there = {
        file
        for file in (ROOT / "src" / "thaw").rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts
    }
    assert there
    assert there - packed == set()
