"""Laboratories for the hostile tests: every transport, guest calls, a trunk, and an open manager port."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import open_pbx
from tests.support.guarded import end_all_shared
from tests.support.lab import Lab
from tests.support.package import require_package


@pytest.fixture(scope="session")
def open22() -> Iterator[Lab]:
    """Yield an Asterisk 22 that answers by every transport."""
    with Lab.made("22", open_pbx.configured("22")) as lab:
        yield lab


@pytest.fixture(scope="session")
def open16() -> Iterator[Lab]:
    """Yield an Asterisk 16 whose chan_sip answers by every transport, with PJSIP on port 5080."""
    with Lab.made("16", open_pbx.configured("16")) as lab:
        yield lab


@pytest.fixture(scope="module", autouse=True)
def _shared() -> Iterator[None]:
    """Stop the daemons that the tests of a file shared."""
    yield
    end_all_shared()


@pytest.fixture
def open_lab(request: pytest.FixtureRequest, release: str) -> Lab:
    """Return the one of the two whose release a test names by its parameter ``release``."""
    lab: Lab = request.getfixturevalue(f"open{release}")
    return lab


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Debian package of this commit, built once for the whole run."""
    return require_package(tmp_path_factory)
