"""The metrics of a running daemon, in the format of Prometheus.

Nothing is counted here: :class:`DaemonMetrics` reads the counters of the daemon's parts when a scraper (a
Prometheus server) sends a request. Reading takes the same time for any number of bans. No label has a value
that a remote party chooses.
"""

import os
import resource
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import ringfence
from ringfence.alarm_codes import every_code
from ringfence.bans.delays import BOUNDS
from ringfence.detect.rules import BANNED_BY, counted_rule
from ringfence.guard.feature import Feature
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.pipeline import Pipeline
from ringfence.guard.source_manager import SourceManager
from ringfence.sources.state import State
from ringfence.values.attempt import Proof
from ringfence.values.ban import Scope
from ringfence.values.event import WIRE, EventKind

if TYPE_CHECKING:
    from ringfence.sources.wire import WireSource

FRESH = 1.0
"""Seconds for which the same metrics are served again, so that many scrapers cause little work."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
# The NOTICE lines of a log are a source of their own, with this suffix. They count as events of the log.
_NOTICES = "#notice"

Labelled = Iterable[tuple[Sequence[str], float]]
"""The samples of a metric: for each sample the values of its labels, and its number."""


class DaemonMetrics(Collector):
    """Reads the metrics from all parts of the daemon.

    ``wire`` is the source that reads outgoing SIP challenges; None if they are not read. ``features``
    have numbers of their own.
    """

    def __init__(
        self,
        side: FirewallSide,
        pipeline: Pipeline,
        sources: SourceManager,
        wire: "WireSource | None",
        features: Sequence[Feature] = (),
    ) -> None:
        self._side = side
        self._pipeline = pipeline
        self._sources = sources
        self._wire = wire
        self._features = features
        self._clock = side.common.clock
        self._started = self._clock.wall()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._page, self._rendered = b"", -inf

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format, at most ``FRESH`` seconds old."""
        now = self._clock.mono()
        if now - self._rendered >= FRESH:
            self._page, self._rendered = generate_latest(self._registry), now
        return self._page

    def describe(self) -> Iterable[Metric]:
        """Return no descriptions: a registry needs them only for several collectors, and this one has one."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its present values."""
        yield _gauge("build_info", "The version of ringfence.", ["version"], [((ringfence.__version__,), 1)])
        yield from self._source_metrics()
        yield from self._attempt_metrics()
        yield from self._ban_metrics()
        yield from self._firewall_metrics()
        for feature in self._features:
            for one in feature.section().numbers:
                if one.value is not None:
                    yield (_counter if one.only_grows else _gauge)(one.name, one.text, value=one.value)
        yield from self._store_metrics()
        alarms = self._side.common.alarms.count()
        numbers = {(str(code),): alarms.get(code, 0) for code in every_code()}
        yield _gauge("alarms", "Active alarms by code, without dismissed ones.", ["code"], numbers.items())
        yield from self._process_metrics()

    def _source_metrics(self) -> Iterator[Metric]:
        """Yield the metrics of each source: its events, whether it is listening, and what it lost."""
        now = self._clock.mono()
        up: dict[tuple[str, ...], float] = {}
        silent: dict[tuple[str, ...], float] = {}
        tampered: dict[tuple[str, ...], float] = {}
        garbled: dict[tuple[str, ...], float] = {}
        for source in (*self._sources.active, *self._sources.others):
            name = (str(source.id),)
            up[name] = source.condition.state is State.LISTENING
            if source.last_sign is not None:
                silent[name] = max(0.0, now - source.last_sign)
        for source in self._sources.active:
            name = (str(source.id),)
            tampered[name], garbled[name] = source.counts.tampered, source.counts.garbled
        yield _counter("events", "Security events by source and kind.", ["source", "kind"], self._events())
        yield _gauge("source_up", "Whether the source is listening.", ["source"], up.items())
        text = "Seconds since the source sent something. A log may be silent because nothing happens."
        yield _gauge("source_silent_seconds", text, ["source"], silent.items())
        text = "Events that violate Asterisk's grammar."
        yield _counter("events_tampered", text, ["source"], tampered.items())
        yield _counter(
            "events_garbled", "Packets or lines that were unreadable.", ["source"], garbled.items()
        )
        if self._wire is not None:
            counts = self._wire.counts
            yield _counter("wire_lost_packets", "Packets that the wire lost.", value=counts.lost)
            yield _counter("wire_gaps", "How often the wire lost packets.", value=counts.gaps)

    def _events(self) -> Labelled:
        found: dict[tuple[str, ...], float] = {}
        for source, kinds in self._pipeline.events.items():
            name = str(source).removesuffix(_NOTICES)
            for kind, number in kinds.items():
                found[name, str(kind)] = found.get((name, str(kind)), 0) + number
        if self._wire is not None:
            found[WIRE, str(EventKind.CHALLENGE_SENT)] = self._wire.counts.challenges
        return found.items()

    def _attempt_metrics(self) -> Iterator[Metric]:
        """Yield the numbers of attempts by kind, and by how the detector treated them."""
        counts = self._side.detector.counts
        numbers = {
            (str(kind), proof.name.lower()): by_proof[proof]
            for kind, by_proof in counts.by_kind.items()
            for proof in Proof
        }
        text = "Attempts by kind, and by the proof of their address when they were judged."
        yield _counter("attempts", text, ["kind", "proof"], numbers.items())
        text = "Attempts whose address was only claimed when they were judged, and proven later."
        later = {(str(kind),): number for kind, number in counts.proven_later.items()}
        yield _counter("attempts_proven_later", text, ["kind"], later.items())
        for name, text, value in (
            (
                "attempts_unconfirmed",
                "Attempts whose address may be forged.",
                counts.unconfirmed,
            ),
            ("attempts_hidden", "Attempts that only the wire reported.", counts.hidden),
            ("attempts_late", "Attempts of addresses that were banned already.", counts.late),
            ("attempts_exempt", "Attempts of addresses that are never banned.", counts.exempt),
            ("evidence_forged", "Reports that name an address which sent nothing.", counts.forged),
            ("evicted", "Entries that were discarded to limit the memory.", self._side.detector.evicted),
        ):
            yield _counter(name, text, value=value)
        yield _gauge(
            "friends", "Addresses of known phones and trunks.", value=len(self._side.exempt.friends.friends)
        )

    def _ban_metrics(self) -> Iterator[Metric]:
        """Yield the numbers of bans: placed, refused, ended early, and in force; and the delays of bans."""
        side, counts = self._side, self._side.kernel.enforcer.book.counts
        placed: dict[tuple[str, ...], float] = {
            (rule, str(scope)): 0 for rule in sorted(BANNED_BY) for scope in Scope
        }
        for (rule, scope), number in counts.placed_by.items():
            key = (counted_rule(rule), str(scope))
            placed[key] = placed.get(key, 0) + number
        yield _counter("bans", "Bans placed, by rule and scope.", ["rule", "scope"], placed.items())
        yield _counter("bans_failed", "Bans that the kernel refused at first.", value=counts.failed)
        yield _counter("bans_displaced", "Bans that ended early for lack of room.", value=counts.displaced)
        yield _counter("unbans", "Bans that were removed before their end.", value=counts.unbanned)
        yield _gauge("bans_enforced", "Bans in the kernel.", value=side.kernel.reconciler.enforced)
        yield _gauge(
            "bans_expected", "Bans that should be in the kernel.", value=side.kernel.reconciler.expected
        )
        numbers = side.kernel.enforcer.delays.cumulative()
        bounds = [*map(str, BOUNDS), "+Inf"]
        yield HistogramMetricFamily(
            "ringfence_ban_delay_seconds",
            "Time from the report of the last attempt to the kernel's acknowledgement of the ban.",
            buckets=list(zip(bounds, numbers, strict=True)),
            sum_value=side.kernel.enforcer.delays.sum,
        )

    def _firewall_metrics(self) -> Iterator[Metric]:
        """Yield the metrics of the firewall: whether it drops packets, and how many it dropped.

        The daemon reads these numbers every 30 seconds. They are missing if they are unknown.
        """
        enforcer = self._side.kernel.enforcer
        enforcing = enforcer.enforcing and enforcer.backend.enforces
        yield _gauge("enforcing", "Whether the firewall drops packets.", value=enforcing)
        latest = self._side.kernel.counters.latest
        if latest is None:
            return
        packets = {(rule.name,): rule.packets for rule in latest.rules}
        octets = {(rule.name,): rule.bytes for rule in latest.rules}
        yield _counter(
            "dropped_packets", "Dropped packets by rule of the firewall.", ["rule"], packets.items()
        )
        yield _counter("dropped_bytes", "Dropped bytes by rule of the firewall.", ["rule"], octets.items())

    def _store_metrics(self) -> Iterator[Metric]:
        """Yield how many writes to the database, bans and attempts wait, and the size of the database."""
        lengths = {
            ("database",): self._side.common.store.best_effort.waiting,
            ("pending_bans",): len(self._side.kernel.enforcer.ledger.pending),
            ("unconfirmed",): self._side.detector.waiting,
        }
        yield _gauge("queue_length", "Entries that wait, by queue.", ["queue"], lengths.items())
        text = "Writes to the database that were dropped because too many waited."
        yield _counter("database_refused_writes", text, value=self._side.common.store.best_effort.dropped)
        yield _gauge("database_bytes", "Size of the database's files.", value=self._side.common.store.size())

    def _process_metrics(self) -> Iterator[Metric]:
        """Yield metrics of the daemon's process, with the usual names of Prometheus' client libraries."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds = usage.ru_utime + usage.ru_stime
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        text = "Total user and system CPU time spent in seconds."
        yield CounterMetricFamily("process_cpu_seconds", text, value=seconds)
        text = "Resident memory size in bytes."
        yield GaugeMetricFamily("process_resident_memory_bytes", text, value=pages * _PAGE)
        text = "Start time of the process since unix epoch in seconds."
        yield GaugeMetricFamily("process_start_time_seconds", text, value=self._started)


def _counter(
    name: str, text: str, labels: list[str] | None = None, values: Labelled | None = None, *, value: float = 0
) -> Metric:
    """Return a counter with the samples ``values``; without them, with the single number ``value``.

    Its name is ``name`` after the prefix ``ringfence_``, and ``text`` is its description.
    """
    family = CounterMetricFamily(f"ringfence_{name}", text, labels=labels or [])
    return _filled(family, values if values is not None else [((), value)])


def _gauge(
    name: str, text: str, labels: list[str] | None = None, values: Labelled | None = None, *, value: float = 0
) -> Metric:
    """Return a gauge with the samples ``values``; without them, with the single number ``value``.

    Its name is ``name`` after the prefix ``ringfence_``, and ``text`` is its description.
    """
    family = GaugeMetricFamily(f"ringfence_{name}", text, labels=labels or [])
    return _filled(family, values if values is not None else [((), value)])


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Labelled) -> Metric:
    for labels, value in values:
        family.add_metric(labels, float(value))
    return family
