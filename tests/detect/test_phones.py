"""Phones: which is broken, whether all fail, and whose password may be known to an attacker."""

from ipaddress import ip_address

import pytest
from attrs import evolve
from tests.detect.events import PBX, attempt, event

from ringfence.detect import phones as phones_module
from ringfence.detect.friends import Friends
from ringfence.detect.phones import AT_LEAST, FAILURES, QUIET, WITHIN, Phones
from ringfence.values.alarm import AlarmChange
from ringfence.values.event import EventKind, SecurityEvent
from ringfence.values.friend import Friend, FriendReason

BROKEN, FAILING, ALL_FAILING = "phone.broken", "phone.failing", "phones.all_failing"
GUESSED = "password.guessed"


def friend(account: str, address: str = "192.0.2.7") -> Friend:
    """Return a phone that has logged in."""
    return Friend(PBX.asterisk, ip_address(address), account, FriendReason.AUTHENTICATED, 0.0, 0.0, 1e9)


def with_friends(number: int) -> tuple[Friends, Phones]:
    """Return this many phones behind one address."""
    friends = Friends()
    for last in range(number):
        friends.add(friend(str(200 + last)))
    return friends, Phones(friends)


def success(account: str = "204", address: str = "192.0.2.7") -> SecurityEvent:
    """Return a right password."""
    return evolve(event(EventKind.SUCCESSFUL_AUTH, account=account, address=address), password=True)


def names(notices: list[AlarmChange]) -> list[str]:
    """Return the codes of the alarms, with a word behind those that clear."""
    return [f"{notice.code}{' over' if notice.cleared else ''}" for notice in notices]


def test_a_broken_phone_raises_an_alarm_until_it_logs_in() -> None:
    """A broken phone raises the same alarm, with account and address, each time it fails until it logs in."""
    _, phones = with_friends(AT_LEAST - 1)
    first, again = (list(phones.on_failure(attempt(account="203"), now)) for now in (0.0, 5.0))
    assert first == again
    [notice] = first
    assert (notice.code, notice.subject) == (BROKEN, "203 at 192.0.2.7")
    assert "wrong password" in notice.text
    assert names(list(phones.on_success(success("203"), 9, 6.0))) == [f"{BROKEN} over"]
    assert list(phones.on_success(success("203"), 0, 7.0)) == []


def test_an_unknown_account_has_its_own_text() -> None:
    """An account unknown to PJSIP has its own text, so that no one looks for a mistyped password."""
    _, phones = with_friends(1)
    gone = evolve(attempt(account="204"), event=EventKind.INVALID_ACCOUNT_ID)
    [notice] = phones.on_failure(gone, 0.0)
    assert "unknown to Asterisk" in notice.text


def test_when_half_of_the_phones_fail_outage_mode_is_on() -> None:
    """Outage mode lasts while half of the phones fail; a few failing phones are no outage."""
    friends, phones = with_friends(20)
    for last in range(9):
        list(phones.on_failure(attempt(account=str(200 + last)), float(last)))
    assert not friends.outage_mode
    assert names(list(phones.on_failure(attempt(account="209"), 10.0))) == [ALL_FAILING]
    assert friends.has(ip_address("192.0.2.7"))
    assert list(phones.tick(11.0)) == []
    for last in range(8):
        list(phones.on_success(success(str(200 + last)), 0, 12.0))
    assert names(list(phones.tick(12.0))) == [f"{ALL_FAILING} over"]
    assert not friends.outage_mode


def test_an_outage_raises_one_alarm_only() -> None:
    """The phones that failed before outage mode was decided raise no alarm, neither then nor when it ends."""
    _, phones = with_friends(20)
    changes = [
        change
        for last in range(15)
        for change in phones.on_failure(attempt(account=str(200 + last)), float(last))
    ]
    for last in range(15):
        changes += phones.on_success(success(str(200 + last)), 0, 60.0)
    changes += phones.tick(60.0)
    changes += phones.tick(60.0 + WITHIN)
    assert names(changes) == [ALL_FAILING, f"{ALL_FAILING} over"]


def test_a_broken_phone_is_an_alarm_when_another_phone_succeeds() -> None:
    """A success of another phone shows that there is no outage; the phone's own success ends the wait."""
    _, phones = with_friends(20)
    for account in ("200", "200", "201"):
        assert list(phones.on_failure(attempt(account=account), 0.0)) == []
    assert next(iter(phones.on_success(success("201"), 0, 1.0))).subject == "200 at 192.0.2.7"
    assert names(list(phones.on_failure(attempt(account="200"), 2.0))) == [BROKEN]
    assert names(list(phones.on_success(success("200"), 0, 3.0))) == [f"{BROKEN} over"]
    elsewhere = evolve(success("202"), source=evolve(PBX, asterisk="other"))
    assert list(phones.on_failure(attempt(account="203"), 4.0)) == []
    assert BROKEN not in names(list(phones.on_success(elsewhere, 0, 5.0)))


def test_a_broken_phone_is_an_alarm_after_five_minutes() -> None:
    """If no phone succeeds, and too few fail for an outage, the alarm is raised after ``WITHIN``."""
    _, phones = with_friends(20)
    list(phones.on_failure(attempt(account="200"), 0.0))
    list(phones.on_failure(attempt(account="200"), WITHIN - 1))
    assert list(phones.tick(WITHIN - 1)) == []
    assert names(list(phones.tick(WITHIN))) == [BROKEN]
    assert list(phones.tick(WITHIN + 1)) == []


