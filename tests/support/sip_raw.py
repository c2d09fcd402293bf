r"""SIP requests whose fields contain any bytes, and a caller that sends them.

    with calling(lab, "198.19.60.1", "TLS") as caller:
        statuses = guesses(caller, Raw(call_id=b"\xff{}"), 8)

``{}`` in a field becomes a text that no other request has.
"""

import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from attrs import evolve, frozen
from tests.support import netns
from tests.support.daemon import until
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_streams import open_wire
from tests.support.sip_wire import Challenge, Wire, challenge_of, md5, status_of

_HOST = PBX_IPV4.encode()
_PROCESS = os.urandom(3).hex()
_PATIENCE = 5.0
"""Seconds until an answer has come that must come: a busy Asterisk is sometimes slow."""
_numbers = itertools.count(1)


@frozen
class Digest:
    """The fields of an Authorization header; None means the value from the challenge and the password."""

    username: bytes | None = None
    realm: bytes | None = None
    nonce: bytes | None = None
    uri: bytes | None = None
    response: bytes | None = None
    before: bytes = b""
    """Whole header lines before this one, each with its CR LF."""


@frozen
class Raw:
    """One SIP request; by default a REGISTER by ``from_user``."""

    method: bytes = b"REGISTER"
    from_user: bytes = b"alice"
    from_display: bytes = b""
    from_host: bytes = _HOST
    to_user: bytes | None = None
    to_display: bytes = b""
    to_tail: bytes = b""
    call_id: bytes = b"{}"
    contact: bytes = b"alice"
    """The user of the Contact at the sender's own address, or ``user@host``."""
    extension: bytes = b""
    """The user of the request URI, for all methods but REGISTER."""
    user_agent: bytes = b""
    via: bytes = b";rport"
    vias: bytes = b""
    """Whole Via lines below the first one, each with its CR LF."""
    cseq: int = 1
    extra: bytes = b""
    body: bytes = b""
    digest: Digest = Digest()

    @property
    def uri(self) -> bytes:
        """The request URI."""
        user = self.extension + b"@" if self.extension else b""
        return b"sip:" + user + _HOST

    def encode(self, contact: str, transport: str, text: str = "") -> bytes:
        """Return the request's bytes; ``text`` replaces each ``{}`` and is the Via branch."""
        text = text or f"{_PROCESS}{next(_numbers)}"
        target = self.to_user if self.to_user is not None else self.extension or self.from_user
        here = b"@" + contact.encode()
        lines = [
            self.method + b" " + self.uri + b" SIP/2.0",
            f"Via: SIP/2.0/{transport} {contact}".encode() + self.via + b";branch=z9hG4bK" + text.encode(),
            *([self.vias.removesuffix(b"\r\n")] if self.vias else []),
            # A field behind the digest cannot end the headers before it.
            self.extra + b"Max-Forwards: 70",
            b"From: " + self.from_display + b"<sip:" + self.from_user + b"@" + self.from_host + b">;tag={}",
            b"To: " + self.to_display + b"<sip:" + target + b"@" + _HOST + b">" + self.to_tail,
            b"CSeq: %d " % self.cseq + self.method,
            b"Contact: <sip:" + self.contact + (b"" if b"@" in self.contact else here) + b">",
            b"Call-ID: " + self.call_id,
            *([b"User-Agent: " + self.user_agent] if self.user_agent else []),
            *([b"Expires: 3600"] if self.method == b"REGISTER" else []),
            *([b"Event: presence", b"Expires: 60"] if self.method == b"SUBSCRIBE" else []),
            *([b"Content-Type: text/plain"] if self.body else []),
            b"Content-Length: %d" % len(self.body),
        ]
        return (b"\r\n".join(lines) + b"\r\n\r\n" + self.body).replace(b"{}", text.encode())

    def named(self, text: str) -> "Raw":
        """Return the same request with its Call-ID fixed: chan_sip binds a challenge to the Call-ID."""
        return evolve(self, call_id=self.call_id.replace(b"{}", text.encode()))

    def answering(self, challenge: Challenge, password: str) -> "Raw":
        """Return the same request with a digest of ``password``; the fields of ``digest`` replace its own."""
        digest, realm, nonce = (
            self.digest,
            challenge.realm.encode("latin-1"),
            challenge.nonce.encode("latin-1"),
        )
        uri = digest.uri if digest.uri is not None else self.uri
        username = digest.username if digest.username is not None else self.from_user
        ha1 = md5(f"{self.from_user.decode('latin-1')}:{challenge.realm}:{password}")
        ha2 = md5((self.method + b":" + uri).decode("latin-1"))
        response = md5(f"{ha1}:{challenge.nonce}:{ha2}").encode()
        header = b"Authorization" if challenge.status == 401 else b"Proxy-Authorization"
        line = b'%s: Digest username="%s", realm="%s", nonce="%s", uri="%s", response="%s", algorithm=MD5\r\n'
        fields = (
            username,
            digest.realm if digest.realm is not None else realm,
            digest.nonce if digest.nonce is not None else nonce,
            uri,
            digest.response if digest.response is not None else response,
        )
        return evolve(self, cseq=self.cseq + 1, extra=digest.before + line % (header, *fields) + self.extra)


