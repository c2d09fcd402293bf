"""From decisions to bans in the kernel, and the account of them: what is out, until when, and why.

A ban is recorded when the kernel has acknowledged it, and not before. One that the kernel refused is said
loudly, kept as *pending* and tried again until it succeeds or its time is over; its subject counts as held
meanwhile, so that a set that is full does not fill the log. A ban longer than the backend can time is renewed
while it runs. With enforcement switched off everything is seen and nothing is done.

All of it is synchronous and called from one event loop: a ban is one netlink exchange away from the event
that caused it.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

import structlog
from attrs import define, field, frozen

from ringfence.detect.detector import Decision, Detector
from ringfence.detect.networks import NetworkSet
from ringfence.detect.rules import RETURN_WITHIN
from ringfence.errors import ControlError, FirewallError, StoreError
from ringfence.firewall.contract import Add, Backend, Element, Opened, Outcome, Remove
from ringfence.firewall.probe import Verification, verify
from ringfence.model import Ban, Network, Origin, printable
from ringfence.store import Store

_T = TypeVar("_T")

MOST_PENDING = 1_000
"""So many bans that the kernel refused are asked for again; a set that is full refuses every new one."""

RENEW_BELOW = 0.5
"""A ban that outlasts its kernel timeout is renewed when less than this part of the timeout is left."""

ALWAYS_ALLOWED = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@frozen
class Clock:
    """Both clocks: ``wall`` for people and the database, ``mono`` for windows (seconds each)."""

    wall: Callable[[], float] = time.time
    mono: Callable[[], float] = time.monotonic


@define
class _Running:
    """A ban that the kernel has. ``granted`` is the timeout it was given (seconds), at ``placed`` (wall)."""

    ban: Ban
    placed: float
    granted: float

    def wants_renewal(self, now: float) -> bool:
        """Say whether the kernel would let go before the ban is over, and soon."""
        outlasts = self.ban.expires > self.placed + self.granted + 1.0
        return outlasts and now - self.placed > self.granted * (1 - RENEW_BELOW)


@frozen
class Listed:
    """One ban as it is: what the kernel says of it, and what we know of it."""

    element: Element
    ban: Ban | None
    expires: float


@define
class EnforcerCounts:
    """What came of the decisions since the start."""

    placed: int = 0
    failed: int = 0
    lifted: int = 0


def _at_once(action: Callable[[], object]) -> None:
    action()


@define
class Enforcer:
    """Owns the bans. Needs :meth:`start` before anything else.

    ``later`` is given what is only to be remembered, which it may do in a thread of its own, in order.
    """

    backend: Backend
    store: Store
    detector: Detector
    clock: Clock = field(factory=Clock)
    later: Callable[[Callable[[], object]], object] = field(default=_at_once)
    enforcing: bool = field(default=False, init=False)
    opened: Opened | None = field(default=None, init=False)
    verification: Verification | None = field(default=None, init=False)
    firewall_error: str = field(default="", init=False)
    store_error: str = field(default="", init=False)
    counts: EnforcerCounts = field(factory=EnforcerCounts, init=False)
    _running: dict[Network, _Running] = field(factory=dict, init=False)
    _pending: dict[Network, Ban] = field(factory=dict, init=False)
    _unfreed: set[Network] = field(factory=set, init=False)
    _seen_only: set[Network] = field(factory=set, init=False)
    _log: structlog.stdlib.BoundLogger = field(factory=structlog.get_logger, init=False)

    def start(self) -> None:
        """Put the firewall in place, see with a test packet that it works, bring kernel and store together.

        Raises FirewallError (ProbeError where the packet got through) or StoreError.

        What runs in the store and not in the kernel goes back in one batch (a reboot); what is in the kernel
        and not in the store is adopted for the time it has left. Switched off, nothing is touched.
        """
        if self.store.switched_off:
            self._log.warning("enforcement.off", mend="ringfence on")
            return
        self.opened = self.backend.open()
        self.verification = verify(self.backend, self.opened.families)
        self.enforcing = True
        now = self.clock.wall()
        elements = {element.network: element for element in self.backend.list()}
        known = {ban.network: ban for ban in self.store.running(now)}
        for network, element in elements.items():
            ban = known.get(network) or self._adopt(element, now)
            self._running[network] = _Running(ban, now, element.timeout)
            self._hold(ban)
        missing = [ban for network, ban in known.items() if network not in elements]
        self._place(missing, record=False)
        adopted = len(elements.keys() - known.keys())
        self._log.info("bans.restored", kept=len(elements), put_back=len(missing), adopted=adopted)

    def carry_out(self, decision: Decision) -> None:
        """Ban what a rule decided on. Never raises: what fails is said, and tried again.

        The kernel comes first: a guess takes 0.3 ms, and the database may take longer to say that this
        sender has been here before and earns a longer ban.
        """
        now = self.clock.wall()
        subject, rule = decision.subject, decision.rule
        outcomes = self._apply([Add(subject, rule.ban_for(0))]) if self.enforcing else []
        before = self._stored(lambda: self.store.bans_before(subject, now - RETURN_WITHIN), 0)
        if before and outcomes and outcomes[0].error is None:
            outcomes = self._apply([Add(subject, rule.ban_for(before))])
        expires = now + rule.ban_for(before)
        ban = Ban(subject, now, expires, rule.name, rule.meaning, attempts=decision.attempts)
        if not self.enforcing:
            self._seen_only.add(subject)
            self._hold(ban)
            self._log.warning("ban.not_enforced", address=str(subject), rule=rule.name, why="switched off")
            return
        self._account([ban], outcomes, now)

    def ban(self, networks: Sequence[Network], seconds: float, reason: str) -> list[str]:
        """Ban by an administrator's word; give what could not be done, a line each.

        What the kernel refused stays pending, as a rule's ban does.
        """
        self._must_enforce()
        now = self.clock.wall()
        refused = [
            f"{network}: is never banned" for network in networks if self.detector.never.touches(network)
        ]
        bans = [
            Ban(network, now, now + seconds, str(Origin.ADMIN), reason, Origin.ADMIN)
            for network in networks
            if not self.detector.never.touches(network)
        ]
        return refused + _lines(outcome for outcome in self._place(bans) if outcome.error is not None)

    def unban(self, networks: Sequence[Network]) -> list[str]:
        """Lift the bans that ``networks`` lie in; give what could not be done, a line each."""
        self._must_enforce()
        banned = {element.network for element in self.backend.list()} | self._pending.keys()
        problems, found = [], []
        for network in networks:
            around = [ban for ban in banned if _contains(ban, network)]
            found += around
            problems += [] if around else [f"{network}: is not banned"]
        return problems + _lines(self._lift(found))

    def unban_all(self) -> int:
        """Lift every ban and give their number."""
        self._must_enforce()
        networks = [element.network for element in self.backend.list()]
        problems = _lines(self._lift([*networks, *self._pending]))
        if problems:
            raise ControlError("; ".join(problems))
        return len(networks)

    def switch_off(self) -> None:
        """Take every rule and set of ours out of the kernel, until :meth:`switch_on`.

        What fails of it raises in the end: a database that is full must not keep the bans in place.
        """
        self.enforcing = False
        try:
            self.backend.flush()
        finally:
            self._forget_all()
            self.store.switched_off = True
        self._log.warning("enforcement.off", mend="ringfence on")

    def switch_on(self) -> None:
        """Enforce again; bans that were running and have time left come back."""
        for network in self._seen_only:
            self.detector.release(network)
        self._seen_only.clear()
        self.store.switched_off = False
        if not self.enforcing:
            self.start()

    def allow(self, never: NetworkSet) -> None:
        """Take the networks that are never banned, and lift at once the bans that touch them.

        What the kernel refuses to let go is said, and tried again.
        """
        self.detector.never = never
        if self.enforcing:
            self._free([network for network in [*self._running, *self._pending] if never.touches(network)])

    def _free(self, networks: Iterable[Network]) -> None:
        failed = self._lift(networks)
        left = {outcome.change.network for outcome in failed}
        for network in left:  # never to be asked for again, whether or not the kernel has it
            self._pending.pop(network, None)
        if left - self._unfreed:
            addresses = sorted(str(network) for network in left)
            self._log.error("unban.failed", addresses=addresses[:20], error=str(failed[0].error))
        self._unfreed = left

    def tend(self) -> None:
        """Do what time asks for, every second or so: retry, renew, forget what has run out."""
        now = self.clock.wall()
        for network in [network for network, run in self._running.items() if run.ban.expires <= now]:
            del self._running[network]
        if not self.enforcing:
            return
        if self._unfreed:
            self._free(self._unfreed)
        for network in [network for network, ban in self._pending.items() if ban.expires <= now]:
            del self._pending[network]
            self.firewall_error = ""  # said again by whatever is refused still
        self._place(list(self._pending.values()))
        self._renew(now)

    def log_positions(self) -> Mapping[str, str]:
        """Give how far each log was read before."""
        return self._stored(self.store.positions, {})

    def remember_position(self, key: str, position: str) -> None:
        """Remember how far a log was read."""
        self._remember(lambda: self.store.remember_positions({key: position}))

    def purge(self) -> None:
        """Forget what ended long ago."""
        self._remember(lambda: self.store.purge(self.clock.wall()))

    def listing(self, elements: Iterable[Element]) -> list[Listed]:
        """Give what the kernel was found to have, with what is known of it, the newest first."""
        known = {network: run.ban for network, run in self._running.items()}
        return listed(elements, known, self.clock.wall())

    @property
    def pending(self) -> int:
        """How many bans the kernel has refused so far and will be asked for again."""
        return len(self._pending)

    def _must_enforce(self) -> None:
        if not self.enforcing:
            raise ControlError("enforcement is switched off; switch it on with: ringfence on")

    def _adopt(self, element: Element, now: float) -> Ban:
        rule = str(Origin.ADOPTED)
        ban = Ban(element.network, now, now + element.timeout, rule, "found in the kernel", Origin.ADOPTED)
        self._remember(lambda: self.store.record(ban))
        return ban

    def _place(self, bans: Sequence[Ban], *, record: bool = True) -> list[Outcome]:
        """Ask the kernel for ``bans``, and keep account of what it answered."""
        if not bans:
            return []
        now = self.clock.wall()
        outcomes = self._apply([Add(ban.network, ban.expires - now) for ban in bans])
        self._account(bans, outcomes, now, record=record)
        return outcomes

    def _account(
        self, bans: Sequence[Ban], outcomes: Sequence[Outcome], now: float, *, record: bool = True
    ) -> None:
        for ban, outcome in zip(bans, outcomes, strict=True):
            self._hold(ban)
            if outcome.error is not None:
                self._refused(ban, outcome.error)
                continue
            self._pending.pop(ban.network, None)
            self._running[ban.network] = _Running(ban, now, outcome.timeout)
            if record:
                self.counts.placed += 1
                self._remember(partial(self.store.record, ban))
                self._log.warning("ban.placed", **_described(ban))

    def _refused(self, ban: Ban, error: FirewallError) -> None:
        if ban.network not in self._pending:
            self.counts.failed += 1
            self._log.error("ban.failed", error=str(error), **_described(ban))
            if len(self._pending) >= MOST_PENDING:
                # Counted anew from nothing, and so asked for again if he goes on.
                self.detector.release(ban.network)
                return
        self._pending[ban.network] = ban

    def _apply(self, changes: Sequence[Add | Remove]) -> list[Outcome]:
        try:
            outcomes = self.backend.apply(changes)
        except FirewallError as error:
            outcomes = [Outcome(change, error=error) for change in changes]
        errors = [str(outcome.error) for outcome in outcomes if outcome.error is not None]
        if errors:
            self.firewall_error = errors[0]
        elif self._pending.keys() <= {change.network for change in changes}:
            self.firewall_error = ""
        return outcomes

    def _lift(self, networks: Iterable[Network]) -> list[Outcome]:
        """Take bans out of the kernel, then out of the account; give what the kernel refused."""
        changes = [Remove(network) for network in dict.fromkeys(networks)]
        lifted, failed = [], []
        for outcome in self._apply(changes) if changes else []:
            network = outcome.change.network
            if outcome.error is not None:
                failed.append(outcome)
                continue
            self._running.pop(network, None)
            self._pending.pop(network, None)
            self.detector.release(network)
            lifted.append(network)
        if lifted:
            self.counts.lifted += len(lifted)
            now = self.clock.wall()
            self._remember(lambda: self.store.end(lifted, now))
            self._log.info(
                "ban.lifted", addresses=[str(network) for network in lifted[:20]], number=len(lifted)
            )
        return failed

    def _renew(self, now: float) -> None:
        due = [run for run in self._running.values() if run.wants_renewal(now)]
        outcomes = self._apply([Add(run.ban.network, run.ban.expires - now) for run in due]) if due else []
        for run, outcome in zip(due, outcomes, strict=True):
            if outcome.error is None:
                run.placed, run.granted = now, outcome.timeout

    def _hold(self, ban: Ban) -> None:
        left = ban.expires - self.clock.wall()
        self.detector.hold(ban.network, self.clock.mono() + left)

    def _forget_all(self) -> None:
        for network in [*self._running, *self._pending]:
            self.detector.release(network)
        self._running.clear()
        self._pending.clear()
        self._unfreed.clear()
        self.firewall_error = ""

    def _remember(self, action: Callable[[], None]) -> None:
        self.later(lambda: self._stored(action, None))

    def _stored(self, action: Callable[[], _T], fallback: _T) -> _T:
        """Do something with the store; its failure is said and shown, and stops no ban."""
        try:
            result = action()
        except StoreError as error:
            if str(error) != self.store_error:
                self.store_error = str(error)
                self._log.error("store.failed", error=self.store_error)
            return fallback
        self.store_error = ""
        return result


def listed(elements: Iterable[Element], known: Mapping[Network, Ban], now: float) -> list[Listed]:
    """Join what the kernel has with what is ``known`` of it, the newest first."""
    entries = []
    for element in elements:
        ban = known.get(element.network)
        # A ban may outlast the longest timeout that the kernel keeps.
        entries.append(Listed(element, ban, max(now + element.timeout, ban.expires if ban else 0)))
    return sorted(entries, key=lambda entry: -(entry.ban.since if entry.ban else 0))


def _lines(failed: Iterable[Outcome]) -> list[str]:
    return [f"{outcome.change.network}: {outcome.error}" for outcome in failed]


def _contains(outer: Network, inner: Network) -> bool:
    if isinstance(outer, IPv4Network):
        return isinstance(inner, IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def _described(ban: Ban) -> dict[str, object]:
    return {
        "address": str(ban.network),
        "seconds": round(ban.expires - ban.since),
        "rule": ban.rule,
        "attempts": len(ban.attempts),
        "accounts": sorted({printable(attempt.account) for attempt in ban.attempts})[:5],
    }
