import hashlib
from pathlib import Path

import pytest

from lightning_ss2a.errors import InputError
from lightning_ss2a.perception.identity import identify, sha256_of


def test_an_identity_tells_model_weights_and_preparation_apart():
    digest = hashlib.sha256(b"weights").hexdigest()
    assert identify("a/b", digest, "crop-v1") == f"a/b@{digest[:12]}+crop-v1"


def test_one_file_has_its_own_sha256_and_several_that_of_theirs_in_order(tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"1" * 5_000_000)
    two.write_bytes(b"2")
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (one, two)]
    assert sha256_of(one) == digests[0]
    assert sha256_of(one, two) == hashlib.sha256("".join(digests).encode()).hexdigest() != sha256_of(two, one)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="gone: cannot be read"):
        sha256_of(tmp_path / "gone")
