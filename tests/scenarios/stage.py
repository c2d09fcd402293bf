"""The stage: the real parts from the sources to the bans, a firewall in memory, and a clock of its own.

Packets of a banned sender are dropped before Asterisk receives them, as in a kernel, and addresses of the
allow list pass. So a scenario shows how many answers a sender gets, and not only when it would be banned.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address, ip_network
from itertools import groupby
from math import inf
from pathlib import Path
from typing import Any

from attrs import define, evolve, frozen
from structlog.typing import EventDict
from tests.scenarios.asterisk import PBX, Act, Told, tell
from tests.scenarios.deeds import Deed, Verb
from tests.scenarios.language import Scenario
from tests.support.clock import SetClock
from tests.support.listening import connected

from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.exempt import ITSELF, Exempt
from ringfence.bans.filling import ListContents
from ringfence.config.loader import parse
from ringfence.detect.confirmation import KnownSources
from ringfence.detect.detector import Detector
from ringfence.features.limiter.floods import Flooder, FloodJudge
from ringfence.firewall import network_lists
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.network_lists import NetworkList
from ringfence.friends.registry import FriendRegistry
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.host.names import Names
from ringfence.ledger import key_of
from ringfence.store.database import Store
from ringfence.values.ban import Ban, Scope
from ringfence.values.event import Endpoint, SecurityEvent, Service, Transport
from ringfence.values.friend import Contact, Roster, TrunkHost
from ringfence.values.network import Address, Network, NetworkSet, exempts_friends
from ringfence.values.packet import CopiedAnswer, CopiedRequest, Exchange

MIDNIGHT = 1_700_006_400.0
"""The start of the first day of every scenario (seconds since the epoch)."""

UP_FOR = 86_400.0
"""The time for which the sources have been connected when the first day begins (seconds)."""

SETTLES = 12.0
"""The time (seconds) after which no report waits for another source any more."""

_ATTEMPTS = {Verb.FAILS, Verb.SCANS, Verb.CALLS, Verb.DIALPLAN, Verb.HIDES, Verb.TAMPERS}
_SIP = (Service.PJSIP, Service.SIP)


@frozen
class Happened:
    """A ban or an alarm that followed, and its time (seconds since the first midnight).

    For a ban: the network, the rule, the length, and the number of attempts that Asterisk answered before.
    """

    time: float
    name: str
    network: Network | None = None
    subject: str = ""
    seconds: float = 0.0
    only_sip: bool = False
    after: int = 0
    is_ban: bool = False
    is_cleared: bool = False


@define
class Counted:
    """How many attempts did not count, by reason."""

    late: int
    exempt: int
    unconfirmed: int
    forged: int
    uncounted: int


class _Streams:
    """The TCP connections of a scenario: an address that used one keeps it forever."""

    def __init__(self) -> None:
        self.remotes: dict[tuple[Address, int], None] = {}

    def has(self, remote: Endpoint, now: float) -> bool:
        """Whether this address and port used TCP."""
        return (remote.address, remote.port) in self.remotes

    def backs(self, remote: Endpoint, length: int, now: float) -> bool:
        """Whether this address and port used TCP."""
        return self.has(remote, now)

    def had_any(self, address: Address, now: float) -> bool:
        """Whether this address used TCP."""
        return any(address == known for known, _ in self.remotes)


class Stage:
    """One PBX and its guard. ``logged`` receives all log entries (``capture_logs``)."""

    def __init__(self, scenario: Scenario, folder: Path, logged: list[EventDict]) -> None:
        self.now = 0.0
        self._scenario = scenario
        self._logged = logged
        self._exists = set(scenario.accounts)
        self._answered: Counter[Address] = Counter()
        self._acts = 0
        self._busy_until = -inf
        self._tended = 0.0
        self.happened: list[Happened] = []
        settings = parse({**scenario.configuration}, scenario.name, {}, secrets=False)
        clock = SetClock(wall=lambda: MIDNIGHT + self.now, mono=lambda: UP_FOR + self.now)
        self._store = Store.open(folder / "ringfence.db", owner=True)
        several = frozenset({PBX}) if {"log", "wire"} & {*scenario.sources} else frozenset[str]()
        self._streams = _Streams()
        self._detector = Detector(
            settings.rule_table(),
            claimed=settings.claims(),
            connections=self._streams,
            sources=KnownSources(
                several, frozenset({PBX}) if {"AMI", "wire"} & {*scenario.sources} else frozenset()
            ),
        )
        store = self._store
        self._friends = FriendRegistry(
            self._detector.friends, store.friends, store.best_effort, clock.wall, Names()
        )
        self._backend = MemoryBackend(clock=clock)
        allowed = self._allowed = NetworkSet(settings.allow.networks)
        self._enforcer = Enforcer(self._backend, self._store.records, self._detector, clock, Allowed(allowed))
        self._enforcer.allow(Exempt(allowed, {**ITSELF, **scenario.protected}))
        self._enforcer.start(verified=False)
        self.alarms = Alarms(clock)
        self._effects = EffectHandler(self._enforcer, self.alarms, self._friends)
        self._pipeline = Pipeline(self._detector, self._effects, clock, PBX)
        watch: Any = None  # the scenarios pass on what it would report
        self._floods = FloodJudge(watch, self._detector, lambda _: None, self._effects, clock)
        trunks = tuple(
            TrunkHost(PBX, Service.PJSIP, "carrier", str(address), _PORT, Transport.UDP)
            for address in scenario.trunks
        )
        self._friends.on_roster(Roster(PBX, None, trunks))
        self._logged.clear()

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    @property
    def counted(self) -> Counted:
        """How many attempts did not count so far."""
        counts = self._detector.counts
        return Counted(counts.late, counts.exempt, counts.unconfirmed, counts.forged, counts.uncounted)

    def is_banned(self, network: Network) -> bool:
        """Whether a ban drops packets of ``network`` now, in any scope."""
        return any(self._finds(network, scope) for scope in Scope)

    # -- what is done -----------------------------------------------------------------------------------

    def wait(self, until: float) -> None:
        """Advance the time with periodic work: often as long as a result may follow, then rarely."""
        while self.now < until:
            quiet = self.now - self._busy_until
            step = 1.0 if quiet < 2.0 else 5.0 if quiet < SETTLES else 60.0 if quiet < 3_600.0 else 3_600.0
            self.now = min(until, max(self._tended, self.now) + step)
            if self.now - self._tended >= min(step, 1.0):
                self._tend()

    def do(self, deed: Deed, index: int) -> None:
        """Do the next repetition of an action, or all of them if they are done at once."""
        self._busy_until = self.now
        if deed.verb in _ON_THE_PBX:
            self._on_the_pbx(deed)
            return
        numbers = range(deed.number) if deed.at_once else (index,)
        for act in [act for act in (self._act(deed, number) for number in numbers) if self._arrives(act)]:
            self._meets(act)

    def _act(self, deed: Deed, number: int) -> Act:
        self._acts += 1
        address = deed.addresses[number % len(deed.addresses)] if deed.addresses else deed.naming
        account = deed.accounts[number % len(deed.accounts)] if deed.accounts else ""
        exists = account in self._exists
        return Act(deed, address or _NOBODY, account, exists, MIDNIGHT + self.now, self._acts)

    def _meets(self, act: Act) -> None:
        """Pass a request to Asterisk, and the reports of its sources to the pipeline."""
        if act.deed.verb in _ATTEMPTS:
            self._answered[act.address] += 1
        if act.remote.transport is not Transport.UDP:
            self._streams.remotes[act.remote.address, act.remote.port] = None
        for on_the_wire, told in groupby(tell(act, self._scenario.sources), _is_on_the_wire):
            if on_the_wire:
                for one in told:  # an answer is seen before the next request comes
                    self._sees(one)
            else:
                self._pipeline.on_events(_events(told), UP_FOR + self.now)
            self._look()

    def _sees(self, one: Told) -> None:
        """Pass an answer, or a request of a stranger, to the pipeline as the wire does."""
        if isinstance(one, CopiedAnswer) or (
            isinstance(one, CopiedRequest) and self._is_stranger(one.address)
        ):
            self._pipeline.on_packets([one], UP_FOR + self.now)

    def _is_stranger(self, address: Address) -> bool:
        return not (self._detector.friends.any_in(ip_network(address)) or self._allowed.covers(address))

    def _on_the_pbx(self, deed: Deed) -> None:
        if deed.verb is Verb.LOSES_ACCOUNTS:
            self._exists.clear()
        elif deed.verb is Verb.FINDS_ACCOUNTS:
            self._exists.update(self._scenario.accounts)
        elif deed.verb is Verb.FLOODS:
            flooders = [Flooder(_limited(address), 1) for address in deed.addresses]
            self._effects.carry_out([*self._floods.judge(flooders, UP_FOR + self.now)])
        elif deed.verb is Verb.UNREAD:
            answers = [Exchange(address, _PORT, 1, 5061) for address in deed.addresses]
            self._pipeline.on_packets(answers, UP_FOR + self.now)
        elif deed.verb in (Verb.HAS_CONTACT, Verb.LOSES_CONTACT):
            self._contact(deed)
        elif deed.verb is Verb.UNBANS:
            keys = (key_of(ip_network(address), scope) for address in deed.addresses for scope in Scope)
            self._enforcer.apply(self._enforcer.book.unban_with_retry(keys))
        self._look()

    def _contact(self, deed: Deed) -> None:
        until = MIDNIGHT + self.now + _REGISTERED_FOR
        for address in deed.addresses:
            for account in deed.accounts:
                contact = Contact(PBX, deed.service, account, address, until, deed.reachable)
                self._friends.on_contact(evolve(contact, gone=deed.verb is Verb.LOSES_CONTACT))

    def is_friend(self, network: Network) -> bool:
        """Whether an address is a friend's."""
        return self._detector.friends.has(network.network_address)

    def _arrives(self, act: Act) -> bool:
        """Whether the kernel passes the request to Asterisk."""
        address = act.address
        if any(address in network for network in self._backend.lists[network_lists.ALLOW]):
            return True
        scopes = [Scope.FULL]
        if act.deed.service is not Service.AMI:
            scopes.append(Scope.SIP)
        if act.deed.service in _SIP:
            scopes.append(Scope.SIP_UDP if act.deed.transport is Transport.UDP else Scope.SIP_TCP)
        return not any(self._finds(ip_network(address), scope) for scope in scopes)

    def _finds(self, network: Network, scope: Scope) -> bool:
        """Whether a ban drops packets of all of ``network``, whatever the ban's length."""
        lengths = {network.prefixlen, *(_LENGTHS[network.version])}
        wider = (network.supernet(new_prefix=length) for length in lengths if length <= network.prefixlen)
        friend = network.prefixlen == network.max_prefixlen and self.is_friend(network)
        return any(
            self._backend.find(one, scope) is not None
            for one in wider
            if not (friend and exempts_friends(one))
        )

    # -- what follows -----------------------------------------------------------------------------------

    def _tend(self) -> None:
        self._tended = self.now
        wire = "wire" in self._scenario.sources
        self._pipeline.tick(wire=wire, listening=self._listening)
        self._enforcer.tick()
        self._friends.expire()
        self._friends.write()
        self._look()

    @property
    def _listening(self) -> Mapping[str, float]:
        return connected(0.0 if "AMI" in self._scenario.sources else None)

    def _look(self) -> None:
        """Record the bans and alarms that were logged since the last call."""
        if not self._logged:
            return
        said, self._logged[:] = [*self._logged], []
        for entry in said:
            name = entry["event"]
            if name == "ban.placed":
                self.happened.append(self._banned(ip_network(entry["address"]), entry["rule"]))
            elif name.startswith(_ALARM):
                name = name.removeprefix(_ALARM)
                over = name.endswith(".cleared")
                subject = str(entry["subject"])
                self.happened.append(
                    Happened(self.now, name.removesuffix(".cleared"), subject=subject, is_cleared=over)
                )

    def _banned(self, network: Network, rule: str) -> Happened:
        bans = [ban for scope in Scope for ban in [self._ban(network, scope)] if ban is not None]
        ban = max((ban for ban in bans if ban.rule == rule), key=lambda ban: ban.since)
        senders = [address for address in self._answered if address in network]
        after = sum(self._answered.pop(address) for address in senders)
        seconds, only_sip = round(ban.expires - ban.since), ban.scope is Scope.SIP_UDP
        return Happened(self.now, rule, network, "", seconds, only_sip, after, is_ban=True)

    def _ban(self, network: Network, scope: Scope) -> Ban | None:
        return self._enforcer.ledger.ban(key_of(network, scope))


