"""Commands while the daemon hangs: it is stopped by SIGSTOP, as a debugger or a broken host would."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from tests.support.daemon import Guard, until
from tests.support.refusals import CHANGES, OTHER, OURS

from ringfence.errors import Exit

WITHDRAWN = "This request will not be carried out.\n"


@pytest.fixture(name="guard", scope="module")
def _guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """Yield a daemon that has banned an address."""
    with Guard(tmp_path_factory.mktemp("hanging")) as guard:
        guard.must("ban", OURS)
        yield guard


@contextmanager
def stopped(guard: Guard) -> Iterator[str]:
    """Stop the daemon for the block; yield how each message about that begins."""
    os.kill(guard.pid, signal.SIGSTOP)
    try:
        yield f"the daemon (process {guard.pid}, stopped by a signal) hangs: "
    finally:
        os.kill(guard.pid, signal.SIGCONT)


@pytest.mark.parametrize("command", CHANGES, ids=" ".join)
def test_a_change_is_withdrawn(guard: Guard, command: tuple[str, ...]) -> None:
    """One sentence names the process, what stands and what to do; the daemon never makes the change."""
    with stopped(guard) as hangs:
        done = guard.command(*command)
    guard.ask("status")  # it is answered after all that the daemon had received before

    assert (done.returncode, done.stdout) == (Exit.UNREACHABLE, "")
    assert done.stderr.startswith(hangs)
    assert "The bans in the kernel stay" in done.stderr
    assert "fix: systemctl restart ringfence" in done.stderr
    assert done.stderr.endswith(WITHDRAWN)
    assert guard.banned() == {OURS}
    assert guard.ask("lists", side="deny") == guard.ask("lists", side="allow") == []


@pytest.mark.parametrize("command", [("bans", "--past"), ("report",), ("allow", "list")], ids=" ".join)
def test_a_list_is_read_from_the_database(guard: Guard, command: tuple[str, ...]) -> None:
    """A reading command reports once that the daemon hangs, and answers from the database."""
    with stopped(guard) as hangs:
        done = guard.command(*command)

    first, second = done.stderr.splitlines()
    assert done.returncode == 0
    assert done.stdout
    assert first.startswith(hangs)
    assert second.startswith("The daemon does not answer: ")


def test_a_full_queue_of_connections_changes_nothing(guard: Guard) -> None:
    """If the queue of the daemon that hangs is full, the sentence states that the request was not sent."""
    with stopped(guard) as hangs, ExitStack() as stack:
        with suppress(BlockingIOError):
            while True:
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.settimeout(0)
                waiting.connect(guard.settings["control"]["socket"])
        done = guard.command("ban", OTHER)
    guard.ask("status")

    assert done.stderr.startswith(hangs)
    assert done.stderr.endswith("This request was not sent.\n")
    assert guard.banned() == {OURS}


def test_off_needs_no_daemon(tmp_path: Path) -> None:
    """`off` is carried out although the daemon hangs, and the daemon obeys when it goes on."""
    with Guard(tmp_path) as guard:
        with stopped(guard):
            done = guard.command("off")
        until(lambda: not guard.status()["firewall"]["enforcing"], "the end of enforcement")

    assert done.returncode == 0
    assert done.stderr == "the daemon does not answer: removed from the kernel directly\n"