OTHER_REALM = (
    b'Authorization: Digest username="alice", realm="other", nonce="\xff", uri="sip:x", response="0"\r\n'
)
GARBAGE = b'Authorization: Digest username="alice", realm="other", nonce="1/00", uri="x", response="0"\r\n'
"""A header with an invented nonce, like ``OTHER_REALM`` to send before the header of the guess.

Asterisk checks the first header of its own realm, so the invented one has another realm.
"""
NOWHERE = b";rport;maddr=240.0.0.1"
"""Parameters of a Via by which the answer gets lost."""

OWN_CHALLENGE = Challenge(401, "asterisk", "12345678")
"""An invented challenge, which no server has sent."""


def request_of(method: bytes, account: bytes) -> Raw:
    """Return a request by which an account's password can be guessed."""
    return Raw(
        method=method,
        from_user=account,
        extension=b"" if method == b"REGISTER" else b"100",
        body=b"hello" if method == b"MESSAGE" else b"",
    )


def invented(method: bytes, number: int) -> Raw:
    """Return a guess at carol's password with an invented nonce, and a From that is not UTF-8."""
    request = evolve(request_of(method, b"carol"), from_display=b'"\xff" ')
    return request.named(f"own-{number}-{time.time()}").answering(OWN_CHALLENGE, f"wrong-{number}")


