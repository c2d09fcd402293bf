"""Guessers that do not read their answers: what they sent, and how many guesses Asterisk checked.

    with unread(lab, "198.19.141.1", "TLS") as guesser:
        guesser.guess(60, pause=1 / 28)

The receive window is as small as the kernel permits, and no program reads. So the first answers fill it,
and the others stay in Asterisk's socket. Asterisk refuses each wrong guess in a notice, also if the answer
does not leave, and its sender needs none: the contact of the right guess is registered.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attrs import define, evolve, field
from tests.support import netns
from tests.support.asterisk_files import PASSWORD
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_raw import PORTS, Caller, Raw, calling
from tests.support.sip_streams import StreamWire, WebSocketWire
from tests.support.sip_wire import Challenge

HIDDEN = Raw(call_id=b"\xff{}m", from_display=b'"x\x1b["')
"""Asterisk writes no security event about it, and its notice names no address."""
BYE = Raw(method=b"BYE", extension=b"1")
"""Asterisk answers it with 481, and reports nothing."""
FOLDED = evolve(BYE, extra=b"Subject: a\r\n b\r\n")
FILLING = 40
SMALL = 2_304
"""Bytes of the receive buffer: the least that Linux permits."""

_REFUSED = b"Failed to authenticate"


@define
class Guesser:
    """A connection whose answers are not read; ``contact`` is the Contact of its right guess."""

    lab: Lab
    source: str
    caller: Caller
    wire: StreamWire
    challenge: Challenge
    checked_before: int
    contact: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.contact = b"right" + self.source.replace(".", "x").encode()

    def fill(self, request: Raw = FOLDED, number: int = FILLING, pause: float = 0.01) -> None:
        """Fill the window with answers to requests that are no guesses."""
        for _ in range(number):
            self.caller.send(request)
            time.sleep(pause)

    def guess(
        self,
        most: int,
        pause: float = 1 / 28,
        request: Raw = HIDDEN,
        stopped: Callable[[], bool] = lambda: False,
        *,
        right: bool = True,
    ) -> None:
        """Guess ``most`` times, unless ``stopped``; the last guess is right, unless ``right`` is false."""
        for number in range(1, most + 1):
            if stopped():
                return
            last = right and number == most
            one = evolve(request, contact=self.contact) if last else request
            password = PASSWORD if last else f"wrong-{number}"
            self.caller.send(one.answering(self.challenge, password))
            time.sleep(pause)

    @property
    def checked(self) -> int:
        """The number of wrong guesses that Asterisk has checked so far, of all senders."""
        return refused(self.lab) - self.checked_before

    @property
    def registered(self) -> bool:
        """Whether the right guess was checked."""
        return self.contact.decode() in self.lab.asterisk.cli("database show registrar")


def refused(lab: Lab) -> int:
    """Return the number of guesses that Asterisk has refused by its log."""
    return (lab.asterisk.logs / "ringfence").read_bytes().count(_REFUSED)


@contextmanager
def unread(lab: Lab, source: str, transport: str, *, fragments: int = 1) -> Iterator[Guesser]:
    """Yield a guesser that got a challenge on another connection; the tests must not run at the same time.

    ``fragments`` is the number of frames of each message in a WebSocket.
    """
    with calling(lab, source, transport) as caller:
        challenge = caller.challenged(Raw())
    assert challenge is not None
    before = refused(lab)
    with netns.inside(lab.network.attacker):
        wire = _wire(transport, source)
    if isinstance(wire, WebSocketWire):
        wire.fragments = fragments
    guesser = Guesser(lab, source, Caller(wire, transport), wire, challenge, before)
    try:
        yield guesser
    finally:
        guesser.caller.reset()


def _wire(transport: str, source: str) -> StreamWire:
    target = PBX_IPV4, PORTS[transport]
    if transport in {"WS", "WSS"}:
        return WebSocketWire(target, source, 2.0, encrypted=transport == "WSS", window=SMALL)
    return StreamWire(target, source, 2.0, encrypted=transport == "TLS", window=SMALL)
