"""The proof: the daemon is ready, and each of its sources reports one harmless failed login.

The daemon counts what each source reports. If the count of a source grows after the login, the source works,
even if an event of an attacker made it grow. Setup cannot ask the daemon for the failed login itself: it
comes from a loopback address, which is exempt, and the daemon keeps no list of attempts from such addresses.
"""

import re
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

from attrs import frozen

from ringfence import control
from ringfence.errors import ControlError, DaemonUnreachableError, SetupError
from ringfence.findings import Finding
from ringfence.host.listening import find_ports, listening_sockets
from ringfence.host.processes import sockets_of
from ringfence.netlink.sock_diag import port_of
from ringfence.values.event import SETUP_ACCOUNT

# -- causes one harmless failed login: a SIP REGISTER from a loopback address, for an account that no PBX has
#
# Loopback is never banned. The password is wrong on purpose, and a REGISTER cannot start a call. If
# Asterisk does not answer SIP by UDP or TCP (it may serve TLS or WebSockets only), AMI gets a wrong login
# instead.


TIMEOUT = 2.0
"""Seconds to wait for an answer of Asterisk. On loopback it takes milliseconds."""

_SIP = 5060
_BANNER = b"Asterisk Call Manager/"
_LARGEST = 65_535
_NONCE = re.compile(rb'[\s,]nonce="([^"\r\n]{1,256})"')
_REALM = re.compile(rb'[\s,]realm="([^"\r\n]{1,256})"')


@frozen
class SipListener:
    """An address and port at which Asterisk may answer SIP, by UDP or (if ``udp`` is false) by TCP."""

    host: str
    port: int
    udp: bool

    def __str__(self) -> str:
        return f"{self.host}:{self.port} by {'UDP' if self.udp else 'TCP'}"


