"""From decisions to bans: what is placed, what is pending, what comes back, and what the store knows."""

import asyncio
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.attempts import attempts
from tests.support.world import OTHER, RULE, START, SUBJECT, World, a_world, said

from ringfence.bans import enforce
from ringfence.bans.ledger import key_of
from ringfence.bans.lifting import unban, unban_all
from ringfence.clock import Clock
from ringfence.detect.judge import Decision
from ringfence.detect.rules import DAY, HOUR, RETURN_WITHIN, RULES
from ringfence.errors import ControlError, FirewallError, ProbeError, SetFullError, StoreError
from ringfence.firewall.contract import Add, Plan, Roll
from ringfence.model import Ban, Origin, Scope
from ringfence.store import Store

FLOOD = next(rule for rule in RULES if rule.name == "flood")


@pytest.fixture(name="world")
def _world(tmp_path: Path) -> Iterator[World]:
    """Give a world, at its beginning."""
    with a_world(tmp_path / "ringfence.db") as world:
        yield world


# -- a ban ------------------------------------------------------------------------------------------------


def test_a_decision_becomes_a_ban(world: World) -> None:
    """The kernel has it, then the store, with its attempts; the subject is held; one line is logged."""
    with capture_logs() as logs:
        world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": 3_600}
    assert world.store.running(START) == [
        Ban(SUBJECT, START, START + HOUR, "guess", RULE.meaning, Origin.RULE, attempts(5))
    ]
    assert world.held()
    assert logs == [
        {
            "event": "ban.placed",
            "log_level": "warning",
            "address": "192.0.2.1/32",
            "seconds": 3_600,
            "rule": "guess",
            "attempts": 5,
            "accounts": ["alice"],
        }
    ]
    assert (world.enforcer.counts.placed, world.enforcer.counts.failed) == (1, 0)


def test_a_hostile_account_is_made_printable_in_the_log(world: World) -> None:
    """What a sender called itself cannot write lines or colours into the log."""
    with capture_logs() as logs:
        made = attempts(5, account="a\n\x1b[31m")
        world.enforcer.carry_out(Decision(SUBJECT, RULE, made))

    assert logs[0]["accounts"] == ["a\\n\\x1b[31m"]


def test_who_comes_back_stays_out_longer(world: World) -> None:
    """Each return within thirty days earns the next length; the last one stays; then it is forgotten."""
    lengths = []
    for _ in range(5):
        world.decide()
        lengths += [world.in_kernel()["192.0.2.1/32"]]
        world.wait(lengths[-1] + 1)
        assert world.in_kernel() == {}
    world.wait(RETURN_WITHIN)
    world.decide()

    assert lengths == [HOUR, 6 * HOUR, DAY, 7 * DAY, 7 * DAY]
    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


def test_the_kernel_is_asked_before_the_database(world: World) -> None:
    """The first exchange of a ban needs no look-up: it is placed at once, and made longer afterwards."""
    world.decide()
    world.wait(HOUR + 1)
    world.backend.batches.clear()
    world.decide()

    assert world.backend.batches == [[Add(SUBJECT, HOUR)], [Add(SUBJECT, 6 * HOUR)]]


# -- a ban that fails -------------------------------------------------------------------------------------


def test_a_refused_ban_is_pending_and_tried_until_it_is_done(world: World) -> None:
    """Said once and loudly, held, never in the store before the kernel has it, recorded once it has."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    with said() as names:
        world.decide()
        world.wait(5)
        world.wait(5)

    assert names == ["ban.failed"]
    assert (world.in_kernel(), world.in_store(), world.enforcer.pending) == ({}, {}, 1)
    assert world.enforcer.firewall_error == "the set is full"
    assert (world.enforcer.counts.placed, world.enforcer.counts.failed) == (0, 1)
    assert world.held()

    world.backend.refuses.clear()
    with said() as names:
        world.wait(5)

    assert names == ["ban.placed"]
    left = {"192.0.2.1/32": round(HOUR) - 15}
    assert (world.in_kernel(), world.in_store(), world.enforcer.pending) == (left, left, 0)
    assert world.enforcer.firewall_error == ""
    assert world.enforcer.counts.placed == 1


def test_a_firewall_that_cannot_speak_is_a_refusal_of_all(world: World) -> None:
    """Where the conversation itself is broken, nothing raises, and every ban is pending."""
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.decide(OTHER)

    assert (world.enforcer.pending, world.in_store()) == (2, {})
    world.backend.gone = None
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.2/32"}


def test_what_is_pending_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a refused ban is dropped, and its sender counted anew instead of held."""
    monkeypatch.setattr(enforce, "MOST_PENDING", 1)
    world.backend.gone = FirewallError("the socket is gone")
    world.decide()
    world.decide(OTHER)

    assert (world.enforcer.pending, world.enforcer.counts.failed) == (1, 2)
    assert (world.held(), world.held(OTHER)) == (True, False)


