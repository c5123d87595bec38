"""Data sets that tests read and do not change."""

import pytest

from tests.data.shards import write_pairs


@pytest.fixture(scope="session")
def hundred_pairs(tmp_path_factory) -> str:
    return write_pairs(tmp_path_factory.mktemp("pairs"), visual_views=3)


@pytest.fixture(scope="session")
def two_data_sets(tmp_path_factory) -> list[str]:
    """Rows 0 to 99, and rows 100 to 159 that hold the numbers 1000 to 1059."""
    folder = tmp_path_factory.mktemp("two")
    return [write_pairs(folder / "a"), write_pairs(folder / "b", {"train": 60}, first=1000)]
