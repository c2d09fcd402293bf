"""From decisions to bans: placed, pending and restored bans, and their records in the store."""

import asyncio
from ipaddress import ip_address, ip_network

import pytest
from structlog.testing import capture_logs
from tests.support.attempts import attempts
from tests.support.full_disk import FullDisk
from tests.support.recorded import recorded_bans
from tests.support.world import OTHER, RULE, START, SUBJECT, World, said

from ringfence.ban_facts import Forgotten, Restored
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.unban import unban, unban_all
from ringfence.detect.detector import Detector
from ringfence.detect.judgement import Decision
from ringfence.detect.rules import DAY, HOUR, RETURN_WITHIN, RULES
from ringfence.errors import ControlError, FirewallError, ProbeError, SetFullError, StoreError
from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.fleet.network_list import LIST as DECIDED
from ringfence.features.limiter.stage import Limit
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Add
from ringfence.firewall.limits import LimitMode
from ringfence.ledger import key_of
from ringfence.values.ban import Ban, BanEnd, Origin, Scope
from ringfence.values.friend import Friend, FriendReason

FLOOD = next(rule for rule in RULES if rule.name == "flood")


# -- a ban ------------------------------------------------------------------------------------------------


def test_a_decision_becomes_a_ban(world: World) -> None:
    """A decision bans its subject: in the kernel, then in the store with its attempts; one line is logged."""
    with capture_logs() as logs:
        world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": 3_600}
    assert recorded_bans(world.store, START) == [
        Ban(
            SUBJECT,
            since=START,
            expires=START + HOUR,
            rule="guess",
            reason=RULE.meaning,
            origin=Origin.RULE,
            attempts=attempts(5),
        )
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
    assert (world.enforcer.book.counts.placed, world.enforcer.book.counts.failed) == (1, 0)


def test_a_hostile_account_is_made_printable_in_the_log(world: World) -> None:
    """An account name from a sender cannot write line feeds or colours into the log."""
    with capture_logs() as logs:
        made = attempts(5, account="a\n\x1b[31m")
        world.enforcer.carry_out(Decision(SUBJECT, RULE, made, world.clock.mono()))

    assert logs[0]["accounts"] == ["a\\n\\x1b[31m"]


def test_a_repeat_ban_is_longer(world: World) -> None:
    """Each repeat within thirty days gets the next length, up to the last; later the count restarts."""
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
    """A ban is placed at once without a look-up in the store, and is made longer afterwards."""
    world.decide()
    world.wait(HOUR + 1)
    world.backend.batches.clear()
    world.decide()

    assert world.backend.batches == [[Add(SUBJECT, 3_600)], [Add(SUBJECT, 6 * 3_600)]]


# -- a ban that fails -------------------------------------------------------------------------------------


def test_floods_do_not_lengthen_later_bans(world: World) -> None:
    """A flood's address can be forged, so wrong passwords after floods lead to a first ban."""
    for _ in range(4):
        world.decide(rule=FLOOD, scope=Scope.SIP_UDP, seconds=600.0)
        world.wait(700.0)
    world.decide()

    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


# -- a store that fails -----------------------------------------------------------------------------------


def broken(world: World, monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    """Make methods of the store fail."""
    return FullDisk(monkeypatch, world.store.bans, "record", "end", "count_offences", "purge")


def test_a_broken_store_stops_no_ban(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the store fails, bans are placed in the kernel; the error is shown, and logged once."""
    disk = broken(world, monkeypatch)
    with said() as names:
        world.decide()
        world.decide(OTHER)

    assert set(world.in_kernel()) == {"192.0.2.1/32", "192.0.2.2/32"}
    assert names == ["store.failed", "ban.placed", "ban.placed"]
    assert world.store.best_effort.error == "disk full"

    disk.is_full = False
    world.decide(ip_network("192.0.2.3"))
    assert world.store.best_effort.error == ""


def test_a_broken_store_does_not_keep_the_firewall_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If `off` cannot be recorded, the bans are removed, and it holds until it is recorded."""
    world.decide()
    monkeypatch.setattr(world.store.state, "set_switched_off", _raise_store_error)
    world.enforcer.switch_off()
    assert (world.in_kernel(), world.enforcer.enforcing, world.records.switched_off) == ({}, False, True)
    assert world.store.best_effort.lacks == "disk full"

    monkeypatch.undo()
    world.store.best_effort.retry()
    assert (world.store.best_effort.lacks, world.store.state.switched_off()) == ("", True)


def _raise_store_error(_value: object) -> None:
    raise StoreError("disk full")


def test_what_the_store_lost_is_adopted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ban that was placed but not recorded is found in the kernel at the next start, and adopted."""
    broken(world, monkeypatch)
    world.decide()
    monkeypatch.undo()
    world.now += 600
    world.restart()

    left = round(HOUR) - 600
    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": left}
    world.restart()
    assert [ban.network for fact in world.facts if isinstance(fact, Restored) for ban in fact.bans] == [
        SUBJECT
    ]
    [ban] = recorded_bans(world.store, world.now)
    assert (ban.origin, ban.rule, ban.attempts) == (Origin.ADOPTED, "adopted", ())
    assert ban.reason == "found in the kernel"
    assert world.held()


def test_an_unreadable_row_does_not_stop_the_start(world: World) -> None:
    """An unreadable row is logged; the ban that the kernel still has is kept, and new bans are placed."""
    world.decide()
    world.decide(OTHER)
    world.store.connection._writer.execute(
        "UPDATE bans SET network = 'broken' WHERE network = '192.0.2.1/32'"
    )
    with said() as names:
        world.restart()

    assert (names[0], names.count("store.failed")) == ("store.failed", 1)
    assert set(world.in_kernel()) == {"192.0.2.1/32", "192.0.2.2/32"}
    assert (world.held(), world.held(OTHER)) == (True, True)
    world.decide(ip_network("192.0.2.3"))
    assert "192.0.2.3/32" in world.in_kernel()


# -- start ------------------------------------------------------------------------------------------------


def test_a_firewall_that_does_not_open_raises(world: World) -> None:
    """If the firewall does not open, the start raises its error, and enforcement is off."""
    world.store.close()
    world.backend.gone = ProbeError("it got through")
    with pytest.raises(ProbeError, match="it got through"):
        world.start()

    assert world.enforcer.enforcing is False


def test_a_start_without_a_test_packet_sends_none(world: World) -> None:
    """Without verification the start sends no test packet, and the bans are in place."""
    world.decide()
    world.enforcer.verification = None
    world.enforcer.start(verified=False)

    assert world.enforcer.verification is None
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


# -- off and on -------------------------------------------------------------------------------------------


def test_off_takes_everything_and_stays(world: World) -> None:
    """After `off` the kernel is empty, decisions are only logged, restarts change nothing, commands fail."""
    world.decide()
    with capture_logs() as logs:
        world.enforcer.switch_off()
    assert [(one["event"], one.get("fix")) for one in logs][-1] == ("enforcement.off", "ringfence on")
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
        lambda: asyncio.run(unban(world.enforcer, [OTHER])),
        lambda: asyncio.run(unban_all(world.enforcer)),
    ):
        with pytest.raises(ControlError, match="switched off; switch it on with: ringfence on"):
            refused()


def test_off_forgets_the_error_of_a_ban(world: World) -> None:
    """After `off` no ban is tried again, so the firewall has no error any more."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.decide()
    assert "the set is full" in world.enforcer.firewall_error
    world.enforcer.switch_off()
    assert world.enforcer.firewall_error == ""


def test_on_brings_back_what_has_time_left(world: World) -> None:
    """`on` restores bans that have time left; a subject that was only logged is counted from zero."""
    world.decide()
    world.enforcer.switch_off()
    world.decide(OTHER)
    world.now += 600
    world.enforcer.switch_on()

    assert Forgotten(OTHER, Scope.FULL) in world.facts
    assert world.in_kernel() == {"192.0.2.1/32": round(HOUR) - 600}
    assert world.held()
    assert not world.held(OTHER)
    world.enforcer.switch_on()  # may be repeated
    assert world.store.state.switched_off() is False


def test_on_restores_what_the_disk_records_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`on` restores at once what the store has, the rest later, and never a ban that was removed."""
    known = ip_network("192.0.2.3")
    world.enforcer.ban([known, OTHER], 3_600.0, "")
    disk = broken(world, monkeypatch)
    world.decide()
    asyncio.run(unban(world.enforcer, [OTHER]))
    world.enforcer.switch_off()
    world.enforcer.switch_on(recorded=world.enforcer.records.catch_up())
    assert (world.in_kernel(), world.enforcer.knows_bans) == ({str(known): 3_600}, False)
    assert not world.enforcer.retry_restore()

    disk.is_full = False
    world.store.best_effort.retry()
    assert world.enforcer.retry_restore()
    assert set(world.in_kernel()) == set(world.in_store()) == {str(known), str(SUBJECT)}


def test_off_is_remembered_even_if_the_kernel_keeps_the_rules(world: World) -> None:
    """If the firewall cannot be removed completely, `off` raises the error and stays off."""
    world.decide()
    world.backend.gone = FirewallError("a set is in use")
    with pytest.raises(FirewallError, match="a set is in use"):
        world.enforcer.switch_off()

    assert (world.store.state.switched_off(), world.enforcer.enforcing) == (True, False)


def test_the_store_records_what_is_in_force(world: World) -> None:
    """What the store lacks is recorded, what is not in force ends there, and a refused ban stays recorded."""
    world.decide()
    pending = ip_network("192.0.2.3")
    world.decide(pending)
    world.backend.lose(pending)
    world.backend.refuses[pending] = FirewallError("no memory")
    asyncio.run(world.reconciler.compare())
    assert len(world.enforcer.ledger.pending) == 1
    now = world.clock.wall()
    world.store.bans.end([(SUBJECT, Scope.FULL)], now, BanEnd.REMOVED)
    world.store.bans.record([Ban(OTHER, since=now, expires=now + 60.0, rule="guess")])

    world.enforcer.record_all()
    assert set(world.in_store()) == {str(SUBJECT), str(pending)}


def test_a_command_without_a_daemon_attaches(world: World) -> None:
    """It writes no rule, list or ban, and knows the store's bans that have time left, with their scopes."""
    world.decide(scope=Scope.SIP_UDP)
    world.enforcer.ban([OTHER], 60.0, "")
    world.now += 120
    command = Enforcer(world.backend, world.records, Detector(RULES), world.clock, world)
    world.backend.batches.clear()
    command.attach()

    assert command.opened is None
    assert command.enforcing
    assert [*command.ledger.keys()] == [key_of(SUBJECT, Scope.SIP_UDP)]
    assert world.backend.batches == []
    assert not any(world.backend.lists.values())


def test_only_damaged_sets_get_their_lists_again(world: World) -> None:
    """Rules that are written again leave the lists alone, unless the sets were damaged."""
    world.wanted = {network_lists.ALLOW: [OTHER]}
    world.enforcer.reopen()
    assert world.backend.lists[network_lists.ALLOW] == set()
    world.enforcer.reopen(damaged=True)
    assert world.backend.lists[network_lists.ALLOW] == {OTHER}


def test_the_plan_that_the_kernel_has_is_known(world: World) -> None:
    """If the kernel refuses new rules, the earlier ones are in force: no mode is reported that is not."""
    before = world.enforcer.plan
    world.backend.plan = before.adding(Limit(LimitMode.ENFORCE))
    world.backend.gone = FirewallError("no")
    with pytest.raises(FirewallError, match="no"):
        world.enforcer.reopen()
    assert world.enforcer.plan == before
    world.backend.gone = None
    world.enforcer.reopen()
    assert world.enforcer.plan.mode(Limit.name) is LimitMode.ENFORCE


# -- by hand ----------------------------------------------------------------------------------------------


def test_a_ban_by_hand(world: World) -> None:
    """An administrator's ban is placed and recorded as such, and is no offence of the address."""
    assert world.enforcer.ban([SUBJECT, ip_network("2001:db8::/32")], 90.0, "a reason") == []

    assert world.in_kernel() == {"192.0.2.1/32": 90, "2001:db8::/32": 90}
    assert recorded_bans(world.store, START)[0] == Ban(
        SUBJECT, since=START, expires=START + 90.0, rule="admin", reason="a reason", origin=Origin.ADMIN
    )
    assert world.store.bans.count_offences(SUBJECT, 0.0) == 0


def test_a_failed_manual_ban_is_reported_and_retried(world: World) -> None:
    """If the kernel refuses a manual ban, the command returns the error, and the ban is retried."""
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")

    assert world.enforcer.ban([SUBJECT, OTHER], 60.0, "") == ["192.0.2.1: the set is full"]
    world.backend.refuses.clear()
    world.wait(5)
    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.2/32"}


# -- never banned -----------------------------------------------------------------------------------------


def test_a_manual_ban_of_an_exempt_address_is_refused(world: World) -> None:
    """A manual ban of an allowed address, or of or around a protected one, is refused with its reason."""
    world.allow(ip_network("198.51.100.0/24"), _203_0_113_1="the gateway")
    texts = ["127.0.0.1", "198.51.100.7", "203.0.113.1", "203.0.113.0/24", "192.0.2.1"]
    refused = world.enforcer.ban([ip_network(text) for text in texts], 60.0, "")

    assert refused == [
        "127.0.0.1: is never banned: 127.0.0.0/8, this host itself; --force bans it anyway",
        "198.51.100.7: is allowed (see: ringfence allow list)",
        "203.0.113.1: is never banned: the gateway; --force bans it anyway",
        "203.0.113.0/24: is never banned: 203.0.113.1, the gateway; --force bans it anyway",
    ]
    assert set(world.in_kernel()) == {"192.0.2.1/32"}


def test_an_administrator_may_insist(world: World) -> None:
    """With force a protected address is banned, also after a restart; an allowed address is not."""
    world.allow(OTHER)
    gateway = ip_network("203.0.113.1")
    refused = world.enforcer.ban([gateway, OTHER], 60.0, "", force=True)
    world.allow(OTHER, _203_0_113_1="the gateway")

    assert refused == ["192.0.2.2: is allowed (see: ringfence allow list)"]
    assert set(world.in_kernel()) == {"203.0.113.1/32"}
    world.restart(reboot=True)
    world.allow(_203_0_113_1="the gateway")
    assert set(world.in_kernel()) == {"203.0.113.1/32"}
    assert world.enforcer.ledger.is_forced(key_of(gateway))


def test_a_network_around_an_allowed_address_may_be_banned(world: World) -> None:
    """A network around an allowed address can be banned: the kernel checks the allow list before the bans."""
    world.allow(ip_network("198.51.100.7"))

    assert world.enforcer.ban([ip_network("198.51.100.0/24")], 60.0, "") == []
    assert set(world.in_kernel()) == {"198.51.100.0/24"}


def test_an_allowed_address_is_unbanned_at_once(world: World) -> None:
    """A newly allowed address loses its bans at once, also pending ones; bans of wider networks stay."""
    for text in ("192.0.2.1", "2001:db8::/64", "203.0.113.0/24"):
        world.decide(ip_network(text))
    world.backend.refuses[OTHER] = SetFullError("the set is full")
    world.decide(OTHER)
    del world.backend.refuses[OTHER]
    world.allow(*(ip_network(text) for text in ("192.0.2.0/24", "2001:db8::7", "198.51.100.1")))

    left = {"203.0.113.0/24", "2001:db8::/64"}
    assert set(world.in_kernel()) == set(world.in_store()) == left
    assert len(world.enforcer.ledger.pending) == 0
    world.wait(5)
    assert set(world.in_kernel()) == left


def test_a_new_protected_address_ends_every_ban_that_touches_it(world: World) -> None:
    """A new protected address, such as a gateway, ends every ban that touches it, in both scopes."""
    world.decide(ip_network("203.0.113.1"), scope=Scope.SIP_UDP)
    world.enforcer.ban([ip_network("203.0.113.0/24"), SUBJECT], 60.0, "")
    world.allow(_203_0_113_1="the gateway")

    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}


def test_a_failed_unban_of_an_allowed_address_is_retried(world: World) -> None:
    """An unban of an allowed address that fails is logged once and repeated until it succeeds."""
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


@pytest.mark.parametrize("refused", [False, True])
def test_a_failed_unban_does_not_end_a_later_ban(world: World, refused: bool) -> None:  # noqa: FBT001 - a column
    """A removal that the kernel refused is not tried again when the address is banned by force meanwhile."""
    world.decide()
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    world.allow(_192_0_2_1="the gateway")
    if not refused:
        world.backend.refuses.clear()
    world.enforcer.ban([SUBJECT], 2 * HOUR, "by hand", force=True)
    world.backend.refuses.clear()
    world.wait(5)

    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": 2 * HOUR - 5}


def test_a_friend_is_not_put_back(world: World) -> None:
    """A stored ban of an address that is allowed by now is ended when the daemon starts."""
    world.decide()
    world.restart(reboot=True)
    world.allow(SUBJECT)

    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_the_rolls_are_written_as_they_are_then(world: World) -> None:
    """The lists' contents are read at the time of writing: at the start, and on every change."""
    wanted = {
        network_lists.ALLOW: [OTHER],
        network_lists.FRIENDS: [],
        network_lists.UNSHIELDED: [],
        network_lists.OBSERVED: [],
        network_lists.ADMITTED: [],
        INSIDE: [],
        network_lists.DENY: [SUBJECT],
        network_lists.EXTERNAL: [],
        DECIDED: [],
    }
    world.wanted = wanted
    world.enforcer.start()
    assert world.backend.lists == {target: frozenset(found) for target, found in wanted.items()}

    wanted[network_lists.ALLOW] = [SUBJECT]
    world.allow(SUBJECT)
    assert world.backend.lists[network_lists.ALLOW] == {SUBJECT}


def test_a_roll_that_cannot_be_written_stops_no_ban(world: World) -> None:
    """A list that cannot be written is logged once for each list, and the error stays until it is written."""
    world.backend.unfillable = FirewallError("no memory")
    with said() as names:
        world.allow(OTHER)
        world.allow(OTHER)
    assert names == ["lists.failed", "lists.failed"]
    world.decide()
    assert set(world.in_kernel()) == {"192.0.2.1/32"}
    assert (world.enforcer.filler.unfilled, world.enforcer.firewall_error) == (
        {network_lists.ALLOW, network_lists.FRIENDS},
        "no memory",
    )

    world.backend.unfillable = None
    world.enforcer.filler.fill(*world.enforcer.filler.unfilled)
    world.decide(OTHER)
    assert (world.enforcer.filler.unfilled, world.enforcer.firewall_error) == (set(), "")


# -- a full set -------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_makes_no_ban_shorter_or_longer(world: World) -> None:
    """If the clock is set, a ban keeps its rule and the kernel's time, and a pending ban keeps its length."""
    world.decide()
    world.backend.refuses[OTHER] = FirewallError("no answer")
    world.decide(OTHER)
    key = key_of(SUBJECT)
    for ahead in (7_200.0, 0.0):
        world.ahead = ahead
        world.wait(1.0)
        record = world.enforcer.ledger.get(key)

        assert record is not None
        assert (record.rule, record.expires) == ("guess", START + HOUR + ahead)
        assert world.enforcer.ledger.alive(world.now + ahead) == 1
    world.backend.refuses.clear()
    world.wait(1.0)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 3, "192.0.2.2/32": HOUR - 3}


def test_a_ban_runs_from_the_last_attempt(world: World) -> None:
    """A ban counts from its last attempt: old log lines give a shorter ban or none, in the store too."""
    for age, left in ((3_600.0, None), (400 * DAY, None), (1_200.0, 2_400)):
        world.enforcer.carry_out(Decision(SUBJECT, RULE, attempts(5), world.clock.mono() - age))
        assert world.in_kernel() == ({} if left is None else {"192.0.2.1/32": left})
        assert world.in_store() == world.in_kernel()
        assert world.held() is (left is not None)


def test_old_evidence_of_a_repeat_offender_leads_to_a_ban(world: World) -> None:
    """Old evidence of a repeat offender leads to a ban if the next length has time left."""
    world.decide()
    world.wait(HOUR)
    world.enforcer.carry_out(Decision(SUBJECT, RULE, attempts(5), world.clock.mono() - HOUR))
    assert world.in_kernel() == {"192.0.2.1/32": 5 * 3_600}


def test_a_friend_in_a_banned_64_is_not_late(world: World) -> None:
    """The kernel passes a friend in a banned /64, so its packets do not count as late."""
    friend, stranger = ip_address("2001:db8::7"), ip_address("2001:db8::8")
    world.enforcer.ban([ip_network("2001:db8::/64")], HOUR, "")
    world.detector.friends.add(Friend("pbx", friend, "204", FriendReason.AUTHENTICATED, 0.0, 0.0, 1e12))

    assert not world.detector.is_banned(friend, Scope.FULL, world.clock.mono())
    assert world.detector.is_banned(stranger, Scope.FULL, world.clock.mono())
    world.enforcer.ban([ip_network(friend)], HOUR, "")
    assert world.detector.is_banned(friend, Scope.FULL, world.clock.mono())


def test_the_time_until_a_ban_is_measured(world: World) -> None:
    """The time from the report of the last attempt to the kernel's acknowledgement is in a histogram."""
    world.enforcer.carry_out(Decision(SUBJECT, RULE, attempts(5), world.clock.mono() - 0.2))

    assert world.enforcer.delays.cumulative()[-1] == 1
    assert world.enforcer.delays.sum == pytest.approx(0.2)