def test_a_pending_ban_ends_with_its_time(world: World) -> None:
    """What could never be placed is given up when it would be over, and so is the complaint."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.wait(HOUR)

    assert (world.enforcer.pending, world.enforcer.firewall_error) == (0, "")
    assert not world.held()


def test_one_success_does_not_hide_what_is_refused(world: World) -> None:
    """While a ban is pending the firewall's error stands, whatever else goes well."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    world.decide(OTHER)

    assert world.enforcer.firewall_error == "the set is full"


def test_a_refused_ban_that_was_restored_is_no_second_offence(world: World) -> None:
    """A ban of the store that goes back into the kernel late counts once when the length is decided."""
    world.decide()
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.restart(reboot=True)
    assert world.enforcer.pending == 1
    world.backend.refuses.clear()
    world.wait(5)

    assert set(world.in_kernel()) == {"192.0.2.1/32"}
    assert world.store.bans_before(SUBJECT, 0.0) == 1


def test_a_full_ban_takes_the_place_of_a_narrow_one(world: World) -> None:
    """Who proves himself while he is kept from the SIP ports is banned once, for all."""
    world.decide(scope=Scope.SIP_UDP, seconds=600.0)
    world.decide()

    assert [(str(element.network), element.scope) for element in world.backend.list()] == [
        ("192.0.2.1/32", Scope.FULL)
    ]
    assert world.in_store() == {"192.0.2.1/32": HOUR}
    assert list(world.enforcer.keys()) == [key_of(SUBJECT)]
    world.restart()
    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


def test_floods_make_nobody_an_offender(world: World) -> None:
    """Anybody's address may be forged in a flood: the first wrong passwords that follow are a first ban."""
    for _ in range(4):
        world.decide(rule=FLOOD, scope=Scope.SIP_UDP, seconds=600.0)
        world.wait(700.0)
    world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


def test_a_boot_years_ago_makes_no_ban_longer(world: World) -> None:
    """While a host without a battery does not know the time, no ban lasts longer than was meant."""
    world.decide()
    world.enforcer.ban([OTHER], 2 * HOUR, "")
    world.now -= 50 * 365 * DAY
    world.restart(reboot=True)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR, "192.0.2.2/32": 2 * HOUR}


# -- a store that fails -----------------------------------------------------------------------------------


