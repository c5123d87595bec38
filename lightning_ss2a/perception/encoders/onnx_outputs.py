"""Adds outputs to an ONNX model, without the ``onnx`` package.

An ONNX file is a protobuf message, and protobuf defines that messages laid end to end are read as one, their lists
joined. So a second message that holds nothing but ``graph { output { name } }`` adds an output to the first's graph.
"""

from collections.abc import Sequence

_GRAPH, _OUTPUT, _NAME = 7, 12, 1
"""Field numbers in onnx.proto: ModelProto.graph, GraphProto.output, ValueInfoProto.name."""


def add_outputs(model: bytes, names: Sequence[str]) -> bytes:
    """Adds these intermediate values and initialisers to the model as further outputs, in this order."""
    outputs = b"".join(_message(_OUTPUT, _message(_NAME, name.encode())) for name in names)
    return model + _message(_GRAPH, outputs)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    """Encodes a number in seven bits a byte, lowest first; the eighth says that more follow."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])
