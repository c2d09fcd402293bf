"""The reports for commands: the exact keys and shapes that other scripts depend on."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts, ban_of
from tests.support.clock import SetClock

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord, Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.reconcile import Reconciler
from ringfence.detect.detector import Detector
from ringfence.detect.rules import HOUR, RULES
from ringfence.firewall.contract import Counters, Element, Opened, RuleCounter
from ringfence.firewall.memory import MemoryBackend
from ringfence.guard.ban_list import bans_report
from ringfence.guard.reload import decoy_alarms
from ringfence.guard.status import StatusData, status_report
from ringfence.ledger import Ledger, Record, key_of
from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.sources.logs import LogPlan, Logs, LogSource
from ringfence.sources.state import Condition, State
from ringfence.sources.wire import WireCounts, WireSink, WireSource
from ringfence.store.database import Store
from ringfence.values.attempt import AttemptCounts
from ringfence.values.ban import Ban, Origin, Scope
from ringfence.values.network import format_network
from ringfence.values.secret import Secret
from ringfence.values.text import printable, rfc3339

NOW = 1_700_000_000.0


@pytest.fixture(name="enforcer")
def _enforcer(tmp_path: Path) -> Iterator[Enforcer]:
    """Return an enforcer over the memory backend, with a clock that stands still."""
    clock = SetClock(wall=lambda: NOW, mono=lambda: 0.0)
    with capture_logs(), Store.open(tmp_path / "ringfence.db", owner=True) as store:
        enforcer = Enforcer(MemoryBackend(clock=clock), store.records, Detector(RULES), clock)
        enforcer.start()
        yield enforcer


def listed(elements: Iterable[Element], *known: tuple[Ban, int]) -> list[dict[str, Any]]:
    """Return the report of these kernel elements, with these known bans and their numbers of attempts."""
    ledger = Ledger()
    for ban, made in known:
        counted = evolve(ban, counts=AttemptCounts(made, made, 1, "alice"))
        ledger.put(key_of(ban.network, ban.scope), Record.of(counted))
    rows: list[dict[str, Any]] = json.loads(b"".join(bans_report(elements, ledger, NOW)))
    return rows


def status(
    enforcer: Enforcer,
    sources: "Sequence[AmiSource | LogSource]" = (),
    others: Sequence[WireSource] = (),
    *,
    usage: Counters | None = None,
    alarms: Sequence[AlarmRecord] = (),
) -> dict[str, Any]:
    """Return the full status, as a command would read it."""
    seen = StatusData(
        now=0.0,
        sources=sources,
        others=others,
        detector=enforcer.detector,
        reconciler=Reconciler(enforcer, Alarms(SetClock(lambda: NOW))),
        usage=usage if usage is not None else Counters(),
        why="it was asked for",
        alarms=alarms,
        alarm_counts=Counter(alarm.code for alarm in alarms),
    )
    report: dict[str, Any] = json.loads(json.dumps(status_report(enforcer, seen), allow_nan=False))
    return report


def test_a_decoy_that_is_no_decoy() -> None:
    """A decoy that is a real account is an alarm with its fix, unless the rule is off."""
    [decoy] = [evolve(rule, accounts=frozenset({"100", "201"})) for rule in RULES if rule.name == "decoy"]

    friends: Any = SimpleNamespace(knows_account={"201"}.__contains__)

    [alarm] = decoy_alarms([decoy], friends)

    assert (alarm.code, alarm.subject) == ("configuration.decoy", "201")
    assert alarm.text.endswith("fix: take it out of accounts in [rules.decoy]")
    assert decoy_alarms([evolve(decoy, enabled=False)], friends) == []


def test_a_rules_ban() -> None:
    """A ban of a rule has every key of the report."""
    ban = ban_of("192.0.2.1", NOW, HOUR)

    assert listed([Element(ban.network, 3_000.4, 7, 420)], (ban, 5)) == [
        {
            "address": "192.0.2.1",
            "since": "2023-11-14T22:13:20Z",
            "expires": "2023-11-14T23:13:20Z",
            "rule": "guess",
            "attempts": 5,
            "packets": 7,
            "bytes": 420,
            "timeout": 3_000,
            "reason": "somebody tries",
            "origin": "rule",
            "scope": "full",
            "offence": 1,
            "forced": False,
            "proven": 5,
            "account": "alice",
            "accounts": 1,
        }
    ]


def test_a_ban_that_only_the_kernel_knows() -> None:
    """A ban that only the kernel knows has null for every unknown value, and for a missing end."""
    report = listed(
        [
            Element(ip_network("2001:db8::/64"), 60.0, 0, 0, Scope.SIP_UDP),
            Element(ip_network("192.0.2.1"), inf, 1, 2),
        ]
    )

    keys = ("since", "rule", "reason", "origin", "offence", "forced", "attempts", "proven")
    unknown = dict.fromkeys((*keys, "account", "accounts"))
    assert report == [
        {
            "address": "2001:db8::/64",
            "expires": "2023-11-14T22:14:20Z",
            "packets": 0,
            "bytes": 0,
            "timeout": 60,
            "scope": "sip-udp",
            **unknown,
        },
        {
            "address": "192.0.2.1",
            "expires": None,
            "packets": 1,
            "bytes": 2,
            "timeout": None,
            "scope": "full",
            **unknown,
        },
    ]


def test_the_newest_ban_is_first_and_has_its_own_end() -> None:
    """The newest ban is first and reports the ban's own end, not the kernel's; unknown bans are last."""
    old, new = ban_of("192.0.2.1", NOW - 60, HOUR), ban_of("192.0.2.2", NOW, HOUR)
    elements = [
        Element(network, 100.0, 0, 0) for network in (ip_network("192.0.2.3"), old.network, new.network)
    ]

    assert [(row["address"], row["expires"]) for row in listed(elements, (old, 5), (new, 5))] == [
        ("192.0.2.2", rfc3339(NOW + HOUR)),
        ("192.0.2.1", rfc3339(NOW - 60 + HOUR)),
        ("192.0.2.3", rfc3339(NOW + 100)),
    ]


def test_a_list_that_is_cut_has_the_bans_that_end_last() -> None:
    """A ban that is longer than its entry in the kernel counts with its own end."""
    long, ledger = ban_of("192.0.2.1", NOW, 60 * 24 * HOUR), Ledger()
    ledger.put(key_of(long.network, long.scope), Record.of(long))
    elements = [Element(ip_network("192.0.2.2"), 300.0, 0, 0), Element(long.network, 200.0, 0, 0)]
    [row] = json.loads(b"".join(bans_report(elements, ledger, NOW, most=1)))

    assert (row["address"], row["timeout"]) == ("192.0.2.1", 200)


def test_both_scopes_of_an_address_are_two_bans() -> None:
    """Two scopes of an address are two bans, each with its own facts."""
    one, other = (
        ban_of("192.0.2.1", NOW),
        Ban(ip_network("192.0.2.1"), since=NOW - 1, expires=NOW + 9, rule="flood", scope=Scope.SIP_UDP),
    )
    elements = [Element(ban.network, 9.0, 0, 0, ban.scope) for ban in (one, other)]

    assert [(row["rule"], row["scope"]) for row in listed(elements, (one, 5), (other, 10))] == [
        ("guess", "full"),
        ("flood", "sip-udp"),
    ]


@pytest.mark.parametrize("number", [0, 1, 2, 3_000])
def test_a_list_of_any_length_is_json(number: int) -> None:
    """The report is valid JSON, whatever the number of its parts."""
    elements = [Element(ip_network((0xC6120000 + n, 32)), 60.0, n, 0) for n in range(number)]

    assert [row["packets"] for row in listed(elements)] == list(range(number))


@pytest.mark.parametrize(
    "reason", ["a\x1b[2J\nb", 'quote " and \\ backslash', "電話 \u202e", "\ud800", "</script>"]
)
def test_a_reason_is_made_printable(reason: str) -> None:
    """An administrator's reason is printed without control characters, and the JSON stays valid."""
    ban = Ban(
        ip_network("192.0.2.1"), since=NOW, expires=NOW + 60, rule="admin", reason=reason, origin=Origin.ADMIN
    )
    [row] = listed([Element(ban.network, 60.0, 0, 0)], (ban, 0))

    assert row["reason"].isprintable()
    assert row["reason"] == printable(reason)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:db8::/64", "2001:db8::/64"),
        ("0.0.0.0/32", "0.0.0.0"),
    ],
)
def test_a_single_address_stands_without_its_length(network: str, text: str) -> None:
    """A single address is printed without its prefix length."""
    assert format_network(ip_network(network)) == text


