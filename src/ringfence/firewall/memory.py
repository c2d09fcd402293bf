"""The backend for dry runs and demonstrations, which only stores bans.

Bans expire, timeouts have a maximum, a set can be full, and a /0 is refused, as in the ipset backend. So a
dry run shows what the kernel would have done. Nothing is dropped, and nothing outlives the object.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from ringfence.clock import Clock
from ringfence.errors import SetFullError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import (
    EVERY_ADDRESS,
    Add,
    Change,
    Counters,
    Element,
    FirewallPlan,
    Health,
    ListSteps,
    Opened,
    Outcome,
    Remembered,
    Remove,
    Requirement,
)
from ringfence.firewall.limits import Table
from ringfence.firewall.network_lists import NetworkList
from ringfence.values.ban import Scope
from ringfence.values.network import Network, contains

_DRY_RUN = "a dry run puts no rule into the kernel"


class MemoryBackend:
    """A simulated firewall.

    ``plan.maxelem`` is the maximum number of bans of each IP version and
    scope. If log rules or limits are configured, ``open`` reports them as missing, because there are no
    rules.
    """

    name = "memory"
    enforces = False

    def __init__(self, plan: FirewallPlan | None = None, *, clock: Clock | None = None) -> None:
        self.plan = plan if plan is not None else FirewallPlan()
        self.lists: dict[NetworkList, frozenset[Network]] = dict.fromkeys(network_lists.every(), frozenset())
        self._clock = clock if clock is not None else Clock()
        self._ends: dict[tuple[Network, Scope], float] = {}

    def requirements(self) -> list[Requirement]:
        """Return a single requirement, which is always met."""
        return [Requirement("firewall", note="memory: a dry run, nothing is dropped")]

    def is_present(self) -> bool:
        """Return False: nothing is in the kernel."""
        return False

    def listing(self, version: int) -> str:  # noqa: ARG002 - it has no rules
        """Return the command that lists the bans, which exist only in this process's memory."""
        return "ringfence bans"

    def open(self) -> Opened:
        """Report both IP versions as guarded."""
        self._expire()
        wire = _DRY_RUN if self.plan.copies else None
        limits = _DRY_RUN if self.plan.limits else None
        return Opened({4: None, 6: None}, adopted=len(self._ends), wire=wire, limits=limits)

    def attach(self) -> None:
        """Do nothing: there are no rules."""

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Store every change of ``batch``."""
        self._expire()
        return [self._add(change) if isinstance(change, Add) else self._remove(change) for change in batch]

    def _add(self, change: Add) -> Outcome:
        network, key = change.network, (change.network, change.scope)
        if network.prefixlen == 0:
            return Outcome(change, error=EVERY_ADDRESS)
        maxelem = self.plan.maxelem
        if key not in self._ends and len(self._ends) >= maxelem and self._count(*key) >= maxelem:
            return Outcome(change, error=SetFullError(f"the set is full: {maxelem} elements"))
        self._ends[key] = self._clock.mono() + change.timeout
        return Outcome(change, change.timeout)

    def _count(self, network: Network, scope: Scope) -> int:
        return sum(
            other.version == network.version and other_scope == scope for other, other_scope in self._ends
        )

    def _remove(self, change: Remove) -> Outcome:
        self._ends.pop((change.network, change.scope), None)
        return Outcome(change)

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Store the networks of a list: the first step copies them, the second stores them."""
        wanted = frozenset(networks)
        yield None
        self.lists[which] = wanted

    def list(self, known: Iterable[tuple[Network, Scope]] | None = None) -> Iterator[Element]:  # noqa: ARG002
        """Yield every ban that has time left. ``known`` is ignored: no ban can be missing here."""
        now = self._clock.mono()
        for (network, scope), end in tuple(self._ends.items()):
            if end > now:
                yield Element(network, end - now, 0, 0, scope)

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban if it has time left, else None."""
        left = self._ends.get((network, scope), -math.inf) - self._clock.mono()
        return Element(network, left, 0, 0, scope) if left > 0 else None

    def covering(self, network: Network) -> Iterator[Element]:
        """Yield the bans of ``network`` and of all networks around it."""
        return (one for one in self.list() if contains(one.network, network))

    def _expire(self) -> None:
        now = self._clock.mono()
        self._ends = {key: end for key, end in self._ends.items() if end > now}

    def health(self) -> Health:
        """Return the number of bans; no other program can change them."""
        self._expire()
        return Health(elements=len(self._ends))

    def rules_differ(self) -> bool:
        """Return False: no other program can change this firewall."""
        return False

    def watch_fd(self) -> None:
        """Return None: no other program can change this firewall, so there is nothing to watch."""

    def counters(self) -> Counters:
        """Return the number of bans. There are no rules, so nothing is counted."""
        return Counters(sets={"bans": len(self._ends)})

    def remembered(self, table: Table) -> Sequence[Remembered]:  # noqa: ARG002 - there are no rules
        """Return nothing: no rule adds a sender to a table."""
        return ()

    def flush(self) -> None:
        """Forget all bans and lists. Idempotent."""
        self._ends.clear()
        self.lists = dict.fromkeys(network_lists.every(), frozenset())

    def close(self) -> None:
        """Do nothing: no resource is held. Idempotent."""
