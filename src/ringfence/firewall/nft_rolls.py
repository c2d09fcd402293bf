"""The rolls of nftables, as they were left: a change of one line sends one line.

To clear an interval set of 100 000 and fill it again takes the kernel 0.6 s of CPU, sometimes 5 s, and the
event loop waits for it; to find out which line is new and to send it takes 0.15 s. So what a roll was given
last is remembered as the ranges that the set holds, and only the differences go: what is not wanted any more
out, then what is new in, in one transaction. In this order nothing overlaps; and packets meet all of the old
roll until they meet all of the new.

What is remembered is believed while the kernel counts as many ranges as there ought to be; where it does not
count (before 6.16), while nobody else has changed anything at all. Else, and where it refuses the
differences, the roll is cleared and filled whole, in one transaction likewise. Somebody who puts as many in
as he takes out is not noticed by the count.
"""

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import field, frozen

from ringfence.errors import FirewallError
from ringfence.firewall import nft_elements as elements
from ringfence.firewall import nft_messages as messages
from ringfence.firewall.contract import Roll
from ringfence.firewall.netlink import Conversation, NetlinkError, Refusal
from ringfence.firewall.nft_messages import SetHead
from ringfence.firewall.nft_rules import BITS, TABLE, VERSIONS
from ringfence.model import Network

Range = tuple[int, int]


@frozen
class Ranges:
    """Ranges of addresses in order, packed: 8 bytes for one of IPv4, 32 for one of IPv6."""

    version: int
    packed: bytes

    @classmethod
    def of(cls, version: int, networks: Sequence[Network]) -> "Ranges":
        """Give what ``networks``, of one IP version, cover."""
        ranges, size = elements.merged(networks), BITS[version] // 8
        if version == 4:  # noqa: PLR2004 - IPv4, in one stroke
            packed = struct.pack(f">{2 * len(ranges)}I", *(end for one in ranges for end in one))
        else:
            packed = b"".join([end.to_bytes(size, "big") for one in ranges for end in one])
        return cls(version, packed)

    def __len__(self) -> int:
        return len(self.packed) // (BITS[self.version] // 4)

    def __iter__(self) -> Iterator[Range]:
        return map(_range, self.rows())

    @property
    def counted(self) -> int:
        """How many the kernel counts: half of its elements, and a range to the end of all has one."""
        return len(self) - self.packed.endswith(b"\xff" * (BITS[self.version] // 8))

    def rows(self) -> list[bytes]:
        """Give each range by itself, still packed: ranges as numbers are slow to make and to compare."""
        packed, width = self.packed, BITS[self.version] // 4
        return [packed[at : at + width] for at in range(0, len(packed), width)]


def _range(row: bytes) -> Range:
    half = len(row) // 2
    return int.from_bytes(row[:half], "big"), int.from_bytes(row[half:], "big")


def differences(held: Ranges, wanted: Ranges) -> tuple[list[Range], list[Range]]:
    """Give the ranges that only ``held`` has and those that only ``wanted`` has, in order."""
    if held == wanted:
        return [], []
    before, after = set(held.rows()), set(wanted.rows())
    return [*map(_range, sorted(before - after))], [*map(_range, sorted(after - before))]


@frozen
class Filling:
    """What makes a roll what it is to be: the messages of one transaction, and what its sets hold then."""

    roll: Roll
    parts: Sequence[bytes]
    left: Mapping[str, Ranges]
    size: int
    """How many elements are changed."""
    partial: bool = False
    """Whether any set gets the differences only."""


@frozen
class Rolls:
    """What the sets of the rolls hold, as far as it is known."""

    _held: dict[str, Ranges] = field(factory=dict, init=False)
    _doubted: set[str] = field(factory=set, init=False)

    def doubt(self) -> None:
        """Take note that somebody else has changed something: from now on only a count is believed."""
        self._doubted.update(self._held)

    def forget(self) -> None:
        """Know nothing any more: the next filling of each is whole."""
        self._held.clear()

    def trouble(self, heads: Iterable[SetHead]) -> str | None:
        """Say which set has not as many ranges as it was given, where the kernel counts."""
        for head in heads:
            held = self._held.get(head.name)
            if held is not None and head.elements not in (None, held.counted):
                return f"set {head.name} has {head.elements} elements and was given {held.counted}"
        return None

    def filling(self, roll: Roll, networks: Iterable[Network], heads: Iterable[SetHead]) -> Filling:
        """Work out what is to be sent, where ``heads`` are the sets that there are."""
        counts = {head.name: head.elements for head in heads}
        sorted_: dict[int, list[Network]] = {version: [] for version in VERSIONS}
        for network in networks:
            sorted_[network.version].append(network)
        parts: list[bytes] = []
        left: dict[str, Ranges] = {}
        size, partial = 0, False
        for version in VERSIONS:
            name = f"{roll}{version}"
            wanted = Ranges.of(version, sorted_[version])
            held = self._held.get(name)
            left[name] = wanted
            if held is not None and self._is_there(name, held, counts):
                gone, new = differences(held, wanted)
                if len(gone) + len(new) <= len(wanted):  # else it is quicker whole
                    parts += elements.intervals(TABLE, name, version, gone, out=True)
                    parts += elements.intervals(TABLE, name, version, new)
                    size += 2 * (len(gone) + len(new))
                    partial = True
                    continue
            parts += [elements.clear(TABLE, name), *elements.intervals(TABLE, name, version, list(wanted))]
            size += 2 * len(wanted) + (2 * len(held) if held is not None else 0)
        return Filling(roll, parts, left, size, partial)

    def _is_there(self, name: str, held: Ranges, counts: Mapping[str, int | None]) -> bool:
        count = counts.get(name, -1)
        return count == held.counted or (count is None and name not in self._doubted)

    def send(self, kernel: Conversation, filling: Filling) -> bool:
        """Send it; False where the differences met something else than what is remembered. Then forget."""
        refusals: Sequence[Refusal] = ()
        if filling.parts:
            try:
                refusals = kernel.transact(messages.batch(*filling.parts))
            except FirewallError:
                self._drop(filling)
                raise
        if not refusals:
            self._held.update(filling.left)
            self._doubted.difference_update(filling.left)
            return True
        self._drop(filling)
        if filling.partial:
            return False
        if any(refusal.code == errno.ENOENT for refusal in refusals):
            raise FirewallError(
                f"a set of the list {filling.roll} is gone: somebody removed it; opening the firewall again "
                "makes it anew"
            )
        raise NetlinkError(refusals[0].code, b"")

    def _drop(self, filling: Filling) -> None:
        for name in filling.left:
            self._held.pop(name, None)
