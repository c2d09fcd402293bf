"""Sentences about what would cause a ban, or end it."""

from ipaddress import ip_network
from typing import Any

import pytest
from attrs import evolve
from tests.explain.world import (
    NARROW,
    NOW,
    RULE,
    ban,
    count,
    friend,
    holder,
    known,
    running,
    story,
)

from ringfence.detect.judgement import Count
from ringfence.explain.as_json import forecast
from ringfence.values.ban import Scope
from ringfence.values.entry import ListKind
from ringfence.values.friend import FriendReason

GUESS, SLOW, PREFIX, FLOOD = RULE["guess"], RULE["slow"], RULE["prefix"], RULE["flood"]
CLAIMED = "a ban of 10m from the SIP ports by UDP"
SOME = "only claim the address lead to a ban of 10m from the SIP ports by UDP"
CALLS = "calls of extensions that do not exist"
ONE = "1 that only claims the address leads to a ban of 10m from the SIP ports by UDP"


def sentences(**what: Any) -> str:  # noqa: ANN401 - whatever is known
    """Return the sentences on one line."""
    return " | ".join(forecast(known(**what)))


@pytest.mark.parametrize(
    ("counted", "proven", "claimed"),
    [
        (None, "5 proven guesses within 10m are a ban of 1h from the SIP ports", f"5 that {SOME}"),
        (
            count(GUESS, 3, 3),
            "2 more proven guesses within 3m are a ban of 1h from the SIP ports",
            f"2 that {SOME}",
        ),
        (count(GUESS, 4, 0), "4 more proven guesses within 3m are a ban of 1h from the SIP ports", ONE),
        (count(GUESS, 6, 3), "1 more proven guess within 3m is a ban of 1h from the SIP ports", ""),
        (
            count(RULE["enumeration"], 2, 2),
            "1 more proven account that does not exist within 3m is a ban of 1h",
            ONE,
        ),
        (count(RULE["manager"], 2, 2), "1 more proven manager login within 3m is a ban of 1d", ONE),
        (
            count(RULE["probe"], 1, 1),
            f"2 more {CALLS} within 3m are a ban of 10m from the SIP ports by the transport of the calls",
            "",
        ),
        (count(FLOOD, 4), f"6 more seconds over the limit within 3m are {CLAIMED}", ""),
    ],
)
def test_how_near_a_stranger_is(counted: Count | None, proven: str, claimed: str) -> None:
    """The number and kind of further attempts, the time, and the ban, for proven and claimed attempts."""
    rule = counted.rule if counted is not None else GUESS
    told = story(counted) if counted is not None else story()

    assert sentences(story=told) == "; ".join(filter(None, (proven, claimed))) + f" ({rule.name})"


def test_how_near_the_rule_for_networks_is() -> None:
    """The prefix rule counts proven attempts from several addresses, and bans the whole network."""
    assert sentences(story=story(count(PREFIX, 12, 12))) == (
        "8 more attempts of its network within 3m, from at least 3 addresses, "
        "are a ban of all of it from the SIP ports for 1d (prefix)"
    )
    assert "(prefix)" not in sentences(story=story(count(PREFIX, 12, 12)), contains_exempt=True)


def test_the_nearest_rule_comes_first() -> None:
    """Rules are ordered by progress; after the first, only rules at least halfway, three at most."""
    counted = (count(SLOW, 12, 4), count(GUESS, 4, 4), count(PREFIX, 10, 4), count(FLOOD, 5))
    sentences = forecast(known(story=story(*counted)))

    assert [sentence.rsplit("(", 1)[1] for sentence in sentences] == ["guess)", "slow)", "prefix)"]
    assert len(forecast(known(story=story(count(SLOW, 4, 4), count(GUESS, 2, 2))))) == 1


def test_a_repeat_ban_is_longer() -> None:
    """The next length of the ladder is named."""
    assert "are a ban of 6h" in sentences(offences=1)
    assert "are a ban of 7d" in sentences(offences=9)


