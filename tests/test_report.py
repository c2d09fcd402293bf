"""What commands are told: the exact keys and shapes that others script against."""

import json
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network
from math import inf
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.attempts import attempts, ban_of

from ringfence.alarms import Alarm, Alarms
from ringfence.bans.enforce import Enforcer
from ringfence.bans.ledger import Ledger, Record, key_of
from ringfence.bans.reconcile import Reconciler
from ringfence.bans.records import Records
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.rules import HOUR, RULES
from ringfence.errors import StoreError
from ringfence.firewall.contract import Element, Opened, RuleUse, Usage
from ringfence.firewall.memory import MemoryBackend
from ringfence.model import Ban, Made, Origin, Scope, Secret, printable, rfc3339, shown
from ringfence.report import WITHOUT_WIRE, Seen, bans_report, decoy_problems, status_report
from ringfence.sources.ami import AmiSource, AmiTarget
from ringfence.sources.state import Condition, State
from ringfence.sources.wire import WireCounts, WireSource
from ringfence.store import Store

NOW = 1_700_000_000.0


@pytest.fixture(name="enforcer")
def _enforcer(tmp_path: Path) -> Iterator[Enforcer]:
    """Give an enforcer over the memory backend, with the time standing still."""
    clock = Clock(wall=lambda: NOW, mono=lambda: 0.0)
    with capture_logs(), Store.open(tmp_path / "ringfence.db", owner=True) as store:
        enforcer = Enforcer(MemoryBackend(clock=lambda: 0.0), Records(store), Detector(RULES), clock)
        enforcer.start()
        yield enforcer


def listed(elements: Iterable[Element], *known: tuple[Ban, int]) -> list[dict[str, Any]]:
    """Give the report of what the kernel has, where these bans are known with so many attempts."""
    ledger = Ledger()
    for ban, made in known:
        ledger.put(key_of(ban.network, ban.scope), Record.of(ban, Made(made, made)))
    rows: list[dict[str, Any]] = json.loads(b"".join(bans_report(elements, ledger, NOW)))
    return rows


def status(
    enforcer: Enforcer,
    sources: Sequence[AmiSource] = (),
    wire: WireSource | None = None,
    *,
    usage: Usage | None = None,
    alarms: Sequence[Alarm] = (),
    problems: Sequence[str] = (),
) -> dict[str, Any]:
    """Give the report on everything, as a command would read it."""
    seen = Seen(
        now=0.0,
        sources=sources,
        wire=wire,
        detector=enforcer.detector,
        reconciler=Reconciler(enforcer, Alarms(lambda: NOW)),
        usage=usage if usage is not None else Usage(),
        why="it was asked for",
        alarms=alarms,
        problems=problems,
    )
    report: dict[str, Any] = json.loads(json.dumps(status_report(enforcer, seen), allow_nan=False))
    return report


def test_a_decoy_that_is_no_decoy() -> None:
    """An account that works here is named, with the mend; a rule that is off bans nobody."""
    [decoy] = [evolve(rule, accounts=frozenset({"100", "201"})) for rule in RULES if rule.name == "decoy"]

    [problem] = decoy_problems([decoy], {"201"}.__contains__)

    assert problem.startswith("decoy 201 is an account that works here")
    assert problem.endswith("mend: take it out of accounts in [rules.decoy]")
    assert decoy_problems([evolve(decoy, enabled=False)], {"201"}.__contains__) == []


def test_a_rules_ban() -> None:
    """Every key of a ban that ringfence knows."""
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
            "scope": "full",
            "offence": 1,
            "proven": 5,
        }
    ]


def test_a_ban_that_only_the_kernel_knows() -> None:
    """What nobody knows is null, and so is an end that there is none of."""
    report = listed(
        [
            Element(ip_network("2001:db8::/64"), 60.0, 0, 0, Scope.SIP_UDP),
            Element(ip_network("192.0.2.1"), inf, 1, 2),
        ]
    )

    unknown = {"since": None, "rule": None, "attempts": None, "reason": None, "offence": None}
    unknown |= {"proven": None}
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
    """What the kernel holds for less than the ban lasts has the ban's end; the unknown are last."""
    old, new = ban_of("192.0.2.1", NOW - 60, HOUR), ban_of("192.0.2.2", NOW, HOUR)
    elements = [
        Element(network, 100.0, 0, 0) for network in (ip_network("192.0.2.3"), old.network, new.network)
    ]

    assert [(row["address"], row["expires"]) for row in listed(elements, (old, 5), (new, 5))] == [
        ("192.0.2.2", rfc3339(NOW + HOUR)),
        ("192.0.2.1", rfc3339(NOW - 60 + HOUR)),
        ("192.0.2.3", rfc3339(NOW + 100)),
    ]


