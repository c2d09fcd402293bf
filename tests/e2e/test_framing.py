"""No address is framed: a sender's text, and the addresses that it has answers sent to, ban only itself.

Each forgery worked on a real Asterisk in the recommended setup (AMI, the log channel
``notice,security``, and the wire).
"""

import itertools
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from urllib.parse import quote

import pytest
from attrs import evolve
from tests.support import iax, netns
from tests.support.asterisk_files import Kind
from tests.support.blames import forward
from tests.support.daemon import Guard, until
from tests.support.guarded import shared
from tests.support.lab import Lab
from tests.support.network import PBX_IPV4
from tests.support.open_pbx import GUESTS
from tests.support.phones import phones_at
from tests.support.sip_raw import (
    OWN_CHALLENGE,
    PORTS,
    Digest,
    Raw,
    calling,
    udp_socket,
)
from tests.support.sip_streams import open_wire
from tests.support.sip_wire import Wire, challenge_of

pytestmark = pytest.mark.asterisk


_SIP = 5060
MANY_SENDERS = {"rules": {"prefix": {"enabled": False}}}
"""The settings of the daemons: the senders of some tests are neighbours."""
SENDS = 6
"""One more than the threshold."""
_QUIET = 1.0
"""The sources report within milliseconds; after so many seconds without an event they have read all."""


def settle(guard: Guard, seconds: float = _QUIET) -> None:
    """Wait until no source has reported anything for some time."""
    events = -1
    while events != (events := sum(source["events"] for source in guard.ask("status")["sources"])):
        time.sleep(seconds)


def framed(guard: Guard, senders: Mapping[str, str]) -> set[str]:
    """Return the banned addresses, without the senders."""
    return guard.banned() - set(senders)


def log_of(lab: Lab) -> str:
    """Return the log of Asterisk that the daemon reads."""
    return (lab.asterisk.logs / "ringfence").read_text("utf-8", "replace")


def is_written(lab: Lab, line: str, victim: str) -> bool:
    """Whether a line of Asterisk's log begins as ``line`` does, up to the address of the victim in it."""
    return "\n" + line.partition("{}")[0] + victim in log_of(lab)


# -- A.1: the end of a SECURITY line is repeated behind the true address


def splice(victim: str) -> Raw:
    """Return a request whose SECURITY line ends with an address of a TCP connection of ``victim``.

    ``term_strip`` of Asterisk works in place. It removes the text from the ESC in the Call-ID to the ``m``.
    Then, at an ESC without ``m``, it leaves as many bytes of the old line behind the new one.
    """
    nonce, head = f"IPV4/TCP/{victim}/5060".encode(), b"xoteAddress="
    size = len(b'"' + nonce + b'",Response="' + head)
    call_id = b"{}\x1b" + b"z" * (size - 2) + b"m"
    return Raw(call_id=call_id, digest=Digest(nonce=nonce, response=head + b"\x1b"))


def test_a_security_line_that_is_spliced_with_esc_bans_no_victim(open22: Lab) -> None:
    """Neither a stranger nor a friend that sent nothing is banned by lines that end with its address."""
    stranger, friend = "9.1.2.3", "198.19.60.2"
    senders = {"198.19.60.1": stranger, "198.19.60.3": friend}
    with shared(open22, **MANY_SENDERS) as guard:
        with phones_at(open22, friend, ["phone1"]) as [phone]:
            assert phone.register() == 200
            for source, victim in senders.items():
                request = splice(victim).answering(OWN_CHALLENGE, "wrong")
                with calling(open22, source) as caller:
                    for _ in range(SENDS):
                        caller.ask(request, 0.2)
        until(lambda: all(f"IPV4/TCP/{one}/5060" in log_of(open22) for one in senders.values()), "the lines")
        until(lambda: all(guard.attempts_of(source) for source in senders), "the attempts")
        settle(guard)

        assert framed(guard, senders) == set()


# -- A.2: a line feed ends the line, and what follows looks like a line of Asterisk's


def _quoted(text: str) -> bytes:
    return quote(text, safe="").encode()


