"""Fixtures of the daemon's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.evidence import Bench
from tests.support.kept import OFFICE, Kept, kept, settings


@pytest.fixture(name="kept")
def _kept(tmp_path: Path) -> Iterator[Kept]:
    """Return the parts that guard, with an allowed and a denied network, before they are started."""
    with kept(tmp_path, settings(OFFICE, denied=("203.0.113.0/24",))) as made:
        yield made


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a pipeline that has received no event yet."""
    with capture_logs() as logged:
        yield Bench(logged)
