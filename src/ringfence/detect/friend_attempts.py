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

A limit counts attempts from when they happened: a busy machine reads AMI some seconds late, and then several
events at once, and a phone that retries would look like a program.

Bounds: ``MOST`` friends in each table, the oldest are discarded first. Times are monotonic seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from typing import NamedTuple

from attrs import Factory, define

from ringfence.detect.distributed import scope_of_ban
from ringfence.detect.history import Fact, History, Key, Subject, Subjects, pack_network
from ringfence.detect.judgement import Count, Counts, Decision, Estranged, friend_banned, guessing, unprovable
from ringfence.detect.new_friends import AccountKey
from ringfence.detect.phones import Phones
from ringfence.detect.rules import HOUR, MOST_ADDING, By, FriendLimit, Rule, is_proven
from ringfence.detect.sessions import remember
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt, AttemptKind
from ringfence.values.ban import Scope
from ringfence.values.event import AMI, WIRE, EventKind, SecurityEvent, Service, Transport
from ringfence.values.friend import Contact, FriendReason
from ringfence.values.network import Address, Network, sender_of

UNSHIELDED_FOR = 600.0
"""Seconds for which the kernel copies a friend's packets after a guess whose sender nothing can prove."""

UNPROVEN = 4
"""The number of unproven guesses of a friend in an hour that raises an alarm."""

PROVEN_WITHIN = 2.0
"""Seconds to wait for a proof of a guess's sender. After that, the guess counts as unproven."""

MOST_LATE = 64.0
"""How long before its report (seconds) an attempt of a friend may have happened, for its limits."""

MOST = 1_024
_MOST_VALUES = 256
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
"""The ban that follows from a friend's attempt, or None; and the alarms and ended friendships."""


class _Failure(NamedTuple):
    """An attempt that counts for a limit, at ``at`` (monotonic seconds).

    ``account`` is None if Asterisk's events do not show it. ``replaces``: an earlier one at this account made
    room for it.
    """

    at: float
    account: str | None
    replaces: bool = False


class _Tried(NamedTuple):
    """The time of the latest failure with one value (monotonic seconds), and the number of failures."""

    at: float
    times: int


@define
class _Failures:
    """The failed attempts of a known phone (IPv6: of all phones in its /64).

    ``latest`` has them by rule and limit. ``values`` has, by rule, the failures with each value of the field
    that the rule counts, ``banned`` the time of the latest ban of each address and scope.
    ``made_by`` has, by account, the latest banned address that it made a friend, and when that was banned.
    """

    latest: dict[tuple[str, FriendLimit], deque[_Failure]] = Factory(dict)
    values: dict[str, OrderedDict[object, _Tried]] = Factory(dict)
    banned: OrderedDict[tuple[Address, Scope], float] = Factory(OrderedDict)
    made_by: OrderedDict[AccountKey, tuple[Address, float]] = Factory(OrderedDict)

    def begin_ban(self, address: Address, scope: Scope, now: float) -> None:
        """Record a ban of ``address`` at ``now`` (monotonic); all counts of failures start again at zero."""
        self.latest.clear()
        self.values.clear()
        remember(self.banned, (address, scope), now, _MOST_BANNED)

    def goes_on(self, address: Address, scope: Scope, now: float) -> bool:
        """Whether an earlier ban (within an hour) was of another address of the /64 or another scope only."""
        lately = any(now - at < HOUR for at in self.banned.values())
        return lately and now - self.banned.get((address, scope), -inf) >= HOUR

    def take_back(self, rule: Rule, account: str) -> None:
        """Count the latest failure at ``account`` no more, by ``rule``."""
        for limit in rule.for_friends:
            latest = self.latest.get((rule.name, limit), deque())
            mine = [one for one in latest if one.account == account]
            if mine and not mine[-1].replaces:
                latest.remove(mine[-1])
        tried = self.values.get(rule.name, OrderedDict())
        known = tried.get(account)
        if known is not None and known.times > 1:
            tried[account] = _Tried(known.at, known.times - 1)  # it keeps its place in the order of times
        elif known is not None:
            del tried[account]

    def is_second_ban(self, account: AccountKey, address: Address, now: float) -> bool:
        """Record a ban, at ``now`` (monotonic), of an address that ``account`` made a friend.

        Return whether another address that the account made a friend was banned within the hour before.
        """
        before, at = self.made_by.get(account, (address, now))
        remember(self.made_by, account, (address, now), _MOST_BANNED)
        return before != address and now - at < HOUR