def test_both_scopes_of_an_address_are_two_bans() -> None:
    """Each with what is known of it."""
    one, other = (
        ban_of("192.0.2.1", NOW),
        Ban(ip_network("192.0.2.1"), NOW - 1, NOW + 9, "flood", scope=Scope.SIP_UDP),
    )
    elements = [Element(ban.network, 9.0, 0, 0, ban.scope) for ban in (one, other)]

    assert [(row["rule"], row["scope"]) for row in listed(elements, (one, 5), (other, 10))] == [
        ("guess", "full"),
        ("flood", "sip-udp"),
    ]


@pytest.mark.parametrize("number", [0, 1, 2, 3_000])
def test_a_list_of_any_length_is_json(number: int) -> None:
    """However many parts it comes in."""
    elements = [Element(ip_network((0xC6120000 + n, 32)), 60.0, n, 0) for n in range(number)]

    assert [row["packets"] for row in listed(elements)] == list(range(number))


@pytest.mark.parametrize(
    "reason", ["a\x1b[2J\nb", 'quote " and \\ backslash', "電話 \u202e", "\ud800", "</script>"]
)
def test_a_reason_is_made_printable(reason: str) -> None:
    """An administrator's text goes to a terminal without its control characters, and breaks no JSON."""
    ban = Ban(ip_network("192.0.2.1"), NOW, NOW + 60, "admin", reason, Origin.ADMIN)
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
    """As people write it."""
    assert shown(ip_network(network)) == text


def test_times_are_rfc_3339() -> None:
    """In UTC, to the second, with a Z."""
    assert [rfc3339(seconds) for seconds in (0.0, NOW + 0.9)] == [
        "1970-01-01T00:00:00Z",
        "2023-11-14T22:13:20Z",
    ]


def test_the_status_of_a_quiet_guard(enforcer: Enforcer) -> None:
    """Every key, with nothing heard yet, over a backend that drops nothing."""
    source = AmiSource(AmiTarget("pbx", "127.0.0.1", 5038, "ringfence", Secret("x")), lambda *_: None)
    report = status(enforcer, [source], problems=["the host is odd"])

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
        "never_banned": 0,
        "withheld": 0,
        "late": 0,
        "hidden": 0,
        "forged": 0,
        "evicted": 0,
        "firewall": {
            "backend": "memory",
            "why": "it was asked for",
            "enforcing": False,
            "verified": False,
            "families": {"4": "guarded", "6": "guarded"},
            "limiter": "off",
            "healed": 0,
            "restored": 0,
            "adopted": 0,
            "rules": [],
            "sets": {},
        },
        "rules": {"on": [], "off": [], "decoys": []},
        "limiter_drops": 0,
        "placed": 0,
        "failed": 0,
        "pending": 0,
        "gave_way": 0,
        "watched": [],
        "alarms": [],
        "problems": ["the host is odd", "a dry run: the memory firewall drops nothing"],
    }


def test_the_status_of_a_busy_guard(enforcer: Enforcer) -> None:
    """Sources are summed up, and who is watched is shown with what it tried, made printable."""
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
            "of": 5,
            "standing": "counted",
            "proof": "claimed",
            "service": "PJSIP",
            "accounts": ["alice", "b\\x1b[2J"],
            "last": "2023-11-14T22:13:20Z",
        }
    ]


def test_the_status_of_the_wire(enforcer: Enforcer) -> None:
    """It stands among the sources, with the networks of containers that count there."""
    wire = WireSource(lambda *_: None, lambda _: None)
    wire.count_containers(ip_network(text) for text in ("fd00:9::/64", "172.17.0.0/16"))
    wire.counts = WireCounts(challenges=3, gaps=1, lost=2, unreadable=4)
    report = status(enforcer, wire=wire)

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
            "containers": ["172.17.0.0/16", "fd00:9::/64"],
        }
    ]