def test_times_are_rfc_3339() -> None:
    """Times are in UTC, with whole seconds and a Z."""
    assert [rfc3339(seconds) for seconds in (0.0, NOW + 0.9)] == [
        "1970-01-01T00:00:00Z",
        "2023-11-14T22:13:20Z",
    ]


def test_the_status_of_a_quiet_guard(enforcer: Enforcer) -> None:
    """The status has every key before the first event, with a backend that drops nothing."""
    source = AmiSource(AmiTarget("pbx", "127.0.0.1", 5038, "ringfence", Secret("x")), lambda *_: None)
    report = status(enforcer, [source])

    assert report == {
        "sources": [
            {
                "name": "pbx/ami",
                "state": "connecting",
                "detail": "",
                "events": 0,
                "tampered": 0,
                "garbled": 0,
                "dropped_bytes": 0,
            }
        ],
        "events": 0,
        "attempts": 0,
        "tampered": 0,
        "garbled": 0,
        "bans": 0,
        "enforced": 0,
        "expected": 0,
        "exempt": 0,
        "unconfirmed": 0,
        "late": 0,
        "hidden": 0,
        "forged": 0,
        "evicted": 0,
        "firewall": {
            "backend": "memory",
            "why": "it was asked for",
            "enforcing": False,
            "verified": False,
            "untried": [],
            "families": {"4": "guarded", "6": "guarded"},
            "repaired": 0,
            "restored": 0,
            "adopted": 0,
            "ports_known": True,
            "rules": [],
            "sets": {},
        },
        "rules": {"on": [], "off": [], "decoys": []},
        "proxies": [],
        "placed": 0,
        "failed": 0,
        "pending": 0,
        "displaced": 0,
        "watched": [],
        "alarms": [],
        "alarm_counts": {},
        "unseen": [],
        "pinging": [],
        "guests": [],
    }


