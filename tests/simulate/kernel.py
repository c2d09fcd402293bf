"""A firewall in memory that outlives the daemon, and that can fail. Its contract is ``firewall/contract.py``.

The kernel acknowledges each change by itself. It can refuse changes (EPERM), or carry them out and lose the
answers (ENOBUFS). Another program can empty the sets or remove the rules.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import ip_address

from tests.simulate.loop import Schedule

from ringfence.errors import FirewallError, FirewallIncompleteError
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
    Requirement,
    not_open_error,
)
from ringfence.firewall.limits import Table
from ringfence.firewall.network_lists import NetworkList
from ringfence.values.ban import Scope
from ringfence.values.network import Network, contains

Key = tuple[Network, Scope]


class Kernel:
    """The sets and rules of the host, and the faults that wait for the next calls.

    ``refusals`` is how many changes are refused next, and ``lost`` how many next answers are lost, although
    the change was carried out. ``unreadable`` is how many next readings of the sets fail.
    """

    def __init__(self, schedule: Schedule) -> None:
        self.has_rules = False
        self.ends: dict[Key, float] = {}
        """The end of each ban (monotonic seconds)."""
        self.acknowledged: dict[Key, float] = {}
        """The bans that the daemon knows to be in place, and did not remove: each with its end."""
        self.asked, self.wanted = set[str](), set[str]()
        """Addresses that the administrator asked to ban, and those banned since then: none may be removed."""
        self.lists: dict[NetworkList, frozenset[Network]] = {}
        self.plan: FirewallPlan | None = None
        """The plan of the rules, None without rules."""
        self.rules_since = self.failed_at = -math.inf
        """When missing rules were last put in place, and when a change was last refused or a reading failed
        (monotonic seconds)."""
        self.refusals = self.lost = self.unreadable = 0
        self._schedule = schedule

    def has(self, which: NetworkList, address: str) -> bool:
        """Whether a list contains an address."""
        return any(ip_address(address) in one for one in self.lists.get(which, ()))

    def heal(self) -> None:
        """End all faults."""
        self.refusals = self.lost = self.unreadable = 0

    def expire(self) -> None:
        """Forget the bans that are over."""
        now = self._schedule.mono
        self.ends = {key: end for key, end in self.ends.items() if end > now}
        self.acknowledged = {key: end for key, end in self.acknowledged.items() if end > now}

    def damage(self) -> None:
        """Remove all rules and sets, as another program may."""
        self.has_rules, self.plan = False, None
        self.ends.clear()
        self.lists.clear()

    def erase(self) -> None:
        """Remove some bans and no rule, as another program may: `nft delete element`, `ipset del`."""
        for key in sorted(self.ends, key=str):
            if self._schedule.chosen.random() < 0.5:
                del self.ends[key]

    def forget(self) -> None:
        """Begin again, as after a boot of the host."""
        self.damage()
        self.acknowledged.clear()


class KernelBackend:
    """The backend of one process. After the end of the process it changes nothing: see ``is_alive``."""

    name = "simulated"
    enforces = True

    def __init__(
        self, kernel: Kernel, plan: FirewallPlan, schedule: Schedule, is_alive: Callable[[], bool]
    ) -> None:
        self.plan = plan
        self._is_alive = is_alive
        self._kernel = kernel
        self._schedule = schedule
        self._is_open = False

    def requirements(self) -> Sequence[Requirement]:
        """Return a requirement that is met."""
        return [Requirement("firewall", note="simulated")]

    def is_present(self) -> bool:
        """Whether the kernel has rules of ringfence."""
        return self._kernel.has_rules

    def listing(self, version: int) -> str:
        """Return the command that lists the bans."""
        return "ringfence bans"

    def open(self) -> Opened:
        """Put the rules in place, unless the kernel refuses."""
        self._change()
        kernel = self._kernel
        repaired = self._is_open and not kernel.has_rules
        kernel.expire()
        if not kernel.has_rules:
            kernel.rules_since = self._schedule.mono
        kernel.has_rules = self._is_open = True
        kernel.plan = self.plan
        return Opened({4: None, 6: None}, adopted=len(kernel.ends), repaired=repaired)

    def attach(self) -> None:
        """Use the rules that are in place."""
        self._is_open = True

    def _change(self) -> None:
        """Raise FirewallError if the process is dead, or if the kernel refuses this change."""
        kernel = self._kernel
        if not self._is_alive():
            raise FirewallError("the process was killed")
        if kernel.refusals:
            kernel.refusals -= 1
            kernel.failed_at = self._schedule.mono
            raise FirewallError("netlink: Operation not permitted")

    def apply(self, batch: Sequence[Change]) -> list[Outcome]:
        """Carry out each change that the kernel does not refuse."""
        if not self._is_open:
            raise not_open_error()
        self._kernel.expire()
        return [self._one(change) for change in batch]

    def _one(self, change: Change) -> Outcome:
        kernel, key = self._kernel, (change.network, change.scope)
        if change.network.prefixlen == 0:
            return Outcome(change, error=EVERY_ADDRESS)
        try:
            self._change()
        except FirewallError as error:
            return Outcome(change, error=error)
        if not kernel.has_rules:
            return Outcome(change, error=FirewallError("the set does not exist"))
        lost = kernel.lost > 0
        kernel.lost -= lost
        address = str(change.network.network_address)
        if isinstance(change, Add):
            if address in kernel.asked:
                kernel.asked.discard(address)
                kernel.wanted.add(address)
            kernel.ends[key] = self._schedule.mono + change.timeout
            if not lost:
                kernel.acknowledged[key] = kernel.ends[key]
        else:
            kernel.ends.pop(key, None)
            if address not in kernel.wanted:
                kernel.acknowledged.pop(key, None)
        if lost:
            return Outcome(change, error=FirewallError("netlink: No buffer space available"))
        return Outcome(change, change.timeout if isinstance(change, Add) else 0.0)

    def replace_list_in_steps(self, which: NetworkList, networks: Iterable[Network]) -> ListSteps:
        """Store the networks of a list: the first step copies them, the second stores them."""
        wanted = frozenset(networks)
        yield None
        self._change()
        self._kernel.lists[which] = wanted

    def list(self, known: Iterable[Key] | None = None) -> Iterator[Element]:
        """Yield every ban. If the sets are unreadable, raise an error before or after some."""
        kernel, now = self._kernel, self._schedule.mono
        found = [(*key, end - now) for key, end in kernel.ends.items() if end > now]
        incomplete = kernel.unreadable > 0
        if incomplete:
            kernel.unreadable -= 1
            kernel.failed_at = now
            if self._schedule.chosen.random() < 0.5:
                raise FirewallError("netlink: No buffer space available")
            found = self._schedule.chosen.sample(found, len(found) // 2)
        seen = set()
        for network, scope, left in found:
            seen.add((network, scope))
            yield Element(network, left, 0, 0, scope)
        for network, scope in known or ():
            element = self.find(network, scope) if (network, scope) not in seen else None
            if element is not None:
                yield element
        if incomplete:
            raise FirewallIncompleteError("the bans changed while they were listed")

    def find(self, network: Network, scope: Scope = Scope.FULL) -> Element | None:
        """Return one ban if it has time left, else None."""
        left = self._kernel.ends.get((network, scope), -math.inf) - self._schedule.mono
        return Element(network, left, 0, 0, scope) if left > 0 else None

    def covering(self, network: Network) -> Iterator[Element]:
        """Yield the bans of ``network`` and of all networks around it, or fail as ``list`` does."""
        return (one for one in self.list() if contains(one.network, network))

    def health(self) -> Health:
        """Check whether another program removed the rules."""
        self._kernel.expire()
        damage = None if self._kernel.has_rules else "the rules are missing"
        return Health(damage, len(self._kernel.ends))

    def rules_differ(self) -> bool:
        """Whether another program removed the rules."""
        return not self._kernel.has_rules

    def watch_fd(self) -> None:
        """Return None: this kernel reports no change."""

    def counters(self) -> Counters:
        """Return the number of bans."""
        return Counters(sets={"bans": len(self._kernel.ends)})

    def remembered(self, table: Table) -> Sequence[Remembered]:
        """Return nothing: no rule adds a sender to a table."""
        return ()

    def flush(self) -> None:
        """Remove all rules and sets, unless the kernel refuses."""
        self._change()
        self._kernel.forget()

    def close(self) -> None:
        """End the use of the kernel, which keeps all."""
        self._is_open = False
