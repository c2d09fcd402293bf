"""The facts as JSON: the keys are an interface for scripts."""

import json
from ipaddress import ip_network

from attrs import evolve
from tests.explain.world import NOW, RULE, ban, count, friend, holder, known, proven, running, story
from tests.support.attempts import attempts

from ringfence.bans.exempt import ITSELF
from ringfence.explain.as_json import document
from ringfence.store.bans import RecordedBan
from ringfence.values.ban import BanEnd
from ringfence.values.entry import ListKind
from ringfence.values.friend import FriendReason

KEYS = [
    *(
        "address",
        "subject",
        "location",
        "verdict",
        "forecast",
        "evidence",
        "bans",
        "past",
        "lists",
        "kernel_lists",
        "fence",
        "ration",
        "asking",
        "protected",
    ),
    *(
        "friend",
        "friends",
        "former",
        "outage_mode",
        "attempts",
        "groups",
        "alarms",
        "contains_exempt",
        "rules",
        "enforcing",
        "daemon",
        "problems",
    ),
]


def test_an_unknown_address() -> None:
    """Every key is present for an unknown address, and the document is valid JSON."""
    told = document(known(story=None))

    assert list(told) == KEYS
    assert json.loads(json.dumps(told)) == told
    assert (told["address"], told["verdict"], told["friend"]) == ("192.0.2.1", "stranger", False)
    assert told["kernel_lists"] == {"allow": False, "deny": False, "friends": False}
    assert (told["bans"], told["past"], told["lists"], told["attempts"], told["rules"]) == (
        [],
        [],
        [],
        [],
        [],
    )


def test_an_active_ban() -> None:
    """A ban has its record, the number of proven attempts, and its entry in the kernel."""
    made = (*attempts(1), *proven(5)[1:])
    told = document(known(running=(running(ban(made=made)),)))

    assert told["bans"] == [
        {
            "network": "192.0.2.1",
            "scope": "full",
            "since": "2023-11-14T22:14:00Z",
            "rule": "guess",
            "reason": "somebody tries",
            "origin": "rule",
            "offence": 1,
            "forced": False,
            "attempts": 5,
            "proven": 4,
            "account": "alice",
            "accounts": 1,
            "expires": "2023-11-14T23:14:00Z",
            "in_kernel": True,
            "timeout": 3_540,
            "packets": 7,
            "bytes": 420,
        }
    ]


def test_a_ban_without_record_or_element() -> None:
    """Missing facts are null: the record of a kernel entry, or the packets of a recorded ban."""
    lost = document(known(running=(running(ban(), in_kernel=False),)))["bans"][0]
    found = document(known(running=(evolve(running(ban()), ban=None),)))["bans"][0]
    endless = evolve(running(ban(), left=float("inf")), ban=None)
    no_end = document(known(running=(endless,)))["bans"][0]

    assert (lost["in_kernel"], lost["packets"], lost["timeout"], lost["rule"]) == (False, None, 0, "guess")
    assert (found["rule"], found["since"], found["attempts"], found["packets"]) == (None, None, None, 7)
    assert found["expires"] == "2023-11-14T23:14:00Z"
    assert (no_end["expires"], no_end["timeout"]) == (None, None)


def test_past_bans() -> None:
    """Each past ban has its expiry, the time of an unban, and how it ended."""
    over = RecordedBan(ban(), None)
    lifted = RecordedBan(ban("192.0.2.0/24"), NOW - 30, BanEnd.REMOVED)
    told = document(known(past=(over, lifted)))["past"]

    assert [(one["network"], one["ended"], one["end"], one["why_ended"]) for one in told] == [
        ("192.0.2.1", None, "expired", "its time was over"),
        ("192.0.2.0/24", "2023-11-14T22:14:30Z", "removed", "it was removed"),
    ]


def test_an_attempt() -> None:
    """An attempt has its time, service, account, proof and sources, and the ban that it led to."""
    [one] = proven(1)
    strange = evolve(one, time=NOW, account="a\x1b", trusted=False, forged_address=ip_network("192.0.2.9")[0])
    told = document(known(running=(running(ban(made=(one,))),), story=story(made=(strange,))))["attempts"]

    assert told[0] == {
        "time": "2023-11-14T22:13:20Z",
        "asterisk": "pbx",
        "address": "192.0.2.1",
        "kind": "guess",
        "reason": "wrong password",
        "account": "alice",
        "event": "ChallengeResponseFailed",
        "service": "PJSIP",
        "transport": "UDP",
        "proof": "nonce",
        "sources": ["ami", "log:/var/log/ringfence/ringfence", "wire"],
        "trusted": True,
        "tampered": False,
        "forged_address": None,
        "ban": "2023-11-14T22:14:00Z",
    }
    assert (told[1]["account"], told[1]["trusted"]) == ("a\\x1b", False)
    assert (told[1]["forged_address"], told[1]["ban"]) == ("192.0.2.9", None)


def test_rules() -> None:
    """Each enabled rule has its number; the end of its window is wall-clock time."""
    told = document(known(story=story(count(RULE["guess"], 3, 2)), ahead=50.0))["rules"]
    by_name = {rule["rule"]: rule for rule in told}

    assert set(by_name) == set(RULE)
    assert by_name["guess"] == {
        "rule": "guess",
        "meaning": "somebody tries passwords or accounts",
        "by": "subject",
        "of": 5,
        "have": 3,
        "proven": 2,
        "window": 600.0,
        "ends": "2023-11-14T22:18:50Z",
    }
    assert (by_name["slow"]["have"], by_name["slow"]["ends"]) == (0, None)


def test_friends_and_lists() -> None:
    """Reasons of current and former friends, list entries, and membership in the kernel's lists."""
    told = document(
        known(
            friends=(friend(FriendReason.REGISTERED, "2\x1b"),),
            former=(friend(until=NOW - 10),),
            holders=(holder(ListKind.ALLOW, "sip.carrier.example", "192.0.2.1", note="trunk"),),
        )
    )

    assert [(one["account"], one["reason"], one["proven"]) for one in told["friends"]] == [
        ("2\\x1b", "registered", False)
    ]
    assert [(one["account"], one["until"]) for one in told["former"]] == [("204", "2023-11-14T22:14:50Z")]
    assert told["lists"] == [
        {
            "list": "allow",
            "entry": "sip.carrier.example",
            "network": "192.0.2.1",
            "note": "trunk",
            "source": "command",
            "ends": None,
            "forced": False,
        }
    ]
    assert told["kernel_lists"] == {"allow": True, "deny": False, "friends": True}


def test_addresses_of_the_host_are_allowed_in_the_kernel() -> None:
    """Addresses of the host, except loopback, are on the kernel's allow list, unless enforcement is off."""
    gateway = {ip_network("192.0.2.1"): "the gateway"}
    itself = ip_network("127.0.0.1")

    assert document(known(protected=gateway))["kernel_lists"]["allow"]
    assert document(known(protected=gateway))["protected"] == [{"network": "192.0.2.1", "why": "the gateway"}]
    assert not document(known(protected=gateway, enforcing=False))["kernel_lists"]["allow"]
    assert not document(known(network=itself, subject=itself, protected=ITSELF))["kernel_lists"]["allow"]
