"""Observed friends: hidden guesses from a phone's address count, and a phone that works makes no attempt."""

import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.e2e.test_uncounted import friend_at, friends
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_LOGS, guarded
from tests.support.lab import Lab
from tests.support.sip_raw import OTHER_REALM, Digest, Raw, calling, guesses, request_of

from ringfence.values.network import Network

pytestmark = pytest.mark.asterisk

UNCOUNTED = 20  # refusals before a friend is observed
FRIEND = 20  # a friend's guesses in a minute
PAUSE = 0.05


def contacts_in(network: Network, guard: Guard) -> set[str]:
    """Return the daemon's friends in a network."""
    return {one for one in friends(guard) if ip_address(one) in network}


@pytest.mark.parametrize("backend", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_hidden_guesses_of_a_friend_end_with_a_ban(open22: Lab, tmp_path: Path, backend: str) -> None:
    """AMI reports none of them: the first of two digests is for another realm, with a nonce not in UTF-8."""
    source = "198.19.78.1" if backend == "ipset" else "198.19.78.2"
    with guarded(open22, tmp_path, firewall={"backend": backend}, logs=NO_LOGS) as guard:
        with friend_at(open22, guard, source, "phone5"), calling(open22, source) as caller:
            hidden = Raw(from_user=b"phone6", digest=Digest(before=OTHER_REALM))
            statuses = guesses(caller, hidden, 300, pause=PAUSE, between=guard.take_turn)
        assert len(statuses) <= UNCOUNTED + FRIEND + 20  # some are under way; the machine may be busy
        until(lambda: source in guard.banned(), "the ban")
        print("answered", len(statuses))


def test_a_phone_with_a_hundred_lamps_makes_no_attempt(open16: Lab, tmp_path: Path) -> None:
    """chan_sip reports no success of a SUBSCRIBE, so the phone is observed, and nothing else follows."""
    source = "198.19.78.3"
    with guarded(open16, tmp_path) as guard, friend_at(open16, guard, source, "phone5"):
        with calling(open16, source) as caller:
            lamp = request_of(b"SUBSCRIBE", b"phone5")
            statuses = [caller.guess(lamp, PASSWORD, 2.0) for _ in range(100)]
        print("statuses", set(statuses))
        time.sleep(2.0)
        assert guard.attempts_of(source) == []
        assert guard.banned() == set()


def test_one_register_with_ninety_contacts_makes_64_friends(open22: Lab, tmp_path: Path) -> None:
    """Asterisk takes them all (``max_contacts = 100``), whatever addresses of one /64 they name."""
    source, network = "198.19.78.4", ip_network("2001:db8:78::/64")
    hosts = [b"alice@[2001:db8:78::%x]" % number for number in range(1, 91)]
    with guarded(open22, tmp_path) as guard, calling(open22, source) as caller:
        assert caller.guess(Raw(contact=b">, <sip:".join(hosts)), PASSWORD) == 200
        assert open22.asterisk.cli("pjsip show contacts").count("[2001:db8:78::") == 90
        until(lambda: len(contacts_in(network, guard)) >= 64, "the friends")
        assert caller.guess(Raw(contact=b"alice@192.0.2.78"), PASSWORD) == 200
        until(lambda: "192.0.2.78" in friends(guard), "a later contact")
        assert len(contacts_in(network, guard)) == 64
