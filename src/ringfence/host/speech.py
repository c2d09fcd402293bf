"""The protocol of each port that Asterisk listens on: SIP, SIP by TLS, or another one.

The number of a port is no proof: a TLS transport may listen on 5080, and a UDP transport among the ports of
calls. Neither the kernel nor AMI reports the protocol. So ringfence asks each new socket, from this host,
with a BYE of no call. PJSIP and chan_sip answer 481 before they look at the sender, without an event and
without a line in a log. Asterisk's web server answers ``HTTP/1.1``, and the manager interface speaks first.

    sip 5060    BYE ...      ->  SIP/2.0 481 Call/Transaction Does Not Exist
    tls 5080    TLS, BYE ... ->  SIP/2.0 481 Call/Transaction Does Not Exist
    http 8088   BYE ...      ->  HTTP/1.1 404 Not Found

The datagram of a question begins with empty lines. PJSIP ignores them, and a socket of a call takes it for a
STUN packet (its first two bits are 0, ``res_rtp_asterisk.c``) and ignores it, too. chan_sip does not.
"""

import enum
import os
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from typing import NamedTuple

from attrs import define, field

from ringfence.values.event import Transport
from ringfence.values.network import Address

BANNER_SECONDS = 0.1
"""Seconds to wait for a banner, as AMI sends one unasked, before a server is asked."""
ANSWER_SECONDS = 1.0
DATAGRAM_SECONDS = 0.3
MOST_ASKED = 32
"""The maximum number of sockets, of TCP and of UDP, that one :meth:`Speeches.look` asks."""
MOST_KNOWN = 4_096
_LONGEST_PAUSE = 7
"""The greatest power of two of the pause: a silent socket is asked again after 1, 2, 4 … 128 looks."""

_BYE = (
    "BYE sip:ringfence@{host} SIP/2.0\r\nVia: SIP/2.0/{transport} {here};rport;branch=z9hG4bK{text}\r\n"
    "Max-Forwards: 1\r\nFrom: <sip:ringfence@{host}>;tag={text}\r\nTo: <sip:ringfence@{host}>;tag=none\r\n"
    "Call-ID: {text}\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n"
)
_IPV4 = 4
_SIP, _OTHERS = b"SIP/2.0 ", (b"HTTP/", b"Asterisk Call Manager")
_WANTS_CERTIFICATE = {"SSLV3_ALERT_HANDSHAKE_FAILURE", "TLSV13_ALERT_CERTIFICATE_REQUIRED"}
"""The errors with which a TLS server refuses a client without a certificate. No web server does so."""


class Speech(enum.Enum):
    """The protocol in which a listening socket answered a SIP BYE."""

    SIP = "SIP"
    SIPS = "SIP by TLS"
    OTHER = "HTTP or AMI, in clear or by TLS"


class ListeningSocket(NamedTuple):
    """A listening socket; ``inode`` distinguishes it from an earlier one at the same address and port."""

    address: Address
    port: int
    transport: Transport
    inode: int


@define
class _Asked:
    """What is known of a listening socket: its protocol (``speech``), None if unknown.

    ``tries`` is how often it was asked in vain, and ``due`` the number of the look that asks it again.
    """

    inode: int
    speech: Speech | None = None
    tries: int = 0
    due: int = 0


@define
class Speeches:
    """Finds out which protocol each listening socket of this host speaks, by asking until it answers."""

    _heard: dict[tuple[Address, int, Transport], _Asked] = field(factory=dict)
    _look: int = 0

    def look(
        self, listeners: Iterable[ListeningSocket], clear: Iterable[int]
    ) -> dict[ListeningSocket, Speech]:
        """Ask the sockets that have not answered yet, and return what each one speaks, if that is known.

        A socket that took the place of another one counts as the earlier one until it answers. ``clear`` are
        the ports that are asked without TLS first. This takes some seconds if a socket does not answer.
        """
        self._look += 1
        present, first = list(listeners), set(clear)
        due = [one for one in present if self._is_due(one)]
        for one in [one for one in due if one.transport is Transport.TCP][:MOST_ASKED]:
            self._keep(one, _ask_stream(one, clear_first=one.port in first))
        datagrams = [one for one in due if one.transport is Transport.UDP][:MOST_ASKED]
        for one, speech in _ask_datagrams(datagrams):
            self._keep(one, speech)
        self._forget(present)
        return {one: heard for one in present if (heard := self._heard[one[:3]].speech) is not None}

    def _is_due(self, one: ListeningSocket) -> bool:
        heard = self._heard.setdefault(one[:3], _Asked(one.inode))
        if heard.inode != one.inode:
            heard.inode, heard.tries, heard.due = one.inode, 0, 0
            return True
        return (heard.speech is None or heard.tries > 0) and heard.due <= self._look

    def _keep(self, one: ListeningSocket, speech: Speech | None) -> None:
        heard = self._heard[one[:3]]
        if speech is not None:
            heard.speech, heard.tries = speech, 0
            return
        heard.tries += 1
        heard.due = self._look + (1 << min(heard.tries - 1, _LONGEST_PAUSE))

    def _forget(self, present: Iterable[ListeningSocket]) -> None:
        """Forget UDP sockets of ended calls, and all sockets that are gone if there are too many."""
        here = {one[:3] for one in present}
        full = len(self._heard) > MOST_KNOWN
        for key in [key for key in self._heard if key not in here]:
            if full or key[2] is Transport.UDP:
                del self._heard[key]


