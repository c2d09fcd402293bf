"""Ways to guess passwords so that no source alone counts the guesses: a function for each.

Each attacks a laboratory with :mod:`tests.support.open_pbx` from one address. It returns the number of
guesses that Asterisk answered; if the answers go nowhere, of those that it may have checked.
"""

import itertools
import socket
import time
from collections.abc import Callable
from ipaddress import ip_interface

from attrs import evolve
from tests.support import open_pbx
from tests.support.asterisk_files import PASSWORD
from tests.support.lab import Lab
from tests.support.sip_raw import (
    GARBAGE,
    NOWHERE,
    OTHER_REALM,
    Digest,
    Raw,
    calling,
    guesses,
    invented,
    rotation,
    udp_socket,
)
from tests.support.sip_wire import status_of

HIDDEN = Raw(call_id=b"\xff{}")
"""Asterisk writes no security event about a Call-ID that is not UTF-8."""

BEHIND_GARBAGE = Raw(digest=Digest(before=GARBAGE))
"""Asterisk's event about it names an invented nonce, which proves nothing."""

GUESSER = "198.19.210.1"
"""The address from which :func:`rotate_behind_garbage` guesses right in the end."""

HIDING = b"\xff{}m"
"""A Call-ID that hides a guess from AMI; with an ESC before it, also its address from the log."""

SECOND_ADDRESS = "198.18.0.2"
"""Another address of the PBX; :func:`add_second_address` adds it."""
_EVERY_ADDRESS = 5070
"""The UDP port of :func:`configured` that PJSIP opens at every address."""

RENEWED = 30.0
"""Seconds after which a guesser asks for another nonce. PJSIP accepts one for 32 s."""

_PAUSE = 0.05
_BETWEEN_BLIND = 1.0
_LEARNED = 1.0
"""Seconds after which a login has made its sender a friend."""
_SILENT = 4
"""The number of guesses without an answer after which a guesser gives up."""


def configured() -> dict[str, str]:
    """Return the configuration of Asterisk 22 with a port at every address."""
    texts = open_pbx.configured("22")
    more = f"[every]\ntype = transport\nprotocol = udp\nbind = 0.0.0.0:{_EVERY_ADDRESS}\n"
    return {**texts, "pjsip.conf": texts["pjsip.conf"] + more}


def add_second_address(lab: Lab) -> None:
    """Add the second address of the PBX."""
    network = ip_interface(f"{SECOND_ADDRESS}/16")
    lab.run("ip", "address", "replace", str(network), "dev", "lan")


def blind(
    lab: Lab,
    source: str,
    seconds: float,
    stopped: Callable[[], bool],
    call_id: bytes = HIDING,
    behind: bytes = b"",
) -> int:
    """Guess with answers that go nowhere, and ask in the ordinary way only for a nonce each ``RENEWED``.

    ``behind``: a request by this method with the same Call-ID and number follows each guess. Return how many
    guesses were sent until ``stopped`` or for ``seconds``. No other sender asks.
    """
    sent, renew = 0, time.monotonic() + RENEWED
    end = time.monotonic() + seconds
    with calling(lab, source) as caller:
        challenge = caller.challenged(Raw())
        while challenge is not None and not stopped() and time.monotonic() < end:
            if time.monotonic() >= renew:
                challenge, renew = caller.challenged(Raw()), renew + RENEWED
                continue
            guess = Raw(call_id=call_id, from_display=b'"\x1b" ', via=NOWHERE, cseq=sent + 5)
            guess = guess.named(f"blind-{sent}-{source}")
            caller.send(guess.answering(challenge, f"wrong-{sent}"))
            if behind:
                caller.send(evolve(guess, method=behind, via=b";rport"))
            sent += 1
            time.sleep(_BETWEEN_BLIND)
    return sent


