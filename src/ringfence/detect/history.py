"""What each subject did, packed: a million subjects with one attempt each in some 80 MB.

All rules look at the same attempts, so they are kept once, as long as the longest window asks for, and as
bytes: an object for each would be five times as large. A *key* stands for a subject (:func:`key_of`).

Subjects live in generations by their last attempt, a sixth of the longest window each, so that what is over
goes in one piece. Bounds: ``max_attempts`` attempts of all subjects. When it is reached, subjects with a
single claimed attempt go first, the oldest first, since a forged datagram makes one for nothing; where these
are few, whoever has been silent longest. Both are counted in ``evicted``. Of one subject ``MOST`` attempts
are kept. What leads to nothing goes first: what a ban followed from already, and of what nobody is banned
for, or of floods, all but the last ``ASIDE``. Then, of those before the last ``LATEST``, one whose account
comes again later: different accounts stay countable while one of them repeats.

An account is kept to ``MAX_ACCOUNT`` bytes: what a sender writes must not decide how much is remembered.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from itertools import chain, islice
from struct import Struct
from typing import TypeVar

from attrs import Factory, define, frozen

from ringfence import quick
from ringfence.detect.singles import Singles
from ringfence.model import Attempt, AttemptKind, EventKind, Network, Proof, Service, Transport

MAX_ATTEMPTS = 1_300_000
MOST = 64
LATEST = 24
ASIDE = 16
MAX_ACCOUNT = 48
_GENERATIONS = 6
_SHARE = 8  # one in so many places is for subjects with a single claimed attempt: each begins as one
_JOIN_WITHIN = 12.0  # seconds; a little more than sources may be apart
_MOST_NAMES = 16

_Kept = TypeVar("_Kept")

Key = bytes
"""What stands for a subject: its address, and its length where that is no single IPv4 address."""

_KINDS, _SERVICES, _TRANSPORTS, _EVENTS = (
    tuple(AttemptKind),
    tuple(Service),
    tuple(Transport),
    tuple(EventKind),
)
_KIND = {kind: number for number, kind in enumerate(_KINDS)}
_SERVICE = {service: number << 4 for number, service in enumerate(_SERVICES)}
_TRANSPORT = {transport: number for number, transport in enumerate(_TRANSPORTS)}
_EVENT = {event: number for number, event in enumerate(_EVENTS)}
_PROOFS = tuple(Proof)
_SESSION_BITS = 0xFFFFFFFF
_CLAIMED = Proof.CLAIMED
_SERVICE_BITS, _EVENT_BITS, _HAS_ADDRESS = 0x70, 0x7F, 0x80
_INVALID_ACCOUNT = _EVENT[EventKind.INVALID_ACCOUNT_ID]

# When (monotonic), milliseconds that its own time is off that, the session, flags, service and transport,
# the event, who told of it, the Asterisk; then the account, its address where the subject does not say it,
# and whom it was aimed at.
_PACK, _AT = Struct("<diIBBBHB"), Struct("<d")
_PACK_SIZE = _PACK.size
_FLAGS, _EVENT_AT = 16, 18  # where they stand
_KIND_BITS = 3
_PROVEN, _TRUSTED, _TAMPERED, _SPENT, _CLAIM_SPENT = 12, 16, 32, 64, 128
_COUNTS = _TRUSTED | _SPENT
_AIMED = {0: 0, 1: 4, 2: 16}  # bytes of the address at the end
_IPV4_BYTES, _IPV6_BYTES = 4, 16
_MILLI = 1000.0
_INT32 = (1 << 31) - 1


def key_of(subject: Network) -> Key:
    """Give what stands for a subject. Of bytes nobody can choose such that collide in a table."""
    if isinstance(subject, IPv4Network) and subject.prefixlen == subject.max_prefixlen:
        return subject.network_address.packed
    return subject.network_address.packed + bytes((subject.prefixlen,))


def network_of(key: Key) -> Network:
    """Give back what :func:`key_of` was given."""
    if len(key) == _IPV4_BYTES:
        return IPv4Network(key)
    made = IPv4Network if len(key) == _IPV4_BYTES + 1 else IPv6Network
    return made((key[:-1], key[-1]))


@quick.frozen
class Fact:
    """An attempt as rules see it: when, of what kind, how well known, and on which account.

    ``event`` is what told of it; ``unknown``: the account does not exist. ``spent``: a ban followed already;
    ``claim_spent``: one on a mere claim.
    """

    at: float
    kind: AttemptKind
    proven: bool
    trusted: bool
    account: bytes
    event: EventKind
    unknown: bool
    session: int
    spent: bool
    claim_spent: bool


@frozen
class _Generation:
    """Subjects whose last attempt lies in one stretch of time: with a single claimed one, and others."""

    began: float
    claimed: dict[int, Singles] = Factory(
        lambda: {size: Singles(size) for size in (_IPV4_BYTES, _IPV6_BYTES + 1)}
    )
    others: dict[Key, bytes | list[bytes]] = Factory(dict)


@define
class _Names:
    """Short numbers for the few names that come again and again; the last one stands for all the rest."""

    names: list[str] = Factory(list)

    def number(self, name: str) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            if len(self.names) < _MOST_NAMES:
                self.names.append(name)
            return len(self.names) - 1


class History:
    """Keeps attempts for ``seconds``. Times are monotonic; ``evicted`` counts what went for want of room."""

    def __init__(self, seconds: float, max_attempts: int = MAX_ATTEMPTS) -> None:
        self.evicted = 0
        self.seconds = seconds
        self._max = max_attempts
        self._size = 0
        self._generations: deque[_Generation] = deque()
        self._pbxs = _Names()
        self._witnesses = _Names()
        self._ahead: float | None = None  # of an attempt's own time over the monotonic one

    def __len__(self) -> int:
        """How many attempts are kept."""
        return self._size

    def add(self, key: Key, attempt: Attempt, now: float) -> list[bytes]:
        """Keep one attempt; give all that is kept of the subject, oldest first."""
        if self._ahead is None:
            self._ahead = attempt.time - now
        packed = self._pack(attempt, now)
        if self._size >= self._max:
            self._make_room()
        generation = self._generation(now)
        kept = self._take(key)
        self._size += 1
        if not kept:
            if attempt.proof is _CLAIMED:
                generation.claimed[len(key)].put(key, packed)
            else:
                generation.others[key] = packed
            return [packed]
        if now >= _PACK.unpack_from(kept[-1])[0]:
            kept.append(packed)
        else:  # told later than it happened
            place = next(i for i, other in enumerate(kept) if _PACK.unpack_from(other)[0] > now)
            kept.insert(place, packed)
        if len(kept) > MOST:
            del kept[_least_telling(kept)]
            self._size -= 1
        generation.others[key] = kept
        return kept

    def prove(self, key: Key, session: int) -> list[Fact]:
        """Take that the subject's address is proven for what it did in ``session``; give what that raised."""
        raised: list[Fact] = []
        kept = self.of(key)
        for index, packed in enumerate(kept):
            at, delta, own, flags, *rest = _PACK.unpack_from(packed)
            if own == session and not flags >> 2 & 3:
                flags |= Proof.NONCE << 2
                kept[index] = _PACK.pack(at, delta, own, flags, *rest) + packed[_PACK_SIZE:]
                raised.append(fact_of(kept[index]))
        if raised:
            self._put_back(key, kept)
        return raised

    def join(self, key: Key, session: int, service: Service, witness: str, now: float) -> None:
        """Take that ``witness`` tells of an attempt too: of the first that it has not told of lately."""
        bit = 1 << self._witnesses.number(witness)
        code = _SERVICE[service]
        kept = self.of(key)
        for index, packed in enumerate(kept):
            at, delta, own, flags, how, event, sources, pbx = _PACK.unpack_from(packed)
            same = how & _SERVICE_BITS == code and (own == session or not own or not session)
            if same and not sources & bit and now - at < _JOIN_WITHIN:
                kept[index] = (
                    _PACK.pack(at, delta, own, flags, how, event, sources | bit, pbx) + packed[_PACK_SIZE:]
                )
                self._put_back(key, kept)
                return

    def spend(self, key: Key, *, claimed: bool = False) -> None:
        """Take that a ban followed from what is kept: it leads to no other (``claimed``: no claimed one)."""
        bit = _CLAIM_SPENT if claimed else _SPENT
        kept = [
            packed[:_FLAGS] + bytes((packed[_FLAGS] | bit,)) + packed[_FLAGS + 1 :] for packed in self.of(key)
        ]
        if kept:
            self._put_back(key, kept)

    def of(self, key: Key) -> list[bytes]:
        """Give a copy of what is kept of a subject, oldest first."""
        for generation in reversed(self._generations):
            kept = generation.others.get(key)
            if kept is not None:
                return [kept] if isinstance(kept, bytes) else list(kept)
            singles = generation.claimed.get(len(key))  # none has the length of an IPv4 prefix
            single = singles.get(key) if singles is not None else None
            if single is not None:
                return [single]
        return []

    def attempts(self, key: Key) -> tuple[Attempt, ...]:
        """Give the same as values."""
        subject = network_of(key)
        return tuple(self.attempt_of(packed, subject) for packed in self.of(key))

    def attempt_of(self, packed: bytes, subject: Network) -> Attempt:
        """Give an attempt as a value."""
        at, delta, session, flags, how, event, sources, pbx = _PACK.unpack_from(packed)
        end, aimed = _ends(packed, how, event)
        own_address = packed[end : len(packed) - aimed]
        names = self._witnesses.names
        return Attempt(
            self._pbxs.names[pbx],
            ip_address(own_address) if own_address else subject.network_address,
            _KINDS[flags & 3],
            _PROOFS[flags >> 2 & 3],
            _SERVICES[how >> 4 & 7],
            _TRANSPORTS[how & 7],
            packed[_PACK_SIZE:end].decode("utf-8", "replace"),
            _EVENTS[event & _EVENT_BITS],
            at + (self._ahead or 0.0) + delta / _MILLI,
            bool(flags & _TRUSTED),
            bool(flags & _TAMPERED),
            ip_address(packed[-aimed:]) if aimed else None,
            session,
            tuple(name for number, name in enumerate(names) if sources >> number & 1),
        )

    def latest(self, most: int) -> Iterator[tuple[Key, list[bytes]]]:
        """Give ``most`` subjects with several attempts, the latest first, then as many with one."""
        several = (
            item for generation in reversed(self._generations) for item in _backwards(generation.others)
        )
        for key, kept in islice(several, most):
            yield key, [kept] if isinstance(kept, bytes) else list(kept)
        tables = (singles for g in reversed(self._generations) for singles in g.claimed.values())
        for key, packed in islice(chain.from_iterable(tables), most):
            yield key, [packed]

    def expire(self, now: float) -> None:
        """Let go of the subjects whose last attempt is older than ``seconds``."""
        stretch = self.seconds / _GENERATIONS
        while self._generations and now - self._generations[0].began >= self.seconds + stretch:
            self._size -= _size_of(self._generations.popleft())

    # -- how it is kept ---------------------------------------------------------------------------------

    def _generation(self, now: float) -> _Generation:
        latest = self._generations[-1] if self._generations else None
        if latest is None or now - latest.began >= self.seconds / _GENERATIONS:
            self.expire(now)
            self._generations.append(_Generation(now))
        return self._generations[-1]

    def _take(self, key: Key) -> list[bytes]:
        for generation in reversed(self._generations):
            kept = generation.others.pop(key, None)
            if kept is not None:
                return [kept] if isinstance(kept, bytes) else kept
            single = generation.claimed[len(key)].pop(key)
            if single is not None:
                return [single]
        return []

    def _put_back(self, key: Key, kept: list[bytes]) -> None:
        """Write what is kept of a subject in its place again."""
        for generation in reversed(self._generations):
            if key in generation.others:
                generation.others[key] = kept[0] if len(kept) == 1 else kept
                return
            if generation.claimed[len(key)].pop(key) is not None:
                if fact_of(kept[0]).proven:
                    generation.others[key] = kept[0]
                else:
                    generation.claimed[len(key)].put(key, kept[0])
                return

    def _make_room(self) -> None:
        """Forget some at once: to find the first of a table costs a look at all that went before it."""
        wanted = max(1, self._max // 256)
        tables = [singles for g in self._generations for singles in g.claimed.values() if len(singles)]
        if sum(map(len, tables)) * _SHARE >= self._max:
            gone = tables[0].drop(wanted)
            self._size -= gone
            self.evicted += gone
            return
        for generation in self._generations:
            others = [generation.others.pop(key) for key in list(islice(generation.others, wanted))]
            self._size -= sum(1 if isinstance(kept, bytes) else len(kept) for kept in others)
            self.evicted += len(others)
            if others:
                return

    def _pack(self, attempt: Attempt, now: float) -> bytes:
        flags = _KIND[attempt.kind] | attempt.proof << 2
        if attempt.trusted:
            flags |= _TRUSTED
        if attempt.tampered:
            flags |= _TAMPERED
        how = _SERVICE[attempt.service] | _TRANSPORT[attempt.transport]
        sources = 0
        for witness in attempt.sources:
            sources |= 1 << self._witnesses.number(witness)
        delta = int((attempt.time - now - (self._ahead or 0.0)) * _MILLI)
        rest = attempt.account.encode("utf-8", "replace")[:MAX_ACCOUNT]
        event = _EVENT[attempt.event]
        if isinstance(attempt.address, IPv6Address):
            event |= _HAS_ADDRESS
            rest += attempt.address.packed
        if attempt.aimed_at is not None:
            how |= 1 << (3 if len(attempt.aimed_at.packed) == _AIMED[1] else 7)
            rest += attempt.aimed_at.packed
        return (
            _PACK.pack(
                now,
                max(-_INT32, min(_INT32, delta)),
                attempt.session & _SESSION_BITS,
                flags,
                how,
                event,
                sources,
                self._pbxs.number(attempt.asterisk),
            )
            + rest
        )


def time_of(packed: bytes) -> float:
    """Give when an attempt was made (monotonic seconds)."""
    at: float = _AT.unpack_from(packed)[0]
    return at


def outline_of(kept: Sequence[bytes], account: bytes = b"") -> tuple[int, int, int, int]:
    """Say how many attempts may count at all: how many of them proven, not yet claimed for, and unknown.

    Nearly always that is enough to see that no rule is full, in a tenth of the time that facts take. With an
    ``account`` only those count whose account begins like it.
    """
    number = proven = fresh = unknown = 0
    for packed in kept:
        flags = packed[_FLAGS]
        if flags & _COUNTS == _TRUSTED and (not account or packed.startswith(account, _PACK_SIZE)):
            number += 1
            if flags & _PROVEN:
                proven += 1
            if not flags & _CLAIM_SPENT:
                fresh += 1
            if packed[_EVENT_AT] & _EVENT_BITS == _INVALID_ACCOUNT:
                unknown += 1
    return number, proven, fresh, unknown


def fact_from(attempt: Attempt, at: float) -> Fact:
    """Give an attempt that was made at ``at`` as rules see it."""
    return Fact(
        at,
        attempt.kind,
        attempt.proof is not Proof.CLAIMED,
        attempt.trusted,
        attempt.account.encode("utf-8", "replace")[:MAX_ACCOUNT],
        attempt.event,
        attempt.event is EventKind.INVALID_ACCOUNT_ID,
        attempt.session & _SESSION_BITS,
        spent=False,
        claim_spent=False,
    )


def fact_of(packed: bytes) -> Fact:
    """Give an attempt as rules see it."""
    at, _, session, flags, how, event, _, _ = _PACK.unpack_from(packed)
    return Fact(
        at,
        _KINDS[flags & 3],
        bool(flags >> 2 & 3),
        bool(flags & _TRUSTED),
        packed[_PACK_SIZE : _ends(packed, how, event)[0]],
        _EVENTS[event & _EVENT_BITS],
        event & _EVENT_BITS == _INVALID_ACCOUNT,
        session,
        bool(flags & _SPENT),
        bool(flags & _CLAIM_SPENT),
    )


def _ends(packed: bytes, how: int, event: int) -> tuple[int, int]:
    """Give where the account ends, and how long the address is that stands last."""
    aimed = _AIMED[how >> 3 & 1 | (how >> 7 & 1) << 1]
    return len(packed) - aimed - (_IPV6_BYTES if event & _HAS_ADDRESS else 0), aimed


def _least_telling(kept: list[bytes]) -> int:
    """Say which attempt can be spared (the head of this file says which)."""
    spent, aside = list[int](), {"untrusted": list[int](), "flood": list[int]()}
    for index, packed in enumerate(kept):
        flags = packed[_FLAGS]
        if flags & _SPENT:
            spent.append(index)
        elif not flags & _TRUSTED:
            aside["untrusted"].append(index)
        elif flags & _KIND_BITS == _KIND[AttemptKind.FLOOD]:
            aside["flood"].append(index)
    for indexes, most in ((spent, 0), *((indexes, ASIDE) for indexes in aside.values())):
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
    others = sum(1 if isinstance(kept, bytes) else len(kept) for kept in generation.others.values())
    return sum(map(len, generation.claimed.values())) + others
