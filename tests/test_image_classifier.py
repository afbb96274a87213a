"""A trained model in use: what `predict` takes, checkpoints, and what is imported for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from runs import SMALL, configuration, draw_photos
from test_model_folder import CLASSES, photo, save, tiny

import thaw
import train
from thaw.backbones.backbone import Crop
from thaw.backbones.tiny import tiny_backbone
from thaw.backbones.torchvision_backbone import torchvision_backbone
from thaw.data.decode import decode
from thaw.errors import ConfigError, PhotoError
from thaw.image_classifier import ImageClassifier
from thaw.transforms import eval_transform, normalise


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ImageClassifier:
    return thaw.load(tiny(tmp_path_factory.mktemp("model")))


def test_predict_takes_paths_pictures_and_tensors(tmp_path: Path, model: ImageClassifier) -> None:
    paths = [photo(tmp_path / f"{number}.png", number, (40, 40 + number)) for number in range(5)]
    by_path = model.predict(paths, batch_size=2)
    assert model.predict([str(path) for path in paths], batch_size=2) == by_path
    assert model.predict([Image.open(path) for path in paths], batch_size=2) == by_path
    assert model.predict([decode(path) for path in paths], batch_size=2) == by_path
    (alone,) = model.predict(paths[3])
    assert alone.label == by_path[3].label
    for prediction in by_path:
        values = [*prediction.probabilities.values()]
        assert values == sorted(values, reverse=True)
        assert sum(values) == pytest.approx(1)
        assert (prediction.label, prediction.probability) == (
            next(iter(prediction.probabilities)), values[0],
        )  # fmt: skip
    views = torch.stack([model.transform(decode(path)) for path in paths])
    best = model(views).argmax(1).tolist()
    assert [prediction.label for prediction in by_path] == [CLASSES[label] for label in best]
    assert model.predict([]) == []


def test_predict_takes_batches_and_lists_of_batches(tmp_path: Path, model: ImageClassifier) -> None:
    """In one order, whatever they come in: the answers are those of the files."""
    paths = [photo(tmp_path / f"{number}.png", number) for number in range(4)]
    expected = model.predict(paths)
    assert len({prediction.probability for prediction in expected}) == 4
    batch = torch.stack([decode(path) for path in paths])  # N 3 H W
    assert model.predict(batch) == expected
    assert model.predict([batch[:3], paths[3]]) == expected
    assert model.predict(iter(paths)) == expected  # as of Path.glob


@pytest.mark.parametrize(
    "what",
    [
        torch.zeros(3, 9, 9), torch.zeros(9, 9, 3).byte(), torch.zeros(2, 2, 3, 9, 9).byte(),
        torch.zeros(9, 9).byte(), 7, b"photo", None, [None], np.zeros((9, 9, 3), np.uint8),
    ],
)  # fmt: skip
def test_predict_refuses_what_is_no_photo(model: ImageClassifier, what: Any) -> None:
    """Of a float tensor nobody knows what 1 means, of an array what its colours are."""
    with pytest.raises(TypeError, match=r"no photo: .*uint8 \(3, H, W\) or \(N, 3, H, W\) in RGB"):
        model.predict(what)


def test_predict_names_what_is_wrong(tmp_path: Path, model: ImageClassifier) -> None:
    """Batches of nothing, a broken photo, and Pillow's numbers without a white."""
    for size in (0, -1):
        with pytest.raises(ConfigError, match=rf"batch_size={size}: allowed is 1 or more"):
            model.predict(photo(tmp_path / "a.png"), batch_size=size)
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(PhotoError, match=r"cut\.jpg"):
        model.predict(tmp_path / "cut.jpg")
    for mode in ("F", "I"):
        with pytest.raises(PhotoError, match=rf"mode {mode} have.*give a whole one"):
            model.predict(Image.new(mode, (9, 9)))


