"""The bodies of requests to the local API. No I/O: bans in, JSON out."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from ringfence.values.ban import WHOLE_SCOPES, Ban, Origin
from ringfence.values.network import Network, format_network, is_single
from ringfence.values.text import printable, rfc3339

SCENARIOS = "ringfence/"
"""The beginning of the scenario (CrowdSec's reason) of ringfence's bans; the name of a rule follows."""
ORIGIN = "ringfence:"
"""The beginning of the origin of ringfence's decisions; the name of the host (machine) follows."""
MOST_EVENTS = 10
"""The maximum number of attempts that the API gets with one ban."""

_LONGEST = 100


@frozen
class Event:
    """An attempt as the API gets it: its time (epoch seconds), and escaped pairs of key and value."""

    time: float
    meta: tuple[tuple[str, str], ...]


@frozen
class Facts:
    """The facts about a ban that the API gets. ``since`` is in seconds since the epoch."""

    since: float = 0.0
    attempts: int = 0
    proven: int = 0
    accounts: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()


def scenario_of(rule: str) -> str:
    """Return CrowdSec's scenario for bans by ``rule``: ``ringfence/guess`` for the rule ``guess``."""
    return f"{SCENARIOS}{rule}"


def rule_of(scenario: str) -> str:
    """Return the rule that one of ringfence's scenarios names: ``guess`` for ``ringfence/guess``."""
    return scenario.removeprefix(SCENARIOS)


def is_shared(ban: Ban) -> bool:
    """Whether a ban may be reported to other hosts: a rule has decided it, on proven attempts.

    A login elsewhere is no attempt. What spares a third party from its ban is known on this host alone.
    """
    return ban.origin is Origin.RULE and ban.scope in WHOLE_SCOPES and ban.counts.attempts > 0


def facts_of(ban: Ban) -> Facts:
    """Return the facts about a ban that the API gets. Texts of senders are escaped and shortened."""
    events = tuple(
        Event(
            attempt.time,
            (
                ("service", "asterisk"),
                ("target_user", _short(attempt.account)),
                ("attempt", str(attempt.kind)),
                ("proof", attempt.proof.name.lower()),
                ("transport", str(attempt.transport)),
            ),
        )
        for attempt in ban.attempts[-MOST_EVENTS:]
    )
    accounts = Counter(_short(attempt.account) for attempt in ban.attempts if attempt.account)
    named = tuple(name for name, _ in accounts.most_common(MOST_EVENTS))
    return Facts(ban.since, ban.counts.attempts, ban.counts.proven, named, events)


def _short(text: str) -> str:
    return printable(text)[:_LONGEST]


def login_body(machine: str, password: str) -> bytes:
    """Return the body (JSON) of the request by which a machine logs in to CrowdSec's local API."""
    return json.dumps({"machine_id": machine, "password": password, "scenarios": []}).encode()


def alert(
    network: Network, rule: str, seconds: float, facts: Facts, now: float, machine: str
) -> dict[str, Any]:
    """Return CrowdSec's alert (JSON values) with the decision to ban ``network`` for ``seconds`` from now.

    ``now`` is the time by the API's clock (epoch seconds), from which the API computes the decision's end.
    ``rule`` is the name of the rule that decided the ban, ``facts`` describes its attempts, and ``machine``
    is the name of this host at the API.
    """
    scenario, stop = scenario_of(rule), rfc3339(now)
    scope, value = "Ip" if is_single(network) else "Range", format_network(network)
    accounts = f", accounts {', '.join(facts.accounts)}" if facts.accounts else ""
    message = f"{value}: {facts.attempts} attempts, {facts.proven} of them proven{accounts}"
    return {
        "scenario": scenario,
        "scenario_hash": "",
        "scenario_version": "",
        "message": message,
        "events_count": max(1, facts.attempts),
        "start_at": rfc3339(min(facts.since or now, now)),
        "stop_at": stop,
        "capacity": max(1, facts.attempts),
        "leakspeed": "0s",
        "simulated": False,
        "remediation": True,
        "events": [{"timestamp": rfc3339(one.time), "meta": _meta(one.meta)} for one in facts.events],
        "source": {"scope": scope, "value": value, scope.lower(): value},
        "decisions": [
            {
                # The stream of decisions names no machine, so the origin does.
                "origin": f"{ORIGIN}{machine}",
                "type": "ban",
                "scope": scope,
                "value": value,
                "duration": f"{max(1, round(seconds))}s",
                "scenario": scenario,
            }
        ],
    }


def _meta(pairs: Iterable[tuple[str, str]]) -> list[Mapping[str, str]]:
    return [{"key": key, "value": value} for key, value in pairs if value]
