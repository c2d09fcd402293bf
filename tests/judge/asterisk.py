"""Asterisk's side of a world: for each action, the true requests, and the bytes that its sources carry.

The shapes are those of the recordings in tests/captures. It shares no code with ringfence.
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from ipaddress import ip_address

from tests.judge.oracle import Sent

HERE = "198.18.0.1"
PORT = 5060
_UDP, _TCP = 17, 6
_IP, _TCP_HEAD = 20, 20  # bytes of the headers


@dataclass(frozen=True)
class Act:
    """One action of a world.

    ``sender`` is the machine that acts. ``other`` is the address that it forges, names or sends the
    answers to. ``wait`` is the time before the action (seconds). ``order`` decides how the reports of the
    sources interleave, ``late`` is the delay of the log (seconds), and ``twice`` repeats the packets on
    the wire.
    """

    kind: str
    sender: str
    other: str = ""
    account: str = "204"
    transport: str = "UDP"
    wait: float = 1.0
    order: int = 0
    late: float = 0.0
    twice: bool = False


@dataclass(frozen=True)
class Report:
    """Bytes of one source: AMI, the log, an answer on the wire, or a request that the kernel copies."""

    source: str
    data: bytes


KNOWN = frozenset({"204", "205"})
"""The accounts that Asterisk has."""


def syns(address: str, port: int) -> tuple[bytes, bytes]:
    """Return the SYN of a connection from this address and port, and the SYN that answers it."""
    ends = [ip_address(address).packed, ip_address(HERE).packed]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, _IP + _TCP_HEAD, 0, 0, 64, _TCP, 0)
    rest = struct.pack("!IIBBHHH", 0, 0, 5 << 4, 0x02, 1024, 0, 0)
    asks = ip + b"".join(ends) + struct.pack("!HH", port, PORT) + rest
    return asks, ip + b"".join(ends[::-1]) + struct.pack("!HH", PORT, port) + rest


@dataclass(frozen=True)
class Exchange:
    """An action at a time: the ``number``-th of its world."""

    act: Act
    time: float
    number: int

    @property
    def source(self) -> str:
        """The source address of the packets."""
        return self.act.other if self.act.kind.startswith("forges") else self.act.sender

    @property
    def port(self) -> int:
        """The source port of the packets. Each exchange by TCP has a connection of its own."""
        connection = self.number if self.act.transport == "TCP" else 0
        return 10_000 + (int(ip_address(self.source)) + connection) % 40_000

    @property
    def call_id(self) -> bytes:
        """The Call-ID. One byte that is not UTF-8 suppresses every security event of the request."""
        if self.act.kind == "guesses in one call":
            return b"one"
        suppresses = self.act.kind.startswith("hides") and not self.by_headers
        return b"call-%d" % self.number + (b"\xff" if suppresses else b"")

    @property
    def by_headers(self) -> bool:
        """Whether only the guess is hidden, by a first Authorization header for another realm.

        Its nonce, which is not UTF-8, suppresses the event. A long Call-ID cuts the notice.
        """
        return self.act.kind.startswith("hides by headers")

    @property
    def returned(self) -> str:
        """The nonce in the guess. One that forges its address cannot know the nonce that was sent there."""
        return f"1/{self.number:032x}" if self.act.kind == "forges a guess" else self.nonce

    @property
    def nonce(self) -> str:
        """The nonce of PJSIP, which depends on the second and the sender; chan_sip's is a random number."""
        if self.act.kind.startswith("lamp"):
            return f"{self.number + 0x10000000:08x}"
        return f"{int(self.time)}/{hashlib.md5(self.source.encode(), usedforsecurity=False).hexdigest()}"

    def truth(self) -> list[Sent]:
        """Return the true requests."""
        act = self.act
        asked = Sent(
            *(self.time, act.sender, self.source, act.transport, str(self.number), act.account),
            act.account in KNOWN,
            "none",
        )
        answered = {"logs in": "right", "lamp refused": "right"}.get(act.kind, "wrong")
        if act.kind.startswith("asks"):
            return [asked]
        if act.kind == "forges a guess":
            return [replace(asked, credentials="wrong")]
        return [asked, replace(asked, credentials=answered)]

    # -- what the sources carry

    def reports(self, *, copied: bool) -> list[list[Report]]:
        """Return the reports of each source, in the order of this source; AMI first, then wire and log.

        ``copied``: the kernel copies the sender's requests, and all answers to them.
        """
        ami = [Report("ami", one) for one in self._events()]
        wire = [
            one
            for one in self._numbered(self._packets())
            if copied or not (one.source == "request" or b"SIP/2.0 200 OK" in one.data)
            for _ in range(1 + (self.act.twice and self.act.transport == "UDP"))
        ]
        log = [Report("log", one) for one in self._notices()]
        return [ami, wire, log]

    def _numbered(self, packets: Iterator[Report]) -> Iterator[Report]:
        """Yield the packets; those by TCP with their sequence numbers. ``syn`` has the number 0."""
        following = {"wire": 1, "request": 1}
        for one in packets:
            if self.act.transport == "UDP":
                yield one
                continue
            number = struct.pack("!I", following[one.source])
            yield replace(one, data=one.data[: _IP + 4] + number + one.data[_IP + 8 :])
            following[one.source] += len(one.data) - _IP - _TCP_HEAD

    def _events(self) -> Iterator[bytes]:
        kind, known = self.act.kind, self.act.account in KNOWN
        if self.by_headers:
            yield self._event("ChallengeSent", "Informational", "Challenge: ", self.act.account)
        if kind.startswith("hides"):
            return
        if kind.startswith("lamp"):
            yield self._event("ChallengeSent", "Informational", f"Challenge: {self.nonce}")
            return
        name = self.act.account if known else "<unknown>"
        digest = f"Challenge: {self.returned}\r\nResponse: {self.number:032x}\r\nExpectedResponse: "
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
        service = "SIP" if self.act.kind.startswith("lamp") else "PJSIP"
        stamp = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
        session = f"0x7f{self.number:010x}" if service == "SIP" else self.call_id.decode()
        lines = [
            *(f"Event: {name}", "Privilege: security,all", f"EventTV: {stamp}", f"Severity: {severity}"),
            *(f"Service: {service}", "EventVersion: 1", f"AccountID: {account or self.act.account}"),
            *(f"SessionID: {session}", f"LocalAddress: IPV4/{self.act.transport}/{HERE}/{PORT}"),
            f"RemoteAddress: IPV4/{self.act.transport}/{self.source}/{self.port}",
            *([tail] if tail else []),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def _notices(self) -> Iterator[bytes]:
        kind, known = self.act.kind, self.act.account in KNOWN
        if kind == "logs in" or kind.startswith("lamp") or self.by_headers:
            return
        where = f"{self.act.other if kind == 'hides and blames' else self.source}:{self.port}"
        if not known:
            yield self._notice(where, "No matching endpoint found")
        if not kind.startswith("asks"):
            if not known and kind != "forges a guess":
                yield self._notice(where, "No matching endpoint found")
            yield self._notice(where, "Failed to authenticate")

    def _notice(self, where: str, why: str) -> bytes:
        stamp = datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        head = f"[{stamp}] NOTICE[17045] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from "
        tail = f"'<sip:{self.act.account}@{HERE}>' failed for '{where}' (callid: "
        return (head + tail).encode() + self.call_id + f") - {why}\n".encode()

    def _packets(self) -> Iterator[Report]:
        kind = self.act.kind
        if kind.startswith("lamp"):
            yield from self._asks(1)
            yield self._answer(self._chan_sip("401 Unauthorized", 1))
            yield from self._asks(2)
            why = " (policy)" if kind == "lamp refused" else ""
            yield self._answer(self._chan_sip(f"403 Forbidden{why}", 2))
            return
        if kind != "forges a guess":
            yield from self._asks(1)
            yield self._answer(self._challenge(1), other=kind == "asks elsewhere")
        if kind.startswith("asks"):
            return
        yield from self._asks(2)
        if kind.endswith("blind"):
            return
        if kind != "logs in":
            yield self._answer(self._challenge(2), other=kind == "guesses elsewhere")
        else:
            yield self._answer(self._challenge(2).replace(b"401 Unauthorized", b"200 OK"))

    def _asks(self, sequence: int) -> Iterator[Report]:
        """Yield the copy of a request; the first one has no credentials."""
        yield Report("request", self._packet(self._request(sequence), answer=False))

    def _answer(self, message: bytes, *, other: bool = False) -> Report:
        return Report("wire", self._packet(message, answer=True, target=self.act.other if other else ""))

    def _via(self) -> str:
        maddr = f";maddr={self.act.other}" if self.act.kind.endswith("elsewhere") else ""
        head = f"Via: SIP/2.0/{self.act.transport} {self.source}:{self.port};rport={self.port}"
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

    def _chan_sip(self, status: str, sequence: int) -> bytes:
        account = self.act.account
        lines = [
            f"SIP/2.0 {status}",
            f"Via: SIP/2.0/UDP {self.source}:{self.port};branch=z9hG4bK{self.number};received={self.source}",
            *(f"From: <sip:{account}@{HERE}>;tag=a", f"To: <sip:{account}@{HERE}>;tag=as{self.number}"),
            *(f"Call-ID: call-{self.number}", f"CSeq: {sequence} SUBSCRIBE", "Server: Asterisk PBX 16.28.0"),
            *(
                [f'WWW-Authenticate: Digest algorithm=MD5, realm="asterisk", nonce="{self.nonce}"']
                * (sequence == 1)
            ),
            *("Content-Length: 0", "", ""),
        ]
        return "\r\n".join(lines).encode()

    def _request(self, sequence: int) -> bytes:
        method = "SUBSCRIBE" if self.act.kind.startswith("lamp") else "REGISTER"
        values = f'username="{self.act.account}",nonce="{self.returned}",response="{self.number:032x}"'
        digest = f"Authorization: Digest {values}\r\n" if sequence > 1 else ""
        return (
            f"{method} sip:{HERE} SIP/2.0\r\nCall-ID: ".encode()
            + self.call_id
            + f"\r\nCSeq: {sequence} {method}\r\n{digest}Content-Length: 0\r\n\r\n".encode()
        )

    def _packet(self, data: bytes, *, answer: bool, target: str = "") -> bytes:
        """Return an IP packet with UDP or TCP in it, as the kernel copies it."""
        udp = self.act.transport == "UDP"
        ports = (PORT, self.port) if answer else (self.port, PORT)
        if udp:
            payload = struct.pack("!HHHH", *ports, 8 + len(data), 0) + data
        else:
            payload = struct.pack("!HHIIBBHHH", *ports, 1, 1, 5 << 4, 0x18, 1024, 0, 0) + data
        ends = [ip_address(HERE).packed, ip_address(target or self.source).packed]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, _UDP if udp else _TCP, 0)
        return head + b"".join(ends if answer else ends[::-1]) + payload
