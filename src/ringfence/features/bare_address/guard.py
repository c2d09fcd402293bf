"""The rule ``bare_address`` as a part of the daemon: it reads copied requests, and judges those of strangers.

A request is an attempt of its own kind. It had no right password, and a carrier that nobody named may send
the same, so its ban is never full: it covers SIP by UDP, or by TCP if the kernel has that connection. Anybody
can forge a datagram, and one is enough: after a second one, a scanner would have its second answer. So these
bans have the limits of all bans on unproven evidence (``[claimed]``), and never hit a friend.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from ringfence.ban_facts import ClockSet
from ringfence.config.schema import Settings
from ringfence.detect.history import pack_network
from ringfence.detect.judge import ClaimedLimit
from ringfence.detect.judgement import Decision, Disposition, Effect, Judgement
from ringfence.detect.rules import MINUTE, Rule
from ringfence.features.bare_address.habits import Habit, Habits
from ringfence.features.bare_address.settings import BareAddressSettings, mode_of
from ringfence.features.bare_address.stage import FRIENDS_GROUP, GROUP
from ringfence.features.bare_address.table import HabitTable
from ringfence.features.bare_address.target import Asked, Target, address_in, parse_copy
from ringfence.firewall.limits import LimitMode
from ringfence.guard.feature import Fact, Feature, Given, Number, Section
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.pipeline import EffectHandler
from ringfence.guard.process import every
from ringfence.host.connections import ConnectionTable
from ringfence.netlink.nflog import Logged
from ringfence.sources.nflog import NflogSource
from ringfence.values.attempt import Attempt, AttemptKind, Proof
from ringfence.values.ban import Scope
from ringfence.values.event import WIRE, EventKind, Service, Transport
from ringfence.values.friend import FriendReason
from ringfence.values.network import Address
from ringfence.values.text import printable, rfc3339

MOST_SHOWN = 100
"""The maximum number of friends in the status."""
SAVE_EVERY = 60.0
_BUFFER = 1 << 20  # bytes; a lost copy is a stranger that is judged by its next request

BARE = Rule(
    "bare_address",
    "a stranger asks for the bare address of the PBX, and for none of its names",
    counts=frozenset(),
    attempts=1,
    window=MINUTE,
    ban=(10 * MINUTE,),
    scope=Scope.SIP_UDP,
)
"""The rule of these bans. This feature counts for it, so it is none of the detector's rules."""


class CopySource(NflogSource):
    """Reads a group of requests that the kernel copies for this feature, and passes them to ``sink``.

    With ``gathers`` false, requests are read at once also under load.
    """

    def __init__(
        self, name: str, group: int, sink: Callable[[Asked, float], object], *, gathers: bool = True
    ) -> None:
        super().__init__(name, group, buffer=_BUFFER, gathers=gathers)
        self._sink = sink
        self._read = 0

    @property
    def numbers(self) -> dict[str, object]:
        """The source's numbers, as the status shows them; the events are requests that count."""
        return {**super().numbers, "events": self._read}

    def on_packet(self, message: Logged, now: float) -> None:
        """Pass on the request in a packet that was read at ``now`` (monotonic seconds), if it counts."""
        asked = parse_copy(message.payload)
        if asked is not None:
            self._read += 1
            self._sink(asked, now)


