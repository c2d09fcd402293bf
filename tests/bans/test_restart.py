"""The start: what is restored, adopted and removed, and which bans were unbanned before."""

import asyncio
from ipaddress import ip_network
from typing import NoReturn

import pytest
from structlog.testing import capture_logs
from tests.support.full_disk import FullDisk
from tests.support.recorded import recorded_bans
from tests.support.world import OTHER, RULE, START, SUBJECT, World

from ringfence.ban_facts import Restored
from ringfence.bans.restore import unbanned_keys
from ringfence.detect.rules import DAY, HOUR
from ringfence.errors import FirewallError, SetFullError, StoreDamagedError, StoreError
from ringfence.firewall.contract import MAX_TIMEOUT
from ringfence.ledger import key_of
from ringfence.store.bans import BanTable
from ringfence.values.ban import Origin, Scope

NETWORK = ip_network("192.0.2.1")


@pytest.mark.parametrize(
    ("left", "expires", "same"),
    [
        (600.0, 1_600.0, True),
        (600.0, 1_599.2, True),  # ipset rounds up
        (600.0, 1_600.9, True),
        (600.0, 1_602.5, False),  # a shorter ban than the one that was unbanned
        (600.0, 1_597.5, False),  # a later ban
        (1_000_000.0, 1_000.0 + 30 * DAY, True),  # not renewed yet
        (1_000_000.0, 1_000.0 + MAX_TIMEOUT / 2, False),  # renewed already, if it were the same ban
        (31 * DAY, 1_000.0 + 30 * DAY, False),
    ],
)
def test_an_element_with_the_same_end_was_unbanned(left: float, expires: float, same: bool) -> None:  # noqa: FBT001 - a column
    """An element belongs to the unbanned ban if both have the same end, within a second or two."""
    ended = [(NETWORK, Scope.FULL, expires), (NETWORK, Scope.SIP_UDP, 1_600.0)]
    assert unbanned_keys({key_of(NETWORK): left}, ended, 1_000.0, 1_000.0) == (
        {key_of(NETWORK)} if same else set()
    )


def test_a_ban_that_the_kernel_lacks_hides_no_other() -> None:
    """The kernel may have lost one unbanned ban; it still has another one."""
    ended = [(OTHER, Scope.FULL, 1_600.0), (NETWORK, Scope.FULL, 1_600.0)]
    assert unbanned_keys({key_of(NETWORK): 600.0}, ended, 1_000.0, 1_000.0) == {key_of(NETWORK)}


@pytest.mark.parametrize(("length", "left"), [(MAX_TIMEOUT, MAX_TIMEOUT - 600), (30 * DAY, 30 * DAY)])
def test_with_a_wrong_clock_the_kernel_knows_how_much_is_left(
    world: World, length: float, left: float
) -> None:
    """If a boot set the clock back by years, the kernel's timeout counts, unless it is only a part."""
    world.enforcer.ban([SUBJECT], length, "")
    world.store.connection._writer.execute("DELETE FROM facts")
    world.now += 600
    world.ahead = -1e8
    world.restart()

    [record] = [record for _, record in world.enforcer.ledger.items()]
    assert record.expires - world.clock.wall() == left


def test_the_time_that_a_listing_takes_counts() -> None:
    """Elements at the end of a long listing have less time left than at its beginning."""
    ended = [(NETWORK, Scope.FULL, 1_600.0)]
    assert unbanned_keys({key_of(NETWORK): 595.0}, ended, 1_000.0, 1_005.0) == {key_of(NETWORK)}


def test_a_refused_ban_that_was_restored_is_no_second_offence(world: World) -> None:
    """A stored ban that returns late to the kernel counts once for the length of the next ban."""
    world.decide()
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    world.restart(reboot=True)
    assert len(world.enforcer.ledger.pending) == 1
    world.backend.refuses.clear()
    world.wait(5)

    assert set(world.in_kernel()) == {"192.0.2.1/32"}
    assert world.store.bans.count_offences(SUBJECT, 0.0) == 1


def test_a_boot_years_ago_makes_no_ban_longer(world: World) -> None:
    """If a host without a clock battery boots with a wrong time, no ban lasts longer than its length."""
    world.decide()
    world.enforcer.ban([OTHER], 2 * HOUR, "")
    world.now -= 50 * 365 * DAY
    world.restart(reboot=True)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR, "192.0.2.2/32": 2 * HOUR}


def test_a_restart_under_a_wrong_clock_makes_no_ban_longer(world: World) -> None:
    """If a ban is recorded as of the future and the kernel still has it, the kernel decides its end."""
    world.decide()
    world.now -= 50 * 365 * DAY
    world.restart(reboot=True)
    for _ in range(2):
        world.wait(600.0)
        world.restart()

    record = world.enforcer.ledger.get(key_of(SUBJECT))
    assert record is not None
    assert record.expires - world.now == HOUR - 1_200
    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 1_200}