def test_an_active_ban() -> None:
    """The end, the command to unban, and the longer next ban are named."""
    assert sentences(running=(running(ban()),), offences=1) == (
        "the ban ends by itself in 59m, at 2023-11-14 23:14 UTC; now by: ringfence unban 192.0.2.1 | "
        "after that, 5 guesses within 10m are a ban of 6h from the SIP ports"
    )


def test_a_ban_around_it_is_named() -> None:
    """A ban of an enclosing network, a missing kernel entry, and a permanent ban are named."""
    wide = running(ban("192.0.2.0/24"), in_kernel=False)
    endless = running(ban(), left=float("inf"))
    endless = evolve(endless, ban=None)

    assert "the ban of 192.0.2.0/24 ends by itself in 59m" in sentences(running=(wide,))
    assert "though it is missing in the kernel now; now by: ringfence unban 192.0.2.1" in sentences(
        running=(wide,)
    )
    assert sentences(running=(endless,)).startswith(
        "the ban has no end; it ends by: ringfence unban 192.0.2.1"
    )


def test_a_narrow_ban_goes_on_counting() -> None:
    """While only the SIP ports are blocked, proven attempts still count."""
    narrow = running(ban(scope=NARROW))
    text = sentences(running=(narrow,), story=story(count(GUESS, 5, 1)))

    assert text.count("ends by itself") == 1
    assert text.startswith("the ban from the SIP ports by UDP ends by itself in 59m")
    assert text.endswith("| 3 more proven guesses within 3m are a ban of 1h from the SIP ports (guess)")
    assert "by UDP" not in sentences(running=(narrow, running(ban())))


def test_a_rule_with_scope_sip() -> None:
    """A ban of Asterisk's ports is named as such, before and while it runs; nothing is counted meanwhile."""
    rule = evolve(GUESS, scope=Scope.SIP)
    before = sentences(story=story(count(rule, 5, 1)))
    during = sentences(running=(running(ban(scope=Scope.SIP)),), story=story(count(rule, 5, 0)))

    assert before == "3 more proven guesses within 3m are a ban of 1h from the SIP ports (guess)"
    assert during.startswith("the ban from the SIP ports ends by itself in 59m")
    assert during.endswith("| after that, 5 guesses within 10m are a ban of 1h from the SIP ports")


def test_an_allowed_address() -> None:
    """Only the allow entry is named, with its origin and the way to remove it."""
    by_name = holder(ListKind.ALLOW, "sip.carrier.example", "192.0.2.1")
    by_file = holder(ListKind.ALLOW, "192.0.2.0/24", note="office", origin="configuration")

    assert sentences(holders=(by_name, by_file), running=(running(ban()),)) == (
        "nothing bans it: the allow list contains sip.carrier.example (192.0.2.1); to end that, "
        "ringfence allow remove sip.carrier.example | "
        "nothing bans it: the allow list contains 192.0.2.0/24, office; to end that, "
        "remove it from [allow] in the configuration, and reload"
    )


def test_a_denied_address() -> None:
    """The deny entry has its note, its end, and the two ways out."""
    entry = holder(ListKind.DENY, "192.0.2.0/24", note="bad people", until=NOW + 60)

    assert sentences(holders=(entry,)) == (
        "dropped permanently: the deny list contains 192.0.2.0/24, bad people, until 2023-11-14T22:16:00Z; "
        "to end that, ringfence deny remove 192.0.2.0/24, or for it alone: ringfence allow add 192.0.2.1"
    )


def test_a_friend_on_a_list_of_others() -> None:
    """A friend passes a denied country, a feed and a decision, and each entry is named."""
    country = holder(ListKind.DENY, "country DE", network="192.0.2.0/24")

    assert (
        "the deny list contains country DE (192.0.2.0/24), but friends, former friends and "
        "admitted addresses pass it, because it was found by its region"
    ) in sentences(holders=(country,), friends=(friend(),), passes=True)
    for origin, text in (
        ("feed voipbl", "the feed voipbl contains"),
        ("decision x", "the decision x contains"),
    ):
        made = holder(ListKind.DENY, "192.0.2.0/24", origin=origin)
        passed = f"{text} 192.0.2.0/24, but friends, former friends and admitted addresses pass it"
        assert passed in sentences(holders=(made,), passes=True)


