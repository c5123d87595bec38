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