MANAGER = "NOTICE[1] manager.c: {} failed to authenticate as '"
UNKNOWN_MANAGER = "NOTICE[1] manager.c: {} tried to authenticate with nonexistent user '"
SESSION = (
    "NOTICE[1] res_pjsip_session.c:  a: Call (TCP:{}:5) to extension '1' rejected because "
    "extension not found in context 'a'."
)
REQUEST = (
    "NOTICE[1] res_pjsip/pjsip_distributor.c: Request 'REGISTER' from '<sip:a@b>' failed for '{}:5' "
    "(callid: a) - Failed to authenticate"
)
REGISTRATION = "NOTICE[1] chan_sip.c: Registration from '<sip:a@b>' failed for '{}:5' - Wrong password"
# Asterisk's text behind the extension completes it.
CALL = "NOTICE[1] chan_sip.c: Call from '' ({}:5) to extension '"
LINES = {
    "manager": MANAGER,
    "manager-unknown": UNKNOWN_MANAGER,
    "pjsip-session": SESSION,
    "pjsip-request": REQUEST,
    "chan-sip": REGISTRATION,
    "chan-sip-call": CALL,
}
DATED = "[2026-11-20 00:00:00.000] "


def by_register(line: str) -> Raw:
    """Return a REGISTER of chan_sip whose To user contains a line."""
    return Raw(to_user=b"x" + _quoted("\n" + line + "\n"))


def by_open_register(line: str) -> Raw:
    """Return a REGISTER of chan_sip whose To user contains the beginning of a line."""
    return Raw(to_user=b"x" + _quoted("\n" + line))


def by_guest(line: str) -> Raw:
    """Return a guest's INVITE of an extension that contains the beginning of a line."""
    return Raw(
        method=b"INVITE", from_user=b"guest", from_host=GUESTS.encode(), extension=b"1" + _quoted("\n" + line)
    )


def by_guest_whole(line: str) -> Raw:
    """Return a guest's INVITE of an extension that contains a whole line."""
    return by_guest(line + "\n")


SHAPES: Mapping[str, Callable[[str], Raw]] = {
    "guest": by_guest,
    "guest-whole": by_guest_whole,
    "register": by_register,
    "register-open": by_open_register,
}


@pytest.mark.parametrize(
    ("port", "dated"),
    [
        pytest.param(5060, "", id="chan_sip-undated", marks=pytest.mark.long),
        pytest.param(5060, DATED, id="chan_sip-dated"),
        pytest.param(5080, "", id="pjsip"),
    ],
)
def test_a_line_feed_in_a_user_bans_no_victim_on_16(
    open16: Lab, pytestconfig: pytest.Config, port: int, dated: str
) -> None:
    """Whatever line with an address is in a user name, the address in it is not banned."""
    _lines_bring_no_ban(open16, port, dated, everything=pytestconfig.getoption("--long"))


def test_a_line_feed_in_a_user_bans_no_victim_on_22(open22: Lab, pytestconfig: pytest.Config) -> None:
    """Whatever line with an address is in a user name, the address in it is not banned."""
    _lines_bring_no_ban(open22, _SIP, "", everything=pytestconfig.getoption("--long"))


def _lines_bring_no_ban(lab: Lab, port: int, dated: str, *, everything: bool) -> None:
    """Check each line in each shape, or in every second one, alternately."""
    senders, victims, forged = {}, {}, list[tuple[str, str]]()
    # PJSIP writes no user of a REGISTER into the log.
    shapes = SHAPES if lab.asterisk.kind is Kind.CHAN_SIP and port == _SIP else [*SHAPES][:2]
    net = 10 * bool(dated) + port - _SIP
    with shared(lab, **MANY_SENDERS) as guard:
        pairs = [
            (shape, line)
            for (first, shape), (second, line) in itertools.product(enumerate(shapes), enumerate(LINES))
            if everything or (first + second) % 2 == 0
        ]
        for number, (shape, line) in enumerate(pairs):
            source, victim = f"198.19.{net}.{number + 1}", f"9.2.{net}.{number + 1}"
            senders[source] = victims[victim] = f"{shape} {line}"
            with calling(lab, source, port=port) as caller:
                request = SHAPES[shape](dated + LINES[line].format(victim))
                for _ in range(SENDS):
                    caller.guess(request, "wrong", 0.1)
            settle(guard, 0.2)  # lines that are read together hide each other
            forged.append((dated + LINES[line], victim))
        # Asterisk cuts an extension after 79 bytes, before some addresses.
        until(lambda: 2 * sum(is_written(lab, *one) for one in forged) > len(pairs), "most lines")
        until(lambda: any(guard.attempts_of(source) for source in senders), "an attempt")
        settle(guard)

        assert {victims.get(address, address) for address in framed(guard, senders)} == set()