@pytest.mark.parametrize("crop", get_args(Crop))
def test_a_model_makes_photos_square_as_it_was_trained(tmp_path: Path, crop: Crop) -> None:
    backbone = tiny_backbone(weights=None, image_size=32).cropped(crop)
    classifier = save(tmp_path / "model", backbone)
    path = photo(tmp_path / "long.png", size=(30, 90))
    view = eval_transform(backbone.input_spec)(decode(path))
    scores = classifier.to(memory_format=torch.channels_last)(  # pyright: ignore
        normalise(backbone.input_spec)(view[None])
    )
    model = thaw.load(tmp_path)
    assert model.input_spec.crop == crop
    (prediction,) = model.predict(path)
    values = [prediction.probabilities[name] for name in CLASSES]
    assert values == pytest.approx((scores / 0.5).softmax(1)[0].tolist(), abs=1e-6)


def test_a_checkpoint_is_a_model(tmp_path: Path) -> None:
    """With its own weights and temperature; the best one is what the run's model folder has."""
    photos = draw_photos(tmp_path / "photos")
    settings = (*SMALL, f"data.root={photos}", "callbacks=ema", "callbacks.progress=null",
                "head=mlp", "finetune=full", "data.crop=pad", "trainer.max_epochs=1")  # fmt: skip
    train.run(configuration(tmp_path / "run", *settings))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    folder = thaw.load(tmp_path / "run")
    (best,) = (tmp_path / "run" / "checkpoints").glob("best*.ckpt")
    loaded = thaw.load(best)
    assert (loaded.classes, loaded.input_spec) == (folder.classes, folder.input_spec)
    assert loaded.temperature == folder.temperature
    assert loaded.facts["licences"] == folder.facts["licences"]
    with torch.no_grad():
        assert torch.equal(loaded(images), folder(images))
        file = tmp_path / "run" / "checkpoints" / "last.ckpt"
        content = torch.load(file, weights_only=True)
        assert content["temperature"] != 1
        content["temperature"] /= 2
        content["state_dict"] = {key: 2 * of for key, of in content["state_dict"].items()}
        torch.save(content, tmp_path / "other.ckpt")
        other = thaw.load(tmp_path / "other.ckpt")
        assert other.temperature == content["temperature"]
        assert torch.equal(other.head[-1].weight, content["state_dict"]["classifier.head.4.weight"])  # pyright: ignore


def test_checkpoints_that_do_not_say_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    with pytest.raises(ConfigError, match=r"checkpoint=.*a\.ckpt: there is no such file"):
        thaw.load(file)
    torch.save({"state_dict": {}}, file)
    with pytest.raises(ConfigError, match=r"a\.ckpt: .* is no checkpoint of thaw"):
        thaw.load(file)
    torch.save({"hyper_parameters": {"classes": [], "config": {}}, "state_dict": {}}, file)
    with pytest.raises(ConfigError, match=r"no description of a model.*train=false ckpt_path="):
        thaw.load(file)
    hyper = {"classes": [], "model": {"format": 99}}
    torch.save({"hyper_parameters": hyper, "state_dict": {}}, file)
    with pytest.raises(ConfigError, match=r"a\.ckpt: has format 99"):
        thaw.load(file)


@pytest.mark.slow
def test_only_five_packages_are_needed_to_use_a_model(tmp_path: Path) -> None:
    """torch, torchvision, safetensors, numpy and Pillow; any other is missing here.

    So a model can be used where thaw was never installed to train. What torch itself imports comes
    first, so it is let in; filelock is one of the packages that torch requires.
    """
    save(tmp_path / "model", torchvision_backbone("resnet18", weights=None, image_size=32))
    path = photo(tmp_path / "photo.png")
    program = f"""
import sys
import numpy, PIL.Image, safetensors.torch, torch, torchvision.transforms.v2

class Refuses:
    def find_spec(self, name, path=None, target=None):
        known = {{"thaw", "PIL", "filelock", "numpy", "safetensors", "torch",
                 "torchvision"}}
        if "." not in name and name not in known | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refuses())
import thaw
print(thaw.load({str(tmp_path)!r}).predict({str(path)!r})[0].label)
try:
    import requests
except ModuleNotFoundError:
    print("refused")
"""
    printed = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert printed[0] in CLASSES
    assert printed[1:] == ["refused"]


def test_torch_is_imported_when_a_model_is_loaded() -> None:
    """`import thaw` alone takes no second."""
    program = "import sys, thaw; print('torch' in sys.modules)"
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert printed.strip() == "False"
