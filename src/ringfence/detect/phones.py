"""What is to be known of phones: which one is broken, whether all are, and whose password somebody may know.

A friend that fails on an account that works at its address is a *broken phone*: a new password was set, or a
wrong one typed in. It is told of once, and bans nobody.

When every phone fails at once, it is Asterisk that is broken: to PJSIP a database that does not answer looks
like endpoints that do not exist, and so does a reload that dropped them. The *brake* is on where ``AT_LEAST``
phones, and half of all that are known, fail within ``WITHIN``: then nobody who is or was a friend is banned.
It is off when no more than a quarter of them have failed in that time.

A success that follows ``FAILURES`` failures on the same account or from the same address or prefix, within an
hour, may be a guess that was right; a typing error or two before it is what people do. So may be one from an
address where an account never worked that works elsewhere.

Bounds: ``MOST`` phones, those that failed longest ago go first. Times are monotonic seconds.
"""

from collections import OrderedDict
from collections.abc import Iterator
from math import inf

from ringfence.detect.friends import Friends
from ringfence.model import Address, Attempt, EventKind, Notice, SecurityEvent, printable

AT_LEAST = 5
WITHIN = 300.0
FAILURES = 3
BROKEN_FOR = 86_400.0
MOST = 16_384

BROKEN, BRAKE = "phone.broken", "phones.all_failing"
GUESSED, ELSEWHERE = "password.guessed", "password.elsewhere"

_Phone = tuple[str, Address, str]


class Phones:
    """Follows who fails where it works. Gives notices as they come up."""

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._failed: OrderedDict[_Phone, float] = OrderedDict()
        self._told: OrderedDict[_Phone, float] = OrderedDict()
        self._braked_at = 0
        self._brake_of = ""

    def fails(self, attempt: Attempt, now: float) -> Iterator[Notice]:
        """Take that a friend fails on an account that works, or worked, at its address."""
        phone = attempt.asterisk, attempt.address, attempt.account
        self._failed[phone] = now
        self._failed.move_to_end(phone)
        self._told[phone] = now
        self._told.move_to_end(phone)
        for table in (self._failed, self._told):
            if len(table) > MOST:
                table.popitem(last=False)
        known = attempt.event is not EventKind.INVALID_ACCOUNT_ID
        why = "has a wrong password" if known else "is unknown to Asterisk, which it was not before"
        yield Notice(
            BROKEN,
            f"{printable(attempt.account)} at {attempt.address}",
            f"extension {printable(attempt.account)} {why}: nobody is banned for it",
            lasts=BROKEN_FOR,
        )
        if not self._friends.braked and self._many_fail(now):
            self._friends.braked = True
            self._braked_at, self._brake_of = len(self._failed), attempt.asterisk
            text = (
                f"{len(self._failed)} phones fail at once, where they worked: is Asterisk's database down, "
                "or did a reload drop its endpoints? Nobody who is or was a friend is banned meanwhile"
            )
            yield Notice(BRAKE, attempt.asterisk, text, lasts=inf)

    def _many_fail(self, now: float) -> bool:
        if len(self._failed) < AT_LEAST:
            return False
        self._forget(now)
        known = len({(friend.address, friend.account) for friend in self._friends.all()})
        return len(self._failed) >= AT_LEAST and 2 * len(self._failed) >= known

    def succeeds(self, event: SecurityEvent, failures: int) -> Iterator[Notice]:
        """Take a right password; ``failures`` is how many wrong ones came before it from there, lately."""
        address, account = event.remote.address, event.account
        phone = event.source.asterisk, address, account
        subject = f"{printable(account)} at {address}"
        self._failed.pop(phone, None)
        if self._told.pop(phone, None) is not None:
            yield Notice(BROKEN, subject, "", over=True)
        if self._friends.worked_at(account, address):
            return
        if failures >= FAILURES:
            yield Notice(
                GUESSED,
                subject,
                f"a right password for {printable(account)} follows {failures} wrong ones from there: if "
                "that is no new phone, change the password",
            )
        elif self._friends.knew(account):
            yield Notice(
                ELSEWHERE,
                subject,
                f"{printable(account)} logs in from an address where it never was: if nobody has moved, "
                "change the password",
            )

    def tend(self, now: float) -> Iterator[Notice]:
        """Forget what is over; let the brake go where phones are well again."""
        self._forget(now)
        if self._friends.braked and 4 * len(self._failed) <= self._braked_at:
            self._friends.braked = False
            yield Notice(BRAKE, self._brake_of, "", over=True)

    def _forget(self, now: float) -> None:
        while self._failed and now - next(iter(self._failed.values())) >= WITHIN:
            self._failed.popitem(last=False)
        while self._told and now - next(iter(self._told.values())) >= BROKEN_FOR:
            self._told.popitem(last=False)
