"""Asterisk's side of a world: for each action, the true requests, and the bytes that its sources carry.

The shapes are those of the recordings in tests/captures. It shares no code with ringfence. This module has
PJSIP; ``others`` has chan_sip, and the other programs of the host.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address

from tests.judge.oracle import Sent
from tests.judge.packets import PORT, datagram, numbered, segment

HERE = "198.18.0.1"
HERE_TOO = "198.18.0.2"
"""The second address of the PBX."""
HERE_BY_IPV6 = "fd00:18::1"
PBX, SECOND = "pbx", "second"
"""The two Asterisks of this host."""
OUR_ASTERISK = "asterisk"
"""The user of the sockets of both."""
LONG = 60_000
"""The length of the longest Call-IDs (bytes). Asterisk cuts its notices much earlier."""


@dataclass(frozen=True)
class Act:
    """One action of a world.

    ``sender`` is the machine that acts. ``other`` is the address that it forges, names or sends the
    answers to. ``here`` is the address of the PBX that it asks, and ``asterisk`` the one that answers.
    ``wait`` is the time before the action (seconds). ``order`` decides how the reports of the sources
    interleave, ``late`` is the delay of the log (seconds), and ``twice`` repeats the packets on the wire.
    """

    kind: str
    sender: str
    other: str = ""
    account: str = "204"
    transport: str = "UDP"
    here: str = HERE
    asterisk: str = PBX
    wait: float = 1.0
    order: int = 0
    late: float = 0.0
    twice: bool = False


@dataclass(frozen=True)
class Report:
    """Bytes of one source: AMI, the log, an answer on the wire, or a request that the kernel copies.

    A "contact" is AMI's report of a phone's contact; its bytes are the account and the address. ``asterisk``
    is the one of an event or a line, and ``program`` is the user or the container that sent an answer.
    """

    source: str
    data: bytes
    asterisk: str = PBX
    program: str = OUR_ASTERISK


KNOWN = frozenset({"204", "205"})
"""The accounts that Asterisk has."""

_REFUSALS = (b"SIP/2.0 401 ", b"SIP/2.0 403 ", b"SIP/2.0 407 ")
"""The answers that the kernel copies also if they go to a friend."""


@dataclass(frozen=True)
class Exchange:
    """An action at a time: the ``number``-th of its world."""

    act: Act
    time: float
    number: int
    service = "PJSIP"
    method = "REGISTER"

    @property
    def session(self) -> str:
        """The session id of the events."""
        return self.call_id.decode()

    @property
    def source(self) -> str:
        """The source address of the packets."""
        return self.act.other if self.act.kind.startswith("forges") else self.act.sender

    @property
    def port(self) -> int:
        """The source port of the packets. Each exchange by TCP has a connection of its own."""
        connection = self.number if self.act.transport != "UDP" else 0
        return 10_000 + (int(ip_address(self.source)) + connection) % 40_000

    @property
    def call_id(self) -> bytes:
        """The Call-ID. One byte that is not UTF-8 suppresses every security event of the request."""
        if self.act.kind == "guesses in one call":
            return b"one"
        if self.act.kind == "hides at length":
            return (b"%d-\xff" % self.number).ljust(LONG, b"x")
        suppresses = self.act.kind.startswith("hides") and not self.by_headers
        return b"call-%d" % self.number + (b"\xff" if suppresses else b"")

    @property
    def by_headers(self) -> bool:
        """Whether only the guess is hidden, by a first Authorization header for another realm.

        Its nonce, which is not UTF-8, suppresses the event. The notice is left out too, as where the log has
        only security events.
        """
        return self.act.kind.startswith("hides by headers")

    @property
    def returned(self) -> str:
        """The nonce in the guess. One that forges its address cannot know the nonce that was sent there."""
        return f"1/{self.number:032x}" if self.act.kind == "forges a guess" else self.nonce

    @property
    def first_nonce(self) -> str:
        r"""The nonce in the first Authorization header, which is the one that the event names.

        It is sent in Latin-1, in which ``\xff`` is one byte that is not UTF-8.
        """
        if self.by_headers:
            return "\xff"
        return "garbage" if self.act.kind == "guesses behind garbage" else self.returned

    @property
    def response(self) -> str:
        """The response in the guess, which depends on the account."""
        text = f"{self.act.account} {self.number}"
        return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    @property
    def nonce(self) -> str:
        """The nonce of PJSIP, which depends on the second and the sender."""
        return f"{int(self.time)}/{hashlib.md5(self.source.encode(), usedforsecurity=False).hexdigest()}"

    @property
    def nowhere(self) -> bool:
        """Whether the answer to the guess goes to nowhere."""
        return self.act.kind.endswith("blind")

    def truth(self) -> list[Sent]:
        """Return the true requests."""
        act = self.act
        blames = act.other if act.kind == "hides and blames" else ""
        asked = Sent(
            *(self.time, act.sender, self.source, act.transport, f"{act.asterisk} {self.number}"),
            *(act.account, act.account in KNOWN, "none"),
            nonce=self.nonce,
            answered=act.other if act.kind == "asks elsewhere" else self.source,
            blames=blames,
            hides=act.kind.startswith("hides") and not self.by_headers,
        )
        if act.kind.startswith("asks"):
            return [asked]
        if self.by_headers or act.kind == "call refused":
            asked = replace(asked, exception="lost")
        right = act.kind in ("logs in", "call refused", "lamp refused", "registers")
        answer = replace(asked, credentials="right" if right else "wrong", nonce=self.returned)
        if self.nowhere:
            answer = replace(answer, answered="", exception="blind" if self.by_headers else "")
        elif act.kind == "guesses elsewhere":
            answer = replace(answer, answered=act.other)
        if act.kind == "hides" and act.transport == "TLS":
            answer, asked = replace(answer, exception="container"), replace(asked, known=True)
        return [answer] if act.kind == "forges a guess" else [asked, answer]

    # -- what the sources carry

    def reports(self, *, copied: bool) -> list[list[Report]]:
        """Return the reports of each source, in the order of this source; AMI first, then wire and log.

        ``copied``: the kernel copies the sender's requests, and all answers to them.
        """
        ami = [Report("ami", one, self.act.asterisk) for one in self._events()]
        wire = [
            one
            for one in self._numbered(self._packets())
            if copied or (one.source == "wire" and any(status in one.data for status in _REFUSALS))
            for _ in range(1 + (self.act.twice and self.act.transport == "UDP"))
        ]
        log = [Report("log", one, self.act.asterisk) for one in self._notices()]
        return [ami, wire if self.act.transport != "TLS" else [], log]

    def _numbered(self, packets: Iterator[Report]) -> Iterator[Report]:
        """Yield the packets; those by TCP with their sequence numbers. ``syn`` has the number 0."""
        following = {"wire": 1, "request": 1}
        for one in packets:
            if self.act.transport == "UDP":
                yield one
                continue
            data, following[one.source] = numbered(one.data, following[one.source])
            yield replace(one, data=data)

    def _events(self) -> Iterator[bytes]:
        kind, known = self.act.kind, self.act.account in KNOWN
        if self.by_headers:
            yield self._event("ChallengeSent", "Informational", "Challenge: ", self.act.account)
        if kind.startswith("hides"):
            return
        name = self.act.account if known else "<unknown>"
        digest = f"Challenge: {self.first_nonce}\r\nResponse: {self.response}\r\nExpectedResponse: "
        if kind != "forges a guess":
            if not known:
                yield self._event("InvalidAccountID", "Error")
            yield self._event("ChallengeSent", "Informational", "Challenge: ", name)
        if kind == "logs in":
            yield self._event("SuccessfulAuth", "Informational", "UsingPassword: 1")
        elif not kind.startswith("asks"):
            if not known:
                yield self._event("InvalidAccountID", "Error")
            yield self._event("ChallengeResponseFailed", "Error", digest, name)

    def _event(self, name: str, severity: str, tail: str = "", account: str = "") -> bytes:
        stamp = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        ip = f"IPV{ip_address(self.source).version}"
        lines = [
            *(f"Event: {name}", "Privilege: security,all", f"EventTV: {stamp}", f"Severity: {severity}"),
            *(f"Service: {self.service}", "EventVersion: 1", f"AccountID: {account or self.act.account}"),
            f"SessionID: {self.session}",
            f"LocalAddress: {ip}/{self.act.transport}/{self.act.here}/{PORT}",
            f"RemoteAddress: {ip}/{self.act.transport}/{self.source}/{self.port}",
            *([tail] if tail else []),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _notices(self) -> Iterator[bytes]:
        kind, known = self.act.kind, self.act.account in KNOWN
        if kind == "logs in" or self.by_headers or len(self.call_id) == LONG:
            return
        where = f"{_host(self.act.other if kind == 'hides and blames' else self.source)}:{self.port}"
        if not known:
            yield self._notice(where, "No matching endpoint found")
        if not kind.startswith("asks"):
            if not known and kind != "forges a guess":
                yield self._notice(where, "No matching endpoint found")
            yield self._notice(where, "Failed to authenticate")

    def _notice(self, where: str, why: str) -> bytes:
        stamp = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        head = f"[{stamp}] NOTICE[17045] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from "
        tail = f"'<sip:{self.act.account}@{_host(self.act.here)}>' failed for '{where}' (callid: "
        return (head + tail).encode() + self.call_id + f") - {why}\n".encode()

    def _packets(self) -> Iterator[Report]:
        kind = self.act.kind
        if kind != "forges a guess":
            yield from self._asks(1)
            yield self._answer(self._challenge(1), other=kind == "asks elsewhere")
        if kind.startswith("asks"):
            return
        yield from self._asks(2)
        if self.nowhere:
            return
        if kind != "logs in":
            yield self._answer(self._challenge(2), other=kind == "guesses elsewhere")
        else:
            yield self._answer(self._challenge(2).replace(b"401 Unauthorized", b"200 OK"))

    def _asks(self, sequence: int) -> Iterator[Report]:
        """Yield the copy of a request; the first one has no credentials."""
        packet = datagram if self.act.transport == "UDP" else segment
        yield Report("request", packet(self.source, self.port, self.act.here, PORT, self._request(sequence)))

    def _answer(self, message: bytes, *, other: bool = False) -> Report:
        packet = datagram if self.act.transport == "UDP" else segment
        target = self.act.other if other else self.source
        return Report("wire", packet(self.act.here, PORT, target, self.port, message))

    def _via(self) -> str:
        maddr = f";maddr={self.act.other}" if self.act.kind.endswith("elsewhere") else ""
        head = f"Via: SIP/2.0/{self.act.transport} {_host(self.source)}:{self.port};rport={self.port}"
        return f"{head};received={self.source};branch=z9hG4bK{self.number}{maddr}"

    def _challenge(self, sequence: int) -> bytes:
        head = f"SIP/2.0 401 Unauthorized\r\n{self._via()}\r\nCall-ID: ".encode() + self.call_id
        account, opaque = self.act.account, f'opaque="{self.number:08x}{sequence}"'
        tail = [
            *("", f"From: <sip:{account}@{HERE}>;tag=a{self.number}"),
            *(f"To: <sip:{account}@{HERE}>;tag=z9hG4bK{self.number}", f"CSeq: {sequence} REGISTER"),
            f'WWW-Authenticate: Digest realm="asterisk",nonce="{self.nonce}",{opaque},qop="auth"',
            *("Server: Asterisk PBX 22.10.1", "Content-Length:  0", "", ""),
        ]
        return head + "\r\n".join(tail).encode()

    def _request(self, sequence: int) -> bytes:
        values = f'username="{self.act.account}",nonce="{self.returned}",response="{self.response}"'
        digest = f"Authorization: Digest {values}\r\n"
        if self.first_nonce != self.returned:
            digest = f'Authorization: Digest realm="other",nonce="{self.first_nonce}"\r\n{digest}'
        return (
            f"{self.method} sip:{self.act.here} SIP/2.0\r\nCall-ID: ".encode()
            + self.call_id
            + f"\r\nFrom: <sip:{self.act.account}@{HERE}>\r\nCSeq: {sequence} {self.method}\r\n".encode()
            + (digest if sequence > 1 else "").encode("latin-1")
            + b"Content-Length: 0\r\n\r\n"
        )


COVERED = "205"
"""The account of the guesses behind failures at another one."""


class Covering(Exchange):
    """A guess at ``COVERED`` that Asterisk does not report, between two equal failures at another account.

    All have one Call-ID. Asterisk answers the same datagram again, and AMI reports it again. For the wire it
    is a retransmission. By TLS, the wire cannot read the failures, and the guess comes by TCP.
    """

    @property
    def failure(self) -> Exchange:
        """The failure at the account of the act."""
        return Exchange(replace(self.act, kind="guesses"), self.time, self.number)

    @property
    def hidden(self) -> Exchange:
        """The guess that only the wire shows."""
        transport = "UDP" if self.act.transport == "UDP" else "TCP"
        act = replace(self.act, kind="hides by headers", account=COVERED, transport=transport)
        return Exchange(act, self.time, self.number)

    def truth(self) -> list[Sent]:
        """Return the true requests. The failure that comes again is no further guess."""
        return [*self.failure.truth(), *self.hidden.truth()]

    def reports(self, *, copied: bool) -> list[list[Report]]:
        """Return the reports of each source. The log has no notices (:attr:`Exchange.by_headers`)."""
        ami, wire, _ = super().reports(copied=copied)
        return [ami, wire or self.hidden.reports(copied=copied)[1], []]

    def _events(self) -> Iterator[bytes]:
        failure = [*self.failure._events()]
        yield from (*failure, *self.hidden._events(), failure[-1])

    def _packets(self) -> Iterator[Report]:
        failure = [*self.failure._packets()]
        yield from (*failure, *self.hidden._packets(), *failure[2:])


def security_line(event: bytes, time: float) -> bytes:
    """Return the line of the log about an event of AMI, which Asterisk writes at a time (epoch seconds)."""
    stamp = datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    pairs = [line.partition(b": ")[::2] for line in event.removesuffix(b"\r\n\r\n").split(b"\r\n")]
    fields = [
        b'%b="%b"' % (b"SecurityEvent" if name == b"Event" else name, value)
        for name, value in pairs
        if name != b"Privilege"
    ]
    return f"[{stamp}] SECURITY[17045] res_security_log.c: ".encode() + b",".join(fields) + b"\n"


def _host(address: str) -> str:
    """Return an address as it is written in a URI and before a port."""
    return f"[{address}]" if ":" in address else address
