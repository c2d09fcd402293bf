"""Whoever only receives or relays is never blamed: other programs' answers, and proxies that forward."""

import sys
import time
from contextlib import suppress

import pytest
from tests.e2e.test_framing import MANY_SENDERS, SENDS, forward, settle
from tests.support.daemon import Guard, until
from tests.support.guarded import shared
from tests.support.lab import Lab
from tests.support.netns import run
from tests.support.network import PBX_IPV4
from tests.support.phones import phones_at
from tests.support.sip_raw import Raw, udp_socket
from tests.support.sip_wire import challenge_of

pytestmark = pytest.mark.asterisk

NOBODY = "65534"
_RELAY = """
import socket, sys
port, victims = int(sys.argv[1]), sys.argv[2:]
for number, victim in enumerate(victims):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("{here}", port + number))
        for guess in range(8):
            relay.sendto(
                b"SIP/2.0 401 Unauthorized\\r\\n"
                b"Via: SIP/2.0/UDP %s:5062;rport=5062;received=%s;branch=z9hG4bK%d\\r\\n"
                b"Call-ID: \\xff%d@relay\\r\\nFrom: <sip:alice@{here}>;tag=a\\r\\n"
                b"To: <sip:alice@{here}>;tag=b\\r\\nCSeq: 1 REGISTER\\r\\n"
                b'WWW-Authenticate: Digest realm="asterisk",nonce="1790000000/%032x",'
                b'opaque="0123456789abcdef",algorithm=md5,qop="auth"\\r\\n'
                b"Server: Asterisk\\r\\nContent-Length:  0\\r\\n\\r\\n"
                % (victim.encode(), victim.encode(), guess, guess, guess),
                (victim, 5062),
            )
"""


@pytest.mark.parametrize("release", ["16", "22"])
def test_a_relay_on_the_host_of_the_pbx_frames_nobody(request: pytest.FixtureRequest, release: str) -> None:
    """Another user's program sends text like Asterisk's refusals to three strangers: nobody is banned."""
    lab: Lab = request.getfixturevalue(f"open{release}")
    strangers = [f"198.19.90.{number}" for number in range(1, 4)]
    with shared(lab, **MANY_SENDERS) as guard:
        before = _foreign(guard)
        user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        script = _RELAY.replace("{here}", PBX_IPV4)
        run(*lab.network.in_pbx(), *user, sys.executable, "-I", "-c", script, "45000", *strangers)
        settle(guard)

        assert guard.banned() == set()
        assert _foreign(guard) == before + 24


def _foreign(guard: Guard) -> int:
    """Return the number of challenges that the wire ignored, because no Asterisk sent them."""
    [wire] = [source for source in guard.ask("status")["sources"] if source["name"] == "wire"]
    return int(wire["foreign"])


@pytest.mark.parametrize("friend", [False, True], ids=["stranger", "friend"])
def test_a_proxy_that_receives_challenges_is_not_blamed(open22: Lab, *, friend: bool) -> None:
    """Two Vias, the upper with the proxy's ``maddr``: the guesses with its nonces do not touch the proxy.

    The attacker waits for the next second before each guess: its own challenge would otherwise have the same
    nonce, and the proxy would not be the only receiver.
    """
    proxy, attacker = ("198.19.91.3", "198.19.91.4") if friend else ("198.19.91.1", "198.19.91.2")
    with shared(open22, **MANY_SENDERS) as guard:
        if friend:
            with phones_at(open22, proxy, ["phone3"]) as [phone]:
                assert phone.register() == 200
            until(lambda: proxy in {row["address"] for row in guard.ask("friends")}, "the friend")
        with udp_socket(open22, proxy) as there, udp_socket(open22, attacker) as back:
            host, port = back.getsockname()
            upper = f";maddr={proxy};rport".encode()
            own = f"{proxy}:{there.getsockname()[1]}"
            for end in (there, back):
                end.settimeout(1.0)
            for number in range(SENDS):
                until(lambda: time.time() % 1 < 0.3, "the beginning of a second")
                via = f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bKback\r\n".encode()
                asking = Raw(via=upper.replace(b";rport", b""), vias=via)
                back.sendto(asking.encode(own, "UDP"), (PBX_IPV4, 5060))
                forward(there)
                try:
                    challenge = challenge_of(back.recv(65_535))
                except TimeoutError:
                    break
                assert challenge is not None
                time.sleep(1.1)
                guess = Raw().answering(challenge, f"wrong-{number}")
                back.sendto(guess.encode(f"{host}:{port}", "UDP"), (PBX_IPV4, 5060))
                with suppress(TimeoutError):
                    back.recv(65_535)
        settle(guard)

        assert proxy not in guard.banned()
        assert proxy not in _blamed(guard)
        assert number >= SENDS - 2


def _blamed(guard: Guard) -> set[str]:
    """Return the addresses that have attempts."""
    return {entry["address"].partition("/")[0] for entry in guard.ask("status")["watched"]}
