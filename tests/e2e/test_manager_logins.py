"""Failed manager logins on a real Asterisk: proven at the AMI port, hints if AMI is served over HTTP."""

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.asterisk_files import MANAGER_PORT, MANAGER_USER, Kind
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_LOGS, NO_WIRE, guarded, shared
from tests.support.lab import RELEASES, Lab
from tests.support.network import PBX_IPV4, socket_in

pytestmark = pytest.mark.asterisk

VICTIM = "203.0.113.9"
SENDER = "198.18.1.1"
"""The sender of the forged logins; a ban of it is right."""
HTTP_PORT = 8088
FRAGMENT = (Path(__file__).parents[2] / "contrib/asterisk/ringfence.manager.conf").read_text("utf-8")
EVENT_FILTER = next(
    line.removeprefix(";") for line in FRAGMENT.split("\n") if line.startswith(";eventfilter")
)
ALONE: Mapping[str, Any] = {"logs": NO_LOGS, "wire": NO_WIRE}
"""AMI is the only source."""


def tail(transport: str) -> str:
    """Return the tail of an event of the victim, without a closing empty line."""
    return (
        f"\r\nSessionID: 0x7fa409b90620\r\nLocalAddress: IPV4/{transport}/{PBX_IPV4}/5038"
        f"\r\nRemoteAddress: IPV4/{transport}/{VICTIM}/5061"
    )