def test_the_status_of_a_busy_guard(enforcer: Enforcer) -> None:
    """The status sums up the sources and lists watched addresses with their attempts, all printable."""
    sources = [
        AmiSource(AmiTarget(name, "127.0.0.1", 5038, "ringfence", Secret("x")), lambda *_: None)
        for name in ("office", "branch")
    ]
    for source in sources:
        source._decoder.counts.events = 10
        source._decoder.counts.tampered = 2
        source._decoder.counts.garbled = 1
        source.condition = Condition(State.LOST, "said \x1b[31mred")
    for attempt in [*attempts(2), *attempts(1, account="b\x1b[2J")]:
        enforcer.detector.judge(attempt, 0.0)
    enforcer.ban([ip_network("198.51.100.1")], 60.0, "")
    report = status(enforcer, sources)

    assert (report["events"], report["tampered"], report["garbled"]) == (20, 4, 2)
    assert (report["attempts"], report["bans"], report["placed"]) == (3, 1, 1)
    assert (report["enforced"], report["expected"]) == (1, 1)
    assert report["sources"] == [
        {
            "name": f"{name}/ami",
            "state": "lost",
            "detail": "said \\x1b[31mred",
            "events": 10,
            "tampered": 2,
            "garbled": 1,
            "dropped_bytes": 0,
        }
        for name in ("office", "branch")
    ]
    assert report["watched"] == [
        {
            "address": "192.0.2.1",
            "rule": "guess",
            "attempts": 3,
            "have": 3,
            "of": 5,
            "standing": "counted",
            "proof": "claimed",
            "service": "PJSIP",
            "accounts": ["alice", "b\\x1b[2J"],
            "last": "2023-11-14T22:13:20Z",
        }
    ]


