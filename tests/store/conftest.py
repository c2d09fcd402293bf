"""The database that the tests of the store use."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence.store.database import Store


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    """Return the path of the database."""
    return tmp_path / "ringfence.db"


@pytest.fixture(name="store")
def _store(path: Path) -> Iterator[Store]:
    """Return an open store, as the daemon has it."""
    with Store.open(path, owner=True) as store:
        yield store
