"""What every test may use, and which tests run on this machine.

Tests marked ``kernel`` or ``asterisk`` are left out as a group where they cannot run, and one line at the
end says so. In continuous integration, as root on Debian, leaving them out is an error.
"""

import signal
from collections.abc import Iterator

import hypothesis
import pytest
from tests.support.lab import RELEASES, Lab, must_run_everything, why_no_asterisk, why_no_kernel
from tests.support.netns import netns

# What an example may take is no matter of a test: machines are slow now and then.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

_NOT_RUN = pytest.StashKey[list[str]]()
_MET = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """End a terminated run as an interrupted one, so that fixtures take down what they put up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config.stash[_NOT_RUN] = []
    config.stash[_MET] = []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the groups of tests that cannot run here."""
    for marker, why in (("asterisk", why_no_asterisk), ("kernel", why_no_kernel)):
        group = [item for item in items if item.get_closest_marker(marker)]
        reason = why() if group else ""
        if not reason:
            continue
        if must_run_everything():
            raise pytest.UsageError(f"{len(group)} tests of group `{marker}` cannot run: {reason}")
        items[:] = [item for item in items if item not in group]
        config.hook.pytest_deselected(items=group)
        config.stash[_NOT_RUN].append(f"{len(group)} of group `{marker}` ({reason})")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which Asterisks were met and what was not run."""
    met, not_run = config.stash[_MET], config.stash[_NOT_RUN]
    if met:
        terminalreporter.write_line("Tested against: " + ", ".join(met))
    if not_run:
        terminalreporter.write_line("NOT RUN: " + "; ".join(not_run), yellow=True)


def _lab(config: pytest.Config, release: str) -> Iterator[Lab]:
    with Lab.made(release) as lab:
        config.stash[_MET].append(lab.asterisk.version)
        yield lab


@pytest.fixture(scope="session")
def asterisk22(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Asterisk 22 or later (PJSIP) in a network of its own, one for the whole run."""
    yield from _lab(pytestconfig, "22")


@pytest.fixture(scope="session")
def asterisk16(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Asterisk 16 (chan_sip, and PJSIP on port 5080) in a network of its own, one for the whole run."""
    yield from _lab(pytestconfig, "16")


@pytest.fixture(params=sorted(RELEASES))
def each_asterisk(request: pytest.FixtureRequest) -> Lab:
    """Each of the two in turn."""
    lab: Lab = request.getfixturevalue(f"asterisk{request.param}")
    return lab


@pytest.fixture(name="netns")
def _netns() -> Iterator[None]:
    """A network namespace of the test's own, with lo up."""
    with netns():
        yield
