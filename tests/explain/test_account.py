"""Conclusions of ringfence from the facts of an account."""

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.explain.world import ADDRESS, NOW, ban, friend
from tests.support.attempts import ATTEMPT, attempts, ban_of

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.config.schema import Settings, StoreSettings
from ringfence.explain.account import (
    MOST_FRIENDS,
    MOST_SHOWN,
    AccountFacts,
    account_document,
    account_offline,
    advice,
    failures_of,
    is_about_account,
    latest_of,
    merged,
)
from ringfence.store.database import Store
from ringfence.values.event import EventKind, short_account
from ringfence.values.friend import FriendReason

AWAY = ip_address("198.51.100.9")
HERE = evolve(ATTEMPT, address=ADDRESS, account="204", time=NOW - 10.0)
THERE = evolve(HERE, address=AWAY)
UNKNOWN = evolve(HERE, event=EventKind.INVALID_ACCOUNT_ID)
REFUSED = evolve(THERE, event=EventKind.FAILED_ACL)


def facts(*attempts: Any, **known: Any) -> AccountFacts:  # noqa: ANN401 - whatever is known
    """Return the facts of account 204 with these failures."""
    return AccountFacts("204", NOW, failures=tuple(failures_of(attempts)), **known)


@pytest.mark.parametrize(
    ("known", "verdict", "word"),
    [
        (facts(), "unknown", "nothing arrived"),
        (facts(former=(friend(until=NOW - 50),)), "gone", "nothing arrives from it now"),
        (facts(friends=(friend(),)), "registered", "does not block it"),
        (facts(friends=(friend(),), live=False), "registered", "the deny list is not known"),
        (facts(THERE, friends=(friend(),)), "registered", "1 other address tried it"),
        (facts(HERE, friends=(friend(),)), "broken", "correct the password in the phone at 192.0.2.1"),
        (facts(UNKNOWN, friends=(friend(),)), "broken", "Asterisk does not know this account"),
        (facts(HERE, friends=(friend(),), outage_mode=True), "outage", "all phones fail at once"),
        (facts(friends=(friend(),), bans={ADDRESS: (ban(),)}), "banned", "ringfence unban --allow 192.0.2.1"),
        (facts(friends=(friend(),), denied=(ADDRESS,)), "denied", "ringfence allow add 192.0.2.1"),
        (facts(THERE), "failing", "correct the password in the phone at 198.51.100.9"),
        (facts(REFUSED), "failing", "an ACL of Asterisk refuses 198.51.100.9"),
        (facts(THERE, bans={AWAY: (ban(),)}), "locked out", "then: ringfence unban 198.51.100.9"),
    ],
)
def test_one_sentence_says_what_to_do(known: AccountFacts, verdict: str, word: str) -> None:
    """The first state that applies decides, and one sentence names what to do."""
    assert known.verdict == verdict
    assert word in advice(known)


LEFT = evolve(friend(until=NOW - 50.0), address=AWAY)
LEFT_BANNED = {AWAY: (ban("198.51.100.9"),)}
LAST = friend(until=NOW - 50.0)
EARLIER = evolve(THERE, time=NOW - 99.0)
BLOCKED = "its former address 198.51.100.9 is blocked"


@pytest.mark.parametrize(
    ("known", "verdict", "word"),
    [
        (facts(friends=(friend(),), former=(LEFT,), bans=LEFT_BANNED), "registered", BLOCKED),
        (facts(friends=(friend(),), former=(LEFT,), denied=(AWAY,)), "registered", BLOCKED),
        (facts(former=(LAST, evolve(LEFT, seen=NOW - 90.0)), bans=LEFT_BANNED), "gone", BLOCKED),
        (facts(THERE, friends=(friend(),), former=(LEFT,), bans=LEFT_BANNED), "broken", "then: ringfence"),
        (facts(EARLIER, friends=(friend(),), former=(LEFT,)), "registered", "elsewhere"),
        (facts(former=(LEFT,), bans=LEFT_BANNED), "banned", "ringfence unban --allow 198.51.100.9"),
    ],
)
def test_an_address_that_the_account_has_left_is_a_former_one(
    known: AccountFacts, verdict: str, word: str
) -> None:
    """Its ban or denial, or a failure before its last success, decides no verdict; its ban is named.

    If the account works nowhere now, the address where it worked last is none that it has left.
    """
    assert known.verdict == verdict
    assert word in advice(known)


def test_an_address_where_the_account_still_works_is_current() -> None:
    """A registration that has ended there does not hide a login that still counts."""
    ended = evolve(friend(FriendReason.REGISTERED, until=NOW - 5.0), seen=NOW - 5.0)
    found = account_document(facts(friends=(friend(),), former=(ended,)))

    assert [(one["reason"], one["current"]) for one in found["addresses"]] == [("authenticated", True)]


def test_an_account_with_many_addresses_is_bounded() -> None:
    """A stolen password works at thousands of addresses; those that were seen last are looked at."""
    many = [
        evolve(friend(), address=ip_address("192.0.2.0") + number, seen=NOW - number) for number in range(200)
    ]
    found = latest_of(reversed(many))

    assert found == tuple(many[:MOST_FRIENDS])


def test_the_address_that_was_seen_last_comes_first() -> None:
    """An address has its latest reason, and the latest one decides its place."""
    earlier, latest = evolve(friend(), seen=NOW - 90.0), evolve(friend(), seen=NOW - 1.0)
    between = evolve(friend(), address=AWAY, seen=NOW - 50.0)

    homes = facts(friends=(earlier, between), former=(latest,)).homes
    assert [*homes.values()] == [latest, between]


