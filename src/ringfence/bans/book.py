"""The book of bans: decisions, the kernel's answers and the time in, commands and facts out.

It knows no kernel, store, clock or log. A change of bans is a generator, its *steps*. Steps yield batches of
changes for the kernel, and each receives the kernel's answers. In between they yield the facts that follow
(``ban_facts``). ``Enforcer.apply`` carries steps out. Times are in seconds since the epoch.
"""

from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from math import ceil, isfinite
from typing import TypeVar

from attrs import Factory, define, frozen

from ringfence.ban_facts import Adopted, Fact, Forgotten, News, NotRemoved, Over, Placed, Refused, Restored
from ringfence.bans.exempt import Exempt, too_wide
from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall.contract import MAX_TIMEOUT, Add, Change, Outcome, Remove
from ringfence.ledger import (
    Ledger,
    Record,
    ban_of,
    clock_step,
    key_of,
    network_of,
    parts_of,
    renew_at,
    scope_of,
)
from ringfence.values.ban import CLAIMED_SCOPES, Ban, BanEnd, Origin, Scope
from ringfence.values.network import NetworkSet, format_network

CHUNK = 2_000
"""The maximum number of bans that one call adds to the kernel or removes, in some ten milliseconds."""

ADOPTED_FOR = 86_400.0
"""Seconds after which an adopted ban ends if the kernel has no end for it: each ban must end.

An adopted ban was found in the kernel, and the database does not have it.
"""

AT_ONCE = 256
"""The number of bans that one search for the bans that end first returns. A search reads all bans."""

_NARROWER = {
    Scope.FULL: (Scope.SIP, *CLAIMED_SCOPES),
    Scope.SIP: CLAIMED_SCOPES,
}
"""The narrower scopes of each scope: a ban of the scope drops all that bans of these drop."""


T = TypeVar("T")


def in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield ``items`` in parts of ``CHUNK``, so that a new ban can go between two of them."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


@define
class BanCounts:
    """Numbers of bans since the daemon's start.

    ``placed_by`` counts the placed bans, by the name of their rule (or their origin) and their scope.
    ``failed`` counts the bans that the kernel refused, and ``unbanned`` the bans that were removed before
    their end. ``displaced`` is the part of ``unbanned`` that was removed because a set of the kernel was
    full.
    """

    placed_by: Counter[tuple[str, Scope]] = Factory(Counter)
    failed: int = 0
    unbanned: int = 0
    displaced: int = 0

    @property
    def placed(self) -> int:
        """The number of bans that the kernel has accepted since the start."""
        return self.placed_by.total()


@frozen
class Batch:
    """Bans to add to the kernel or to remove from it, in one exchange.

    ``how`` is how the removed bans end; None if that is recorded already, or if none is removed. The store
    records the end before the kernel is asked. If the caller has recorded the end there, ``recorded`` is the
    recorded time, otherwise 0.
    """

    changes: Sequence[Change]
    how: BanEnd | None = None
    recorded: float = 0.0


Steps = Generator[Batch | Fact, Sequence[Outcome], T]


def _adopted(key: int, now: float, left: float) -> Ban:
    network, scope = network_of(key)
    rule, reason, origin = str(Origin.ADOPTED), "found in the kernel", Origin.ADOPTED
    return Ban(network, since=now, expires=now + left, rule=rule, reason=reason, origin=origin, scope=scope)


def failure_lines(outcomes: Iterable[Outcome]) -> list[str]:
    """Return a line (network and error) for each ban or unban that the kernel refused."""
    return [f"{format_network(one.change.network)}: {one.error}" for one in outcomes if one.error is not None]


@define
class GivingWay:
    """Finds the bans of a full set that end first, so that they can make room for a longer ban."""

    # The ends and keys of the bans found, by IP version, prefix length and scope. The earliest end is last.
    _waiting: dict[tuple[int, int, Scope], list[tuple[float, int]]] = Factory(dict)

    def next(self, ledger: Ledger, ban: Ban, now: float) -> int | None:
        """Return the key of the ban to remove to make room for ``ban``; None if no ban ends earlier.

        A ban that is over at ``now`` (epoch seconds) makes no room: the kernel has ended it.
        """
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._waiting.setdefault(like, [])
        while waiting and (waiting[-1][0] <= now or not _still_ends(ledger, *waiting[-1])):
            waiting.pop()
        if not waiting:
            waiting += ledger.soonest(ban.network, ban.scope, AT_ONCE, now)[::-1]
        # If the bans found end too late for ``ban``, they are kept for a later call with a longer ban.
        if not waiting or waiting[-1][0] >= ban.expires:
            return None
        return waiting.pop()[1]