def test_a_restart_keeps_what_is_there(world: World) -> None:
    """If kernel and store agree, nothing is sent or recorded, and the ban keeps its attempts."""
    world.decide()
    world.now += 10
    world.backend.batches.clear()
    with capture_logs() as logs:
        world.restart()

    assert world.backend.batches == []
    assert logs == [{"event": "bans.restored", "log_level": "info", "kept": 1, "put_back": 0, "adopted": 0}]
    record = world.enforcer.ledger.get(key_of(SUBJECT))
    assert record is not None
    assert (record.counts.attempts, record.since, record.reason) == (5, START, RULE.meaning)
    assert world.held()


def test_a_reboot_puts_everything_back_in_one_batch(world: World) -> None:
    """Bans with time left are restored in one batch for their remaining time; expired bans are not."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"))
    world.enforcer.ban([OTHER], 60.0, "")
    world.now += 600
    world.backend.batches.clear()
    world.restart(reboot=True)

    left = round(HOUR) - 600
    assert len(world.backend.batches) == 1
    assert world.in_kernel() == {"192.0.2.1/32": left, "2001:db8::/64": left}
    assert world.store.bans.count_offences(SUBJECT, 0.0) == 1


def test_a_reboot_looks_up_no_ban(world: World) -> None:
    """After a reboot no missing ban is looked up in the kernel, because a look-up each takes seconds."""
    for number in range(3):
        world.decide(ip_network(f"198.51.100.{number}"))
    world.restart(reboot=True)

    assert world.backend.looked_up == []
    assert len(world.in_kernel()) == 3


def test_a_ban_that_the_first_listing_omits_keeps_its_time(world: World) -> None:
    """A ban that the listing omits, because another program changes the sets, stays with its end."""
    world.decide()
    world.now += 600
    world.backend.omitted = {SUBJECT}
    world.restart()
    world.backend.omitted = set()

    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": HOUR - 600}
    assert world.held()


def test_an_element_without_an_end_is_given_one(world: World) -> None:
    """An element without a timeout is adopted for a day, because every ban ends."""
    world.backend.put(SUBJECT, float("inf"))
    world.restart()

    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": round(DAY)}
    assert recorded_bans(world.store, world.now)[0].origin is Origin.ADOPTED
    world.wait(DAY)
    assert (world.in_kernel(), world.held()) == ({}, False)


def test_exempt_elements_are_removed_at_the_start(world: World) -> None:
    """At the start, kernel elements that must not be banned are removed, and the others are adopted."""
    world.allow(OTHER, _203_0_113_1="the gateway")
    exempt = world.enforcer.book.exempt
    for text in ("192.0.2.2", "203.0.113.0/24", "192.0.2.1"):
        world.backend.put(ip_network(text), START + 60)
    world.enforcer.book.exempt = exempt
    world.enforcer.start()

    assert set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32"}


@pytest.mark.parametrize("read", ["running", "removed_early"])
def test_a_start_that_cannot_read_a_ban_restores_it_later(
    world: World, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """Meanwhile the kernel keeps its bans, none is adopted, new ones are placed, and no row changes."""
    new, unbanned = ip_network("192.0.2.3"), ip_network("192.0.2.4")
    for subject in (unbanned, SUBJECT, OTHER):
        world.decide(subject)
    world.records.end([(unbanned, Scope.FULL)], world.now)
    rows = recorded_bans(world.store, world.now)
    world.backend.lose(OTHER)
    disk = FullDisk(monkeypatch, BanTable, read)
    world.restart()
    assert (world.enforcer.enforcing, world.enforcer.unread) == (True, "disk full")
    asyncio.run(world.reconciler.compare())
    world.decide(new)
    assert {str(SUBJECT), str(new)} <= set(world.in_kernel())
    assert world.reconciler.counts.adopted == 0
    world.enforcer.retry_restore()
    assert world.enforcer.unread == "disk full"

    disk.is_full = False
    world.enforcer.retry_restore()
    assert world.enforcer.unread == ""
    assert recorded_bans(world.store, world.now)[:2] == rows
    assert set(world.in_kernel()) == {str(one) for one in (SUBJECT, OTHER, new)}
    ledger = world.enforcer.ledger
    assert [(one.rule, one.counts.attempts) for _, one in ledger.items()] == [("guess", 5)] * 3


@pytest.mark.parametrize("read", ["running", "removed_early", "clock"])
@pytest.mark.parametrize("switched_off", [False, True])
def test_damage_that_a_start_finds_is_reported(
    world: World, monkeypatch: pytest.MonkeyPatch, read: str, *, switched_off: bool
) -> None:
    """A read that decides about bans fails no more silently than any other, also while switched off."""
    if switched_off:
        world.enforcer.switch_off()

    def damaged(*_: object) -> NoReturn:
        raise StoreDamagedError("the database is damaged")

    world.backend.put(OTHER, START + 60)
    monkeypatch.setattr(BanTable, read, damaged)
    world.restart()

    reads = not switched_off or read == "clock"
    assert world.store.best_effort.damage == ("the database is damaged" if reads else "")


def test_a_start_that_cannot_read_the_clock_moves_the_bans_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the clock was set while the daemon was down, the bans move once its record can be read."""
    world.decide()
    world.now += 60.0
    world.ahead = -7_200.0
    disk = FullDisk(monkeypatch, BanTable, "clock")
    world.restart()
    disk.is_full = False
    world.enforcer.retry_restore()

    assert left(world) == HOUR - 60