def broken(world: World, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have methods of the store fail."""

    def fail(*_: Any) -> None:  # noqa: ANN401 - whatever it is called with
        raise StoreError("disk full")

    for name in names or ("record", "end", "bans_before", "purge"):
        monkeypatch.setattr(world.store, name, fail)


def test_a_broken_store_stops_no_ban(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel drops; that it is not recorded is shown, and said once."""
    broken(world, monkeypatch)
    with said() as names:
        world.decide()
        world.decide(OTHER)

    assert set(world.in_kernel()) == {"192.0.2.1/32", "192.0.2.2/32"}
    assert names == ["store.failed", "ban.placed", "ban.placed"]
    assert world.records.error == "disk full"

    monkeypatch.undo()
    world.decide(ip_network("192.0.2.3"))
    assert world.records.error == ""


def test_a_broken_store_does_not_keep_the_firewall_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off takes the bans out even where it cannot be remembered, and then says that it cannot."""
    world.decide()
    monkeypatch.setattr(Store, "switched_off", property(lambda _: False, _raise_store_error))
    with pytest.raises(StoreError, match="disk full"):
        world.enforcer.switch_off()

    assert (world.in_kernel(), world.enforcer.enforcing) == ({}, False)


def _raise_store_error(_store: Store, _value: object) -> None:
    raise StoreError("disk full")


def test_what_the_store_lost_is_adopted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ban that was placed and not recorded is found in the kernel at the next start and kept."""
    broken(world, monkeypatch)
    world.decide()
    monkeypatch.undo()
    world.now += 600
    world.restart()

    left = round(HOUR) - 600
    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": left}
    [ban] = world.store.running(world.now)
    assert (ban.origin, ban.rule, ban.attempts) == (Origin.ADOPTED, "adopted", ())
    assert world.held()


def test_what_the_store_cannot_tell_does_not_keep_the_guard_away(world: World) -> None:
    """A row that nobody can read is said; the ban that the kernel still has is kept, new ones are placed."""
    world.decide()
    world.decide(OTHER)
    world.store._writer.execute("UPDATE bans SET network = 'broken' WHERE network = '192.0.2.1/32'")
    with said() as names:
        world.restart()

    assert (names[0], names.count("store.failed")) == ("store.failed", 1)
    assert set(world.in_kernel()) == {"192.0.2.1/32", "192.0.2.2/32"}
    assert (world.held(), world.held(OTHER)) == (True, True)
    world.decide(ip_network("192.0.2.3"))
    assert "192.0.2.3/32" in world.in_kernel()


# -- start ------------------------------------------------------------------------------------------------


def test_a_restart_keeps_what_is_there(world: World) -> None:
    """Kernel and store agree: nothing is sent, nothing recorded, and the ban is known with its attempts."""
    world.decide()
    world.now += 10
    world.backend.batches.clear()
    with capture_logs() as logs:
        world.restart()

    assert world.backend.batches == []
    assert logs == [{"event": "bans.restored", "log_level": "info", "kept": 1, "put_back": 0, "adopted": 0}]
    record = world.enforcer.ledger.get(key_of(SUBJECT))
    assert record is not None
    assert (record.attempts, record.since, record.reason) == (5, START, RULE.meaning)
    assert world.held()


def test_a_reboot_puts_everything_back_in_one_batch(world: World) -> None:
    """What has time left goes back for the time that it has, in one batch; what is over does not."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"))
    world.enforcer.ban([OTHER], 60.0, "")
    world.now += 600
    world.backend.batches.clear()
    world.restart(reboot=True)

    left = round(HOUR) - 600
    assert len(world.backend.batches) == 1
    assert world.in_kernel() == {"192.0.2.1/32": left, "2001:db8::/64": left}
    assert world.store.bans_before(SUBJECT, 0.0) == 1


def test_a_firewall_that_does_not_open_raises(world: World) -> None:
    """The start fails with the firewall's own word, and nothing is taken to be enforced."""
    world.store.close()
    world.backend.gone = ProbeError("it got through")
    with pytest.raises(ProbeError, match="it got through"):
        world.start()

    assert world.enforcer.enforcing is False


def test_an_element_without_an_end_is_given_one(world: World) -> None:
    """What somebody else put in for ever is adopted for a day from now: all that bans ends."""
    world.backend.put(SUBJECT, float("inf"))
    world.restart()

    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": round(DAY)}
    assert world.store.running(world.now)[0].origin is Origin.ADOPTED
    world.wait(DAY)
    assert (world.in_kernel(), world.held()) == ({}, False)


def test_who_must_not_be_banned_is_let_go_at_the_start(world: World) -> None:
    """What the kernel has without us and what must not be banned is lifted; the rest is adopted."""
    world.allow(OTHER, _203_0_113_1="the gateway")
    exempt = world.enforcer.exempt
    for text in ("192.0.2.2", "203.0.113.0/24", "192.0.2.1"):
        world.backend.put(ip_network(text), START + 60)
    world.enforcer.exempt = exempt
    world.enforcer.start()

    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}


