"""What is known of an address as JSON: the keys are an interface that others script against."""

from math import isfinite
from typing import Any

from ringfence.bans.exempt import ITSELF
from ringfence.detect.judge import Count
from ringfence.friends.document import as_json
from ringfence.lists.holding import Holder
from ringfence.model import Ban, Friend, Proof, Side, printable, rfc3339, shown
from ringfence.store_past import Past
from ringfence.why.known import Known, Running, Told, sources_of
from ringfence.why.outlook import outlook

Document = dict[str, Any]


def document(known: Known) -> Document:
    """Give all of it, with times as every listing writes them, and hostile text made printable."""
    story = known.story
    return {
        "address": shown(known.network),
        "subject": shown(known.subject),
        "verdict": str(known.verdict),
        "outlook": outlook(known),
        "bans": [_running(known, one) for one in known.running],
        "past": [_past(one) for one in known.past],
        "lists": [_entry(holder) for holder in known.holders],
        "rolls": _rolls(known),
        "protected": [{"network": shown(kept), "why": why} for kept, why in known.reasons.items()],
        "friend": bool(known.friends),
        "friends": [_friend(friend) for friend in known.friends],
        "former": [_friend(friend) for friend in known.former],
        "braked": story is not None and story.braked,
        "attempts": [_attempt(told) for told in known.attempts()],
        "alarms": [alarm.as_json() for alarm in known.alarms],
        "spared": known.spared,
        "rules": [_count(known, count) for count in story.counts] if story is not None else [],
        "enforcing": known.enforcing,
        "daemon": known.live,
        "problems": list(known.problems),
    }


def _rolls(known: Known) -> dict[str, bool]:
    """Say on which of the kernel's lists it is, as far as the daemon has written them."""
    if not known.enforcing:
        return {"allow": False, "deny": False, "friends": False}
    # That loopback is never banned is a rule of the daemon's.
    guarded = any(kept.prefixlen <= known.network.prefixlen for kept in known.reasons.keys() - ITSELF.keys())
    return {
        "allow": bool(known.on(Side.ALLOW)) or guarded,
        "deny": bool(known.on(Side.DENY)),
        "friends": known.live and bool(known.friends),
    }


def _running(known: Known, one: Running) -> Document:
    element = one.element
    ban = one.ban
    expires = ban.expires if ban is not None else known.now + (element.timeout if element else 0.0)
    left = element.timeout if element is not None else 0.0
    return {
        "network": shown(one.network),
        "scope": str(one.scope),
        **_told(ban),
        "expires": rfc3339(expires) if isfinite(expires) else None,
        "in_kernel": element is not None,
        "timeout": round(left) if isfinite(left) else None,
        "packets": element.packets if element is not None else None,
        "bytes": element.bytes if element is not None else None,
    }


def _past(one: Past) -> Document:
    return {
        "network": shown(one.ban.network),
        "scope": str(one.ban.scope),
        **_told(one.ban),
        "expires": rfc3339(one.ban.expires),
        "lifted": None if one.ended is None else rfc3339(one.ended),
    }


def _told(ban: Ban | None) -> Document:
    """Give what is on record of a ban; null where there is no record."""
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
        "side": str(entry.side),
        "entry": printable(entry.what),
        "network": shown(holder.network),
        "note": printable(entry.note),
        "source": printable(entry.origin),
        "ends": None if entry.until is None else rfc3339(entry.until),
        "forced": entry.forced,
    }


def _friend(friend: Friend) -> Document:
    told = as_json(friend)
    texts = {key: printable(told[key]) for key in ("account", "asterisk")}
    return {**told, **texts, "proven": friend.proven}


def _attempt(told: Told) -> Document:
    attempt = told.attempt
    return {
        "time": rfc3339(attempt.time),
        "asterisk": printable(attempt.asterisk),
        "address": str(attempt.address),
        "kind": str(attempt.kind),
        "account": printable(attempt.account),
        "event": str(attempt.event),
        "service": str(attempt.service),
        "transport": str(attempt.transport),
        "proof": attempt.proof.name.lower(),
        "sources": [printable(source) for source in sources_of(attempt)],
        "trusted": attempt.trusted,
        "tampered": attempt.tampered,
        "aimed_at": None if attempt.aimed_at is None else str(attempt.aimed_at),
        "ban": None if told.ban is None else rfc3339(told.ban),
    }


def _count(known: Known, count: Count) -> Document:
    return {
        "rule": count.rule.name,
        "meaning": count.rule.meaning,
        "by": count.rule.by.name.lower(),
        "of": count.number,
        "have": count.have,
        "proven": count.proven,
        "window": count.rule.window,
        "ends": None if count.ends is None else rfc3339(count.ends + known.ahead),
    }
