"""Checks of the sets: their headers, and one sample element of each.

A header contains the number of elements with time left, and the number of rules that name the set. A ban may
end at any moment, so the number of elements alone proves little. Therefore ringfence remembers for each set
of bans one recent ban, the *sample*, and looks it up, in one short exchange. If it is missing before its end,
another program has flushed, swapped or replaced the set, even if the set has other elements since.
"""

import time
from collections.abc import Sequence

from attrs import frozen

from ringfence.firewall.contract import Add, Change, whole_seconds
from ringfence.firewall.ipset.sets import SetSpec, contains, read_header
from ringfence.model import Network
from ringfence.netlink.connection import NetlinkConnection

# Seconds by which the end of a ban in the kernel may differ from the end that ringfence computed.
_MARGIN = 2.0
# The sample is one remembered ban of a set. Up to this many changes at once are searched for one that
# concerns it. After more changes at once, it is discarded.
_FEW = 64
# Network lists with more elements are not counted each second.
_LONG = 4096


@frozen
class _Sample:
    network: Network
    end: float


class SampleBans:
    """Remembers a sample for each set of bans.

    If the sample is missing before its end, another program has emptied or replaced the set.
    """

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}

    def record(self, name: str, changes: Sequence[Change]) -> None:
        """Update the sample of the set ``name`` after acknowledged changes, all Add or all Remove.

        The present sample is discarded if one of the changes concerns it, or if there are more than ``_FEW``
        changes: a search would take too long. If the last change is an Add, its ban becomes the sample,
        unless the present sample was not discarded and ends later.
        """
        if not changes:
            return
        known = self._samples.get(name)
        last = changes[-1]
        if len(changes) <= _FEW and known is not None:
            if any(change.network == known.network for change in changes):
                known = None
        elif len(changes) > _FEW:
            known = None
        if isinstance(last, Add):
            end = time.monotonic() + whole_seconds(last.timeout)
            if known is None or end > known.end:
                known = _Sample(last.network, end)
        if known is None:
            self._samples.pop(name, None)
        else:
            self._samples[name] = known

    def first_missing(self, kernel: NetlinkConnection) -> str | None:
        """Return a message about a set whose sample is missing before its end; None if all samples exist."""
        return next((f"set {name} has lost a ban" for name in self._lost(kernel)), None)

    def discard_missing(self, kernel: NetlinkConnection) -> None:
        """Forget the samples that are no longer in their sets, because these sets were made again."""
        for name in self._lost(kernel):
            del self._samples[name]

    def _lost(self, kernel: NetlinkConnection) -> list[str]:
        soon = time.monotonic() + _MARGIN
        return [
            name
            for name, sample in self._samples.items()
            if sample.end > soon and not contains(kernel, name, sample.network)
        ]


@frozen
class WrittenList:
    """The contents that were written to the set of a network list.

    ``elements`` is its number of elements. ``sample`` is one of them; None if the list is empty or its
    contents are unknown.
    """

    elements: int
    sample: Network | None = None


def check_set(
    kernel: NetlinkConnection, spec: SetSpec, references: int, filled: WrittenList | None
) -> tuple[str | None, int]:
    """Return a message about damage to a set (None without damage), and its number of bans.

    The number is 0 if the set does not hold bans. ``references`` is how often our rules name the set; if the
    kernel counts fewer references, rules are missing. ``filled`` is what was written to the set if it is a
    network list, else None.

    Of a long network list, only the sample is looked up, because the kernel takes long to return the header
    (40 ms for a million elements).
    """
    if filled is not None and filled.elements > _LONG:
        lost = filled.sample is not None and not contains(kernel, spec.name, filled.sample)
        return (f"set {spec.name} has lost a network" if lost else None), 0
    head = read_header(kernel, spec.name)
    if head is None:
        return f"set {spec.name} is gone", 0
    elements = head.elements if spec.bans else 0
    if head.references < references:
        return f"rules that name set {spec.name} are gone", elements
    if filled is not None and head.elements != filled.elements:
        return f"set {spec.name} has {head.elements} elements instead of {filled.elements}", elements
    return None, elements
