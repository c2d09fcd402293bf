"""The judge: applies the rules to the history of a subject, and decides which ban follows.

A *full* ban rests on proven attempts, a *claimed* ban on unproven ones (``rules``). A full ban takes
precedence over a claimed one. Of several full bans, the one with the widest scope follows. Among equal bans,
the first rule in the table decides. A decision consumes all attempts of the subject: they lead to no second
ban. (After a claimed ban by a rule without ``insists``, they can still lead to a full ban.) Friends have
their own limits (``friend_attempts``), and claimed evidence never bans a friend.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from math import inf
from operator import attrgetter
from typing import TypeVar

from ringfence.detect.distributed import networks_to_ban, scope_of_ban
from ringfence.detect.group_counts import MOST_OF_ACCOUNT, MOST_SUBJECTS, GroupCount, GroupCounts
from ringfence.detect.history import (
    Fact,
    History,
    Key,
    Subject,
    Subjects,
    fact_of,
    has_proven,
    keys_in,
    pack_network,
    packed_account,
    summary,
    time_of,
    unpack_network,
)
from ringfence.detect.judgement import OFFICE, Count, Decision, distributed, spoofing
from ringfence.detect.new_friends import AccountKey
from ringfence.detect.rules import DAY, MINUTE, By, Claimed, Rule
from ringfence.detect.sessions import UNKNOWN_ACCOUNT, remember
from ringfence.values.alarm import AlarmChange
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import WIDEST_FIRST, Scope
from ringfence.values.event import EventKind, short_account
from ringfence.values.fast import evolve
from ringfence.values.network import Network, contains, is_one_host, narrowest, prefix_of

# -- limits for bans on unproven evidence: their duration, and the number of new ones a minute.
#
# Anyone who can forge UDP source addresses can choose whom to get banned. So these bans (*claimed* bans)
# are short, and their number a minute is limited. Beyond the limit, only subjects with an earlier claimed ban
# are banned, again at most so many a minute. Subjects with a proven attempt have a limit of their own, of as
# many a minute: forged addresses have none, so they cannot use it up. So have subjects that returned a nonce
# which proves nothing, because it was sent elsewhere too, or may have been when copies of packets were lost:
# a forger must receive one for each. Full bans have no limit.
#
# Bounds: ``MOST_CLAIMS`` subjects with a ban. The oldest are discarded first, and are then treated as new.
# Times are monotonic seconds.


MOST_CLAIMS = 32_768
ALARM_EVERY = 5.0
"""The least time between two alarms that bans on unproven evidence were too many (seconds)."""


class ClaimedLimit:
    """Decides whether a claimed ban (one on unproven evidence) is allowed now, and how long it lasts."""

    def __init__(self, terms: Claimed, most: int = MOST_CLAIMS) -> None:
        self.terms = terms
        self._alarm_at = -inf
        self.refused = False
        """Whether a ban was refused since the last call of :meth:`alarms`."""
        self._most = most
        self._new: deque[float] = deque()
        self._returning: deque[float] = deque()
        self._proven: deque[float] = deque()
        self._unprovable: deque[float] = deque()
        self._before: OrderedDict[Key, tuple[int, float]] = OrderedDict()
        self._returned: OrderedDict[Key, float] = OrderedDict()  # when a subject returned a nonce

    def record_nonce(self, key: Key, now: float) -> None:
        """Record that a sender has returned a challenge's nonce, although nothing proves its address."""
        remember(self._returned, key, now, self._most)

    def allows(self, key: Key, now: float, *, proven: bool = False) -> bool:
        """Whether the sender ``key`` may be banned on unproven evidence now; ``proven``: part is proven."""
        return self._room_for(key, now, proven=proven) is not None

    def _room_for(self, key: Key, now: float, *, proven: bool) -> deque[float] | None:
        """Return the times of the last minute's bans that limit a ban of the sender ``key``.

        Return None if they are too many. ``proven``: a part of the evidence is proven.
        """
        if proven:
            return self._proven if self._has_room(self._proven, now) else None
        if key in self._before and self._has_room(self._returning, now):
            return self._returning
        if self._has_room(self._new, now):
            return self._new
        lately = now - self._returned.get(key, -inf) < self.terms.returns_within
        return self._unprovable if lately and self._has_room(self._unprovable, now) else None

    def alarms(self, now: float) -> Sequence[AlarmChange]:
        """Return the alarm that bans on unproven evidence were refused, () if none since the last call.

        Within ``ALARM_EVERY`` seconds after an alarm, return () too.
        """
        refused, self.refused = self.refused, False
        if not refused or now - self._alarm_at < ALARM_EVERY:
            return ()
        self._alarm_at = now
        return (spoofing(self.terms.per_minute),)

    def begin_ban(self, key: Key, now: float, *, proven: bool = False) -> float | None:
        """Count a new ban of the sender ``key`` on unproven evidence, if there are not too many of them.

        Return its duration in seconds, None if it is refused. ``proven``: a part of the evidence is proven.
        """
        room = self._room_for(key, now, proven=proven)
        if room is None:
            self.refused = True
            return None
        room.append(now)
        number, last = self._before.get(key, (0, now))
        if now - last >= self.terms.returns_within:
            number = 0
        remember(self._before, key, (number + 1, now), self._most)
        return self.terms.ban[min(number, len(self.terms.ban) - 1)]

    def _has_room(self, bans: deque[float], now: float) -> bool:
        """Whether fewer bans than the limit began within the last minute; ``bans`` has their times."""
        while bans and now - bans[0] >= MINUTE:
            bans.popleft()
        return len(bans) < self.terms.per_minute


