"""Hidden guesses by TLS and WSS end without a log; who is reported or logs in by TLS is not banned."""

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support import netns
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.guarded import NO_LOGS, SharedGuard, guarded, shared
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.open_pbx import HTTPS_PORT
from tests.support.sip_raw import Raw, calling, guesses, on_new_connections
from tests.support.sip_streams import LONGER
from tests.support.sip_wire import status_of
from tests.support.slow_ami import slow_ami

pytestmark = pytest.mark.asterisk

HIDDEN = Raw(call_id=b"\xff{}")
PAUSE = 0.05
MANY = 60
MOST = 25
OFFICE = 50
LIMIT = {"backend": "ipset", "limit": {"mode": "observe"}}


@pytest.mark.parametrize(
    ("transport", "host", "protocol"), [("TLS", 1, "sip"), ("WSS", 2, "sip"), ("WSS", 12, LONGER)]
)
def test_hidden_guesses_end_without_a_log(open22: Lab, transport: str, host: int, protocol: str) -> None:
    """At most 25 hidden guesses by TLS or WSS are answered, on several connections; then TCP is closed.

    A longer answer to the request for a WebSocket hides none of them.
    """
    source, answered = f"198.19.140.{host}", 0
    with shared(open22, logs=NO_LOGS) as guard:
        for most in (1, 1, MANY):
            with calling(open22, source, transport, protocol=protocol) as caller:
                came = guesses(caller, HIDDEN, most, pause=PAUSE, between=guard.take_turn, over=guard.bans)
                answered += len(came)

        assert answered <= MOST
        until(lambda: guard.scopes() == {source: "sip-tcp"}, "the ban")
        [ban] = guard.bans()
        assert ban["rule"] == "unexplained"
        assert {one["kind"] for one in guard.attempts_of(source)} == {"unexplained"}


@pytest.mark.parametrize(("transport", "host"), [("TLS", 8), ("WSS", 9)])
def test_a_new_connection_for_each_guess(open22: Lab, transport: str, host: int) -> None:
    """Some 25 are answered at full speed, each on a connection of its own; more if AMI is slow."""
    source = f"198.19.140.{host}"
    with shared(open22, logs=NO_LOGS) as guard:
        assert on_new_connections(open22, source, transport, HIDDEN, 4 * MANY, guard.bans) <= 2 * MOST
        until(lambda: guard.scopes() == {source: "sip-tcp"}, "the ban")


@pytest.mark.parametrize(("transport", "host"), [("TLS", 3), ("WSS", 4)])
def test_a_phone_that_logs_in_is_not_counted(open22: Lab, transport: str, host: int) -> None:
    """A phone with the right password makes no attempt, also on thirty connections one after the other."""
    source = f"198.19.140.{host}"
    with shared(open22, logs=NO_LOGS) as guard:
        for _ in range(30):
            with calling(open22, source, transport) as caller:
                assert caller.guess(Raw(), PASSWORD) == 200
            time.sleep(0.1)  # a busy machine reads AMI late
        time.sleep(2.0)

        assert guard.bans() == []
        assert guard.attempts_of(source) == []


@pytest.mark.parametrize(("transport", "host"), [("TLS", 5), ("WSS", 6)])
def test_reported_requests_are_explained(open22: Lab, transport: str, host: int) -> None:
    """Forty OPTIONS of a stranger, which asks for no password, are explained by their events."""
    source = f"198.19.140.{host}"
    request = Raw(method=b"OPTIONS", from_user=b"alice", extension=b"100")
    with shared(open22, logs=NO_LOGS) as guard:
        with calling(open22, source, transport) as caller:
            for number in range(40):
                assert status_of(caller.ask(request.named(f"keep-{number}")) or b"") == 401
        time.sleep(2.0)

        assert guard.bans() == []
        assert guard.attempts_of(source) == []


@pytest.mark.parametrize(("transport", "host"), [("TLS", 10), ("WSS", 11)])
def test_an_office_that_registers_at_once_is_not_counted(open22: Lab, transport: str, host: int) -> None:
    """Fifty new phones behind one address ask four times each, and one logs in, all at once.

    A busy machine may answer a few of them later than others that asked later: these few count.
    """
    with shared(open22, logs=NO_LOGS, firewall=LIMIT) as guard:
        register_at_once(open22, guard, transport, f"198.19.140.{host}")


@pytest.mark.parametrize(
    ("transport", "host"), [("TLS", 13), pytest.param("WSS", 14, marks=pytest.mark.long)]
)
def test_an_office_is_not_counted_if_ami_is_late(
    open22: Lab, tmp_path: Path, transport: str, host: int
) -> None:
    """Reports of AMI that are two seconds late explain the same: nothing counts before AMI has been read."""
    with (
        slow_ami(open22, 2.0) as port,
        guarded(open22, tmp_path, logs=NO_LOGS, firewall=LIMIT, ami={"port": port}) as guard,
    ):
        register_at_once(open22, guard, transport, f"198.19.140.{host}")


def register_at_once(lab: Lab, guard: SharedGuard, transport: str, source: str) -> None:
    """Ask four times from each of fifty new phones; one logs in: few of these count, and no ban follows."""
    request = Raw(method=b"OPTIONS", from_user=b"alice", extension=b"100")

    def ask(number: int) -> list[int]:
        with calling(lab, source, transport) as caller:
            asked = [status_of(caller.ask(request.named(f"{number}-{n}"), 5.0) or b"") for n in range(4)]
            return asked if number else [*asked, caller.guess(Raw(), PASSWORD, 5.0)]

    with ThreadPoolExecutor(OFFICE) as pool:
        answers = list(pool.map(ask, range(OFFICE)))
    time.sleep(5.0)

    assert sum(statuses.count(401) for statuses in answers) >= 2 * OFFICE  # else the machine is too busy
    assert guard.bans() == []
    assert len(guard.attempts_of(source)) < OFFICE // 5


def test_some_web_pages_are_free(open22: Lab) -> None:
    """By default pages count, and those of a browser that accepts a certificate lead to no ban."""
    source = "198.19.140.13"
    with shared(open22, logs=NO_LOGS) as guard:
        for number in (1, 1, 4):
            _browse(open22, source, number)
        time.sleep(2.0)

        assert guard.bans() == []
        assert 0 < len(guard.attempts_of(source)) < 20


def test_web_pages_are_not_counted_if_strangers_may_read_them(open22: Lab) -> None:
    """Then forty requests by HTTPS, on connections of their own and on one, make no attempt."""
    source = "198.19.140.7"
    with shared(open22, logs=NO_LOGS, wire={"https_pages": True}) as guard:
        for number in (1, 1, 1, 37):
            _browse(open22, source, number)
        time.sleep(2.0)

        assert guard.bans() == []
        assert guard.attempts_of(source) == []


def _browse(lab: Lab, source: str, number: int) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with netns.inside(lab.network.attacker):
        stream = socket.socket()
    with stream:
        stream.bind((source, 0))
        stream.connect((PBX_IPV4, HTTPS_PORT))
        with context.wrap_socket(stream) as tls:
            tls.settimeout(1.0)
            for _ in range(number):
                tls.sendall(b"GET /httpstatus HTTP/1.1\r\nHost: pbx\r\nCookie: " + b"c" * 400 + b"\r\n\r\n")
                assert tls.recv(65_536).startswith(b"HTTP/1.1 ")
                time.sleep(0.02)
