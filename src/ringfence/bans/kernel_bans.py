"""Places, renews and removes bans in the kernel, and records the results in the ledger and the store.

A ban is recorded only after the kernel has acknowledged it. A ban that the kernel refuses is logged and kept
as *pending*: it is tried again until it succeeds or its time is over. If a set is full, the bans with the
least time left are removed early. If a ban is longer than the longest timeout in the kernel, its timeout is
renewed while it lasts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_network
from math import isfinite

import structlog
from attrs import Factory, define, field, frozen

from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.errors import FirewallError, FirewallIncompleteError, SetFullError
from ringfence.firewall.contract import Add, Backend, Change, Element, Outcome, Remove
from ringfence.ledger import Ledger, Record, ban_of, key_of, network_of, renew_at
from ringfence.model import AttemptCounts, Ban, Network, Origin, Scope, format_network, printable
from ringfence.networks import SHORTEST, NetworkSet, overlap, without
from ringfence.store.bans import Records

# -- networks that are not banned, and why: allowed by an administrator, or needed by this host


ITSELF: Mapping[Network, str] = {
    ip_network("127.0.0.0/8"): "this host itself",
    ip_network("::1/128"): "this host itself",
}

# The probe (``firewall/probe.py``) tests bans with packets of these networks: IPv4 bans with the first one,
# IPv6 bans with the second one, which is a part of the range for documentation.
_OF_THIS_HOST = (ip_network("127.0.0.0/8"), ip_network("2001:db8:5246::/48"))


@frozen
class Exempt:
    """The exempt networks: those that an administrator has allowed, and those that this host needs.

    Packets of ``allowed`` networks are never dropped, even if a wider network is banned. ``protected`` has
    the networks that this host needs, each with the reason. A network that overlaps one of them is not
    banned, unless an administrator forces the ban.
    """

    allowed: NetworkSet = field(factory=NetworkSet)
    protected: Mapping[Network, str] = ITSELF

    @property
    def never(self) -> NetworkSet:
        """All exempt networks."""
        return NetworkSet([*self.allowed.networks, *self.protected])

    def refusal(self, network: Network, *, force: bool = False) -> str | None:
        """Return why ``network`` must not be banned; None if it may be.

        With ``force``, protected networks may be banned, but networks on the allow list must not.
        """
        if self.allowed.contains(network):
            return "is allowed (see: ringfence allow list)"
        if force:
            return None
        for kept, reason in self.protected.items():
            if overlap(kept, network):
                inside = "" if kept == network else f"{format_network(kept)}, "
                return f"is never banned: {inside}{reason}; --force bans it anyway"
        return None


def too_wide(network: Network) -> str | None:
    """Return why an administrator's ban of ``network`` needs ``--force``; None if it is not too wide."""
    if network.prefixlen >= SHORTEST[network.version]:
        return None
    return "is a large part of the internet, so it is not banned; --force bans it anyway"


def without_reserved(network: Network) -> Iterator[Network]:
    """Yield the parts of an allowed network without the ranges of the probe's addresses.

    The probe bans addresses in these ranges for a moment, and tests whether packets are dropped. If the
    kernel's allow list contained these addresses, no packet would be dropped.
    """
    own = next((kept for kept in _OF_THIS_HOST if overlap(kept, network)), None)
    if own is None:
        yield network
    else:
        for part in without(network, own):
            yield from without_reserved(part)


@define
class BanCounts:
    """Numbers of bans since the start.

    ``placed_by`` counts the placed bans, by the name of their rule (or their origin) and their scope.
    ``failed`` counts the bans that the kernel refused, and ``unbanned`` the bans that were removed before
    their end. ``displaced`` is the part of ``unbanned`` that was removed because a set was full.
    """

    placed_by: Counter[tuple[str, Scope]] = Factory(Counter)
    failed: int = 0
    unbanned: int = 0
    displaced: int = 0

    @property
    def placed(self) -> int:
        """The number of placed bans."""
        return self.placed_by.total()


# -- lists the kernel's bans completely, even if they change meanwhile


def listed(backend: Backend, known: Iterable[int] | None) -> Iterator[Element]:
    """Yield every ban of the kernel. May be called in another thread.

    ``known`` are the keys of the bans that the caller knows; None if it knows none, as at the start. The
    kernel's listing may lack bans if the sets change meanwhile. Known bans that it lacks are looked up one by
    one. So only a ban that another program has just added may be missing. The next comparison of the kernel
    with the ledger, within a minute, adopts it.
    """
    found: set[int] = set()
    with suppress(FirewallIncompleteError):
        missing = None if known is None else (network_of(key) for key in known if key not in found)
        for element in backend.list(missing):
            found.add(key_of(element.network, element.scope))
            yield element


# -- selects the bans that are removed early if a set is full: those with the least time left


