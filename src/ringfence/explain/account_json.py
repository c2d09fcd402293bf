"""The facts of an account as JSON.

The keys are an interface for scripts: keys may be added, but not changed or removed.
"""

from typing import Any

from ringfence.explain.account import MOST_SHOWN, AccountFacts, Failures, advice
from ringfence.explain.reasons import reason_of
from ringfence.model import Address, Ban, Friend, format_network, printable, rfc3339

Document = dict[str, Any]


def account_document(known: AccountFacts) -> Document:
    """Return all facts as a JSON object. Times are RFC 3339 texts, and hostile text is made printable."""
    success, homes = known.last_success, known.homes
    return {
        "account": printable(known.account),
        "verdict": str(known.verdict),
        "advice": advice(known),
        "addresses": [_home(friend, known) for friend in [*homes.values()][:MOST_SHOWN]],
        "last_success": None if success is None else _seen(success),
        "failures": [_failures(one, known) for one in known.failures],
        "bans": [_ban(address, ban) for address, bans in known.bans.items() for ban in bans],
        "denied": [str(address) for address in known.denied],
        "alarms": [alarm.as_json() for alarm in known.alarms],
        "outage_mode": known.outage_mode,
        "daemon": known.live,
        "problems": list(known.problems),
    }


def _home(friend: Friend, known: AccountFacts) -> Document:
    return {
        **_seen(friend),
        "asterisk": printable(friend.asterisk),
        "since": rfc3339(friend.since),
        "until": rfc3339(friend.until),
        "current": friend.until > known.now,
        "banned": bool(known.bans.get(friend.address)),
    }


def _seen(friend: Friend) -> Document:
    return {"address": str(friend.address), "reason": str(friend.reason), "seen": rfc3339(friend.seen)}


def _failures(one: Failures, known: AccountFacts) -> Document:
    last = one.last
    return {
        "address": str(last.address),
        "reason": reason_of(last),
        "times": one.times,
        "first": rfc3339(one.first),
        "last": rfc3339(last.time),
        "event": str(last.event),
        "service": str(last.service),
        "transport": str(last.transport),
        "proof": last.proof.name.lower(),
        "worked": last.address in known.homes,
        "banned": bool(known.bans.get(last.address)),
    }


def _ban(address: Address, ban: Ban) -> Document:
    return {
        "address": str(address),
        "network": format_network(ban.network),
        "scope": str(ban.scope),
        "rule": printable(ban.rule),
        "reason": printable(ban.reason),
        "since": rfc3339(ban.since),
        "expires": rfc3339(ban.expires),
    }
