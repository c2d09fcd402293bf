"""Hidden guesses by plain TCP and WS count, wherever their answers stand in the segments."""

import socket
import time
from pathlib import Path

import pytest
from tests.e2e.test_uncounted import scopes
from tests.support import netns
from tests.support.daemon import until
from tests.support.guarded import guarded
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.sip_raw import Raw, calling

pytestmark = pytest.mark.asterisk

GUESSES = 200


def silent(transport_name: str = "") -> Raw:
    """Return a request of which Asterisk reports nothing, neither an event nor an address in a notice."""
    return Raw(call_id=b"\xff{}m" + transport_name.encode(), from_display=b'"\x1b"')


@pytest.mark.parametrize("backend", ["ipset", "nftables"])
def test_answers_within_segments_count(open22: Lab, tmp_path: Path, backend: str) -> None:
    """The window is closed and filled with answers to BYE; then the guesses follow, all at once."""
    source = "198.19.92.1" if backend == "ipset" else "198.19.92.2"
    with guarded(open22, tmp_path, firewall={"backend": backend}) as guard:
        answered = answered_within_segments(open22, source)
        until(lambda: source in guard.banned(), "the ban")
        assert answered < GUESSES  # how many depends on the machine's speed
        assert scopes(guard) == {source: "full"}


def answered_within_segments(lab: Lab, source: str) -> int:
    """Close the window, fill it with answers to BYE, guess 200 times; return how many are answered."""
    with calling(lab, source, "TCP") as caller:
        challenge = caller.challenged(Raw())
        assert challenge is not None
    with netns.inside(lab.network.attacker):
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        stream.bind((source, 0))
        stream.connect((PBX_IPV4, 5060))
        here = "{}:{}".format(*stream.getsockname())
        bye = Raw(method=b"BYE", extension=b"1")
        for _ in range(40):
            stream.sendall(bye.encode(here, "TCP"))
            time.sleep(0.002)
        time.sleep(0.3)
        guess = silent()
        for number in range(GUESSES):
            stream.sendall(guess.answering(challenge, f"wrong-{number}").encode(here, "TCP"))
        return _refusals(stream)


def _refusals(stream: socket.socket) -> int:
    """Return the number of challenges that arrive, read slowly until nothing comes for a second."""
    stream.settimeout(1.5)
    received = b""
    try:
        while piece := stream.recv(700):
            received += piece
            time.sleep(0.005)
    except OSError:
        pass
    return received.count(b"SIP/2.0 401 ")