def paid_by_events(lab: Lab, source: str, most: int) -> int:
    """Hide each guess behind another header and a Call-ID of 512 bytes, and cause an event for each.

    The event is of a request without credentials, whose challenge goes nowhere.
    """
    request = Raw(call_id=b"x" * 496 + b"{}", digest=Digest(before=OTHER_REALM))
    answered = silent = 0
    with calling(lab, source) as caller:
        for number in range(most):
            named = request.named(f"paid-{number}-{source}")
            caller.send(evolve(named, from_user=b"nobody", via=NOWHERE, digest=Digest()))
            status = caller.guess(named, f"wrong-{number}", 1.0)
            answered, silent = answered + bool(status), 0 if status else silent + 1
            if silent == _SILENT:
                break
            time.sleep(_PAUSE)
    return answered


def at_second_address(lab: Lab, source: str, most: int, *, hidden: bool) -> int:
    """Ask at the first address of the PBX for each nonce, and guess at its second one."""
    request = HIDDEN if hidden else Raw()
    answered = silent = 0
    with calling(lab, source) as first, udp_socket(lab, source) as second:
        second.settimeout(1.0)
        contact = "{}:{}".format(*second.getsockname())
        for number in range(most):
            challenge = first.challenged(Raw(), 1.0)
            if challenge is not None:
                guess = request.answering(challenge, f"wrong-{number}").encode(contact, "UDP")
                second.sendto(guess, (SECOND_ADDRESS, _EVERY_ADDRESS))
            came = challenge is not None and _receives(second)
            answered, silent = answered + came, 0 if came else silent + 1
            if silent == _SILENT:
                break
            time.sleep(_PAUSE)
    return answered


def _receives(sock: socket.socket) -> bool:
    """Whether an answer comes."""
    try:
        return status_of(sock.recv(65_535)) >= 200
    except TimeoutError:
        return False


def behind_garbage(lab: Lab, source: str, most: int) -> int:
    """Guess behind an Authorization header with an invented nonce."""
    with calling(lab, source) as caller:
        return len(guesses(caller, BEHIND_GARBAGE, most, pause=_PAUSE))


def rotate_behind_garbage(lab: Lab, over: Callable[[], object] = lambda: True) -> int:
    """Guess like this from many addresses of one /24, and from eight others once.

    Then guess three times from another one, and then right. Return the answers to the /24. ``over`` is that
    of :func:`rotation`.
    """
    answered = rotation(lab, "198.19.200.", BEHIND_GARBAGE, _PAUSE, over=over)
    for number in range(201, 209):
        with calling(lab, f"198.19.{number}.1") as caller:
            caller.guess(BEHIND_GARBAGE, "wrong")
    other = evolve(BEHIND_GARBAGE, from_user=b"phone1")
    with calling(lab, GUESSER) as caller:
        guesses(caller, other, 3, pause=_PAUSE)
        caller.guess(other, PASSWORD)
    return answered


def with_invented_nonce(
    lab: Lab,
    source: str,
    most: int,
    method: bytes,
    transport: str,
    *,
    login: bool = False,
    pause: float = _PAUSE,
) -> int:
    """Guess at chan_sip with a nonce of one's own, and a From that is not UTF-8; ``login``: log in before."""
    answered = 0
    with calling(lab, source, transport) as caller:
        if login:
            caller.guess(Raw(from_user=b"bob"), PASSWORD)
            time.sleep(_LEARNED)
        for number in range(most):
            if caller.ask(invented(method, number), 2.0) is None:
                break
            answered += 1
            time.sleep(pause)
    return answered


def in_turn(lab: Lab, source: str, most: int) -> int:
    """Guess under one Call-ID in ways of which each is reported by other sources, in turn.

    Ordinary ones are reported by all. The next are hidden from AMI, and the third ones from the log too.
    """
    ways = (
        Raw(),
        Raw(digest=Digest(before=OTHER_REALM)),
        Raw(from_display=b'"\x1b" ', digest=Digest(before=OTHER_REALM)),
    )
    answered = silent = 0
    cseq = itertools.count(1, 2)
    with calling(lab, source) as caller:
        for number in range(most):
            request = evolve(ways[number % len(ways)], call_id=b"one-for-all-" + source.encode())
            status = caller.guess(evolve(request, cseq=next(cseq)), f"wrong-{number}", 1.0)
            answered, silent = answered + bool(status), 0 if status else silent + 1
            if silent == _SILENT:
                break
            time.sleep(_PAUSE)
    return answered
