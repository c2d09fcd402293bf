"""The proof, against a daemon whose status a test sets."""

import asyncio
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from ringfence import control_server
from ringfence.detect.judgement import Guest
from ringfence.errors import SetupError
from ringfence.features.setup.proof import (
    ManagerTarget,
    SipListener,
    guest_lines,
    is_reachable,
    prove,
    wait_for_sources,
)

TARGET = SipListener("127.0.0.1", 5060, udp=True)
AMI, LOG, WIRE = "asterisk/ami", "asterisk/log:/var/log/ringfence/ringfence", "wire"


def source(name: str, state: str = "listening", detail: str = "") -> dict[str, Any]:
    """Return a source of the status."""
    return {"name": name, "state": state, "detail": detail, "events": 3, "skipped": 0}


class Daemon:
    """A control socket that answers ``status`` with the present ``sources`` and ``guests``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.sock"
        self.sources = [source(AMI), source(LOG), source(WIRE)]
        self.guests: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        up = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(up)))
        self._thread.start()
        up.wait(10)

    def close(self) -> None:
        """Stop to answer."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self, up: threading.Event) -> None:
        handlers: dict[str, control_server.Handler] = {
            "status": lambda _: {"sources": self.sources, "guests": self.guests}
        }
        async with control_server.serve(self.path, handlers):
            up.set()
            await self._stop.wait()


@pytest.fixture(name="daemon")
def _daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path)
    yield daemon
    daemon.close()


def test_a_daemon_is_reachable_if_it_answers(daemon: Daemon, tmp_path: Path) -> None:
    """Without a socket no daemon runs."""
    assert is_reachable(daemon.path)
    assert not is_reachable(tmp_path / "gone.sock")


def test_strangers_that_call_are_proposed(daemon: Daemon, tmp_path: Path) -> None:
    """A later run of setup names them with the command that allows them; without a daemon none is known."""
    guest = Guest(ip_address("192.0.2.7"), 3, 0.0, 9.0)
    daemon.guests = [{"address": str(guest.address), "text": guest.sentence}]
    [line] = guest_lines(daemon.path)
    assert line.startswith("note      192.0.2.7 calls without a password, and Asterisk takes its calls (3 ")
    assert "ringfence allow add 192.0.2.7" in line
    assert guest_lines(tmp_path / "gone.sock") == []


def test_each_source_that_reports_is_proven(daemon: Daemon) -> None:
    """A line of the log that AMI delivered already counts too."""

    def login() -> SipListener:
        daemon.sources = [
            {**source(AMI), "events": 4},
            {**source(LOG), "skipped": 1},
            {**source(WIRE), "events": 5},
        ]
        return TARGET

    findings = prove(daemon.path, login)
    assert [finding.line for finding in findings] == [
        "ok  proof: a failed login at 127.0.0.1:5060 by UDP, from a loopback address, which is never banned",
        *(f"ok  {name}: reported the failed login" for name in (AMI, LOG, WIRE)),
    ]


def test_a_source_that_is_silent_is_named_with_its_state(daemon: Daemon) -> None:
    """The other sources are proven nevertheless."""

    def login() -> SipListener:
        daemon.sources = [{**source(AMI), "events": 9}, source(LOG), source(WIRE, "absent", "no NFLOG")]
        return TARGET

    findings = prove(daemon.path, login, wait=0.2)
    assert [finding.right for finding in findings] == [True, True, False, False]
    assert findings[2].detail == "did not report the failed login (listening); see: ringfence check"
    assert findings[3].detail.startswith("did not report the failed login (absent: no NFLOG)")


def test_the_wire_cannot_see_answers_to_this_host(daemon: Daemon) -> None:
    """For an Asterisk in a container the wire is no error, unless it does not listen."""

    def login() -> SipListener:
        daemon.sources = [{**source(AMI), "events": 9}, {**source(LOG), "events": 9}, source(WIRE)]
        return TARGET

    first, *_, wire = prove(daemon.path, login, contained=True, wait=0.2)
    assert "from this host itself" in first.detail
    assert (wire.right, wire.detail.partition(";")[0]) == (None, "listens")

    daemon.sources = [source(AMI), source(LOG), source(WIRE)]

    def deaf() -> SipListener:
        daemon.sources = [{**source(AMI), "events": 9}, {**source(LOG), "events": 9}, source(WIRE, "absent")]
        return TARGET

    assert prove(daemon.path, deaf, contained=True, wait=0.2)[-1].right is False


def test_a_login_at_ami_proves_the_other_sources(daemon: Daemon) -> None:
    """A PBX that serves TLS only has no challenge that the wire could see."""

    def login() -> ManagerTarget:
        daemon.sources = [{**source(AMI), "events": 9}, {**source(LOG), "events": 9}, source(WIRE)]
        return ManagerTarget("127.0.0.1", 5038)

    assert [finding.right for finding in prove(daemon.path, login, wait=0.2)] == [True, True, True, None]


def test_without_a_login_nothing_is_proven(daemon: Daemon) -> None:
    """An Asterisk that answers no SIP cannot be tried."""
    [finding] = prove(daemon.path, lambda: None)

    assert finding.right is False
    assert finding.detail.startswith("Asterisk answers neither SIP nor AMI here")


def test_a_refused_manager_user_is_an_error(daemon: Daemon) -> None:
    """The message has the state and the reason of the daemon."""
    daemon.sources = [source(AMI, "login refused", "wrong secret"), source(LOG)]

    with pytest.raises(SetupError, match=r"^AMI does not work: login refused: wrong secret$"):
        wait_for_sources(daemon.path, log=True, wait=0.1)


def test_the_wait_ends_when_every_source_listens(daemon: Daemon) -> None:
    """A log that is not found yet is waited for, and then given up."""
    assert wait_for_sources(daemon.path, log=True)["sources"] == daemon.sources

    daemon.sources = [source(AMI), source("asterisk/log", "waiting")]
    assert wait_for_sources(daemon.path, log=True, wait=0.1)["sources"] == daemon.sources
