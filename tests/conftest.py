"""Fixtures for every test, and the choice of the tests that can run on this machine.

A test marked ``kernel`` or ``asterisk`` is left out if this machine cannot run it; one line at the end
names each group that did not run. In continuous integration, as root on Debian, that is an error.
"""

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from tests.support import fail2ban, warm
from tests.support.branches import Branches
from tests.support.lab import RELEASES, Lab, must_run_everything, why_no_asterisk, why_no_kernel
from tests.support.netns import netns
from tests.support.schedule import Groups, collects_a_part, is_left_out, sort

# No deadline for an example of hypothesis: a busy machine is sometimes slow. A test that needs more examples
# multiplies the profile's number.
hypothesis.settings.register_profile("short", deadline=None, max_examples=25)
hypothesis.settings.register_profile("long", deadline=None, max_examples=100)

_NOT_RUN = pytest.StashKey[list[str]]()
_TESTED_VERSIONS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Choose the number of hypothesis' examples; let SIGTERM interrupt, so that fixtures clean up.

    SIGINT is set too: a background job of a shell ignores it, and so would each process of a test.
    """
    hypothesis.settings.load_profile("long" if config.getoption("--long") else "short")
    gc.disable()  # until all tests are collected: nothing that collecting makes is garbage
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    config.stash[_NOT_RUN] = []
    config.stash[_TESTED_VERSIONS] = []
    if config.getoption("--branches") and not config.getoption("numprocesses", 0):
        config.pluginmanager.register(Branches(everything=config.getoption("--long")))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `make test` and `make test-all` use."""
    parser.addoption("--branches", action="store_true", help="measure which branches the tests reach")
    parser.addoption("--long", action="store_true", help="run the tests that are marked `long` too")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    """Return the scheduler for several processes."""
    return Groups(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what other processes collect."""
    return True if is_left_out(collection_path, config) else None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Sort the tests for several processes, and leave out the groups of tests that cannot run here."""
    if hasattr(config, "workerinput"):
        sort(items)
    yield
    for marker, why in (("asterisk", why_no_asterisk), ("kernel", why_no_kernel)):
        group = [item for item in items if item.get_closest_marker(marker)]
        reason = why() if group else ""
        if reason and must_run_everything():
            raise pytest.UsageError(f"{len(group)} tests of group `{marker}` cannot run: {reason}")
        if reason:
            _leave_out(config, items, group, f"`{marker}` ({reason})")
    if not config.getoption("--long"):
        group = [item for item in items if item.get_closest_marker("long")]
        _leave_out(config, items, group, "`long` (`make test-all` runs them)")


def pytest_collection_finish() -> None:
    """Exempt all that was imported from garbage collection, which would visit it again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def _leave_out(
    config: pytest.Config, items: list[pytest.Item], group: list[pytest.Item], description: str
) -> None:
    if group:
        left_out = set(group)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=group)
        config.stash[_NOT_RUN].append(f"{len(group)} of group {description}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand over to the first process what it prints at the end."""
    stash, output = session.config.stash, getattr(session.config, "workeroutput", None)
    if output is not None:
        output["versions"] = stash[_TESTED_VERSIONS]
        if not collects_a_part(session.config):
            output["not_run"] = stash[_NOT_RUN]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:  # noqa: ANN401 - pytest-xdist has no types
    """Add the results that another process hands over."""
    output = getattr(node, "workeroutput", {})
    for key, name in ((_NOT_RUN, "not_run"), (_TESTED_VERSIONS, "versions")):
        found = node.config.stash[key]
        found += [text for text in output.get(name, ()) if text not in found]


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


@pytest.fixture(name="fail2ban_client")
def _fail2ban_client(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put ``fail2ban-client`` into the PATH, and skip the test if the laboratory has no fail2ban."""
    if reason := fail2ban.why_no_fail2ban():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("bin")
    fail2ban.install_client(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.fixture(name="netns")
def _netns() -> Iterator[None]:
    """Run the test in its own network namespace, in which lo is up."""
    with netns():
        yield
