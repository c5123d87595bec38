"""The conversion, on a small graph of NanoDet's operations; test_nanodet.py compares its result with TF.js's."""

import base64
import io
import tarfile

import numpy as np
import pytest
import torch
from torch.nn import functional

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.detectors import nanodet_conversion
from lightning_ss2a.perception.detectors.nanodet_conversion import convert, read_package, read_weights

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

VALID = {"s": base64.b64encode(b"VALID").decode()}
LAST, FIRST = np.array([0, 2, 3, 1], np.int32), np.array([0, 3, 1, 2], np.int32)
AROUND = np.array([[0, 0], [0, 0], [1, 1], [1, 1]], np.int32)


def window(step: int, **more: dict) -> dict:
    return {"padding": VALID, "strides": {"list": {"i": ["1", str(step), str(step), "1"]}}, **more}


def constants() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "weight": draw.standard_normal((3, 3, 3, 6)).astype(np.float16),
        "bias": draw.standard_normal(6).astype(np.float16),
        "last": LAST,
        "first": FIRST,
        "around": AROUND,
        "lowest": np.array(-np.inf, np.float16),
        "size": np.array([8, 8], np.int32),
        "axis": np.array(1, np.int32),
        "parts": np.array([5, 7], np.int32),
        "no places": np.zeros((0, 1), np.int32),
        "sides": np.array([3], np.int32),
        "no values": np.zeros(0, np.int32),
        "zero": np.array(0, np.int32),
        "shape": np.array([1, 7, 64], np.int32),
        "first shape": np.array([1, 5, 64], np.int32),
        "swap": np.array([0, 2, 1], np.int32),
    }


def node(op: str, name: str, *inputs: str, **attributes: dict) -> dict:
    return {"op": op, "name": name, "input": list(inputs), "attr": attributes}


def graph() -> list[dict]:
    """What the published graph is made of: a padded convolution and pooling, two sizes joined, split and reshaped."""
    sizes = {"shape": {"dim": [{"size": str(side)} for side in (1, 3, 16, 16)]}}
    return [
        node("Const", "weight"),
        node("Placeholder", "input", shape=sizes),
        node("SparseToDense", "added", "no places", "sides", "no values", "zero"),
        node("AddV2", "reshaped to", "shape", "added"),
        node("Pad", "padded", "input", "around"),
        node("Transpose", "t1", "padded", "last"),
        node("Conv2D", "conv", "t1", "weight", **window(2)),
        node("Add", "biased", "conv", "bias"),
        node("Transpose", "t2", "biased", "first"),
        node("LeakyRelu", "relu", "t2", alpha={"f": 0.1}),
        node("PadV2", "padded again", "relu", "around", "lowest"),
        node("Transpose", "t3", "padded again", "last"),
        node("MaxPool", "pooled", "t3", **window(2, ksize={"list": {"i": ["1", "3", "3", "1"]}})),
        node("ResizeBilinear", "resized", "pooled", "size", half_pixel_centers={"b": True}, align_corners={"b": False}),
        node("Transpose", "t4", "resized", "first"),
        node("Add", "summed", "relu", "t4"),
        node("ConcatV2", "joined", "summed", "relu", "axis"),
        node("SplitV", "split", "joined", "parts", "axis"),
        node("Sigmoid", "sigmoid", "split:1"),
        node("Reshape", "reshaped", "sigmoid", "reshaped to"),
        node("Transpose", "turned", "reshaped", "swap"),
        node("Identity", "Identity", "turned"),
        node("Reshape", "first part", "split", "first shape"),
        node("Identity", "Identity_1", "first part"),
    ]


def by_torch(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weights = {name: torch.from_numpy(array) for name, array in constants().items()}
    weight = weights["weight"].float().permute(3, 2, 0, 1)
    relu = functional.leaky_relu(functional.conv2d(image, weight, weights["bias"].float(), 2, 1), 0.1)
    resized = functional.interpolate(functional.max_pool2d(relu, 3, 2, 1), size=(8, 8), mode="bilinear")
    first, second = torch.cat([relu + resized, relu], dim=1).split([5, 7], dim=1)
    return second.sigmoid().flatten(2).transpose(1, 2), first.flatten(2)


def test_each_operation_does_what_torchs_does():
    session = runtime.InferenceSession(convert(graph(), constants()), providers=["CPUExecutionProvider"])
    image = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3, 16, 16)).astype(np.float32))
    outputs = session.run(["Identity", "Identity_1"], {"image": image.numpy()})
    for ours, theirs in zip(outputs, by_torch(image), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_same_graph_gives_the_same_bytes():
    assert convert(graph(), constants()) == convert(graph(), constants())


def test_turns_of_the_channels_are_left_out():
    onnx = pytest.importorskip("onnx")
    operations = [each.op_type for each in onnx.load_from_string(convert(graph(), constants())).graph.node]
    assert operations.count("Transpose") == 1  # of the output
    assert "Pad" not in operations


def replaced(name: str, **attributes: dict) -> list[dict]:
    return [each | {"attr": each["attr"] | attributes} if each["name"] == name else each for each in graph()]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("Erf", "other", "input")], "other: operation Erf cannot be converted"),
        (replaced("conv", padding={"s": base64.b64encode(b"SAME").decode()}), "conv: pads by itself"),
        (replaced("resized", align_corners={"b": True}), "resized: resizes between other points"),
    ],
)
def test_a_graph_of_another_kind(nodes, message):
    with pytest.raises(InputError, match=message):
        convert(nodes, constants())


def test_other_paddings():
    with pytest.raises(InputError, match="padded: pads something else than height and width"):
        convert(graph(), constants() | {"around": AROUND[::-1].copy()})
    with pytest.raises(InputError, match="padded again: pads with another value than -inf"):
        convert(graph(), constants() | {"lowest": np.array(0.0)})


def test_weights_lie_one_after_the_other():
    half, whole = np.array([[1.5, -2.0]], np.float16), np.array([7, 8, 9], np.int32)
    listed = [
        {"name": "half", "shape": [1, 2], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "whole", "shape": [3], "dtype": "int32"},
    ]
    weights = read_weights(listed, half.tobytes() + whole.tobytes())
    assert np.array_equal(weights["half"], half)
    assert np.array_equal(weights["whole"], whole)
    for content in (half.tobytes() + whole.tobytes() + b"0", half.tobytes() + whole[:2].tobytes() + b"00"):
        with pytest.raises(InputError, match=r"nanodet\.bin: .* bytes, needs 16"):
            read_weights(listed, content)


def test_another_package_is_refused(tmp_path, monkeypatch):
    def pack(*arguments, cwd, **options):
        (cwd / "package.tgz").write_bytes(b"another")

    monkeypatch.setattr(nanodet_conversion.subprocess, "run", pack)
    with pytest.raises(InputError, match=r"human-models@3\.0\.4: its sha256 is .*, needs adbc8799"):
        nanodet_conversion.fetch_package(tmp_path)


def test_without_npm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="npm: not found"):
        nanodet_conversion.fetch_package(tmp_path)


def test_files_are_read_from_the_package(tmp_path):
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as archive:
        for name in (nanodet_conversion.TOPOLOGY, nanodet_conversion.WEIGHTS, nanodet_conversion.LICENCE):
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    assert all(content == name.encode() for name, content in read_package(tmp_path / "package.tgz").items())
