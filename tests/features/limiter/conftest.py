"""Fixtures of the limiter's tests."""

from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs
from tests.support.evidence import Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a pipeline that has received no event yet."""
    with capture_logs() as logged:
        yield Bench(logged)