class Caller:
    """One connection or socket of an attacker."""

    def __init__(self, wire: Wire, transport: str) -> None:
        self._wire = wire
        self._transport = transport
        self._text = ""

    def send(self, request: Raw) -> None:
        """Send a request."""
        self._text = f"{_PROCESS}{next(_numbers)}"
        self._wire.send(request.encode(self._wire.contact, self._transport, self._text))

    def send_urgent(self, request: Raw, word: bytes) -> None:
        """Send a request by TCP with an urgent byte within each ``word``, which the receiver does not get."""
        self._text = f"{_PROCESS}{next(_numbers)}"
        first, *others = request.encode(self._wire.contact, self._transport, self._text).split(word)
        with socket.socket(fileno=os.dup(self._wire.fileno())) as same:
            same.sendall(first)
            for other in others:
                same.sendall(word[:1])
                same.send(b"x", socket.MSG_OOB)
                same.sendall(word[1:] + other)
                time.sleep(0.05)  # the receiver reads over it before the next one comes

    def send_bytes(self, message: bytes) -> None:
        """Send bytes unchanged."""
        self._wire.send(message)

    def answer(self, seconds: float = _PATIENCE, *, own: bool = True) -> bytes | None:
        """Return the final answer to the last request; to any request, unless ``own``."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            message = self._wire.receive(left)
            if message is None:
                return None
            if status_of(message) >= 200 and (not own or self._text.encode() in message):
                return message
        return None

    def ask(self, request: Raw, seconds: float = _PATIENCE) -> bytes | None:
        """Send a request and return its final answer."""
        self.send(request)
        return self.answer(seconds)

    def challenged(self, request: Raw, seconds: float = _PATIENCE) -> Challenge | None:
        """Ask for a challenge."""
        return challenge_of(self.ask(request, seconds) or b"")

    def guess(self, request: Raw, password: str, seconds: float = _PATIENCE) -> int:
        """Guess once with one Call-ID; return the status of the final answer, 0 if none came.

        An answer to the first request that is no challenge is final.
        """
        request = request.named(f"{_PROCESS}{next(_numbers)}")
        first = self.ask(request, seconds)
        challenge = challenge_of(first or b"")
        if challenge is None:
            return status_of(first or b"")
        if request.method == b"INVITE":
            self.acknowledge(request, first or b"")
        last = self.ask(request.answering(challenge, password), seconds)
        if request.method == b"INVITE":
            self.acknowledge(request, last or b"")
        return status_of(last or b"")

    def acknowledge(self, request: Raw, answer: bytes) -> None:
        """Acknowledge the refusal of a call."""
        ack = evolve(request, method=b"ACK", extra=b"")
        self._wire.send(ack.encode(self._wire.contact, self._transport, self._text))

    def add_destination_options(self, header: bytes) -> None:
        """Add an extension header of IPv6 to each packet from now on."""
        with socket.socket(fileno=os.dup(self._wire.fileno())) as same:
            same.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, header)

    def reset(self) -> None:
        """Close a TCP connection with a reset, so that nothing more comes from its other end."""
        with socket.socket(fileno=os.dup(self._wire.fileno())) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._wire.close()

    def close(self) -> None:
        """Close the socket."""
        self._wire.close()


@contextmanager
def calling(
    lab: Lab,
    source: str,
    transport: str = "UDP",
    port: int | None = None,
    host: str = PBX_IPV4,
    protocol: str = "sip",
    origin: str = "",
) -> Iterator[Caller]:
    """Yield a caller at ``source`` on the attacker's side; ``port`` defaults to the transport's port.

    ``protocol`` is what a WebSocket asks for, and ``origin`` the web page that opens it; "" for no browser.
    """
    caller = caller_at(lab, source, transport, port, host, protocol, origin)
    try:
        yield caller
    finally:
        caller.close()


PORTS = {"UDP": 5060, "TCP": 5060, "TLS": 5061, "WS": 8088, "WSS": 8089}


def caller_at(
    lab: Lab,
    source: str,
    transport: str = "UDP",
    port: int | None = None,
    host: str = PBX_IPV4,
    protocol: str = "sip",
    origin: str = "",
) -> Caller:
    """Return a caller, which the test must close."""
    with netns.inside(lab.network.attacker):
        wire = open_wire(
            transport, (host, port or PORTS[transport]), source, protocol=protocol, origin=origin
        )
        return Caller(wire, transport)


def guesses(
    caller: Caller,
    request: Raw,
    most: int,
    seconds: float = 2.0,
    pause: float = 0.0,
    between: Callable[[], object] = lambda: None,
    over: Callable[[], object] = lambda: True,
) -> list[int]:
    """Guess ``most`` times, or until one is not answered; return the statuses of the answers.

    Call ``between`` after each pause: :meth:`Guard.take_turn`, if a limit depends on the daemon's speed.
    A busy Asterisk is silent too. So a guess without an answer ends it only if ``over`` returns something
    true, such as a ban.
    """
    statuses: list[int] = []
    for number in range(most):
        status = caller.guess(request, f"wrong-{number}", seconds)
        if status:
            statuses.append(status)
            time.sleep(pause)
            between()
        elif over():
            break
    return statuses


def guess_until(caller: Caller, request: Raw, over: Callable[[], object], what: str) -> None:
    """Guess ten times a second until something is true, however late a busy machine answers."""
    numbers = itertools.count()

    def guess() -> object:
        caller.guess(request, f"wrong-{next(numbers)}", 0.5)
        return over()

    until(guess, what, pause=0.1)


def on_new_connections(
    lab: Lab,
    source: str,
    transport: str,
    request: Raw,
    most: int,
    over: Callable[[], object] = lambda: True,
) -> int:
    """Guess at full speed, on a new connection each time; return the number of answered guesses.

    ``over`` is as in :func:`guesses`.
    """
    with calling(lab, source, transport) as caller:
        challenge = caller.challenged(request)
    assert challenge is not None
    answered = 0
    for number in range(most):
        try:
            with calling(lab, source, transport) as caller:
                answer = caller.ask(request.answering(challenge, f"wrong-{number}"), 2.0)
        except ConnectionError:  # the ban came before the answer to the request for a WebSocket
            answer = None
        if answer is not None:
            answered += 1
            challenge = challenge_of(answer) or challenge
        elif over():
            break
    return answered


def rotation(
    lab: Lab,
    network: str,
    request: Raw,
    pause: float = 0.05,
    between: Callable[[], object] = lambda: None,
    over: Callable[[], object] = lambda: True,
) -> int:
    """Make four guesses from each of forty addresses by UDP, and return the number of answered guesses.

    After three addresses in a row without an answer, ``over`` decides as in :func:`guesses`.
    """
    answered = silent = 0
    for host in range(1, 41):
        with calling(lab, f"{network}{host}") as caller:
            came = guesses(caller, request, 4, 0.2, pause, between)
        answered, silent = answered + len(came), 0 if came else silent + 1
        if silent >= 3 and over():
            break
    return answered


def udp_socket(lab: Lab, source: str, port: int = 0) -> socket.socket:
    """Return a UDP socket of the attacker's side, which the test must close."""
    with netns.inside(lab.network.attacker):
        made = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((source, port))
    return made