@pytest.mark.parametrize("release", ["16", "22"])
def test_a_line_feed_in_a_name_of_iax2_bans_no_victim(request: pytest.FixtureRequest, release: str) -> None:
    """A user name of IAX2 contains a line with an address: that address is not banned."""
    lab: Lab = request.getfixturevalue(f"open{release}")
    senders, victims = {}, {}
    with shared(lab, **MANY_SENDERS) as guard:
        for number, line in enumerate(LINES):
            source, victim = f"198.19.62.{number + 1}", f"9.1.4.{number + 1}"
            senders[source] = victims[victim] = line
            name = "x\n" + LINES[line].format(victim)
            assert iax.guess(lab, source, name)
            with suppress(TimeoutError):
                for _ in range(1, SENDS):
                    iax.guess(lab, source, name)
            until(partial(is_written, lab, LINES[line], victim), line)
        settle(guard)

        assert {victims.get(address, address) for address in framed(guard, senders)} == set()


# -- A.3: a challenge is sent to a bystander, and its nonce is obtained elsewhere


def test_a_challenge_that_a_via_sends_to_a_bystander_bans_no_bystander(open22: Lab) -> None:
    """The same nonce is asked for by TCP, in a request of which Asterisk reports nothing."""
    bystander = "198.19.63.1"
    sources = {f"198.19.63.{number}": "" for number in range(2, 2 + SENDS)}
    with shared(open22, **MANY_SENDERS) as guard:
        for source in sources:
            with calling(open22, source) as caller, calling(open22, source, "TCP") as silent:
                caller.send(Raw(via=f";rport;maddr={bystander}".encode()))
                nonce = silent.challenged(Raw(call_id=b"\xff{}"))
                assert nonce is not None
                time.sleep(1.1)  # so that the answer to the guess has a nonce of another second
                caller.ask(Raw().answering(nonce, "wrong"), 0.1)
        until(lambda: all(guard.attempts_of(source) for source in sources), "the attempts")
        settle(guard)

        assert framed(guard, sources) == set()


# -- B.7: a challenge with several Vias is forwarded to the next one


@pytest.mark.parametrize(
    "friend",
    [
        False,
        True,
    ],
    ids=["stranger", "friend"],
)
def test_a_proxy_that_forwards_responses_is_not_banned_in_full(open22: Lab, *, friend: bool) -> None:
    """The proxy forwards the answers to requests with its forged address; a friend gets no ban for it.

    Every sender can write a second Via. So for a stranger, behind whose address no phone has logged in, the
    answers prove its address, and it gets a ban of the SIP ports at most.
    """
    proxy, attacker = ("198.19.64.3", "198.19.64.4") if friend else ("198.19.64.1", "198.19.64.2")
    with shared(open22, **MANY_SENDERS) as guard:
        if friend:
            with phones_at(open22, proxy, ["phone2"]) as [phone]:
                assert phone.register() == 200
            until(lambda: proxy in guard.friends(), "the friend")
        with udp_socket(open22, proxy) as there, udp_socket(open22, attacker) as back:
            assert reflect(there, back) >= SENDS - 1  # a narrow ban may end it at the threshold
        settle(guard)

        found = guard.scopes()
        assert found in ({}, {proxy: "sip-udp"}, {proxy: "sip"}) if not friend else found == {}