@frozen
class ManagerTarget:
    """The address and port of Asterisk's manager interface."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port} (AMI)"


LoginTarget: TypeAlias = SipListener | ManagerTarget


def targets_of(pid: int, ami_port: int) -> list[SipListener]:
    """Return the addresses and ports at which the Asterisk with the process id ``pid`` may answer SIP.

    UDP comes before TCP, and port 5060 before other ports. Return [] if the SIP ports are unknown.
    """
    ports = find_ports(ami_port)
    if ports is None:
        return []
    own = sockets_of(pid)
    found = []
    for protocol, wanted in ((socket.IPPROTO_UDP, ports.udp), (socket.IPPROTO_TCP, ports.tcp)):
        for family in (socket.AF_INET, socket.AF_INET6):
            for row in listening_sockets(protocol, [family]):
                port = port_of(row.local_port)
                if row.inode in own and port in wanted and port != ami_port:
                    host = _host(family, row.local)
                    found += [SipListener(host, port, protocol == socket.IPPROTO_UDP)] if host else []
    return sorted(dict.fromkeys(found), key=lambda one: (not one.udp, one.port != _SIP))


def failed_login(targets: Iterable[SipListener], source: str | None = None) -> SipListener | None:
    """Try a wrong password at the first target that answers SIP. Return this target; None if none answers.

    ``source`` is the address from which the attempt is sent. By default it is a random address of
    127.0.0.0/8; with "" the kernel chooses it.
    """
    for target in targets:
        with suppress(OSError):
            if _attempt(target, _loopback() if source is None else source):
                return target
    return None


def failed_manager_login(target: ManagerTarget) -> ManagerTarget | None:
    """Fail to log in to AMI on purpose, so that a correct setup reports the attempt.

    Return ``target``; None if no AMI answers there, or if its answer is not at once the refusal.
    """
    request = f"Action: Login\r\nUsername: {SETUP_ACCOUNT}\r\nSecret: wrong\r\n\r\n".encode()
    with (
        suppress(OSError),
        closing(socket.create_connection((target.host, target.port), TIMEOUT)) as connection,
    ):
        if connection.recv(_LARGEST).startswith(_BANNER):
            connection.send(request)
            return target if b"Response: Error" in connection.recv(_LARGEST) else None
    return None


def _attempt(target: SipListener, source: str) -> bool:
    """Send a REGISTER from the address ``source``, and answer a challenge with a wrong digest.

    Return whether the target answers SIP. Raise OSError if the target cannot be reached or does not answer in
    time.
    """
    kind = socket.SOCK_DGRAM if target.udp else socket.SOCK_STREAM
    with closing(socket.socket(socket.AF_INET, kind)) as connection:
        connection.settimeout(TIMEOUT)
        connection.bind((source, 0))
        connection.connect((target.host, target.port))
        call = secrets.token_hex(8)
        connection.send(_register(target, connection.getsockname(), call, 1, []))
        answer = connection.recv(_LARGEST)
        nonce, realm = _NONCE.search(answer), _REALM.search(answer)
        if not answer.startswith(b"SIP/2.0 "):
            return False
        if nonce and realm:
            digest = (
                f'Authorization: Digest username="{SETUP_ACCOUNT}",'
                f'realm="{realm[1].decode("utf-8", "replace")}",'
                f'nonce="{nonce[1].decode("utf-8", "replace")}",uri="sip:{target.host}",'
                f'response="{"0" * 32}",algorithm=MD5'
            )
            connection.send(_register(target, connection.getsockname(), call, 2, [digest]))
            connection.recv(_LARGEST)
        return True


def _register(
    target: SipListener, local: tuple[str, int], call: str, number: int, more: Sequence[str]
) -> bytes:
    host, port = local
    lines = [
        f"REGISTER sip:{target.host} SIP/2.0",
        f"Via: SIP/2.0/{'UDP' if target.udp else 'TCP'} {host}:{port};rport;branch=z9hG4bK{call}{number}",
        "Max-Forwards: 70",
        f"From: <sip:{SETUP_ACCOUNT}@{target.host}>;tag={call}",
        f"To: <sip:{SETUP_ACCOUNT}@{target.host}>",
        f"Call-ID: {call}",
        f"CSeq: {number} REGISTER",
        f"Contact: <sip:{SETUP_ACCOUNT}@{host}:{port}>",
        *more,
        "Content-Length: 0",
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _host(family: socket.AddressFamily, raw: bytes) -> str | None:
    """Return the IPv4 address of a listening socket; None if it listens on an IPv6 address.

    ``raw`` is the address in 16 bytes, of which IPv4 uses the first four. All bytes are zero if the socket
    listens on every address. Then return 127.0.0.1.
    """
    if not any(raw):
        return "127.0.0.1"
    return socket.inet_ntop(family, raw[:4]) if family == socket.AF_INET else None


def _loopback() -> str:
    return f"127.{1 + secrets.randbelow(254)}.{secrets.randbelow(256)}.{1 + secrets.randbelow(254)}"


SETTLE = 10.0
"""Seconds to wait until every source listens. Usually this takes less than a second."""
SEEN_WITHIN = 5.0
"""Seconds within which every source must report the login. The log takes longest: a tenth of a second."""
_PAUSE = 0.05
_TRIAL = "trial.running"  # the alarm while a trial runs
_LISTENING = "listening"
WIRE = "wire"

Report = Mapping[str, Any]


def is_reachable(path: Path) -> bool:
    """Whether a daemon answers at the control socket ``path``."""
    try:
        control.ask(path, "status")
    except DaemonUnreachableError:
        return False
    except ControlError:
        return True
    return True


def guest_lines(path: Path) -> list[str]:
    """Return a line for each stranger whose calls Asterisk takes, with the command that allows it.

    The daemon at the control socket ``path`` has seen them; none if no daemon answers.
    """
    try:
        report: Report = control.ask(path, "status")
    except ControlError:
        return []
    return [f"note      {one['address']} {one['text']}" for one in report.get("guests", ())]


def wait_for_sources(path: Path, *, log: bool, wait: float = SETTLE) -> Report:
    """Wait at most ``wait`` seconds until every source listens, and return the daemon's status.

    ``log``: one of the sources must be a log file. Raise SetupError if AMI does not listen in the end:
    Asterisk refuses the manager user, or cannot be reached.
    """
    deadline = time.monotonic() + wait
    while True:
        report: Report = control.ask(path, "status")
        sources = report["sources"]
        names = [source["name"] for source in sources if source["state"] == _LISTENING]
        done = len(names) == len(sources) and (not log or any("/log:" in name for name in names))
        if done or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    for source in sources:
        if source["name"].endswith("/ami") and source["state"] != _LISTENING:
            raise SetupError(f"AMI does not work: {source['state']}: {source['detail']}")
    return report


def why_another_guard_stays(report: Report) -> str:
    """Return why another guard must stay although every source works; "" if ringfence can replace it.

    It cannot while it drops nothing, or may soon drop nothing. ``report`` is the daemon's status.
    """
    if not report["firewall"]["enforcing"]:
        return "because ringfence drops nothing now; see: ringfence status; then run setup again"
    if any(alarm["code"] == _TRIAL for alarm in report["alarms"]):
        return "because a trial may end with ringfence off; fix: ringfence confirm, then run setup again"
    return ""


def prove(
    path: Path, login: Callable[[], LoginTarget | None], *, contained: bool = False, wait: float = SEEN_WITHIN
) -> list[Finding]:
    """Cause a failed login; return a finding for the test as a whole, and one for each source.

    ``login`` causes it, and returns the target that answered, or None. ``contained``: Asterisk is in another
    network namespace of this host. Then the wire (the capture of challenges that this host sends or forwards)
    does not see its answers to this host, and need not report the login. ``wait`` is in seconds.
    """
    before = control.ask(path, "status")
    target = login()
    if target is None:
        why = "Asterisk answers neither SIP nor AMI here, so no failed login could be tried"
        return [Finding(False, "proof", f"{why}; see: asterisk -rx 'pjsip show transports'")]
    after = before
    deadline = time.monotonic() + wait
    unseen = contained or isinstance(target, ManagerTarget)  # the wire sees no SIP challenge
    expected = {source["name"] for source in after["sources"]} - ({WIRE} if unseen else set())
    while not expected <= _grown(before, after) and time.monotonic() < deadline:
        time.sleep(_PAUSE)
        after = control.ask(path, "status")
    grown = _grown(before, after)
    sender = "this host itself" if unseen else "a loopback address"
    return [
        Finding(True, "proof", f"a failed login at {target}, from {sender}, which is never banned"),
        *(
            _source_finding(source, seen=source["name"] in grown, expected=source["name"] in expected)
            for source in after["sources"]
        ),
    ]


def _source_finding(source: Mapping[str, Any], *, seen: bool, expected: bool) -> Finding:
    if seen:
        return Finding(True, source["name"], "reported the failed login")
    if not expected and source["state"] == _LISTENING:
        why = "listens; no SIP challenge of the failed login leaves this host, so it has nothing to report"
        return Finding(None, source["name"], why)
    state = f"{source['state']}: {source['detail']}" if source["detail"] else source["state"]
    return Finding(False, source["name"], f"did not report the failed login ({state}); see: ringfence check")


def _grown(before: Report, after: Report) -> set[str]:
    """Return the names of the sources whose count is higher in ``after`` than in ``before``.

    Both are answers of the daemon to ``status``. The lines of a log that the daemon skips, because AMI has
    delivered the same events, count too.
    """
    known = {source["name"]: _count(source) for source in before["sources"]}
    return {source["name"] for source in after["sources"] if _count(source) > known.get(source["name"], 0)}


def _count(source: Mapping[str, Any]) -> int:
    return int(source["events"]) + int(source.get("skipped", 0))
