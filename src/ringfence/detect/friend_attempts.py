"""Attempts of friends: broken phones, attackers at a friend's address, and guesses that nothing can prove.

Friends have their own limits (``Rule.for_friends``). If the wire (the answers that leave this host, copied by
the kernel) can prove addresses, only proven attempts count. Otherwise claimed attempts count too, but only a
proven attempt leads to a ban. A failure on an account that works at the address is a broken phone
(``phones``).

A friend's ban covers SIP by the transport that was misused, UDP or TCP, lasts as long as a first ban, and is
an alarm (``friend.banned``): other phones may be at that address, and perhaps only some have old passwords.

Asterisk checks the password of a request even if the request contains a nonce that Asterisk never sent, and
answers ``stale`` if the password is right. Nothing can prove such a guess. A phone that answers with an old
nonce makes one such failure. ``UNPROVEN`` of them in an hour indicate an attacker that uses the friend's
address, or forges it. This raises an alarm. Also, the friend is *unshielded* for ``UNSHIELDED_FOR``: the
kernel copies its conversation like that of a stranger. Nothing of the friend is dropped, because forged
datagrams would then end its registration.

Bounds: ``MOST`` friends in each table, the oldest are discarded first. Times are monotonic seconds.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from math import inf

from attrs import Factory, define

from ringfence.alarm_codes import AlarmCode
from ringfence.detect.distributed import scope_of_ban
from ringfence.detect.friends import Friends
from ringfence.detect.history import Fact, History, Key, Subject, Subjects, pack_network
from ringfence.detect.judgement import (
    Count,
    Counts,
    Decision,
    Estranged,
    friend_banned,
    guessing,
    unprovable,
)
from ringfence.detect.rules import MOST_ADDING, By, FriendLimit, Of, Rule, is_proven
from ringfence.detect.sessions import remember
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt, AttemptKind
from ringfence.values.ban import Scope
from ringfence.values.event import EventKind, SecurityEvent, Transport
from ringfence.values.friend import Contact, FriendReason
from ringfence.values.network import Address, Network, sender_of
from ringfence.values.text import printable

# -- phone health: detects broken phones, an outage of all phones, and passwords that may be known to others
#
# If a friend fails on an account that worked at its address, it is a *broken phone*: it has a wrong
# password, or Asterisk no longer knows its account. It raises one alarm and leads to no ban. If fewer than
# ``AT_LEAST`` accounts are known, the alarm is raised at once. Otherwise all phones may be about to fail.
# So the alarm waits until Asterisk accepts a password, at most for ``WITHIN``, and is dropped if outage
# mode begins. An account that never worked there raises an alarm after ``GOES_ON`` failures within a day.
#
# When all phones fail at once, Asterisk is broken: PJSIP reports endpoints as unknown if its database does
# not answer, or if a reload dropped them. *Outage mode* begins if Asterisk has accepted no password for
# ``QUIET``, and one of these happened within ``WITHIN``:
#
# - At least ``AT_LEAST`` accounts, and at least half of all accounts that work, failed where they worked.
#   Accounts are counted and not addresses, because the owner of one account may have a whole IPv6 network.
# - At least ``LOST_AT_LEAST`` addresses, and at least half as many as there are friends, failed on accounts
#   that Asterisk does not know. This also finds an outage if the account names in phones and in Asterisk
#   differ.
#
# In outage mode, former friends count as friends. No address is banned for an account that worked there,
# and no friend for an account that Asterisk does not know. Failures on other accounts still count against a
# friend. Outage mode ends when fewer than ``AT_LEAST`` accounts and fewer than ``LOST_AT_LEAST`` addresses
# fail. It also ends when the number that fails is at most a quarter of its highest value.
#
# A success after ``FAILURES`` failures of the same address within an hour may be a guess that was right.
# One or two failures are typing errors. A success at an address where the account never worked may be a
# guess too, if the account works at another address.
#
# Bounds: ``MOST`` phones; those that failed longest ago are discarded first. Times are monotonic seconds.


AT_LEAST = 5
WITHIN = 300.0
QUIET = 30.0
FAILURES = 3
BROKEN_FOR = 86_400.0
MOST_PHONES = 16_384

MOST_ELSEWHERE = 4_096
GOES_ON = 10
LOST_AT_LEAST = 3

_Phone = tuple[str, Address, str]


class Phones:
    """Records the failures of friends; raises alarms about broken phones, and begins and ends outage mode.

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
        """Record a wrong password of a known phone, and yield the alarms that follow.

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
        """Record and return the alarm about a broken phone."""
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

    def on_failure_elsewhere(self, attempt: Attempt, now: float) -> Iterator[AlarmChange]:
        """Record that a friend fails on an account that never worked at its address.

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
            subject = f"{account} at {attempt.address}"
            yield AlarmChange(AlarmCode.PHONE_FAILING, subject, text, lasts=BROKEN_FOR)

    def _is_quiet(self, asterisk: str, now: float) -> bool:
        return now - self._succeeded_at.get(asterisk, -inf) >= QUIET

    def _many_fail(self, asterisk: str, now: float) -> bool:
        if len(self._accounts) < AT_LEAST or not self._is_quiet(asterisk, now):
            return False
        self._forget(now)
        return len(self._accounts) >= AT_LEAST and 2 * len(self._accounts) >= self._friends.accounts

    def _many_unknown(self, asterisk: str, now: float) -> bool:
        """Whether at least half of all friends fail on accounts that Asterisk does not know."""
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
        """Record a right password, and yield the alarms that it raises or clears.

        ``failures`` is the number of wrong passwords from this address in the last hour.
        """
        address, account = event.remote.address, event.account
        phone = event.source.asterisk, address, account
        subject = f"{printable(account)} at {address}"
        self._succeeded_at[event.source.asterisk] = now
        self._clear_failure(phone)
        self._waiting.pop(phone, None)
        for other in [other for other in self._waiting if other[0] == event.source.asterisk]:
            yield self._raised(other, self._waiting.pop(other)[1], now)
        if self._alarmed.pop(phone, None) is not None:
            yield AlarmChange(AlarmCode.PHONE_BROKEN, subject, "", cleared=True)
        if self._friends.worked_at(account, address):
            return
        if failures >= FAILURES:
            yield _guessed(account, address, failures)
        elif self._friends.knows_account(account):
            yield AlarmChange(
                AlarmCode.PASSWORD_ELSEWHERE,
                subject,
                f"{printable(account)} logs in from an address where it never was: if no phone was moved, "
                "change the password",
            )

    def on_contact(self, contact: Contact, failures: int) -> Iterator[AlarmChange]:
        """Handle a new contact; yield an alarm if its password may have been guessed.

        ``failures`` is the number of wrong passwords from its address in the last hour.
        """
        if failures >= FAILURES and not self._friends.worked_at(contact.account, contact.address):
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
        f"{printable(attempt.account)} at {attempt.address}",
        f"extension {printable(attempt.account)} {why}; no address is banned for it",
        lasts=BROKEN_FOR,
    )


