"""The table of what is tried: each call fails with each error that a kernel returns for it."""

import pytest
from tests.faults.values import Row, rows


@pytest.mark.parametrize("call", ["rename", "renameat", "unlink", "unlinkat"])
@pytest.mark.parametrize("error", ["EACCES", "EPERM", "EIO"])
def test_a_file_keeps_its_name(call: str, error: str) -> None:
    """A file cannot be renamed or removed because of a folder's rights, a file's attributes, or the disk."""
    assert Row("feeds-add", "nftables", call, error) in rows(["feeds-add"], ("nftables",))
