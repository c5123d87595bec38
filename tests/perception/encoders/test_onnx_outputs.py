import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from lightning_ss2a.perception.encoders.onnx_outputs import add_outputs

FIELD = descriptor_pb2.FieldDescriptorProto


def model_class() -> type:
    """The part of onnx.proto that matters here, read by protobuf itself."""
    file = descriptor_pb2.FileDescriptorProto(name="part_of_onnx.proto", package="part_of_onnx", syntax="proto2")

    def message(name: str, *fields: tuple[str, int, int, str | None]) -> None:
        described = file.message_type.add(name=name)
        for field, number, label, kind in fields:
            added = described.field.add(name=field, number=number, label=label)
            added.type = FIELD.TYPE_MESSAGE if kind else FIELD.TYPE_STRING
            if kind:
                added.type_name = f".part_of_onnx.{kind}"

    message("ValueInfo", ("name", 1, FIELD.LABEL_OPTIONAL, None))
    message(
        "Graph",
        ("name", 2, FIELD.LABEL_OPTIONAL, None),
        ("input", 11, FIELD.LABEL_REPEATED, "ValueInfo"),
        ("output", 12, FIELD.LABEL_REPEATED, "ValueInfo"),
    )
    message("Model", ("producer_name", 2, FIELD.LABEL_OPTIONAL, None), ("graph", 7, FIELD.LABEL_OPTIONAL, "Graph"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("part_of_onnx.Model"))


@pytest.mark.parametrize("added", [[], ["hidden"], ["a", "b", "name/of_a:value"], ["x" * 200], ["y" * 20_000, "z"]])
def test_protobuf_reads_the_outputs_in_order_and_all_that_was_there(added):
    model_type = model_class()
    model = model_type(producer_name="me")
    model.graph.name = "graph"
    model.graph.input.add(name="audio")
    model.graph.output.add(name="scores")
    found = model_type.FromString(add_outputs(model.SerializeToString(), added))
    assert [output.name for output in found.graph.output] == ["scores", *added]
    assert [value.name for value in found.graph.input] == ["audio"]
    assert (found.producer_name, found.graph.name) == ("me", "graph")


def test_names_that_are_not_ascii():
    model_type = model_class()
    found = model_type.FromString(add_outputs(b"", ["größe"]))
    assert found.graph.output[0].name == "größe"