def test_the_phones_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the phone that failed first is forgotten, and raises no alarm."""
    monkeypatch.setattr(phones_module, "MOST_PHONES", 2)
    _, phones = with_friends(20)
    for last in range(3):
        list(phones.on_failure(attempt(account=str(200 + last)), float(last)))
    assert [change.subject for change in phones.tick(WITHIN + 2)] == [
        "201 at 192.0.2.7",
        "202 at 192.0.2.7",
    ]


def test_an_account_fails_until_its_last_address_succeeds() -> None:
    """The alarm about one address of an account clears alone, and the other address stays broken."""
    friends, phones = with_friends(1)
    friends.add(friend("200", "192.0.2.8"))
    for address in ("192.0.2.7", "192.0.2.8"):
        list(phones.on_failure(attempt(address, account="200"), 0.0))
    for address in ("192.0.2.7", "192.0.2.8"):
        assert names(list(phones.on_success(success("200", address), 0, 1.0))) == [f"{BROKEN} over"]


def test_while_others_log_in_asterisk_is_well() -> None:
    """Failures of many accounts start no outage mode while a phone succeeds."""
    friends, phones = with_friends(12)
    list(phones.on_success(success("211"), 0, 0.0))
    for last in range(10):
        list(phones.on_failure(attempt(account=str(200 + last)), QUIET - 1))
    assert not friends.outage_mode
    list(phones.on_failure(attempt(account="210"), QUIET))
    assert friends.outage_mode


def test_many_addresses_of_one_account_are_no_outage() -> None:
    """Failures of one account from a whole IPv6 network are no outage."""
    friends = Friends()
    for number in range(100):
        friends.add(friend("204", f"2001:db8::{number + 1:x}"))
    phones = Phones(friends)
    for number in range(100):
        list(phones.on_failure(attempt(f"2001:db8::{number + 1:x}", account="204"), 0.0))
    assert not friends.outage_mode


def test_a_few_that_stay_broken_do_not_prolong_outage_mode() -> None:
    """Outage mode ends when fewer phones fail than would begin it."""
    friends, phones = with_friends(8)
    for last in range(AT_LEAST):
        list(phones.on_failure(attempt(account=str(200 + last)), 0.0))
    assert friends.outage_mode
    for last in range(AT_LEAST - 1):
        list(phones.on_failure(attempt(account=str(200 + last)), WITHIN))
    assert names(list(phones.tick(WITHIN))) == [f"{ALL_FAILING} over"]


def test_an_outage_of_unknown_accounts_ends_at_a_quarter_of_its_highest_number() -> None:
    """Of 20 addresses that failed on unknown accounts, 5 that still fail do not prolong outage mode."""
    friends, phones = with_friends(20)
    failures = [attempt(f"198.51.100.{last}", account="900") for last in range(20)]
    for one in failures:
        list(phones.on_failure_elsewhere(evolve(one, event=EventKind.INVALID_ACCOUNT_ID), 0.0))
    assert friends.outage_mode
    for one in failures[:5]:
        list(phones.on_failure_elsewhere(evolve(one, event=EventKind.INVALID_ACCOUNT_ID), WITHIN - 1))
    assert list(phones.tick(WITHIN - 1)) == []
    assert names(list(phones.tick(WITHIN))) == [f"{ALL_FAILING} over"]


def test_a_few_phones_that_fail_are_no_outage() -> None:
    """A few failing phones are no outage, even if they are all phones."""
    friends, phones = with_friends(AT_LEAST - 1)
    for last in range(AT_LEAST - 1):
        list(phones.on_failure(attempt(account=str(200 + last)), 0.0))
    assert not friends.outage_mode


def test_failures_long_ago_are_no_outage() -> None:
    """Failures are an outage only if they come close together."""
    friends, phones = with_friends(10)
    for last in range(10):
        list(phones.on_failure(attempt(account=str(200 + last)), last * WITHIN / 4))
    assert not friends.outage_mode


def test_a_success_after_failures_may_be_a_guess() -> None:
    """A success after failures raises an alarm if its account did not work there before.

    One or two typing errors raise none.
    """
    _, phones = with_friends(1)
    assert names(list(phones.on_success(success("300"), FAILURES, 0.0))) == [GUESSED]
    assert names(list(phones.on_success(success("300"), FAILURES - 1, 0.0))) == []
    assert names(list(phones.on_success(success("200"), FAILURES, 0.0))) == []


def test_a_new_phone_that_fails_often_is_an_alarm() -> None:
    """A new phone raises an alarm once it has failed ten times within a day, as it may be a guesser."""
    _, phones = with_friends(1)
    told = [
        names(list(phones.on_failure_elsewhere(attempt(account="900"), 5.0 * number))) for number in range(12)
    ]
    assert told == [[]] * 9 + [[FAILING]] * 3
    assert names(list(phones.on_failure_elsewhere(attempt(account="900"), 86_400.0))) == []
    for number in range(5_000):
        list(phones.on_failure_elsewhere(attempt(account=f"x{number}"), 0.0))
    assert len(phones._elsewhere) <= 4_096
