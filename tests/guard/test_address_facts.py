"""Facts about an address, with a real detector, a real store and the memory firewall."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from tests.explain.world import RULE
from tests.support.attempts import attempts
from tests.support.kept import Kept, kept, settings

from ringfence.alarm_codes import AlarmCode
from ringfence.config.converters import Ladder
from ringfence.config.schema import ClaimedSettings
from ringfence.errors import FirewallError
from ringfence.guard.facts import AddressFactsReader
from ringfence.values.attempt import Proof
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.friend import Friend, FriendReason


class Desk:
    """The answers about an address, and the actions that a test takes first."""

    def __init__(self, made: Kept) -> None:
        self.kept = made
        made.side.start()
        self._asking = AddressFactsReader(made.side)

    def ask(self, network: str) -> dict[str, Any]:
        """Return the answer that a command receives."""
        return asyncio.run(self._asking.answer({"network": network}))

    def guess(self, number: int, address: str = "192.0.2.1", proof: Proof = Proof.NONCE) -> None:
        """Judge this many guesses, a second apart, and carry out the bans that follow."""
        for attempt in attempts(number, address):
            self.kept.now += 1.0
            made = evolve(attempt, proof=proof, time=self.kept.now, sources=("ami",))
            judgement, *_ = self.kept.detector.judge(made, self.kept.clock.mono())
            if judgement.decision is not None:
                self.kept.enforcer.carry_out(judgement.decision)

    def befriend(self, address: str, tie: FriendReason = FriendReason.AUTHENTICATED) -> None:
        """Record a friend."""
        now = self.kept.now
        self.kept.detector.friends.add(Friend("pbx", ip_address(address), "204", tie, now, now, now + 3_600))


@pytest.fixture(name="desk")
def _desk(tmp_path: Path) -> Iterator[Desk]:
    """Return a mounted guard, with one network allowed and one denied."""
    with kept(tmp_path, settings("198.51.100.0/24", denied=("203.0.113.0/24",))) as made:
        yield Desk(made)


def test_a_friend_in_a_banned_64_is_not_banned(desk: Desk) -> None:
    """The kernel applies a ban of a /64 to all but the friends in it. One of their own address counts."""
    desk.befriend("2001:db8::7")
    desk.guess(5, "2001:db8::9")

    assert desk.ask("2001:db8::9")["verdict"] == "banned"
    told = desk.ask("2001:db8::7")
    assert (told["verdict"], told["bans"]) == ("friend", [])
    desk.kept.enforcer.ban([ip_network("2001:db8::7")], 3_600.0, "by hand")
    assert desk.ask("2001:db8::7")["verdict"] == "banned"


def test_an_alarm_is_found_among_many_of_its_code(desk: Desk) -> None:
    """What `status` leaves out, because a code has so many alarms, is told about its address."""
    for number in range(60):
        desk.kept.now += 1.0
        desk.kept.alarms.activate(AlarmCode.PHONE_BROKEN, f"{200 + number} at 192.0.2.{number}", "fails")

    assert [one["subject"] for one in desk.ask("192.0.2.30")["alarms"]] == ["230 at 192.0.2.30"]


def test_an_address_near_a_ban(desk: Desk) -> None:
    """The answer lists the attempts, the progress of each rule, and what is still missing for a ban."""
    desk.guess(3)
    told = desk.ask("192.0.2.1")

    assert (told["verdict"], told["bans"], told["friend"]) == ("stranger", [], False)
    assert [(one["proof"], one["sources"], one["ban"]) for one in told["attempts"]] == [
        ("nonce", ["ami", "wire"], None)
    ] * 3
    counted = {
        rule["rule"]: (rule["have"], rule["of"], rule["proven"]) for rule in told["rules"] if rule["have"]
    }
    assert counted["guess"] == (3, 5, 3)
    assert told["forecast"][0].startswith(
        "2 more proven guesses within 9m 58s are a ban of 1h from the SIP ports;"
    )
    ends = next(rule["ends"] for rule in told["rules"] if rule["rule"] == "guess")
    assert ends == "2023-11-14T22:23:21Z"  # ten minutes after the first


def test_a_banned_address(desk: Desk) -> None:
    """The answer has the kernel's ban, each attempt that led to it once, and the next ban's length."""
    desk.guess(6)
    told = desk.ask("192.0.2.1")

    [ban] = told["bans"]
    assert (told["verdict"], ban["rule"], ban["in_kernel"]) == ("banned", "guess", True)
    assert (ban["attempts"], ban["proven"], ban["timeout"]) == (5, 5, 3_599)
    assert [one["ban"] for one in told["attempts"]] == [ban["since"]] * 5
    assert told["forecast"][-1] == "after that, 5 guesses within 10m are a ban of 6h from the SIP ports"


def test_past_bans_have_their_attempts(desk: Desk) -> None:
    """The answer keeps past bans and all attempts of a returning address, and its next ban is longer."""
    desk.guess(5)
    desk.kept.enforcer.apply(desk.kept.enforcer.book.unban(desk.kept.enforcer.ledger.all_keys()))
    desk.kept.now += 86_400
    desk.guess(2)
    told = desk.ask("192.0.2.1")

    assert [one["ended"] is not None for one in told["past"]] == [True]
    assert [one["ban"] is not None for one in told["attempts"]] == [True] * 5 + [False] * 2
    assert "a ban of 6h" in told["forecast"][0]


def test_a_ban_around_an_address_and_of_a_network(desk: Desk) -> None:
    """An address and its network report the same ban; a wider network is not banned by it."""
    desk.kept.enforcer.ban([ip_network("192.0.2.0/24")], 3_600.0, "a reason")

    assert [ban["network"] for ban in desk.ask("192.0.2.77")["bans"]] == ["192.0.2.0/24"]
    assert desk.ask("192.0.2.0/24")["verdict"] == "banned"
    assert desk.ask("192.0.0.0/16")["bans"] == []


def test_what_only_the_kernel_or_only_the_account_has(desk: Desk) -> None:
    """The answer lists a ban that another program placed, and a ban that the kernel has lost."""
    desk.guess(5)
    desk.kept.backend.lose()
    desk.kept.backend.put(ip_network("192.0.2.9"), desk.kept.now + 60)

    assert [ban["in_kernel"] for ban in desk.ask("192.0.2.1")["bans"]] == [False]
    assert [(ban["rule"], ban["timeout"]) for ban in desk.ask("192.0.2.9")["bans"]] == [(None, 60)]


def test_an_ipv6_address_and_its_64_have_the_same_facts(desk: Desk) -> None:
    """An IPv6 address and its /64 report the same facts; no rule counts a wider network as one subject."""
    desk.guess(5, "2001:db8::7")

    for asked in ("2001:db8::9", "2001:db8::/64"):
        told = desk.ask(asked)
        assert (told["subject"], told["verdict"], len(told["attempts"])) == ("2001:db8::/64", "banned", 5)
    assert desk.ask("2001:db8::/48")["rules"] == []


@pytest.mark.parametrize("everybody", ["0.0.0.0/0", "::/0", "0.0.0.0/1"])
def test_everybody_may_be_asked_for(desk: Desk, everybody: str) -> None:
    """No ban and no list covers the whole internet, but the answer names this host's protected addresses."""
    desk.guess(5)
    told = desk.ask(everybody)

    assert (told["bans"], told["lists"], told["attempts"], told["rules"]) == ([], [], [], [])
    assert told["protected"] != []
    assert told["problems"] == []