def is_guess_elsewhere(attempt: Attempt) -> bool:
    """Whether an attempt is a guess for which Asterisk checked a password, so that the account may exist."""
    return attempt.kind is AttemptKind.GUESS and attempt.event is not EventKind.INVALID_ACCOUNT_ID


def _needed(limit: FriendLimit, latest: Iterable[_Failure]) -> int:
    """Return how many attempts reach ``limit``, which depends on the number of accounts in ``latest``."""
    return limit.needed(len({one.account for one in latest} - {None}))


def _add(limit: FriendLimit, latest: deque[_Failure], at: float, account: str | None) -> None:
    """Add an attempt to ``latest``, the attempts that count for ``limit``; drop those that are too old.

    If ``limit`` counts only some attempts at each account, the new one replaces the oldest at ``account``.
    An attempt that happened before the last one in ``latest`` counts as one of the same moment: another
    source is faster.
    """
    at = max(at, latest[-1].at) if latest else at
    while latest and at - latest[0].at >= limit.window:
        latest.popleft()
    mine = [one for one in latest if one.account == account] if limit.each and account is not None else []
    replaces = bool(mine) and len(mine) >= limit.each
    if replaces:
        latest.remove(mine[0])
    latest.append(_Failure(at, account, replaces))


class FriendAttempts:
    """Decides what follows from the attempts, logins and contacts of friends.

    ``sees_wire``: packets that the kernel copies can prove an address. Without these, nothing proves the
    address of an attempt by UDP. So an unproven attempt is then treated as really coming from its address.
    ``ahead``: the wall clock minus the monotonic clock (seconds) at the last tick, -inf before the first one.
    """

    def __init__(self, subjects: Subjects, history: History, counts: Counts) -> None:
        self.sees_wire = False
        self.ahead = -inf
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
        """Replace the rules, whose limits for friends apply from now on; counts start again."""
        self._rules = [rule for rule in rules if rule.enabled and rule.by is By.SUBJECT and rule.for_friends]
        self._failures.clear()

    # -- attempts ---------------------------------------------------------------------------------------

    def on_attempt(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return the ban, the alarms and the ended friendships that follow from a friend's attempt.

        ``subject`` is a friend now, or was one in the last month.

        If copied packets can prove addresses, an attempt leads to nothing now while nothing proves that it
        came from its address. If it stays unproven, :meth:`tick` may return an alarm.
        """
        result = self.on_reason(subject, attempt, now)
        self._counts.friends += 1
        self._counts.uncounted += not is_proven(attempt.proof) or self._is_forgiven(subject, attempt)
        return result

    def on_reason(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return what follows from a friend's attempt whose reason is known, without counting the attempt.

        The reason may become known later than the attempt.
        """
        if is_proven(attempt.proof) or not self.sees_wire:
            return self.on_certain(subject, attempt, now)
        if attempt.event in CHECKED and attempt.transport is Transport.UDP:
            remember(self._unproven, attempt.address, self._unproven.get(attempt.address, now), MOST)
        return None, ()

    def on_certain(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return the ban, the alarms and the ended friendships that follow from a friend's attempt.

        The attempt is treated as really coming from the friend's address: either the phone has a wrong
        password, or there is an attacker at its address.
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
            follows += self._blame(subject, attempt, now, banned=decision is not None)
        return decision, follows

    def works(self, subject: Subject, attempt: Attempt) -> bool:
        """Whether the account of an attempt works, or worked within a month, at its address.

        False for an attempt that Asterisk's events do not show: its account is text of its sender.
        """
        hidden = attempt.event is EventKind.HIDDEN
        return not hidden and self._friends.worked_at(attempt.account, subject.address)

    def _blame(
        self, subject: Subject, attempt: Attempt, now: float, *, banned: bool
    ) -> Iterator[AlarmChange | Estranged]:
        """Blame a bad attempt on the accounts whose logins made its sender a friend.

        ``attempt`` is a guess at another account, or the attempt that led to a ban (then ``banned``). It
        counts against accounts that did so lately, unless the sender is an office (``new_friends``), and
        against those whose friends of this /64 are banned one after the other. For each account that becomes
        guilty, yield an alarm, and an Estranged for each friend that only guilty accounts have made: these
        friends become strangers.
        """
        new, sender = self._friends.new, sender_of(subject.address)
        accounts = self._friends.accounts_at(subject.address)
        alone, office = len(accounts) == 1, self._friends.is_office(subject.address)
        for account in accounts:
            again = banned and self._of(subject).is_second_ban(account, subject.address, now)
            if not new.is_new(account, sender, attempt.time):
                if not again:
                    continue
                new.restore(account, sender, attempt.time)  # it counts as new from now on
            guilty = not office and new.blame(account, sender, attempt.time, attempt.account, alone=alone)
            if guilty or again or (banned and alone):
                yield guessing(*account)
                yield from map(Estranged, self._friends.estrange(account, attempt.time))

    def on_tainted(self, subject: Subject, attempt: Attempt, now: float) -> Consequence:
        """Return the ban, with its alarm, for a proven guess from an address whose account guessed before."""
        if not is_guess_elsewhere(attempt) or not is_proven(attempt.proof):
            return None, ()
        rule = next((one for one in self._rules if attempt.kind in one.counts), None)
        if rule is None:
            return None, ()
        decision = self._ban(subject, rule, attempt, now)
        return decision, (friend_banned(subject.address, decision),)

    def _is_forgiven(self, subject: Subject, attempt: Attempt) -> bool:
        """Whether an attempt does not count, because all phones fail at once (outage mode).

        Guesses on accounts of other addresses still count. The account of a refused call at chan_sip is the
        caller's URI. Its sender may have written that, but this excuses it only during an outage.
        """
        if not self._friends.outage_mode:
            return False
        caller = attempt.account.partition(":")[2].partition("@")[0]
        calls = attempt.service is Service.SIP and self._friends.worked_at(caller, subject.address)
        unknown = attempt.event is EventKind.INVALID_ACCOUNT_ID
        return unknown or calls or self.works(subject, attempt)

    def _decide(self, subject: Subject, attempt: Attempt, now: float, *, works: bool) -> Decision | None:
        """Return the ban that follows from a friend's attempt, or None.

        ``works``: the account works at that address. An attempt with an unproven address counts, but leads to
        no ban.
        """
        for rule in self._rules:
            if attempt.kind not in rule.counts:
                continue
            if works and attempt.kind is AttemptKind.GUESS:
                continue  # a broken phone, which leads to an alarm and no ban
            if rule.of.field:
                full = self._tries_many(subject, rule, attempt, now)
            elif attempt.event is EventKind.INVALID_ACCOUNT_ID:
                continue  # no guess of a password: all phones fail so if Asterisk cannot read its accounts
            elif attempt.kind is AttemptKind.PROBE and rule.each_of_friend:
                continue  # a wrong number is at no account
            else:
                full = self._exceeds_limit(subject, rule, attempt, now)
            if full and is_proven(attempt.proof) and not self._is_trunk(subject):
                return self._ban(subject, rule, attempt, now)
        return None

    def _ban(self, subject: Subject, rule: Rule, attempt: Attempt, now: float) -> Decision:
        """Return the ban of a friend, which covers the transport of its latest attempt.

        If guesses go on by the other transport, or from another address of its /64, the first one leads to a
        ban.
        """
        self._of(subject).begin_ban(subject.address, scope_of_ban(attempt.transport), now)
        attempts = self._history.attempts(subject.key)
        proven = tuple(one for one in attempts if one.trusted and is_proven(one.proof))
        self._history.consume(subject.key)
        return Decision(subject.network, rule, proven, now, scope_of_ban(attempt.transport), rule.ban_for(0))

    def forget(self, subject: Network) -> None:
        """Forget the failures of the friend at this address or /64, because its ban ended early."""
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
        at = self._happened(attempt, now)
        for limit in rule.for_friends:
            most = limit.needed(MOST_ADDING)
            latest = table.setdefault((rule.name, limit), deque(maxlen=most))
            _add(limit, latest, at, account)
            full = full or len(latest) >= _needed(limit, latest)
        return full

    def _happened(self, attempt: Attempt, now: float) -> float:
        """Return when an attempt happened that is judged at ``now``, at most ``MOST_LATE`` seconds earlier.

        A sender can write the time in a line of the log, so there ``now`` counts. A wrong clock moves all
        attempts alike.
        """
        if attempt.tampered or not {*attempt.sources} <= {AMI, WIRE}:
            return now
        return min(now, max(attempt.time - self.ahead, now - MOST_LATE))

    def _tries_many(self, subject: Subject, rule: Rule, attempt: Attempt, now: float) -> bool:
        """Count a friend's attempt by a rule that counts values of a field, such as accounts.

        Return whether the friend reaches the rule's limit.
        """
        limit, value = rule.for_friends[0], getattr(attempt, rule.of.field)
        tried = self._of(subject).values.setdefault(rule.name, OrderedDict())
        tried[value] = _Tried(now, 1 + tried.get(value, _Tried(now, 0)).times)
        tried.move_to_end(value)
        while len(tried) > _MOST_VALUES or now - next(iter(tried.values())).at >= limit.window:
            tried.popitem(last=False)
        return len(tried) >= limit.number

    def take_back(self, subject: Subject, attempt: Attempt) -> None:
        """Count a guess no more: AMI reports it at another account, or that its account does not exist.

        What the sender guessed at that account before still counts. An attempt that did not count takes
        nothing back: otherwise its sender could cancel one that counts.
        """
        uncounted = self.sees_wire and not is_proven(attempt.proof)
        if uncounted or self._is_forgiven(subject, attempt):
            return
        self._phones.take_back(attempt)
        if not self._friends.is_office(subject.address):  # its guesses count against no account
            for account in self._friends.accounts_at(subject.address):
                self._friends.new.take_back(account, sender_of(subject.address), attempt.account)
        failures = self._of(subject)
        for rule in self._rules:
            if attempt.kind in rule.counts:
                failures.take_back(rule, attempt.account)

    def _of(self, subject: Subject) -> _Failures:
        """Return the recorded failures of a friend, which all addresses of an IPv6 /64 share."""
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
            latest = [one for one in kept if now - one.at < limit.window]
            times = [one.at for one in latest]
            if rule.of.field:
                tried = failures.values.get(rule.name, OrderedDict())
                times = [one.at for one in tried.values() if now - one.at < limit.window]
            ends = min(times) + limit.window if times else None
            number, have = _needed(limit, latest), len(times)
            counts.append(Count(rule, number, have, have, ends, limit.window, limit.each))
        none = Count(rule, 0, 0, 0, None, rule.window)
        return max(counts, key=lambda count: count.have / max(count.number, 1), default=none)

    # -- logins and contacts ----------------------------------------------------------------------------

    def on_success(self, event: SecurityEvent, now: float) -> Sequence[AlarmChange]:
        """Return the alarms that a login raises or clears, such as the alarm about a guessed password."""
        address = event.remote.address
        # Nearly all logins are where the account works. Then the number does not matter, and takes 5 µs.
        works = self._friends.worked_at(event.account, address)
        return [*self._phones.on_success(event, 0 if works else self._failed_guesses(address, now), now)]

    def on_contact(self, contact: Contact, now: float) -> Sequence[AlarmChange]:
        """Return the alarm about a contact if guesses from its address failed before.

        Perhaps one more guess was right, and the events do not show its login.
        """
        if self._friends.worked_at(contact.account, contact.address):
            return ()
        return [*self._phones.on_contact(contact, self._failed_guesses(contact.address, now))]

    def _failed_guesses(self, address: Address, now: float) -> int:
        """Return how many guesses of exactly this address failed within the last hour.

        If copied packets can prove addresses, only proven guesses count.
        """
        facts = self._facts(address, now)
        return sum(fact.kind is AttemptKind.GUESS and (fact.proven or not self.sees_wire) for fact in facts)

    def _facts(self, address: Address, now: float) -> Sequence[Fact]:
        return self._history.facts_of(address, self._subjects.find(address).network, now - HOUR)

    # -- guesses that nothing can prove -----------------------------------------------------------------

    def on_unprovable(self, address: Address, now: float) -> AlarmChange:
        """Return the alarm about guesses from ``address`` whose sender nothing can prove.

        If the address is a friend, :meth:`unshielded` returns it for ``UNSHIELDED_FOR`` seconds, so that the
        kernel copies its packets.
        """
        friend = self._subjects.find(address).friend
        if friend:
            remember(self._unshielded, address, now, MOST)
        return unprovable(address, friend=friend)

    def unshielded(self, now: float) -> Sequence[Address]:
        """Return the friends whose packets the kernel must copy now, because of unprovable guesses.

        Forget those whose guesses were ``UNSHIELDED_FOR`` seconds ago.
        """
        while self._unshielded and now - next(iter(self._unshielded.values())) >= UNSHIELDED_FOR:
            self._unshielded.popitem(last=False)
        return [*self._unshielded]

    def tick(self, now: float) -> Sequence[AlarmChange]:
        """Return the changes of alarms that are due at ``now`` (monotonic seconds).

        These are the alarms about phones, and those about friends whose guesses stayed unproven for
        ``PROVEN_WITHIN`` seconds.
        """
        alarms = [*self._phones.tick(now)]
        due = [address for address, since in self._unproven.items() if now - since >= PROVEN_WITHIN]
        for address in due:
            del self._unproven[address]
            facts = self._facts(address, now)
            if sum(not fact.proven and fact.event in CHECKED for fact in facts) >= UNPROVEN:
                alarms.append(self.on_unprovable(address, now))
        return alarms