AT_ONCE = 256
"""The number of bans that one search returns. A search takes long, because it goes through all bans."""


@define
class GivingWay:
    """Finds the bans of a full set that end first, so that they can make room for a longer ban."""

    # The ends and keys of the bans found, by IP version, prefix length and scope. The earliest end is last.
    _waiting: dict[tuple[int, int, Scope], list[tuple[float, int]]] = Factory(dict)

    def next(self, ledger: Ledger, ban: Ban) -> int | None:
        """Return the key of the ban to remove for ``ban``; None if no ban ends earlier than ``ban``."""
        like = (ban.network.version, ban.network.prefixlen, ban.scope)
        waiting = self._waiting.setdefault(like, [])
        while waiting and not _still_ends(ledger, *waiting[-1]):
            waiting.pop()
        if not waiting:
            waiting += ledger.soonest(ban.network, ban.scope, AT_ONCE)[::-1]
        # If the bans found end too late for ``ban``, they are kept for a later call with a longer ban.
        if not waiting or waiting[-1][0] >= ban.expires:
            return None
        return waiting.pop()[1]

    def clear(self) -> None:
        """Forget the bans that were found."""
        self._waiting.clear()


def _still_ends(ledger: Ledger, expires: float, key: int) -> bool:
    """Whether a ban was neither removed nor replaced since it was found with this end."""
    record = ledger.get(key)
    return record is not None and record.expires == expires


# -- small conversions of bans and of changes: from and to keys, and to texts for answers and the log


ADOPTED_FOR = 86_400.0
"""Seconds after which an adopted ban ends if it has no end in the kernel. Each ban of ringfence must end.

An adopted ban was found in the kernel, and the database does not have it.
"""


def add_order(key: int, seconds: float) -> Add:
    """Return the change that adds the ban with this key to the kernel, for ``seconds`` from now."""
    network, scope = network_of(key)
    return Add(network, seconds, scope)


def adopted_ban(key: int, now: float, left: float) -> Ban:
    """Return a ban for a key that was found in the kernel without a record. It ends in ``left`` seconds."""
    network, scope = network_of(key)
    rule, reason = str(Origin.ADOPTED), "found in the kernel"
    return Ban(network, now, now + left, rule, reason, Origin.ADOPTED, scope=scope)


def keys_of(changes: Iterable[Change]) -> set[int]:
    """Return the keys of the bans that ``changes`` concern."""
    return {key_of(change.network, change.scope) for change in changes}


def failure_lines(failed: Iterable[Outcome]) -> list[str]:
    """Return a line for each failed change."""
    return [f"{outcome.change.network}: {outcome.error}" for outcome in failed]


def ban_fields(ban: Ban) -> dict[str, object]:
    """Return the fields of a ban for the log."""
    return {
        "address": str(ban.network),
        "seconds": round(ban.expires - ban.since),
        "rule": ban.rule,
        "attempts": len(ban.attempts),
        "accounts": sorted({printable(attempt.account) for attempt in ban.attempts})[:5],
    }


CHUNK = 2_000
"""The maximum number of bans in one call to the kernel, which takes some ten milliseconds."""
_NARROWER = {
    Scope.FULL: (Scope.SIP, Scope.SIP_UDP, Scope.SIP_TCP),
    Scope.SIP: (Scope.SIP_UDP, Scope.SIP_TCP),
}
"""For each scope, the narrower scopes. A ban of the scope also drops what a ban of a narrower one drops."""


@frozen
class BanWatch:
    """Functions that are called after a change; they must not wait.

    ``placed`` is called with new bans that the kernel has acknowledged, and with True if people are to be
    notified of them. (False if bans of parts of a network replace a ban of the whole.) ``ended`` is called
    with the network and the scope of a ban that has ended, and with ``expired`` or ``removed``.
    """

    placed: Callable[[Sequence[Ban], bool], object] = lambda _bans, _announce: None
    ended: Callable[[Network, Scope, str], object] = lambda _network, _scope, _how: None