def _guessed(account: str, address: Address, failures: int) -> AlarmChange:
    text = (
        f"a right password for {printable(account)} follows {failures} wrong ones from there: if this is "
        "not a new phone, change the password"
    )
    return AlarmChange(AlarmCode.PASSWORD_GUESSED, f"{printable(account)} at {address}", text)


HOUR = 3_600.0

UNSHIELDED_FOR = 600.0
"""For this time after a friend's unprovable guess (seconds), the kernel copies its conversation."""

UNPROVEN = 4
"""The number of unproven guesses of a friend in an hour that raises an alarm."""

PROVEN_WITHIN = 2.0
"""A guess that is not proven within this time (seconds) is treated as unproven."""

MOST = 1_024
_MOST_ACCOUNTS = 256
_MOST_BANNED = 16

CHECKED = frozenset(
    {
        EventKind.CHALLENGE_RESPONSE_FAILED,
        EventKind.INVALID_PASSWORD,
        EventKind.HIDDEN,
        EventKind.REFUSED,
    }
)
"""Kinds of events after which Asterisk has, or may have, checked a password."""

Consequence = tuple[Decision | None, Sequence[AlarmChange | Estranged]]
"""The ban that follows from an attempt, or None, and what else follows."""


_Failure = tuple[float, str | None]
"""The time of an attempt and its account, None for a hidden one."""


