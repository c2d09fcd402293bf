"""Bans by netlink: how changes become transactions, and what the kernel says of them outcomes, one by one.

A transaction of nftables happens as a whole or not at all. What is refused is taken out by where the kernel
stopped (its own account in an error, EXT_ACK), and the rest is sent again; after a few refusals by halves, so
that much that is bad costs no more than a few transactions each.

A set without room is told from that: the kernel names the first that found none. Of those behind it only
those go again that are in the set already (asked one by one, some 10 µs each); the others would find no room
either. So a full set costs one transaction more, and not one for each.

A timeout is renewed by adding again since kernel 6.12; before, adding again changes nothing. There an element
goes in with NLM_F_EXCL, and where one is there already its message goes again as add, delete and add: the
element then counts packets from 0. A removal of what is not there is no error since kernel 6.3; where that
is not known to hold it is added, if it is not there, and deleted, in the same transaction.
"""

import errno
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import define

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall import nft_elements as elements
from ringfence.firewall.contract import Add, Change, Outcome
from ringfence.firewall.ipset_messages import whole_seconds
from ringfence.firewall.netlink import Conversation, NetlinkError, Refusal
from ringfence.firewall.nft_messages import batch
from ringfence.firewall.nft_rules import TABLE, BanSet
from ringfence.model import Network

# After so many transactions with something to take out the rest goes by halves.
_PATIENCE = 3
# The kernel from which on adding an element again renews its timeout.
_RENEWS = (6, 12)
_MOMENT = 1  # seconds: the timeout of what is added in order to be deleted


@define
class Part:
    """Changes of one verb to one set, by their numbers in the batch: what goes in one message.

    ``anew``: an Add takes what may be there out first (add, delete, add).
    """

    ban: BanSet
    numbers: Sequence[int]
    adds: bool
    anew: bool = False

    def but(self, numbers: Sequence[int]) -> "list[Part]":
        """Give the same with these numbers only, or nothing where there are none."""
        return [Part(self.ban, numbers, self.adds, self.anew)] if numbers else []