def test_a_friend_and_why(desk: Desk) -> None:
    """The answer has the friend's reason, that the friend passes the limiter, and the friend's thresholds."""
    desk.befriend("192.0.2.1")
    desk.befriend("2001:db8::7")
    told = desk.ask("192.0.2.1")

    assert (told["verdict"], told["kernel_lists"]["friends"]) == ("friend", True)
    assert [(one["reason"], one["account"]) for one in told["friends"]] == [("authenticated", "204")]
    assert told["forecast"][0].startswith(
        f"a friend: {RULE['guess'].friends} guesses within 10m or 22 (and 2 for each further account) "
        "within 30s or 20 (at most 2 on each account) "
    )
    assert desk.ask("2001:db8::7")["subject"] == "2001:db8::7"
    assert desk.ask("2001:db8::/48")["forecast"] == [
        "it contains a friend or an exempt address, so no rule bans it as a whole"
    ]


def test_a_former_friend(desk: Desk) -> None:
    """The answer reports a former friend and the end of its friendship."""
    desk.befriend("192.0.2.1")
    desk.kept.now += 7_200
    desk.kept.detector.friends.expire(desk.kept.now)
    told = desk.ask("192.0.2.1")

    assert (told["verdict"], told["friends"]) == ("stranger", [])
    assert [one["until"] for one in told["former"]] == ["2023-11-14T23:13:20Z"]


