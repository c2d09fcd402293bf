"""The facts of an address as JSON. Scripts depend on the keys, so these are stable."""

from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any

from ringfence.bans.exemptions import ITSELF
from ringfence.detect.confirmation import why_unconfirmed
from ringfence.detect.judgement import Count
from ringfence.explain.facts import ActiveBan, AttemptOutcome, NetworkFacts, sources_of
from ringfence.explain.forecast import forecast
from ringfence.firewall.contract import Ration
from ringfence.friends.exchange import as_json
from ringfence.lists.compose import Holder
from ringfence.model import (
    Attempt,
    AttemptKind,
    Ban,
    EventKind,
    Friend,
    ListKind,
    Proof,
    Service,
    format_network,
    printable,
    rfc3339,
)
from ringfence.store.bans import Past

# -- words for the reasons why Asterisk refused attempts


_BY_EVENT = {
    EventKind.CHALLENGE_RESPONSE_FAILED: "wrong password",
    EventKind.INVALID_PASSWORD: "wrong password",
    EventKind.INVALID_ACCOUNT_ID: "no such account",
    EventKind.FAILED_ACL: "ACL",
    EventKind.INVALID_TRANSPORT: "wrong transport",
    EventKind.HIDDEN: "hidden",
    EventKind.LIMITED: "flood",
}


def reason_of(attempt: Attempt) -> str:
    """Return in two or three words why Asterisk refused an attempt.

    Most reasons follow from the kind of the event. For example, PJSIP reports a wrong password as
    ``ChallengeResponseFailed``. For a kind without a reason in the table, return the name of the kind.
    """
    if attempt.kind is AttemptKind.PROBE:
        return "unknown caller" if attempt.service is Service.DIALPLAN else "unknown extension"
    return _BY_EVENT.get(attempt.event, str(attempt.event))


# -- sentences about attempts that do not count in full: unconfirmed ones, and hidden ones without proof
#
# An *unconfirmed* attempt may name a forged address, and no other source confirms it. A *hidden* attempt is
# missing in Asterisk's events and logs; only the wire (the capture of outgoing challenges) shows it.


def remarks(known: NetworkFacts) -> list[str]:
    """Return sentences: how many attempts do not count, or count only as claims, and why.

    An attempt is only a claim if nothing proves that its address is really that of the sender.
    """
    attempts = [outcome.attempt for outcome in known.attempts()]
    reasons = Counter(why_unconfirmed(attempt) for attempt in attempts if not attempt.trusted)
    found = [_line(number, len(attempts), why) for why, number in reasons.items()]
    return [*found, *_hidden(attempts)]


def _line(number: int, of: int, why: str) -> str:
    if number == of:
        return f"no attempt counts: {why}"
    return f"{number} of {of} attempts {'does' if number == 1 else 'do'} not count: {why}"


def _hidden(attempts: list[Attempt]) -> Iterator[str]:
    hidden = [attempt for attempt in attempts if attempt.trusted and attempt.event is EventKind.HIDDEN]
    claimed = sum(attempt.proof is Proof.CLAIMED for attempt in hidden)
    if claimed:
        yield (
            f"{claimed} of {len(attempts)} attempts are missing in Asterisk's events, and their address is "
            "not proven so far: for a minute after each, requests from there are observed, and a nonce that "
            "comes back proves the attempts of its session"
        )


Document = dict[str, Any]


def document(known: NetworkFacts) -> Document:
    """Return all facts as a JSON object. Times are RFC 3339 texts, and hostile text is made printable."""
    story = known.story
    return {
        "address": format_network(known.network),
        "subject": format_network(known.subject),
        "verdict": str(known.verdict),
        "forecast": forecast(known),
        "evidence": remarks(known),
        "bans": [_running(known, one) for one in known.running],
        "past": [_past(one) for one in known.past],
        "lists": [_entry(holder) for holder in known.holders],
        "kernel_lists": _kernel_lists(known),
        "ration": None if known.rationed is None else _ration(known.rationed),
        "protected": [{"network": format_network(kept), "why": why} for kept, why in known.reasons.items()],
        "friend": bool(known.friends),
        "friends": [_friend(friend) for friend in known.friends],
        "former": [_friend(friend) for friend in known.former],
        "outage_mode": story is not None and story.outage_mode,
        "attempts": [_attempt(outcome) for outcome in known.attempts()],
        "alarms": [alarm.as_json() for alarm in known.alarms],
        "contains_exempt": known.contains_exempt,
        "rules": [_count(known, count) for count in story.counts] if story is not None else [],
        "enforcing": known.enforcing,
        "daemon": known.live,
        "problems": list(known.problems),
    }