class Changes:
    """Carries out the changes of one batch, over ``kernel``; their outcomes come into ``outcomes``.

    ``modern``: adding again renews (kernel 6.12).
    """

    def __init__(
        self, kernel: Conversation, batch: Sequence[Change], outcomes: list[Outcome], *, modern: bool
    ) -> None:
        self._kernel = kernel
        self._batch = batch
        self._outcomes = outcomes
        self._modern = modern
        self._seconds = [whole_seconds(change.timeout) if isinstance(change, Add) else 0 for change in batch]
        self.commits = 0
        """How many transactions the kernel has carried out."""

    def apply(self, by_set: Mapping[BanSet, Sequence[int]]) -> None:
        """Carry out the changes with these numbers, whose sets are there; each set's in their order."""
        lost: FirewallError | None = None
        for parts in self._transactions(by_set):
            if lost is not None:  # another request would only wait again
                self._refuse(_all(parts), lost)
            else:
                lost = self._send(parts)

    def _transactions(self, by_set: Mapping[BanSet, Sequence[int]]) -> Iterator[list[Part]]:
        """Cut changes into transactions, none longer than CHUNK elements."""
        parts: list[Part] = []
        size = 0
        for ban, numbers in by_set.items():
            for adds, run in self._runs(numbers):
                for at in range(0, len(run), elements.MAX_ELEMENTS):
                    part = Part(ban, run[at : at + elements.MAX_ELEMENTS], adds)
                    if size + len(part.numbers) > elements.CHUNK:
                        yield parts
                        parts, size = [], 0
                    parts.append(part)
                    size += len(part.numbers)
        if parts:
            yield parts

    def _runs(self, numbers: Sequence[int]) -> Iterator[tuple[bool, Sequence[int]]]:
        """Cut numbers into runs of one verb: True for Adds, which have a time."""
        seconds = self._seconds
        if all(map(seconds.__getitem__, numbers)):  # as it is with most that is long
            yield True, numbers
            return
        for adds, group in itertools.groupby(numbers, key=lambda number: seconds[number] > 0):
            yield adds, list(group)

    def _send(self, parts: list[Part]) -> FirewallError | None:
        """Send one transaction until what is left of it is done; give why the conversation broke, if so."""
        refusals: list[Refusal] = []
        for _ in range(_PATIENCE):
            sent = [(part, message) for part in parts for message in self._messages(part)]
            try:
                refusals = self._kernel.transact(batch(*(message for _, message in sent)))
            except FirewallError as error:
                self._refuse(_all(parts), error)
                return None if isinstance(error, NetlinkError) else error
            if not refusals:
                self.commits += 1
                self._confirm(parts)
                return None
            parts = self._without(parts, sent, refusals)
            if not parts:
                return None
        if len(parts) == 1 and len(parts[0].numbers) == 1:
            self._refuse(parts[0].numbers, _explain(parts[0].ban, refusals[0]))
            return None
        lost: FirewallError | None = None
        for half in _halves(parts):
            if lost is not None:
                self._refuse(_all(half), lost)
            else:
                lost = self._send(half)
        return lost

    def _messages(self, part: Part) -> Iterator[bytes]:
        name = part.ban.name
        if not part.adds:
            networks = [self._batch[number].network for number in part.numbers]
            if self._modern:
                yield elements.delete(TABLE, name, networks, lenient=True)
                return
            yield elements.add(TABLE, name, [(network, _MOMENT) for network in networks])
            yield elements.delete(TABLE, name, list(dict.fromkeys(networks)))
            return
        timed = [(self._batch[number].network, self._seconds[number]) for number in part.numbers]
        if part.anew:
            once = list(dict(timed).items())  # the last of a network counts
            yield elements.add(TABLE, name, timed)
            yield elements.delete(TABLE, name, [network for network, _ in once])
            yield elements.add(TABLE, name, once)
        else:
            yield elements.add(TABLE, name, timed, exclusive=not self._modern, renewing=self._modern)

    def _without(
        self, parts: list[Part], sent: Sequence[tuple[Part, bytes]], refusals: Sequence[Refusal]
    ) -> list[Part]:
        """Take out what was refused, and give what goes again."""
        first: dict[int, Refusal] = {}
        for refusal in refusals:
            part, _ = sent[refusal.place - 1]  # the batch begins with a message of its own
            first.setdefault(id(part), refusal)
        rest: list[Part] = []
        for part in parts:
            refused = first.get(id(part))
            if refused is None:
                rest.append(part)
            else:
                rest += self._mend(part, sent[refused.place - 1][1], refused)
        return rest

    def _mend(self, part: Part, request: bytes, refusal: Refusal) -> list[Part]:
        """Give what of ``part`` goes again; the outcomes of the rest are told."""
        place = elements.refused_place(request, refusal.offset)
        if place is None or place >= len(part.numbers):
            self._refuse(part.numbers, _explain(part.ban, refusal))
            return []
        if refusal.code == errno.EEXIST and part.adds and not part.anew:
            return [Part(part.ban, part.numbers, part.adds, anew=True)]
        if refusal.code == errno.ENFILE:
            return part.but(self._with_room(part, place, refusal))
        self._refuse(part.numbers[place : place + 1], _explain(part.ban, refusal))
        return part.but([*part.numbers[:place], *part.numbers[place + 1 :]])

    def _with_room(self, part: Part, place: int, refusal: Refusal) -> list[int]:
        """Give the changes that need no more room than there is."""
        kept = list(part.numbers[:place])
        known = {self._batch[number].network for number in kept}
        for number in part.numbers[place:]:
            network = self._batch[number].network
            if network in known or self._is_in(part.ban, network):
                kept.append(number)
            elif part.adds:
                self._refuse([number], _explain(part.ban, refusal))
            else:
                self._outcomes[number] = Outcome(self._batch[number])  # to be added first: it is not there
        return kept

    def _is_in(self, ban: BanSet, network: Network) -> bool:
        try:
            self._kernel.request(elements.query(TABLE, ban.name, network))
        except FirewallError:
            return False
        return True

    def _confirm(self, parts: Iterable[Part]) -> None:
        outcomes, batch, seconds = self._outcomes, self._batch, self._seconds
        for part in parts:
            for number in part.numbers:
                outcomes[number] = Outcome(batch[number], float(seconds[number]))

    def _refuse(self, numbers: Iterable[int], error: FirewallError) -> None:
        for number in numbers:
            self._outcomes[number] = Outcome(self._batch[number], error=error)


def _halves(parts: list[Part]) -> Iterator[list[Part]]:
    if len(parts) > 1:
        middle = len(parts) // 2
        yield from (parts[:middle], parts[middle:])
        return
    [part] = parts
    middle = len(part.numbers) // 2
    yield from (part.but(part.numbers[:middle]), part.but(part.numbers[middle:]))


def _all(parts: Iterable[Part]) -> Iterator[int]:
    return (number for part in parts for number in part.numbers)


def _explain(ban: BanSet, refusal: Refusal) -> FirewallError:
    if refusal.code == errno.ENFILE:
        return SetFullError(
            f"set {ban.name} is full; mend: a larger set, then `ringfence off` and `ringfence on`"
        )
    if refusal.code == errno.ENOENT:
        return FirewallError(
            f"set {ban.name} of table inet {TABLE} is gone: somebody removed it; opening the firewall again "
            "makes it anew"
        )
    return NetlinkError(refusal.code, b"")


def renews(release: str) -> bool:
    """Say whether a kernel of that release renews the timeout of an element that is added again."""
    numbers = []
    for part in release.split("-", 1)[0].split(".")[:2]:
        if not part.isdecimal():
            return False
        numbers.append(int(part))
    return tuple(numbers) >= _RENEWS
