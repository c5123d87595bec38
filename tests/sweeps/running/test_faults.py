"""What is no trial's fault."""

import errno
import os
from pathlib import Path

import pytest

from lightning_ss2a.sweeps.running.faults import chain, is_outside, why_unwritable
from tests.limits import largest_file


def test_errors_that_led_to_an_error_but_not_those_that_were_dealt_with():
    def fail(hide: bool) -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            if hide:
                raise ValueError from None
            raise ValueError  # noqa: B904

    for hide, kinds in ((False, [ValueError, OSError]), (True, [ValueError])):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            fail(hide)
        assert [type(error) for error in chain(caught.value)] == kinds
        assert is_outside(caught.value) == (not hide)


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), OSError("disk"), KeyError(28)])
def test_what_may_be_the_trial_s_fault(error: Exception):
    assert not is_outside(error)


def test_a_folder_that_takes_no_file(tmp_path: Path):
    assert why_unwritable(tmp_path) is None
    assert why_unwritable(tmp_path / "gone") == f"{tmp_path / 'gone'}: No such file or directory"
    with largest_file(1000):
        assert why_unwritable(tmp_path) == f"{tmp_path}: File too large"
    assert list(tmp_path.iterdir()) == []
