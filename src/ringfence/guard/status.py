"""The present state of all parts: the status as JSON, and the alarms that follow from it.

The keys are an interface for scripts: keys may be added, but not changed or removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import Factory, frozen

from ringfence.alarm_codes import Alarm, AlarmCode, AnyAlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.reconcile import Reconciler
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Guest, Pinging, Watched
from ringfence.detect.rules import Rule
from ringfence.firewall.contract import Counters
from ringfence.guard import process
from ringfence.guard.feature import Feature
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.reload import Reloader
from ringfence.guard.source_manager import SourceManager, WireReader
from ringfence.host.connections import ConnectionTable
from ringfence.values.network import Network, format_network
from ringfence.values.text import printable, rfc3339

if TYPE_CHECKING:
    from ringfence.sources.ami import AmiSource
    from ringfence.sources.logs import LogSource
    from ringfence.sources.nflog import NflogSource


@frozen
class StatusData:
    """The data of a status report at ``now`` (monotonic seconds), except what the enforcer of bans knows.

    ``sources`` are those of the PBXs, and ``others`` those of the whole host, such as the wire.
    ``usage`` are the counters of the firewall's rules. ``why`` is the reason why the firewall backend was
    chosen. ``alarms`` has only some of a code that has many, and ``alarm_counts`` how many each code has.
    ``unseen`` has a line for each kind of attempt that the present sources cannot report. ``rules`` are the
    rules of the configuration, including those that are off. ``ports_known``: Asterisk's ports are found or
    configured; otherwise the usual ones are guarded. ``proxies`` are the SIP proxies of the configuration.
    ``features`` are the parts that features add, by key.
    """

    now: float
    sources: "Sequence[AmiSource | LogSource]"
    others: "Sequence[NflogSource]"
    detector: Detector
    reconciler: Reconciler
    usage: Counters
    why: str
    alarms: Sequence[AlarmRecord]
    alarm_counts: Mapping[AnyAlarmCode, int] = Factory(dict)
    unseen: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    ports_known: bool = True
    proxies: Sequence[Network] = ()
    features: Mapping[str, object] = Factory(dict)


def status_report(enforcer: Enforcer, seen: StatusData) -> dict[str, object]:
    """Return the status that ``ringfence status`` shows, as values that JSON can represent."""
    counts = [source.counts for source in seen.sources]
    detector = seen.detector
    return {
        "sources": [_source(source) for source in (*seen.sources, *seen.others)],
        "events": sum(count.events for count in counts),
        "attempts": detector.counts.attempts,
        "tampered": sum(count.tampered for count in counts),
        "garbled": sum(count.garbled for count in counts),
        "bans": seen.reconciler.enforced,
        "enforced": seen.reconciler.enforced,
        "expected": seen.reconciler.expected,
        "exempt": detector.counts.exempt,
        "unconfirmed": detector.counts.unconfirmed,
        "late": detector.counts.late,
        "hidden": detector.counts.hidden,
        "forged": detector.counts.forged,
        "evicted": detector.evicted,
        "firewall": _firewall(enforcer, seen),
        "rules": {
            "on": [rule.name for rule in seen.rules if rule.enabled],
            "off": [rule.name for rule in seen.rules if not rule.enabled],
            "decoys": sorted(
                printable(account) for rule in seen.rules if rule.enabled for account in rule.accounts or ()
            ),
        },
        "proxies": [format_network(network) for network in seen.proxies],
        "placed": enforcer.book.counts.placed,
        "failed": enforcer.book.counts.failed,
        "pending": len(enforcer.ledger.pending),
        "displaced": enforcer.book.counts.displaced,
        "watched": [_watched(entry) for entry in detector.watched(seen.now)],
        "alarms": [alarm.as_json() for alarm in seen.alarms],
        "alarm_counts": {str(code): number for code, number in seen.alarm_counts.items()},
        "unseen": [*seen.unseen],
        "pinging": [
            _host(one, method=one.method, account=printable(one.account)) for one in detector.pinging()
        ],
        "guests": [_host(one) for one in detector.guests(seen.now)],
        **seen.features,
    }


def _host(one: Pinging | Guest, **more: str) -> dict[str, object]:
    """Return a stranger that sends requests or calls as JSON values, with the fields ``more``."""
    return {
        "address": str(one.address),
        "number": one.number,
        "since": rfc3339(one.began),
        "last": rfc3339(one.last),
        **more,
        "text": one.sentence,
    }


def _source(source: "AmiSource | LogSource | NflogSource") -> dict[str, object]:
    """Return the state of a source as JSON values."""
    return {
        "name": str(source.id),
        "state": str(source.condition.state),
        "detail": printable(source.condition.detail),
        **source.numbers,
    }


def _firewall(enforcer: Enforcer, seen: StatusData) -> dict[str, object]:
    opened, verification, usage = enforcer.opened, enforcer.verification, seen.usage
    families: Mapping[int, str | None] = opened.families if opened else {}
    counts = seen.reconciler.counts
    return {
        "backend": enforcer.backend.name,
        "why": seen.why,
        "enforcing": enforcer.enforcing and enforcer.backend.enforces,
        "verified": bool(verification and verification.verified),
        "untried": [
            {"version": check.version, "direction": str(check.direction), "why": check.note}
            for check in (verification.untried if verification else ())
        ],
        "families": {str(version): why or "guarded" for version, why in families.items()},
        **{name: str(mode) for name, mode in enforcer.plan.modes.items()},
        "repaired": counts.repaired,
        "restored": counts.restored,
        "adopted": counts.adopted,
        "ports_known": seen.ports_known,
        "rules": [{"rule": use.name, "packets": use.packets, "bytes": use.bytes} for use in usage.rules],
        "sets": dict(usage.sets),
    }


def _watched(entry: Watched) -> dict[str, object]:
    last = entry.attempts[-1]
    return {
        "address": format_network(entry.subject),
        "rule": entry.rule,
        "attempts": len(entry.attempts),
        "have": entry.have,
        "of": entry.of,
        "standing": str(entry.disposition),
        "proof": last.proof.name.lower(),
        "service": str(last.service),
        "accounts": [printable(account) for account in dict.fromkeys(a.account for a in entry.attempts)][:5],
        "last": rfc3339(last.time),
    }


# -- the present state of all parts, for the status and for the alarms


class StatusCollector:
    """Collects the state of all parts of the daemon, for the status and for the alarms that follow from it.

    ``wire`` is None if it is not configured.
    """

    def __init__(
        self,
        side: FirewallSide,
        sources: SourceManager,
        wire: WireReader | None,
        reloader: Reloader,
        connections: ConnectionTable,
        features: Sequence[Feature] = (),
    ) -> None:
        self._side = side
        self._sources = sources
        self._wire = wire
        self._reloader = reloader
        self._connections = connections
        self._features = features

    def collect(self, counters: Counters) -> StatusData:
        """Update the alarms, and return the present state. ``counters`` are those of the firewall's rules."""
        side, settings = self._side, self._reloader.settings
        self.update_alarms()
        return StatusData(
            now=side.common.clock.mono(),
            sources=self._sources.active,
            others=self._sources.others,
            detector=side.detector,
            reconciler=side.kernel.reconciler,
            usage=counters,
            why=side.kernel.why,
            alarms=side.common.alarms.active,
            alarm_counts=side.common.alarms.count(),
            unseen=self._sources.coverage_gaps(),
            rules=settings.rule_table(),
            ports_known=side.kernel.wanted_rules.ports is not None or bool(settings.firewall.sip_ports),
            proxies=[network for pbx in settings.asterisk for network in pbx.proxies],
            features={key: part for one in self._features for key, part in one.section().as_json().items()},
        )

    def update_alarms(self) -> None:
        """Activate the alarms that follow from the present state of all parts.

        Clear those that no longer follow from it, and all alarms whose time has ended.
        """
        alarms = self._side.common.alarms
        alarms.expire()
        self._connections.retry()
        if not self._connections.error:  # clear the alarm: an earlier run of the daemon may have set it
            alarms.clear(AlarmCode.HOST_UNREADABLE, "connections")
        alarms.hold(
            [
                *self._reloader.alarms,
                *(self._wire.alarms if self._wire is not None else ()),
                *self._side.present_alarms,
                *self._others(),
            ]
        )

    def _others(self) -> Iterator[Alarm]:
        for feature in self._features:
            yield from feature.alarms()
        if self._connections.error:
            yield Alarm(AlarmCode.HOST_UNREADABLE, "connections", self._connections.error)
        if process.LOG.error:
            yield Alarm(AlarmCode.LOG_UNWRITABLE, "", process.LOG.error)
