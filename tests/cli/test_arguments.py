"""Options win over configuration files, wherever they stand."""

import pytest

from lightning_ss2a.cli.arguments import after_config_files, files_first
from tests.cli.test_lightning import CONFIG, folder, printed_config  # noqa: F401  (a fixture)


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (["fit"], 1),
        (["fit", "--x", "1"], 1),
        (["fit", "-c", "a.yaml", "--x", "1"], 3),
        (["fit", "-c", "a.yaml", "--x", "1", "--config=b.yaml", "--y=2"], 6),
        (["fit", "-ca.yaml", "--y=2"], 2),
    ],
)
def test_the_place_after_the_last_file(arguments, place):
    assert after_config_files(arguments) == place


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("fit --x 1 -c a.yaml", "fit -c a.yaml --x 1"),
        ("fit --x 1 --config=a.yaml --y -cb.yaml", "fit --config=a.yaml -cb.yaml --x 1 --y"),
        ("fit -c a.yaml --x 1 --config b.yaml --x 2", "fit -c a.yaml --config b.yaml --x 1 --x 2"),
        ("-c all.yaml fit --x 1 -c a.yaml", "-c all.yaml fit -c a.yaml --x 1"),
        ("shards pack in out --x 1 -c a.yaml", "shards pack -c a.yaml in out --x 1"),
        ("--x 1 -c a.yaml", "-c a.yaml --x 1"),
        ("fit -c", "fit -c"),
        ("", ""),
    ],
)
def test_files_come_first(written: str, read: str):
    assert files_first(written.split(), ("fit", "shards", "pack")) == read.split()


def test_an_option_before_the_file_counts(folder, capsys):  # noqa: F811
    data = "--data.datasets=pairs"
    before = ["fit", "--trainer.max_epochs", "3", data, "--trainer.callbacks.PairFilter=false", "-c", CONFIG]
    after = ["fit", "-c", CONFIG, "--trainer.max_epochs", "3", data, "--trainer.callbacks.PairFilter=false"]
    printed = printed_config(before, capsys)
    assert printed["trainer"]["max_epochs"] == 3
    assert printed == printed_config(after, capsys)
