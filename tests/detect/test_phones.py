"""Phones: which is broken, whether all are, and whose password somebody may know."""

from ipaddress import ip_address

from attrs import evolve
from tests.detect.events import PBX, attempt, event

from ringfence.detect.friends import Friends
from ringfence.detect.phones import (
    AT_LEAST,
    BRAKE,
    BROKEN,
    ELSEWHERE,
    FAILING,
    FAILURES,
    GUESSED,
    QUIET,
    WITHIN,
    Phones,
)
from ringfence.model import EventKind, Friend, Notice, SecurityEvent, Tie


def friend(account: str, address: str = "192.0.2.7") -> Friend:
    """Give a phone that has logged in."""
    return Friend(PBX.asterisk, ip_address(address), account, Tie.AUTHENTICATED, 0.0, 0.0, 1e9)


def with_friends(number: int) -> tuple[Friends, Phones]:
    """Give so many phones behind one address."""
    friends = Friends()
    for last in range(number):
        friends.meet(friend(str(200 + last)))
    return friends, Phones(friends)


def success(account: str = "204", address: str = "192.0.2.7") -> SecurityEvent:
    """Give a right password."""
    return evolve(event(EventKind.SUCCESSFUL_AUTH, account=account, address=address), password=True)


def names(notices: list[Notice]) -> list[str]:
    """Give what the notices are called, those that end with a word for it."""
    return [f"{notice.name}{' over' if notice.over else ''}" for notice in notices]


def test_a_broken_phone_is_told_of_until_it_logs_in() -> None:
    """With its account and address; the same each time it fails."""
    _, phones = with_friends(50)
    first, again = (list(phones.fails(attempt(account="204"), now)) for now in (0.0, 5.0))
    assert first == again
    [notice] = first
    assert (notice.name, notice.subject) == (BROKEN, "204 at 192.0.2.7")
    assert "wrong password" in notice.text
    assert names(list(phones.succeeds(success(), 9, 6.0))) == [f"{BROKEN} over"]
    assert list(phones.succeeds(success(), 0, 7.0)) == []


def test_an_account_that_is_gone_is_told_apart() -> None:
    """To PJSIP it is unknown: nobody has to look for a mistyped password."""
    _, phones = with_friends(50)
    gone = evolve(attempt(account="204"), event=EventKind.INVALID_ACCOUNT_ID)
    [notice] = phones.fails(gone, 0.0)
    assert "unknown to Asterisk" in notice.text


def test_when_half_of_the_phones_fail_the_brake_is_on() -> None:
    """And off when they are well again; few phones are no outage."""
    friends, phones = with_friends(20)
    for last in range(9):
        list(phones.fails(attempt(account=str(200 + last)), float(last)))
    assert not friends.braked
    assert names(list(phones.fails(attempt(account="209"), 10.0))) == [BROKEN, BRAKE]
    assert friends.has(ip_address("192.0.2.7"))
    assert list(phones.tend(11.0)) == []
    for last in range(8):
        list(phones.succeeds(success(str(200 + last)), 0, 12.0))
    assert names(list(phones.tend(12.0))) == [f"{BRAKE} over"]
    assert not friends.braked


def test_while_others_log_in_asterisk_is_well() -> None:
    """Whoever fails on many accounts at once brakes nothing as long as a phone succeeds."""
    friends, phones = with_friends(12)
    list(phones.succeeds(success("211"), 0, 0.0))
    for last in range(10):
        list(phones.fails(attempt(account=str(200 + last)), QUIET - 1))
    assert not friends.braked
    list(phones.fails(attempt(account="210"), QUIET))
    assert friends.braked


def test_many_addresses_of_one_account_are_no_outage() -> None:
    """Who has one account and a network of IPv6 may fail from all of it."""
    friends = Friends()
    for number in range(100):
        friends.meet(friend("204", f"2001:db8::{number + 1:x}"))
    phones = Phones(friends)
    for number in range(100):
        list(phones.fails(attempt(f"2001:db8::{number + 1:x}", account="204"), 0.0))
    assert not friends.braked


def test_a_few_that_stay_broken_do_not_hold_the_brake() -> None:
    """It is off when fewer fail than would have put it on."""
    friends, phones = with_friends(8)
    for last in range(AT_LEAST):
        list(phones.fails(attempt(account=str(200 + last)), 0.0))
    assert friends.braked
    for last in range(AT_LEAST - 1):
        list(phones.fails(attempt(account=str(200 + last)), WITHIN))
    assert names(list(phones.tend(WITHIN))) == [f"{BRAKE} over"]


def test_a_few_phones_that_fail_are_no_outage() -> None:
    """However few there are."""
    friends, phones = with_friends(AT_LEAST - 1)
    for last in range(AT_LEAST - 1):
        list(phones.fails(attempt(account=str(200 + last)), 0.0))
    assert not friends.braked


def test_failures_long_ago_are_no_outage() -> None:
    """They must come at once."""
    friends, phones = with_friends(10)
    for last in range(10):
        list(phones.fails(attempt(account=str(200 + last)), last * WITHIN / 4))
    assert not friends.braked


def test_a_success_after_failures_may_be_a_guess() -> None:
    """Of an account that did not work there before; one or two typing errors are nothing."""
    _, phones = with_friends(1)
    assert names(list(phones.succeeds(success("300"), FAILURES, 0.0))) == [GUESSED]
    assert names(list(phones.succeeds(success("300"), FAILURES - 1, 0.0))) == []
    assert names(list(phones.succeeds(success("200"), FAILURES, 0.0))) == []


def test_a_success_from_elsewhere_is_told() -> None:
    """Where the account is known to work at other addresses, and not at this one."""
    _, phones = with_friends(1)
    assert names(list(phones.succeeds(success("200", "198.51.100.1"), 0, 0.0))) == [ELSEWHERE]
    assert names(list(phones.succeeds(success("999", "198.51.100.1"), 0, 0.0))) == []


def test_a_new_phone_that_goes_on_failing_is_told_of() -> None:
    """Once it has failed ten times within a day: it may be somebody who guesses there."""
    _, phones = with_friends(1)
    told = [names(list(phones.fails_elsewhere(attempt(account="900"), 5.0 * number))) for number in range(12)]
    assert told == [[]] * 9 + [[FAILING]] * 3
    assert names(list(phones.fails_elsewhere(attempt(account="900"), 86_400.0))) == []
    for number in range(5_000):
        list(phones.fails_elsewhere(attempt(account=f"x{number}"), 0.0))
    assert len(phones._elsewhere) <= 4_096
