"""thaw models: the table and the picture."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from thaw import cli


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    cli.main(["models", *words])
    return capsys.readouterr().out.splitlines()


def test_a_table_of_some(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "squeezenet", "tiny*", "--sort", "size")
    assert [line.split()[0] for line in lines[2:5]] == ["tiny", "squeezenet1_1", "squeezenet1_0"]
    assert all("classifier.1 (Conv2d)" in line for line in lines[3:5])
    assert "58.18" in lines[3]  # torchvision's page of SqueezeNet 1.1
    assert "IMAGENET1K_V1 *" in lines[3]
    assert len({line.index("(") for line in lines[3:5]}) == 1, "columns are straight"
    assert "non-commercial research" in lines[-1]


def test_csv_can_be_read_back(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(printed(capsys, "swin_", "--format", "csv", "--max-params", "40")))
    assert {row["backbone"] for row in rows} == {"swin_t", "swin_v2_t"}
    assert float(rows[0]["parameters, M"]) == 28.29


def test_markdown_has_a_cell_for_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys, "vgg", "--format", "markdown", "--sort", "accuracy")
    table = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| vgg19_bn |")


def test_a_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed(capsys, "resnet", "--plot", str(tmp_path / "new" / "models.png"))
    with Image.open(tmp_path / "new" / "models.png") as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["resnet51"], "did you mean resnet50"),
        (["tiny*", "--max-params", "0.001"], "million parameters"),
        (["tiny*", "--plot", "a.png"], "published accuracy"),
        (["resnet18", "--plot", "a.docx"], "--plot a.docx: allowed are"),
    ],
)
def test_what_cannot_be_is_one_paragraph(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["models", *words])
    assert end.value.code == 1
    assert says in capsys.readouterr().err
