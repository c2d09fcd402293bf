"""The sets of network lists in nftables: what they contain, and how their contents are replaced in steps.

While the kernel works on a transaction, bans wait: 0.8 s for 100 000 ranges at once. If ringfence listens for
changes, the notifications of so many elements add another second. So ringfence changes a list by transactions
of a few thousand ranges, 40 ms each. Bans go between two of them.

If the set is long, a small transaction takes long too: at each commit Linux 6.18 copies the set, and once a
second it looks for expired elements. With 250 000 ranges this takes 65 to 140 ms. So that the event loop need
not wait, the changes of elements have a connection of their own, and the caller may make them in another
thread (:class:`Transaction`).

Ringfence keeps in memory the ranges that it wrote last to each list (the stored ranges). It sends only the
differences, in the order of the addresses. Each transaction first removes ranges and then adds others. Ranges
that overlap are always in one transaction, so an address that is on both the old and the new list is found at
every moment.

The stored ranges count as correct while the kernel has the same number of elements. If another program adds
as many elements as it removes, this goes unnoticed. If the kernel does not count elements (before 6.16), the
stored ranges count as correct until another program changes our table.

The list is written as a whole if the stored ranges are not correct, if the kernel refuses the differences, if
too many ranges overlap, or if a short list has fewer ranges than differences. If the list and the present set
are short, one transaction clears and fills the set. Otherwise an alternate set is filled. The rules use
it when it is complete.
"""

import errno
import struct
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from ipaddress import ip_network
from itertools import chain

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import ListSteps
from ringfence.firewall.nftables import elements
from ringfence.firewall.nftables.installation import CallSteps, Installation
from ringfence.firewall.nftables.messages import NftSetHeader
from ringfence.firewall.nftables.ruleset import TABLE, alternate_name, base_name
from ringfence.firewall.nftables.state import read_sets
from ringfence.firewall.nftables.watch import ForeignChanges
from ringfence.netlink.connection import (
    NetlinkConnection,
    NetlinkError,
    NetlinkLostError,
    NetlinkTooLongError,
    Refusal,
)
from ringfence.values.network import BITS, VERSIONS, Network, RangedNetworks

Range = tuple[int, int]

_MOST = 5_000
"""The maximum number of ranges in a transaction; fewer if the send buffer is small.

They take 40 ms, less than the copy of a long set.
"""
_COMPARED = 64
"""The number of ranges in a part that :meth:`Ranges.without` compares as bytes."""
_SHORT = 2_500
"""The maximum number of ranges in a list that may be cleared and filled in one transaction."""