def reflect(proxy: socket.socket, back: socket.socket) -> int:
    """Guess with the proxy's address and the challenges that it forwards; return the number of guesses sent.

    The laboratory forges nothing: the proxy's own socket sends the requests.
    """
    host, port = back.getsockname()
    own = "{}:{}".format(*proxy.getsockname())
    request = Raw(vias=f"Via: SIP/2.0/UDP {host}:{port};branch=z9hG4bKback\r\n".encode())
    for end in (proxy, back):
        end.settimeout(3.0)
    for sent in range(2 * SENDS):
        proxy.sendto(request.encode(own, "UDP"), (PBX_IPV4, 5060))
        forward(proxy)
        try:
            challenge = challenge_of(back.recv(65_535))
        except TimeoutError:
            return sent
        assert challenge is not None
        proxy.sendto(request.answering(challenge, "wrong").encode(own, "UDP"), (PBX_IPV4, 5060))
        forward(proxy)
        with suppress(TimeoutError):
            back.recv(65_535)
    return 2 * SENDS


@contextmanager
def wire_at(lab: Lab, source: str, transport: str) -> Iterator[Wire]:
    """Return a connection or socket from ``source`` to chan_sip."""
    with netns.inside(lab.network.attacker):
        wire = open_wire(transport, (PBX_IPV4, PORTS[transport]), source)
    try:
        yield wire
    finally:
        wire.close()


@pytest.mark.parametrize("forges_source", [False, True], ids=["via", "forged-source"])
def test_a_nonce_that_chan_sip_repeats_for_a_bystander_proves_no_bystander(
    open16: Lab, *, forges_source: bool
) -> None:
    """A sender gets a nonce by TLS, makes chan_sip repeat it to a bystander by UDP, and answers it."""
    network = f"198.19.{81 + forges_source}."
    bystander = f"{network}66"
    first = Raw(from_user=b"carol", call_id=b"repeated-{}", via=b"")
    repeated = first if forges_source else evolve(first, via=f";maddr={bystander}".encode())
    with shared(open16, **MANY_SENDERS) as guard:
        for number in range(6):
            source, text = f"{network}{number + 1}", f"repeated{bystander}-{number}"
            with (
                wire_at(open16, source, "TLS") as tls,
                wire_at(open16, bystander if forges_source else source, "UDP") as udp,
            ):
                tls.send(first.encode(tls.contact, "TLS", text))
                challenge = challenge_of(tls.receive(2.0) or b"")
                assert challenge is not None
                udp.send(repeated.encode(udp.contact, "UDP", text))
                time.sleep(0.1)
                guess = evolve(repeated, call_id=b"repeated-" + text.encode()).answering(challenge, "wrong")
                udp.send(guess.encode(udp.contact, "UDP", text))
                time.sleep(0.2)
        if forges_source:
            until(lambda: bystander in guard.banned(), "the narrow ban")
        settle(guard)

        scopes = guard.scopes()
        assert scopes.get(bystander) == ("sip-udp" if forges_source else None)


def test_a_nonce_that_pjsip_repeats_for_a_bystander_proves_no_bystander(open22: Lab) -> None:
    """PJSIP's nonce of one second is the same by TLS and by UDP, where a Via sends it to a bystander.

    If the sender then forges the bystander's address, it causes a narrow ban, as any forged source does.
    """
    source, bystander = "198.19.83.1", "198.19.83.66"
    with shared(open22, **MANY_SENDERS) as guard:
        with (
            calling(open22, source, "TLS") as tls,
            calling(open22, source) as udp,
            calling(open22, bystander) as forged,
        ):
            for number in range(SENDS):
                until(lambda: time.time() % 1 < 0.4, "the beginning of a second")
                challenge = tls.challenged(Raw())
                assert challenge is not None
                udp.send(Raw(via=f";rport;maddr={bystander}".encode()))
                time.sleep(1.1)  # the 401 to the guess must hold another nonce
                forged.send(Raw().answering(challenge, f"wrong-{number}"))
                time.sleep(0.2)
        until(guard.bans, "the narrow ban")
        settle(guard)

        assert guard.scopes() == {bystander: "sip-udp"}