def test_a_wire_that_is_not_seen_is_a_problem(enforcer: Enforcer) -> None:
    """With what it leaves open; while it is being bound nothing is wrong yet."""
    wire = WireSource(lambda *_: None, lambda _: None)
    problem = f"the wire is not seen: {WITHOUT_WIRE}"
    for condition in (wire.condition, Condition(State.ABSENT, "this kernel has no packet log")):
        wire.condition = condition
        problems = status(enforcer, wire=wire)["problems"]
        assert (problem in str(problems)) is (condition.state is State.ABSENT)


def _fail(records: Records) -> None:
    def fail() -> None:
        raise StoreError("disk full")

    records.remember(fail)


def test_the_status_says_what_is_wrong(enforcer: Enforcer) -> None:
    """Each trouble is a line with its number or mend: a refusing firewall, a full disk, no limiter, off."""
    enforcer.firewall_error = "the set is full"
    _fail(enforcer.records)
    enforcer.records.fleeting = "nothing is remembered for long"
    enforcer.opened = Opened({4: None, 6: "no IPv6"}, wire="no NFLOG", limiter="no hashlimit")
    enforcer._pending[key_of(ip_network("192.0.2.1"))] = ban_of("192.0.2.1")
    wrong = status(enforcer)
    assert wrong["problems"] == [
        "a dry run: the memory firewall drops nothing",
        f"the wire shows nothing: no NFLOG; {WITHOUT_WIRE}",
        "the firewall refuses bans (1 pending): the set is full",
        "nothing is remembered for long",
        "bans are not recorded: disk full",
    ]
    enforcer.backend.enforces = True  # then it is no dry run, of which nobody asks for a limiter
    assert "the limiter does not stand: no hashlimit" in status(enforcer)["problems"]
    assert wrong["firewall"]["families"] == {"4": "guarded", "6": "no IPv6"}
    assert (wrong["enforced"], wrong["expected"], wrong["pending"]) == (0, 1, 1)


def test_the_status_of_who_is_switched_off(enforcer: Enforcer) -> None:
    """Nothing is said to be enforced, and the line has the mend."""
    enforcer.ban([ip_network("192.0.2.1")], 60.0, "")
    enforcer.switch_off()
    off = status(enforcer)

    assert off["problems"] == [
        "enforcement is switched off: nobody is banned; switch it on with: ringfence on"
    ]
    assert (off["firewall"]["enforcing"], off["bans"], off["enforced"], off["expected"]) == (False, 0, 0, 0)


def test_the_status_counts_what_the_rules_met(enforcer: Enforcer) -> None:
    """Packets and bytes of each kind of rule, how full the sets are, and what the limiter dropped."""
    usage = Usage(
        rules=(RuleUse("from banned addresses", 7, 420),),
        sets={"bans": 3, "denied": None},
        limiter_drops=11,
    )
    report = status(enforcer, usage=usage)

    assert report["limiter_drops"] == 11
    assert report["firewall"]["rules"] == [{"rule": "from banned addresses", "packets": 7, "bytes": 420}]
    assert report["firewall"]["sets"] == {"bans": 3, "denied": None}


def test_the_status_has_the_alarms(enforcer: Enforcer) -> None:
    """Each with its times, its text made printable."""
    alarm = Alarm("firewall", "rules", "gone \x1b[2J", NOW, NOW + 60, 3)

    assert status(enforcer, alarms=[alarm])["alarms"] == [
        {
            "name": "firewall",
            "subject": "rules",
            "text": "gone \\x1b[2J",
            "since": "2023-11-14T22:13:20Z",
            "last": "2023-11-14T22:14:20Z",
            "times": 3,
        }
    ]


def test_a_banned_address_is_not_watched(enforcer: Enforcer) -> None:
    """Who has been banned is in the list of bans and no more among those who may be."""
    for attempt in attempts(5):
        judgement = enforcer.detector.judge(attempt, 0.0)
        if judgement.decision is not None:
            enforcer.carry_out(judgement.decision)
    report = status(enforcer)

    assert (report["watched"], report["bans"]) == ([], 1)
    rows = json.loads(b"".join(bans_report(enforcer.backend.list(), enforcer.ledger, NOW)))
    assert [(row["address"], row["attempts"]) for row in rows] == [("192.0.2.1", 5)]