def test_a_start_that_cannot_read_the_clock_shortens_no_later_ban(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the clock was set back while the daemon was down, only the bans of before move, and none twice."""
    world.decide(OTHER)
    world.ahead = -7_200.0
    disk = FullDisk(monkeypatch, BanTable, "clock")
    world.restart()
    world.decide()
    disk.is_full = False
    world.enforcer.retry_restore()
    world.restart(reboot=True)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR, "192.0.2.2/32": HOUR}


def test_a_ban_that_ended_before_a_start_could_read_it_stays_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bans are read again only when the ends of those that were unbanned meanwhile are recorded."""
    world.decide()
    world.decide(OTHER)
    reading = FullDisk(monkeypatch, BanTable, "running")
    world.restart()
    writing = FullDisk(monkeypatch, BanTable, "end")
    world.unban(SUBJECT)
    reading.is_full = False
    world.enforcer.retry_restore()
    assert set(world.in_kernel()) == {str(OTHER)}

    writing.is_full = False
    world.store.best_effort.retry()
    world.enforcer.retry_restore()
    assert set(world.in_kernel()) == set(world.in_store()) == {str(OTHER)}


def test_on_that_cannot_read_a_ban_ends_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """If `on` cannot read the recorded bans, they stay recorded, and are restored later."""
    world.decide()
    rows = recorded_bans(world.store, world.now)
    world.enforcer.switch_off()
    disk = FullDisk(monkeypatch, BanTable, "running")
    world.enforcer.switch_on()
    disk.is_full = False
    assert recorded_bans(world.store, world.now) == rows

    world.enforcer.retry_restore()
    assert world.in_kernel() == {"192.0.2.1/32": HOUR}


def test_the_start_logs_the_numbers_of_bans(world: World) -> None:
    """The start logs the numbers of kept, restored and adopted bans."""
    world.decide()
    world.decide(OTHER)
    world.backend.lose(OTHER)
    world.backend.put(ip_network("192.0.2.3"), START + 60)
    with capture_logs() as logs:
        world.restart()

    assert [entry for entry in logs if entry["event"] == "bans.restored"] == [
        {"event": "bans.restored", "log_level": "info", "kept": 1, "put_back": 1, "adopted": 1}
    ]


def test_a_recorded_unban_is_completed_by_the_next_daemon(world: World) -> None:
    """If a daemon ends after it recorded an unban, the next daemon completes it in the kernel."""
    world.decide()
    world.enforcer.records.end([(SUBJECT, Scope.FULL)], world.now)
    assert "192.0.2.1/32" in world.in_kernel()
    world.now += 1
    world.restart()

    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_a_recorded_unban_that_the_kernel_refuses_is_tried_again(world: World) -> None:
    """If the kernel refuses to complete a recorded unban at the start, it is reported, and tried again."""
    world.decide()
    world.enforcer.records.end([(SUBJECT, Scope.FULL)], world.now)
    world.now += 1
    world.backend.refuses[SUBJECT] = FirewallError("no answer")
    with capture_logs() as logs:
        world.restart()
    assert [entry["event"] for entry in logs] == ["unban.failed", "bans.restored"]
    world.backend.refuses.clear()
    world.wait(1)
    asyncio.run(world.reconciler.compare())

    assert (world.in_kernel(), world.in_store()) == ({}, {})
    assert world.reconciler.counts.adopted == 0


def test_a_ban_after_an_unban_outlasts_a_restart_without_its_record(world: World) -> None:
    """A ban after an unban survives a restart without its record, because its end differs."""
    for again in (HOUR, HOUR / 2, 2 * HOUR):
        world.decide()
        world.now += 10
        world.unban(SUBJECT)
        world.backend.put(SUBJECT, world.now + again)
        world.restart()

        assert world.in_kernel() == {"192.0.2.1/32": again}
        world.unban(SUBJECT)


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("ahead", [86_400.0, -86_400.0])
def test_a_clock_that_is_set_and_a_restart_keep_rule_and_attempts(
    world: World,
    ahead: float,
    running: bool,  # noqa: FBT001 - two cases
) -> None:
    """If the clock is set while the daemon is up or down, the ban keeps its rule, attempts and time."""
    world.decide()
    world.ahead = ahead
    if running:
        world.wait(1.0)
    else:
        world.now += 1.0
    world.restart()
    record = world.enforcer.ledger.get(key_of(SUBJECT))

    assert record is not None
    assert (record.rule, record.counts.attempts, record.expires) == ("guess", 5, START + HOUR + ahead)
    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 1}
    [ban] = recorded_bans(world.store, world.clock.wall())
    assert (ban.rule, len(ban.attempts)) == ("guess", 5)