def test_what_machines_deny() -> None:
    """The answer names the traffic that a list drops, and how the entry is removed."""
    listed = holder(ListKind.DENY, "192.0.2.0/24", origin="feed voipbl")
    narrow = evolve(listed, drops=Scope.SIP, removal="do this")
    rest = "is dropped: the feed voipbl contains 192.0.2.0/24; to end that,"

    assert f"its new traffic {rest}" in sentences(holders=(listed,))
    assert f"its new traffic to the SIP ports {rest} do this, or" in sentences(holders=(narrow,))


def test_a_protected_address() -> None:
    """Each reason is named, and the way to force a ban."""
    reasons = {ip_network("192.0.2.1"): "the gateway of eth0", ip_network("192.0.2.0/25"): "the office"}

    assert sentences(protected=reasons) == (
        "no rule bans it: it is the gateway of eth0 and 192.0.2.0/25 is the office; "
        "by hand: ringfence ban --force 192.0.2.1"
    )


def test_a_friend_has_numbers_of_its_own() -> None:
    """The numbers for friends are far above a phone's own errors; known accounts only raise alarms."""
    numbers = {"guess": 600, "enumeration": 20}
    counts = [count(rule, 0, number=numbers.get(name, 0)) for name, rule in RULE.items()]
    counts[list(RULE).index("guess")] = count(GUESS, 40, 40, number=600)

    assert sentences(friends=(friend(),), story=story(*counts)) == (
        "a friend: 600 guesses within 10m (40 so far) or 22 (and 2 for each further account) within "
        "30s or 20 (at most 2 on each account) within 10m, or 20 accounts that never worked there within 10m "
        "are a ban; an account that works or worked there only raises alarms"
    )
    none = [count(rule, 0, number=0) for rule in RULE.values()]
    assert sentences(friends=(friend(),), story=story(*none)) == "a friend: no rule bans it"


def test_a_trunk_is_never_banned() -> None:
    """Rules do not ban a trunk, so no number is named."""
    assert (
        sentences(friends=(friend(FriendReason.TRUNK),))
        == "a trunk: no rule bans it; guesses from there raise alarms"
    )


def test_outage_mode() -> None:
    """In outage mode no friend is banned."""
    text = sentences(friends=(friend(),), story=story(outage_mode=True))

    assert text == "a friend, and outage mode is active: no rule bans it until that ends"


def test_a_whole_network() -> None:
    """Rules count addresses, and do not ban a network that contains a friend."""
    wide = {"network": ip_network("192.0.0.0/16"), "subject": ip_network("192.0.0.0/16"), "story": None}

    assert sentences(**wide) == "no rule counts a whole network; see: ringfence why ADDRESS"
    assert sentences(**wide, contains_exempt=True) == (
        "it contains a friend or an exempt address, so no rule bans it as a whole"
    )


def test_while_nothing_is_enforced_or_no_daemon_runs() -> None:
    """Switched-off enforcement comes first; without a daemon the forecast is unknown."""
    assert sentences(enforcing=False).startswith("nothing is dropped until: ringfence on | 5 ")
    assert sentences(live=False, story=None) == (
        "only the daemon knows how near a ban it is; fix: systemctl start ringfence"
    )


def test_hostile_text_is_made_printable() -> None:
    """Control characters in a note or a file name are escaped."""
    text = sentences(holders=(holder(ListKind.DENY, "192.0.2.0/24", origin="/a\x1b[2J", note="b\x1b"),))

    assert "\x1b" not in text


def test_the_command_that_removes_a_country_can_be_copied() -> None:
    """A shell splits at blanks, so the command names the country alone."""
    country = holder(ListKind.DENY, "country DE", network="192.0.2.0/24")
    assert "to end that, ringfence deny remove DE, or for it alone" in sentences(holders=(country,))
