"""The guard under judgement: ringfence's parsers, detector, bans and store, with a firewall in memory."""

import json
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC
from ipaddress import ip_address, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen
from structlog.testing import capture_logs
from tests.judge.asterisk import HERE, OUR_ASTERISK, PBX, SECOND, Report
from tests.judge.oracle import Bans, View
from tests.judge.others import OTHER_SERVER, RELAY
from tests.judge.packets import syns
from tests.judge.worlds import PLAIN, Site
from tests.scenarios.stage import MIDNIGHT, UP_FOR, _Streams
from tests.support.clock import SetClock

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.config.loader import parse
from ringfence.detect.confirmation import KnownSources, NoConnections
from ringfence.detect.detector import Bounds, Detector
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.firewall.memory import MemoryBackend
from ringfence.friends.registry import FriendRegistry
from ringfence.guard.ban_list import bans_report
from ringfence.guard.pipeline import EffectHandler, Pipeline
from ringfence.host.names import Names
from ringfence.netlink.nflog import Logged
from ringfence.parse.ami import AmiDecoder
from ringfence.parse.answer_stream import AnswerStreams
from ringfence.parse.answers import parse_answers
from ringfence.parse.log import LogReader
from ringfence.parse.request_stream import RequestStreams
from ringfence.parse.requests import parse_requests
from ringfence.parse.tls_records import TlsStreams, parse_exchange
from ringfence.sources.wire import REQUEST, WireHost, WireSource
from ringfence.store.database import Store
from ringfence.values.ban import Scope
from ringfence.values.event import AMI, SecurityEvent, Service, SourceId, Transport
from ringfence.values.friend import Contact, Roster, TrunkHost
from ringfence.values.network import Address, Network, format_network

_ASTERISKS = frozenset({PBX, SECOND})
_USERS = {OUR_ASTERISK: 100, RELAY: 65_534}
_NOT_COUNTED = (Disposition.COUNTED_BEFORE, Disposition.FORGED, Disposition.UNCONFIRMED)


def begin(address: str, port: int, here: str, requests: RequestStreams, answers: AnswerStreams) -> None:
    """Open a copied TCP connection from this address and port, in both directions."""
    asks, accepts = syns(address, port, here)
    parse_requests(asks, requests)
    parse_answers(accepts, answers)
    parse_exchange(accepts, TlsStreams(), requests, lambda _port: False)


@frozen
class _Host(WireHost):
    """A host with one of our Asterisks, at ``HERE`` if the site has it in a container."""

    site: Site

    def is_asterisks(self, user: int) -> bool:
        """Whether a user is the one of our Asterisk."""
        return user == _USERS[OUR_ASTERISK]

    def is_container(self, address: Address) -> bool:
        """Whether an address is the one of our Asterisk's container."""
        return self.site.container and address == ip_address(HERE)