_K = TypeVar("_K")
# A wrong password for an account that does not exist has the event of its question (``attempt_from``).
_WRONG = (EventKind.CHALLENGE_RESPONSE_FAILED, EventKind.INVALID_PASSWORD)
_UNKNOWN_ACCOUNT = UNKNOWN_ACCOUNT.encode()
_NO_ACCOUNT = {b"", _UNKNOWN_ACCOUNT}
_GUESS = AttemptKind.GUESS
_SECOND = 2
_IPV6 = 6
_LEAST_OF_48 = 5
"""The number of /64s with attempts that bans their /48: customers may share it, with one /64 each."""
_FAILURES_EACH = 2.5
"""The failures that make a distributed attack of too few addresses, for each address the rule needs."""
_SEVERAL = 3  # the least number of subjects of a distributed attack
_CUSTOMER = DAY  # seconds for which it is known which part of a /48 was banned; the ban lasts as long
# PJSIP cuts an account that does not exist (``res/res_pjsip/pjsip_distributor.c:check_endpoint``).
_MOST_OF_UNKNOWN = 36

FIRST_FAILURE = (
    "many addresses try one account: while they do, the first failure of a stranger on it closes SIP for "
    "minutes, to the stranger or to its network"
)
"""The reason, as shown, of a ban by the rule ``distributed`` for a stranger's first failure."""