def _ask_stream(one: ListeningSocket, *, clear_first: bool) -> Speech | None:
    """Return the protocol in which a TCP socket answers a BYE, asked with and without TLS, or None.

    ``clear_first``: ask without TLS first. Asterisk logs the wrong way.
    """
    for sealed in (False, True) if clear_first else (True, False):
        with suppress(OSError), socket.create_connection(_target(one), ANSWER_SECONDS) as connection:
            speech = _over_tls(connection) if sealed else _of(_answer(connection, "TCP"), Speech.SIP)
            if speech is not None:
                return speech
    return None


def _over_tls(connection: socket.socket) -> Speech | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the server is this host, and gets no secret
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with context.wrap_socket(connection) as sealed:
            return _of(_answer(sealed, "TLS"), Speech.SIPS)
    except ssl.SSLError as error:
        return Speech.SIPS if error.reason in _WANTS_CERTIFICATE else None


def _answer(connection: socket.socket, transport: str) -> bytes:
    """Return the banner that a server sends first, or else the beginning of its answer to a SIP BYE.

    ``transport`` is the one that the BYE's Via names. Raise OSError if no answer comes.
    """
    connection.settimeout(BANNER_SECONDS)
    with suppress(TimeoutError):
        return connection.recv(64)
    connection.settimeout(ANSWER_SECONDS)
    connection.sendall(_bye(connection, transport))
    return connection.recv(64)


def _of(answer: bytes, sip: Speech) -> Speech | None:
    if answer.startswith(_SIP):
        return sip
    return Speech.OTHER if answer.startswith(_OTHERS) else None


def _ask_datagrams(listeners: Iterable[ListeningSocket]) -> list[tuple[ListeningSocket, Speech | None]]:
    """Ask UDP sockets with a BYE; return the protocol in which each answered in ``DATAGRAM_SECONDS``."""
    found: list[tuple[ListeningSocket, Speech | None]] = []
    with ExitStack() as stack:
        asked = [(one, _ask_datagram(one, stack)) for one in listeners]
        if asked:
            time.sleep(DATAGRAM_SECONDS)
        for one, asking in asked:
            answer = b""
            if asking is not None:
                with suppress(OSError):
                    answer = asking.recv(64)
            found.append((one, _of(answer, Speech.SIP)))
    return found


def _ask_datagram(one: ListeningSocket, stack: ExitStack) -> socket.socket | None:
    """Ask a UDP socket with a BYE, from a socket that ``stack`` closes; None if the kernel refuses that."""
    family = socket.AF_INET if one.address.version == _IPV4 else socket.AF_INET6
    with suppress(OSError):
        asking = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        asking.settimeout(0.0)
        asking.connect(_target(one))
        asking.send(b"\r\n\r\n" + _bye(asking, "UDP"))
        return asking
    return None


def _target(one: ListeningSocket) -> tuple[str, int]:
    """Return the address and port at which this host can reach its own listening socket."""
    if not one.address.is_unspecified:
        return str(one.address), one.port
    return ("127.0.0.1" if one.address.version == _IPV4 else "::1"), one.port


def _bye(connection: socket.socket, transport: str) -> bytes:
    here, port = connection.getsockname()[:2]
    host = f"[{here}]" if ":" in here else here
    text = f"ringfence-{os.urandom(8).hex()}"
    return _BYE.format(host=host, here=f"{host}:{port}", transport=transport, text=text).encode()