def test_the_status_of_a_log_in_standby(enforcer: Enforcer) -> None:
    """The status shows whether a log's SECURITY lines are skipped now, and how many were skipped."""
    logs = Logs(LogPlan("pbx"), lambda *_: None)
    logs.standing_by = True
    logs.counts.standby = 7
    [source] = status(enforcer, [logs])["sources"]

    assert (source["standing_by"], source["skipped"], source["events"]) == (True, 7, 0)


def test_the_status_of_the_wire(enforcer: Enforcer) -> None:
    """The wire is listed among the sources, with the container networks that it covers."""
    wire = WireSource(WireSink())
    wire.set_containers(ip_network(text) for text in ("fd00:9::/64", "172.17.0.0/16"))
    wire.counts = WireCounts(challenges=3, gaps=1, lost=2, unreadable=4)
    report = status(enforcer, others=[wire])

    assert report["sources"] == [
        {
            "name": "wire",
            "state": "connecting",
            "detail": "",
            "events": 3,
            "tampered": 0,
            "garbled": 4,
            "dropped_bytes": 0,
            "lost": 2,
            "passing": 0,
            "foreign": 0,
            "unnamed": 0,
            "unread": 0,
            "exchanges": 0,
            "exported": 0,
            "containers": ["172.17.0.0/16", "fd00:9::/64"],
        }
    ]


def test_the_status_of_a_firewall_that_lacks_something(enforcer: Enforcer) -> None:
    """A missing IP version has its reason, and a ban that the firewall refuses is expected and pending."""
    enforcer.opened = Opened({4: None, 6: "no IPv6"})
    enforcer.ledger.refuse(ban_of("192.0.2.1"))
    report = status(enforcer)
    assert report["firewall"]["families"] == {"4": "guarded", "6": "no IPv6"}
    assert (report["enforced"], report["expected"], report["pending"]) == (0, 1, 1)


def test_the_status_while_enforcement_is_off(enforcer: Enforcer) -> None:
    """While enforcement is off, no ban counts as enforced."""
    enforcer.ban([ip_network("192.0.2.1")], 60.0, "")
    enforcer.switch_off()
    off = status(enforcer)

    assert (off["firewall"]["enforcing"], off["bans"], off["enforced"], off["expected"]) == (False, 0, 0, 0)


def test_the_status_counts_what_the_rules_met(enforcer: Enforcer) -> None:
    """The status has packets and bytes by kind of rule, and the sizes of the sets."""
    usage = Counters(
        rules=(RuleCounter("from banned addresses", 7, 420),),
        sets={"bans": 3, "denied": None},
    )
    report = status(enforcer, usage=usage)

    assert report["firewall"]["rules"] == [{"rule": "from banned addresses", "packets": 7, "bytes": 420}]
    assert report["firewall"]["sets"] == {"bans": 3, "denied": None}


def test_the_status_has_the_alarms(enforcer: Enforcer) -> None:
    """The status lists each alarm with its times and its printable text, and counts those of each code."""
    alarm = AlarmRecord(7, AlarmCode.FIREWALL_DAMAGED, "", "gone \x1b[2J", NOW, NOW + 60, times=3)
    report = status(enforcer, alarms=[alarm])
    assert report["alarm_counts"] == {"firewall.damaged": 1}
    assert report["alarms"] == [
        {
            "code": "firewall.damaged",
            "subject": "",
            "text": "gone \\x1b[2J",
            "since": "2023-11-14T22:13:20Z",
            "last": "2023-11-14T22:14:20Z",
            "times": 3,
            "number": 7,
            "cleared": None,
            "dismissed": None,
            "dismissed_by": "",
        }
    ]


def test_a_banned_address_is_not_watched(enforcer: Enforcer) -> None:
    """A banned address is in the list of bans and not among the watched ones."""
    for attempt in attempts(5):
        judgement, *_ = enforcer.detector.judge(attempt, 0.0)
        if judgement.decision is not None:
            enforcer.carry_out(judgement.decision)
    report = status(enforcer)

    assert (report["watched"], report["bans"]) == ([], 1)
    rows = json.loads(b"".join(bans_report(enforcer.backend.list(), enforcer.ledger, NOW)))
    assert [(row["address"], row["attempts"]) for row in rows] == [("192.0.2.1", 5)]