class KernelBans:
    """Places and removes bans, and records the kernel's answers in the ledger, which is ``detector.bans``."""

    def __init__(
        self,
        backend: Backend,
        records: Records,
        detector: Detector,
        clock: Clock,
        watch: BanWatch,
    ) -> None:
        self.counts = BanCounts()
        self.error = ""
        """The latest error of the kernel; "" if it has accepted all bans."""
        self._backend = backend
        self._records = records
        self._detector = detector
        self._clock = clock
        self._ledger = detector.bans
        self._watch = watch
        self._comparison = 0
        self._recently_unbanned: set[int] = set()
        self._failed_unbans: set[int] = set()
        self._giving_way = GivingWay()
        self._log = structlog.get_logger()

    # -- place bans

    def apply(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out changes in the kernel, but not in the ledger and the store.

        Return the kernel's answers. Never raises.
        """
        if not changes:
            return []
        try:
            outcomes = self._backend.apply(changes)
        except FirewallError as error:
            outcomes = [Outcome(change, error=error) for change in changes]
        errors = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
        if errors:
            self.error = errors[0]
        elif self.error and self._ledger.pending_keys() <= keys_of(changes):
            self.error = ""
        return outcomes

    def add(
        self,
        bans: Sequence[Ban],
        made: Sequence[AttemptCounts] | None = None,
        *,
        record: bool = True,
        announce: bool = True,
    ) -> list[Outcome]:
        """Add ``bans`` to the kernel, record its answers, and return its last answer to each ban.

        ``made`` has the counts of attempts for each ban. If it is None, the attempts in each ban are counted.
        ``record`` is false if the bans are not new: then they are neither written into the store nor counted
        as placed. ``announce`` is false if bans of parts of a network replace a ban of the whole.
        """
        now = self._clock.wall()
        outcomes = self.apply([Add(ban.network, ban.expires - now, ban.scope) for ban in bans])
        return self.record_outcomes(bans, outcomes, made, record=record, announce=announce)

    def record_outcomes(
        self,
        bans: Sequence[Ban],
        outcomes: Sequence[Outcome],
        made: Sequence[AttemptCounts] | None = None,
        *,
        record: bool = True,
        announce: bool = True,
    ) -> list[Outcome]:
        """Record the kernel's answers (``outcomes``) to ``bans``, and return its last answer to each ban.

        If a set was full, a ban that ends earlier is removed, and the new ban is added again. For the other
        arguments see :meth:`add`.
        """
        now = self._clock.wall()
        taken, final = [], []
        for ban, number, first in zip(
            bans, made or [AttemptCounts.of(ban.attempts) for ban in bans], outcomes, strict=True
        ):
            outcome = self._make_room(ban, first, now) if isinstance(first.error, SetFullError) else first
            final.append(outcome)
            if outcome.error is not None:
                self._record_refusal(ban, outcome.error)
                continue
            self.record_active(ban, number, now, outcome.timeout)
            taken.append(ban)
            if record:
                self.counts.placed_by[ban.rule, ban.scope] += 1
                self._log.warning("ban.placed", **ban_fields(ban))
        if record and taken:
            self._records.ban(taken)
            self._watch.placed(taken, announce)
        return final

    def record_active(self, ban: Ban, made: AttemptCounts, now: float, granted: float) -> None:
        """Record in the ledger that the kernel has a ban.

        ``made`` are the counts of its attempts. ``granted`` is its timeout in the kernel in seconds.
        """
        again = renew_at(ban.expires, now, granted)
        self._ledger.put(key_of(ban.network, ban.scope), Record.of(ban, made, again, self._comparison))

    def _make_room(self, ban: Ban, refused: Outcome, now: float) -> Outcome:
        """Remove a ban that ends before ``ban`` from the full set, and add ``ban`` again.

        Return the kernel's answer. ``refused`` is its first answer, and is returned if no ban was removed.
        """
        key = self._giving_way.next(self._ledger, ban)
        if key is None or self.unban([key]):
            return refused
        self.counts.displaced += 1
        return self.apply([Add(ban.network, ban.expires - now, ban.scope)])[0]

    def _record_refusal(self, ban: Ban, error: FirewallError) -> None:
        if key_of(ban.network, ban.scope) not in self._ledger.pending_keys():
            self.counts.failed += 1
            self._log.error("ban.failed", error=str(error), **ban_fields(ban))
        if not self._ledger.refuse(ban):
            # Too many bans are pending, so this one is not tried again. The detector forgets it, and
            # decides on another ban after enough new attempts.
            self._detector.record_unban(ban.network)

    def adopt(self, found: Mapping[int, float]) -> None:
        """Record bans that the kernel has, but the ledger lacks.

        ``found`` has their keys, and the seconds that each has left (infinity if a ban has no end). A ban
        without an end gets one, in ``ADOPTED_FOR`` seconds.
        """
        now = self._clock.wall()
        endless = [key for key, left in found.items() if not isfinite(left)]
        for start in range(0, len(endless), CHUNK):
            self.apply([add_order(key, ADOPTED_FOR) for key in endless[start : start + CHUNK]])
        bans = []
        for key, timeout in found.items():
            left = timeout if isfinite(timeout) else ADOPTED_FOR
            bans.append(adopted_ban(key, now, left))
            self.record_active(bans[-1], AttemptCounts(), now, left)
        if bans:
            self._records.ban(bans)

    # -- keep bans in the kernel

    def renew(self, keys: Sequence[int]) -> None:
        """Set the kernel's timeouts of these bans to the time that they have left."""
        now = self._clock.wall()
        records = [(key, record) for key in keys if (record := self._ledger.get(key)) is not None]
        changes = [add_order(key, record.expires - now) for key, record in records]
        for (_, record), outcome in zip(records, self.apply(changes), strict=True):
            if outcome.error is None:
                record.renew_at = renew_at(record.expires, now, outcome.timeout)

    def restore(self, keys: Sequence[int]) -> int:
        """Add bans again that the kernel has lost. Return how many it accepted; the others are pending."""
        now, ledger = self._clock.wall(), self._ledger
        bans = []
        for key in keys:
            record = ledger.get(key)
            if record is not None and record.expires > now:
                bans.append((key, record))
        changes = [add_order(key, record.expires - now) for key, record in bans]
        taken = 0
        for (key, record), outcome in zip(bans, self.apply(changes), strict=True):
            if outcome.error is not None:
                ledger.pop(key)
                self._record_refusal(ban_of(key, record), outcome.error)
                continue
            record.renew_at = renew_at(record.expires, now, outcome.timeout)
            taken += 1
        return taken

    def retry(self) -> None:
        """Try again the changes that the kernel has refused: first the removals, then the pending bans."""
        if self._failed_unbans:
            self.unban_with_retry(self._failed_unbans)
        if self._ledger.expire_pending(self._clock.wall()):
            self.error = ""  # set again if a ban is still refused
        self.add(self._ledger.pending)

    def begin_comparison(self) -> int:
        """Begin a comparison of the kernel with the ledger; return its number, for :attr:`Record.seen`."""
        self._comparison += 1
        self._recently_unbanned.clear()
        return self._comparison

    def was_unbanned(self, key: int) -> bool:
        """Whether a ban was removed from the kernel since the latest comparison began."""
        return key in self._recently_unbanned

    # -- remove bans

    def unban(self, keys: Iterable[int], *, recorded: float = 0.0) -> list[Outcome]:
        """Remove bans from the kernel and the ledger; return the changes that the kernel refused.

        The store records the end of the bans. If the caller has already recorded it there, ``recorded`` is
        the recorded time (seconds since the epoch), otherwise 0.
        """
        bans, when = [network_of(key) for key in dict.fromkeys(keys)], recorded or self._clock.wall()
        if bans and not recorded:
            self._records.end(bans, when)
        lifted, failed = [], []
        for outcome in self.apply([Remove(*ban) for ban in bans]):
            network, scope = outcome.change.network, outcome.change.scope
            if outcome.error is not None:
                failed.append(outcome)
                continue
            self._discard(key_of(network, scope))
            self._detector.record_unban(network)
            lifted.append((network, scope))
            self._watch.ended(network, scope, "removed")
        if failed:
            self._records.resume([(out.change.network, out.change.scope) for out in failed], when)
        if lifted:
            self.counts.unbanned += len(lifted)
            addresses = [str(network) for network, _ in lifted[:20]]
            self._log.info("ban.removed", addresses=addresses, number=len(lifted))
        return failed

    def _discard(self, key: int) -> None:
        self._ledger.discard(key)
        self._recently_unbanned.add(key)

    def unban_with_retry(self, keys: Iterable[int]) -> None:
        """Remove bans. If the kernel refuses, that is logged once, and :meth:`retry` tries again."""
        asked = set(keys)
        failed = self.unban(asked)
        left = {key_of(outcome.change.network, outcome.change.scope) for outcome in failed}
        for key in left:  # if a ban to remove stayed pending, ``retry`` would place it again
            self._ledger.discard_pending(key)
        if left - self._failed_unbans:
            addresses = sorted(str(network_of(key)[0]) for key in left)
            self._log.error("unban.failed", addresses=addresses[:20], error=str(failed[0].error))
        self._failed_unbans = self._failed_unbans - asked | left

    def supersede(self, ban: Ban) -> None:
        """Remove the bans of the same network that have a narrower scope than ``ban``, a new ban.

        So listings show the network once. A ban of scope ``SIP`` stays if it lasts longer than ``ban``. Bans
        of ``SIP_UDP`` and ``SIP_TCP``, whose evidence may be forged, are removed in any case.
        """
        subject, ledger = ban.network, self._ledger
        if key_of(subject, ban.scope) not in ledger:
            return
        for scope in _NARROWER.get(ban.scope, ()):
            narrow = key_of(subject, scope)
            record = ledger.get(narrow)
            if record is None or (scope is Scope.SIP and record.expires > ban.expires):
                continue
            if self.apply([Remove(subject, scope)])[0].error is None:
                self._discard(narrow)
                self._records.end([(subject, scope)], self._clock.wall())

    def clear(self) -> None:
        """Forget all bans, because the kernel no longer has any."""
        for ban in self._ledger.pending:
            self._detector.record_unban(ban.network)
        self._ledger.clear()
        self._failed_unbans.clear()
        self._giving_way.clear()
        self.error = ""