_PORT = 5_060
_REGISTERED_FOR = 3_600.0
_NOBODY = ip_address("0.0.0.0")
_LENGTHS = {4: (32, 24), 6: (128, 64, 48)}
_ALARM = "alarm."
_ON_THE_PBX = {
    Verb.LOSES_ACCOUNTS,
    Verb.FINDS_ACCOUNTS,
    Verb.FLOODS,
    Verb.UNREAD,
    Verb.UNBANS,
    Verb.HAS_CONTACT,
    Verb.LOSES_CONTACT,
}


def _limited(address: Address) -> Network:
    """Return what the kernel's limiter counts: an IPv4 address, or the /64 of an IPv6 one."""
    return ip_network((address, 64 if address.version == 6 else 32), strict=False)


def _is_on_the_wire(told: Told) -> bool:
    return not isinstance(told, SecurityEvent)


def _events(told: Iterable[Told]) -> Sequence[SecurityEvent]:
    return [one for one in told if isinstance(one, SecurityEvent)]


@frozen
class Allowed(ListContents):
    """The allow list; all other lists are empty."""

    allowed: NetworkSet

    def contents(self, target: NetworkList) -> Iterator[Network]:
        """Return the networks of a list."""
        return iter(self.allowed.networks if target is network_lists.ALLOW else ())
