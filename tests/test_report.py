"""What commands are told: the exact keys and shapes that others script against."""

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.attempts import attempts, ban_of

from ringfence.detect.detector import Detector
from ringfence.detect.rules import HOUR, RULES
from ringfence.enforce import Clock, Enforcer, Listed
from ringfence.firewall.contract import Element
from ringfence.firewall.memory import MemoryBackend
from ringfence.model import Ban, Origin, Secret
from ringfence.report import WITHOUT_WIRE, bans_report, rfc3339, shown, status_report
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
        enforcer = Enforcer(MemoryBackend(clock=lambda: 0.0), store, Detector(RULES), clock)
        enforcer.start()
        yield enforcer


def test_a_rules_ban() -> None:
    """Every key of a ban that ringfence knows."""
    ban = ban_of("192.0.2.1", NOW, HOUR, made=attempts(5))
    report = bans_report([Listed(Element(ban.network, 3_000.4, 7, 420), ban, ban.expires)])

    assert report == [
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
        }
    ]


def test_a_ban_that_only_the_kernel_knows() -> None:
    """What nobody knows is null, and so is an end that there is none of."""
    elements = [
        Element(ip_network("2001:db8::/64"), 60.0, 0, 0),
        Element(ip_network("192.0.2.1"), float("inf"), 1, 2),
    ]
    report = bans_report([Listed(element, None, NOW + element.timeout) for element in elements])

    unknown = {"since": None, "rule": None, "attempts": None, "reason": None}
    assert report == [
        {
            "address": "2001:db8::/64",
            "expires": "2023-11-14T22:14:20Z",
            "packets": 0,
            "bytes": 0,
            "timeout": 60,
            **unknown,
        },
        {"address": "192.0.2.1", "expires": None, "packets": 1, "bytes": 2, "timeout": None, **unknown},
    ]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_reason_is_made_printable() -> None:
    """An administrator's text goes to another's terminal without its control characters."""
    ban = Ban(ip_network("192.0.2.1"), NOW, NOW + 60, "admin", "a\x1b[2J\nb", Origin.ADMIN)
    [row] = bans_report([Listed(Element(ban.network, 60.0, 0, 0), ban, ban.expires)])

    assert row["reason"] == "a\\x1b[2J\\nb"


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
    report = status_report(
        [source],
        None,
        enforcer.detector,
        enforcer,
        0.0,
        len(list(enforcer.backend.list())),
        ["the host is odd"],
    )

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
        "never_banned": 0,
        "withheld": 0,
        "late": 0,
        "hidden": 0,
        "forged": 0,
        "evicted": 0,
        "firewall": {
            "backend": "memory",
            "enforcing": False,
            "verified": False,
            "families": {"4": "guarded", "6": "guarded"},
        },
        "placed": 0,
        "failed": 0,
        "pending": 0,
        "watched": [],
        "problems": ["the host is odd", "a dry run: the memory firewall drops nothing"],
    }
    assert json.loads(json.dumps(report, allow_nan=False)) == report


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
    report = status_report(
        sources, None, enforcer.detector, enforcer, 0.0, len(list(enforcer.backend.list())), []
    )

    assert (report["events"], report["tampered"], report["garbled"]) == (20, 4, 2)
    assert (report["attempts"], report["bans"], report["placed"]) == (3, 1, 1)
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
    report = status_report([], wire, enforcer.detector, enforcer, 0.0, 0, [])

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
        problems = status_report([], wire, enforcer.detector, enforcer, 0.0, 0, [])["problems"]
        assert (problem in str(problems)) is (condition.state is State.ABSENT)


def test_the_status_says_what_is_wrong(enforcer: Enforcer) -> None:
    """Each trouble is a line with its number or mend: switched off, a refusing firewall, a full disk."""
    enforcer.firewall_error = "the set is full"
    enforcer.store_error = "disk full"
    enforcer._pending[ip_network("192.0.2.1")] = ban_of("192.0.2.1")
    lines = status_report([], None, enforcer.detector, enforcer, 0.0, len(list(enforcer.backend.list())), [])[
        "problems"
    ]
    enforcer._pending.clear()
    enforcer.store_error = ""
    enforcer.switch_off()
    off = status_report([], None, enforcer.detector, enforcer, 0.0, len(list(enforcer.backend.list())), [])

    assert lines == [
        "a dry run: the memory firewall drops nothing",
        "the firewall refuses bans (1 pending): the set is full",
        "bans are not recorded: disk full",
    ]
    assert off["problems"] == [
        "enforcement is switched off: nobody is banned; switch it on with: ringfence on"
    ]
    assert off["firewall"] == {
        "backend": "memory",
        "enforcing": False,
        "verified": False,
        "families": {"4": "guarded", "6": "guarded"},
    }


def test_a_banned_address_is_not_watched(enforcer: Enforcer) -> None:
    """Who has been banned is in the list of bans and no more among those who may be."""
    for attempt in attempts(5):
        judgement = enforcer.detector.judge(attempt, 0.0)
        if judgement.decision is not None:
            enforcer.carry_out(judgement.decision)
    report = status_report([], None, enforcer.detector, enforcer, 0.0, len(list(enforcer.backend.list())), [])

    assert (report["watched"], report["bans"]) == ([], 1)
    assert [entry.element.network for entry in enforcer.listing(enforcer.backend.list())] == [
        ip_network(ip_address("192.0.2.1"))
    ]