@define
class _Failures:
    """The failures of a friend.

    ``latest`` has the latest failures for each limit of each rule. ``accounts`` has the time of the latest
    failure on each account, ``banned`` that of the latest ban of each address and scope.
    """

    latest: dict[tuple[str, FriendLimit], deque[_Failure]] = Factory(dict)
    accounts: OrderedDict[str, float] = Factory(OrderedDict)
    banned: OrderedDict[tuple[Address, Scope], float] = Factory(OrderedDict)

    def begin_ban(self, address: Address, scope: Scope, now: float) -> None:
        """Record a ban; what it covers counts from nothing again."""
        self.latest.clear()
        self.accounts.clear()
        remember(self.banned, (address, scope), now, _MOST_BANNED)

    def goes_on(self, address: Address, scope: Scope, now: float) -> bool:
        """Whether the sender was banned within an hour, and not in this scope at this address."""
        lately = any(now - at < HOUR for at in self.banned.values())
        return lately and now - self.banned.get((address, scope), -inf) >= HOUR


def is_guess_elsewhere(attempt: Attempt) -> bool:
    """Whether an attempt is a guess at the password of an account that may exist."""
    return attempt.kind is AttemptKind.GUESS and attempt.event is not EventKind.INVALID_ACCOUNT_ID


def _needed(limit: FriendLimit, latest: Iterable[_Failure]) -> int:
    """Return how many attempts reach a limit. A hidden one is at no account that is known."""
    return limit.needed(len({account for _, account in latest} - {None}))


def _add(limit: FriendLimit, latest: deque[_Failure], now: float, account: str | None) -> None:
    """Add an attempt to those that count for a limit. Each hidden one counts."""
    while latest and now - latest[0][0] >= limit.window:
        latest.popleft()
    mine = [one for one in latest if one[1] == account] if limit.each and account is not None else []
    if mine and len(mine) >= limit.each:
        latest.remove(mine[0])
    latest.append((now, account))