def _kernel_lists(known: NetworkFacts) -> dict[str, bool]:
    """Return whether the lists of networks in the kernel contain the queried network, by list.

    While enforcement is off, the kernel has no lists. The list of friends is known only to a daemon; without
    one, its value is False.
    """
    if not known.enforcing:
        return {"allow": False, "deny": False, "friends": False}
    # The kernel's allow list also has the networks that this host needs, except loopback (ITSELF).
    guarded = any(kept.prefixlen <= known.network.prefixlen for kept in known.reasons.keys() - ITSELF.keys())
    return {
        "allow": bool(known.on(ListKind.ALLOW)) or guarded,
        "deny": bool(known.on(ListKind.DENY)),
        "friends": known.live and bool(known.friends),
    }


def _ration(ration: Ration) -> dict[str, Any]:
    return {"mode": str(ration.mode), "burst": ration.burst, "rate": ration.rate}


def _running(known: NetworkFacts, one: ActiveBan) -> Document:
    element = one.element
    ban = one.ban
    expires = ban.expires if ban is not None else known.now + (element.timeout if element else 0.0)
    left = element.timeout if element is not None else 0.0
    return {
        "network": format_network(one.network),
        "scope": str(one.scope),
        **_record(ban),
        "expires": rfc3339(expires) if isfinite(expires) else None,
        "in_kernel": element is not None,
        "timeout": round(left) if isfinite(left) else None,
        "packets": element.packets if element is not None else None,
        "bytes": element.bytes if element is not None else None,
    }


def _past(one: Past) -> Document:
    return {
        "network": format_network(one.ban.network),
        "scope": str(one.ban.scope),
        **_record(one.ban),
        "expires": rfc3339(one.ban.expires),
        "ended": None if one.ended is None else rfc3339(one.ended),
    }


def _record(ban: Ban | None) -> Document:
    """Return the recorded facts of a ban. Each is null if the ban has no record."""
    if ban is None:
        return dict.fromkeys(("since", "rule", "reason", "origin", "offence", "attempts", "proven"))
    return {
        "since": rfc3339(ban.since),
        "rule": printable(ban.rule),
        "reason": printable(ban.reason),
        "origin": str(ban.origin),
        "offence": ban.offence,
        "attempts": len(ban.attempts),
        "proven": sum(attempt.proof is not Proof.CLAIMED for attempt in ban.attempts),
    }


def _entry(holder: Holder) -> Document:
    entry = holder.entry
    return {
        "list": str(entry.kind),
        "entry": printable(entry.value),
        "network": format_network(holder.network),
        "note": printable(entry.note),
        "source": printable(entry.origin),
        "ends": None if entry.until is None else rfc3339(entry.until),
        "forced": entry.forced,
    }


def _friend(friend: Friend) -> Document:
    encoded = as_json(friend)
    texts = {key: printable(encoded[key]) for key in ("account", "asterisk")}
    return {**encoded, **texts, "proven": friend.proven}


def _attempt(outcome: AttemptOutcome) -> Document:
    attempt = outcome.attempt
    return {
        "time": rfc3339(attempt.time),
        "asterisk": printable(attempt.asterisk),
        "address": str(attempt.address),
        "kind": str(attempt.kind),
        "reason": reason_of(attempt),
        "account": printable(attempt.account),
        "event": str(attempt.event),
        "service": str(attempt.service),
        "transport": str(attempt.transport),
        "proof": attempt.proof.name.lower(),
        "sources": [printable(source) for source in sources_of(attempt)],
        "trusted": attempt.trusted,
        "tampered": attempt.tampered,
        "forged_address": None if attempt.forged_address is None else str(attempt.forged_address),
        "ban": None if outcome.ban is None else rfc3339(outcome.ban),
    }


def _count(known: NetworkFacts, count: Count) -> Document:
    return {
        "rule": count.rule.name,
        "meaning": count.rule.meaning,
        "by": count.rule.by.name.lower(),
        "of": count.number,
        "have": count.have,
        "proven": count.proven,
        "window": count.within,
        "ends": None if count.ends is None else rfc3339(count.ends + known.ahead),
    }
