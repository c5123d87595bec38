"""ShardDataModule: what each rank, epoch and stage sees."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ss2a.data import ShardDataModule, ShardError, field_width
from lightning_ss2a.data.format.compatibility import load_manifests
from lightning_ss2a.data.loading.batch_order import MemoryPlan
from lightning_ss2a.errors import InputError
from tests.data.shards import AUDIO_WIDTH, VISUAL_WIDTH, write_pairs

STREAM = {"residency": "stream", "shuffle_rows": 40}
MEMORY = {"residency": "memory"}
DEVICE = {"residency": "device"}
EVERYWHERE = pytest.mark.parametrize("place", [MEMORY, STREAM, DEVICE], ids=["memory", "stream", "device"])


class RankDataModule(ShardDataModule):
    """As it would be in one of several processes."""

    rank, world = 0, 1
    _rank = property(lambda self: self.rank)
    _world_size = property(lambda self: self.world)


def module(datasets, rank=0, world=1, **options) -> RankDataModule:
    data = RankDataModule(datasets, **{"batch_size": 16, "evaluation_batch_size": 5, **options})
    data.rank, data.world = rank, world
    return data


def epoch_rows(data: ShardDataModule, epoch: int = 0) -> list[list[int]]:
    loader = data.train_dataloader()
    loader.load_state_dict({"epoch": epoch, "batch": 0})
    batches = [batch["index"].tolist() for batch in loader]
    assert len(batches) == len(loader)
    return batches


@EVERYWHERE
def test_a_training_batch(tmp_path: Path, place):
    data = module(write_pairs(tmp_path, visual_views=3), **place)
    for batch in data.train_dataloader():
        assert {name: tuple(x.shape) for name, x in batch.items()} == {
            "visual": (16, VISUAL_WIDTH),
            "audio": (16, AUDIO_WIDTH),
            "class_index": (16,),
            "pair_origin": (16,),
            "index": (16,),
        }
        assert batch["visual"].dtype == batch["audio"].dtype == torch.float32
        assert batch["class_index"].dtype == batch["pair_origin"].dtype == batch["index"].dtype == torch.int64
        index = batch["index"]
        assert torch.equal(batch["visual"][:, 0].long(), index)
        assert torch.equal(batch["audio"][:, 0].long(), index)
        assert torch.equal(batch["class_index"], index % 3)
        assert torch.equal(batch["pair_origin"], index % 2)
        assert len(batch["visual"][:, 1].unique()) > 1  # several of the views


@EVERYWHERE
def test_an_epoch_is_the_same_on_any_number_of_ranks(tmp_path: Path, place):
    path = write_pairs(tmp_path, visual_views=3)
    whole = list(module(path, **place).train_dataloader())
    ranks = [list(module(path, rank, 4, **place).train_dataloader()) for rank in range(4)]
    for step, batch in enumerate(whole):
        for name, x in batch.items():
            assert torch.equal(torch.cat([rank[step][name] for rank in ranks]), x)


@EVERYWHERE
def test_each_row_at_most_once_and_less_than_a_batch_left_out_other_rows_each_epoch(tmp_path: Path, place):
    data = module(write_pairs(tmp_path), **place)
    left_out = []
    for epoch in range(3):
        rows = np.concatenate(epoch_rows(data, epoch))
        assert len(set(rows)) == len(rows) == 96
        left_out.append(frozenset(range(100)) - set(rows.tolist()))
    assert len(set(left_out)) == 3
    assert epoch_rows(data, 1) != epoch_rows(data, 2)
    assert epoch_rows(data, 1) == epoch_rows(data, 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_order(tmp_path: Path, workers):
    path = write_pairs(tmp_path, visual_views=2)
    alone = module(path, **STREAM).train_dataloader()
    helped = module(path, **STREAM, num_workers=workers).train_dataloader()
    for _ in range(2):
        ours, theirs = list(alone), list(helped)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


@EVERYWHERE
def test_state_resumes_with_the_next_batch_without_reading_what_came_before(tmp_path: Path, place, monkeypatch):
    data = module(write_pairs(tmp_path), **place)
    loader, seen = data.train_dataloader(), []
    for _ in range(2):
        seen += [batch["index"].tolist() for batch in loader]
    for stop in (1, 4, 5, 6, 7, 11):
        stopped = data.train_dataloader()
        iterator = iter(stopped)
        for _ in range(min(stop, 6)):
            next(iterator)
        if stop > 6:
            list(iterator)
            iterator = iter(stopped)
            for _ in range(stop - 6):
                next(iterator)
        resumed = data.train_dataloader()
        resumed.load_state_dict(stopped.state_dict())
        rest = [batch["index"].tolist() for batch in resumed]
        assert rest == seen[stop : (stop // 6 + 1) * 6]


def test_resuming_a_stream_reads_the_remaining_windows_only(tmp_path: Path, monkeypatch):
    data = module(write_pairs(tmp_path), **STREAM)
    loader = data.train_dataloader()
    read = []
    files = loader.source._windows.files
    original = files.read
    monkeypatch.setattr(files, "read", lambda ranges: read.append(ranges) or original(ranges))
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "batch": 5})
    assert len(list(loader)) == 1
    assert len(read) == 1


@EVERYWHERE
@pytest.mark.parametrize("change", ["other fold", "other rows", "other order of data sets"])
def test_resuming_in_the_middle_with_other_rows_is_refused_by_name(tmp_path: Path, place, change: str):
    """As many rows in each, so that numbers alone do not tell."""
    folds = {"fold0": 20, "fold1": 20, "fold2": 20}
    one = write_pairs(tmp_path / "one", folds, folds=list(folds))
    other = write_pairs(tmp_path / "other", folds, folds=list(folds), first=1000)
    given, now, message = {
        "other fold": (([one], 0), ([one], 1), "split fold0=None; now it is 20 rows from row 0 on"),
        "other rows": (([one], 0), ([other], 0), r"split fold1=20 rows .*; now it is 20 rows from row 0 on \(sha256"),
        "other order of data sets": (([one, other], 0), ([other, one], 0), "split fold1 of data set 1=20 rows"),
    }[change]
    state = module(given[0], fold=given[1], **place).train_dataloader().state_dict()
    loader = module(now[0], fold=now[1], **place).train_dataloader()
    with pytest.raises(InputError, match=f"batch 1 of an epoch with data {message}.*same data sets and fold"):
        loader.load_state_dict({**state, "batch": 1})
    loader.load_state_dict(state)  # at the end of an epoch


def test_resuming_in_the_middle_where_the_folder_has_moved_goes_on(tmp_path: Path):
    data = write_pairs(tmp_path / "here")
    state = {**module(data, **MEMORY).train_dataloader().state_dict(), "batch": 3}
    moved = Path(data).rename(tmp_path / "there")
    module(f"file://{moved}", **MEMORY).train_dataloader().load_state_dict(state)


def test_resuming_in_the_middle_with_another_batch_size_is_refused(tmp_path: Path):
    path = write_pairs(tmp_path)
    state = {**module(path, **MEMORY).train_dataloader().state_dict(), "batch": 3}
    loader = module(path, **MEMORY, batch_size=8).train_dataloader()
    with pytest.raises(InputError, match=r"batch 3 of an epoch with data batch_size=16; now it is 8"):
        loader.load_state_dict(state)
    loader.load_state_dict({**state, "batch": 0})


@EVERYWHERE
def test_evaluation_sees_every_row_once_in_order_with_the_mean_of_its_views(tmp_path: Path, place):
    data = module(write_pairs(tmp_path, visual_views=3), **place)
    batches = list(data.val_dataloader())
    assert [len(batch["key"]) for batch in batches] == [5, 5, 5, 5, 3]
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(23))
    assert [key for batch in batches for key in batch["key"]] == [f"row{100 + i}" for i in range(23)]
    visual = torch.cat([batch["visual"] for batch in batches])
    assert visual[:, 0].tolist() == [100 + i for i in range(23)]
    assert visual[:, 1].unique().tolist() == [1.0]  # mean of views 0, 1, 2
    assert torch.cat([batch["group"] for batch in batches]).tolist() == [(100 + i) // 2 for i in range(23)]


@EVERYWHERE
def test_evaluation_batches_are_dealt_to_ranks_in_turn_with_empty_ones_at_the_end(tmp_path: Path, place):
    path = write_pairs(tmp_path)
    whole = list(module(path, **place).val_dataloader())
    ranks = [list(module(path, rank, 3, **place).val_dataloader()) for rank in range(3)]
    assert [len(rank) for rank in ranks] == [2, 2, 2]
    dealt = [batch for turn in zip(*ranks, strict=True) for batch in turn]
    for ours, single in zip(dealt, whole, strict=False):
        assert ours["key"] == single["key"]
        assert torch.equal(ours["visual"], single["visual"])
    empty = dealt[-1]
    assert {name: tuple(x.shape) for name, x in empty.items() if name != "key"} == {
        "visual": (0, VISUAL_WIDTH),
        "audio": (0, AUDIO_WIDTH),
        "class_index": (0,),
        "pair_origin": (0,),
        "group": (0,),
        "index": (0,),
    }
    assert empty["key"] == []
    assert empty["visual"].dtype == torch.float32


@EVERYWHERE
def test_training_rows_loader_gives_all_rows_to_every_rank(tmp_path: Path, place):
    for rank in range(2):
        data = module(write_pairs(tmp_path / str(rank)), rank, 2, **place)
        rows = torch.cat([batch["index"] for batch in data.training_rows_loader()])
        assert rows.tolist() == list(range(100))


@pytest.mark.parametrize("place", [MEMORY, STREAM], ids=["memory", "stream"])
def test_several_data_sets_with_weights(tmp_path: Path, place):
    paths = [write_pairs(tmp_path / "a"), write_pairs(tmp_path / "b", {"train": 60}, first=1000)]
    data = module(paths, weights=[1.0, 0.5], **place)
    loader = data.train_dataloader()
    assert len(loader) == 130 // 16
    drawn = np.zeros(160, int)
    for _ in range(10):
        drawn += np.bincount(np.concatenate([batch["index"] for batch in loader]), minlength=160)
    assert drawn[:100].sum() + drawn[100:].sum() == 10 * 8 * 16
    assert drawn[:100].max() <= 10
    assert 4 <= drawn[100:].mean() <= 5
    assert drawn[100:].max() <= 5
    rows = torch.cat([batch["visual"][:, 0] for batch in data.training_rows_loader()]).tolist()
    assert rows == [*range(100), *range(1000, 1060)]
    assert sum(len(batch["key"]) for batch in data.val_dataloader()) == 23  # the second has no validation split


def write_folds_with_more(folder: Path) -> str:
    """Folds of 20, 30 and 40 rows, and beside each as many more: rows 0 to 89, and 90 to 179."""
    folds = {"fold0": 20, "fold1": 30, "fold2": 40}
    return write_pairs(folder, folds | {f"{fold}_more": rows for fold, rows in folds.items()}, folds=list(folds))


@pytest.mark.parametrize("place", [MEMORY, STREAM], ids=["memory", "stream"])
def test_what_lies_beside_folds_is_trained_on_if_named_and_measured_never(tmp_path: Path, place):
    path = write_folds_with_more(tmp_path)
    data = module(path, fold=1, train_with="more", **place)
    assert data.splits("train") == [["fold0", "fold2", "fold0_more", "fold2_more"]]
    values = np.concatenate([batch["visual"][:, 0].numpy() for batch in data.train_dataloader()])
    assert len(values) == 112  # of 120
    assert set(values) <= {*range(20), *range(50, 110), *range(140, 180)}
    held_out = np.concatenate([batch["visual"][:, 0].numpy() for batch in data.val_dataloader()])
    assert held_out.tolist() == list(range(20, 50))
    assert len(data.training_columns(["key"])["key"]) == 120
    for every_row, rows in ((False, 60), (True, 120)):
        batches = list(data.training_rows_loader(every_row=every_row))
        assert np.concatenate([batch["index"].numpy() for batch in batches]).tolist() == list(range(rows))


@pytest.mark.parametrize("place", [MEMORY, STREAM], ids=["memory", "stream"])
def test_what_lies_beside_folds_changes_nothing_unless_it_is_named(tmp_path: Path, place):
    folds = {"fold0": 20, "fold1": 30, "fold2": 40}
    alone = module(write_pairs(tmp_path / "alone", folds, folds=list(folds)), fold=1, **place)
    beside = module(write_folds_with_more(tmp_path / "beside"), fold=1, **place)
    for ours, theirs in zip(alone.train_dataloader(), beside.train_dataloader(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_should_lie_beside_folds_but_does_not(tmp_path: Path):
    path = write_folds_with_more(tmp_path)
    with pytest.raises(InputError, match=r"data.train_with=less: the split is 'fold0_less', but the data set has only"):
        module(path, fold=1, train_with="less", **MEMORY).setup("fit")
    with pytest.raises(InputError, match=r"data.train_with is 'more', which needs data.fold; or name a train_split"):
        module(path, train_split="fold0", validation_split="fold1", train_with="more", **MEMORY).setup("fit")


def test_folds(tmp_path: Path):
    folds = {"fold0": 20, "fold1": 30, "fold2": 40}
    data = module(write_pairs(tmp_path, folds, folds=list(folds)), fold=1, **MEMORY)
    assert torch.cat([b["visual"][:, 0] for b in data.val_dataloader()]).tolist() == list(range(20, 50))
    assert torch.cat([b["visual"][:, 0] for b in data.test_dataloader()]).tolist() == list(range(20, 50))
    trained = torch.cat([b["visual"][:, 0] for b in data.training_rows_loader()]).tolist()
    assert trained == [*range(20), *range(50, 90)]
    assert len(torch.cat([b["index"] for b in data.predict_dataloader()])) == 90
    with pytest.raises(InputError, match=r"data.fold is 3, but the data set has 3 folds"):
        module(str(tmp_path), fold=3, **MEMORY).train_dataloader()


def test_one_row_per_group(tmp_path: Path):
    data = module(write_pairs(tmp_path, group_size=4), rows_per_group="one", batch_size=5, **MEMORY)
    seen = set()
    for epoch in range(4):
        rows = np.concatenate(epoch_rows(data, epoch))
        assert sorted(rows // 4) == list(range(25))
        seen |= set(rows.tolist())
    assert len(seen) > 50
    assert [key for b in data.val_dataloader() for key in b["key"]] == [f"row{100 + i}" for i in range(0, 23, 4)]
    assert [key for b in data.training_rows_loader() for key in b["key"]] == [f"row{i}" for i in range(0, 100, 4)]
    with pytest.raises(InputError, match="rows_per_group=one needs residency memory or device"):
        module(str(tmp_path), rows_per_group="one", **STREAM).train_dataloader()


def test_shuffled_pairs_are_always_the_same_wrong_ones_and_validation_keeps_the_true_ones(tmp_path: Path):
    data = module(write_pairs(tmp_path), shuffle_pairs=True, **MEMORY)
    partner = {}
    for _ in range(3):
        for batch in data.train_dataloader():
            for visual, audio in zip(batch["visual"][:, 0].tolist(), batch["audio"][:, 0].tolist(), strict=True):
                assert visual != audio
                assert partner.setdefault(visual, audio) == audio
    assert all(torch.equal(b["visual"][:, 0], b["audio"][:, 0]) for b in data.val_dataloader())
    with pytest.raises(InputError, match="shuffle_pairs=True needs residency memory or device"):
        module(str(tmp_path), shuffle_pairs=True, **STREAM).train_dataloader()


def test_data_sets_that_do_not_go_together_are_named_with_both_values(tmp_path: Path):
    first = write_pairs(tmp_path / "first")
    other_encoder = write_pairs(tmp_path / "encoder", encoder="other eye")
    other_classes = write_pairs(tmp_path / "classes", classes=("cat", "dog", "fox"))
    other_views = write_pairs(tmp_path / "views", audio_views=2)
    for second, message in (
        (other_encoder, "encoder of field 'visual' is 'eye' in the first and 'other eye' in the second"),
        (other_classes, r"list of classes is \['cat', 'dog', 'owl'\] in the first and \['cat', 'dog', 'fox'\]"),
        (other_views, "views of field 'audio' is None in the first and 2"),
    ):
        with pytest.raises(ShardError, match=message) as error:
            load_manifests([first, second])
        assert first in str(error.value)
        assert second in str(error.value)


def test_widths_at_parse_time(tmp_path: Path):
    path = write_pairs(tmp_path)
    assert field_width(path, "visual") == VISUAL_WIDTH
    assert field_width([path], "audio") == AUDIO_WIDTH
    with pytest.raises(ShardError, match="no field 'sources'"):
        field_width(path, "sources")


def test_bad_options_are_named(tmp_path: Path):
    path = write_pairs(tmp_path)
    with pytest.raises(InputError, match="batch_size is 128 rows, but an epoch draws only 100"):
        module(path, batch_size=128, **MEMORY).train_dataloader()
    with pytest.raises(InputError, match=r"batch_size is the global batch.*16 rows, 3 processes"):
        module(path, 0, 3, **MEMORY).setup("fit")
    with pytest.raises(InputError, match="train_split is 'trian', but the data set has only"):
        module(path, train_split="trian", **MEMORY).setup("fit")
    with pytest.raises(InputError, match=r"data.weights needs one number"):
        module(path, weights=[1.0, 2.0])
    with pytest.raises(InputError, match=r"data.datasets is empty"):
        module([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "data.batch_size is 0, needs at least 1"),
        ({"evaluation_batch_size": -5}, "data.evaluation_batch_size is -5, needs at least 1"),
        ({"num_workers": -1}, "data.num_workers is -1, needs at least 0"),
        ({"shuffle_rows": 0}, "data.shuffle_rows is 0, needs at least 1"),
        ({"seed": -1}, "data.seed is -1, needs at least 0"),
        ({"weights": [float("nan")]}, "data.weights needs one number of at least 0"),
        ({"weights": [float("inf")]}, "data.weights needs one number of at least 0"),
        ({"residency": "disk"}, "data.residency is 'disk', needs one of auto, device, memory, stream"),
        ({"rows_per_group": "two"}, "data.rows_per_group is 'two', needs one of all, one"),
    ],
)
def test_options_out_of_range_are_named_before_anything_is_read(options, message):
    with pytest.raises(InputError, match=message):
        ShardDataModule("nowhere", **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_met_while_streaming_is_one_clear_line_whoever_reads(tmp_path: Path, workers):
    path = write_pairs(tmp_path)
    data = module(path, num_workers=workers, **STREAM)
    loader = data.train_dataloader()
    shard = tmp_path / "train-000001.tar"
    content = bytearray(shard.read_bytes())
    content[3000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError) as caught:
        list(loader)
    assert str(caught.value).startswith(f"{shard}: block 0: crc32 is not the manifest's")
    assert "\n" not in str(caught.value)


def test_epoch_order_does_not_depend_on_residency_memory_or_device(tmp_path: Path):
    path = write_pairs(tmp_path)
    order = MemoryPlan([100], [1.0], 16, seed=0).order(2).reshape(-1, 16).tolist()
    assert epoch_rows(module(path, **MEMORY), 2) == epoch_rows(module(path, **DEVICE), 2) == order


@EVERYWHERE
def test_one_sample_an_entry_gives_the_same_rows(tmp_path: Path, place):
    blocks = module(write_pairs(tmp_path / "blocks", visual_views=2), **place)
    samples = module(write_pairs(tmp_path / "samples", visual_views=2, layout="samples"), **place)
    for ours, theirs in zip(blocks.val_dataloader(), samples.val_dataloader(), strict=True):
        assert ours["key"] == theirs["key"]
        assert torch.equal(ours["visual"], theirs["visual"])
    rows = torch.cat([batch["visual"][:, 0] for batch in samples.train_dataloader()])
    assert len(rows.unique()) == 96


def test_data_sets_at_urls(tmp_path: Path):
    write_pairs(tmp_path)
    data = module(f"file://{tmp_path}", **STREAM)
    assert len(list(data.train_dataloader())) == 6
    assert sum(len(batch["key"]) for batch in data.val_dataloader()) == 23


def test_residency_is_said_once(tmp_path: Path, caplog):
    with caplog.at_level("INFO"):
        data = module(write_pairs(tmp_path))
        data.setup("fit")
        data.train_dataloader()
        data.val_dataloader()
    lines = [record.message for record in caplog.records if "residency" in record.message]
    assert len(lines) == 1
    assert "residency memory" in lines[0]


def test_the_label_head_comes_with_the_data(tmp_path: Path):
    assert module(write_pairs(tmp_path), **MEMORY).label_head is None
    assert module(str(tmp_path)).classes == ["cat", "dog", "owl"]


def test_options_are_hyperparameters(tmp_path: Path):
    assert module(write_pairs(tmp_path)).hparams["rows_per_group"] == "all"