def head(kind: str, service: str) -> str:
    """Return the head of an event up to its account, as Asterisk writes it now."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime())
    return (
        f"Event: {kind}\r\nPrivilege: security,all\r\nEventTV: {now}\r\nSeverity: Error\r\n"
        f"Service: {service}\r\nEventVersion: 1\r\nAccountID: y"
    )


def manager_failure() -> str:
    """Return a forged failure at the manager."""
    when = time.strftime("%Y-%m-%dT%H:%M:%S.000+0000", time.gmtime())
    return head("InvalidAccountID", "AMI") + tail("TCP") + f"\r\nSessionTV: {when}\r\n\r\n"


def phone_failure() -> str:
    """Return a forged failure of a phone over TLS."""
    rest = "\r\nChallenge: a\r\nResponse: b\r\nExpectedResponse: \r\n\r\n"
    return head("ChallengeResponseFailed", "PJSIP") + tail("TLS") + rest


def forgeries() -> Iterator[str]:
    """Yield user names that forge a tail, whole packets, and a head that the true tail completes."""
    for failure, service in ((manager_failure, "AMI"), (phone_failure, "PJSIP")):
        yield "x" + tail("TLS")
        yield "x" + tail("TCP") + "\r\n\r\n"
        yield "x" + tail("TCP") + "\r\n\r\n" + failure() * 6
        yield "x" + tail("TCP") + "\r\n\r\n" + failure() * 6 + head("InvalidAccountID", service)


def send(lab: Lab, port: int, text: str, wait: float, source: str = "") -> None:
    """Send ``text`` from the attacker to a port of the PBX, and read for at most ``wait`` seconds."""
    with socket_in(lab.network.attacker) as connection, contextlib.suppress(TimeoutError):
        connection.settimeout(wait)
        if source:
            connection.bind((source, 0))
        connection.connect((PBX_IPV4, port))
        connection.sendall(text.encode())
        while connection.recv(4096):
            pass


def log_in_over_http(lab: Lab, user: str) -> None:
    """Try to log in to AMI over HTTP with a wrong password."""
    body = f"action=login&username={quote(user, safe='')}&secret=x"
    kind = "application/x-www-form-urlencoded"
    fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    send(lab, HTTP_PORT, f"POST /rawman HTTP/1.0\r\n{fields}\r\n{body}", 0.3)


def log_in(lab: Lab, source: str, user: str) -> None:
    """Try to log in at the AMI port from ``source`` with a wrong password."""
    login = f"Action: Login\r\nUsername: {user}\r\nSecret: wrong\r\n\r\n"
    send(lab, MANAGER_PORT, login, 3.0, source)


def manager_conf(*, web: bool, filtered: bool = False) -> str:
    """Return text to add to manager.conf."""
    general = f"\n[general](+)\nwebenabled = {'yes' if web else 'no'}\n"
    general += "\n[open]\nsecret = something-else\nread = call\n"
    return general + (f"\n[{MANAGER_USER}](+)\n{EVENT_FILTER}\n" if filtered else "")


def counted(guard: Guard) -> set[str]:
    """Return the listed addresses that have attempts which count."""
    return {row["address"] for row in guard.status()["watched"] if row["standing"] != "unconfirmed"}


@pytest.mark.parametrize(
    ("release", "filtered"),
    [
        pytest.param("16", True, id="filtered-16"),
        pytest.param("22", False, id="unfiltered-22"),
        pytest.param("16", False, id="unfiltered-16", marks=pytest.mark.long),
        pytest.param("22", True, id="filtered-22", marks=pytest.mark.long),
    ],
)
def test_logins_over_http_frame_no_address(
    open_lab: Lab, tmp_path: Path, release: str, *, filtered: bool
) -> None:
    """Forged failures of a manager or phone cause no ban and do not count, with and without the filter."""
    added = manager_conf(web=True, filtered=filtered)
    with open_lab.manager_conf(added), guarded(open_lab, tmp_path, **ALONE) as guard:
        for user in forgeries():
            log_in_over_http(open_lab, user)
        if not filtered:
            until(lambda: "evidence.forgeable" in guard.alarm_codes(), "the alarm")
        assert guard.banned() <= {SENDER}
        assert VICTIM not in counted(guard)
        # A true event afterwards counts in full again.
        target = f"{PBX_IPV4}:{5060 if RELEASES[release] is Kind.PJSIP else 5080}"  # PJSIP
        by_tcp = ("--transport", "TCP", "--target", target)
        open_lab.attack("guess", "--number", "20", "--sources", "198.19.23.1", "--silences", "3", *by_tcp)
        until(lambda: "198.19.23.1" in guard.banned(), "the guesser's ban")

        assert guard.banned() <= {SENDER, "198.19.23.1"}
        assert VICTIM not in counted(guard)
        assert ("evidence.forgeable" in guard.alarm_codes()) is not filtered
        weak = "AMI is also served over HTTP (webenabled = yes)"
        until(lambda: weak in guard.status()["sources"][0]["detail"], "the weakness in the status")
        check = guard.command("check").stdout
        assert "webenabled = no in manager.conf [general]" in " ".join(check.split())


@pytest.mark.parametrize("release", ["22", pytest.param("16", marks=pytest.mark.long)])
def test_http_that_is_enabled_later_frames_no_address(open_lab: Lab, tmp_path: Path) -> None:
    """``manager reload`` raises no event, and the first forged login after it is already a hint."""
    with guarded(open_lab, tmp_path, **ALONE) as guard, open_lab.manager_conf(manager_conf(web=True)):
        for user in forgeries():
            log_in_over_http(open_lab, user)
        until(lambda: "evidence.forgeable" in guard.alarm_codes(), "the alarm")

        assert guard.banned() <= {SENDER}
        assert VICTIM not in counted(guard)


@pytest.mark.parametrize(
    ("release", "user"),
    [
        pytest.param("16", "nobody", id="unknown-user-16"),
        pytest.param("22", MANAGER_USER, id="refused-by-acl-22"),
        pytest.param("16", "open", id="wrong-password-16"),
        pytest.param("22", "open", id="wrong-password-22", marks=pytest.mark.long),
        pytest.param("22", "nobody", id="unknown-user-22", marks=pytest.mark.long),
        pytest.param("16", MANAGER_USER, id="refused-by-acl-16", marks=pytest.mark.long),
    ],
)
def test_three_wrong_logins_are_a_proven_ban(open_lab: Lab, user: str) -> None:
    """Three wrong logins at the AMI port cause a full ban by rule ``manager``; their text causes no ban."""
    source, other = f"198.19.24.{len(user)}", f"198.19.25.{len(user)}"
    with open_lab.manager_conf(manager_conf(web=False)), shared(open_lab, **ALONE) as guard:
        hostile = f"x\r\nSessionID: 0x1\rRemoteAddress: IPV4/TCP/{VICTIM}/1"
        for _ in range(3):
            log_in(open_lab, other, hostile)
        for _ in range(3):
            log_in(open_lab, source, user)
        until(lambda: source in guard.banned(), "the ban")
        rows = {row["address"]: row for row in guard.bans()}

        assert set(rows) <= {source, other}
        row = rows[source]
        assert (row["rule"], row["scope"], row["attempts"], row["proven"]) == ("manager", "full", 3, 3)
        assert "evidence.forgeable" not in guard.alarm_codes()
        assert guard.ami_is("listening")
