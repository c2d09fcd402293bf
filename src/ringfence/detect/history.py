"""Subjects, and the attempts of each. A million subjects with one attempt each take some 50 MB.

All rules use the same attempts, so each attempt is stored once, for the longest window of all rules. It is
stored as bytes: the benchmark row "a million addresses, one attempt each, within an hour: ≤ 200 MB" fails
with objects, of which each takes 230 bytes with its account and its time. A *key* stands for a subject
(:func:`pack_network`).

Subjects are grouped in generations by their last attempt. A generation covers a sixth of the longest window
and expires as a whole.

Bounds: ``max_attempts`` attempts of all subjects. Beyond it, subjects with one claimed attempt are discarded
first, the oldest first, because a forged datagram creates one at no cost. If there are few of these, subjects
with several claimed attempts are discarded, and last those with a proven one: so no number of forged
datagrams makes a real sender's attempts forgotten. All are counted in ``evicted``. ``MOST`` attempts of one
subject are kept. Beyond that, the oldest attempt of the first of these groups is discarded: attempts that a
full ban has consumed; unconfirmed attempts, floods, and failures at accounts that work near the sender, each
if there are more than ``ASIDE``; attempts whose account occurs again in a later attempt, except the newest
``LATEST`` attempts; all attempts. So different accounts can still be counted if one account repeats.

Of an account, the beginning is kept (``values.event.short_account``), as the sources report it.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import chain, islice
from struct import Struct
from typing import Any, TypeVar

from attrs import Factory, define, field, frozen

from ringfence.detect.findings import DuplicateReport
from ringfence.detect.friends import Friends
from ringfence.detect.sessions import AddressKey, address_key
from ringfence.detect.single_attempts import SingleAttempts
from ringfence.ledger import key_of
from ringfence.values import fast
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.event import AMBIGUOUS, AMI, WIRE, EventKind, Service, Transport
from ringfence.values.network import SENDER_LENGTHS, Address, Network, NetworkSet, sender_of

MAX_ATTEMPTS = 1_300_000
MOST = 64
LATEST = 24
ASIDE = 13  # of each of three groups: the others have room for ``LATEST``
_GENERATIONS = 6
_SHARE = 8  # single claimed attempts are discarded first only if they are an eighth of ``max_attempts``
_JOIN_WITHIN = 12.0  # seconds within which two sources report one attempt, with a margin
_MOST_NAMES = 16

_Kept = TypeVar("_Kept")

Key = bytes
"""A network as bytes: its address, followed by the prefix length unless it is a single IPv4 address."""

_KINDS, _SERVICES, _TRANSPORTS, _EVENTS = (
    tuple(AttemptKind),
    tuple(Service),
    tuple(Transport),
    tuple(EventKind),
)
# The kind shares a byte with the Asterisk: four bits each.
_KIND = {kind: number << 4 for number, kind in enumerate(_KINDS)}
_SERVICE = {service: number << 4 for number, service in enumerate(_SERVICES)}
_TRANSPORT = {transport: number for number, transport in enumerate(_TRANSPORTS)}
_EVENT = {event: number for number, event in enumerate(_EVENTS)}
_PROOFS = tuple(Proof)
_SESSION_BITS = 0xFFFFFFFF
_CLAIMED = Proof.CLAIMED
# The field of the event also has bits: by a web page, without credentials, and an address follows.
_SERVICE_BITS, _EVENT_BITS, _PAGE, _BARE, _HAS_ADDRESS = 0x70, 0x1F, 0x20, 0x40, 0x80
_INVALID_ACCOUNT, _REFUSED = _EVENT[EventKind.INVALID_ACCOUNT_ID], _EVENT[EventKind.REFUSED]
_ALONE = (_EVENT[EventKind.HIDDEN], _EVENT[EventKind.DIVERTED])  # what only copied packets show

# The packed fields: the monotonic time; how much later the source's own time is (milliseconds); the session;
# the flags; the service and transport; the event; the sources (a bit each); the kind and the Asterisk; the
# fingerprint. After these fields come the account, the evidence if there is some, the address if it is IPv6,
# and the forged address if there is one.
_PACK, _AT = Struct("<diIBBBHBI"), Struct("<d")
_PACK_SIZE = _PACK.size
_FLAGS, _EVENT_AT, _SOURCES_AT = 16, 18, 19  # the offsets of the flags, the event and the sources (bytes)
_ASIDE, _BY_KERNEL, _PROVEN, _TRUSTED, _TAMPERED, _CONSUMED, _CLAIM_CONSUMED = 1, 2, 12, 16, 32, 64, 128
_COUNTS = _TRUSTED | _CONSUMED
_ORDINARY = frozenset(flags for flags in range(256) if flags & (_COUNTS | _ASIDE | _BY_KERNEL) == _TRUSTED)
"""Flags of ordinary packed attempts: confirmed, not set aside, not in a ban. Others may be discarded."""
_BEHIND_ACCOUNT = b"\xff"
"""The byte between the account and the evidence. UTF-8 has none."""
_FORGED_IPV4, _FORGED_IPV6 = 1 << 3, 1 << 7  # two bits of the service's field: a forged address follows
_FORGED_BYTES = {0: 0, _FORGED_IPV4: 4, _FORGED_IPV6: 16}
_IPV4_BYTES, _IPV6_BYTES = 4, 16
_OWN_BYTES = {0: 0, _HAS_ADDRESS: _IPV6_BYTES}
_PBX_BITS = 15
_MILLI = 1000.0
_INT32 = (1 << 31) - 1


def pack_network(subject: Network) -> Key:
    """Return an address or network, whose attempts are counted together, as bytes.

    Python's hash of bytes is secret, so attackers cannot choose subjects whose hashes collide.
    """
    if isinstance(subject, IPv4Network) and subject.prefixlen == subject.max_prefixlen:
        return subject.network_address.packed
    return subject.network_address.packed + bytes((subject.prefixlen,))


def unpack_network(key: Key) -> Network:
    """Return the network that :func:`pack_network` packed as ``key``."""
    if len(key) == _IPV4_BYTES:
        return IPv4Network(key)
    made = IPv4Network if len(key) == _IPV4_BYTES + 1 else IPv6Network
    return made((key[:-1], key[-1]))


def keys_in(network: Network, keys: Iterable[Key]) -> Iterator[Key]:
    """Yield those of ``keys`` whose networks lie in ``network``. They are not unpacked: they may be many."""
    packed, length = network.network_address.packed, network.prefixlen
    size, rest = len(packed), network.max_prefixlen - length
    prefix = int.from_bytes(packed) >> rest
    for key in keys:
        narrow = (key[size:] or b"\xff")[0] >= length  # a single IPv4 address has no prefix length
        if narrow and size <= len(key) <= size + 1 and int.from_bytes(key[:size]) >> rest == prefix:
            yield key


@fast.frozen
class Fact:
    """An attempt as the rules see it; ``at`` is its time (monotonic seconds).

    ``trusted``: its address is confirmed. ``event`` is the kind of the event that reported it. ``unknown``:
    the account does not exist. ``consumed``: it counts for no further ban. ``claim_consumed``: it has led to
    a ban on unproven attempts. It still counts for full bans, and for bans on unproven attempts by the rules
    with ``insists``. ``credentials``: the request may have had some. ``packed`` is the attempt as the history
    keeps it, empty if it comes from elsewhere. ``page``: a web page of another site made a browser send it.
    ``evidence`` is that of its event, as UTF-8.
    """

    at: float
    kind: AttemptKind
    proven: bool
    trusted: bool
    account: bytes
    event: EventKind
    unknown: bool
    session: int
    consumed: bool
    claim_consumed: bool
    credentials: bool = True
    page: bool = False
    evidence: bytes = b""
    packed: bytes = field(default=b"", eq=False, repr=False)


@frozen
class _Generation:
    """The senders whose last attempt was in one period of time, and their packed attempts.

    ``claimed`` has those with a single unproven attempt, ``several`` those with several, and ``proven`` those
    with a proven attempt.
    """

    began: float
    claimed: dict[int, SingleAttempts] = Factory(
        lambda: {size: SingleAttempts(size) for size in (_IPV4_BYTES, _IPV6_BYTES + 1)}
    )
    several: dict[Key, list[bytes]] = Factory(dict)
    proven: dict[Key, bytes | list[bytes]] = Factory(dict)

    def get(self, key: Key) -> list[bytes] | None:
        """Return a copy of the packed attempts of ``key``, None if its last one is in another period."""
        kept = self.proven.get(key) or self.several.get(key)
        if kept is not None:
            return [kept] if isinstance(kept, bytes) else list(kept)
        singles = self.claimed.get(len(key))  # by the key's length; IPv4 prefixes have no table
        single = singles.get(key) if singles is not None else None
        return None if single is None else [single]

    def pop(self, key: Key) -> tuple[list[bytes], bool] | None:
        """Remove and return the packed attempts of ``key``, and whether one is or was proven; or None."""
        kept = self.proven.pop(key, None)
        if kept is not None:
            return ([kept] if isinstance(kept, bytes) else kept), True
        several = self.several.pop(key, None)
        if several is not None:
            return several, False
        single = self.claimed[len(key)].pop(key)
        return None if single is None else ([single], False)

    def put(self, key: Key, kept: list[bytes], *, proven: bool) -> None:
        """Store ``kept``, the packed attempts of ``key``, which has none in this period."""
        if proven:
            self.proven[key] = kept[0] if len(kept) == 1 else kept
        elif len(kept) == 1:
            self.claimed[len(key)].put(key, kept[0])
        else:
            self.several[key] = kept


@define
class _Names:
    """Gives each name of a source or Asterisk a small number; names beyond ``_MOST_NAMES`` share the last."""

    names: list[str] = Factory(list)

    def number(self, name: str) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            if len(self.names) < _MOST_NAMES:
                self.names.append(name)
            return len(self.names) - 1


class History:
    """The attempts of each sender in the last ``seconds``; ``evicted`` is the number of discarded senders.

    A sender is an IPv4 address, an IPv6 /64 or a network, as :func:`pack_network` packs it. Times are
    monotonic seconds.
    """

    def __init__(self, seconds: float, max_attempts: int = MAX_ATTEMPTS) -> None:
        self.evicted = 0
        self.seconds = seconds
        self._max = max_attempts
        self._size = 0
        self._generations: deque[_Generation] = deque()
        self._pbxs = _Names()
        self._sources = _Names()
        self._ahead: float | None = None  # the offset of the wall clock from the monotonic clock

    def __len__(self) -> int:
        """Return the number of attempts of all senders."""
        return self._size

    def follow_clock(self, seconds: float) -> None:
        """Move the times of day of all attempts by ``seconds``, because the wall clock was set by as much."""
        if self._ahead is not None:
            self._ahead += seconds

    def add(
        self, key: Key, attempt: Attempt, now: float, *, aside: bool = False, fingerprint: int = 0
    ) -> list[bytes]:
        """Record an attempt of the sender ``key``; return all its attempts in packed form, oldest first.

        ``aside``: the attempt counts for no rule about strangers, so at most ``ASIDE`` such displace others.
        ``fingerprint`` is that of its event, 0 if it is unknown.
        """
        if self._ahead is None:
            self._ahead = attempt.time - now
        packed = self._pack(attempt, now, fingerprint, aside=aside)
        if self._size >= self._max:
            self._make_room()
        if not self._generations or now - self._generations[-1].began >= self.seconds / _GENERATIONS:
            self.expire(now)
            self._generations.append(_Generation(now))
        found = None
        for generation in reversed(self._generations):
            found = generation.pop(key)
            if found is not None:
                break
        kept, proven = found or ([], False)
        proven = proven or attempt.proof is not _CLAIMED
        self._size += 1
        if not kept or now >= _PACK.unpack_from(kept[-1])[0]:
            kept.append(packed)
        else:  # inserted in the order of time
            index = next(i for i, other in enumerate(kept) if _PACK.unpack_from(other)[0] > now)
            kept.insert(index, packed)
        if len(kept) > MOST:
            del kept[_least_useful(kept)]
            self._size -= 1
        self._generations[-1].put(key, kept, proven=proven)
        return kept

    def prove(self, key: Key, session: int, proof: Proof = Proof.NONCE) -> list[Fact]:
        """Record that ``key`` itself sent the attempts of ``session``; return those whose proof improved."""
        raised: list[Fact] = []
        kept = self.packed(key)
        # Most attempts are already proven; only the others are unpacked.
        for index in [number for number, packed in enumerate(kept) if not packed[_FLAGS] & _PROVEN]:
            packed = kept[index]
            at, delta, own, flags, *rest = _PACK.unpack_from(packed)
            if own == session:
                flags |= proof << 2
                kept[index] = _PACK.pack(at, delta, own, flags, *rest) + packed[_PACK_SIZE:]
                raised.append(fact_of(kept[index]))
        if raised:
            self._put_back(key, kept)
        return raised

    def record_credentials(self, key: Key, session: int) -> Fact | None:
        """Record that the oldest attempt of ``session`` that had no credentials has got some.

        Return what is known about this attempt now, or None if the session has no such attempt.
        """
        kept = self.packed(key)
        for index in [number for number, packed in enumerate(kept) if packed[_EVENT_AT] & _BARE]:
            packed = kept[index]
            at, delta, own, flags, how, event, *rest = _PACK.unpack_from(packed)
            if own == session:
                kept[index] = (
                    _PACK.pack(at, delta, own, flags, how, event & ~_BARE, *rest) + packed[_PACK_SIZE:]
                )
                self._put_back(key, kept)
                return fact_of(kept[index])
        return None

    def add_source(
        self, key: Key, report: DuplicateReport, now: float, *, friend: bool = False
    ) -> tuple[bytes, bytes] | None:
        """Record ``report``: another source, too, has reported an attempt of ``key``.

        That is one of its session (0: any), service and kind in the last ``_JOIN_WITHIN`` seconds that this
        source has not reported: the oldest one with the same fingerprint, else the oldest whose fingerprint
        is unknown. The attempt gets the event and the account of a report that ``decides``; a hidden or
        diverted one keeps its own. A copied packet shows only that Asterisk refused a request. If it reported
        first, the attempt gets the event of the first report that ``explains``.

        A copied guess may be another request than the one that was reported before:

            REGISTER of 204, a second time: AMI reports it again, and no copied packet shows an attempt
            REGISTER of 300, hidden from AMI: only copied packets show it

        Both are one attempt. The attempt is then what the copied packets show. Otherwise a sender could hide
        a guess behind each failure at its own account. But the attempt stays as it is if AMI reports the
        guess too, as an attempt of its own. So does a stranger's attempt at an unknown account, because it
        counts as much. ``friend``: an account works at the sender, or did within a month.

        Return the packed attempt as it was and as it is, None if nothing but its sources has changed.
        """
        bit = 1 << self._sources.number(report.source)
        kept = self.packed(key)
        found = _reported(kept, report, bit, now, friend=friend)
        if found is None:
            return None
        index, same = found
        packed = kept[index]
        at, delta, own, flags, how, event, sources, pbx, number = _PACK.unpack_from(packed)
        before, rest = event & _EVENT_BITS, packed[_PACK_SIZE:]
        decides = report.decides and before not in _ALONE
        if not same and _counts_for_more(report, packed, by_ami=AMI in self._named(sources), friend=friend):
            decides, event = True, event & ~_BARE
        if decides or (before == _REFUSED and report.explains):
            event = event & ~_EVENT_BITS | _EVENT[report.event]
        if decides:
            rest = packed_account(report.account) + rest[len(fact_of(packed).account) :]
        number = report.fingerprint or number
        kept[index] = _PACK.pack(at, delta, own, flags, how, event, sources | bit, pbx, number) + rest
        self._put_back(key, kept)
        changed = event & _EVENT_BITS != before or rest != packed[_PACK_SIZE:]
        return (packed, kept[index]) if changed else None

    def consume(self, key: Key, *, claimed: bool = False, only: Iterable[Fact] | None = None) -> None:
        """Mark attempts of the sender ``key`` as part of a ban, so that they lead to no further ban.

        ``claimed``: the ban has unproven evidence, and they may still lead to a full ban. ``only`` are the
        attempts to mark; by default all.
        """
        bit, present = _CLAIM_CONSUMED if claimed else _CONSUMED, self.packed(key)
        marked = present if only is None else {fact.packed for fact in only}
        kept = [
            packed[:_FLAGS] + bytes((packed[_FLAGS] | bit,)) + packed[_FLAGS + 1 :]
            if packed in marked
            else packed
            for packed in present
        ]
        if kept:
            self._put_back(key, kept)

    def packed(self, key: Key) -> list[bytes]:
        """Return a copy of the packed attempts of the sender ``key``, oldest first; [] without any."""
        for generation in reversed(self._generations):
            kept = generation.get(key)
            if kept is not None:
                return kept
        return []

    def facts_of(self, address: Address, subject: Network, since: float) -> list[Fact]:
        """Return the confirmed attempts of exactly ``address`` after ``since`` (monotonic seconds).

        ``subject`` is the network as which the address is counted, such as its /64.

        A /64 has the attempts of all its addresses, and keeps them when an address of the /64 becomes one
        that is counted alone. So both are searched.
        """
        subjects = {subject, ip_network((address, SENDER_LENGTHS[address.version]), strict=False)}
        facts = (
            fact_of(packed)
            for one in subjects
            for packed in self.packed(pack_network(one))
            if self.attempt_of(packed, one).address == address
        )
        return [fact for fact in facts if fact.trusted and fact.at > since]

    def attempts(self, key: Key) -> tuple[Attempt, ...]:
        """Return the attempts of the sender ``key``, unpacked, oldest first."""
        subject = unpack_network(key)
        return tuple(self.attempt_of(packed, subject) for packed in self.packed(key))

    def attempt_of(self, packed: bytes, subject: Network) -> Attempt:
        """Unpack an attempt. If no address is packed with it, its address is the first one of ``subject``."""
        at, delta, session, flags, how, event, sources, pbx, _ = _PACK.unpack_from(packed)
        forged = _FORGED_BYTES[how & (_FORGED_IPV4 | _FORGED_IPV6)]
        end = len(packed) - forged - _OWN_BYTES[event & _HAS_ADDRESS]
        own_address = packed[end : len(packed) - forged]
        account, _, evidence = packed[_PACK_SIZE:end].partition(_BEHIND_ACCOUNT)
        return Attempt(
            self._pbxs.names[pbx & _PBX_BITS],
            ip_address(own_address) if own_address else subject.network_address,
            _KINDS[pbx >> 4],
            _PROOFS[flags >> 2 & 3],
            _SERVICES[how >> 4 & 7],
            _TRANSPORTS[how & 7],
            account.decode("utf-8", "replace"),
            _EVENTS[event & _EVENT_BITS],
            at + (self._ahead or 0.0) + delta / _MILLI,
            bool(flags & _TRUSTED),
            bool(flags & _TAMPERED),
            ip_address(packed[-forged:]) if forged else None,
            session,
            self._named(sources),
            not event & _BARE,
            bool(event & _PAGE),
            evidence.decode("utf-8", "replace"),
        )

    def latest(self, most: int) -> Iterator[tuple[Key, list[bytes]]]:
        """Yield up to ``most`` senders with a proven attempt, with their packed attempts, the latest first.

        Then yield as many with several unproven attempts, and as many with a single one.
        """
        proven = (item for g in reversed(self._generations) for item in _backwards(g.proven))
        for key, kept in islice(proven, most):
            yield key, [kept] if isinstance(kept, bytes) else list(kept)
        several = (item for g in reversed(self._generations) for item in _backwards(g.several))
        for key, claims in islice(several, most):
            yield key, list(claims)
        tables = (singles for g in reversed(self._generations) for singles in g.claimed.values())
        for key, packed in islice(chain.from_iterable(tables), most):
            yield key, [packed]

    def expire(self, now: float) -> None:
        """Discard the senders whose last attempt is older than ``self.seconds``, many at once.

        A sender may stay up to a sixth of that time longer.
        """
        stretch = self.seconds / _GENERATIONS
        while self._generations and now - self._generations[0].began >= self.seconds + stretch:
            self._size -= _size_of(self._generations.popleft())

    # -- storage ----------------------------------------------------------------------------------------

    def _put_back(self, key: Key, kept: list[bytes]) -> None:
        """Store ``kept``, the changed packed attempts of ``key``, in the period where they were."""
        for generation in reversed(self._generations):  # pragma: no branch - the caller has read it there
            found = generation.pop(key)
            if found is not None:
                generation.put(key, kept, proven=found[1] or any(one[_FLAGS] & _PROVEN for one in kept))
                return

    def _make_room(self) -> None:
        """Discard the oldest senders if there are too many: several at once, because each search is slow."""
        wanted = max(1, self._max // 256)
        singles = [table for g in self._generations for table in g.claimed.values() if len(table)]
        tables: list[dict[Key, Any]] = [g.several for g in self._generations if g.several]
        tables += [g.proven for g in self._generations if g.proven]
        if sum(map(len, singles)) * _SHARE >= self._max or not tables:
            gone = singles[0].drop(wanted)
            self._size -= gone
            self.evicted += gone
            return
        removed = [tables[0].pop(key) for key in list(islice(tables[0], wanted))]
        self._size -= sum(1 if isinstance(kept, bytes) else len(kept) for kept in removed)
        self.evicted += len(removed)

    def _named(self, sources: int) -> tuple[str, ...]:
        """Return the names of sources, of which a packed attempt has a bit each."""
        return tuple(name for number, name in enumerate(self._sources.names) if sources >> number & 1)

    def _pack(self, attempt: Attempt, now: float, fingerprint: int, *, aside: bool) -> bytes:
        flags = attempt.proof << 2
        if aside:
            flags |= _ASIDE
        if attempt.kind.by_kernel:
            flags |= _BY_KERNEL
        if attempt.trusted:
            flags |= _TRUSTED
        if attempt.tampered:
            flags |= _TAMPERED
        how = _SERVICE[attempt.service] | _TRANSPORT[attempt.transport]
        sources = 0
        for source in attempt.sources:
            sources |= 1 << self._sources.number(source)
        delta = int((attempt.time - now - (self._ahead or 0.0)) * _MILLI)
        rest = packed_account(attempt.account)
        if attempt.evidence:
            rest += _BEHIND_ACCOUNT + packed_account(attempt.evidence)
        event = _EVENT[attempt.event] if attempt.credentials else _EVENT[attempt.event] | _BARE
        event |= _PAGE if attempt.page else 0
        if isinstance(attempt.address, IPv6Address):
            event |= _HAS_ADDRESS
            rest += attempt.address.packed
        if attempt.forged_address is not None:
            how |= _FORGED_IPV4 if isinstance(attempt.forged_address, IPv4Address) else _FORGED_IPV6
            rest += attempt.forged_address.packed
        return (
            _PACK.pack(
                now,
                max(-_INT32, min(_INT32, delta)),
                attempt.session & _SESSION_BITS,
                flags,
                how,
                event,
                sources,
                self._pbxs.number(attempt.asterisk) | _KIND[attempt.kind],
                fingerprint,
            )
            + rest
        )


def _reported(
    kept: Sequence[bytes], report: DuplicateReport, bit: int, now: float, *, friend: bool
) -> tuple[int, bool] | None:
    """Return the index of the attempt that ``report`` is about, and whether both are surely one request.

    ``kept`` are packed attempts, and ``bit`` is that of the report's source. Return None if no attempt fits.
    An attempt with another fingerprint is of another request. It fits only a report of copied packets, and
    only if there is no better one.
    """
    code, session, kind = _SERVICE[report.service], report.session, _KIND[report.kind]
    # Without a fingerprint, AMI's report of PJSIP is about no password, so about no copied guess. But AMI may
    # report a call of an unknown account instead of its guess, and that of a stranger counts as much.
    stays = friend or report.event is not EventKind.INVALID_ACCOUNT_ID
    about_none = stays and report.source == AMI and report.service is Service.PJSIP
    matches_any = not (report.fingerprint or about_none)
    unknown: int | None = None
    other: int | None = None
    for index, packed in enumerate(kept):
        if (packed[_SOURCES_AT] | packed[_SOURCES_AT + 1] << 8) & bit:
            continue  # nearly all attempts end here; unpacking them would be slow
        at, _, own, flags, how, _, _, pbx, number = _PACK.unpack_from(packed)
        fits = how & _SERVICE_BITS == code and pbx & ~_PBX_BITS == kind
        fits = fits and (own == session or not own or not session)
        if not (fits and flags & _TRUSTED and now - at < _JOIN_WITHIN):
            continue
        if matches_any or number == report.fingerprint:
            return index, True
        if number:
            other = index if other is None else other
        else:
            unknown = index if unknown is None else unknown
    copied = report.source == WIRE
    found = other if unknown is None and copied else unknown
    return None if found is None else (found, not copied)


def _counts_for_more(guess: DuplicateReport, packed: bytes, *, by_ami: bool, friend: bool) -> bool:
    """Whether a copied guess may count for more than ``packed``, an attempt that another source reported.

    ``by_ami``: AMI has reported it. Then AMI also reports each guess at PJSIP that is neither hidden nor
    ambiguous, as another attempt. So a phone may send a request twice, of which AMI alone reports both. A
    guess at an account that does not exist counts for less only if its sender is a ``friend``.
    """
    hidden = guess.event is EventKind.HIDDEN
    if by_ami and guess.service is Service.PJSIP and not (hidden or guess.fingerprint & AMBIGUOUS):
        return False
    if packed[_EVENT_AT] & _EVENT_BITS == _INVALID_ACCOUNT:
        return friend
    return hidden or packed_account(guess.account) != fact_of(packed).account


def packed_account(account: str) -> bytes:
    """Return an account as the UTF-8 bytes in which the history keeps and compares it."""
    return account.encode("utf-8", "replace")


def time_of(packed: bytes) -> float:
    """Return the time of a packed attempt (monotonic seconds)."""
    at: float = _AT.unpack_from(packed)[0]
    return at


def summary(kept: Sequence[bytes], account: bytes = b"") -> tuple[int, int, int, int]:
    """Return the numbers of packed attempts that count: all, proven, fresh, and on unknown accounts.

    An attempt counts if its address is confirmed and it has led to no full ban. It is fresh if it has led to
    no ban at all. With ``account``, only attempts on accounts that begin with it count. The attempts are not
    unpacked: the four numbers nearly always show that no rule's limit is reached, ten times as fast as facts
    would.
    """
    number = proven = fresh = unknown = 0
    for packed in kept:
        flags = packed[_FLAGS]
        if flags & _COUNTS == _TRUSTED and (not account or packed.startswith(account, _PACK_SIZE)):
            number += 1
            if flags & _PROVEN:
                proven += 1
            if not flags & _CLAIM_CONSUMED:
                fresh += 1
            if packed[_EVENT_AT] & _EVENT_BITS == _INVALID_ACCOUNT:
                unknown += 1
    return number, proven, fresh, unknown


def has_proven(kept: Sequence[bytes]) -> bool:
    """Whether the address of one of the packed attempts is proven, even if the attempt has led to a ban."""
    return any(packed[_FLAGS] & _PROVEN for packed in kept)


def fact_from(attempt: Attempt, at: float) -> Fact:
    """Return the values of an attempt that the rules see; it counts at ``at`` (monotonic seconds)."""
    return Fact(
        at,
        attempt.kind,
        attempt.proof is not Proof.CLAIMED,
        attempt.trusted,
        packed_account(attempt.account),
        attempt.event,
        attempt.event is EventKind.INVALID_ACCOUNT_ID,
        attempt.session & _SESSION_BITS,
        consumed=False,
        claim_consumed=False,
        credentials=attempt.credentials,
        page=attempt.page,
        evidence=packed_account(attempt.evidence),
    )


def fact_of(packed: bytes) -> Fact:
    """Unpack an attempt into the values that the rules see."""
    at, _, session, flags, how, event, _, pbx, _ = _PACK.unpack_from(packed)
    addresses = _FORGED_BYTES[how & (_FORGED_IPV4 | _FORGED_IPV6)] + _OWN_BYTES[event & _HAS_ADDRESS]
    account, _, evidence = packed[_PACK_SIZE : len(packed) - addresses].partition(_BEHIND_ACCOUNT)
    return Fact(
        at,
        _KINDS[pbx >> 4],
        bool(flags >> 2 & 3),
        bool(flags & _TRUSTED),
        account,
        _EVENTS[event & _EVENT_BITS],
        event & _EVENT_BITS == _INVALID_ACCOUNT,
        session,
        bool(flags & _CONSUMED),
        bool(flags & _CLAIM_CONSUMED),
        not event & _BARE,
        bool(event & _PAGE),
        evidence,
        packed,
    )


def _least_useful(kept: list[bytes]) -> int:
    """Return the index in ``kept``, too many packed attempts of a sender, of the one to discard.

    An attempt that has led to a ban goes first, then one of a group that has too many.
    """
    consumed, untrusted, by_kernel, aside = list[int](), list[int](), list[int](), list[int]()
    for index in [number for number, packed in enumerate(kept) if packed[_FLAGS] not in _ORDINARY]:
        flags = kept[index][_FLAGS]
        if flags & _CONSUMED:
            consumed.append(index)
        elif not flags & _TRUSTED:
            untrusted.append(index)
        else:
            (by_kernel if flags & _BY_KERNEL else aside).append(index)
    for indexes, most in ((consumed, 0), (untrusted, ASIDE), (by_kernel, ASIDE), (aside, ASIDE)):
        if len(indexes) > most:
            return indexes[0]
    accounts = [packed[_PACK_SIZE:] for packed in kept]
    for index in range(len(kept) - LATEST):
        if accounts[index] in accounts[index + 1 :]:
            return index
    return 0


def _backwards(kept: dict[Key, _Kept]) -> Iterator[tuple[Key, _Kept]]:
    return ((key, kept[key]) for key in reversed(kept))


def _size_of(generation: _Generation) -> int:
    proven = sum(1 if isinstance(kept, bytes) else len(kept) for kept in generation.proven.values())
    several = sum(map(len, generation.several.values()))
    return sum(map(len, generation.claimed.values())) + several + proven


# -- subjects: the network that is counted and banned for an address, its exemption and its status as friend
#
# The subject is the address for IPv4 and the /64 for IPv6, because a host owns its /64 (``network.py`` has
# the exception of NAT64). A friend in a /64 is a subject of its own. The rest of that /64 is one subject. A
# ban of it names the whole /64, and the kernel exempts the friend. If an exempt network (such as the PBX's
# own) lies in a /64, each address of this /64 is a subject of its own. The prefix is the /24 or /48 around
# the address.
#
# An attacker sends many attempts, and this lookup takes a fifth of the time of each. So the results are
# cached until the friends or the exempt networks change.


_MOST_KNOWN = 4_096


@frozen
class Subject:
    """An address, the network as which it is counted and banned, and whether it is exempt or a friend.

    ``network`` is the IPv4 address or the IPv6 /64 (for a friend, its address alone), ``key`` its key in the
    history, and ``ban_key`` its key in the ledger of bans.
    """

    address: Address
    network: Network
    key: Key
    ban_key: int
    exempt: bool
    friend: bool


class Subjects:
    """Looks up as which network an address is counted, and whether it is a friend or never banned."""

    def __init__(self, friends: Friends, exempt: NetworkSet) -> None:
        self.friends = friends
        self._exempt = exempt
        self._known: dict[AddressKey, Subject] = {}
        self._latest: Subject | None = None
        self._changes = -1

    @property
    def exempt(self) -> NetworkSet:
        """The networks that are never banned."""
        return self._exempt

    @exempt.setter
    def exempt(self, exempt: NetworkSet) -> None:
        self._exempt, self._latest = exempt, None
        self._known.clear()

    def find(self, address: Address) -> Subject:
        """Return the network as which ``address`` is counted, with its status as a friend or exempt."""
        if self._changes != self.friends.changes:
            self._known.clear()
            self._changes, self._latest = self.friends.changes, None
        latest = self._latest
        if latest is not None and latest.address is address:  # handling an event asks several times
            return latest
        key = address_key(address)
        subject = self._known.get(key)
        if subject is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            subject = self._known[key] = self._find(address)
        self._latest = subject
        return subject

    def may_be_banned(self, prefix: Network) -> bool:
        """Whether ``prefix`` (such as a /24) contains no exempt network, no friend and no former friend.

        A phone that was off for hours is a former friend, and must be able to register again.
        """
        return not self._exempt.overlaps(prefix) and not self.friends.any_known_in(prefix)

    def is_known(self, key: Key) -> bool:
        """Whether the sender ``key`` contains a friend or a former friend."""
        if len(key) == _IPV4_BYTES:  # of nearly all senders, and a network would take ten times as long
            return self.friends.is_known(IPv4Address(key))
        return self.friends.any_known_in(unpack_network(key))

    def _find(self, address: Address) -> Subject:
        subject = self._subject(address)
        friends = self.friends
        return Subject(
            address,
            subject,
            pack_network(subject),
            key_of(subject),
            self._exempt.covers(address),
            friends.has(address),
        )

    def _subject(self, address: Address) -> Network:
        wide = sender_of(address)
        if wide.prefixlen == wide.max_prefixlen:
            return wide
        if not self._exempt.contains_part_of(wide) and not self.friends.has(address):
            return wide
        return IPv6Network(int(address))