def _still_ends(ledger: Ledger, expires: float, key: int) -> bool:
    """Whether the ban ``key`` still ends at ``expires``, so was neither removed nor replaced meanwhile."""
    record = ledger.get(key)
    return record is not None and record.expires == expires


class Book:
    """Decides on bans: which ones the kernel should have, and what follows from its answers.

    A ban is recorded in the ``ledger`` only after the kernel has confirmed it. A ban that the kernel
    refuses is kept as *pending*: :meth:`retry` tries it again until it succeeds or its time is over. If a set
    is full, the bans with the least time left are removed early. If a ban is longer than the longest timeout
    in the kernel, its timeout is renewed while it lasts.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.counts = BanCounts()
        self.error = ""
        """The latest error of the kernel; "" if it has accepted all bans."""
        self.exempt = Exempt()
        self._comparison = 0
        self._recently_unbanned: set[int] = set()
        self._failed_unbans: dict[int, BanEnd] = {}
        self._giving_way = GivingWay()

    def ask(self, batch: Batch) -> Steps[Sequence[Outcome]]:
        """Pass a batch to the kernel, and return the kernel's answers. Neither bans nor ends are recorded."""
        if not batch.changes:
            return []
        outcomes = yield batch
        self._note_error(outcomes)
        return outcomes

    def _note_error(self, outcomes: Sequence[Outcome]) -> None:
        errors = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
        if errors:
            self.error = errors[0]
        elif self.error and self.ledger.pending.keys() <= {_key(one.change) for one in outcomes}:
            self.error = ""

    # -- place bans

    def add_decided(self, ban: Ban, early: Outcome | None, now: float) -> Steps[None]:
        """Place a ban that a rule has decided; bans of the same network with a narrower scope end.

        ``early`` is the kernel's answer to the ban, if it was asked before; None if it is to be asked at
        ``now`` (epoch seconds).
        """
        answers = [early] if early is not None else (yield from self.ask(_adding([ban], now)))
        self._note_error(answers)
        yield from self._record([ban], answers, News.NEW, now)
        yield from self._supersede(ban)

    def ban(self, bans: Iterable[Ban], now: float) -> Steps[list[str]]:
        """Place bans by an administrator at ``now`` (epoch); return a line for each that was not placed.

        A line has the network and the reason: it is exempt, too wide, or refused by the kernel.
        """
        refused, wanted = [], []
        for ban in bans:
            why = self.exempt.refusal(ban.network, force=ban.forced)
            why = why or (None if ban.forced else too_wide(ban.network))
            if why is None:
                wanted.append(ban)
            else:
                refused.append(f"{format_network(ban.network)}: {why}")
        outcomes = yield from self.add(wanted, News.NEW, now)
        return refused + failure_lines(outcomes)

    def add(self, bans: Sequence[Ban], news: News, now: float) -> Steps[list[Outcome]]:
        """Add bans to the kernel for the time that they have left at ``now`` (epoch seconds).

        Record and return the kernel's last answer to each. ``news``: how new the bans are.
        """
        answers = yield from self.ask(_adding(bans, now))
        return (yield from self._record(bans, answers, news, now))

    def _record(
        self, bans: Sequence[Ban], answers: Sequence[Outcome], news: News, now: float
    ) -> Steps[list[Outcome]]:
        """Record the kernel's answers to bans, and return its last answer to each ban.

        If a set was full, a ban that ends earlier is removed, and the new ban is added again. ``now`` is in
        seconds since the epoch.
        """
        if news is not News.KNOWN:  # a removal that the kernel refused was of an earlier ban
            for ban in bans:
                self._failed_unbans.pop(_key(ban), None)
        final, pairs = [*answers], [*zip(bans, answers, strict=True)]
        full = [number for number, one in enumerate(answers) if isinstance(one.error, SetFullError)]
        others = [pair for pair in pairs if not isinstance(pair[1].error, SetFullError)]
        yield from self._settle(others, news, now)
        for number in full:
            final[number] = yield from self._make_room(*pairs[number], now)
            yield from self._settle([(bans[number], final[number])], news, now)
        return final

    def _settle(self, answered: Iterable[tuple[Ban, Outcome]], news: News, now: float) -> Steps[None]:
        """Record the bans that the kernel has accepted, and keep the refused ones to try them again.

        ``answered`` has each ban with the kernel's answer to it, at ``now`` (epoch seconds).
        """
        taken = []
        for ban, answer in answered:
            if answer.error is not None:
                yield from self._refuse(ban, answer.error, news)
            else:
                self._confirm(ban, now, answer.timeout)
                taken.append(ban)
        if taken and news is News.KNOWN:
            yield Restored(taken)
        elif taken:
            self.counts.placed_by.update((ban.rule, ban.scope) for ban in taken)
            yield Placed(taken, news is News.NEW)

    def _confirm(self, ban: Ban, now: float, granted: float) -> None:
        """Record in the ledger that the kernel has a ban, from ``now`` (epoch) for ``granted`` seconds."""
        again = renew_at(ban.expires, now, granted)
        self.ledger.put(_key(ban), Record.of(ban, again, self._comparison))

    def _make_room(self, ban: Ban, refused: Outcome, now: float) -> Steps[Outcome]:
        """Remove a ban that ends before ``ban`` from the full set, and add ``ban`` again.

        Return the kernel's answer. ``refused`` is its first answer, and is returned if no ban was removed.
        """
        key = self._giving_way.next(self.ledger, ban, now)
        if key is None or (yield from self.unban([key], how=BanEnd.DISPLACED)):
            return refused
        self.counts.displaced += 1
        [answer] = yield from self.ask(_adding([ban], now))
        return answer

    def _refuse(self, ban: Ban, error: FirewallError, news: News) -> Steps[None]:
        """Keep a refused ban as pending, unless too many are.

        If too many are, a new ban is forgotten: new attempts lead to another one. A known ban stays in the
        ledger: the next comparison misses it in the kernel, and tries it again. A known ban that a full set
        refuses is forgotten too: it would be the first that is removed to make room, and the kernel lacks it.
        """
        key, full = _key(ban), isinstance(error, SetFullError)
        if news is News.KNOWN and not full and not self.ledger.may_wait(key):
            self.ledger.put(key, Record.of(ban))
            return
        earlier = self.ledger.pending.get(key)
        if earlier is None:
            self.counts.failed += 1
            yield Refused(ban, news, error)
        elif earlier.news is News.KNOWN and news is not News.KNOWN:
            yield Over(ban.network, ban.scope, BanEnd.REPLACED)
        if not self.ledger.refuse(ban, news):
            yield Forgotten(ban.network, ban.scope)

    def _supersede(self, ban: Ban) -> Steps[None]:
        """Remove the bans of the same network that have a narrower scope than ``ban``, a new ban.

        Then listings show the network once. A ban of scope ``SIP`` stays if it lasts longer than ``ban``.
        Bans of ``SIP_UDP`` and ``SIP_TCP``, whose evidence may be forged, are removed in any case.
        """
        scopes = _NARROWER.get(ban.scope, ()) if _key(ban) in self.ledger else ()
        keys = [key_of(ban.network, scope) for scope in scopes]
        records = [(key, record) for key in keys if (record := self.ledger.get(key)) is not None]
        over = [key for key, one in records if scope_of(key) is not Scope.SIP or one.expires <= ban.expires]
        yield from self.unban(over, how=BanEnd.REPLACED)

    # -- bans of the kernel

    def keep(self, found: Sequence[tuple[Ban, float]], now: float) -> Steps[None]:
        """Record bans of the database that the kernel still has.

        ``found`` has each with the seconds that it has left in the kernel from ``now`` (epoch) on.
        """
        for ban, left in found:
            self._confirm(ban, now, left)
        if found:
            yield Restored([ban for ban, _ in found])

    def adopt(self, found: Mapping[int, float], now: float) -> Steps[None]:
        """Record bans that the kernel has, but the ledger lacks. Bans of exempt networks are removed instead.

        ``found`` has the bans' keys, and the seconds that each has left from ``now`` (epoch) on; infinity if
        a ban has no end. A ban without an end gets one, in ``ADOPTED_FOR`` seconds.
        """
        bans = [_adopted(key, now, left if isfinite(left) else ADOPTED_FOR) for key, left in found.items()]
        endless = [ban for ban in bans if not isfinite(found[_key(ban)])]
        for part in in_parts(endless):
            yield from self.ask(_adding(part, now))
        for ban in bans:
            self._confirm(ban, now, ban.expires - now)
        if bans:
            yield Adopted(bans)
        exempt = [_key(ban) for ban in bans if self.exempt.refusal(ban.network) is not None]
        yield from self.unban_with_retry(exempt)

    def renew(self, keys: Iterable[int], now: float) -> Steps[None]:
        """Set the kernel's timeouts of the bans ``keys`` to the time that they have left."""
        bans = [ban_of(key, record) for key in keys if (record := self.ledger.get(key)) is not None]
        self._renewed(bans, (yield from self.ask(_adding(bans, now))), now)

    def restore(self, keys: Iterable[int], now: float) -> Steps[int]:
        """Add bans again that the kernel has lost. Return how many it accepted; the others are tried again.

        Those that cannot be pending, because too many are, mostly stay in the ledger for the next comparison.
        """
        records = [(key, record) for key in keys if (record := self.ledger.get(key)) is not None]
        bans = [ban_of(key, record) for key, record in records if record.expires > now]
        answers = yield from self.ask(_adding(bans, now))
        self._renewed(bans, answers, now)
        accepted = [ban for ban, one in zip(bans, answers, strict=True) if one.error is None]
        if accepted:
            yield Restored(accepted)
        refused = [(ban, one.error) for ban, one in zip(bans, answers, strict=True) if one.error is not None]
        for ban, error in refused:
            self.ledger.pop(_key(ban))
            if _key(ban) in self.ledger.pending:  # a newer ban of the network waits already
                yield Over(ban.network, ban.scope, BanEnd.REPLACED)
            else:
                yield from self._refuse(ban, error, News.KNOWN)
        return len(accepted)

    def _renewed(self, bans: Iterable[Ban], answers: Iterable[Outcome], now: float) -> None:
        """Record the timeouts that the kernel has granted to bans of the ledger."""
        for ban, outcome in zip(bans, answers, strict=True):
            record = self.ledger.get(_key(ban))
            if record is not None and outcome.error is None:
                record.renew_at = renew_at(ban.expires, now, outcome.timeout)

    def begin_comparison(self) -> int:
        """Start a comparison of the kernel with the ledger; return its number, for :attr:`Record.seen`."""
        self._comparison += 1
        self._recently_unbanned.clear()
        return self._comparison

    def was_unbanned(self, key: int) -> bool:
        """Whether the ban ``key`` was removed from the kernel since the latest comparison began."""
        return key in self._recently_unbanned

    # -- remove bans

    def unban(
        self, keys: Iterable[int], *, recorded: float = 0.0, how: BanEnd = BanEnd.REMOVED
    ) -> Steps[list[Outcome]]:
        """Remove bans from the kernel and the ledger; return the removals that the kernel refused.

        ``how`` is how they end. ``recorded`` is the time of the end (epoch seconds) if the database already
        has it from the caller, otherwise 0. For bans that only the kernel has, no end is reported.
        """
        asked = [*dict.fromkeys(keys)]
        removals = [Remove(*network_of(key)) for key in asked]
        answers = yield from self.ask(Batch(removals, how, recorded))
        failed = [outcome for outcome in answers if outcome.error is not None]
        if how.is_early:
            self.counts.unbanned += len(asked) - len(failed)
        for key, outcome in zip(asked, answers, strict=True):
            if outcome.error is None:
                self._recently_unbanned.add(key)
                if self.ledger.discard(key):
                    yield Over(*network_of(key), how)
        return failed

    def unban_with_retry(self, keys: Iterable[int], how: BanEnd = BanEnd.REMOVED) -> Steps[None]:
        """Remove the bans ``keys``, which end by ``how``, also those that are pending.

        If the kernel refuses, that is reported once, and :meth:`retry` tries again.
        """
        asked = set(keys)
        failed = yield from self.unban(asked, how=how)
        left = {_key(outcome.change): outcome for outcome in failed}
        for key in left:  # if a ban to remove stayed pending, ``retry`` would place it again
            if self.ledger.discard_pending(key) and key not in self.ledger:
                yield Over(*network_of(key), how)
        new = left.keys() - self._failed_unbans.keys()
        for key in asked:
            self._failed_unbans.pop(key, None)
        self._failed_unbans |= dict.fromkeys(left, how)
        if new and failed[0].error is not None:
            yield NotRemoved([outcome.change.network for outcome in failed], failed[0].error)

    def exclude(self, exempt: Exempt, now: float, *, restored: bool = False) -> Steps[None]:
        """Set the exempt networks, and remove the bans of those that were not exempt before.

        ``restored``: bans were just restored from the store, so the bans of all exempt networks are removed.
        If the kernel does not remove a ban, that is reported, and tried again.
        """
        before, self.exempt = Exempt() if restored else self.exempt, exempt
        allowed = NetworkSet(exempt.allowed.networks - before.allowed.networks)
        keys = self.ledger.all_keys() if allowed else ()
        freed = {key for key in keys if allowed.contains_prefix(*parts_of(key))}
        for network in exempt.protected.keys() - before.protected.keys():
            overlapping = self.ledger.overlapping(network, now)
            freed.update(key for key in overlapping if not self.ledger.is_forced(key))
        yield from self.unban_with_retry(freed)

    # -- time, and enforcement off and on

    def follow_clock(self, offset: float) -> float:
        """If the wall clock was set, move the times of all bans, so that the time left stays the same.

        ``offset`` is the wall clock minus the monotonic clock. Return by how much it was set, otherwise 0.
        """
        step, self.ledger.offset = clock_step(self.ledger.offset, offset), offset
        if step:
            self.ledger.shift(step)
        return step

    def expire(self, now: float) -> Steps[tuple[list[int], list[int]]]:
        """End the bans whose time is over at ``now`` (epoch seconds).

        Return their keys, and the keys of the bans whose timeout in the kernel must be renewed.
        """
        self.ledger.expire_assumed(now)
        over, to_renew = self.ledger.due(now)
        for key in over:
            self.ledger.pop(key)
        pending = self.ledger.expire_pending(now)
        over += [_key(one.ban) for one in pending if one.news is News.KNOWN]
        for key in over:
            yield Over(*network_of(key), BanEnd.EXPIRED)
        return over, to_renew

    def retry(self, now: float) -> Steps[None]:
        """Try again the changes that the kernel has refused: first the removals, then the pending bans."""
        for how in dict.fromkeys(self._failed_unbans.values()):
            yield from self.unban_with_retry(
                [key for key, one in self._failed_unbans.items() if one is how], how
            )
        for news in News:
            pending = [one.ban for one in self.ledger.pending.values() if one.news is news]
            yield from self.add(pending, news, now)
        if not self.ledger.pending and not self._failed_unbans:
            self.error = ""  # of a command that was refused, and that nobody tries again

    def forget(self) -> Steps[None]:
        """Forget all bans, because the kernel no longer has any."""
        pending = [*self.ledger.pending.values()]
        self.ledger.clear()
        self._failed_unbans.clear()
        self._giving_way = GivingWay()
        self.error = ""
        for one in pending:
            yield Forgotten(one.ban.network, one.ban.scope)

    def forget_assumed(self, now: float) -> Steps[None]:
        """Forget the bans that rules have decided while enforcement was off."""
        for network, scope in self.ledger.assumed(now):
            self.ledger.discard_assumed(network)
            yield Forgotten(network, scope)


def _key(one: Ban | Change) -> int:
    return key_of(one.network, one.scope)


def _adding(bans: Iterable[Ban], now: float) -> Batch:
    """Return the batch that adds bans to the kernel, each for the time from ``now`` (epoch) to its end."""
    left = ((ban, min(max(1.0, ban.expires - now), MAX_TIMEOUT)) for ban in bans)
    return Batch([Add(ban.network, ceil(seconds), ban.scope) for ban, seconds in left])