def test_what_is_strange_about_it(desk: Desk) -> None:
    """The answer has only the active alarms that name the address."""
    for subject in ("192.0.2.1", "204 at 192.0.2.1", "192.0.2.2"):
        desk.kept.alarms.activate(AlarmCode.PHONE_BROKEN, subject, "a wrong password \x1b")
    told = desk.ask("192.0.2.1")

    assert {alarm["subject"] for alarm in told["alarms"]} == {"192.0.2.1", "204 at 192.0.2.1"}
    assert {alarm["text"] for alarm in told["alarms"]} == {"a wrong password \\x1b"}


def test_claims_have_the_configurations_terms(tmp_path: Path) -> None:
    """The forecast names the configured length of a ban on claimed attempts."""
    wanted = evolve(settings(), claimed=ClaimedSettings(ban=Ladder((120.0,))))
    with kept(tmp_path, wanted) as made:
        told = Desk(made).ask("192.0.2.1")

    assert "claim the address lead to a ban of 2m from the SIP ports" in told["forecast"][0]


def test_an_address_on_a_list(desk: Desk) -> None:
    """The answer names the list entry, whether it is from the configuration or a command."""
    desk.kept.store.entries.add([ListEntry(ListKind.DENY, "11.0.2.0/24", "bad", desk.kept.now)])
    desk.kept.side.exempt.lists.load()

    assert desk.ask("198.51.100.9")["verdict"] == "allowed"
    assert desk.ask("203.0.113.9")["verdict"] == "denied"
    told = desk.ask("11.0.2.200")
    assert [(one["entry"], one["source"], one["note"]) for one in told["lists"]] == [
        ("11.0.2.0/24", "command", "bad")
    ]
    assert told["kernel_lists"] == {"allow": False, "deny": True, "friends": False}


def test_what_the_host_needs(desk: Desk) -> None:
    """The answer reports the host's own address, and a network that contains it, as protected."""
    assert desk.ask("198.18.0.1")["protected"] == [
        {"network": "198.18.0.1", "why": "an address of this host"}
    ]
    assert desk.ask("198.18.0.0/24")["verdict"] == "protected"
    assert desk.ask("127.0.0.9")["verdict"] == "protected"


def test_while_enforcement_is_off(desk: Desk) -> None:
    """While enforcement is off, the verdict is `off`."""
    desk.kept.enforcer.switch_off()

    assert (desk.ask("192.0.2.1")["verdict"], desk.ask("192.0.2.1")["enforcing"]) == ("off", False)


def test_unreadable_facts_are_problems(desk: Desk) -> None:
    """If the kernel and the store cannot be read, the answer names both problems and has all other facts."""

    def broken(_known: object = ()) -> Iterator[Any]:
        raise FirewallError("gone")

    desk.guess(2)
    desk.kept.backend.list = broken  # type: ignore[method-assign,assignment] # a fault
    desk.kept.store.connection._scanner.close()
    told = desk.ask("192.0.2.1")

    assert told["problems"][0] == "the kernel's bans are unknown: gone"
    assert [problem.split(":")[0] for problem in told["problems"][1:]] == [
        "recorded bans are unknown",
        "which list holds it is not known",
    ]
    assert len(told["attempts"]) == 2
