"""Every guess counts: by any method and transport, hidden or not, from a friend's network or a stranger's.

A threshold of five means that an attacker has five answers; one more can be under way during the ban.
The attackers pause for some milliseconds between guesses, because the machine of a test may be busy.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.daemon import Guard, until
from tests.support.guarded import guarded, passing, shared
from tests.support.lab import Lab
from tests.support.phones import Phone, phones_at
from tests.support.sip_raw import (
    OWN_CHALLENGE,
    PORTS,
    Caller,
    Raw,
    calling,
    guesses,
    request_of,
    rotation,
)
from tests.support.sip_wire import Challenge

pytestmark = pytest.mark.asterisk


THRESHOLD = 5
PAUSE = 0.05
MANY = 60
SOON = 20
ROTATION = 80
"""A limit of answers that also holds on a busy machine; `make bench` measures the figures."""
HIDDEN = b"\xff{}"
"""A Call-ID that is not UTF-8: Asterisk writes no security event about its request."""


@contextmanager
def friend_at(lab: Lab, guard: Guard, address: str, account: str) -> Iterator[Phone]:
    """Register a phone, and wait until it is a friend of the daemon."""
    with phones_at(lab, address, [account]) as [phone]:
        assert phone.register(expires=600) == 200
        until(lambda: address in guard.friends(), "the friend")
        until(lambda: address in passing(lab, "ipset"), "the friend in the kernel")
        yield phone


# -- B.4


def test_the_neighbours_of_a_friend_in_a_64_are_counted_as_one(open22: Lab, tmp_path: Path) -> None:
    """Guesses from many addresses of a friend's /64 end at a friend's limit (20 in 60 s); the friend goes on.

    They try the friend's own account: it could be the phone, with a new temporary address.
    """
    answered = silent = 0
    phone = ("register", "--sources", "fd00:19::4:1", "--target", "[fd00:18::1]:5060")
    with guarded(open22, tmp_path) as guard:
        # IPv6 loses packets in the first seconds of the network (neighbour discovery).
        until(lambda: open22.attack(*phone).statuses == {"200": 1}, "the registration")
        until(lambda: "fd00:19::4:1" in guard.friends(), "the friend")
        for number in range(1, 300):
            with calling(open22, f"fd00:19::5:{number:x}", host="fd00:18::1") as caller:
                came = caller.guess(Raw(), "wrong", 0.2) != 0
            answered, silent = answered + came, 0 if came else silent + 1
            if silent == 5:
                break
            time.sleep(PAUSE)
            guard.take_turn()

        assert 5 <= answered <= 40
        until(lambda: "fd00:19::/64" in guard.banned(), "the ban of the network")
        assert open22.attack(*phone).statuses == {"200": 1}


# -- B.5


def shared_nonce(source: str, other: str, caller: Caller, tries: int = 20) -> Challenge | None:
    """Return a challenge whose nonce was sent to ``source`` and, in the same second, to ``other``."""
    for _ in range(tries):
        until(lambda: time.time() % 1 < 0.5, "the beginning of a second")
        second = int(time.time())
        caller.send(Raw(via=f";rport;maddr={other}".encode()))
        challenge = caller.challenged(Raw(), 0.5)
        if challenge is not None and int(time.time()) == second:
            return challenge
    return None


def test_a_friend_with_unprovable_guesses_is_stopped_or_reported(open22: Lab, tmp_path: Path) -> None:
    """One nonce for two receivers: guesses on many accounts are stopped, or reported."""
    source, answered, number = "198.19.70.1", 0, 1_000
    with guarded(open22, tmp_path) as guard, friend_at(open22, guard, source, "phone4"):
        with calling(open22, source) as caller:
            challenge = OWN_CHALLENGE
            for guess in range(number):
                if guess % 250 == 0:
                    challenge = shared_nonce(source, "198.19.70.2", caller) or challenge
                account = f"phone{10 + guess % 40}".encode()
                caller.send(Raw(from_user=account).answering(challenge, f"wrong-{guess}"))
                while caller.answer(0.001, own=False):
                    answered += 1
            while caller.answer(0.3, own=False):
                answered += 1

        def reported() -> set[str]:
            return {alarm["subject"] for alarm in guard.status()["alarms"]}

        print("answered", answered)
        until(lambda: source in reported() or source in guard.banned(), "the alarm or the ban")


def test_a_friend_that_makes_up_its_nonces_is_reported(open22: Lab, tmp_path: Path) -> None:
    """Asterisk checks the password for a nonce that it never sent; such a guess has no proof."""
    source = "198.19.70.9"
    with guarded(open22, tmp_path) as guard, friend_at(open22, guard, source, "phone8"):
        with calling(open22, source) as caller:
            for guess in range(10):
                made_up = replace(OWN_CHALLENGE, nonce=f"{int(time.time())}/{guess:032x}")
                request = Raw(from_user=b"phone9").named(f"made-up-{guess}")
                assert caller.ask(request.answering(made_up, "wrong")) is not None

        def unprovable() -> set[str]:
            alarms = guard.status()["alarms"]
            return {alarm["subject"] for alarm in alarms if alarm["code"] == "evidence.unprovable"}

        until(lambda: unprovable() == {source}, "the alarm")
        assert guard.banned() == set()


def test_a_stranger_with_unprovable_guesses_gets_a_long_ban(open22: Lab, tmp_path: Path) -> None:
    """Short bans follow each other only until there are too many attempts in a day."""
    source, answered = "198.19.70.5", 0
    claimed = {"ban": ["1s", "1s", "1s"]}
    with guarded(open22, tmp_path, claimed=claimed) as guard:
        for _ in range(12):
            with calling(open22, source) as caller:
                challenge = shared_nonce(source, "198.19.70.6", caller, tries=2)
                for guess in range(8 if challenge else 0):
                    assert challenge is not None
                    if (
                        caller.ask(Raw(from_user=b"phone9").answering(challenge, f"wrong-{guess}"), 0.2)
                        is None
                    ):
                        break
                    answered += 1
                    time.sleep(PAUSE)
                    guard.take_turn()
            time.sleep(1.2)

        assert answered <= ROTATION
        assert source in guard.banned()


# -- B.6


@pytest.mark.parametrize(
    ("method", "transport"),
    [
        (b"REGISTER", "UDP"),
        (b"REGISTER", "TCP"),
        (b"REGISTER", "WS"),
        (b"INVITE", "UDP"),
        (b"INVITE", "TCP"),
        (b"INVITE", "TLS"),
        (b"INVITE", "WS"),
        (b"MESSAGE", "UDP"),
        (b"SUBSCRIBE", "UDP"),
    ],
)
def test_guesses_at_chan_sip_end_with_a_full_ban(open16: Lab, method: bytes, transport: str) -> None:
    """By each method and transport the sender gets five answers; then no port answers it."""
    source = f"198.19.1{len(method)}{list(PORTS).index(transport)}.1"
    request = request_of(method, b"carol")
    with shared(open16) as guard:
        with calling(open16, source, transport) as caller:
            statuses = guesses(caller, request, MANY, pause=PAUSE, between=guard.take_turn, over=guard.bans)

        assert len(statuses) <= SOON, statuses
        until(lambda: guard.scopes() == {source: "sip"}, "the full ban")


def test_calls_to_unknown_extensions_by_tcp_end(open16: Lab) -> None:
    """A guest of chan_sip that calls one extension after another by TCP loses SIP by TCP for some minutes."""
    source = "198.19.72.1"
    request = Raw(method=b"INVITE", from_user=b"guest", extension=b"9{}")
    with shared(open16) as guard:
        with calling(open16, source, "TCP") as caller:
            statuses = guesses(caller, request, MANY, pause=PAUSE, between=guard.take_turn, over=guard.bans)

        assert len(statuses) <= SOON, statuses
        assert guard.scopes() == {source: "sip-tcp"}


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(b"REGISTER", id="register"),
        pytest.param(b"SUBSCRIBE", id="subscribe", marks=pytest.mark.long),
    ],
)
def test_a_rotation_over_a_network_at_chan_sip_ends(open16: Lab, method: bytes) -> None:
    """Four guesses from each of forty addresses of a /24: the network is banned at the twentieth."""
    request = request_of(method, b"bob")
    network = 73 if method == b"REGISTER" else 74
    with shared(open16) as guard:
        answered = rotation(open16, f"198.19.{network}.", request, between=guard.take_turn, over=guard.bans)
        assert answered <= ROTATION
        until(lambda: f"198.19.{network}.0/24" in guard.banned(), "the ban of the network")


# -- B.7


@pytest.mark.parametrize(
    ("release", "transport", "port"),
    [
        ("22", "UDP", 5060),
        ("22", "TCP", 5060),
        ("22", "TLS", 5061),
        ("22", "WS", 8088),
        ("16", "UDP", 5080),
        ("16", "TCP", 5080),
        ("16", "TLS", 5081),
    ],
)
def test_hidden_guesses_end_after_a_hang_up_too(
    request: pytest.FixtureRequest, release: str, transport: str, port: int
) -> None:
    """One guess and a closed connection, then guesses on another, all hidden: at most six are answered."""
    lab: Lab = request.getfixturevalue(f"open{release}")
    source = f"198.19.{port % 100 + 40 * (transport == 'UDP')}.75"
    hidden = Raw(call_id=HIDDEN)
    with shared(lab) as guard:
        statuses = []
        for most in (1, MANY):
            with calling(lab, source, transport, port) as caller:
                statuses += guesses(
                    caller, hidden, most, pause=PAUSE, between=guard.take_turn, over=guard.bans
                )

        assert len(statuses) <= SOON, statuses
        until(lambda: guard.scopes() == {source: "sip"}, "the full ban")


def test_a_rotation_of_hidden_guesses_over_a_network_ends(open22: Lab) -> None:
    """Four hidden guesses from each of forty addresses of a /24 end after about 20."""
    with shared(open22) as guard:
        hidden = Raw(call_id=HIDDEN)
        answered = rotation(open22, "198.19.76.", hidden, between=guard.take_turn, over=guard.bans)
        assert answered <= ROTATION
        until(lambda: "198.19.76.0/24" in guard.banned(), "the ban of the network")


# -- B.8


def test_a_friend_has_thirty_guesses_on_an_account_that_never_worked_there(
    open22: Lab, tmp_path: Path
) -> None:
    """Fast, on an account of another phone, it gets thirty answers in fifteen seconds."""
    source = "198.19.77.1"
    with guarded(open22, tmp_path) as guard, friend_at(open22, guard, source, "phone5"):
        with calling(open22, source) as caller:
            wrong = Raw(from_user=b"phone6")
            statuses = guesses(caller, wrong, 200, pause=0.02, between=guard.take_turn, over=guard.bans)

        assert len(statuses) <= 60  # some were under way during the ban; `make bench` measures it
        assert source in guard.banned()


def test_a_friend_is_never_banned_for_its_own_account(open22: Lab, tmp_path: Path) -> None:
    """A phone with a wrong password that retries as fast as it can is reported, and stays reachable."""
    source = "198.19.77.3"
    with guarded(open22, tmp_path) as guard, friend_at(open22, guard, source, "phone7") as phone:
        with calling(open22, source) as caller:
            statuses = guesses(caller, Raw(from_user=b"phone7"), 200, seconds=5.0)

        assert len(statuses) == 200
        assert guard.banned() == set()
        assert phone.register(expires=600) == 200