def test_a_success_after_the_failures_ends_them() -> None:
    """A phone that registered after its failures works."""
    assert facts(evolve(HERE, time=NOW - 4_000.0), friends=(friend(),)).verdict == "registered"


def test_the_last_success_is_the_last_right_password() -> None:
    """A registration counts only if no right password is known."""
    contact = evolve(friend(FriendReason.REGISTERED), seen=NOW - 1.0)

    assert facts(friends=(contact, friend())).last_success == friend()
    assert facts(friends=(contact,)).last_success == contact
    assert facts().last_success is None


def test_failures_are_counted_by_address() -> None:
    """The latest address comes first; what memory has of an address replaces what the database has."""
    earlier = evolve(HERE, time=NOW - 99.0)
    [first, second] = failures_of([evolve(THERE, time=NOW - 60.0), HERE, earlier])

    assert (first.last, first.first, first.times) == (HERE, NOW - 99.0, 2)
    assert second.last.address == AWAY
    assert merged([evolve(second, times=7)], [first, second])[1].times == 7


STRANGERS = tuple(evolve(THERE, address=AWAY + number, time=NOW - 5.0) for number in range(MOST_SHOWN))


def test_strangers_do_not_displace_the_phone_that_fails() -> None:
    """The daemon remembers the failure where the account works; later ones in the database do not hide it."""
    found = merged(failures_of([HERE]), failures_of(STRANGERS))

    assert len(found) == MOST_SHOWN
    assert found[-1].last == HERE
    assert AccountFacts("204", NOW, (friend(),), failures=found).verdict == "broken"


def test_addresses_beyond_the_limit_are_not_counted() -> None:
    """Failures are kept of a limited number of addresses, so there may be more."""
    word = f"; at least {MOST_SHOWN} other addresses tried it without success"

    assert word in advice(facts(*STRANGERS, friends=(friend(),)))
    assert "; 15 other addresses tried it" in advice(facts(*STRANGERS[1:], friends=(friend(),)))


def test_alarms_about_an_account() -> None:
    """An alarm names its account alone, at an address or of an Asterisk; a name cannot imitate another."""

    def is_about(code: AlarmCode, subject: str) -> bool:
        return is_about_account(AlarmRecord(1, code, subject, "", NOW, NOW), "204")

    assert is_about(AlarmCode.PHONE_BROKEN, "204 at 192.0.2.1")
    assert is_about(AlarmCode.ATTACK_DISTRIBUTED, "204 of pbx")
    assert is_about(AlarmCode.CONFIGURATION_DECOY, "204")
    assert not is_about(AlarmCode.PHONE_BROKEN, "204 at 1.1.1.1 at 192.0.2.1")
    assert not is_about(AlarmCode.PHONE_BROKEN, "2040 at 192.0.2.1")


# -- the facts of an account as JSON


HOSTILE = "2\x1b[2J\u202e04" + "\u202e" * 65_536


def test_every_fact_is_in_the_document() -> None:
    """Addresses, the last success, failures with their reason, and bans; hostile text is escaped."""
    failed = failures_of([evolve(ATTEMPT, address=ADDRESS, account=HOSTILE, time=NOW)])
    home = evolve(friend(), account=HOSTILE, asterisk="pbx\x1b")
    known = AccountFacts(HOSTILE, NOW, (home,), (), tuple(failed), {ADDRESS: (ban(),)})
    found = account_document(known)

    assert found["verdict"] == "banned"
    assert found["addresses"][0]["current"]
    assert found["last_success"]["address"] == "192.0.2.1"
    assert (found["failures"][0]["reason"], found["failures"][0]["banned"]) == ("wrong password", True)
    assert found["bans"][0]["rule"] == "guess"
    assert json.dumps(found, ensure_ascii=False).isprintable()


# -- the facts of an account without a daemon


def test_the_database_has_the_phone_and_the_attempts_of_bans(tmp_path: Path) -> None:
    """Friends and attempts of the account are found, and the ban of its address; others are not."""
    settings = Settings(store=StoreSettings(tmp_path / "ringfence.db"))
    now = 1_700_000_100.0
    assert account_offline(settings, "204", now).verdict == "unknown"

    with Store.open(settings.store.path, owner=True) as store:
        store.friends.add([evolve(friend(), until=now + 60), evolve(friend(), account="205")])
        store.bans.record([ban_of("192.0.2.1", now - 60, made=attempts(3, account="204"))])
        store.bans.record([ban_of("192.0.2.2", now - 60, made=attempts(3, "192.0.2.2", "205"))])
    known = account_offline(settings, "204", now)

    assert known.verdict == "banned"
    assert [(one.last.address, one.times) for one in known.failures] == [(ip_address("192.0.2.1"), 3)]
    assert not known.live


def test_a_database_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    """The problem is in the facts, and nothing is raised."""
    path = tmp_path / "ringfence.db"
    path.write_bytes(b"no database" * 100)

    assert "ringfence.db" in account_offline(Settings(store=StoreSettings(path)), "204", 1.0).problems[0]


def test_a_long_name_is_looked_up_as_it_is_kept(tmp_path: Path) -> None:
    """Accounts are kept with 48 bytes; one whole name finds what was kept of it."""
    settings = Settings(store=StoreSettings(tmp_path / "ringfence.db"))
    now, name = 1_700_000_100.0, "reception." * 6
    kept = short_account(name)
    with Store.open(settings.store.path, owner=True) as store:
        store.friends.add([evolve(friend(account=kept), until=now + 60)])
        store.bans.record([ban_of("192.0.2.2", now - 60, made=attempts(3, "192.0.2.2", kept))])
    known = account_offline(settings, name, now)

    assert known.verdict == "registered"
    assert [(str(one.last.address), one.times) for one in known.failures] == [("192.0.2.2", 3)]
