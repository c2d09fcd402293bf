"""What is to be known of phones: which one is broken, whether all are, and whose password somebody may know.

A friend that fails on an account that works at its address is a *broken phone*: a new password was set, or a
wrong one typed in. It is told of once, and bans nobody. One that never worked there is told of too, once it
has failed ``GOES_ON`` times within a day.

When every phone fails at once, it is Asterisk that is broken: to PJSIP a database that does not answer looks
like endpoints that do not exist, and so does a reload that dropped them. The *brake* is on where ``AT_LEAST``
accounts, and half of all that are known, fail within ``WITHIN`` where they work, and none has succeeded for
``QUIET``: then former friends count as friends, and nobody is banned for an account that worked where he is.
(Accounts and not addresses, since who has one account and a network of IPv6 has as many of these as he likes;
and others than his own are counted against a friend as ever.) The same where ``LOST_AT_LEAST`` addresses, and
half of all friends', fail on accounts that Asterisk does not know: phones may call themselves otherwise than
it calls them. It is off when so few fail no longer, or no more than a quarter of the most that did.

A success that follows ``FAILURES`` failures on the same account or from the same address or prefix, within an
hour, may be a guess that was right; a typing error or two before it is what people do. So may be one from an
address where an account never worked that works elsewhere.

Bounds: ``MOST`` phones, those that failed longest ago go first. Times are monotonic seconds.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from math import inf

from ringfence.detect.friends import Friends
from ringfence.detect.recent import remember
from ringfence.model import Address, Attempt, EventKind, Notice, SecurityEvent, printable

AT_LEAST = 5
WITHIN = 300.0
QUIET = 30.0
FAILURES = 3
BROKEN_FOR = 86_400.0
MOST = 16_384

MOST_ELSEWHERE = 4_096
GOES_ON = 10
LOST_AT_LEAST = 3
BROKEN, FAILING, BRAKE = "phone.broken", "phone.failing", "phones.all_failing"
GUESSED, ELSEWHERE = "password.guessed", "password.elsewhere"

_Phone = tuple[str, Address, str]


class Phones:
    """Follows who fails where it works. Gives notices as they come up."""

    def __init__(self, friends: Friends) -> None:
        self._friends = friends
        self._failed: OrderedDict[_Phone, float] = OrderedDict()
        self._told: OrderedDict[_Phone, float] = OrderedDict()
        self._accounts: Counter[str] = Counter()  # of those that failed
        self._elsewhere: OrderedDict[_Phone, tuple[int, float]] = OrderedDict()
        self._lost: OrderedDict[Address, float] = OrderedDict()
        self._succeeded_at: dict[str, float] = {}
        self._most_failed = 0
        self._brake_of = ""

    def fails(self, attempt: Attempt, now: float) -> Iterator[Notice]:
        """Take that a friend fails on an account that works, or worked, at its address."""
        phone = attempt.asterisk, attempt.address, attempt.account
        if phone not in self._failed:
            self._accounts[attempt.account] += 1
        self._failed[phone] = now
        self._failed.move_to_end(phone)
        if len(self._failed) > MOST:
            self._well_again(next(iter(self._failed)))
        remember(self._told, phone, now, MOST)
        self._most_failed = max(self._most_failed, self._failing)
        if self._friends.braked:
            return  # that all fail is told already
        known = attempt.event is not EventKind.INVALID_ACCOUNT_ID
        why = "has a wrong password" if known else "is unknown to Asterisk, which it was not before"
        yield Notice(
            BROKEN,
            f"{printable(attempt.account)} at {attempt.address}",
            f"extension {printable(attempt.account)} {why}: nobody is banned for it",
            lasts=BROKEN_FOR,
        )
        if self._many_fail(attempt.asterisk, now):
            yield self._brake(attempt, f"{len(self._accounts)} phones")

    def _brake(self, attempt: Attempt, who: str) -> Notice:
        self._friends.braked = True
        self._brake_of, self._most_failed = attempt.asterisk, self._failing
        text = (
            f"{who} fail at once, where they worked: is Asterisk's database down, or did a reload drop its "
            "endpoints? Nobody who is or was a friend is banned meanwhile"
        )
        return Notice(BRAKE, attempt.asterisk, text, lasts=inf)

    @property
    def _failing(self) -> int:
        return max(len(self._accounts), len(self._lost))

    def fails_elsewhere(self, attempt: Attempt, now: float) -> Iterator[Notice]:
        """Take that a friend's address fails on an account that never worked there: told of if it goes on."""
        phone = attempt.asterisk, attempt.address, attempt.account
        number, began = self._elsewhere.get(phone, (0, now))
        if now - began >= BROKEN_FOR:
            number, began = 0, now
        remember(self._elsewhere, phone, (number + 1, began), MOST_ELSEWHERE)
        if attempt.event is EventKind.INVALID_ACCOUNT_ID:
            remember(self._lost, attempt.address, now, MOST_ELSEWHERE)
            if not self._friends.braked and self._many_are_lost(attempt.asterisk, now):
                yield self._brake(attempt, f"phones of {len(self._lost)} addresses")
        if number + 1 >= GOES_ON:
            account = printable(attempt.account)
            text = (
                f"{account} fails again and again at an address of yours where it never worked: a new phone "
                "with a wrong password, or somebody there guesses"
            )
            yield Notice(FAILING, f"{account} at {attempt.address}", text, lasts=BROKEN_FOR)

    def _is_quiet(self, asterisk: str, now: float) -> bool:
        return now - self._succeeded_at.get(asterisk, -inf) >= QUIET

    def _many_fail(self, asterisk: str, now: float) -> bool:
        if len(self._accounts) < AT_LEAST or not self._is_quiet(asterisk, now):
            return False
        self._forget(now)
        return len(self._accounts) >= AT_LEAST and 2 * len(self._accounts) >= self._friends.accounts

    def _many_are_lost(self, asterisk: str, now: float) -> bool:
        """Say whether phones that call themselves otherwise than Asterisk calls them fail everywhere."""
        if len(self._lost) < LOST_AT_LEAST or not self._is_quiet(asterisk, now):
            return False
        self._forget(now)
        return len(self._lost) >= LOST_AT_LEAST and 2 * len(self._lost) >= len(self._friends)

    def _well_again(self, phone: _Phone) -> None:
        if self._failed.pop(phone, None) is not None:
            account = phone[-1]
            self._accounts[account] -= 1
            if not self._accounts[account]:
                del self._accounts[account]

    def succeeds(self, event: SecurityEvent, failures: int, now: float) -> Iterator[Notice]:
        """Take a right password; ``failures`` is how many wrong ones came before it from there, lately."""
        address, account = event.remote.address, event.account
        phone = event.source.asterisk, address, account
        subject = f"{printable(account)} at {address}"
        self._succeeded_at[event.source.asterisk] = now
        self._well_again(phone)
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
        few = len(self._accounts) < AT_LEAST and len(self._lost) < LOST_AT_LEAST
        if self._friends.braked and (few or 4 * self._failing <= self._most_failed):
            self._friends.braked = False
            yield Notice(BRAKE, self._brake_of, "", over=True)

    def _forget(self, now: float) -> None:
        while self._failed and now - next(iter(self._failed.values())) >= WITHIN:
            self._well_again(next(iter(self._failed)))
        while self._lost and now - next(iter(self._lost.values())) >= WITHIN:
            self._lost.popitem(last=False)
        while self._told and now - next(iter(self._told.values())) >= BROKEN_FOR:
            self._told.popitem(last=False)
