"""What commands are told, as JSON can carry it: the list of bans, and how everything is.

The keys are an interface that others script against; what is here is only ever added to.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING

from ringfence.detect.detector import Detector, Watched
from ringfence.enforce import Enforcer, Listed
from ringfence.model import Network, printable
from ringfence.sources.ami import AmiSource
from ringfence.sources.state import State

if TYPE_CHECKING:
    from ringfence.sources.logs import LogSource
    from ringfence.sources.wire import WireSource

WITHOUT_WIRE = "who hides from Asterisk's own events is only listed, and so is who guesses at chan_sip"
"""What is open where outgoing challenges are not seen."""


def bans_report(listed: Sequence[Listed]) -> list[dict[str, object]]:
    """Give one object a ban. ``timeout`` is what the kernel has left of it in seconds, as of now.

    What is known of a ban beyond the kernel's own word is null where nobody knows it, and so is the end of
    an element that somebody else put in without one.
    """
    return [
        {
            "address": shown(entry.element.network),
            "since": rfc3339(entry.ban.since) if entry.ban else None,
            "expires": rfc3339(entry.expires) if isfinite(entry.expires) else None,
            "rule": entry.ban.rule if entry.ban else None,
            "attempts": len(entry.ban.attempts) if entry.ban else None,
            "packets": entry.element.packets,
            "bytes": entry.element.bytes,
            "timeout": round(entry.element.timeout) if isfinite(entry.element.timeout) else None,
            "reason": printable(entry.ban.reason) if entry.ban else None,
        }
        for entry in listed
    ]


def status_report(
    sources: "Sequence[AmiSource | LogSource]",
    wire: "WireSource | None",
    detector: Detector,
    enforcer: Enforcer,
    now: float,
    bans: int,
    problems: Sequence[str],
) -> dict[str, object]:
    """Give how everything is.

    ``now`` is monotonic, ``bans`` how many the kernel has, ``problems`` what else is wrong, a line each.
    """
    counts = [source.counts for source in sources]
    return {
        "sources": [*(_source(source) for source in sources), *([_wire(wire)] if wire else [])],
        "events": sum(count.events for count in counts),
        "attempts": detector.counts.attempts,
        "tampered": sum(count.tampered for count in counts),
        "garbled": sum(count.garbled for count in counts),
        "bans": bans,
        "never_banned": detector.counts.never_banned,
        "withheld": detector.counts.withheld,
        "late": detector.counts.late,
        "hidden": detector.counts.hidden,
        "forged": detector.counts.forged,
        "evicted": detector.evicted,
        "firewall": _firewall(enforcer),
        "placed": enforcer.counts.placed,
        "failed": enforcer.counts.failed,
        "pending": enforcer.pending,
        "watched": [_watched(entry) for entry in detector.watched(now)],
        "problems": [*problems, *_problems(enforcer), *_wire_problems(wire), *_alarms(sources)],
    }


def rfc3339(seconds: float) -> str:
    """Write a wall-clock time as RFC 3339 has it, in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(network: Network) -> str:
    """Write a network as people do: a single address without its length."""
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network)


def _source(source: "AmiSource | LogSource") -> dict[str, object]:
    counts = source.counts
    return {
        "name": str(source.id),
        "state": str(source.condition.state),
        "detail": printable(source.condition.detail),
        "events": counts.events,
        "tampered": counts.tampered,
        "garbled": counts.garbled,
        "dropped_bytes": counts.dropped_bytes,
    }


def _wire(source: "WireSource") -> dict[str, object]:
    counts = source.counts
    return {
        "name": "wire",
        "state": str(source.condition.state),
        "detail": source.condition.detail,
        "events": counts.challenges,
        "tampered": 0,
        "garbled": counts.unreadable,
        "dropped_bytes": 0,
        "lost": counts.lost,
        "containers": [shown(network) for network in source.containers],
    }


def _firewall(enforcer: Enforcer) -> dict[str, object]:
    families: Mapping[int, str | None] = enforcer.opened.families if enforcer.opened else {}
    verification = enforcer.verification
    return {
        "backend": enforcer.backend.name,
        "enforcing": enforcer.enforcing and enforcer.backend.enforces,
        "verified": bool(verification and verification.verified),
        "families": {str(version): why or "guarded" for version, why in families.items()},
    }


def _problems(enforcer: Enforcer) -> list[str]:
    problems = []
    if enforcer.enforcing and not enforcer.backend.enforces:
        problems.append(f"a dry run: the {enforcer.backend.name} firewall drops nothing")
    if not enforcer.enforcing:
        problems.append("enforcement is switched off: nobody is banned; switch it on with: ringfence on")
    if enforcer.opened and enforcer.opened.wire:
        problems.append(f"the wire shows nothing: {enforcer.opened.wire}; {WITHOUT_WIRE}")
    if enforcer.firewall_error:
        problems.append(f"the firewall refuses bans ({enforcer.pending} pending): {enforcer.firewall_error}")
    if enforcer.store_error:
        problems.append(f"bans are not recorded: {enforcer.store_error}")
    return problems


def _wire_problems(wire: "WireSource | None") -> list[str]:
    """Say what is open while the wire is not seen; the source's own line says why."""
    blind = wire is not None and wire.condition.state not in (State.LISTENING, State.CONNECTING)
    return [f"the wire is not seen: {WITHOUT_WIRE}"] if blind else []


def _alarms(sources: "Sequence[AmiSource | LogSource]") -> list[str]:
    """Give what Asterisk itself says of its log."""
    return [
        f"{source.id}: {name} ({alarm.count} times, last {rfc3339(alarm.last)})"
        for source in sources
        if not isinstance(source, AmiSource)
        for name, alarm in source.alarms.items()
    ]


def _watched(entry: Watched) -> dict[str, object]:
    last = entry.attempts[-1]
    return {
        "address": shown(entry.subject),
        "rule": entry.rule,
        "attempts": len(entry.attempts),
        "of": entry.of,
        "standing": str(entry.standing),
        "proof": last.proof.name.lower(),
        "service": str(last.service),
        "accounts": [printable(account) for account in dict.fromkeys(a.account for a in entry.attempts)][:5],
        "last": rfc3339(last.time),
    }
