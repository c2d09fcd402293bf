"""The facts of an account, and the memory of failures by account."""

import asyncio
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.explain.world import friend
from tests.support.attempts import ATTEMPT
from tests.support.kept import kept, settings

from ringfence.detect.friends import Friends
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.explain.account import MOST_FRIENDS
from ringfence.guard import facts
from ringfence.guard.facts import AccountFactsReader, FailureMemory

HERE = ip_network("192.0.2.1")


def judged(account: str, number: int = 1, how: Disposition = Disposition.COUNTED) -> Judgement:
    """Return a judgement on a failure of an account at an address."""
    address = HERE.network_address + number - 1
    return Judgement(evolve(ATTEMPT, account=account, address=address), ip_network(address), how)


def test_failures_are_remembered_by_address() -> None:
    """Each address has the number of its failures; proofs and forged names are no failures."""
    failed = FailureMemory(Friends())
    for one in (judged("204"), judged("204"), judged("204", 2), judged("")):
        failed.on_judgement(one)
    failed.on_judgement(judged("204", 3, Disposition.FORGED))
    failed.on_judgement(judged("204", 4, Disposition.COUNTED_BEFORE))

    assert [(str(one.last.address), one.times) for one in failed.failures_of("204")] == [
        ("192.0.2.1", 2),
        ("192.0.2.2", 1),
    ]
    assert failed.failures_of("205") == []


def test_names_of_an_attacker_displace_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts that work here are kept apart, and the address where one works is discarded last."""
    monkeypatch.setattr(facts, "MOST_UNKNOWN", 10)
    friends = Friends()
    friends.add(friend(account="204"))
    failed = FailureMemory(friends)
    for one in (
        judged("204"),
        *(judged("204", n) for n in range(2, 50)),
        *(judged(str(n)) for n in range(99)),
    ):
        failed.on_judgement(one)

    assert len(failed.failures_of("204")) == facts.MOST_ADDRESSES
    assert failed.failures_of("204")[0].last.address == HERE.network_address
    assert failed.failures_of("50") == []
    assert failed.failures_of("98") != []


def test_the_memory_is_bounded_by_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accounts with many addresses leave room for fewer accounts."""
    monkeypatch.setattr(facts, "MOST_UNKNOWN", 10)
    memory = FailureMemory(Friends())
    for account in ("a", "b", "c"):
        for number in range(1, 5):
            memory.on_judgement(judged(account, number))

    assert [len(memory.failures_of(account)) for account in ("a", "b", "c")] == [0, 4, 4]


def test_an_account_that_is_forgotten_has_its_failures() -> None:
    """Failures follow an account that becomes known, and one that is no longer known."""
    friends, phone = Friends(), friend(account="204")
    memory = FailureMemory(friends)
    memory.on_judgement(judged("204", 1))
    friends.add(phone)
    memory.on_judgement(judged("204", 2))
    friends = Friends()
    memory._friends = friends
    memory.on_judgement(judged("204", 3))

    assert [str(one.last.address) for one in memory.failures_of("204")] == [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
    ]


def test_an_account_with_many_addresses_costs_little(tmp_path: Path) -> None:
    """The lists and bans of the latest addresses are looked up, not those of all."""
    with kept(tmp_path, settings()) as made:
        made.side.start()
        wall = made.side.common.clock.wall()
        phone = evolve(friend(account="204"), until=wall + 60)
        for number in range(200):
            one = evolve(phone, address=HERE.network_address + number, seen=wall - number)
            made.side.detector.friends.add(one)
        reader = AccountFactsReader(made.side, FailureMemory(made.side.exempt.friends.friends))
        found = asyncio.run(reader.known("204"))

    assert next(iter(found.homes)) == HERE.network_address
    assert len(found.homes) == MOST_FRIENDS


def test_the_facts_of_an_account(tmp_path: Path) -> None:
    """The phone, its ban, and the list that denies it are found."""
    with kept(tmp_path, settings()) as made:
        made.side.start()
        failed = FailureMemory(made.side.exempt.friends.friends)
        wall = made.side.common.clock.wall()
        made.side.exempt.friends.add([evolve(friend(account="204"), until=wall + 60)])
        failed.on_judgement(judged("204", 9))
        made.side.kernel.enforcer.ban([HERE], 60.0, "by hand")
        reader = AccountFactsReader(made.side, failed)
        found = asyncio.run(reader.answer({"account": "204"}))

    assert (found["verdict"], found["bans"][0]["address"]) == ("banned", "192.0.2.1")
    assert [one["address"] for one in found["failures"]] == [str(ip_address("192.0.2.9"))]
