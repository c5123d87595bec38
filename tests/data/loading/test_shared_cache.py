"""Data that the runs of one process share: the same tensors, read anew when they change, never written to."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.data import ShardDataModule
from lightning_ss2a.data.loading.residency import CPU, available_memory, choose_residency, granted_bytes
from lightning_ss2a.data.loading.shared_cache import SharedCache, shared_cache, use_shared_cache
from lightning_ss2a.data.loading.tensors import bytes_of
from lightning_ss2a.errors import InputError
from tests.data.loading.test_datamodule import DEVICE, EVERYWHERE, MEMORY, STREAM, module
from tests.data.loading.test_row_selection import batches, same
from tests.data.shard_examples import make_dataset
from tests.data.shards import write_pairs

LOADED = pytest.mark.parametrize("place", [MEMORY, DEVICE], ids=["memory", "device"])
KINDS = pytest.mark.parametrize("kind", ["pairs", "scenes", "videos"])


def training_table(data: ShardDataModule):
    return data.training_rows_loader(every_row=True).source


def everything(data: ShardDataModule) -> list:
    loaders = [data.val_dataloader(), data.training_rows_loader(), data.predict_dataloader()]
    return [*batches(data), *batches(data, epoch=3), *[batch for loader in loaders for batch in loader]]


# -------------------------------------------------------------------- the cache


class Maker:
    """Values of a size, counted."""

    def __init__(self, cache: SharedCache) -> None:
        self.cache = cache
        self.made: list[str] = []

    def ask(self, key: str, size: int = 40, **options) -> str:
        def make() -> str:
            self.made.append(key)
            return key

        return self.cache.get(key, make, lambda _: size, **options)


def test_what_was_not_used_for_longest_goes_first():
    maker = Maker(SharedCache(limit_bytes=100))
    for key in ("a", "b", "a", "c", "a", "b", "c"):
        assert maker.ask(key) == key
    assert maker.made == ["a", "b", "c", "b", "c"]
    assert maker.cache.bytes_on(CPU) == 80


def test_what_is_larger_than_the_limit_is_made_but_not_cached_and_evicts_nothing():
    maker = Maker(SharedCache(limit_bytes=100))
    for key, size in (("a", 100), ("large", 101), ("large", 101), ("a", 100)):
        assert maker.ask(key, size, expected_bytes=size) == key
    assert maker.made == ["a", "large", "large"]


def test_there_is_room_before_a_value_is_made():
    cache, seen = SharedCache(limit_bytes=100), []
    Maker(cache).ask("a", 60)
    cache.get("b", lambda: seen.append(cache.bytes_on(CPU)), lambda _: 60, expected_bytes=50)
    assert seen == [0]


def test_each_device_has_its_own_room():
    maker, gpu = Maker(SharedCache(limit_bytes=100)), torch.device("cuda", 0)
    maker.ask("a", 80)
    maker.ask("b", 80, device=gpu)
    assert (maker.cache.bytes_on(CPU), maker.cache.bytes_on(gpu)) == (80, 80)


def test_the_limit_is_what_residency_grants(monkeypatch):
    assert granted_bytes(CPU) == pytest.approx(available_memory() / 2, rel=0.2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    gpu, maker = torch.device("cuda", 0), Maker(SharedCache())
    for _ in range(2):
        maker.ask("fits", 250, device=gpu)
        maker.ask("too large", 251, device=gpu)
    assert maker.made == ["fits", "too large", "too large"]


def test_processes_of_a_machine_share_the_limit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    with use_shared_cache(processes=2) as cache:
        maker, gpu = Maker(cache), torch.device("cuda", 0)
        for size in (125, 126, 125):
            maker.ask(f"{size}", size, device=gpu)
    assert maker.made == ["125", "126"]


def test_what_is_cached_counts_as_free_where_rows_stay(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    gpu = torch.device("cuda", 0)
    assert choose_residency("auto", 260, gpu, 1)[0] == "memory"
    assert choose_residency("auto", 260, gpu, 1, {gpu: 100, CPU: 0}.__getitem__)[0] == "device"
    monkeypatch.setattr("lightning_ss2a.data.loading.residency.available_memory", lambda: 1000)
    assert choose_residency("auto", 600, CPU, 1)[0] == "stream"
    assert choose_residency("auto", 600, CPU, 1, {CPU: 400}.__getitem__)[0] == "memory"
    assert choose_residency("auto", 10, CPU, 1, {CPU: 400}.__getitem__)[0] == "memory"


def test_nothing_is_cached_unless_asked_for():
    assert shared_cache() is None
    with use_shared_cache() as outer:
        assert shared_cache() is outer
        with contextlib.suppress(KeyError), use_shared_cache(limit_bytes=0) as inner:
            assert shared_cache() is inner
            raise KeyError
        assert shared_cache() is outer
    assert shared_cache() is None
    for options, message in (({"limit_bytes": -1}, "limit_bytes is -1, needs"), ({"processes": 0}, "processes is 0")):
        with pytest.raises(InputError, match=message), use_shared_cache(**options):
            pass


# -------------------------------------------------------------------- rows


@LOADED
def test_rows_are_loaded_once_and_not_copied(hundred_pairs, place):
    plain, other = (training_table(module(hundred_pairs, **place)) for _ in range(2))
    assert plain.rows["audio"].data_ptr() != other.rows["audio"].data_ptr()
    with use_shared_cache() as cache:
        first, again = (training_table(module(hundred_pairs, batch_size=size, **place)) for size in (16, 20))
        assert first is again
        assert cache.bytes_on(CPU) == bytes_of(first.rows) > 100 * (3 * 6 + 4) * 4


@KINDS
@EVERYWHERE
def test_batches_are_the_same_and_rows_are_not_written_to(tmp_path: Path, kind: str, place):
    path = str(make_dataset(tmp_path / kind, kind))
    expected = everything(module(path, batch_size=4, **place))
    with use_shared_cache():
        for _ in range(3):
            found = everything(module(path, batch_size=4, **place))
            assert len(found) == len(expected)
            assert all(map(same, found, expected))


@pytest.mark.parametrize(
    "options",
    [{"rows_per_group": "one"}, {"shuffle_pairs": True}, {"seed": 3}, {"evaluation_batch_size": 7}, {"weights": [0.5]}],
    ids=lambda options: next(iter(options)),
)
def test_options_of_one_run_do_not_reach_the_next(hundred_pairs, options):
    mixed = everything(module(hundred_pairs, **MEMORY, **options))
    plain = everything(module(hundred_pairs, **MEMORY))
    with use_shared_cache():
        for own, expected in ((options, mixed), ({}, plain), (options, mixed)):
            assert all(map(same, everything(module(hundred_pairs, **MEMORY, **own)), expected))


def test_rows_selected_in_one_run_are_not_selected_in_the_next(hundred_pairs):
    expected = everything(module(hundred_pairs, **MEMORY))
    with use_shared_cache():
        chosen = module(hundred_pairs, **MEMORY)
        chosen.select_training_rows(np.arange(0, 100, 3))
        assert {row for batch in batches(chosen) for row in batch["index"].tolist()} <= set(range(0, 100, 3))
        assert all(map(same, everything(module(hundred_pairs, **MEMORY)), expected))


def test_other_splits_are_other_rows(tmp_path: Path):
    path = write_pairs(tmp_path / "folds", {f"fold{i}": 20 for i in range(3)}, folds=[f"fold{i}" for i in range(3)])
    with use_shared_cache():
        tables = [training_table(module(path, fold=fold, **MEMORY)) for fold in (0, 1, 0)]
    assert tables[0] is tables[2]
    assert tables[0].rows["key"].tolist() != tables[1].rows["key"].tolist()


def test_data_written_anew_are_read_anew(tmp_path: Path):
    with use_shared_cache():
        before = training_table(module(write_pairs(tmp_path / "pairs"), **MEMORY))
        for file in (tmp_path / "pairs").iterdir():
            file.unlink()
        after = training_table(module(write_pairs(tmp_path / "pairs", first=1000), **MEMORY))
    assert before.rows["key"][0] == b"row0"
    assert after.rows["key"][0] == b"row1000"


def test_a_folder_is_the_same_by_any_path(hundred_pairs, monkeypatch):
    folder = Path(hundred_pairs)
    monkeypatch.chdir(folder.parent)
    with use_shared_cache():
        paths = (hundred_pairs, folder.name, f"file://{folder}")
        assert len({id(training_table(module(path, **MEMORY))) for path in paths}) == 1


def test_a_limit_lets_older_rows_go(two_data_sets):
    with use_shared_cache():
        size = bytes_of(training_table(module(two_data_sets[0], **MEMORY)).rows)
    with use_shared_cache(limit_bytes=size) as cache:
        first = training_table(module(two_data_sets[0], **MEMORY))
        training_table(module(two_data_sets[1], **MEMORY))
        assert training_table(module(two_data_sets[0], **MEMORY)) is not first
        assert cache.bytes_on(CPU) <= size


def test_streamed_rows_are_not_cached(hundred_pairs):
    with use_shared_cache() as cache:
        everything(module(hundred_pairs, **STREAM))
        assert cache.bytes_on(CPU) == 0


def test_rows_loaded_in_inference_mode_serve_gradients_later(hundred_pairs):
    with use_shared_cache():
        with torch.inference_mode():
            training_table(module(hundred_pairs, **MEMORY))
        assert not training_table(module(hundred_pairs, **MEMORY)).rows["audio"].is_inference()
