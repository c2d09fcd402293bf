"""Phone health: detects broken phones, an outage of all phones, and passwords that may be known to others.

If a friend fails on an account that worked at its address, it is a *broken phone*: it has a wrong
password, or Asterisk no longer knows its account. It raises one alarm and leads to no ban. If fewer than
``AT_LEAST`` accounts are known, the alarm is raised at once. Otherwise all phones may be about to fail.
So the alarm waits until Asterisk accepts a password, at most for ``WITHIN``, and is dropped if outage
mode begins. An account that never worked there raises an alarm after ``GOES_ON`` failures within a day.

When all phones fail at once, Asterisk is broken: PJSIP reports endpoints as unknown if its database does
not answer, or if a reload dropped them. *Outage mode* begins if Asterisk has accepted no password for
``QUIET``, and one of these happened within ``WITHIN``:

- At least ``AT_LEAST`` accounts, and at least half of all accounts that work, failed where they worked.
  Accounts are counted and not addresses, because the owner of one account may have a whole IPv6 network.
- At least ``LOST_AT_LEAST`` addresses, and at least half as many as there are friends, failed on accounts
  that Asterisk does not know. This also finds an outage if the account names in phones and in Asterisk
  differ.

In outage mode, former friends count as friends. No address is banned for an account that worked there,
and no friend for an account that Asterisk does not know. Failures on other accounts still count against a
friend. Outage mode ends when fewer than ``AT_LEAST`` accounts and fewer than ``LOST_AT_LEAST`` addresses
fail. It also ends when the number that fails is at most a quarter of its highest value.

A success after ``FAILURES`` failures of the same address within an hour may be a guess that was right.
One or two failures are typing errors.

Bounds: ``MOST_PHONES`` phones, and ``MOST_ELSEWHERE`` other accounts at their addresses; those that failed
longest ago are discarded first. Times are monotonic seconds.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from math import inf

from ringfence.alarm_codes import AlarmCode
from ringfence.detect.friends import Friends
from ringfence.detect.rules import DAY
from ringfence.detect.sessions import remember
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt
from ringfence.values.event import EventKind, SecurityEvent
from ringfence.values.friend import Contact
from ringfence.values.network import Address
from ringfence.values.text import printable

AT_LEAST = 5
WITHIN = 300.0
QUIET = 30.0
FAILURES = 3
BROKEN_FOR = DAY
MOST_PHONES = 16_384

MOST_ELSEWHERE = 4_096
GOES_ON = 10
LOST_AT_LEAST = 3

_Phone = tuple[str, Address, str]


class Phones:
    """Records failed logins of known phones; raises alarms about them, and begins and ends outage mode.

    In outage mode, all phones fail at once, and failures on accounts that worked lead to no ban.
    """

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._failed: OrderedDict[_Phone, float] = OrderedDict()
        self._alarmed: OrderedDict[_Phone, float] = OrderedDict()
        self._waiting: OrderedDict[_Phone, tuple[float, AlarmChange]] = OrderedDict()
        self._accounts: Counter[str] = Counter()  # the number of phones in ``_failed``, by account
        self._elsewhere: OrderedDict[_Phone, tuple[int, float]] = OrderedDict()
        self._unknown_at: OrderedDict[Address, float] = OrderedDict()
        self._succeeded_at: dict[str, float] = {}
        self._most_failed = 0
        self._outage_of = ""

    def on_failure(self, attempt: Attempt, now: float) -> Iterator[AlarmChange]:
        """Record a failed login of a known phone, and yield the alarms that follow.

        The account works, or worked, at the address of the attempt.
        """
        phone = attempt.asterisk, attempt.address, attempt.account
        if phone not in self._failed:
            self._accounts[attempt.account] += 1
        self._failed[phone] = now
        self._failed.move_to_end(phone)
        if len(self._failed) > MOST_PHONES:
            self._clear_failure(next(iter(self._failed)))
        self._most_failed = max(self._most_failed, self._failing)
        if self._friends.outage_mode:
            return  # the alarm about all phones is active already
        if phone in self._alarmed or not self._friends.knows(AT_LEAST):
            yield self._raised(phone, _broken(attempt), now)
        else:
            since, _ = self._waiting.get(phone, (now, None))
            self._waiting[phone] = since, _broken(attempt)
            if len(self._waiting) > MOST_PHONES:
                self._waiting.popitem(last=False)
        if self._many_fail(attempt.asterisk, now):
            yield self._enter_outage_mode(attempt, f"{len(self._accounts)} phones")

    def _raised(self, phone: _Phone, alarm: AlarmChange, now: float) -> AlarmChange:
        """Record that an alarm about ``phone`` was raised at ``now``; return ``alarm``."""
        remember(self._alarmed, phone, now, MOST_PHONES)
        return alarm

    def _enter_outage_mode(self, attempt: Attempt, who: str) -> AlarmChange:
        self._friends.set_outage_mode(on=True)
        self._waiting.clear()
        self._outage_of, self._most_failed = attempt.asterisk, self._failing
        text = (
            f"{who} fail at once, where they worked: is Asterisk's database down, or did a reload drop its "
            "endpoints? Until they work again, no current or former friend is banned"
        )
        return AlarmChange(AlarmCode.PHONES_ALL_FAILING, attempt.asterisk, text, lasts=inf)

    @property
    def _failing(self) -> int:
        return max(len(self._accounts), len(self._unknown_at))

    def take_back(self, attempt: Attempt) -> None:
        """Count a failure elsewhere no more: AMI reports it at another account, or that there is none."""
        phone = attempt.asterisk, attempt.address, attempt.account
        number, began = self._elsewhere.get(phone, (0, 0.0))
        if number > 1:
            self._elsewhere[phone] = number - 1, began
        else:
            self._elsewhere.pop(phone, None)

    def on_failure_elsewhere(self, attempt: Attempt, now: float) -> Iterator[AlarmChange]:
        """Record that a known phone's address fails on an account that never worked there.

        Yield an alarm if outage mode begins, and one if the account failed ``GOES_ON`` times within a day.
        """
        phone = attempt.asterisk, attempt.address, attempt.account
        number, began = self._elsewhere.get(phone, (0, now))
        if now - began >= BROKEN_FOR:
            number, began = 0, now
        remember(self._elsewhere, phone, (number + 1, began), MOST_ELSEWHERE)
        if attempt.event is EventKind.INVALID_ACCOUNT_ID:
            remember(self._unknown_at, attempt.address, now, MOST_ELSEWHERE)
            self._most_failed = max(self._most_failed, self._failing)
            if not self._friends.outage_mode and self._many_unknown(attempt.asterisk, now):
                yield self._enter_outage_mode(attempt, f"phones of {len(self._unknown_at)} addresses")
        if number + 1 >= GOES_ON:
            account = printable(attempt.account)
            text = (
                f"{account} fails again and again at an address of yours where it never worked: a new phone "
                "with a wrong password, or an attacker there guesses"
            )
            subject = _subject(attempt.account, attempt.address)
            yield AlarmChange(AlarmCode.PHONE_FAILING, subject, text, lasts=BROKEN_FOR)

    def _is_quiet(self, asterisk: str, now: float) -> bool:
        return now - self._succeeded_at.get(asterisk, -inf) >= QUIET

    def _many_fail(self, asterisk: str, now: float) -> bool:
        if len(self._accounts) < AT_LEAST or not self._is_quiet(asterisk, now):
            return False
        self._forget(now)
        return len(self._accounts) >= AT_LEAST and 2 * len(self._accounts) >= self._friends.accounts

    def _many_unknown(self, asterisk: str, now: float) -> bool:
        """Whether half of all friends fail on accounts unknown to Asterisk, and no login succeeds."""
        if len(self._unknown_at) < LOST_AT_LEAST or not self._is_quiet(asterisk, now):
            return False
        self._forget(now)
        return len(self._unknown_at) >= LOST_AT_LEAST and 2 * len(self._unknown_at) >= len(self._friends)

    def _clear_failure(self, phone: _Phone) -> None:
        if self._failed.pop(phone, None) is not None:
            account = phone[-1]
            self._accounts[account] -= 1
            if not self._accounts[account]:
                del self._accounts[account]

    def on_success(self, event: SecurityEvent, failures: int, now: float) -> Iterator[AlarmChange]:
        """Record a login with a right password, and yield the alarms that it raises or clears.

        ``failures`` is the number of wrong passwords from this address in the last hour. It does not matter
        if the account works there.
        """
        address, account = event.remote.address, event.account
        phone = event.source.asterisk, address, account
        self._succeeded_at[event.source.asterisk] = now
        self._clear_failure(phone)
        self._waiting.pop(phone, None)
        for other in [other for other in self._waiting if other[0] == event.source.asterisk]:
            yield self._raised(other, self._waiting.pop(other)[1], now)
        if self._alarmed.pop(phone, None) is not None:
            yield AlarmChange(AlarmCode.PHONE_BROKEN, _subject(account, address), "", cleared=True)
        if failures >= FAILURES and not self._friends.worked_at(account, address):
            yield _guessed(account, address, failures)

    def on_contact(self, contact: Contact, failures: int) -> Iterator[AlarmChange]:
        """Handle a contact at an address where its account never worked; yield an alarm if it may be a guess.

        ``failures`` is the number of wrong passwords from the contact's address in the last hour.
        """
        if failures >= FAILURES:
            yield _guessed(contact.account, contact.address, failures)

    def tick(self, now: float) -> Iterator[AlarmChange]:
        """Discard expired failures, raise alarms that have waited, and end outage mode if phones work."""
        self._forget(now)
        while self._waiting and now - next(iter(self._waiting.values()))[0] >= WITHIN:
            phone, (_, alarm) = self._waiting.popitem(last=False)
            yield self._raised(phone, alarm, now)
        few = len(self._accounts) < AT_LEAST and len(self._unknown_at) < LOST_AT_LEAST
        if self._friends.outage_mode and (few or 4 * self._failing <= self._most_failed):
            self._friends.set_outage_mode(on=False)
            yield AlarmChange(AlarmCode.PHONES_ALL_FAILING, self._outage_of, "", cleared=True)

    def _forget(self, now: float) -> None:
        while self._failed and now - next(iter(self._failed.values())) >= WITHIN:
            self._clear_failure(next(iter(self._failed)))
        while self._unknown_at and now - next(iter(self._unknown_at.values())) >= WITHIN:
            self._unknown_at.popitem(last=False)
        while self._alarmed and now - next(iter(self._alarmed.values())) >= BROKEN_FOR:
            self._alarmed.popitem(last=False)


def _broken(attempt: Attempt) -> AlarmChange:
    known = attempt.event is not EventKind.INVALID_ACCOUNT_ID
    why = "has a wrong password" if known else "is unknown to Asterisk, which it was not before"
    return AlarmChange(
        AlarmCode.PHONE_BROKEN,
        _subject(attempt.account, attempt.address),
        f"extension {printable(attempt.account)} {why}; no address is banned for it",
        lasts=BROKEN_FOR,
    )


def _guessed(account: str, address: Address, failures: int) -> AlarmChange:
    text = (
        f"a right password for {printable(account)} follows {failures} wrong ones from there: if this is "
        "not a new phone, change the password"
    )
    return AlarmChange(AlarmCode.PASSWORD_GUESSED, _subject(account, address), text)


def _subject(account: str, address: Address) -> str:
    """Return the subject of an alarm about ``account`` at ``address``."""
    return f"{printable(account)} at {address}"
