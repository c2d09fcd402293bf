"""Fixtures that the tests of the features share: the database, and the parts that guard."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.kept import OFFICE, Kept, kept, settings

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


@pytest.fixture(name="kept")
def _kept(tmp_path: Path) -> Iterator[Kept]:
    """Return the parts that guard, with an allowed and a denied network, before they are started."""
    with kept(tmp_path, settings(OFFICE, denied=("203.0.113.0/24",))) as made:
        yield made