class Guard:
    """One running guard, with a clock of its own: ``now`` is the time since its start (seconds)."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.now = 0.0
        self._site = site
        self._counted, self._forged = Counter[str](), Counter[str]()
        settings = parse({"claimed": {"per_minute": site.claims}}, "judge", {}, secrets=False)
        clock = SetClock(wall=lambda: MIDNIGHT + self.now, mono=lambda: UP_FOR + self.now)
        self._clock = clock
        self._store = Store.open(folder / "ringfence.db", owner=True)
        self._streams = _Streams()
        self._detector = Detector(
            settings.rule_table(),
            claimed=settings.claims(),
            connections=NoConnections() if site.container else self._streams,
            sources=KnownSources(_ASTERISKS, _ASTERISKS),
            bounds=Bounds(site.attempts, site.sessions),
        )
        store = self._store
        friends = self._friends = FriendRegistry(
            self._detector.friends, store.friends, store.best_effort, clock.wall, Names()
        )
        self._backend = MemoryBackend(clock=clock)
        self._enforcer = Enforcer(self._backend, self._store.records, self._detector, clock)
        self._enforcer.start(verified=False)
        self._alarms = Alarms(clock)
        effects = EffectHandler(self._enforcer, self._alarms, friends, [self])
        self._pipeline = Pipeline(self._detector, effects, clock, PBX)
        hosts = tuple(
            TrunkHost(PBX, Service.PJSIP, "carrier", address, 5060, Transport.UDP) for address in site.trunks
        )
        friends.on_roster(Roster(PBX, None, hosts))
        self._ami = {name: AmiDecoder(SourceId(name, AMI)) for name in _ASTERISKS}
        for ami in self._ami.values():
            ami.receive(b"Asterisk Call Manager/11.0.0\r\n", clock.mono())
        self._log = {name: LogReader(SourceId(name, "log:full"), timezone=UTC) for name in _ASTERISKS}
        containers = [ip_network((HERE, 24), strict=False)]
        self._wire = WireSource(self._pipeline, _Host(site), containers=containers)

    def close(self) -> None:
        """Close the database."""
        self._store.close()

    def on_judgement(self, judgement: Judgement) -> None:
        """Count a judgement."""
        if judgement.disposition is Disposition.FORGED:
            self._forged[str(judgement.attempt.address)] += 1
        if judgement.disposition not in _NOT_COUNTED:
            self._counted[str(judgement.attempt.address)] += 1

    def connected(self, address: str, port: int, here: str) -> None:
        """Record a TCP connection, as the kernel would report it."""
        remote = ip_address(address)
        self._streams.remotes[remote, port] = None
        if self.copies(address):
            begin(address, port, here, self._wire._requests, self._wire._streams)

    def copies(self, address: str) -> bool:
        """Whether the kernel copies the requests of an address: a stranger, or an observed friend."""
        observed = self._detector.observed(self._clock.mono())
        return not self._detector.friends.any_in(ip_network(address)) or ip_address(address) in observed

    def report(self, report: Report) -> None:
        """Pass the bytes of one source to the parser that reads them, and the results to the pipeline."""
        now = self._clock.mono()
        if report.source == "ami":
            items = self._ami[report.asterisk].receive(report.data, now)
            self._pipeline.on_events([one for one in items if isinstance(one, SecurityEvent)], now)
        elif report.source == "log":
            results = self._log[report.asterisk].receive(report.data, now)
            self._pipeline.on_events([one.event for one in results if one.event is not None], now)
        elif report.source == "contact":
            account, address = report.data.decode().split()
            self._friends.on_contact(Contact(PBX, Service.SIP, account, ip_address(address)))
        else:
            self._wire.on_packet(self._copied(report), now)
            self._wire.on_turn(now, more=True)

    def _copied(self, report: Report) -> Logged:
        """Return a packet as the kernel copies it."""
        if report.source == "request":
            return Logged(None, report.data, own=False, prefix=REQUEST)
        own = report.program != OTHER_SERVER and not self._site.container
        return Logged(None, report.data, own, user=_USERS.get(report.program))

    def wait(self, until: float) -> None:
        """Advance the time, with the periodic work of each second."""
        while self.now < until:
            self.now = min(until, self.now + 1.0)
            now = self._clock.mono()
            for name in (PBX, SECOND):
                items = self._ami[name].tick(now)
                self._pipeline.on_events([one for one in items if isinstance(one, SecurityEvent)], now)
                lines = self._log[name].receive(b"", now)
                self._pipeline.on_events([one.event for one in lines if one.event], now)
            self._pipeline.tick(wire=True, listening=dict.fromkeys(_ASTERISKS, 0.0))
            self._enforcer.tick()
            self._friends.expire()
            self._friends.write()

    def view(self, *, whole: bool) -> View:
        """Return what is seen from outside. Only if ``whole``, the three other places are read too."""
        elements = list(self._backend.list())
        kernel = _bans((one.network, one.scope) for one in elements)
        if not whole:
            return View(kernel, kernel, kernel, kernel, dict(self._counted), dict(self._forged))
        wall, ledger = self._clock.wall(), self._enforcer.ledger
        bans = [ban for key in ledger.keys() if (ban := ledger.ban(key)) is not None and ban.expires > wall]  # noqa: SIM118 - not a mapping
        report = json.loads(b"".join(bans_report(elements, ledger, wall)))
        running = list(self._store.records.running(wall))
        return View(
            kernel,
            _bans((ban.network, ban.scope) for ban in bans),
            _bans((ban.network, ban.scope) for ban in running),
            frozenset((one["address"], one["scope"]) for one in report),
            dict(self._counted),
            dict(self._forged),
            frozenset(one.subject for one in self._alarms.active if one.code is AlarmCode.EVIDENCE_HIDDEN),
            len(pickle.dumps(self._detector)),
        )


def _bans(found: Iterator[tuple[Network, Scope]]) -> Bans:
    return frozenset((format_network(network), str(scope)) for network, scope in found)


@contextmanager
def guarding(site: Site = PLAIN) -> Iterator[Guard]:
    """Yield a guard with a database of its own."""
    with capture_logs(), TemporaryDirectory() as folder:
        guard = Guard(Path(folder), site)
        try:
            yield guard
        finally:
            guard.close()
