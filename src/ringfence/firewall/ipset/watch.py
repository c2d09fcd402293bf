"""Checks of the sets: their headers, and one sample element of each.

A header contains the number of elements with time left, and the number of rules that name the set. A ban may
end at any moment, so the number alone proves little. Therefore each set of bans has a sample: the ban with
the latest end among those acknowledged recently. It is looked up in one short exchange. So a flush, a swap
and a new set are noticed, even if another program has added other elements since.
"""

import time
from collections.abc import Sequence

from attrs import frozen

from ringfence.firewall.contract import Add, Change, whole_seconds
from ringfence.firewall.ipset.kernel import contains, read_header
from ringfence.firewall.ipset.sets import SetSpec
from ringfence.model import Network
from ringfence.netlink.connection import NetlinkConnection

# Seconds by which the kernel's end of a ban and ours may differ.
_MARGIN = 2.0
# For a larger batch its last ban becomes the sample, without a search for the latest end.
_FEW = 64
# Network lists with more elements are not counted each second.
_LONG = 4096


@frozen
class _Sample:
    network: Network
    end: float


class SampleBans:
    """For each set of bans one ban that should be in it."""

    def __init__(self) -> None:
        self._samples: dict[str, _Sample] = {}

    def record(self, name: str, changes: Sequence[Change]) -> None:
        """Record acknowledged changes of one kind."""
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
        """Name a set that lost its sample before its end."""
        return next((f"set {name} has lost a ban" for name in self._lost(kernel)), None)

    def discard_missing(self, kernel: NetlinkConnection) -> None:
        """Forget the samples that are gone: a new set has none."""
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
    """A list as it was written: the number of its elements, and one of them (None: unknown, or none)."""

    elements: int
    sample: Network | None = None


def check_set(
    kernel: NetlinkConnection, spec: SetSpec, references: int, filled: WrittenList | None
) -> tuple[str | None, int]:
    """Return the damage to a set, and its number of elements if these are bans.

    ``references`` is the number of references by our rules. The header of a long list takes the kernel long
    (40 ms for a million elements): only its sample is looked up. The check of the rules already shows that
    the rules name it.
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
