"""What commands are told, as JSON can carry it: the list of bans, and how everything is.

The keys are an interface that others script against; what is here is only ever added to.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING

from attrs import frozen

from ringfence.alarms import Alarm
from ringfence.bans.enforce import Enforcer
from ringfence.bans.ledger import Ledger, Record, key_of
from ringfence.bans.reconcile import Reconciler
from ringfence.detect.detector import Detector, Watched
from ringfence.detect.rules import Rule
from ringfence.firewall.contract import Element, Usage
from ringfence.model import Scope, printable, rfc3339, shown
from ringfence.sources.ami import AmiSource
from ringfence.sources.state import State

if TYPE_CHECKING:
    from ringfence.sources.logs import LogSource
    from ringfence.sources.wire import WireSource

_ROWS = 500  # to a part, some 120 kB
WITHOUT_WIRE = "who hides from Asterisk's own events is only listed, and so is who guesses at chan_sip"
"""What is open where outgoing challenges are not seen."""


def bans_report(elements: Iterable[Element], ledger: Ledger, now: float) -> Iterator[bytes]:
    """Give what the kernel was found to have as a JSON list in parts, one object a ban, the newest first.

    ``timeout`` is what the kernel has left of it in seconds, as of now. What is known of a ban beyond the
    kernel's own word is null where nobody knows it, and so is the end of an element that somebody else put in
    without one. In parts of bytes, since 100 000 objects would be 150 MB; all elements are read before the
    first part is given.
    """
    found = []
    for element in elements:
        record = ledger.get(key_of(element.network, element.scope))
        since = -record.since if record else 0.0
        # Not the network itself, which is ten times as large as its text.
        found.append(
            (
                since,
                shown(element.network),
                element.scope,
                element.timeout,
                element.packets,
                element.bytes,
                record,
            )
        )
    found.sort(key=itemgetter(0))
    return _bans_in_parts(found, now)


_Row = tuple[float, str, Scope, float, int, int, Record | None]


def _bans_in_parts(found: Sequence[_Row], now: float) -> Iterator[bytes]:
    between = "["
    for start in range(0, len(found), _ROWS):
        rows = [_ban_row(row, now) for row in found[start : start + _ROWS]]
        yield (between + ", ".join(rows)).encode()
        between = ", "
    yield b"]" if found else b"[]"


def _ban_row(row: _Row, now: float) -> str:
    """Write one ban as JSON: by hand, since a hundred thousand of them are waited for."""
    _, address, scope, timeout, packets, octets, record = row
    # A ban may outlast the longest timeout that the kernel keeps.
    expires = max(now + timeout, record.expires if record else 0.0)
    since = f'"{rfc3339(record.since)}"' if record else "null"
    until = f'"{rfc3339(expires)}"' if isfinite(expires) else "null"
    left = round(timeout) if isfinite(timeout) else "null"
    rule, reason = (_quoted(record.rule), _quoted(record.reason)) if record else ("null", "null")
    attempts, offence = (record.attempts, record.offence) if record else ("null", "null")
    proven = record.proven if record else "null"
    return (
        f'{{"address": "{address}", "since": {since}, "expires": {until}, "rule": {rule}, '
        f'"attempts": {attempts}, "packets": {packets}, "bytes": {octets}, "timeout": {left}, '
        f'"reason": {reason}, "scope": "{scope}", "offence": {offence}, "proven": {proven}}}'
    )


@lru_cache(maxsize=64)
def _quoted(text: str) -> str:
    """Write a text as JSON: the same few, mostly."""
    return json.dumps(printable(text))


@frozen
class Seen:
    """What a status is made of, beside the enforcer: all of it as of ``now`` (monotonic seconds).

    ``why`` is why this firewall was taken, ``problems`` what else is wrong, a line each; ``rules`` are those
    of the configuration, those that are off among them.
    """

    now: float
    sources: "Sequence[AmiSource | LogSource]"
    wire: "WireSource | None"
    detector: Detector
    reconciler: Reconciler
    usage: Usage
    why: str
    alarms: Sequence[Alarm]
    problems: Sequence[str] = ()
    rules: Sequence[Rule] = ()


@frozen
class Reloaded:
    """What came of reading the configuration ``where`` again.

    ``refused`` are the mistakes for which the old one stays. ``notes`` are what is to be known of a new one.
    """

    where: str
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decoy_problems(rules: Iterable[Rule], knew: Callable[[str], bool]) -> list[str]:
    """Say which decoys are accounts that work here, or did: one mistyped password there would be a ban.

    ``knew`` says whether an account has worked.
    """
    named = {account for rule in rules if rule.enabled for account in rule.accounts or ()}
    return [
        f"decoy {printable(account)} is an account that works here, so who mistypes its password is banned; "
        "mend: take it out of accounts in [rules.decoy]"
        for account in sorted(named)
        if knew(account)
    ]


def status_report(enforcer: Enforcer, seen: Seen) -> dict[str, object]:
    """Give how everything is."""
    counts = [source.counts for source in seen.sources]
    detector = seen.detector
    return {
        "sources": [
            *(_source(source) for source in seen.sources),
            *([_wire(seen.wire)] if seen.wire else []),
        ],
        "events": sum(count.events for count in counts),
        "attempts": detector.counts.attempts,
        "tampered": sum(count.tampered for count in counts),
        "garbled": sum(count.garbled for count in counts),
        "bans": seen.reconciler.enforced,
        "enforced": seen.reconciler.enforced,
        "expected": seen.reconciler.expected,
        "never_banned": detector.counts.never_banned,
        "withheld": detector.counts.withheld,
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
        "limiter_drops": seen.usage.limiter_drops,
        "placed": enforcer.counts.placed,
        "failed": enforcer.counts.failed,
        "pending": enforcer.pending,
        "gave_way": enforcer.counts.gave_way,
        "watched": [_watched(entry) for entry in detector.watched(seen.now)],
        "alarms": [alarm.as_json() for alarm in seen.alarms],
        "problems": [
            *seen.problems,
            *_problems(enforcer),
            *_wire_problems(seen.wire),
            *_said_by_asterisk(seen.sources),
        ],
    }


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


def _firewall(enforcer: Enforcer, seen: Seen) -> dict[str, object]:
    opened, verification, usage = enforcer.opened, enforcer.verification, seen.usage
    families: Mapping[int, str | None] = opened.families if opened else {}
    counts = seen.reconciler.counts
    return {
        "backend": enforcer.backend.name,
        "why": seen.why,
        "enforcing": enforcer.enforcing and enforcer.backend.enforces,
        "verified": bool(verification and verification.verified),
        "families": {str(version): why or "guarded" for version, why in families.items()},
        "limiter": str(enforcer.backend.plan.limit.mode),
        "healed": counts.healed,
        "restored": counts.restored,
        "adopted": counts.adopted,
        "rules": [{"rule": use.name, "packets": use.packets, "bytes": use.bytes} for use in usage.rules],
        "sets": dict(usage.sets),
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
    if enforcer.opened and enforcer.opened.limiter and enforcer.backend.enforces:
        problems.append(f"the limiter does not stand: {enforcer.opened.limiter}")
    if enforcer.records.fleeting:
        problems.append(enforcer.records.fleeting)
    if enforcer.records.unreadable:
        problems.append(enforcer.records.unreadable)
    if enforcer.records.error:
        problems.append(f"bans are not recorded: {enforcer.records.error}")
    return problems


def _wire_problems(wire: "WireSource | None") -> list[str]:
    """Say what is open while the wire is not seen; the source's own line says why."""
    blind = wire is not None and wire.condition.state not in (State.LISTENING, State.CONNECTING)
    return [f"the wire is not seen: {WITHOUT_WIRE}"] if blind else []


def _said_by_asterisk(sources: "Sequence[AmiSource | LogSource]") -> list[str]:
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
