"""What would have to happen for a ban, or for its end: the sentences themselves."""

from ipaddress import ip_network
from typing import Any

import pytest
from attrs import evolve
from tests.why.world import (
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

from ringfence.detect.judge import Count
from ringfence.model import Side, Tie
from ringfence.why.outlook import outlook

GUESS, SLOW, PREFIX, FLOOD = RULE["guess"], RULE["slow"], RULE["prefix"], RULE["flood"]
CLAIMED = "a ban of 10m from the SIP ports by UDP"
SOME = "only claim the address are one of 10m from the SIP ports by UDP"
ONE = "1 that only claims the address is one of 10m from the SIP ports by UDP"


def said(**what: Any) -> str:  # noqa: ANN401 - whatever is known
    """Give what is said of it, all on one line."""
    return " | ".join(outlook(known(**what)))


@pytest.mark.parametrize(
    ("counted", "proven", "claimed"),
    [
        (None, "5 proven guesses within 10m are a ban of 1h", f"5 that {SOME}"),
        (count(GUESS, 3, 3), "2 more proven guesses within 3m are a ban of 1h", f"2 that {SOME}"),
        (count(GUESS, 4, 0), "4 more proven guesses within 3m are a ban of 1h", ONE),
        (count(GUESS, 6, 3), "1 more proven guess within 3m is a ban of 1h", ""),
        (
            count(RULE["enumeration"], 2, 2),
            "1 more proven account that does not exist within 3m is a ban of 1h",
            ONE,
        ),
        (count(RULE["manager"], 2, 2), "1 more proven manager login within 3m is a ban of 1d", ONE),
        (count(FLOOD, 4), f"6 more seconds over the limit within 3m are {CLAIMED}", ""),
    ],
)
def test_how_near_a_stranger_is(counted: Count | None, proven: str, claimed: str) -> None:
    """How many more of what, until when, and what follows: where they are proven, and where they claim."""
    rule = counted.rule if counted is not None else GUESS
    told = story(counted) if counted is not None else story()

    assert said(story=told) == "; ".join(filter(None, (proven, claimed))) + f" ({rule.name})"


def test_how_near_the_rule_for_networks_is() -> None:
    """It counts what is proven alone, of several addresses, and bans them all."""
    assert said(story=story(count(PREFIX, 12, 12))) == (
        "8 more attempts of its network within 3m, from at least 3 addresses, "
        "are a ban of all of it for 1d (prefix)"
    )
    assert "(prefix)" not in said(story=story(count(PREFIX, 12, 12)), spared=True)


def test_the_nearest_rule_comes_first() -> None:
    """By how much of its number is there; of the others those that are halfway, three at most."""
    counted = (count(SLOW, 12, 4), count(GUESS, 4, 4), count(PREFIX, 10, 4), count(FLOOD, 5))
    sentences = outlook(known(story=story(*counted)))

    assert [sentence.rsplit("(", 1)[1] for sentence in sentences] == ["guess)", "slow)", "prefix)"]
    assert len(outlook(known(story=story(count(SLOW, 4, 4), count(GUESS, 2, 2))))) == 1


def test_who_was_banned_before_gets_longer() -> None:
    """The ladder's next step is named."""
    assert "are a ban of 6h" in said(offences=1)
    assert "are a ban of 7d" in said(offences=9)


def test_a_ban_says_its_end_and_what_comes_after() -> None:
    """By itself or by a command; nothing is counted until then, and the next one is longer."""
    assert said(running=(running(ban()),), offences=1) == (
        "the ban ends by itself in 59m, at 2023-11-14 23:14 UTC; now by: ringfence unban 192.0.2.1 | "
        "after that, 5 guesses within 10m are a ban of 6h"
    )


def test_a_ban_around_it_is_named() -> None:
    """Whose it is, that the kernel has lost it, or that it has no end."""
    wide = running(ban("192.0.2.0/24"), in_kernel=False)
    endless = running(ban(), left=float("inf"))
    endless = evolve(endless, ban=None)

    assert "the ban of 192.0.2.0/24 ends by itself in 59m" in said(running=(wide,))
    assert "though the kernel does not have it now; now by: ringfence unban 192.0.2.1" in said(
        running=(wide,)
    )
    assert said(running=(endless,)).startswith("the ban has no end; it ends by: ringfence unban 192.0.2.1")


def test_a_narrow_ban_goes_on_counting() -> None:
    """Where only the SIP ports are closed, what proves the address counts."""
    narrow = running(ban(scope=NARROW))
    text = said(running=(narrow,), story=story(count(GUESS, 5, 1)))

    assert text.count("ends by itself") == 1
    assert text.startswith("the ban from the SIP ports by UDP ends by itself in 59m")
    assert text.endswith("| 3 more proven guesses within 3m are a ban of 1h (guess)")
    assert "from the SIP ports" not in said(running=(narrow, running(ban())))


def test_whom_a_list_allows() -> None:
    """Nothing else matters; where the entry comes from, and how it is taken off."""
    by_name = holder(Side.ALLOW, "sip.carrier.example", "192.0.2.1")
    by_file = holder(Side.ALLOW, "192.0.2.0/24", note="office", origin="configuration")

    assert said(holders=(by_name, by_file), running=(running(ban()),)) == (
        "nothing bans it: the allow list holds sip.carrier.example (192.0.2.1); to end that, "
        "ringfence allow remove sip.carrier.example | "
        "nothing bans it: the allow list holds 192.0.2.0/24, office; to end that, "
        "take it out of [allow] in the configuration, and reload"
    )


def test_whom_a_list_denies() -> None:
    """From which file, until when, and the two ways out."""
    imported = holder(Side.DENY, "192.0.2.0/24", origin="/lists/voipbl", note="VoIPBL", until=NOW + 60)

    assert said(holders=(imported,)) == (
        "dropped without an end: the deny list holds 192.0.2.0/24, VoIPBL, imported from /lists/voipbl, "
        "until 2023-11-14T22:16:00Z; to end that, ringfence deny remove 192.0.2.0/24, or for it alone: "
        "ringfence allow add 192.0.2.1"
    )


def test_what_the_host_needs() -> None:
    """Every reason is named, and that an administrator may insist."""
    reasons = {ip_network("192.0.2.1"): "the gateway of eth0", ip_network("192.0.2.0/25"): "the office"}

    assert said(protected=reasons) == (
        "no rule bans it: it is the gateway of eth0 and 192.0.2.0/25 is the office; "
        "by hand: ringfence ban --force 192.0.2.1"
    )


def test_a_friend_has_numbers_of_its_own() -> None:
    """What a phone does by itself is far below them, and a wrong password is told."""
    numbers = {"guess": 600, "enumeration": 20}
    counts = [count(rule, 0, number=numbers.get(name, 0)) for name, rule in RULE.items()]
    counts[list(RULE).index("guess")] = count(GUESS, 40, 40, number=600)

    assert said(friends=(friend(),), story=story(*counts)) == (
        "a friend: 600 guesses within 10m (40 so far), or 20 accounts that never worked there within 10m "
        "are a ban; a phone with a wrong password is told of, not banned"
    )
    none = [count(rule, 0, number=0) for rule in RULE.values()]
    assert said(friends=(friend(),), story=story(*none)) == "a friend: no rule bans it"


def test_a_friend_by_its_own_word_alone() -> None:
    """It is spared from what only claims, and from nothing else."""
    text = said(friends=(friend(Tie.REGISTERED),))

    assert text == (
        "a friend by a phone's word alone: what only claims to come from there bans nobody, and what is "
        "proven to is judged as a stranger's"
    )


def test_while_every_phone_fails() -> None:
    """No friend is banned, whatever it does."""
    text = said(friends=(friend(),), story=story(braked=True))

    assert text == "a friend, and phones fail everywhere: until that is over nothing bans it"


def test_a_whole_network() -> None:
    """Rules count addresses, and ban no network in which a friend lives."""
    wide = {"network": ip_network("192.0.0.0/16"), "subject": ip_network("192.0.0.0/16"), "story": None}

    assert said(**wide) == "no rule counts it as a whole: ask for one of its addresses"
    assert said(**wide, spared=True) == (
        "a friend lives in it, or who is never banned: so no rule bans it as a whole"
    )


def test_while_nothing_is_enforced_or_no_daemon_runs() -> None:
    """That comes first, or stands in the place of what only the daemon knows."""
    assert said(enforcing=False).startswith("nothing is dropped now, whoever it is, until: ringfence on | 5 ")
    assert said(live=False, story=None) == (
        "how near a ban it is knows the daemon alone: systemctl start ringfence"
    )


def test_hostile_text_is_made_printable() -> None:
    """A note or a file's name writes nothing into a terminal."""
    text = said(holders=(holder(Side.DENY, "192.0.2.0/24", origin="/a\x1b[2J", note="b\x1b"),))

    assert "\x1b" not in text
