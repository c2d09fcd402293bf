"""The judge: reads the rows of ``rules`` over what a subject did, and says which ban follows.

Full bans go before claimed ones, and rules in the order of their table. What was decided on is spent: it
leads to no second ban. Friends are judged by numbers of their own, and by proven attempts alone; what claims
to be a friend's bans nobody.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address
from typing import TypeVar

from attrs import frozen

from ringfence.detect.claims import Claims
from ringfence.detect.history import MAX_ACCOUNT, Fact, History, Key, fact_of, outline_of, time_of
from ringfence.detect.places import Place, Places, prefix_of
from ringfence.detect.rules import By, Claimed, Of, Rule, is_proven
from ringfence.detect.tallies import Tallies, Tally
from ringfence.model import Attempt, AttemptKind, EventKind, Network, Scope

_K = TypeVar("_K")
_V = TypeVar("_V")
_MOST_FRIENDS = 1_024  # whose failures are counted at once
_MOST_ACCOUNTS = 256
_SECOND = 2
_ATTEMPTS = Of.ATTEMPTS

AccountKey = tuple[str, str]
"""An account of an Asterisk."""


@frozen
class Decision:
    """``subject`` is to be banned by ``rule``, because of ``attempts`` (oldest first).

    ``seconds`` is how long where evidence only claims; None: as the rule says, and longer on return.
    """

    subject: Network
    rule: Rule
    attempts: tuple[Attempt, ...]
    scope: Scope = Scope.FULL
    seconds: float | None = None


@frozen
class Count:
    """How near a rule is: ``have`` of ``number`` attempts within ``window`` seconds, ``proven`` of them so.

    ``ends`` is when the first of them is out of the window (monotonic seconds), None where there is none.
    """

    rule: Rule
    number: int
    have: int
    proven: int
    ends: float | None


class Judge:
    """Knows the rules, and what must be counted beside each subject's own history."""

    def __init__(self, rules: tuple[Rule, ...], claimed: Claimed, history: History, places: Places) -> None:
        self.rules = tuple(rule for rule in rules if rule.enabled)
        self.claims = Claims(claimed)
        self._history = history
        self._places = places
        mine = [rule for rule in self.rules if rule.by is By.SUBJECT]
        self._kinds = frozenset[AttemptKind]().union(*(rule.counts for rule in self.rules))
        self._by_kind = {kind: [rule for rule in mine if kind in rule.counts] for kind in AttemptKind}
        self._least = {
            kind: min((rule.attempts for rule in rules if rule.accounts is None), default=1 << 30)
            for kind, rules in self._by_kind.items()
        }
        self._decoys = frozenset[str]().union(*(rule.accounts or () for rule in mine))
        self._prefix = next((rule for rule in self.rules if rule.by is By.PREFIX), None)
        self._siege = next((rule for rule in self.rules if rule.by is By.ACCOUNT), None)
        self._prefixes: Tallies[Network] = _tallies(self._prefix)
        self._accounts: Tallies[AccountKey] = _tallies(self._siege)
        self.besieged: dict[AccountKey, int] = {}
        """The accounts that many try now, and how many."""
        self.begun: list[AccountKey] = []
        """Those for which it began since somebody last looked."""
        self._friends: OrderedDict[tuple[Key, str], deque[float]] = OrderedDict()
        self._foreign: OrderedDict[Key, OrderedDict[str, float]] = OrderedDict()

    def counts_kind(self, kind: AttemptKind) -> bool:
        """Say whether any rule counts attempts of this kind."""
        return kind in self._kinds

    # -- strangers --------------------------------------------------------------------------------------

    def decide(
        self,
        place: Place,
        kept: Sequence[bytes],
        attempt: Attempt,
        now: float,
        *,
        narrowed: bool = False,
    ) -> Decision | None:
        """Say what follows from all that is ``kept`` of a stranger, now that ``attempt`` has come to it.

        ``narrowed``: he is banned on a mere claim already.
        """
        kind = attempt.kind
        decoy = attempt.account in self._decoys
        siege = self._siege
        besieged = siege is not None and (attempt.asterisk, attempt.account) in self.besieged
        if len(kept) < self._least[kind] and not decoy and not besieged:
            return None
        rules = self._candidates(place, kept, kind, now, decoy=decoy, narrowed=narrowed)
        if besieged and siege is not None:
            number, proven, fresh, _ = outline_of(kept, _bytes_of(attempt))
            claims = fresh >= siege.strangers and not narrowed and self.claims.is_open(place.key, now)
            besieged = number >= siege.strangers and (claims or proven > 0)
        if not rules and not besieged:
            return None
        facts = [fact for fact in map(fact_of, kept) if fact.proven or not place.friend]
        if not facts:
            return None
        narrow: Rule | None = None
        for rule in rules:
            found = self._matching(rule, facts)
            if _is_full(rule, rule.attempts, found):
                return self._full(place, rule, kept)
            if narrow is None and _is_claim(rule, rule.attempts, found):
                narrow = rule
        if besieged and siege is not None:
            found = [fact for fact in self._matching(siege, facts) if fact.account == _bytes_of(attempt)]
            if _is_full(siege, siege.strangers, found):
                return self._full(place, siege, kept)
            narrow = narrow or (siege if _is_claim(siege, siege.strangers, found) else None)
        return self._narrow(place, narrow, kept, now) if narrow is not None and not narrowed else None

    def _candidates(
        self,
        place: Place,
        kept: Sequence[bytes],
        kind: AttemptKind,
        now: float,
        *,
        decoy: bool,
        narrowed: bool,
    ) -> list[Rule]:
        """Give the rules that may be full, as far as a short look tells: nearly always none is."""
        number, proven, fresh, unknown = outline_of(kept)
        if number < self._least[kind] and not decoy:
            return []
        if place.friend:  # of a friend no claim leads to anything
            number, fresh = proven, 0
        latest, most = time_of(kept[-1]), len(kept)
        found = [
            rule
            for rule in self._by_kind[kind]
            if (number >= rule.attempts)
            and (proven or fresh >= rule.attempts)
            and (unknown >= rule.attempts or rule.of is _ATTEMPTS)
            and (decoy or rule.accounts is None)
            and (rule.attempts > most or latest - time_of(kept[-rule.attempts]) < rule.window)
        ]
        if proven or not found:
            return found
        if narrowed:
            return []
        if not self.claims.is_open(place.key, now, fresh / found[0].attempts):
            self.claims.pass_over(place.key, now)
            return []
        return found

    def _matching(self, rule: Rule, facts: Sequence[Fact]) -> list[Fact]:
        """Give what a rule counts of a subject: what counts at all, of its kinds, within its window."""
        latest = facts[-1].at
        found = [
            fact
            for fact in facts
            if latest - fact.at < rule.window and fact.kind in rule.counts and fact.trusted and not fact.spent
        ]
        if rule.accounts is not None:
            wanted = {account.encode() for account in rule.accounts}
            found = [fact for fact in found if fact.account in wanted]
        if rule.of is Of.UNKNOWN_ACCOUNTS:
            # Of each account what is worth most.
            each: dict[bytes, Fact] = {}
            for fact in found:
                if fact.unknown and not (fact.account in each and each[fact.account].proven):
                    each[fact.account] = fact
            return list(each.values())
        return found

    def _full(self, place: Place, rule: Rule, kept: Sequence[bytes]) -> Decision:
        self._history.spend(place.key)
        return Decision(place.subject, rule, self._evidence(place, rule, kept))

    def _narrow(self, place: Place, rule: Rule, kept: Sequence[bytes], now: float) -> Decision | None:
        if not self.claims.is_open(place.key, now, len(kept) / max(rule.attempts, 1)):
            self.claims.pass_over(place.key, now)
            return None
        seconds = self.claims.length(place.key, now)
        self._history.spend(place.key, claimed=True)
        if rule.scope is Scope.SIP_UDP:
            seconds = rule.ban_for(0)
        return Decision(place.subject, rule, self._evidence(place, rule, kept), Scope.SIP_UDP, seconds)

    def _evidence(self, place: Place, rule: Rule, kept: Sequence[bytes]) -> tuple[Attempt, ...]:
        facts = [fact_of(packed) for packed in kept]
        counted = {id(fact) for fact in self._matching(rule, facts)}
        chosen = [
            (packed, fact.proven) for packed, fact in zip(kept, facts, strict=True) if id(fact) in counted
        ]
        number = rule.strangers if rule.by is By.ACCOUNT else rule.attempts
        # What is proven decides on a full ban, so it goes before what only claims.
        spare = len(chosen) - number
        shown = []
        for packed, proven in chosen:
            if not proven and spare > 0:
                spare -= 1
            else:
                shown.append(self._history.attempt_of(packed, place.subject))
        return tuple(shown[-number:])

    # -- what many do together --------------------------------------------------------------------------

    def proven(self, place: Place, asterisk: str, fact: Fact) -> Decision | None:
        """Count a stranger's proven attempt for its prefix and its account; give the prefix's ban."""
        siege, prefix = self._siege, self._prefix
        if siege is not None and fact.kind in siege.counts and not fact.unknown and fact.account:
            account = (asterisk, fact.account.decode("utf-8", "replace"))
            tally = self._accounts.add(account, place.key, fact.at)
            if len(tally.subjects) >= siege.attempts:
                if account not in self.besieged:
                    self.begun.append(account)
                self.besieged[account] = len(tally.subjects)
        if prefix is None or fact.kind not in prefix.counts:
            return None
        network = prefix_of(place.address)
        tally = self._prefixes.add(network, place.key, fact.at)
        if len(tally.times) < prefix.attempts or len(tally.subjects) < prefix.addresses:
            return None
        if not self._places.may_be_banned(network):
            return self._of_neighbour(place, prefix)
        self._prefixes.forget(network)
        return Decision(network, prefix, self._evidence_of_prefix(tally, prefix))

    def _of_neighbour(self, place: Place, rule: Rule) -> Decision | None:
        """Give the ban of one who takes part, where his neighbours are spared: with his second attempt.

        With the first where he may have a new address for each: within the /64 of a friend.
        """
        kept = self._history.of(place.key)
        found = [fact for fact in self._matching(rule, [fact_of(packed) for packed in kept]) if fact.proven]
        enough = 1 if isinstance(place.address, IPv6Address) else _SECOND
        return self._full(place, rule, kept) if len(found) >= enough else None

    def _evidence_of_prefix(self, tally: Tally, rule: Rule) -> tuple[Attempt, ...]:
        found: list[Attempt] = []
        for key in tally.subjects:
            found += self._history.attempts(key)
            self._history.spend(key)
        found.sort(key=lambda attempt: attempt.time)
        return tuple(found[-rule.attempts :])

    def failures_of_prefix(self, place: Place, now: float) -> int:
        """Give how many proven attempts came from strangers in the prefix around an address."""
        tally = self._prefixes.get(prefix_of(place.address), now)
        return len(tally.times) if tally is not None else 0

    def tend(self, now: float) -> list[AccountKey]:
        """Let go of what is over; give the accounts whose siege is."""
        self._prefixes.expire(now)
        self._accounts.expire(now)
        over = []
        for account in list(self.besieged):
            tally = self._accounts.get(account, now)
            if tally is None or self._siege is None or len(tally.subjects) < self._siege.attempts:
                del self.besieged[account]
                over.append(account)
        return over

    # -- friends ----------------------------------------------------------------------------------------

    def decide_friend(self, place: Place, attempt: Attempt, now: float, *, works: bool) -> Decision | None:
        """Say what follows from a friend's attempt; ``works``: on an account that works there.

        What only claims its address counts, where it is asked for, and decides nothing.
        """
        for rule in self._by_kind[attempt.kind]:
            if not rule.friends:
                continue
            if rule.of is Of.UNKNOWN_ACCOUNTS:
                full = not works and self._many_accounts(place, rule, attempt, now)
            elif attempt.event is EventKind.INVALID_ACCOUNT_ID:
                continue  # no password can be found there, and all phones do it where a database is down
            else:
                full = self._often(place, rule, now)
            if full and is_proven(attempt.proof):
                self._forget_friend(place)
                kept = self._history.of(place.key)
                self._history.spend(place.key)
                made = tuple(self._history.attempt_of(packed, place.subject) for packed in kept)
                return Decision(place.subject, rule, made)
        return None

    def _often(self, place: Place, rule: Rule, now: float) -> bool:
        times = _kept_last(self._friends, (place.key, rule.name), deque[float](maxlen=rule.friends))
        times.append(now)
        return len(times) == rule.friends and now - times[0] < rule.window

    def _many_accounts(self, place: Place, rule: Rule, attempt: Attempt, now: float) -> bool:
        tried = _kept_last(self._foreign, place.key, OrderedDict[str, float]())
        tried[attempt.account] = now
        tried.move_to_end(attempt.account)
        while len(tried) > _MOST_ACCOUNTS or now - next(iter(tried.values())) >= rule.window:
            tried.popitem(last=False)
        return len(tried) >= rule.friends

    def _forget_friend(self, place: Place) -> None:
        self._foreign.pop(place.key, None)
        for rule in self.rules:
            self._friends.pop((place.key, rule.name), None)

    # -- what is asked ----------------------------------------------------------------------------------

    def counts(self, place: Place, now: float) -> list[Count]:
        """Give how near each rule is for a subject; of a friend, by the numbers for friends."""
        facts = [fact_of(packed) for packed in self._history.of(place.key)]
        alive = [fact for fact in facts if now - fact.at < self._history.seconds]
        return [self._count(rule, place, alive, now) for rule in self.rules]

    def _count(self, rule: Rule, place: Place, facts: Sequence[Fact], now: float) -> Count:
        if rule.by is By.PREFIX:
            tally = self._prefixes.get(prefix_of(place.address), now)
            times = tally.times if tally is not None else ()
            return Count(rule, rule.attempts, len(times), len(times), _end(times, rule))
        if place.proven and not place.never:
            friend = [*self._friends.get((place.key, rule.name), ())]
            if rule.of is Of.UNKNOWN_ACCOUNTS:
                friend = [*self._foreign.get(place.key, {}).values()]
            lately = [at for at in friend if now - at < rule.window]
            return Count(rule, rule.friends, len(lately), len(lately), _end(lately, rule))
        number = rule.strangers if rule.by is By.ACCOUNT else rule.attempts
        found = [fact for fact in self._matching(rule, facts) if now - fact.at < rule.window] if facts else []
        if rule.by is By.ACCOUNT:
            sieged = {account.encode() for _, account in self.besieged}
            found = [fact for fact in found if fact.account in sieged]
        proven = sum(fact.proven for fact in found)
        return Count(rule, number, len(found), proven, _end([fact.at for fact in found], rule))


def _is_full(rule: Rule, number: int, found: Sequence[Fact]) -> bool:
    if len(found) < number or rule.scope is not Scope.FULL:
        return False
    return sum(fact.proven for fact in found) >= rule.proven_for(number)


def _is_claim(rule: Rule, number: int, found: Sequence[Fact]) -> bool:
    return sum(not fact.claim_spent for fact in found) >= rule.claimed_for(number)


def _bytes_of(attempt: Attempt) -> bytes:
    return attempt.account.encode("utf-8", "replace")[:MAX_ACCOUNT]


def _tallies(rule: Rule | None) -> Tallies[_K]:
    return Tallies(rule.attempts if rule is not None else 1, rule.window if rule is not None else 1.0)


def _kept_last(table: OrderedDict[_K, _V], key: _K, fresh: _V) -> _V:
    """Find what is kept under ``key``, or keep ``fresh``, as what was used last."""
    found = table.get(key)
    if found is None:
        found = table[key] = fresh
        if len(table) > _MOST_FRIENDS:
            table.popitem(last=False)
    else:
        table.move_to_end(key)
    return found


def _end(times: Iterable[float], rule: Rule) -> float | None:
    first = min(times, default=None)
    return first + rule.window if first is not None else None
