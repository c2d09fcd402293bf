"""Fixtures for every test, and the choice of the tests that can run on this machine.

A test marked ``kernel`` or ``asterisk`` is left out if this machine cannot run it; one line at the end
names each group that did not run. In continuous integration, as root on Debian, that is an error.
"""

import signal
from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from tests.support import warm
from tests.support.lab import RELEASES, Lab, must_run_everything, why_no_asterisk, why_no_kernel
from tests.support.netns import netns

# No deadline for an example of hypothesis: a busy machine is sometimes slow.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")

_NOT_RUN = pytest.StashKey[list[str]]()
_TESTED_VERSIONS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Treat SIGTERM like an interrupt, so that fixtures remove what they created.

    SIGINT is set too: a background job of a shell ignores it, and so would each process of a test.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    config.stash[_NOT_RUN] = []
    config.stash[_TESTED_VERSIONS] = []


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
    """Print the versions of Asterisk that were tested, and the groups that did not run."""
    versions, not_run = config.stash[_TESTED_VERSIONS], config.stash[_NOT_RUN]
    if versions:
        terminalreporter.write_line("Tested against: " + ", ".join(versions))
    if not_run:
        terminalreporter.write_line("NOT RUN: " + "; ".join(not_run), yellow=True)


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Reset the logging that a command configured in this process: other tests capture the log."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def _warm() -> Iterator[None]:
    """Fork daemons and commands from a process that has imported them."""
    with warm.warmed():
        yield


@pytest.fixture(name="cold")
def _cold() -> Iterator[None]:
    """Start daemons and commands in the usual way, for tests of the start itself."""
    with warm.cold():
        yield


def _lab(config: pytest.Config, release: str) -> Iterator[Lab]:
    with Lab.made(release) as lab:
        config.stash[_TESTED_VERSIONS].append(lab.asterisk.version)
        yield lab


@pytest.fixture(scope="session")
def asterisk22(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Return Asterisk 22 or later (PJSIP) in its own network, the same for the whole run."""
    yield from _lab(pytestconfig, "22")


@pytest.fixture(scope="session")
def asterisk16(pytestconfig: pytest.Config) -> Iterator[Lab]:
    """Return Asterisk 16 (chan_sip; PJSIP on port 5080) in its own network, the same for the whole run."""
    yield from _lab(pytestconfig, "16")


@pytest.fixture(params=sorted(RELEASES))
def each_asterisk(request: pytest.FixtureRequest) -> Lab:
    """Return each of the two Asterisks in turn."""
    lab: Lab = request.getfixturevalue(f"asterisk{request.param}")
    return lab


@pytest.fixture(name="netns")
def _netns() -> Iterator[None]:
    """Run the test in its own network namespace, in which lo is up."""
    with netns():
        yield
