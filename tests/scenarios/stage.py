"""The stage: real parts from the witnesses to the bans, a firewall that remembers, and a time of its own.

What a banned sender sends is dropped before Asterisk meets it, as in a kernel, and whom the allowlist holds
passes. So a scenario shows how many answers somebody gets, and not only when he would be banned.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import groupby
from math import inf
from pathlib import Path

from attrs import define, evolve, frozen
from structlog.typing import EventDict
from tests.scenarios.asterisk import PBX, Act, Told, tell
from tests.scenarios.deeds import Deed, Verb
from tests.scenarios.language import Scenario

from ringfence.alarms import Alarms
from ringfence.bans.enforce import Enforcer
from ringfence.bans.exempt import ITSELF, Exempt
from ringfence.bans.ledger import key_of
from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.config import parse
from ringfence.detect.detector import Detector
from ringfence.detect.networks import NetworkSet
from ringfence.evidence import Evidence
from ringfence.firewall.contract import Roll
from ringfence.firewall.memory import MemoryBackend
from ringfence.friends.keeping import Keeping
from ringfence.model import (
    Address,
    Ban,
    Challenge,
    Contact,
    Network,
    Roster,
    Scope,
    SecurityEvent,
    Service,
    Transport,
    TrunkHost,
)
from ringfence.store import Store

MIDNIGHT = 1_700_006_400.0
"""When the first day of every scenario begins (seconds since the epoch)."""

UP_FOR = 86_400.0
"""For so long the PBX has been heard when the first day begins (seconds)."""

SETTLES = 12.0
"""After so long (seconds) nothing waits for another witness any more."""

_ATTEMPTS = {Verb.FAILS, Verb.SCANS, Verb.CALLS, Verb.DIALPLAN, Verb.HIDES, Verb.TAMPERS}
_SIP = (Service.PJSIP, Service.SIP)


@frozen
class Happened:
    """Something that followed, and when (seconds since the first midnight).

    Of a ban: whom, by which rule, for how long, and after how many attempts that Asterisk answered.
    """

    time: float
    name: str
    network: Network | None = None
    subject: str = ""
    seconds: float = 0.0
    only_sip: bool = False
    after: int = 0
    is_ban: bool = False
    is_over: bool = False


@define
class Counted:
    """How many attempts the detector passed by, and why."""

    late: int
    never_banned: int
    withheld: int
    forged: int
    spared: int


class Stage:
    """One PBX and its guard. ``logged`` is where what is said goes (``capture_logs``)."""

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
        clock = Clock(wall=lambda: MIDNIGHT + self.now, mono=lambda: UP_FOR + self.now)
        self._store = Store.open(folder / "ringfence.db", owner=True)
        several = frozenset({PBX}) if {"log", "wire"} & {*scenario.heard} else frozenset[str]()
        self._detector = Detector(settings.rule_table(), several=several, claimed=settings.claims())
        self._friends = Keeping(self._store, clock.wall, friends=self._detector.friends)
        self._detector.succeeded = self._friends.succeeded
        self._backend = MemoryBackend(clock=clock.mono)
        allowed = NetworkSet(settings.allow.networks)
        self._enforcer = Enforcer(
            self._backend, Records(self._store), self._detector, clock, lambda roll: _on(roll, allowed)
        )
        self._enforcer.allow(Exempt(allowed, {**ITSELF, **scenario.protected}))
        self._enforcer.start(verified=False)
        self.alarms = Alarms(clock.wall)
        self._evidence = Evidence(self._detector, self._enforcer.carry_out, clock, self.alarms)
        self._evidence.whose = PBX
        trunks = tuple(
            TrunkHost(PBX, Service.PJSIP, "carrier", str(address), _PORT, Transport.UDP)
            for address in scenario.trunks
        )
        self._friends.roster(Roster(PBX, None, trunks))
        self._logged.clear()

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    @property
    def counted(self) -> Counted:
        """How many attempts were passed by so far."""
        counts = self._detector.counts
        return Counted(counts.late, counts.never_banned, counts.withheld, counts.forged, counts.spared)

    def is_banned(self, network: Network) -> bool:
        """Say whether anything of ``network`` is dropped now."""
        return any(self._finds(network, scope) for scope in Scope)

    # -- what is done -----------------------------------------------------------------------------------

    def wait(self, until: float) -> None:
        """Let time pass, with the daemon at work: often as long as something may follow, then seldom."""
        while self.now < until:
            quiet = self.now - self._busy_until
            step = 1.0 if quiet < 2.0 else 5.0 if quiet < SETTLES else 60.0 if quiet < 3_600.0 else 3_600.0
            self.now = min(until, max(self._tended, self.now) + step)
            if self.now - self._tended >= min(step, 1.0):
                self._tend()

    def do(self, deed: Deed, index: int) -> None:
        """Do the next of a deed's acts: the whole of it where it is done at once."""
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
        """Have Asterisk meet an act, and its witnesses tell of it."""
        if act.deed.verb in _ATTEMPTS:
            self._answered[act.address] += 1
        for is_challenge, told in groupby(tell(act, self._scenario.heard), _is_challenge):
            if is_challenge:
                self._evidence.see(_challenges(told), UP_FOR + self.now)
            else:
                self._evidence.hear(_events(told), UP_FOR + self.now)
            self._look()

    def _on_the_pbx(self, deed: Deed) -> None:
        if deed.verb is Verb.LOSES_ACCOUNTS:
            self._exists.clear()
        elif deed.verb is Verb.FINDS_ACCOUNTS:
            self._exists.update(self._scenario.accounts)
        elif deed.verb is Verb.FLOODS:
            self._evidence.limited(map(_limited, deed.addresses), UP_FOR + self.now)
        elif deed.verb in (Verb.HAS_CONTACT, Verb.LOSES_CONTACT):
            self._contact(deed)
        elif deed.verb is Verb.LIFTS:
            self._enforcer.free(
                key_of(ip_network(address), scope) for address in deed.addresses for scope in Scope
            )
        self._look()

    def _contact(self, deed: Deed) -> None:
        until = MIDNIGHT + self.now + _REGISTERED_FOR
        for address in deed.addresses:
            for account in deed.accounts:
                contact = Contact(PBX, deed.service, account, address, until, deed.reachable)
                self._friends.contact(evolve(contact, gone=deed.verb is Verb.LOSES_CONTACT))

    def is_friend(self, network: Network) -> bool:
        """Say whether an address is a friend's."""
        return self._detector.friends.has(network.network_address)

    def _arrives(self, act: Act) -> bool:
        """Say whether the kernel lets it through to Asterisk."""
        address = act.address
        if any(address in network for network in self._backend.rolls[Roll.ALLOW]):
            return True
        scopes = [Scope.FULL]
        if act.deed.service in _SIP and act.deed.transport is Transport.UDP:
            scopes.append(Scope.SIP_UDP)
        return not any(self._finds(ip_network(address), scope) for scope in scopes)

    def _finds(self, network: Network, scope: Scope) -> bool:
        """Say whether a ban covers ``network``, whatever its length."""
        lengths = {network.prefixlen, *(_LENGTHS[network.version])}
        wider = (network.supernet(new_prefix=length) for length in lengths if length <= network.prefixlen)
        return any(self._backend.find(one, scope) is not None for one in wider)

    # -- what follows -----------------------------------------------------------------------------------

    def _tend(self) -> None:
        self._tended = self.now
        wire = "wire" in self._scenario.heard
        self._evidence.tend(wire=wire, listening=self._listening)
        self._enforcer.tend()
        self._friends.expire()
        self._friends.write()
        self._look()

    def _listening(self, _: str) -> float | None:
        return 0.0 if "AMI" in self._scenario.heard else None

    def _look(self) -> None:
        """Take what was said since the last look."""
        if not self._logged:
            return
        said, self._logged[:] = [*self._logged], []
        for entry in said:
            name = entry["event"]
            if name == "ban.placed":
                self.happened.append(self._banned(ip_network(entry["address"]), entry["rule"]))
            elif name.startswith(_ALARM):
                name = name.removeprefix(_ALARM)
                over = name.endswith(".over")
                subject = str(entry["subject"])
                self.happened.append(
                    Happened(self.now, name.removesuffix(".over"), subject=subject, is_over=over)
                )

    def _banned(self, network: Network, rule: str) -> Happened:
        bans = [ban for scope in Scope for ban in [self._ban(network, scope)] if ban is not None]
        ban = max((ban for ban in bans if ban.rule == rule), key=lambda ban: ban.since)
        senders = [address for address in self._answered if address in network]
        after = sum(self._answered.pop(address) for address in senders)
        seconds, only_sip = round(ban.expires - ban.since), ban.scope is Scope.SIP_UDP
        return Happened(self.now, rule, network, "", seconds, only_sip, after, is_ban=True)

    def _ban(self, network: Network, scope: Scope) -> Ban | None:
        return self._enforcer.ban_at(key_of(network, scope))


_PORT = 5_060
_REGISTERED_FOR = 3_600.0
_NOBODY = ip_address("0.0.0.0")
_LENGTHS = {4: (32, 24), 6: (128, 64, 48)}
_ALARM = "alarm."
_ON_THE_PBX = {
    Verb.LOSES_ACCOUNTS,
    Verb.FINDS_ACCOUNTS,
    Verb.FLOODS,
    Verb.LIFTS,
    Verb.HAS_CONTACT,
    Verb.LOSES_CONTACT,
}


def _limited(address: Address) -> Network:
    """Give what the kernel's limiter counts: an IPv4 address, or the /64 of an IPv6 one."""
    return ip_network((address, 64 if address.version == 6 else 32), strict=False)


def _is_challenge(told: Told) -> bool:
    return isinstance(told, Challenge)


def _challenges(told: Iterable[Told]) -> Sequence[Challenge]:
    return [one for one in told if isinstance(one, Challenge)]


def _events(told: Iterable[Told]) -> Sequence[SecurityEvent]:
    return [one for one in told if isinstance(one, SecurityEvent)]


def _on(roll: Roll, allowed: NetworkSet) -> Iterator[Network]:
    return iter(allowed.networks if roll is Roll.ALLOW else ())