def left(world: World) -> float:
    """Return the seconds that the ledger's ban of SUBJECT has left."""
    record = world.enforcer.ledger.get(key_of(SUBJECT))
    assert record is not None
    return record.expires - world.clock.wall()


def test_small_steps_of_the_clock_do_not_add_up(world: World) -> None:
    """If steps that are too small to count changed a ban's recorded end, its end in the kernel counts."""
    world.ahead = 4.0
    world.wait(0.0)
    world.enforcer.ban([SUBJECT], HOUR, "")
    for ahead in (304.0, 300.0):
        world.now += 60.0
        world.ahead = ahead
        world.restart()

    assert left(world) == HOUR - 120


def test_a_step_that_the_disk_cannot_record_shortens_no_ban(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the clock was set and the disk is full at the start, the bans end as the kernel has them."""

    def full(*_: object) -> None:
        raise StoreError("disk full") from OSError()

    world.enforcer.ban([SUBJECT], HOUR, "")
    world.ahead = 60.0
    monkeypatch.setattr(BanTable, "record_clock", full)
    world.restart()

    assert left(world) == HOUR


def test_a_restart_before_a_timeout_is_renewed_keeps_the_end_of_a_long_ban(world: World) -> None:
    """The kernel's timeout of a ban of 30 days is shorter at first, and is no sign of a set clock."""
    world.enforcer.ban([SUBJECT], 30 * DAY, "")
    world.now += 10 * DAY
    world.restart()

    assert left(world) == 20 * DAY


def test_an_old_copy_of_a_ban_in_the_kernel_does_not_shorten_it(world: World) -> None:
    """After a reboot another program may have restored the sets of days ago: then the database counts."""
    world.enforcer.ban([SUBJECT], 7 * DAY, "")
    world.backend.lose()
    world.backend.put(SUBJECT, world.now + HOUR)
    world.boots += 1
    world.now += 60.0
    world.restart()

    assert left(world) == 7 * DAY - 60


def test_an_unban_is_known_after_the_clock_was_set(world: World) -> None:
    """An unban that was only recorded is completed after a kill, even if the clock was set before."""
    world.decide()
    world.ahead = 7_200.0
    world.wait(1.0)
    world.records.end([(SUBJECT, Scope.FULL)], world.clock.wall())
    world.restart()

    assert world.in_kernel() == {}


def test_a_clock_that_is_set_while_off_and_down_makes_no_ban_longer(world: World) -> None:
    """A start while enforcement is off records the clock of this boot. So the next one knows a step."""
    world.decide()
    world.enforcer.switch_off()
    world.restart(reboot=True)
    world.now += 60
    world.ahead = -7_200.0
    world.restart()
    world.enforcer.switch_on()

    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 60}


def test_a_reboot_moves_no_ban(world: World) -> None:
    """After a reboot with an empty kernel, the new monotonic clock changes no ban."""
    world.decide()
    world.store.bans.record_clock(-1e6, "0", 0.0, world.now)
    world.now += 60
    world.restart(reboot=True)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR - 60}
    assert world.store.bans.clock() == (START, "1")


def test_stored_bans_that_the_kernel_refuses_at_the_start_are_restored_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel refuses more stored bans than may be pending, the next comparison adds the others."""
    monkeypatch.setattr("ringfence.ledger.MOST_PENDING", 1)
    networks = [SUBJECT, OTHER, ip_network("192.0.2.3")]
    world.enforcer.ban(networks, HOUR, "")
    world.backend.refuses = dict.fromkeys(networks, FirewallError("no memory"))
    world.restart(reboot=True)
    assert (len(world.enforcer.ledger.pending), world.reconciler.expected) == (1, 3)
    world.backend.refuses = {}
    asyncio.run(world.reconciler.compare())
    world.wait(1)

    assert world.in_kernel().keys() == world.in_store().keys() == {*map(str, networks)}
    restored = [ban.network for fact in world.facts if isinstance(fact, Restored) for ban in fact.bans]
    assert sorted(restored) == networks
