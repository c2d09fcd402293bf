"""Attempts of friends: broken phones, attackers at a friend's address, and guesses that nothing can prove.

Friends have their own limits (``Rule.for_friends``). If the wire (the answers that leave this host, copied by
the kernel) can prove addresses, only proven attempts count. Otherwise claimed attempts count too, but only a
proven attempt leads to a ban. A failure on an account that works at the address is a broken phone
(``phones``).

Asterisk checks the password of a request even if the request contains a nonce that Asterisk never sent, and
answers ``stale`` if the password is right. Nothing can prove such a guess. A phone that answers with an old
nonce makes one such failure. ``UNPROVEN`` of them in an hour indicate an attacker that uses the friend's
address, or forges it. This raises an alarm. Also, the limiter (the kernel's limit of packets for each
address) does not exempt the friend for ``UNSHIELDED_FOR``.

Bounds: ``MOST`` friends in each table, the oldest are discarded first. Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence

from attrs import Factory, define

from ringfence.detect.history import Fact, History, Key
from ringfence.detect.judgement import Count, Counts, Decision, unprovable
from ringfence.detect.phones import Phones
from ringfence.detect.rules import By, Of, Rule, is_proven
from ringfence.detect.subjects import Subject, Subjects, remember
from ringfence.model import (
    Address,
    AlarmChange,
    Attempt,
    AttemptKind,
    Contact,
    EventKind,
    FriendReason,
    SecurityEvent,
    Transport,
)

HOUR = 3_600.0

UNSHIELDED_FOR = 600.0
"""For this time after a friend's unprovable guess (seconds), the kernel's limit of packets applies to it."""

UNPROVEN = 4
"""The number of unproven guesses of a friend in an hour that raises an alarm."""

PROVEN_WITHIN = 2.0
"""A guess that is not proven within this time (seconds) is treated as unproven."""

MOST = 1_024
_MOST_ACCOUNTS = 256

CHECKED = frozenset({EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_PASSWORD, EventKind.HIDDEN})
"""Kinds of events after which Asterisk has, or may have, checked a password."""

Consequence = tuple[Decision | None, Sequence[AlarmChange]]
"""The ban that follows from an attempt, or None, and the alarms."""


@define
class _Failures:
    """The failures of a friend.

    ``times`` has the times of the latest failures for each limit. A limit is identified by the name of its
    rule and its number of attempts. ``accounts`` has the time of the latest failure on each account.
    """

    times: dict[tuple[str, int], deque[float]] = Factory(dict)
    accounts: OrderedDict[str, float] = Factory(OrderedDict)


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
        self._rules = [rule for rule in rules if rule.enabled and rule.by is By.SUBJECT and rule.friends]
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
        works = self._friends.worked_at(attempt.account, subject.address)
        alarms: list[AlarmChange] = []
        if attempt.kind is AttemptKind.GUESS:
            failed = self._phones.on_failure if works else self._phones.on_failure_elsewhere
            alarms += failed(attempt, now)
        if self._is_forgiven(subject, attempt):
            return None, alarms
        return self._decide(subject, attempt, now, works=works), alarms

    def _is_forgiven(self, subject: Subject, attempt: Attempt) -> bool:
        """Whether an attempt does not count, because all phones fail at once (outage mode).

        Guesses on accounts of other addresses still count.
        """
        if not self._friends.outage_mode:
            return False
        unknown = attempt.event is EventKind.INVALID_ACCOUNT_ID
        return unknown or self._friends.worked_at(attempt.account, subject.address)

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
            else:
                full = self._exceeds_limit(subject, rule, now)
            if full and is_proven(attempt.proof) and not self._is_trunk(subject):
                self._failures.pop(subject.key, None)
                attempts = self._history.attempts(subject.key)
                self._history.consume(subject.key)
                return Decision(subject.network, rule, attempts, now, rule.scope)
        return None

    def _is_trunk(self, subject: Subject) -> bool:
        reasons = self._friends.reasons(subject.address)
        return any(friend.reason is FriendReason.TRUNK for friend in reasons)

    def _exceeds_limit(self, subject: Subject, rule: Rule, now: float) -> bool:
        full = False
        table = self._of(subject).times
        for number, window in rule.for_friends:
            times = table.setdefault((rule.name, number), deque(maxlen=number))
            times.append(now)
            full = full or (len(times) == number and now - times[0] < window)
        return full

    def _tries_many_accounts(self, subject: Subject, rule: Rule, attempt: Attempt, now: float) -> bool:
        number, window = rule.for_friends[0]
        tried = self._of(subject).accounts
        tried[attempt.account] = now
        tried.move_to_end(attempt.account)
        while len(tried) > _MOST_ACCOUNTS or now - next(iter(tried.values())) >= window:
            tried.popitem(last=False)
        return len(tried) >= number

    def _of(self, subject: Subject) -> _Failures:
        failures = self._failures.get(subject.key) or _Failures()
        remember(self._failures, subject.key, failures, MOST)
        return failures

    def nearest(self, rule: Rule, subject: Subject, now: float) -> Count:
        """Return the count under the rule's limits for friends; if it has two, the one nearest to a ban.

        The count is 0 of 0 if the rule does not apply to friends.
        """
        failures = self._failures.get(subject.key) or _Failures()
        counts = []
        for number, window in rule.for_friends:
            unknown = rule.of is Of.UNKNOWN_ACCOUNTS
            times = failures.accounts.values() if unknown else failures.times.get((rule.name, number), ())
            lately = [at for at in times if now - at < window]
            ends = min(lately) + window if lately else None
            counts.append(Count(rule, number, len(lately), len(lately), ends, window))
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
        return self._history.facts_of(address, self._subjects.of(address).network, now - HOUR)

    # -- guesses that nothing can prove -----------------------------------------------------------------

    def on_unprovable(self, address: Address, now: float) -> AlarmChange:
        """Return the alarm that guesses come from ``address`` which nothing can prove.

        If the address is a friend, the limiter stops exempting it for ``UNSHIELDED_FOR``.
        """
        friend = self._subjects.of(address).friend
        if friend:
            remember(self._unshielded, address, now, MOST)
        return unprovable(address, friend=friend)

    def unshielded(self, now: float) -> Sequence[Address]:
        """Return the friends to which the limiter (the kernel's limit of packets) must apply now."""
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