def test_the_start_says_what_it_found(world: World) -> None:
    """Each ban is told once: it was there and known, was put back, or was found and adopted."""
    world.decide()
    world.decide(OTHER)
    world.backend.lose(OTHER)
    world.backend.put(ip_network("192.0.2.3"), START + 60)
    with capture_logs() as logs:
        world.restart()

    assert [entry for entry in logs if entry["event"] == "bans.restored"] == [
        {"event": "bans.restored", "log_level": "info", "kept": 1, "put_back": 1, "adopted": 1}
    ]


def test_a_start_without_a_test_packet_sends_none(world: World) -> None:
    """Where it is not asked for, nothing is verified, and the bans are there all the same."""
    world.decide()
    world.enforcer.verification = None
    world.enforcer.start(verified=False)

    assert world.enforcer.verification is None
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


# -- long bans --------------------------------------------------------------------------------------------


def test_a_ban_longer_than_the_kernel_counts_is_renewed(world: World) -> None:
    """Below half of what was granted it is asked for again, until the ban's own end, and no further."""
    world.backend.cap = 100.0
    world.decide()
    seen: list[int] = []
    while world.in_kernel() and len(seen) < 200:
        seen.append(world.in_kernel()["192.0.2.1/32"])
        world.wait(20.0)

    assert min(seen[:-5]) >= 40
    assert max(seen) <= 100
    assert world.now == START + HOUR
    assert world.store.bans_before(SUBJECT, 0.0) == 1
    assert world.enforcer.counts.placed == 1


def test_a_renewal_that_fails_is_tried_again(world: World) -> None:
    """A refused renewal is shown and repeated while the kernel still has the ban."""
    world.backend.cap = 100.0
    world.decide()
    world.backend.refuses[SUBJECT] = FirewallError("no memory")
    world.wait(60.0)
    assert world.enforcer.firewall_error == "no memory"
    world.backend.refuses.clear()
    world.wait(20.0)

    assert (world.in_kernel(), world.enforcer.firewall_error) == ({"192.0.2.1/32": 100}, "")


# -- off and on -------------------------------------------------------------------------------------------


def test_off_takes_everything_and_stays(world: World) -> None:
    """The kernel is empty, decisions are only said, a restart changes nothing, and commands are refused."""
    world.decide()
    world.enforcer.switch_off()
    assert world.in_kernel() == {}
    assert not world.held()
    with said() as names:
        world.decide(OTHER)
        world.wait(5)
    assert names == ["ban.not_enforced"]
    assert world.held(OTHER)

    world.restart()
    world.decide(ip_network("192.0.2.3"))
    assert (world.in_kernel(), world.enforcer.enforcing, world.enforcer.opened) == ({}, False, None)
    for refused in (
        lambda: world.enforcer.ban([OTHER], 60.0, ""),
        lambda: unban(world.enforcer, [OTHER]),
        lambda: asyncio.run(unban_all(world.enforcer)),
    ):
        with pytest.raises(ControlError, match="switched off; switch it on with: ringfence on"):
            refused()


def test_on_brings_back_what_has_time_left(world: World) -> None:
    """Bans that were running are put back; who was only seen is counted from nothing."""
    world.decide()
    world.enforcer.switch_off()
    world.decide(OTHER)
    world.now += 600
    world.enforcer.switch_on()

    assert world.in_kernel() == {"192.0.2.1/32": round(HOUR) - 600}
    assert world.held()
    assert not world.held(OTHER)
    world.enforcer.switch_on()  # may be repeated
    assert world.store.switched_off is False


def test_off_is_remembered_even_if_the_kernel_will_not_let_go(world: World) -> None:
    """Where the firewall cannot be taken away whole, off says so, and stays off."""
    world.decide()
    world.backend.gone = FirewallError("a set is in use")
    with pytest.raises(FirewallError, match="a set is in use"):
        world.enforcer.switch_off()

    assert (world.store.switched_off, world.enforcer.enforcing) == (True, False)


# -- by hand ----------------------------------------------------------------------------------------------


