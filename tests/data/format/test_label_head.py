import gzip
import pickle
from dataclasses import replace

import pytest
import safetensors.torch
import torch

from lightning_ss2a.data import LabelHead, Manifest, ShardError
from tests.data.shard_examples import make_dataset, make_label_head


def test_scores_are_a_linear_layer():
    head = make_label_head(width=4, labels=5)
    audio = torch.randn(2, 3, 4, dtype=torch.float16)
    scores = head.scores(audio)
    assert scores.shape == (2, 3, 5)
    assert torch.allclose(scores, audio.float() @ head.weight.T + head.bias, atol=1e-6)


def test_round_trip_through_a_data_set(tmp_path):
    head = make_label_head()
    make_dataset(tmp_path, label_head=head)
    found = Manifest.load(tmp_path).load_label_head(tmp_path)
    assert torch.equal(found.weight, head.weight)
    assert torch.equal(found.bias, head.bias)
    assert found.labels == head.labels
    alone = LabelHead.from_bytes((tmp_path / "label_head.safetensors").read_bytes(), "head")
    assert alone.labels == head.labels


def test_a_compressed_one_is_unpacked_to_its_stated_size_only(tmp_path):
    head = LabelHead(torch.ones(40, 4), torch.zeros(40), tuple(f"label {i}" for i in range(40)))
    make_dataset(tmp_path, label_head=head, compression="gzip")
    manifest = Manifest.load(tmp_path)
    packed = (tmp_path / "label_head.safetensors.gz").read_bytes()
    assert len(packed) < manifest.label_head.unpacked_bytes / 2
    assert gzip.decompress(packed) == head.to_bytes()
    assert torch.equal(manifest.load_label_head(tmp_path).weight, head.weight)
    for size in (0, manifest.label_head.unpacked_bytes - 1, manifest.label_head.unpacked_bytes + 1):
        other = replace(manifest, label_head=replace(manifest.label_head, unpacked_bytes=size))
        with pytest.raises(ShardError, match=rf"label_head\.safetensors\.gz: unpacks to another size than the {size} "):
            other.load_label_head(tmp_path)
    plain = replace(head, weight=torch.rand(40, 4), bias=torch.rand(40))
    make_dataset(tmp_path, label_head=plain, overwrite=True)
    assert not (tmp_path / "label_head.safetensors.gz").exists()
    manifest = Manifest.load(tmp_path)
    other = replace(manifest, label_head=replace(manifest.label_head, unpacked_bytes=7))
    with pytest.raises(ShardError, match=r"label_head\.safetensors: holds \d+ bytes, not the 7 that are stated"):
        other.load_label_head(tmp_path)


def test_wrong_width_is_refused_when_written(tmp_path):
    with pytest.raises(ShardError, match="label head scores embeddings of width 3, but field audio has width 4"):
        make_dataset(tmp_path, label_head=make_label_head(width=3))


def test_damage_is_seen(tmp_path):
    make_dataset(tmp_path, label_head=make_label_head())
    file = tmp_path / "label_head.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ShardError, match="sha256 is not the manifest's"):
        Manifest.load(tmp_path).load_label_head(tmp_path)
    file.unlink()
    with pytest.raises(ShardError, match="no such file"):
        Manifest.load(tmp_path).load_label_head(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"weight": torch.ones(2, 3)}, {"labels": '["a", "b"]'}, "bias"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(3)}, {"labels": '["a", "b"]'}, "do not go together"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, {"labels": '["a"]'}, "1 labels do not go together"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, {"labels": "2"}, "not a list of names"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, None, "not a label head"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2)}, {"labels": "[" * 100_000}, "not a label head"),
        ({"weight": torch.full((2, 3), torch.nan), "bias": torch.ones(2)}, {"labels": '["a", "b"]'}, "NaN"),
    ],
)
def test_what_is_no_label_head(tensors, metadata, message):
    with pytest.raises(ShardError, match=f"head.safetensors.*{message}"):
        LabelHead.from_bytes(safetensors.torch.save(tensors, metadata), "head.safetensors")


@pytest.mark.parametrize(
    "data", [b"", b"12345678", b"\xff" * 40, pickle.dumps({"weight": 1})], ids=["empty", "digits", "ones", "pickle"]
)
def test_other_files(data):
    with pytest.raises(ShardError, match="not a label head"):
        LabelHead.from_bytes(data, "x")
