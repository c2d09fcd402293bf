"""What is known as JSON: the keys that others script against."""

import json
from ipaddress import ip_network

from attrs import evolve
from tests.support.attempts import attempts
from tests.why.world import NOW, RULE, ban, count, friend, holder, known, proven, running, story

from ringfence.bans.exempt import ITSELF
from ringfence.model import Side, Tie
from ringfence.store_past import Past
from ringfence.why.document import document

KEYS = [
    *("address", "subject", "verdict", "outlook", "bans", "past", "lists", "rolls", "protected", "friend"),
    *(
        "friends",
        "former",
        "braked",
        "attempts",
        "alarms",
        "spared",
        "rules",
        "enforcing",
        "daemon",
        "problems",
    ),
]


def test_of_a_stranger_nothing_is_known() -> None:
    """Every key is there all the same, and all of it is JSON."""
    told = document(known(story=None))

    assert list(told) == KEYS
    assert json.loads(json.dumps(told)) == told
    assert (told["address"], told["verdict"], told["friend"]) == ("192.0.2.1", "stranger", False)
    assert told["rolls"] == {"allow": False, "deny": False, "friends": False}
    assert (told["bans"], told["past"], told["lists"], told["attempts"], told["rules"]) == (
        [],
        [],
        [],
        [],
        [],
    )


def test_a_ban_with_the_kernels_word_and_its_attempts() -> None:
    """What is on record, how many of its attempts are proven, and what the kernel has of it."""
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
            "attempts": 5,
            "proven": 4,
            "expires": "2023-11-14T23:14:00Z",
            "in_kernel": True,
            "timeout": 3_540,
            "packets": 7,
            "bytes": 420,
        }
    ]


def test_a_ban_of_which_only_one_side_knows() -> None:
    """What nobody knows is null: the record of the kernel's own, the packets of what it has lost."""
    lost = document(known(running=(running(ban(), in_kernel=False),)))["bans"][0]
    found = document(known(running=(evolve(running(ban()), ban=None),)))["bans"][0]
    endless = evolve(running(ban(), left=float("inf")), ban=None)
    no_end = document(known(running=(endless,)))["bans"][0]

    assert (lost["in_kernel"], lost["packets"], lost["timeout"], lost["rule"]) == (False, None, 0, "guess")
    assert (found["rule"], found["since"], found["attempts"], found["packets"]) == (None, None, None, 7)
    assert found["expires"] == "2023-11-14T23:14:00Z"
    assert (no_end["expires"], no_end["timeout"]) == (None, None)


def test_bans_of_before() -> None:
    """Each with its end, and when it was lifted where somebody did."""
    over, lifted = Past(ban(), None), Past(ban("192.0.2.0/24"), NOW - 30)
    told = document(known(past=(over, lifted)))["past"]

    assert [(one["network"], one["lifted"]) for one in told] == [
        ("192.0.2.1", None),
        ("192.0.2.0/24", "2023-11-14T22:14:30Z"),
    ]


def test_an_attempt() -> None:
    """When, by what, on which account, how well known, who told of it, and the ban that it led to."""
    [one] = proven(1)
    strange = evolve(one, time=NOW, account="a\x1b", trusted=False, aimed_at=ip_network("192.0.2.9")[0])
    told = document(known(running=(running(ban(made=(one,))),), story=story(made=(strange,))))["attempts"]

    assert told[0] == {
        "time": "2023-11-14T22:13:20Z",
        "asterisk": "pbx",
        "address": "192.0.2.1",
        "kind": "guess",
        "account": "alice",
        "event": "ChallengeResponseFailed",
        "service": "PJSIP",
        "transport": "UDP",
        "proof": "nonce",
        "sources": ["ami", "log:/var/log/ringfence/ringfence", "wire"],
        "trusted": True,
        "tampered": False,
        "aimed_at": None,
        "ban": "2023-11-14T22:14:00Z",
    }
    assert (told[1]["account"], told[1]["trusted"]) == ("a\\x1b", False)
    assert (told[1]["aimed_at"], told[1]["ban"]) == ("192.0.2.9", None)


def test_rules_and_when_they_let_go() -> None:
    """Every rule that is on with its number; the end is on the wall clock."""
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


def test_friends_and_lists_and_the_rolls_of_the_kernel() -> None:
    """Why it is a friend, what it was, which entries hold it, and on which of the kernel's lists it is."""
    told = document(
        known(
            friends=(friend(Tie.REGISTERED, "2\x1b"),),
            former=(friend(until=NOW - 10),),
            holders=(holder(Side.ALLOW, "sip.carrier.example", "192.0.2.1", note="trunk"),),
        )
    )

    assert [(one["account"], one["tie"], one["proven"]) for one in told["friends"]] == [
        ("2\\x1b", "registered", False)
    ]
    assert [(one["account"], one["until"]) for one in told["former"]] == [("204", "2023-11-14T22:14:50Z")]
    assert told["lists"] == [
        {
            "side": "allow",
            "entry": "sip.carrier.example",
            "network": "192.0.2.1",
            "note": "trunk",
            "source": "command",
            "ends": None,
            "forced": False,
        }
    ]
    assert told["rolls"] == {"allow": True, "deny": False, "friends": True}


def test_what_the_host_needs_is_on_the_kernels_list_of_the_allowed() -> None:
    """But for loopback, of which nothing needs to be told; and nothing is while all is off."""
    gateway = {ip_network("192.0.2.1"): "the gateway"}
    itself = ip_network("127.0.0.1")

    assert document(known(protected=gateway))["rolls"]["allow"]
    assert document(known(protected=gateway))["protected"] == [{"network": "192.0.2.1", "why": "the gateway"}]
    assert not document(known(protected=gateway, enforcing=False))["rolls"]["allow"]
    assert not document(known(network=itself, subject=itself, protected=ITSELF))["rolls"]["allow"]