def test_a_ban_by_hand(world: World) -> None:
    """An administrator's bans are placed and recorded as such, and are no offence of the address."""
    assert world.enforcer.ban([SUBJECT, ip_network("2001:db8::/32")], 90.0, "a reason") == []

    assert world.in_kernel() == {"192.0.2.1/32": 90, "2001:db8::/32": 90}
    assert world.store.running(START)[0] == Ban(
        SUBJECT, START, START + 90.0, "admin", "a reason", Origin.ADMIN
    )
    assert world.store.bans_before(SUBJECT, 0.0) == 0


def test_a_ban_by_hand_that_fails_is_told_and_kept(world: World) -> None:
    """The administrator learns what the kernel said; the ban is tried again as any other."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")

    assert world.enforcer.ban([SUBJECT, OTHER], 60.0, "") == ["192.0.2.1/32: the set is full"]
    world.backend.refuses.clear()
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.2/32"}


# -- never banned -----------------------------------------------------------------------------------------


def test_who_is_never_banned_is_not_banned_by_hand(world: World) -> None:
    """Who is allowed, and what is or holds a protected address, is refused line by line, with the reason."""
    world.allow(ip_network("198.51.100.0/24"), _203_0_113_1="the gateway")
    texts = ["127.0.0.1", "198.51.100.7", "203.0.113.1", "203.0.113.0/24", "192.0.2.1"]
    refused = world.enforcer.ban([ip_network(text) for text in texts], 60.0, "")

    assert refused == [
        "127.0.0.1/32: is never banned: 127.0.0.0/8, this host itself; --force bans it all the same",
        "198.51.100.7/32: is allowed (see: ringfence allow list)",
        "203.0.113.1/32: is never banned: the gateway; --force bans it all the same",
        "203.0.113.0/24: is never banned: 203.0.113.1, the gateway; --force bans it all the same",
    ]
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


def test_an_administrator_may_insist(world: World) -> None:
    """By force what is protected is banned, and stays so over a restart; who is allowed is not."""
    world.allow(OTHER)
    gateway = ip_network("203.0.113.1")
    refused = world.enforcer.ban([gateway, OTHER], 60.0, "", force=True)
    world.allow(OTHER, _203_0_113_1="the gateway")

    assert refused == ["192.0.2.2/32: is allowed (see: ringfence allow list)"]
    assert set(world.in_kernel()) == {"203.0.113.1/32"}
    world.restart(reboot=True)
    world.allow(_203_0_113_1="the gateway")
    assert set(world.in_kernel()) == {"203.0.113.1/32"}
    assert world.enforcer.is_forced(key_of(gateway))


def test_a_network_around_who_is_allowed_may_be_banned(world: World) -> None:
    """The kernel lets him pass before it looks at the bans, so a ban around him bans the others."""
    world.allow(ip_network("198.51.100.7"))

    assert world.enforcer.ban([ip_network("198.51.100.0/24")], 60.0, "") == []
    assert set(world.in_kernel()) == {"198.51.100.0/24"}


def test_to_be_allowed_is_to_be_let_in_at_once(world: World) -> None:
    """Who comes onto the allowlist is free at once, pending bans too; a ban around him stays."""
    for text in ("192.0.2.1", "2001:db8::/64", "203.0.113.0/24"):
        world.decide(ip_network(text))
    world.backend.refuses[OTHER] = SetFullError("the set is full")
    world.decide(OTHER)
    del world.backend.refuses[OTHER]
    world.allow(*(ip_network(text) for text in ("192.0.2.0/24", "2001:db8::7", "198.51.100.1")))

    left = {"203.0.113.0/24", "2001:db8::/64"}
    assert set(world.in_kernel()) == set(world.in_store()) == left
    assert world.enforcer.pending == 0
    world.wait(5)
    assert set(world.in_kernel()) == left


def test_who_comes_to_be_protected_is_let_in_with_all_around(world: World) -> None:
    """A new gateway, say, must not be dropped: every ban that touches it is lifted, in both scopes."""
    world.decide(ip_network("203.0.113.1"), scope=Scope.SIP_UDP)
    world.enforcer.ban([ip_network("203.0.113.0/24"), SUBJECT], 60.0, "")
    world.allow(_203_0_113_1="the gateway")

    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}


def test_a_friend_whom_the_kernel_does_not_let_go_is_tried_again(world: World) -> None:
    """Where lifting fails, it is said once and repeated until the friend is in."""
    world.decide()
    world.backend.gone = FirewallError("no answer")
    with said() as names:
        world.allow(SUBJECT)
        world.wait(5)
        world.wait(5)
    assert names == ["unban.failed"]
    assert world.enforcer.firewall_error == "no answer"

    world.backend.gone = None
    world.wait(5)
    assert (world.in_kernel(), world.in_store(), world.enforcer.firewall_error) == ({}, {}, "")


def test_a_friend_who_waits_is_not_forgotten_for_the_next(world: World) -> None:
    """While one could not be let go yet, another list and another adoption do not end the trying."""
    world.decide()
    world.decide(OTHER)
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    world.allow(SUBJECT)
    world.allow(SUBJECT, OTHER)
    world.enforcer.adopt({key_of(ip_network("192.0.2.3")): 60.0})
    del world.backend.refuses[SUBJECT]
    world.backend.put(ip_network("192.0.2.3"), START + 60)
    world.wait(1)

    assert set(world.in_kernel()) == {"192.0.2.3/32"}


def test_a_friend_is_not_put_back(world: World) -> None:
    """A ban of the store of who is allowed by now is lifted when the daemon starts."""
    world.decide()
    world.restart(reboot=True)
    world.allow(SUBJECT)

    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_the_rolls_are_written_as_they_are_then(world: World) -> None:
    """What is to be on a roll is asked for when it is written: at the start, and on every change."""
    wanted = {Roll.ALLOW: [OTHER], Roll.DENY: [SUBJECT], Roll.FRIENDS: []}
    world.enforcer.rolls = wanted.__getitem__
    world.enforcer.start()
    assert world.backend.rolls == {roll: frozenset(found) for roll, found in wanted.items()}

    wanted[Roll.ALLOW] = [SUBJECT]
    world.allow(SUBJECT)
    assert world.backend.rolls[Roll.ALLOW] == {SUBJECT}


def test_a_roll_that_cannot_be_written_stops_no_ban(world: World) -> None:
    """It is said once for each list, and shown whatever else goes well, until it can be written."""
    world.backend.unfillable = FirewallError("no memory")
    with said() as names:
        world.allow(OTHER)
        world.allow(OTHER)
    assert names == ["lists.failed", "lists.failed"]
    world.decide()
    assert set(world.in_kernel()) == {"192.0.2.1/32"}
    assert (world.enforcer.unfilled, world.enforcer.firewall_error) == (
        {Roll.ALLOW, Roll.FRIENDS},
        "no memory",
    )

    world.backend.unfillable = None
    world.enforcer.fill(*world.enforcer.unfilled)
    world.decide(OTHER)
    assert (world.enforcer.unfilled, world.enforcer.firewall_error) == (set(), "")


# -- a full set -------------------------------------------------------------------------------------------


def test_in_a_full_set_who_has_the_least_time_left_gives_way(world: World) -> None:
    """The one that would end first is let in, said and counted; each IP version and scope has its own set."""
    world.backend.plan = Plan(maxelem=2)
    for text, seconds in (("192.0.2.1", 60.0), ("192.0.2.2", 7_200.0), ("2001:db8::/64", 30.0)):
        world.enforcer.ban([ip_network(text)], seconds, "")
    with said() as names:
        world.decide(ip_network("192.0.2.3"))

    assert names == ["ban.lifted", "ban.placed"]
    assert set(world.in_kernel()) == {"192.0.2.2/32", "192.0.2.3/32", "2001:db8::/64"}
    assert world.in_kernel() == world.in_store()
    assert (world.enforcer.counts.gave_way, world.enforcer.pending) == (1, 0)
    assert not world.held()


def test_the_like_give_way_to_the_like(world: World) -> None:
    """A backend may have a set for each width: networks to networks, or to addresses if need be."""
    world.backend.plan = Plan(maxelem=2)
    world.enforcer.ban([ip_network("198.51.100.0/24")], 60.0, "")
    world.enforcer.ban([ip_network("192.0.2.1")], 120.0, "")
    world.enforcer.ban([ip_network("192.0.2.2")], 7_200.0, "")
    assert set(world.in_kernel()) == {"198.51.100.0/24", "192.0.2.2/32"}
    world.enforcer.ban([ip_network("203.0.113.0/24")], 7_200.0, "")
    assert set(world.in_kernel()) == {"203.0.113.0/24", "192.0.2.2/32"}
    world.enforcer.ban([ip_network("10.0.0.0/8")], 9_000.0, "")
    assert len(world.in_kernel()) == 2
    assert "10.0.0.0/8" in world.in_kernel()


def test_nobody_gives_way_to_a_shorter_ban(world: World) -> None:
    """Where all the others have more time left the new one waits, and comes in when there is room."""
    world.backend.plan = Plan(maxelem=1)
    world.enforcer.ban([OTHER], 2 * HOUR, "")
    world.decide()
    for _ in range(3):
        world.wait(5)

    assert (set(world.in_kernel()), world.enforcer.pending) == ({"192.0.2.2/32"}, 1)
    assert world.enforcer.counts.gave_way == 0
    unban(world.enforcer, [OTHER])
    world.wait(5)
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


def test_who_was_passed_over_gives_way_to_the_next(world: World) -> None:
    """That a short ban displaced nobody does not keep the same one from giving way to a longer ban."""
    world.backend.plan = Plan(maxelem=2)
    world.enforcer.ban([ip_network("198.51.100.1")], 2 * HOUR, "")
    world.enforcer.ban([ip_network("198.51.100.2")], 3 * HOUR, "")
    world.decide()
    world.enforcer.ban([OTHER], DAY, "")

    assert set(world.in_kernel()) == {"198.51.100.2/32", "192.0.2.2/32"}


def test_as_many_give_way_as_there_is_need(world: World) -> None:
    """One after the other, the shortest first, over more than are looked for at once."""
    world.backend.plan = Plan(maxelem=300)
    old = [ip_network((0xC6336400 + n, 32)) for n in range(300)]
    for number, network in enumerate(old):
        world.enforcer.ban([network], 60.0 + number, "")
    world.enforcer.ban([ip_network((0xCB007100 + n, 32)) for n in range(290)], HOUR, "")

    assert {network for network in old if world.backend._ends.get((network, Scope.FULL))} == set(old[290:])
    assert world.enforcer.counts.gave_way == 290


def test_who_was_to_be_let_in_is_not_adopted(world: World) -> None:
    """A daemon that ends between the record of an unban and the kernel's is followed by one that lets go."""
    world.decide()
    world.enforcer.records.end([(SUBJECT, Scope.FULL)], world.now)
    assert "192.0.2.1/32" in world.in_kernel()
    world.now += 1
    world.restart()

    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_the_record_ends_before_the_kernel_lets_go(world: World) -> None:
    """At no moment is a ban said to run that the kernel does not have; a refused lifting is taken back."""
    world.decide()
    seen: list[dict[str, int]] = []
    world.backend.before_batch = lambda: seen.append(world.in_store())
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    assert len(world.enforcer.lift([key_of(SUBJECT)])) == 1

    assert seen == [{}]
    assert set(world.in_store()) == {"192.0.2.1/32"}


def ahead_of(world: World, seconds: float) -> float:
    """Give what a clock shows that is so far ahead."""
    return world.now + seconds


def test_a_clock_that_is_set_makes_no_ban_shorter_or_longer(world: World) -> None:
    """Two hours forth and back: the ban keeps its rule and the kernel's time; a pending one its length."""
    world.decide()
    world.backend.refuses[OTHER] = FirewallError("no answer")
    world.decide(OTHER)
    key = key_of(SUBJECT)
    for ahead in (7_200.0, 0.0):
        world.enforcer.clock = Clock(partial(ahead_of, world, ahead), lambda: world.now - START)
        world.wait(1.0)
        record = world.enforcer.ledger.get(key)

        assert record is not None
        assert (record.rule, record.expires) == ("guess", START + HOUR + ahead)
        assert world.enforcer.ledger.alive(world.now + ahead) == 1
    world.backend.refuses.clear()
    world.wait(1.0)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 3, "192.0.2.2/32": HOUR - 3}
