"""Writes a model as a file for other programs, and reads that file back to run it.

The graph takes images uint8 (N, 3, S, S), RGB, with any N, and gives calibrated probabilities
(N, K). Normalisation, temperature and softmax are in it; decoding and resizing are not.
"""

import copy
import json
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch.export import Dim

from thaw.errors import ConfigError
from thaw.image_classifier import ImageClassifier

Precision = Literal["float", "half", "int8"]
Images = NDArray[np.uint8]  # (N, 3, S, S)
Run = Callable[[Images], NDArray[np.floating]]  # -> (N, K)


def export(
    model: ImageClassifier, path: Path, precision: Precision, calibrating: Iterable[Images]
) -> Run:
    """Writes the file and loads it again.

    Args:
        model: In eval mode, on the CPU.
        path: Its ending, .onnx or .pt2, is the format. int8 is for .onnx alone.
        precision: float is float32.
        calibrating: Images (1, 3, S, S) like those to come, which int8 takes its ranges from.
    """
    graph = copy.deepcopy(model)
    if precision == "half":
        graph.half()
    graph.to(memory_format=torch.contiguous_format)  # else torch.export.save warns
    example, sizes = torch.zeros(2, 3, *[model.input_spec.size] * 2).byte(), {0: Dim("N")}
    with torch.no_grad():
        program = torch.export.export(graph.eval(), (example,), dynamic_shapes=(sizes,))
    about = metadata(model)
    if path.suffix == ".pt2":
        torch.export.save(program, path, extra_files=about)
    else:
        import_module("onnxscript")  # of the extra: torch tells it less clearly
        written: Any = torch.onnx.export(
            program, input_names=["images"], output_names=["probabilities"], verbose=False,
            dynamic_shapes=({0: "N"},),  # its name, of what the program says
        )  # fmt: skip
        written.model.metadata_props.update(about)
        written.save(path)  # in one file, unless the weights are too large: protobuf ends at 2 GB
    if precision == "int8":
        quantise(path, calibrating, about)
    return load_file(path)


def load_file(path: Path) -> Run:
    """Loads an exported file; only one that was just written, as a .pt2 file can run code."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return torch.inference_mode()(lambda images: module(torch.from_numpy(images)).numpy())
    cpu = ["CPUExecutionProvider"]
    session = import_module("onnxruntime").InferenceSession(path, providers=cpu)
    return lambda images: session.run(None, {"images": images})[0]


def metadata(model: ImageClassifier) -> dict[str, str]:
    """What a program has to know beside the graph, each value as JSON."""
    names = ("classes", "input", "backbone", "licences")
    return {name: json.dumps(model.facts[name]) for name in names if name in model.facts}


def quantise(path: Path, calibrating: Iterable[Images], about: dict[str, str]) -> None:
    """Makes int8 of an ONNX file: weights per output channel, activations by their range."""
    if path.with_name(f"{path.name}.data").exists():
        raise ConfigError("--int8: is not offered for weights of more than 2 GB; use --half")
    onnx, quantisation = import_module("onnx"), import_module("onnxruntime.quantization")
    feeds = ({"images": images} for images in calibrating)

    class Reader(quantisation.CalibrationDataReader):
        def get_next(self) -> dict[str, Images] | None:
            return next(feeds, None)

    quantisation.quant_pre_process(path, path)  # merges BatchNorm into the convolutions
    # Signed activations: unsigned ones are 1.5 times as fast here, but saturate on processors
    # without VNNI, where the answers would differ from those that were compared.
    quantisation.quantize_static(path, path, Reader(), per_channel=True)
    finished = onnx.load(path)
    del finished.metadata_props[:]
    onnx.helper.set_model_props(finished, about)
    onnx.save(finished, path)
