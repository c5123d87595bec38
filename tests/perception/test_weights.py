import hashlib
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from lightning_ss2a import perception
from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.weights import (
    ModelCard,
    WeightsStatus,
    check_weights,
    files_at,
    find_weights,
    joined,
    load_models,
    obtain_weights,
)

REPOSITORY = "owner/model"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of a hub that is offline."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache(hub: Path, *names: str) -> Path:
    """Puts files into the cache in the hub's layout; gives their folder."""
    repository = hub / "models--owner--model"
    for name in names:
        file = repository / "snapshots" / "0123abcd" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / "main").write_text("0123abcd")
    return repository / "snapshots" / "0123abcd"


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_one_file_is_found_by_its_own_path_or_in_its_folder(tmp_path: Path):
    file = write(tmp_path, "weights.bin") / "weights.bin"
    for path in (file, tmp_path, file.as_uri()):
        assert obtain_weights("image encoder", str(path), "", ["weights.bin"]).location == file
    renamed = file.rename(tmp_path / "other.pt")
    assert obtain_weights("image encoder", str(renamed), "", ["weights.bin"]).location == renamed


def test_several_files_are_found_as_their_folder(tmp_path: Path):
    write(tmp_path, "prior/config.json", "model.bin")
    assert obtain_weights("prior", str(tmp_path), "", ["prior/config.json", "model.bin"]).location == tmp_path


@pytest.mark.parametrize(
    ("path", "names", "message"),
    [
        (
            "gone",
            ["a"],
            "image encoder: {}/gone does not exist; image_encoder.path must name the file or a folder that",
        ),
        (
            "",
            ["a", "b/c", "d"],
            "image encoder: {} lacks a, d; image_encoder.path must name a folder that holds a, b/c",
        ),
        ("b/c", ["a", "d"], "image encoder: {}/b/c is a file; image_encoder.path must name a folder that holds a, d"),
    ],
)
def test_what_is_missing_at_a_path_is_said_in_one_line(tmp_path: Path, path: str, names: list[str], message: str):
    write(tmp_path, "b/c")
    with pytest.raises(InputError) as error:
        obtain_weights("image encoder", str(tmp_path / path), "", names)
    assert str(error.value).startswith(message.format(tmp_path))
    assert "\n" not in str(error.value)


def test_files_in_the_cache_of_the_hub_are_used(hub: Path):
    folder = cache(hub, "prior/config.json", "model.bin")
    assert obtain_weights("prior", None, REPOSITORY, ["prior/config.json", "model.bin"]).location == folder
    assert obtain_weights("prior", None, REPOSITORY, ["prior/config.json"]).location == folder / "prior" / "config.json"


def test_offline_says_which_file_of_which_repository_goes_where(hub: Path):
    cache(hub, "model.bin")
    with pytest.raises(InputError) as error:
        obtain_weights("text encoder", None, REPOSITORY, ["model.bin", "vocab.txt"])
    for word in (
        "text encoder: vocab.txt of hub repository owner/model",
        str(hub),
        "HF_HUB_OFFLINE",
        "text_encoder.path",
    ):
        assert word in str(error.value)
    assert "model.bin" not in str(error.value)


def test_a_model_that_is_not_on_the_hub_needs_a_path():
    with pytest.raises(InputError, match=r"detector: yolo.pt is not on the hub; detector.path must say where it is"):
        obtain_weights("detector", None, "", ["yolo.pt"])


def test_online_what_is_missing_is_downloaded(hub: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def download(repository: str, allow_patterns: list[str]) -> None:
        asked.append((repository, allow_patterns))
        cache(hub, "model.bin")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert not find_weights("prior", None, REPOSITORY, ["model.bin"]).problem
    for _ in range(2):  # the second time from the cache
        assert obtain_weights("prior", None, REPOSITORY, ["model.bin"]).location.is_file()
    assert asked == [(REPOSITORY, ["model.bin"])]
    with pytest.raises(InputError, match=r"prior: hub owner/model has no other.bin"):
        obtain_weights("prior", None, REPOSITORY, ["other.bin"])


def test_a_failed_download_is_one_line(hub: Path, monkeypatch: pytest.MonkeyPatch):
    def download(repository: str, allow_patterns: list[str]) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match=r"model.bin of hub repository owner/model cannot be downloaded \(no route\)"):
        obtain_weights("prior", None, REPOSITORY, ["model.bin"])


def test_a_repository_of_no_name_is_named(hub: Path):
    with pytest.raises(InputError, match="prior: hub repository 'a b/c'"):
        obtain_weights("prior", None, "a b/c", ["model.bin"])


def test_a_status_gives_the_sha256_of_what_is_there(tmp_path: Path):
    status = find_weights("prior", str(write(tmp_path, "a")), "", ["a"])
    assert status.sha256() == hashlib.sha256(b"a").hexdigest()
    missing = find_weights("prior", str(tmp_path), "", ["a", "b"])
    assert (missing.present, missing.sha256(), missing.missing, missing.found) == (
        False,
        None,
        ("b",),
        (tmp_path / "a",),
    )


def test_all_that_is_missing_is_named_at_once_and_the_same_once(tmp_path: Path):
    def card(path: str) -> ModelCard:
        return ModelCard("prior", "model", "MIT", find_weights("prior", path, "", ["a"]))

    write(tmp_path, "a")
    check_weights([card(str(tmp_path)), ModelCard("prior", "model", "MIT", WeightsStatus("hub x", ("a",)))])
    with pytest.raises(InputError) as error:
        check_weights([card("gone"), card("lost"), card("gone")])
    assert str(error.value).count("gone does not exist") == str(error.value).count("lost does not exist") == 1


def test_files_of_two_places_are_told_of_as_one(tmp_path: Path):
    there = find_weights("text encoder", str(write(tmp_path, "a")), "", ["a"])
    gone = find_weights("text encoder", None, "", ["b"])
    both = joined(there, gone)
    assert (both.names, both.found, both.missing, both.problem) == (("a", "b"), (tmp_path / "a",), ("b",), gone.problem)
    assert joined(there).sha256() == there.sha256() != both.sha256()


def test_a_path_with_a_suffix_stands_for_a_file_even_before_it_is_there(tmp_path: Path):
    names = ("config.json", "model.bin")
    write(tmp_path, "v1.0/model.bin", "weights")
    assert files_at(None, names) == files_at(str(tmp_path), names) == files_at(str(tmp_path / "v1.0"), names) == names
    assert files_at(str(tmp_path / "gone"), names) == names
    assert files_at((tmp_path / "weights").as_uri(), names) == ("weights",)
    assert files_at(str(tmp_path / "gone.ckpt"), names) == ("gone.ckpt",)


def test_every_model_can_be_loaded_before_it_is_given_anything():
    at_once = {"EfficientNetLite", "YAMNet"}  # they load when they are made
    models = {
        name for name in perception.__all__ if name not in at_once and hasattr(getattr(perception, name), "describe")
    }
    assert len(models) == 14
    assert [name for name in sorted(models) if not hasattr(getattr(perception, name), "load")] == []


def test_loading_tells_what_is_wrong():
    class Damaged:
        def load(self) -> None:
            raise InputError("a.bin: damaged")

    load_models([object()])
    with pytest.raises(InputError, match=r"a\.bin: damaged"):
        load_models([object(), Damaged()])