SEGMENT_GUESSES = 200
_STREAMS = 3
_FEW = 4
"""So many refusals come before a ban, and with the ration."""


def answered_within_segments(lab: Lab, source: str) -> int:
    """Close the window, fill it with answers to BYE, guess ``SEGMENT_GUESSES`` times; return the answers.

    A busy Asterisk may end a connection that reads nothing, before it has read the guesses. Then they come
    on another one.
    """
    with calling(lab, source, "TCP") as caller:
        challenge = caller.challenged(Raw())
        assert challenge is not None
    # Asterisk reports nothing of it, neither an event nor an address in a notice.
    guess = Raw(call_id=b"\xff{}m", from_display=b'"\x1b"')
    for _ in range(_STREAMS):
        with suppress(ConnectionResetError), _filled(lab, source) as (stream, here):
            for number in range(SEGMENT_GUESSES):
                stream.sendall(guess.answering(challenge, f"wrong-{number}").encode(here, "TCP"))
            return _refusals(stream)
    raise AssertionError(f"Asterisk ended {_STREAMS} connections")


@contextmanager
def _filled(lab: Lab, source: str) -> Iterator[tuple[socket.socket, str]]:
    """Yield a connection whose closed window Asterisk has filled with answers to BYE, and its own address."""
    with netns.inside(lab.network.attacker):
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        # All guesses have room: a ban may come before Asterisk has read them, and would stop a full buffer.
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEGMENT_GUESSES * 1_024)
        stream.settimeout(_PATIENCE)
        stream.bind((source, 0))
        stream.connect((PBX_IPV4, 5060))
        here = "{}:{}".format(*stream.getsockname())
        bye = Raw(method=b"BYE", extension=b"1")
        for _ in range(40):
            stream.sendall(bye.encode(here, "TCP"))
            time.sleep(0.002)
        time.sleep(0.3)
        yield stream, here


def _refusals(stream: socket.socket) -> int:
    """Return the number of challenges that arrive, read slowly until nothing comes for a while.

    That is longer as long as too few came for a ban: then Asterisk or the guard is slow.
    """
    received, refusals = b"", 0
    with suppress(OSError):
        while True:
            stream.settimeout(1.5 if refusals >= _FEW else _PATIENCE)
            piece = stream.recv(700)
            if not piece:
                break
            received += piece
            refusals = received.count(b"SIP/2.0 401 ")
            time.sleep(0.005)
    return refusals