class Judge:
    """Decides on bans by the rules, and keeps the counts of several senders: by prefix, and by account."""

    def __init__(
        self, rules: tuple[Rule, ...], claims: ClaimedLimit, history: History, subjects: Subjects
    ) -> None:
        self.rules = tuple(rule for rule in rules if rule.enabled)
        self._claims = claims
        self._history = history
        self._subjects = subjects
        mine = [rule for rule in self.rules if rule.by is By.SUBJECT]
        self.kinds = frozenset[AttemptKind]().union(*(rule.counts for rule in self.rules))
        """The kinds of attempts that any rule counts."""
        self._by_kind = {kind: [rule for rule in mine if kind in rule.counts] for kind in AttemptKind}
        self._least = {
            kind: min((rule.attempts for rule in rules if rule.accounts is None), default=1 << 30)
            for kind, rules in self._by_kind.items()
        }
        self.decoys = frozenset[bytes]().union(*(_decoys_of(rule) for rule in mine))
        """The decoys: accounts that no phone uses, as packed bytes."""
        self._prefix = next((rule for rule in self.rules if rule.by is By.PREFIX), None)
        self._distributed = next((rule for rule in self.rules if rule.by is By.ACCOUNT), None)
        self._manager = next((rule for rule in mine if rule.counts == {AttemptKind.MANAGER}), None)
        self._prefixes: GroupCounts[Network] = _group_counts(self._prefix, MOST_SUBJECTS)
        # By /48: the part that was banned last, and when.
        self._customers: OrderedDict[Network, tuple[Network, float]] = OrderedDict()
        self._accounts: GroupCounts[AccountKey] = _group_counts(self._distributed, MOST_OF_ACCOUNT)
        self.attacked: dict[AccountKey, float] = {}
        """The accounts under a distributed attack, each with the (monotonic) time when its bans have ended.

        Until then the attack counts as going on.
        """

    # -- strangers --------------------------------------------------------------------------------------

    def decide(
        self,
        subject: Subject,
        kept: Sequence[bytes],
        attempt: Attempt,
        now: float,
        *,
        narrowed: bool = False,
        claimed: Scope = Scope.SIP_UDP,
    ) -> Decision | None:
        """Return the ban that follows from ``kept``, all packed attempts of a sender, or None.

        ``attempt`` is the latest of them. ``narrowed``: only a full ban may follow, because the sender has a
        ban on unproven evidence already. ``claimed`` is the scope of such a ban.
        """
        kind = attempt.kind
        name = attempt.account.encode("utf-8", "replace")  # as the history keeps it
        decoy = name in self.decoys
        shared = self._distributed
        account = attempt.asterisk, attempt.account
        is_attacked = shared is not None and account in self.attacked
        if len(kept) < self._least[kind] and not decoy and not is_attacked:
            return None
        kept = self._of_strangers(subject.network, kept) if self._subjects.friends.worked else kept
        rules = self._candidates(subject, kept, kind, now, decoy=decoy, narrowed=narrowed)
        limits = [(rule, rule.attempts) for rule in rules]
        if is_attacked and shared is not None:
            number, certain, fresh, _ = summary(kept, name)
            claims = fresh >= shared.strangers and not narrowed
            claims = claims and self._claims.allows(subject.key, now, proven=has_proven(kept))
            if number >= shared.strangers and (claims or certain > 0):
                limits.append((shared, shared.strangers))
        full: list[tuple[Rule, list[Fact]]] = []
        narrow: tuple[Rule, list[Fact]] | None = None
        facts = [*map(fact_of, kept)] if limits else []
        for rule, number in limits:
            found = self._matching(rule, facts)
            counted = [one for one in found if rule is not shared or one.account == name]
            if _is_full(rule, number, counted):
                full.append((rule, found))
            elif narrow is None and _is_claim(rule, number, counted):
                narrow = rule, found
        if full:
            widest = min(full, key=lambda each: WIDEST_FIRST.index(self._scope_of(*each)))
            return self._full(subject, *widest, now)
        if narrow is None or narrowed:
            return None
        if attempt.proof is Proof.HANDSHAKE and not all(fact.credentials for fact in narrow[1]):
            claimed = Scope.SIP_TCP  # the rule is full but for the credentials
        proven = any(fact.proven for fact in facts)
        return self._narrow(subject, *narrow, now, claimed, proven=proven)

    def facts_of_strangers(self, network: Network) -> list[Fact]:
        """Return the attempts of a sender, without failures at accounts that work near it."""
        return [*map(fact_of, self._of_strangers(network, self._history.packed(pack_network(network))))]

    def _of_strangers(self, network: Network, kept: Sequence[bytes]) -> Sequence[bytes]:
        """Return those of a sender's packed attempts that were on accounts which do not work near it.

        Failures at accounts that work there have the limits for friends. So they must not add to those of a
        stranger, such as another phone of the /64.
        """
        friends = self._subjects.friends
        if not kept or not friends.any_known_in(network):
            return kept
        facts = ((one, fact_of(one)) for one in kept)
        return [
            one
            for one, fact in facts
            if fact.event is EventKind.HIDDEN
            or not friends.worked_near(fact.account.decode("utf-8", "replace"), network.network_address)
        ]

    def _candidates(
        self,
        subject: Subject,
        kept: Sequence[bytes],
        kind: AttemptKind,
        now: float,
        *,
        decoy: bool,
        narrowed: bool,
    ) -> list[Rule]:
        """Return the rules whose limit may be reached, by a quick check. The list is nearly always empty.

        ``kept`` are the sender's packed attempts, the last one of the kind ``kind``. ``decoy``: the latest
        attempt is on a decoy account. ``narrowed``: only a full ban may follow. If only a ban on unproven
        evidence could follow, and the limit of such bans refuses it, that is recorded.
        """
        number, proven, fresh, unknown = summary(kept)
        if number < self._least[kind] and not decoy:
            return []
        latest, most = time_of(kept[-1]), len(kept)
        found = [
            rule
            for rule in self._by_kind[kind]
            if (number >= rule.attempts)
            and (proven or rule.insists or fresh >= rule.attempts)
            and (unknown >= rule.attempts or not rule.of.unknown)
            and (decoy or rule.accounts is None)
            and (rule.attempts > most or latest - time_of(kept[-rule.attempts]) < rule.window)
        ]
        if proven or not found:
            return found
        if narrowed:
            return []
        if not self._claims.allows(subject.key, now, proven=has_proven(kept)):
            self._claims.refused = True
            return []
        return found

    def record_nonce(self, subject: Subject, now: float) -> None:
        """Record that a sender has returned a challenge's nonce that does not prove its address."""
        self._claims.record_nonce(subject.key, now)

    def _matching(self, rule: Rule, facts: Sequence[Fact]) -> list[Fact]:
        """Return those of a sender's attempts that a rule counts: of its kinds, within its window.

        Only attempts with a confirmed address count that have led to no full ban. If the rule names accounts,
        return only attempts on these. If it counts values of a field, return one attempt for each.
        """
        latest = facts[-1].at
        found = [
            fact
            for fact in facts
            if latest - fact.at < rule.window
            and fact.kind in rule.counts
            and fact.trusted
            and not fact.consumed
        ]
        if rule.accounts is not None:
            wanted = _decoys_of(rule)
            found = [fact for fact in found if fact.account in wanted]
        if rule.of.unknown:
            found = [fact for fact in found if fact.unknown and fact.account != _UNKNOWN_ACCOUNT]
        if rule.of.field:
            # For each value, a proven attempt counts rather than a claimed one.
            each: dict[object, Fact] = {}
            for fact in found:
                value = getattr(fact, rule.of.field)
                if value and (value not in each or not each[value].proven):
                    each[value] = fact
            return sorted(each.values(), key=attrgetter("at"))
        return found

    def _full(self, subject: Subject, rule: Rule, found: Sequence[Fact], at: float) -> Decision:
        scope, evidence = self._scope_of(rule, found), self._evidence(subject, rule, found)
        accounts = existing_accounts(found)
        if scope is Scope.FULL and accounts >= OFFICE and all(one.kind is _GUESS for one in found):
            scope = Scope.SIP  # perhaps an office whose phones have old passwords
        self._history.consume(subject.key)
        return Decision(subject.network, rule, evidence, at, scope, accounts=accounts)

    def _scope_of(self, rule: Rule, found: Sequence[Fact]) -> Scope:
        """Return the scope (such as all SIP ports) of a ban by ``rule`` for the proven attempts ``found``.

        If a web page made a browser send some of them, and the other attempts are too few for a full ban, the
        user of the browser is no attacker: a page may guess beside somebody's own mistake.
        """
        own = [one for one in found if not one.page]
        if len(own) < len(found) and not _is_full(rule, _number_of(rule), own):
            return Scope.SIP_TCP
        return self._scope_by_kinds(rule, found)

    def _scope_by_kinds(self, rule: Rule, found: Sequence[Fact] | Sequence[Attempt]) -> Scope:
        """Return the scope of a ban by ``rule`` for the attempts ``found``.

        It is the rule's own scope. Only if that is SIP, and one of the attempts was a login at AMI, it is the
        scope of the rule for such logins (named ``manager``), if this is wider.
        """
        if self._manager is None or rule.scope is not Scope.SIP:
            return rule.scope
        tried = any(one.kind is AttemptKind.MANAGER for one in found)
        return min(rule.scope, self._manager.scope, key=WIDEST_FIRST.index) if tried else rule.scope

    def _narrow(
        self,
        subject: Subject,
        rule: Rule,
        found: Sequence[Fact],
        now: float,
        scope: Scope,
        *,
        proven: bool,
    ) -> Decision | None:
        """Return a claimed ban: one on unproven evidence, by ``rule``, for the attempts ``found``.

        Return None if there are too many claimed bans now. ``scope`` is the scope of the ban. ``proven``: a
        part of the evidence is proven.
        """
        seconds = self._claims.begin_ban(subject.key, now, proven=proven)
        if seconds is None:
            return None
        evidence = self._evidence(subject, rule, found)
        # What the rule does not count, such as guesses by UDP beside calls by TCP, still counts for others.
        self._history.consume(subject.key, claimed=not rule.insists, only=None if rule.insists else found)
        guesses = sum(fact.credentials for fact in found)
        if rule.scope is Scope.SIP_UDP or (rule.insists and guesses >= claimed_for(rule.attempts)):
            seconds = rule.ban_for(0)
        return Decision(subject.network, rule, evidence, now, scope, seconds)

    def _evidence(self, subject: Subject, rule: Rule, found: Sequence[Fact]) -> tuple[Attempt, ...]:
        """Return the evidence of a ban of ``subject``: as many attempts of ``found`` as ``rule`` needs.

        If there are more, unproven ones are left out first, then the oldest.
        """
        number = _number_of(rule)
        # Proven attempts decide on a full ban, so claims are the first to be left out of the evidence.
        spare = len(found) - number
        shown = []
        for fact in found:
            if not fact.proven and spare > 0:
                spare -= 1
            else:
                shown.append(fact)
        return tuple(self._history.attempt_of(fact.packed, subject.network) for fact in shown[-number:])

    # -- groups of subjects -----------------------------------------------------------------------------

    def count_proven(
        self, subject: Subject, asterisk: str, fact: Fact
    ) -> tuple[Decision | None, Sequence[AlarmChange]]:
        """Count a stranger's proven attempt for its prefix and its account.

        Return the ban that follows, if any, and the alarm if a distributed attack begins. The ban is that of
        the prefix (a /24 or /48), or of the sender alone if the prefix must not be banned. A request without
        credentials counts for neither: the hosts of a carrier are in one prefix. What a web page made
        browsers send does not count for the prefix: its readers are no attackers.
        """
        if not fact.credentials:
            return None, ()
        alarms = self.count_for_account(subject, asterisk, fact)
        return None if fact.page else self._count_for_prefix(subject, fact), alarms

    def count_friend(self, subject: Subject, fact: Fact) -> None:
        """Count a friend's proven guess at another account for its prefix.

        The strangers of the prefix may be banned earlier, and never the friend itself. The guess does not
        count for its account: the phones of eight homes whose settings have the same wrong account are no
        distributed attack. An attacker with one password gains little by that. Its friends are few
        (``new_friends``), this rule never bans a friend, and eight strangers still begin the attack.
        """
        if self._prefix is not None and fact.kind in self._prefix.counts:
            self._prefixes.add(prefix_of(subject.address), subject.key, fact.at)

    def count_for_account(self, subject: Subject, asterisk: str, fact: Fact) -> Sequence[AlarmChange]:
        """Count a proven attempt for its account; return the alarm if a distributed attack begins."""
        rule = self._distributed
        real = fact.account not in _NO_ACCOUNT and not fact.unknown
        if rule is None or fact.kind not in rule.counts or not real:
            return ()
        account = (asterisk, fact.account.decode("utf-8", "replace"))
        count = self._accounts.add(account, subject.key, fact.at)
        if account in self.attacked or not self._is_attack(rule, account, count):
            return ()
        self.attacked[account] = fact.at + self._claims.terms.ban[0]
        return (distributed(*account),)

    def take_back(self, subject: Subject, asterisk: str, fact: Fact) -> None:
        """Count an attempt no more for its account: AMI reports another account, or that there is none.

        An unproven attempt, and one of a friend, did not count. The sender's history has it as AMI reports
        it. If that has other proven attempts at the account, also some that have led to a ban, they count on.
        """
        facts = map(fact_of, self._history.packed(subject.key))
        others = any(one.account == fact.account and one.proven and not one.unknown for one in facts)
        if fact.proven and not others:
            self._accounts.take_back((asterisk, fact.account.decode("utf-8", "replace")), subject.key)

    def _is_attack(self, rule: Rule, account: AccountKey, count: GroupCount) -> bool:
        """Whether ``count`` is a distributed attack on ``account``: enough senders, or enough failures."""
        subjects = len(count.subjects)
        if subjects >= rule.attempts or subjects < _SEVERAL:
            return subjects >= rule.attempts
        name = packed_account(account[1])
        failures = sum(summary(self._history.packed(key), name)[1] for key in count.subjects)
        return failures >= _FAILURES_EACH * rule.attempts

    def bans_of_attacker(
        self,
        subject: Subject,
        attempt: Attempt,
        now: float,
        banned: Collection[Scope],
        decision: Decision | None,
    ) -> tuple[Decision | None, Sequence[Decision]]:
        """Return the ban that follows from a stranger's failure on an account under a distributed attack.

        The attempt is proven and counted (:meth:`count_proven`). ``banned`` are the scopes in which the
        sender is banned already. ``decision`` is what the other rules have decided. It is returned unless a
        wider network is banned (:mod:`~ringfence.detect.distributed`). The bans of the other parts of this
        network come second, and so does ``decision`` if it has another scope. A ban of the attack counts for
        the limit of bans a minute, and prolongs the attack.
        """
        rule, account = self._distributed, (attempt.asterisk, attempt.account)
        scope = scope_of_ban(attempt.transport)
        count = self._accounts.get(account, now) if account in self.attacked else None
        guessed = rule is not None and attempt.kind in rule.counts and attempt.credentials
        if rule is None or count is None or scope in banned or not guessed:
            return decision, ()
        networks = networks_to_ban(subject, count.subjects, self._subjects)
        if decision is not None and contains(decision.subject, networks[0]):
            return decision, ()
        seconds = self._claims.begin_ban(pack_network(networks[0]), now, proven=True)
        if seconds is None:
            return decision, ()
        self.attacked[account] = max(self.attacked[account], now + seconds)
        rule = evolve(rule, meaning=FIRST_FAILURE)
        evidence = self._evidence_of_attack(networks[0], count, attempt)
        first, *others = (Decision(one, rule, evidence, now, scope, seconds) for one in networks)
        beside = [] if decision is None or decision.scope is scope else [decision]
        return first, [*others, *beside]

    def _evidence_of_attack(
        self, network: Network, count: GroupCount, attempt: Attempt
    ) -> tuple[Attempt, ...]:
        """Return the latest failure of each sender in ``network`` on the attacked account.

        Also mark the attempts of these senders: they lead to no other ban on unproven evidence.
        """
        found = []
        for key in keys_in(network, count.subjects):
            failures = [one for one in self._history.attempts(key) if one.account == attempt.account]
            found += failures[-1:]
            self._history.consume(key, claimed=True)
        found.sort(key=attrgetter("time"))
        return tuple(found)

    def _count_for_prefix(self, subject: Subject, fact: Fact) -> Decision | None:
        prefix = self._prefix
        if prefix is None or fact.kind not in prefix.counts:
            return None
        network = prefix_of(subject.address)
        count = self._prefixes.add(network, subject.key, fact.at)
        if len(count.times) < prefix.attempts or len(count.subjects) < prefix.addresses:
            return None
        banned = narrowest(network, [unpack_network(key) for key in count.subjects])
        few = network.version == _IPV6 and banned == network and len(count.subjects) < _LEAST_OF_48
        before = self._customers.pop(network, None)
        if before is not None and before[0] != banned and fact.at - before[1] < _CUSTOMER:
            banned = network  # its attempts come from another part than before, so the sender has all of it
            few = False
        if few or not self._subjects.may_be_banned(banned):
            return self._ban_of_member(subject, prefix, fact.at)
        self._prefixes.forget(network)
        remember(self._customers, network, (banned, fact.at), MOST_CLAIMS)
        while fact.at - next(iter(self._customers.values()))[1] >= _CUSTOMER:
            self._customers.popitem(last=False)
        evidence = self._evidence_of_prefix(count, prefix)
        return Decision(banned, prefix, evidence, fact.at, self._scope_by_kinds(prefix, evidence))

    def _ban_of_member(self, subject: Subject, rule: Rule, at: float) -> Decision | None:
        """Return a ban of one sender from ``at`` (monotonic) on, because its prefix has reached the limit.

        The prefix must not be banned: a friend, a former friend or an exempt network is in it, or too few
        senders take part. A sender that is one host (IPv4, NAT64) is banned at its second proven attempt. The
        /64 of an IPv6 host is banned at the first, because an attacker may use a new address for each
        attempt. Return None if there are too few attempts.
        """
        found = self._matching(rule, self.facts_of_strangers(subject.network))
        enough = _SECOND if is_one_host(subject.address) else 1
        return (
            self._full(subject, rule, found, at)
            if sum(fact.proven and fact.credentials for fact in found) >= enough
            else None
        )

    def _evidence_of_prefix(self, count: GroupCount, rule: Rule) -> tuple[Attempt, ...]:
        found: list[Attempt] = []
        for key in count.subjects:
            found += self._history.attempts(key)
            self._history.consume(key)
        found.sort(key=attrgetter("time"))
        return tuple(found[-rule.attempts :])

    def tick(self, now: float) -> list[AccountKey]:
        """Discard expired counts; return the accounts whose distributed attack is over."""
        self._prefixes.expire(now)
        self._accounts.expire(now)
        over = []
        for account in list(self.attacked):
            rule, count = self._distributed, self._accounts.get(account, now)
            goes_on = rule is not None and count is not None and self._is_attack(rule, account, count)
            if now >= self.attacked[account] and not goes_on:
                del self.attacked[account]
                over.append(account)
        return over

    # -- queries ----------------------------------------------------------------------------------------

    def counts(self, subject: Subject, now: float) -> list[Count]:
        """Return for each rule how many attempts of a sender it counts now, and how many it needs."""
        facts = self.facts_of_strangers(subject.network)
        alive = [fact for fact in facts if now - fact.at < self._history.seconds]
        return [self._count(rule, subject, alive, now) for rule in self.rules]

    def _count(self, rule: Rule, subject: Subject, facts: Sequence[Fact], now: float) -> Count:
        if rule.by is By.PREFIX:
            count = self._prefixes.get(prefix_of(subject.address), now)
            times = count.times if count is not None else ()
            return Count(rule, rule.attempts, len(times), len(times), _end(times, rule), rule.window)
        number = _number_of(rule)
        found = [fact for fact in self._matching(rule, facts) if now - fact.at < rule.window] if facts else []
        if rule.by is By.ACCOUNT:
            attacked = {packed_account(account) for _, account in self.attacked}
            found = [fact for fact in found if fact.account in attacked]
        proven = sum(fact.proven and fact.credentials for fact in found)
        ends = _end([fact.at for fact in found], rule)
        return Count(rule, number, len(found), proven, ends, rule.window)