class BareAddress(Feature):
    """Judges what strangers ask for, and records what friends ask for."""

    def __init__(
        self, side: FirewallSide, effects: EffectHandler, connections: ConnectionTable, settings: Settings
    ) -> None:
        self._side, self._effects, self._connections = side, effects, connections
        self._mode, self._domains = mode_of(settings), domains_of(settings)
        self._now = side.kernel.enforcer.now
        self._claims = ClaimedLimit(settings.claims())
        self._asterisk = settings.asterisk[0].name
        self._table = HabitTable(side.common.store.connection)
        self._best_effort = side.common.store.best_effort
        now = self._now()
        nothing: tuple[float, list[tuple[Address, Habit]]] = now, []
        self._habits = Habits(*self._best_effort.read(self._table.load, nothing, now))
        self._hosts = self._domains
        self._strangers = self._others = 0
        self._log = structlog.get_logger()
        self._find_hosts()

    # -- requests ----------------------------------------------------------------------------------------

    def on_request(self, asked: Asked, now: float) -> None:
        """Judge a request of a stranger, or record one of a friend; it was copied at ``now`` (monotonic)."""
        detector, address = self._side.detector, asked.remote.address
        if detector.exempt.covers(address):
            return
        named = asked.target.names(self._hosts) or self._is_trunks(asked.target)
        if detector.friends.has(address):
            host = asked.target.line
            if self._habits.record(address, host, self._now(), named=named):
                accounts = ", ".join(self._accounts(address))
                self._log.warning(
                    "bare_address.friend", address=str(address), accounts=accounts, host=printable(host)
                )
            return
        self._strangers += 1
        if not named:
            self._others += 1
            self._effects.carry_out(self._judged(asked, now))

    def _is_trunks(self, target: Target) -> bool:
        """Whether a request asks for the address of a trunk, at which this PBX registers."""
        reasons = self._side.detector.friends.reasons
        return any(
            one.reason is FriendReason.TRUNK
            for host in {target.line, target.to}
            if (address := address_in(host)) is not None
            for one in reasons(address)
        )

    def _judged(self, asked: Asked, now: float) -> list[Effect]:
        """Return what follows from a stranger's request for a bare address, at ``now`` (monotonic)."""
        detector, remote = self._side.detector, asked.remote
        by_tcp = remote.transport is Transport.TCP
        if by_tcp:
            self._connections.refresh(remote)
            if not self._connections.has(remote, now):
                return []  # nothing shows that this sender has the address
        attempt = Attempt(
            *(self._asterisk, remote.address, AttemptKind.BARE_ADDRESS),
            proof=Proof.HANDSHAKE if by_tcp else Proof.CLAIMED,
            service=Service.KERNEL,
            transport=remote.transport,
            account="",
            event=EventKind.BARE_ADDRESS,
            time=self._now(),
            trusted=True,
            sources=(WIRE,),
            credentials=False,
        )
        subject = detector.subject_of(remote.address)
        if self._mode is not LimitMode.ENFORCE:
            return [Judgement(attempt, subject, Disposition.NO_RULE)]
        scope = Scope.SIP_TCP if by_tcp else Scope.SIP_UDP
        if detector.is_banned(remote.address, scope, now):
            return [Judgement(attempt, subject, Disposition.LATE)]
        if detector.friends.any_in(subject):  # a phone in the same /64
            return [Judgement(attempt, subject, Disposition.COUNTED)]
        seconds = self._claims.begin_ban(pack_network(subject), now, proven=by_tcp)
        if seconds is None:
            return [Judgement(attempt, subject, Disposition.COUNTED), *self._claims.alarms(now)]
        decision = Decision(subject, BARE, (attempt,), now, scope, seconds)
        return [Judgement(attempt, subject, Disposition.COUNTED, decision)]

    def on_fact(self, fact: Fact) -> None:
        """Use a new configuration, except for the table ``[bare_address]``: that needs a restart.

        If the wall clock was set, move the times at which friends asked.
        """
        if isinstance(fact, ClockSet):
            self._habits.move(fact.seconds)
        if isinstance(fact, Settings):
            self._asterisk = fact.asterisk[0].name
            if fact.claims() != self._claims.terms:
                self._claims = ClaimedLimit(fact.claims())

    # -- periodic work -----------------------------------------------------------------------------------

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that keeps the names of trunks current, and saves what friends ask for."""
        return [every(SAVE_EVERY, BARE.name, self._tick, self._side.common.alarms)]

    def _tick(self) -> None:
        self._find_hosts()
        if not self._best_effort.waiting_calls(self._table.save):  # on a full disk, the next has all changes
            self.finish()

    def finish(self) -> None:
        """Queue what friends asked for since the last call, to be written to the database."""
        now, rows = self._now(), self._habits.take_changed()
        self._best_effort.write(self._table.save, self._habits.began, now, rows)

    def _find_hosts(self) -> None:
        """Find the hosts that count as names: the domains, and the names of trunks and on the lists.

        What friends asked for earlier may be one of them now.
        """
        names = self._side.exempt.names  # at the start, those of the trunks are not followed yet
        self._hosts = self._domains | names.followed | names.answers.keys()
        self._habits.accept(self._hosts)

    # -- what is shown -----------------------------------------------------------------------------------

    def section(self) -> Section:
        """Return how many strangers' requests named no domain, and what friends ask for."""
        text = "Requests of strangers for the bare address of the PBX."
        number = Number("bare_requests", text, self._others, only_grows=True)
        return Section((number,), {BARE.name: self._state()})

    def _state(self) -> dict[str, Any]:
        """Return the mode, since when friends are watched, and those that ask for no name of the PBX."""
        now = self._now()
        bare = self._habits.without_name(now)
        return {
            "mode": str(self._mode),
            "since": rfc3339(self._habits.began),
            "watched": now - self._habits.began,
            "requests": self._strangers,
            "seen": sum(1 for _ in self._habits.lately(now)),
            "without_name": len(bare),
            "friends": [
                {
                    "address": str(address),
                    "accounts": self._accounts(address),
                    "host": printable(habit.host),
                    "last": rfc3339(habit.bare),
                }
                for address, habit in bare[-MOST_SHOWN:]
            ],
        }

    def _accounts(self, address: Address) -> list[str]:
        """Return the names of the phones and trunks at an address, safe to show."""
        return sorted({printable(one.account) for one in self._side.detector.friends.reasons(address)})


def domains_of(settings: Settings) -> frozenset[str]:
    """Return the configured domains as requests name them: in lower case, without a dot at the end."""
    return frozenset(one.lower().removesuffix(".") for one in settings.of(BareAddressSettings).domains)


def build(given: Given) -> BareAddress | None:
    """Return the part of the daemon that judges requests for a bare address; None if the rule is off."""
    settings = given.reloader.settings
    mode = mode_of(settings)
    if mode is LimitMode.OFF:
        return None
    feature = BareAddress(given.side, given.effects, given.connections, settings)
    sink, gathers = feature.on_request, mode is not LimitMode.ENFORCE  # a scanner must not have more answers
    given.sources.add(CopySource(BARE.name, GROUP, sink, gathers=gathers))
    given.sources.add(CopySource(f"{BARE.name}_friends", FRIENDS_GROUP, sink))
    return feature