@frozen
class Ranges:
    """Ranges of addresses in order, each packed as its first and its last address.

    A range has 8 bytes for IPv4, 32 for IPv6.
    """

    version: int
    packed: bytes

    @classmethod
    def covering(cls, version: int, networks: Sequence[Network]) -> "Ranges":
        """Return the ranges that ``networks``, of one IP version, cover."""
        return cls.between(version, [*chain.from_iterable(elements.merged(networks))])

    @classmethod
    def between(cls, version: int, bounds: Sequence[int]) -> "Ranges":
        """Return ranges that are in order, and neither overlapping nor adjacent.

        ``bounds`` are the first and the last address of each range, one after the other.
        """
        size = BITS[version] // 8
        if version == 4:  # noqa: PLR2004 - IPv4, in one step
            return cls(version, struct.pack(f">{len(bounds)}I", *bounds))
        return cls(version, b"".join([one.to_bytes(size, "big") for one in bounds]))

    def __len__(self) -> int:
        return len(self.packed) // (BITS[self.version] // 4)

    def __iter__(self) -> Iterator[Range]:
        return map(_range, self.rows())

    @property
    def counted(self) -> int:
        """The number of ranges as the kernel counts them.

        The kernel does not count a range that ends at the last possible address.
        """
        return len(self) - self.packed.endswith(b"\xff" * (BITS[self.version] // 8))

    def rows(self) -> list[bytes]:
        """Return each range as packed bytes."""
        return self._rows(self.packed)

    def without(self, other: "Ranges") -> list[bytes]:
        """Return each range, packed and in order, that ``other`` does not have.

        Parts of ``_COMPARED`` ranges are compared as bytes. Most are equal; only the others need a set.
        """
        packed, half, found = self.packed, BITS[self.version] // 8, list[bytes]()
        length = _COMPARED * 2 * half
        begin = other.offset_of(packed[:half])
        for at in range(0, len(packed), length):
            mine, following = packed[at : at + length], packed[at + length : at + length + half]
            end = other.offset_of(following) if following else len(other.packed)
            theirs = other.packed[begin:end]
            if mine != theirs:
                known = set(self._rows(theirs))
                found += [row for row in self._rows(mine) if row not in known]
            begin = end
        return found

    def up_to(self, last: bytes) -> bytes:
        """Return the ranges, packed, that begin at the packed address ``last`` or before."""
        return self.packed[: self._offset_behind(last)]

    def after(self, last: bytes) -> bytes:
        """Return the ranges, packed, that begin after the packed address ``last``."""
        return self.packed[self._offset_behind(last) :]

    def _rows(self, packed: bytes) -> list[bytes]:
        width = BITS[self.version] // 4
        return [packed[at : at + width] for at in range(0, len(packed), width)]

    def offset_of(self, first: bytes) -> int:
        """Return the byte offset of the first range that begins at the packed address ``first`` or after."""
        width = BITS[self.version] // 4
        return width * bisect_left(range(0, len(self.packed), width), first, key=self._start_at)

    def _offset_behind(self, last: bytes) -> int:
        """Return the byte offset of the first range that begins after the packed address ``last``."""
        width = BITS[self.version] // 4
        return width * bisect_right(range(0, len(self.packed), width), last, key=self._start_at)

    def _start_at(self, offset: int) -> bytes:
        return self.packed[offset : offset + BITS[self.version] // 8]


def _range(row: bytes) -> Range:
    half = len(row) // 2
    return int.from_bytes(row[:half], "big"), int.from_bytes(row[half:], "big")


class Difference:
    """The changes that turn the ranges ``held`` into the ranges ``wanted``.

    :meth:`next_change` returns them one after the other. ``len()`` is the number of ranges that are left to
    remove or add.
    """

    def __init__(self, held: Ranges, wanted: Ranges) -> None:
        self.held = held
        self.wanted = wanted
        self._half = BITS[wanted.version] // 8
        self._removed_at = self._added_at = 0
        self._removed = held.without(wanted)
        self._added = wanted.without(held)

    def __len__(self) -> int:
        return len(self._removed) + len(self._added) - self._removed_at - self._added_at

    def next_change(self, most: int) -> "RangeChange | None":
        """Return the next change, of about ``most`` ranges; None if the next change would be far larger.

        Overlapping ranges belong in one transaction, so they may make a change larger than ``most``.
        """
        gone, new, half = self._removed, self._added, self._half
        before, after, end, taken = self._removed_at, self._added_at, b"", 0
        while before < len(gone) or after < len(new):
            is_gone = after == len(new) or (before < len(gone) and gone[before] <= new[after])
            row = gone[before] if is_gone else new[after]
            if taken >= most and row[:half] > end:
                break
            if taken > most + _MOST:
                return None
            before, after, taken = before + is_gone, after + (not is_gone), taken + 1
            end = max(end, row[half:])
        change = RangeChange(
            [*map(_range, gone[self._removed_at : before])], [*map(_range, new[self._added_at : after])], end
        )
        self._removed_at, self._added_at = before, after
        return change

    def contents_after(self, last: bytes) -> Ranges:
        """Return what the set contains after the changes so far.

        These are all changes that :meth:`next_change` returned. ``last`` is the last address of the latest
        change.
        """
        if not len(self):
            return self.wanted
        return Ranges(self.wanted.version, self.wanted.up_to(last) + self.held.after(last))

    def put_back(self, change: "RangeChange") -> None:
        """Undo the last :meth:`next_change`, which returned ``change``."""
        self._removed_at -= len(change.removed)
        self._added_at -= len(change.added)


@frozen
class RangeChange:
    """Ranges to remove from a set, and to add, in one transaction; ``last`` is their last address, packed."""

    removed: Sequence[Range]
    added: Sequence[Range]
    last: bytes

    def messages(self, name: str, version: int) -> list[bytes]:
        """Build the netlink messages that make this change in the set ``name``."""
        return [
            *elements.intervals(TABLE, name, version, self.removed, remove=True),
            *elements.intervals(TABLE, name, version, self.added),
        ]

    def __len__(self) -> int:
        return len(self.removed) + len(self.added)


class _Refused(Exception):  # noqa: N818 - for this file alone
    """The kernel refused a transaction. Another program has probably changed the set since we wrote it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


class Transaction:
    """A transaction that another thread may carry out.

    ``sender`` is the connection of the lists. ``sending`` is its lock: only one thread at a time may use it.
    ``requests`` builds the messages.
    """

    def __init__(
        self, sender: NetlinkConnection, sending: threading.Lock, requests: Callable[[], Sequence[bytes]]
    ) -> None:
        self._sender = sender
        self._sending = sending
        self._requests = requests
        self._ended = False
        self._result: Sequence[Refusal] | FirewallError | None = None

    @property
    def carried_out(self) -> bool:
        """Whether the kernel has confirmed the transaction."""
        return self._result is not None and not self._result

    @property
    def uncertain(self) -> bool:
        """Whether the kernel's answer was lost."""
        return isinstance(self._result, NetlinkLostError)

    def run(self) -> None:
        """Carry the transaction out, unless it has ended. An error is kept for :meth:`raise_error`."""
        with self._sending:
            if self._ended:
                return
            try:
                self._result = self._sender.transact(*self._requests())
            except FirewallError as error:
                self._result = error

    def end(self) -> None:
        """Wait until a :meth:`run` in progress has ended. A later :meth:`run` does nothing."""
        with self._sending:
            self._ended = True

    def raise_error(self) -> None:
        """Raise the FirewallError with which the transaction failed, _Refused if the kernel refused it."""
        if isinstance(self._result, FirewallError):
            raise self._result
        if self._result:
            raise _Refused(self._result[0])


class NetworkListSets:
    """The sets of network lists in our table, and the ranges that were written to them.

    The parameter ``base`` is the base name of a list's set, such as ``deny4``. ``sender`` is the connection
    for changes of elements, ``kernel`` the one for everything else.
    """

    def __init__(
        self,
        kernel: NetlinkConnection,
        sender: NetlinkConnection,
        foreign: ForeignChanges,
        installation: Installation,
    ) -> None:
        self._kernel = kernel
        self._sender = sender
        self._sending = threading.Lock()
        self._foreign = foreign
        self._installation = installation
        self._held: dict[str, Ranges] = {}
        self._epochs: dict[str, int] = {}  # by base name: ForeignChanges.epoch when the ranges were stored
        self._changing: set[str] = set()  # the base names of the lists that a transaction changes just now
        self._size = _MOST

    def forget(self) -> None:
        """Forget the stored ranges: the next replacement writes each list as a whole."""
        self._held.clear()

    def record_empty(self) -> None:
        """Record that the sets of all lists are new and empty."""
        for which in network_lists.every():
            for version in VERSIONS:
                self._record(f"{which}{version}", Ranges(version, b""), self._foreign.epoch)

    def damage(self, heads: Iterable[NftSetHeader]) -> str | None:
        """Return a message about a set whose number of elements differs from that of its stored ranges.

        None if all numbers agree. A set is not checked if the kernel does not count its elements, if no
        ranges are stored for it, or while a transaction changes it.
        """
        return next((text for _, text in self._damaged(heads)), None)

    def forget_damaged(self, heads: Iterable[NftSetHeader]) -> bool:
        """Forget the stored ranges of all sets that :meth:`damage` reports; return whether there are any.

        The next replacement writes such a list as a whole. Until then :meth:`damage` does not check it.
        """
        damaged = [base for base, _ in self._damaged(heads)]
        for base in damaged:
            del self._held[base]
        return bool(damaged)

    def _damaged(self, heads: Iterable[NftSetHeader]) -> Iterator[tuple[str, str]]:
        """Yield the base name of each damaged list (``deny4``), with a message."""
        for head in heads:
            base = base_name(head.name)
            if base is None or base in self._changing or self._name(base) != head.name:
                continue
            held = self._held.get(base)
            if held is not None and head.elements not in (None, held.counted):
                yield base, f"set {head.name} has {head.elements} elements instead of {held.counted}"

    def compare(self, base: str, wanted: Ranges) -> Difference:
        """Return the difference between the stored ranges of the list ``base`` and the ranges ``wanted``.

        May be called in another thread.
        """
        return Difference(self._held.get(base, Ranges(wanted.version, b"")), wanted)

    def close(self) -> None:
        """Close the connection for transactions. Idempotent."""
        with self._sending:
            self._sender.close()

    def apply_in_steps(self, base: str, difference: Difference) -> ListSteps:
        """Change the set of the list ``base`` (``deny4``) as ``difference`` requires, in transactions.

        Each step yields the call that carries out a transaction, and then None. The caller must make the call
        before it continues; it may do so in another thread. At None it may do other work. If the caller
        closes the generator, a transaction in progress ends first.

        Raises FirewallError. The set may then hold part of the new ranges and the rest of the old ones.
        """
        wanted = difference.wanted
        counts = {head.name: head.elements for head in read_sets(self._kernel)}
        if self._name(base) not in counts:
            self._held.pop(base, None)
            raise _missing_set(base)
        held = self._known_ranges(base, counts)
        if held is not None and (len(wanted) > _SHORT or len(difference) <= len(wanted)):
            if held != difference.held:  # they have changed since :meth:`compare`
                difference = yield from _difference(held, wanted)
            try:
                yield from self._change(base, self._name(base), difference)
                if not len(difference):
                    return
            except _Refused as refused:
                self._held.pop(base, None)
                # ENOENT: no such set, or no such element. If no element was removed, the set is gone.
                if refused.refusal.code == errno.ENOENT and not difference.held:
                    raise _missing_set(base) from None
        if len(wanted) <= _SHORT and (counts[self._name(base)] or 0) <= _SHORT:
            yield from self._refill(base, wanted)
        else:
            yield from self._fill_alternate(base, wanted)

    def _name(self, base: str) -> str:
        return self._installation.list_names.get(base, base)

    def _known_ranges(self, base: str, counts: Mapping[str, int | None]) -> Ranges | None:
        """Return the contents of the set of the list ``base`` (``deny4``), None if they are unknown.

        ``counts`` has the kernel's number of elements of each set, None if the kernel does not count.
        """
        count, held = counts.get(self._name(base), -1), self._held.get(base)
        if held is None:
            return Ranges(int(base[-1]), b"") if count == 0 and not self._has_last_address(base) else None
        trusted = count is None and self._epochs[base] == self._foreign.epoch
        return held if count == held.counted or trusted else None

    def _has_last_address(self, base: str) -> bool:
        """Whether the set has the last address: a range up to it is not counted (``counted``)."""
        last = ip_network((1 << BITS[int(base[-1])]) - 1)
        try:
            self._kernel.request(elements.query_elements(TABLE, self._name(base), last))
        except NetlinkError as error:
            if error.code == errno.ENOENT:
                return False
            raise
        return True

    def _change(self, base: str, name: str, difference: Difference) -> ListSteps:
        """Apply a difference to the set ``name`` of the list ``base`` (``deny4``), one transaction a step.

        Stop when the difference is complete, or when the remaining ranges overlap too much to be divided.
        """
        epoch = self._foreign.epoch  # if another program changes the table now, the ranges are not trusted
        while len(difference):
            change = difference.next_change(self._size)
            if change is None:
                return
            requests = partial(change.messages, name, difference.wanted.version)
            held = difference.contents_after(change.last) if name == self._name(base) else None
            try:
                yield from self._carry_out(base, requests, 2 * len(change), held, epoch)
            except NetlinkTooLongError:
                if len(change) <= 1 or self._size <= 1:
                    raise
                difference.put_back(change)
                self._size = max(1, min(self._size, len(change)) // 2)
                continue
            yield None

    def _refill(self, base: str, wanted: Ranges) -> ListSteps:
        """Clear the set of the short list ``base`` (``deny4``) and fill it again, in one transaction.

        If the transaction is too long, fill the alternate set instead. Raise FirewallError.
        """
        name = self._name(base)
        requests = [
            elements.clear_elements(TABLE, name),
            *elements.intervals(TABLE, name, wanted.version, list(wanted)),
        ]
        self._held.pop(base, None)
        try:
            yield from self._carry_out(base, lambda: requests, 4 * _SHORT, wanted, self._foreign.epoch)
        except NetlinkTooLongError:
            yield from self._fill_alternate(base, wanted)
            return
        except _Refused as refused:
            if refused.refusal.code == errno.ENOENT:
                raise _missing_set(base) from None
            raise NetlinkError(refused.refusal.code, b"") from None
        yield None

    def _fill_alternate(self, base: str, wanted: Ranges) -> ListSteps:
        """Fill the alternate set of the list ``base`` in steps, then let the rules use it.

        This is for lists that are too long for one transaction: the present set stays complete meanwhile.
        Raise FirewallError if another program changes the alternate set.
        """
        other = alternate_name(self._name(base))
        self._held.pop(base, None)
        yield from self._installation.make_empty(other, wanted.version)
        yield None
        difference = yield from _difference(Ranges(wanted.version, b""), wanted)
        try:
            yield from self._change(base, other, difference)
        except _Refused:
            raise FirewallError(
                f"set {other} could not be filled: another program changes it meanwhile"
            ) from None
        counts = {head.name: head.elements for head in read_sets(self._kernel)}
        if counts.get(other, -1) not in (None, wanted.counted):
            raise FirewallError(f"set {other} is not as it was filled: another program changes it meanwhile")
        yield from self._installation.switch_list(base, other)
        self._record(base, wanted, self._foreign.epoch)
        yield None

    def _record(self, base: str, held: Ranges, epoch: int) -> None:
        self._held[base] = held
        self._epochs[base] = epoch

    def _carry_out(
        self, base: str, requests: Callable[[], Sequence[bytes]], size: int, held: Ranges | None, epoch: int
    ) -> ListSteps:
        """Carry out one transaction of ``size`` elements for the list ``base`` (``deny4``).

        ``requests`` builds its messages. ``held`` are the ranges of the list's set afterwards, unless another
        program has changed the table since ``epoch``; None if another set is changed. Raise FirewallError, or
        _Refused. If the caller closes the generator, this waits until the transaction has ended.
        """
        transaction = Transaction(self._sender, self._sending, requests)
        with self._foreign.unmonitored() if size > elements.CHUNK else nullcontext():
            self._changing.add(base)
            try:
                yield transaction.run
            finally:
                transaction.end()
                self._changing.discard(base)
                if transaction.carried_out:
                    self._foreign.commits += 1
                    if held is not None:
                        self._record(base, held, epoch)
                elif transaction.uncertain:
                    self._held.pop(base, None)
        transaction.raise_error()


def _difference(held: Ranges, wanted: Ranges) -> CallSteps[Difference]:
    """Return the difference; another thread may compute it, which takes 0.2 s for 250 000 ranges."""
    found: list[Difference] = []
    yield lambda: found.append(Difference(held, wanted))
    return found[0]


def by_version(networks: Iterable[Network]) -> dict[int, Ranges]:
    """Return the ranges that ``networks`` cover, by IP version."""
    if isinstance(networks, RangedNetworks):
        return {version: Ranges.between(version, networks.bounds(version)) for version in VERSIONS}
    sorted_: dict[int, list[Network]] = {version: [] for version in VERSIONS}
    for network in networks:
        sorted_[network.version].append(network)
    return {version: Ranges.covering(version, sorted_[version]) for version in VERSIONS}


def _missing_set(base: str) -> FirewallError:
    return FirewallError(
        f"a set of the list {base[:-1]} is gone: another program removed it; opening the "
        "firewall again creates it"
    )
