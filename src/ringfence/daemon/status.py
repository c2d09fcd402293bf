"""The list of bans and the status, as JSON.

The keys are an interface for scripts: keys may be added, but not changed or removed.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from operator import itemgetter
from typing import TYPE_CHECKING

from attrs import frozen

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import ActiveAlarm
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.reconcile import Reconciler
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Watched
from ringfence.detect.rules import Rule
from ringfence.firewall.contract import Counters, Element
from ringfence.ledger import Ledger, Record, key_of
from ringfence.model import Network, Scope, format_network, printable, rfc3339
from ringfence.sources.ami import AmiSource

if TYPE_CHECKING:
    from ringfence.sources.logs import LogSource
    from ringfence.sources.wire import WireSource

_ROWS = 500  # the number of bans in one part of the list, some 120 kB
WITHOUT_WIRE = (
    "a sender that hides from Asterisk's own events is only listed, and so is a guesser at chan_sip"
)
"""Which attempts lead to no ban while outgoing challenges cannot be read, as text for people."""


def bans_report(elements: Iterable[Element], ledger: Ledger, now: float) -> Iterator[bytes]:
    """Return the kernel's bans as a JSON list, one object for each ban, the newest first.

    ``timeout`` in an object is the time left in the kernel (seconds). If ``ledger`` has no record of a ban,
    the values that only a record has are null. If another program added the ban without an end, ``expires``
    and ``timeout`` are null.

    All elements are read at once. The text of the list comes in parts, because 100,000 objects would take
    150 MB.
    """
    found = []
    for element in elements:
        record = ledger.get(key_of(element.network, element.scope))
        since = -record.since if record else 0.0
        # The network is kept as text, which takes a tenth of the memory of the network object.
        found.append(
            (
                since,
                format_network(element.network),
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
    """Encode one ban as JSON by hand, which is faster for 100,000 bans."""
    _, address, scope, timeout, packets, octets, record = row
    # A ban may be longer than the longest timeout of the kernel. Then the record has the later, true end.
    expires = max(now + timeout, record.expires if record else 0.0)
    since = f'"{rfc3339(record.since)}"' if record else "null"
    until = f'"{rfc3339(expires)}"' if isfinite(expires) else "null"
    left = round(timeout) if isfinite(timeout) else "null"
    rule, reason = (_quoted(record.rule), _quoted(record.reason)) if record else ("null", "null")
    attempts, offence = (record.attempts, record.offence) if record else ("null", "null")
    proven = record.proven if record else "null"
    accounts, account = (record.accounts, _encoded(record.account)) if record else ("null", "null")
    return (
        f'{{"address": "{address}", "since": {since}, "expires": {until}, "rule": {rule}, '
        f'"attempts": {attempts}, "packets": {packets}, "bytes": {octets}, "timeout": {left}, '
        f'"reason": {reason}, "scope": "{scope}", "offence": {offence}, "proven": {proven}, '
        f'"account": {account}, "accounts": {accounts}}}'
    )


@lru_cache(maxsize=64)
def _quoted(text: str) -> str:
    """Encode a text as JSON. The result is cached, because most bans have one of a few texts."""
    return _encoded(text)


def _encoded(text: str) -> str:
    return json.dumps(printable(text))


@frozen
class StatusData:
    """The data of a status report at ``now`` (monotonic seconds), except what the enforcer of bans knows.

    ``sources`` are all sources except the wire. ``wire`` is the wire source; None if it is not configured.
    ``usage`` are the counters of the firewall's rules. ``why`` is the reason why the firewall backend was
    chosen. ``unseen`` has a line for each kind of attempt that the present sources cannot report. ``rules``
    are the rules of the configuration, including those that are off. ``proxies`` are the SIP proxies of the
    configuration.
    """

    now: float
    sources: "Sequence[AmiSource | LogSource]"
    wire: "WireSource | None"
    detector: Detector
    reconciler: Reconciler
    usage: Counters
    why: str
    alarms: Sequence[ActiveAlarm]
    unseen: Sequence[str] = ()
    rules: Sequence[Rule] = ()
    proxies: Sequence[Network] = ()


@frozen
class Reloaded:
    """The result of reloading the configuration file ``where``.

    ``refused`` are the errors in the file. If there are any, the old configuration stays in force, and there
    are no ``notes``. Notes are remarks on the new configuration.
    """

    where: str
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def decoy_alarms(rules: Iterable[Rule], knew: Callable[[str], bool]) -> list[Alarm]:
    """Return an alarm for each decoy that is a real account.

    A decoy is an account in the list of a rule such as ``decoy``. One attempt on it causes a ban, so no phone
    may use it. ``knew`` returns whether an account is real: whether it has ever authenticated.
    """
    named = {account for rule in rules if rule.enabled for account in rule.accounts or ()}
    text = (
        "is a real account, so one mistyped password is a ban; fix: take it out of accounts in [rules.decoy]"
    )
    return [
        Alarm(AlarmCode.CONFIGURATION_DECOY, printable(account), text)
        for account in sorted(named)
        if knew(account)
    ]


def status_report(enforcer: Enforcer, seen: StatusData) -> dict[str, object]:
    """Return the status that ``ringfence status`` shows, as values that JSON can represent."""
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
        "limiter_drops": seen.usage.limiter_drops,
        "rationed": seen.usage.rationed,
        "placed": enforcer.counts.placed,
        "failed": enforcer.counts.failed,
        "pending": len(enforcer.ledger.pending_keys()),
        "displaced": enforcer.counts.displaced,
        "watched": [_watched(entry) for entry in detector.watched(seen.now)],
        "alarms": [alarm.as_json() for alarm in seen.alarms],
        "unseen": [*seen.unseen],
    }


def _source(source: "AmiSource | LogSource") -> dict[str, object]:
    """Return the state of a source other than the wire.

    Logs have two more values. ``standing_by``: the log's SECURITY lines are skipped now, because AMI delivers
    the same events. ``skipped`` is the number of skipped lines.
    """
    counts = source.counts
    standby = {}
    if not isinstance(source, AmiSource):
        standby = {"standing_by": source.standing_by, "skipped": source.counts.standby}
    return {
        "name": str(source.id),
        "state": str(source.condition.state),
        "detail": printable(source.condition.detail),
        "events": counts.events,
        "tampered": counts.tampered,
        "garbled": counts.garbled,
        "dropped_bytes": counts.dropped_bytes,
        **standby,
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
        "passing": counts.passing,
        "foreign": counts.foreign,
        "unnamed": counts.unnamed,
        "containers": [format_network(network) for network in source.containers],
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
        "limiter": str(enforcer.backend.plan.limit.mode),
        "ration": str(enforcer.backend.plan.ration.mode),
        "repaired": counts.repaired,
        "restored": counts.restored,
        "adopted": counts.adopted,
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