class FriendAttempts:
    """Decides what follows from the attempts, logins and contacts of friends.

    ``sees_wire``: the wire can prove an address. Without the wire, nothing proves the address of an attempt
    by UDP. So a claimed attempt is then treated as really coming from its address.
    """

    def __init__(self, subjects: Subjects, history: History, counts: Counts) -> None:
        self.sees_wire = False
        self._subjects = subjects
        self._friends = subjects.friends
        self._history = history
        self._counts = counts
        self._phones = Phones(subjects.friends)
        self._rules: Sequence[Rule] = ()
        self._failures: OrderedDict[Key, _Failures] = OrderedDict()
        self._unproven: OrderedDict[Address, float] = OrderedDict()  # since when guesses wait for a proof
        self._unshielded: OrderedDict[Address, float] = OrderedDict()

    def configure(self, rules: Sequence[Rule]) -> None:
        """Use the limits of these rules; counts start again."""
        self._rules = [rule for rule in rules if rule.enabled and rule.by is By.SUBJECT and rule.for_friends]
        self._failures.clear()

    # -- attempts ---------------------------------------------------------------------------------------

    def on_attempt(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return what follows from an attempt of a current or former friend.

        If the wire can prove addresses, an unproven attempt leads to nothing now. If it stays unproven,
        :meth:`tick` may return an alarm.
        """
        proven = is_proven(attempt.proof)
        result: Consequence = None, ()
        if proven or not self.sees_wire:
            result = self.on_certain(subject, attempt, now)
        elif attempt.event in CHECKED and attempt.transport is Transport.UDP:
            remember(self._unproven, attempt.address, self._unproven.get(attempt.address, now), MOST)
        self._counts.friends += 1
        self._counts.uncounted += not proven or self._is_forgiven(subject, attempt)
        return result

    def on_certain(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return what follows from an attempt that is treated as really coming from a friend's address.

        Either the phone is broken, or there is an attacker at that address.
        """
        works = self.works(subject, attempt)
        follows: list[AlarmChange | Estranged] = []
        if attempt.kind is AttemptKind.GUESS:
            failed = self._phones.on_failure if works else self._phones.on_failure_elsewhere
            follows += failed(attempt, now)
        if self._is_forgiven(subject, attempt):
            return None, follows
        decision = self._decide(subject, attempt, now, works=works)
        if decision is not None:
            follows.append(friend_banned(subject.address, decision))
        if self._is_trunk(subject) or not is_proven(attempt.proof):
            return decision, follows
        if decision is not None or (is_guess_elsewhere(attempt) and not works):
            follows += self._blame(subject, attempt, banned=decision is not None)
        return decision, follows

    def works(self, subject: Subject, attempt: Attempt) -> bool:
        """Whether the account of an attempt works at its address.

        The account of a hidden attempt is text of its sender, and no phone hides: it never works.
        """
        hidden = attempt.event is EventKind.HIDDEN
        return not hidden and self._friends.worked_at(attempt.account, subject.address)

    def _blame(
        self, subject: Subject, attempt: Attempt, *, banned: bool
    ) -> Iterator[AlarmChange | Estranged]:
        """Count a guess at another account against the accounts that made its address a friend.

        ``banned``: a ban of the address follows. Yield what follows for an account that becomes guilty: an
        alarm, and the friends that are strangers from now on.
        """
        new, sender = self._friends.new, sender_of(subject.address)
        accounts = self._friends.accounts_at(subject.address)
        recent = [one for one in accounts if new.is_new(one, sender, attempt.time)]
        for account in recent:
            alone = len(accounts) == 1
            guilty = new.blame(account, sender, attempt.time, attempt.account, alone=alone)
            if guilty or (banned and alone):
                yield guessing(*account)
                yield from map(Estranged, self._friends.estrange(account, attempt.time))

    def on_tainted(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return what follows from a guess where a guilty account works: a ban, if it is proven."""
        if not is_guess_elsewhere(attempt) or not is_proven(attempt.proof):
            return None, ()
        rule = next((one for one in self._rules if attempt.kind in one.counts), None)
        if rule is None:
            return None, ()
        decision = self._ban(subject, rule, attempt, now)
        return decision, (friend_banned(subject.address, decision),)

    def _is_forgiven(self, subject: Subject, attempt: Attempt) -> bool:
        """Whether an attempt does not count, because all phones fail at once (outage mode).

        Guesses on accounts of other addresses still count.
        """
        if not self._friends.outage_mode:
            return False
        unknown = attempt.event is EventKind.INVALID_ACCOUNT_ID
        return unknown or self.works(subject, attempt)

    def _decide(self, subject: Subject, attempt: Attempt, now: float, *, works: bool) -> Decision | None:
        """Return the ban that follows; ``works``: the account works at that address.

        An attempt with only a claimed address counts, but leads to no ban.
        """
        for rule in self._rules:
            if attempt.kind not in rule.counts:
                continue
            if rule.of is Of.UNKNOWN_ACCOUNTS:
                full = not works and self._tries_many_accounts(subject, rule, attempt, now)
            elif attempt.event is EventKind.INVALID_ACCOUNT_ID:
                continue  # no guess of a password: all phones fail so if Asterisk cannot read its accounts
            elif works and attempt.kind is AttemptKind.GUESS:
                continue  # a broken phone, which leads to an alarm and no ban
            elif attempt.kind is AttemptKind.PROBE and rule.each_of_friend:
                continue  # a wrong number is at no account
            else:
                full = self._exceeds_limit(subject, rule, attempt, now)
            if full and is_proven(attempt.proof) and not self._is_trunk(subject):
                return self._ban(subject, rule, attempt, now)
        return None

    def _ban(self, subject: Subject, rule: Rule, attempt: Attempt, now: float) -> Decision:
        """Return the ban of a friend, which covers the transport of its latest attempt.

        If the friend goes on by the other transport, or from another address of its /64, the first guess is a
        ban there.
        """
        self._of(subject).begin_ban(subject.address, scope_of_ban(attempt.transport), now)
        attempts = self._history.attempts(subject.key)
        proven = tuple(one for one in attempts if one.trusted and is_proven(one.proof))
        self._history.consume(subject.key)
        shown = proven if self.sees_wire else attempts
        return Decision(subject.network, rule, shown, now, scope_of_ban(attempt.transport), rule.ban_for(0))

    def forget(self, subject: Network) -> None:
        """Forget the failures of a friend, because an administrator has ended its ban."""
        self._failures.pop(pack_network(sender_of(subject.network_address)), None)

    def _is_trunk(self, subject: Subject) -> bool:
        reasons = self._friends.reasons(subject.address)
        return any(friend.reason is FriendReason.TRUNK for friend in reasons)

    def _exceeds_limit(self, subject: Subject, rule: Rule, attempt: Attempt, now: float) -> bool:
        failures = self._of(subject)
        table = failures.latest
        full = attempt.kind is AttemptKind.GUESS and failures.goes_on(
            subject.address, scope_of_ban(attempt.transport), now
        )
        account = None if attempt.event is EventKind.HIDDEN else attempt.account
        for limit in rule.for_friends:
            most = limit.needed(MOST_ADDING)
            latest = table.setdefault((rule.name, limit), deque(maxlen=most))
            _add(limit, latest, now, account)
            full = full or len(latest) >= _needed(limit, latest)
        return full

    def _tries_many_accounts(self, subject: Subject, rule: Rule, attempt: Attempt, now: float) -> bool:
        limit = rule.for_friends[0]
        tried = self._of(subject).accounts
        tried[attempt.account] = now
        tried.move_to_end(attempt.account)
        while len(tried) > _MOST_ACCOUNTS or now - next(iter(tried.values())) >= limit.window:
            tried.popitem(last=False)
        return len(tried) >= limit.number

    def _of(self, subject: Subject) -> _Failures:
        """Return the failures of a friend. All addresses of an IPv6 /64 share them."""
        key = pack_network(sender_of(subject.address))
        failures = self._failures.get(key) or _Failures()
        remember(self._failures, key, failures, MOST)
        return failures

    def nearest(self, rule: Rule, subject: Subject, now: float) -> Count:
        """Return the count under the rule's limits for friends; if it has two, the one nearest to a ban.

        The count is 0 of 0 if the rule does not apply to friends.
        """
        failures = self._failures.get(pack_network(sender_of(subject.address))) or _Failures()
        counts = []
        for limit in rule.for_friends:
            kept = failures.latest.get((rule.name, limit), ())
            latest = [one for one in kept if now - one[0] < limit.window]
            times = [at for at, _ in latest]
            if rule.of is Of.UNKNOWN_ACCOUNTS:
                times = [at for at in failures.accounts.values() if now - at < limit.window]
            ends = min(times) + limit.window if times else None
            number, have = _needed(limit, latest), len(times)
            counts.append(Count(rule, number, have, have, ends, limit.window, limit.each))
        none = Count(rule, 0, 0, 0, None, rule.window)
        return max(counts, key=lambda count: count.have / max(count.number, 1), default=none)

    # -- logins and contacts ----------------------------------------------------------------------------

    def on_success(self, event: SecurityEvent, now: float) -> Sequence[AlarmChange]:
        """Return the alarms that a login raises or clears, such as the alarm about a guessed password."""
        return [*self._phones.on_success(event, self._failed_guesses(event.remote.address, now), now)]

    def on_contact(self, contact: Contact, now: float) -> Sequence[AlarmChange]:
        """Return the alarm about a contact if guesses from its address failed before.

        Perhaps one more guess was right, and the events do not show its login.
        """
        return [*self._phones.on_contact(contact, self._failed_guesses(contact.address, now))]

    def _failed_guesses(self, address: Address, now: float) -> int:
        """Return how many guesses of exactly this address failed within the last hour.

        If the wire can prove addresses, only proven guesses count.
        """
        facts = self._facts(address, now)
        return sum(fact.kind is AttemptKind.GUESS and (fact.proven or not self.sees_wire) for fact in facts)

    def _facts(self, address: Address, now: float) -> Sequence[Fact]:
        return self._history.facts_of(address, self._subjects.find(address).network, now - HOUR)

    # -- guesses that nothing can prove -----------------------------------------------------------------

    def on_unprovable(self, address: Address, now: float) -> AlarmChange:
        """Return the alarm that guesses come from ``address`` which nothing can prove.

        If the address is a friend, it is unshielded for ``UNSHIELDED_FOR``.
        """
        friend = self._subjects.find(address).friend
        if friend:
            remember(self._unshielded, address, now, MOST)
        return unprovable(address, friend=friend)

    def unshielded(self, now: float) -> Sequence[Address]:
        """Return the friends that are unshielded now."""
        while self._unshielded and now - next(iter(self._unshielded.values())) >= UNSHIELDED_FOR:
            self._unshielded.popitem(last=False)
        return [*self._unshielded]

    def tick(self, now: float) -> Sequence[AlarmChange]:
        """Return the changes of alarms that are due at ``now`` (monotonic seconds).

        These are the alarms about phones, and those about friends whose guesses stayed unproven for
        ``PROVEN_WITHIN``.
        """
        alarms = [*self._phones.tick(now)]
        due = [address for address, since in self._unproven.items() if now - since >= PROVEN_WITHIN]
        for address in due:
            del self._unproven[address]
            facts = self._facts(address, now)
            if sum(not fact.proven and fact.event in CHECKED for fact in facts) >= UNPROVEN:
                alarms.append(self.on_unprovable(address, now))
        return alarms