def existing_accounts(found: Iterable[Fact]) -> int:
    """Return the number of existing accounts for which proven attempts in ``found`` had wrong passwords."""
    return len({one.account for one in found if one.proven and one.event in _WRONG} - _NO_ACCOUNT)


def _number_of(rule: Rule) -> int:
    """Return how many attempts of one sender ``rule`` needs for a ban."""
    return rule.strangers if rule.by is By.ACCOUNT else rule.attempts


def proven_for(number: int) -> int:
    """Return how many attempts must have a proven address for a full ban, if a rule needs ``number``."""
    return max(1, number - 1)


def claimed_for(number: int) -> int:
    """Return how many attempts lead to a ban on unproven evidence, if a rule needs ``number``."""
    return max(2, number)


def _is_full(rule: Rule, number: int, found: Sequence[Fact]) -> bool:
    if len(found) < number or rule.scope is Scope.SIP_UDP:
        return False
    return sum(fact.proven and fact.credentials for fact in found) >= proven_for(number)


def _is_claim(rule: Rule, number: int, found: Sequence[Fact]) -> bool:
    needed = number if any(fact.proven for fact in found) else claimed_for(number)
    return sum(rule.insists or not fact.claim_consumed for fact in found) >= needed


def _decoys_of(rule: Rule) -> frozenset[bytes]:
    """Return the accounts that ``rule`` names, as bytes in the form of packed attempts."""
    names = [short_account(name) for name in rule.accounts or ()]
    cut = {packed_account(name)[:_MOST_OF_UNKNOWN] for name in names}
    return frozenset(map(packed_account, names)) | cut


def _group_counts(rule: Rule | None, subjects: int) -> GroupCounts[_K]:
    attempts, seconds = (rule.attempts, rule.window) if rule is not None else (1, 1.0)
    return GroupCounts(attempts, seconds, subjects=subjects)


def _end(times: Iterable[float], rule: Rule) -> float | None:
    first = min(times, default=None)
    return first + rule.window if first is not None else None
