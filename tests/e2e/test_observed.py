"""Observed friends: hidden guesses from a phone's address count, and a phone that works makes no attempt."""

import sqlite3
import time
from contextlib import closing
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.e2e.test_uncounted import friend_at
from tests.support.asterisk_files import PASSWORD
from tests.support.daemon import Guard, until
from tests.support.guarded import NO_LOGS, guarded
from tests.support.lab import Lab
from tests.support.sip_raw import OTHER_REALM, Digest, Raw, calling, guesses, request_of

from ringfence.firewall import network_lists
from ringfence.firewall.ipset.sets import list_set_name
from ringfence.values.network import Network

pytestmark = pytest.mark.asterisk

UNCOUNTED = 20  # refusals before a friend is observed
FRIEND = 20  # a friend's guesses in a minute
PAUSE = 0.05


def contacts_in(network: Network, guard: Guard) -> set[str]:
    """Return the daemon's friends in a network."""
    return {one for one in guard.friends() if ip_address(one) in network}


def start_a_week_later(guard: Guard) -> None:
    """Start the daemon again, as if its friends had been known for a week: they are not new."""
    guard.stop()
    with closing(sqlite3.connect(guard.folder / "ringfence.db")) as database, database:
        database.execute("UPDATE friends SET since = since - 8 * 86400")
    guard.start()
    until(lambda: guard.source_is("listening"), "all sources")


@pytest.mark.parametrize("backend", ["ipset", pytest.param("nftables", marks=pytest.mark.long)])
def test_hidden_guesses_of_a_friend_end_with_a_ban(open22: Lab, tmp_path: Path, backend: str) -> None:
    """AMI reports none of them: the first of two digests is for another realm, with a nonce not in UTF-8."""
    source = "198.19.78.1" if backend == "ipset" else "198.19.78.2"
    with guarded(open22, tmp_path, firewall={"backend": backend}, logs=NO_LOGS) as guard:
        with friend_at(open22, guard, source, "phone5"), calling(open22, source) as caller:
            hidden = Raw(from_user=b"phone6", digest=Digest(before=OTHER_REALM))
            statuses = guesses(caller, hidden, 300, pause=PAUSE, between=guard.take_turn, over=guard.bans)
        assert len(statuses) <= UNCOUNTED + FRIEND + 20  # some are under way; the machine may be busy
        until(lambda: source in guard.banned(), "the ban")
        print("answered", len(statuses))


def test_a_login_after_each_hidden_guess_hides_none(open22: Lab, tmp_path: Path) -> None:
    """An account that has worked there for a week logs in with the Call-ID of the guesses at another one."""
    source, answered = "198.19.78.5", 0
    with guarded(open22, tmp_path, logs=NO_LOGS) as guard, calling(open22, source) as caller:
        own = Raw(from_user=b"phone5", call_id=b"one-call")
        hidden = Raw(from_user=b"phone6", call_id=b"one-call", digest=Digest(before=OTHER_REALM))
        assert caller.guess(own, PASSWORD) == 200
        until(lambda: source in guard.friends(), "the friend")
        start_a_week_later(guard)
        while answered < 150 and source not in guard.banned():
            statuses = caller.guess(hidden, f"wrong-{answered}", 1.0), caller.guess(own, PASSWORD, 1.0)
            answered += statuses[0] == 401
            guard.take_turn()
        print("answered", answered)
        assert answered <= UNCOUNTED + FRIEND + 20  # as above
        assert source in guard.banned()


@pytest.mark.parametrize("release", ["open16", "open22"])
def test_a_phone_that_logs_in_often_is_not_observed(
    request: pytest.FixtureRequest, tmp_path: Path, release: str
) -> None:
    """AMI reports as many challenges as the kernel copies, with one Call-ID or with another each time."""
    lab, source = request.getfixturevalue(release), "198.19.78.6"
    with guarded(lab, tmp_path) as guard, calling(lab, source) as caller:
        assert caller.guess(Raw(from_user=b"phone5"), PASSWORD) == 200
        until(lambda: source in guard.friends(), "the friend")
        start_a_week_later(guard)
        before = reported_by_ami(guard)
        for number in range(40):
            call_id = b"always" if number % 2 else b"once-%d" % number
            again = Raw(from_user=b"phone5", call_id=call_id, cseq=10 + 2 * number)
            assert caller.guess(again, PASSWORD) == 200
            so_far = before + 2 * (number + 1)  # each is a challenge and a success
            until(lambda so_far=so_far: reported_by_ami(guard) >= so_far, "AMI's events")  # type: ignore[misc]
        time.sleep(2.0)  # the kernel's lists are written
        until(lambda: source in listed(lab, network_lists.FRIENDS), "the friend in the kernel")
        assert source not in listed(lab, network_lists.OBSERVED)


def reported_by_ami(guard: Guard) -> int:
    """Return the number of AMI's events that the daemon has handled."""
    return sum(one["events"] for one in guard.status()["sources"] if one["name"].endswith("ami"))


def listed(lab: Lab, which: network_lists.NetworkList) -> str:
    """Return what the kernel says of one of its lists (IPv4)."""
    return lab.run("ipset", "list", list_set_name(which, 4))


def test_a_phone_with_a_hundred_lamps_makes_no_attempt(open16: Lab, tmp_path: Path) -> None:
    """chan_sip reports no success of a SUBSCRIBE, so the phone is observed, and nothing else follows."""
    source = "198.19.78.3"
    with guarded(open16, tmp_path) as guard, friend_at(open16, guard, source, "phone5"):
        with calling(open16, source) as caller:
            lamp = request_of(b"SUBSCRIBE", b"phone5")
            statuses = [caller.guess(lamp, PASSWORD) for _ in range(100)]
        assert set(statuses) == {489}, set(statuses)
        until(lambda: source in listed(open16, network_lists.OBSERVED), "the observed phone")
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
        until(lambda: "192.0.2.78" in guard.friends(), "a later contact")
        assert len(contacts_in(network, guard)) == 64
