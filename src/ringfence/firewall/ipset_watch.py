"""Whether the sets are still what they were: their heads, and one ban of each that ought to be in it.

A head says how many elements have time left and how many rules name the set. A ban may end at any moment, so
its set's number says little; therefore each set of bans has a witness, of those that were acknowledged lately
the one that ends last. It is asked for by name, one short exchange, and `ipset flush`, a swap and a set made
anew are seen even where somebody has put other elements in since.
"""

import time
from collections.abc import Sequence

from attrs import frozen

from ringfence.firewall import ipset_messages as messages
from ringfence.firewall.contract import Add, Change
from ringfence.firewall.ipset_kernel import contains, head_of
from ringfence.firewall.ipset_sets import Kind
from ringfence.firewall.netlink import Conversation
from ringfence.model import Network

# Seconds by which the kernel's end of a ban and ours may differ.
_MARGIN = 2.0
# In a batch of more changes none is looked for: its last one becomes the witness.
_FEW = 64
# Elements of a roll that are not counted each second.
_LONG = 4096


@frozen
class _Witness:
    network: Network
    end: float


class Witnesses:
    """For each set of bans one that ought to be in it."""

    def __init__(self) -> None:
        self._of: dict[str, _Witness] = {}

    def note(self, name: str, changes: Sequence[Change]) -> None:
        """Take note of acknowledged changes of one verb."""
        if not changes:
            return
        known = self._of.get(name)
        last = changes[-1]
        if len(changes) <= _FEW and known is not None:
            if any(change.network == known.network for change in changes):
                known = None
        elif len(changes) > _FEW:
            known = None
        if isinstance(last, Add):
            end = time.monotonic() + messages.whole_seconds(last.timeout)
            if known is None or end > known.end:
                known = _Witness(last.network, end)
        if known is None:
            self._of.pop(name, None)
        else:
            self._of[name] = known

    def missing(self, kernel: Conversation) -> str | None:
        """Say which set has lost its witness before its time."""
        return next((f"set {name} has lost a ban" for name in self._lost(kernel)), None)

    def keep(self, kernel: Conversation) -> None:
        """Forget those that are gone: a set that was made anew has none."""
        for name in self._lost(kernel):
            del self._of[name]

    def _lost(self, kernel: Conversation) -> list[str]:
        soon = time.monotonic() + _MARGIN
        return [
            name
            for name, witness in self._of.items()
            if witness.end > soon and not contains(kernel, name, witness.network)
        ]


@frozen
class Filled:
    """A roll as it was left: how many elements it has, and one of them (None: not known, or none)."""

    elements: int
    witness: Network | None = None


def look_at(
    kernel: Conversation, kind: Kind, references: int, filled: Filled | None
) -> tuple[str | None, int]:
    """Say what is other of a set, and its elements if these are bans.

    ``references`` is how often our rules name it. A long roll's head takes the kernel long (40 ms for a
    million elements): of such a one only the witness is asked for. That our rules stand is known without it.
    """
    if filled is not None and filled.elements > _LONG:
        lost = filled.witness is not None and not contains(kernel, kind.name, filled.witness)
        return (f"set {kind.name} has lost a network" if lost else None), 0
    head = head_of(kernel, kind.name)
    if head is None:
        return f"set {kind.name} is gone", 0
    elements = head.elements if kind.bans else 0
    if head.references < references:
        return f"rules that name set {kind.name} are gone", elements
    if filled is not None and head.elements != filled.elements:
        return f"set {kind.name} has {head.elements} elements and was given {filled.elements}", elements
    return None, elements
