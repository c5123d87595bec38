"""`ss2a shards build` reads every file of configs/perception and configs/datasets."""

from pathlib import Path

import pytest

from lightning_ss2a.builders.listing import ItemReader
from lightning_ss2a.cli.arguments import files_first
from lightning_ss2a.cli.shards import SHARD_VERBS
from lightning_ss2a.cli.ss2a import VERBS, build_parser, main
from lightning_ss2a.perception import AudioEncoder, ImageEncoder

CONFIGS = Path(__file__).parents[2] / "configs"
LITE = CONFIGS / "perception" / "lite.yaml"


def options(*arguments: str):
    words = files_first(["shards", "build", "source", "output", *arguments], {*VERBS, *SHARD_VERBS})
    parser = build_parser()
    return parser.instantiate(parser.parse_args(words)).shards.build


@pytest.mark.parametrize("file", sorted((CONFIGS / "datasets").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_data_set_has_a_reader(file: Path):
    found = options("-c", str(LITE), "-c", str(file), "--kind=scenes", "--trainer.devices=2")
    assert isinstance(found.reader, ItemReader)
    assert isinstance(found.image_encoder, ImageEncoder)
    assert isinstance(found.audio_encoder, AudioEncoder)
    assert (found.kind, found.trainer.devices, found.trainer.num_nodes) == ("scenes", 2, 1)


def test_a_wrong_number_of_the_trainer_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "build", str(tmp_path), "out", "-c", str(LITE), "--kind=videos", "--trainer.threads=0"])
    assert exit_.value.code == 2
    assert "trainer.threads must be at least 1, found 0" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "detector"), [("pairs", False), ("scenes", True)])
def test_all_that_a_stack_lacks_is_named_before_a_file_is_read(
    kind: str, detector: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("dog.jpg", "dog.wav"):
        (tmp_path / name).write_bytes(b"neither picture nor sound")
    stack = ["-c", str(CONFIGS / "perception" / "paper.yaml"), "--audio_encoder.labels=class_labels.csv"]
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "build", ".", "out", *stack, f"--kind={kind}"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error
    assert "open_clip_model.safetensors of hub repository timm/vit_large_patch14_clip_224.openai" in error
    assert "audioldm-s-full-v2.ckpt does not exist; audio_encoder.path must name" in error
    assert "audio_encoder.labels: class_labels.csv: cannot be read (No such file or directory)" in error
    assert ("yolov8x-oiv7.pt does not exist" in error) == detector
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "name"),
    [("--sources=single", "sources"), ("--most_sources=3", "most_sources"), ("--trainer.devices=2", "trainer")],
)
def test_what_pairs_with_views_do_not_heed_is_refused(
    option: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_:
        main(["shards", "build", str(tmp_path), str(tmp_path / "out"), "-c", str(LITE), option])
    assert exit_.value.code == 2
    assert f"{name} has no effect on pairs with views; name a reader (configs/datasets/)" in capsys.readouterr().err
