"""The ration of questions on a real Asterisk: it checks no guess beyond the fifth, and phones get in."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.support import honest, phones, pipelined
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import until
from tests.support.guarded import SharedGuard, shared, until_asking
from tests.support.lab import Lab
from tests.support.sip_raw import PORTS, calling, request_of

pytestmark = pytest.mark.asterisk

STRANGERS = {**{transport: f"8.{number}" for number, transport in enumerate(PORTS, 1)}, "UDP by IPv6": "8:1"}
NETWORKS = {"nftables": ("198.19.5", "fd00:19::5"), "ipset": ("198.19.10", "fd00:19::10")}
NUMBER = 250
ACCOUNTS = [f"phone{number}" for number in range(1, phones.OFFICE + 1)]


@pytest.fixture(params=["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def backend(request: pytest.FixtureRequest) -> str:
    """Return the name of each backend; test_ration.py tries nftables, and tests/firewall tries both."""
    return str(request.param)


@contextmanager
def rationed(lab: Lab, backend: str) -> Iterator[SharedGuard]:
    """Guard the laboratory's Asterisk; the block begins when the ration of questions enforces.

    The rule ``prefix`` is off: the senders of all tests are neighbours.
    """
    firewall = {"backend": backend, "ration": {"asking": "enforce"}}
    with shared(lab, firewall=firewall, rules={"prefix": {"enabled": False}}) as guard:
        until_asking(guard)
        yield guard


def address(backend: str, rest: str) -> str:
    """Return an address that only the tests of a backend use; ``rest`` is its end."""
    return f"{NETWORKS[backend][':' in rest]}{rest}"


def dropped(guard: SharedGuard) -> int:
    """Return how many packets the ration of questions and the bans have dropped."""
    status = guard.ask("status")
    (banned,) = (
        row["packets"] for row in status["firewall"]["rules"] if row["rule"] == "from banned addresses"
    )
    return int(status["asked"] + banned)


@pytest.mark.parametrize(("transport", "source"), STRANGERS.items(), ids=[*PORTS, "IPv6"])
def test_a_right_guess_behind_the_fifth_is_never_checked(
    open22: Lab, backend: str, transport: str, source: str
) -> None:
    """By each transport, of all guesses sent at once five are checked at most; the kernel drops the others.

    Either the ration drops them or the ban, which can come while they are sent.
    """
    transport, _, _ = transport.partition(" ")
    source = address(backend, source)
    with rationed(open22, backend) as guard:
        before = dropped(guard)
        pipelined.guess_at_once(open22, source, transport, NUMBER, range(6, NUMBER + 1))
        assert pipelined.registered(open22) == []
        assert 1 <= pipelined.checked(open22, source) <= 5
        assert dropped(guard) > before


def test_a_guesser_is_banned_when_its_ration_is_used_up(open22: Lab, backend: str) -> None:
    """The five guesses that are checked lead to a ban, as without the ration."""
    with rationed(open22, backend) as guard:
        source = address(backend, "8.9")
        pipelined.guess_at_once(open22, source, "UDP", NUMBER, [])
        until(lambda: guard.banned() == {source}, "the ban")


@pytest.mark.parametrize("transport", PORTS)
def test_a_new_phone_meets_no_ration(open22: Lab, backend: str, transport: str) -> None:
    """A phone that registers for the first time loses no packet to the ration.

    Each has an account of its own: after logins from eight new addresses in an hour, others are no friends.
    """
    number = 1 + [*PORTS].index(transport)
    with rationed(open22, backend) as guard:
        before = guard.ask("status")["asked"]
        with calling(open22, address(backend, f"7.{number}"), transport) as caller:
            assert caller.guess(request_of(b"REGISTER", b"phone%d" % number), PASSWORD, 5.0) == 200
        assert guard.ask("status")["asked"] == before


@pytest.mark.parametrize("transport", PORTS)
def test_new_phones_behind_one_address_get_in(open22: Lab, backend: str, transport: str) -> None:
    """Of fifty phones that register at the same moment from an unknown address all do, by each transport."""
    scene = honest.Scene(open22, {"nftables": 50, "ipset": 60}[backend] + [*PORTS].index(transport))
    with rationed(open22, backend) as guard:
        seconds = honest.seconds_to_register(scene, transport, ACCOUNTS, patience=30.0)
        assert guard.banned() == set()
        assert math.inf not in seconds
