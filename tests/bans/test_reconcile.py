"""Reconciliation: kernel and ledger agree, whatever other programs do to the kernel."""

import asyncio
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from math import inf
from pathlib import Path

import pytest
from attrs import evolve
from structlog.testing import capture_logs
from tests.support.clock import SetClock
from tests.support.netns import run
from tests.support.recorded import recorded_bans
from tests.support.world import OTHER, RULE, START, SUBJECT, World, said

from ringfence.alarms import Alarms
from ringfence.bans.book import CHUNK
from ringfence.bans.enforcer import Enforcer
from ringfence.bans.filling import ListContents
from ringfence.bans.reconcile import APART, SLACK, ReconcileCounts, Reconciler
from ringfence.bans.unban import unban, unban_all
from ringfence.clock import Clock
from ringfence.detect.detector import Detector
from ringfence.detect.rules import DAY, HOUR, RULES
from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall import make_backend, network_lists
from ringfence.firewall.contract import Backend, FirewallPlan
from ringfence.firewall.nftables import backend as nft_backend
from ringfence.firewall.nftables import static_sets
from ringfence.firewall.nftables.state import read_sets
from ringfence.ledger import key_of
from ringfence.store.database import Store
from ringfence.values.ban import Origin, Scope
from ringfence.values.network import Network

THIRD = ip_network("192.0.2.3")
MANY = [ip_network((0xC6120000 + number, 32)) for number in range(CHUNK + 10)]


def compare(world: World) -> None:
    """Compare kernel and ledger once."""
    asyncio.run(world.reconciler.compare())


def counts(world: World) -> tuple[int, int]:
    """Return how many bans are enforced and how many are expected, after a check."""
    world.reconciler.check()
    return world.reconciler.enforced, world.reconciler.expected


# -- comparing --------------------------------------------------------------------------------------------


def test_where_all_is_well_nothing_happens(world: World) -> None:
    """If kernel and ledger agree, nothing is sent, counted or logged."""
    world.decide()
    world.enforcer.ban([OTHER], 60.0, "")
    world.backend.batches.clear()
    with said() as names:
        world.reconciler.check()
        compare(world)

    assert (world.backend.batches, names) == ([], [])
    assert (world.reconciler.counts, world.reconciler.last_damage) == (ReconcileCounts(), "")
    assert counts(world) == (2, 2)


def test_flushed_bans_are_restored(world: World) -> None:
    """Flushed bans are restored for their remaining time, logged once and counted."""
    world.decide()
    world.decide(ip_network("2001:db8::/64"), evolve(RULE, scope=Scope.SIP_UDP))
    world.now += 600
    world.backend.lose()
    assert counts(world) == (0, 2)
    with said() as names:
        compare(world)

    left = round(HOUR) - 600
    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": left, "2001:db8::/64": left}
    assert names == ["bans.reconciled"]
    assert world.reconciler.counts.restored == 2
    assert counts(world) == (2, 2)
    assert world.store.bans.count_offences(SUBJECT, 0.0) == 1


@pytest.mark.parametrize(("most", "looked_up"), [(1, []), (2, [SUBJECT, OTHER])])
def test_a_few_missing_bans_are_looked_up(
    world: World, monkeypatch: pytest.MonkeyPatch, most: int, looked_up: list[Network]
) -> None:
    """Bans that the kernel's listing lacks are looked up one by one, unless there are too many."""
    monkeypatch.setattr("ringfence.bans.reconcile.LOOKED_UP", most)
    world.decide()
    world.decide(OTHER)
    world.backend.omitted = {SUBJECT, OTHER}
    compare(world)

    assert world.backend.looked_up == looked_up
    assert world.reconciler.counts.restored == 2 - len(looked_up)


def test_a_ban_that_is_lost_again_is_restored_again(world: World) -> None:
    """Each comparison finds what the kernel lacks now, whatever an earlier one has seen."""
    world.decide()
    for restored in (0, 1, 2):
        with capture_logs() as logs:
            compare(world)
        lines = [(one["event"], one["put_back"], one["adopted"]) for one in logs]
        assert lines == [("bans.reconciled", 1, 0)] * (restored > 0)
        assert world.reconciler.counts.restored == restored
        world.backend.lose()


def test_more_than_one_part_is_restored_renewed_and_adopted(world: World) -> None:
    """Bans are handled ``CHUNK`` at a time, and each of them is."""
    world.enforcer.ban(MANY, HOUR, "")
    world.backend.lose()
    compare(world)
    assert len(world.in_kernel()) == world.reconciler.counts.restored == len(MANY)

    for network in MANY:
        world.backend.put(network, START + 60)
    compare(world)
    assert set(world.in_kernel().values()) == {round(HOUR)}

    foreign = [ip_network((0xCB000000 + number, 32)) for number in range(CHUNK + 10)]
    for network in foreign:
        world.backend.put(network, START + 600)
    compare(world)
    assert world.reconciler.counts.adopted == len(foreign)
    assert len(world.in_store()) == len(MANY) + len(foreign)


def test_what_appears_without_us_is_adopted(world: World) -> None:
    """A foreign element is adopted with its remaining time and a record, and can be unbanned."""
    world.backend.put(OTHER, START + 90)
    compare(world)

    [ban] = recorded_bans(world.store, START)
    assert (ban.network, ban.expires, ban.origin) == (OTHER, START + 90, Origin.ADOPTED)
    assert (counts(world), world.reconciler.counts.adopted, world.held(OTHER)) == ((1, 1), 1, True)
    asyncio.run(unban(world.enforcer, [OTHER]))
    compare(world)
    assert (world.in_kernel(), world.in_store()) == ({}, {})


def test_what_has_no_end_is_given_one(world: World) -> None:
    """A foreign element without a timeout gets a day, and a known ban gets its own end."""
    world.decide()
    world.backend.put(SUBJECT, inf)
    world.backend.put(OTHER, inf)
    compare(world)

    assert world.in_kernel() == world.in_store() == {"192.0.2.1/32": HOUR, "192.0.2.2/32": DAY}


def test_what_must_not_be_banned_is_unbanned(world: World) -> None:
    """An element around a protected address, or in an allowed network, is removed and not adopted."""
    world.allow(ip_network("192.0.2.0/24"), _203_0_113_1="the gateway")
    for text in ("192.0.2.1", "203.0.113.0/24", "198.51.100.1"):
        world.backend.put(ip_network(text), START + 60)
    compare(world)

    assert set(world.in_kernel()) == set(world.in_store()) == {"198.51.100.1/32"}


def test_a_shortened_timeout_is_renewed(world: World) -> None:
    """A timeout that another program made shorter is renewed; a difference of seconds is ignored."""
    world.decide()
    world.decide(OTHER)
    world.backend.put(SUBJECT, START + 10)
    world.backend.put(OTHER, START + HOUR - SLACK / 2)
    world.backend.batches.clear()
    compare(world)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR, "192.0.2.2/32": round(HOUR - SLACK / 2)}
    assert len(world.backend.batches) == 1


def test_a_timeout_that_is_too_long_is_cut(world: World) -> None:
    """A timeout that is too long, for example after the clock was set back, is cut to the ban's own end."""
    world.decide()
    world.decide(OTHER)
    world.backend.put(SUBJECT, START + 3 * HOUR)
    world.backend.put(OTHER, START + HOUR + SLACK / 2)
    compare(world)

    assert world.in_kernel() == {"192.0.2.1/32": HOUR, "192.0.2.2/32": round(HOUR + SLACK / 2)}


def test_a_ban_longer_than_the_kernel_counts_is_not_short(world: World) -> None:
    """A ban longer than the kernel's limit is renewed when it is due, and not at every comparison."""
    world.backend.cap = 100
    world.decide()
    world.backend.batches.clear()
    compare(world)

    assert world.backend.batches == []


def test_what_is_about_to_end_ends(world: World) -> None:
    """Bans in their last seconds are neither restored nor adopted, because the two clocks differ slightly."""
    world.enforcer.ban([SUBJECT], SLACK - 1, "")
    world.backend.lose()
    world.backend.put(OTHER, START + SLACK - 1)
    compare(world)

    assert set(world.in_kernel()) == {"192.0.2.2/32"}
    assert key_of(OTHER) not in world.enforcer.ledger


def test_a_ban_that_is_placed_during_the_reading_is_not_missing(world: World) -> None:
    """A ban that is placed while the kernel is read is not placed a second time."""
    world.decide(OTHER)
    world.backend.meanwhile = world.decide
    compare(world)
    world.backend.meanwhile = lambda: None

    assert world.reconciler.counts == ReconcileCounts()
    assert set(world.in_kernel()) == {"192.0.2.1/32", "192.0.2.2/32"}


@pytest.mark.parametrize("known", ["192.0.2.1", "192.0.2.3"])
def test_an_unban_during_the_reading_is_kept(world: World, known: str) -> None:
    """An address that is unbanned while the kernel is read is neither adopted nor restored."""
    world.decide()
    world.backend.put(THIRD, START + 60)

    def unban_known() -> None:
        world.backend.meanwhile = lambda: None
        asyncio.run(unban(world.enforcer, [ip_network(known)]))

    world.backend.meanwhile = unban_known
    compare(world)
    compare(world)

    assert (
        set(world.in_kernel()) == set(world.in_store()) == {"192.0.2.1/32", "192.0.2.3/32"} - {f"{known}/32"}
    )


def test_an_unban_during_the_restoration_is_kept(world: World) -> None:
    """Bans are restored in parts, and an address that is unbanned between two parts stays unbanned."""
    world.enforcer.ban(MANY, 3_600.0, "")
    world.backend.lose()
    world.backend.put(THIRD, START + 60)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(world.reconciler.compare())
            while not world.reconciler.counts.restored:  # noqa: ASYNC110 - between two parts, wherever that is
                await asyncio.sleep(0)
            assert world.reconciler.counts.restored < len(MANY)
            await unban_all(world.enforcer)

    asyncio.run(main())
    compare(world)
    assert (world.in_kernel(), world.in_store(), len(world.enforcer.ledger)) == ({}, {}, 0)


def test_switched_off_during_the_reading_nothing_is_put_back(world: World) -> None:
    """If enforcement is switched off while the kernel is read, nothing is restored."""
    world.decide()
    world.backend.lose()
    world.backend.put(OTHER, START + 60)
    world.backend.meanwhile = world.enforcer.switch_off
    compare(world)
    world.backend.meanwhile = lambda: None
    compare(world)

    assert (world.in_kernel(), len(world.enforcer.ledger), counts(world)) == ({}, 0, (0, 0))


def test_what_cannot_be_put_back_is_pending(world: World) -> None:
    """A ban that cannot be restored is logged as refused, expected but not enforced, and retried."""
    world.decide()
    world.decide(OTHER)
    world.backend.lose()
    world.backend.refuses[SUBJECT] = SetFullError("the set is full")
    with said() as names:
        compare(world)

    assert names == ["ban.failed", "bans.reconciled"]
    assert world.reconciler.counts.restored == 1
    assert (counts(world), len(world.enforcer.ledger.pending)) == ((1, 2), 1)
    world.backend.refuses.clear()
    world.wait(1)
    assert (set(world.in_kernel()), counts(world)) == ({"192.0.2.1/32", "192.0.2.2/32"}, (2, 2))


def test_more_lost_bans_than_may_be_pending_are_restored(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lost bans that the kernel refuses stay expected, however many: comparisons and retries restore all."""
    monkeypatch.setattr("ringfence.ledger.MOST_PENDING", 2)
    world.enforcer.ban(MANY, HOUR, "")
    world.backend.counts = False
    world.backend.lose()
    world.backend.gone = FirewallError("another program has removed the sets again")
    with said() as names:
        compare(world)
        compare(world)

    assert [name for name in names if name == "ban.failed"] == ["ban.failed"] * 2
    assert (len(world.enforcer.ledger.pending), world.reconciler.expected) == (2, len(MANY))
    assert (world.reconciler.enforced, world.held(MANY[0]), world.held(MANY[-1])) == (0, True, True)
    world.backend.gone = None
    compare(world)
    world.wait(1)
    assert len(world.in_kernel()) == len(world.in_store()) == len(MANY)
    assert (counts(world), world.reconciler.counts.restored) == ((len(MANY), len(MANY)), len(MANY) - 2)
    assert world.ended == []


def test_a_ban_whose_answer_was_lost_keeps_its_rule(world: World) -> None:
    """A pending ban that a comparison finds in the kernel is not adopted: the next retry records it."""
    world.backend.refuses[SUBJECT] = FirewallError("the answer was lost")
    world.decide()
    world.backend.refuses.clear()
    world.backend.put(SUBJECT, world.now + HOUR)
    compare(world)
    assert world.reconciler.counts.adopted == 0
    world.wait(1)

    [ban] = recorded_bans(world.store, world.now)
    assert (ban.network, ban.origin, ban.rule) == (SUBJECT, Origin.RULE, RULE.name)
    assert not world.enforcer.ledger.pending


def test_without_a_count_the_last_comparison_decides(world: World) -> None:
    """If the kernel cannot count quickly, the last comparison decides which bans are enforced."""
    world.backend.counts = False
    world.decide()
    world.decide(OTHER)
    assert counts(world) == (2, 2)
    world.backend.lose(SUBJECT)
    world.backend.refuses[SUBJECT] = FirewallError("no memory")
    compare(world)

    assert counts(world) == (1, 2)


# -- looking ----------------------------------------------------------------------------------------------


def test_changed_rules_are_repaired(world: World) -> None:
    """Changed rules are repaired with the lists at the next check, logged with the damage, and counted."""
    world.wanted = {network_lists.ALLOW: [OTHER]}
    world.backend.trouble = "a rule is gone"
    with capture_logs() as logs:
        world.reconciler.check()
        world.reconciler.check()

    assert [(one["event"], one["damage"]) for one in logs] == [("firewall.repaired", "a rule is gone")]
    assert (world.reconciler.counts.repaired, world.reconciler.last_damage) == (1, "a rule is gone")
    assert world.backend.lists[network_lists.ALLOW] == {OTHER}


def test_while_the_rules_cannot_be_repaired_no_ban_counts_as_enforced(world: World) -> None:
    """While the rules cannot be repaired, no ban counts as enforced; after the repair all count."""
    world.decide()
    world.backend.trouble = "the rules are gone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.backend, "open", failing)
        assert counts(world) == (0, 1)
        assert [alarm.code for alarm in world.alarms.active] == ["firewall.damaged"]
        assert world.enforcer.opened is None  # so no true line counts as forged, because no packet is copied

    assert counts(world) == (1, 1)
    assert world.enforcer.opened is not None


def test_the_check_of_the_rules_alone_repairs_them(world: World) -> None:
    """Rules that differ are repaired; those that cannot be read or repaired wait for the next full check."""
    world.backend.gone = FirewallError("no answer")
    world.reconciler.check_rules()
    assert world.alarms.active == []

    world.backend.gone, world.backend.trouble = None, "a rule is gone"
    world.reconciler.check_rules()
    world.reconciler.check_rules()
    assert world.reconciler.counts.repaired == 1

    world.backend.trouble = "the rules are gone"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.backend, "open", failing)
        world.reconciler.check_rules()
    assert [alarm.code for alarm in world.alarms.active] == ["firewall.damaged"]
    world.reconciler.check_rules()
    assert world.reconciler.counts.repaired == 1
    world.reconciler.check()
    assert world.reconciler.counts.repaired == 2

    world.enforcer.switch_off()
    world.backend.trouble = "the rules are gone"
    world.reconciler.check_rules()
    assert world.reconciler.counts.repaired == 2


def failing() -> None:
    """Raise the error of a kernel in which another program owns a set of that name."""
    raise FirewallError("the set is not ours")


def test_a_firewall_that_cannot_be_looked_at_is_an_alarm(world: World) -> None:
    """If the firewall cannot be checked, an alarm has the reason and clears with the next good check."""
    world.backend.gone = FirewallError("no answer")
    world.reconciler.check()
    assert [alarm.code for alarm in world.alarms.active] == ["firewall.damaged"]
    assert "no answer" in world.alarms.active[0].text
    world.backend.gone = None
    world.reconciler.check()

    assert world.alarms.active == []


def test_off_by_another_hand_is_not_repaired(world: World) -> None:
    """If another process switched enforcement off in the store, nothing is restored."""
    world.decide()
    with Store.open(world.path, owner=False) as command:
        command.state.set_switched_off(True)
    world.backend.lose()
    world.backend.trouble = "the rules are gone"
    world.reconciler.check()
    compare(world)

    assert (world.enforcer.enforcing, world.in_kernel(), counts(world)) == (False, {}, (0, 0))


def test_the_ends_of_bans_are_no_loss(world: World) -> None:
    """Bans that expire one after the other are never counted as missing."""
    for number, network in enumerate(MANY[:200]):
        world.enforcer.ban([network], 30.0 + number * 1.7, "")
    with said() as names:
        for _ in range(400):
            world.wait(1)
            world.reconciler.check()

    assert (names, world.in_kernel(), counts(world)) == ([], {}, (0, 0))


def at_work(world: World, *conditions: Callable[[], object]) -> None:
    """Run the reconciler with regular checks until each condition in turn is true."""

    async def main() -> None:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            task = group.create_task(world.reconciler.run())
            for true in conditions:
                while not true():
                    world.reconciler.check()
                    await asyncio.sleep(0.01)
            task.cancel()

    asyncio.run(main())


def test_a_loss_is_seen_by_the_number_and_repaired_at_once(world: World) -> None:
    """A check that counts too few bans starts a comparison at once, without the usual minute."""
    world.decide()
    world.decide(OTHER)
    world.backend.lose(SUBJECT)
    with capture_logs() as logs:
        at_work(world, lambda: len(world.in_kernel()) == 2)

    assert ("bans.missing", 1) in [(one["event"], one.get("number")) for one in logs]


def test_without_a_change_nothing_is_compared(world: World) -> None:
    """Checks that find nothing start no comparison before the minute is over."""
    world.decide()
    read: list[bool] = []
    world.backend.meanwhile = lambda: read.append(True)
    checks = iter(range(20))
    at_work(world, lambda: next(checks, None) is None)

    assert read == []


@pytest.mark.parametrize("sign", ["trouble", "changed"])
def test_a_change_by_others_is_looked_into(world: World, sign: str) -> None:
    """A change by another program starts a comparison at once, even without a count."""
    world.backend.counts = False
    world.decide()
    world.backend.lose()
    setattr(world.backend, sign, "a rule is gone")

    at_work(world, lambda: len(world.in_kernel()) == 1)


def test_a_comparison_that_fails_is_an_alarm(world: World) -> None:
    """A failed comparison is an alarm that clears with the next good one, and the daemon continues."""
    world.decide()
    world.backend.lose()
    errors = [FirewallError("no answer")]

    def fail() -> None:
        if errors:
            raise errors[0]

    def failed() -> bool:
        if not world.alarms.active:
            return False
        assert [alarm.code for alarm in world.alarms.active] == ["firewall.not_compared"]
        assert "no answer" in world.alarms.active[0].text
        errors.clear()
        return True

    world.backend.meanwhile = fail
    at_work(world, failed, lambda: world.backend._ends and not world.alarms.active)


# -- over the kernel --------------------------------------------------------------------------------------


class Host:
    """An enforcer and a reconciler over the kernel of this namespace."""

    def __init__(self, store: Store, backend: Backend) -> None:
        self.backend = backend
        self.enforcer = Enforcer(backend, store.records, Detector(RULES), Clock())
        self.reconciler = Reconciler(self.enforcer, Alarms(Clock()))
        self.enforcer.start()

    def heal(self) -> None:
        """Check and compare, as the daemon does within a second."""
        self.reconciler.check()
        asyncio.run(self.reconciler.compare())
        self.reconciler.check()

    def banned(self) -> set[Network]:
        """Return the banned networks in the kernel."""
        return {element.network for element in self.backend.list()}

    @property
    def in_force(self) -> tuple[int, int]:
        """Return how many bans are enforced, and how many are expected."""
        return self.reconciler.enforced, self.reconciler.expected


NETWORKS = [ip_network(t) for t in ("198.18.0.1", "198.18.1.0/24", "2001:db8::/64", "2001:db8:1::/48")]


def _made(name: str, folder: Path) -> Iterator[Host]:
    backend = make_backend(name, FirewallPlan(maxelem=1_000))
    with Store.open(folder / "ringfence.db", owner=True) as store:
        host = Host(store, backend)
        try:
            assert host.enforcer.ban(NETWORKS, 3_600.0, "") == []
            yield host
        finally:
            backend.flush()
            backend.close()


@pytest.fixture(name="host")
def _host(netns: None, tmp_path: Path) -> Iterator[Host]:
    """Return a host with four bans in the kernel, by ipset."""
    assert netns is None
    yield from _made("ipset", tmp_path)


@pytest.fixture(name="nft_host")
def _nft_host(netns: None, tmp_path: Path) -> Iterator[Host]:
    """Return a host with four bans in the kernel, by nftables."""
    assert netns is None
    yield from _made("nftables", tmp_path)


def flush_sets() -> None:
    """Empty every set."""
    run("ipset", "flush")


def remove_rules() -> None:
    """Remove every rule of the raw table, as a restart of the distribution's firewall does."""
    for tool in ("iptables", "ip6tables"):
        run(tool, "-t", "raw", "-F")
        run(tool, "-t", "raw", "-X")


def destroy_everything() -> None:
    """Remove the rules and then the sets."""
    remove_rules()
    for name in run("ipset", "list", "-name").split():
        run("ipset", "destroy", name)


def rename_a_set() -> None:
    """Rename a set, after the rules that use it are removed."""
    remove_rules()
    run("ipset", "rename", "ringfence4", "mine4")


def swap_a_set() -> None:
    """Replace one of our sets with an empty set."""
    header = run("ipset", "save", "ringfence4").splitlines()[0]
    run("ipset", "restore", text=header.replace("ringfence4", "mine4") + "\n")
    run("ipset", "swap", "ringfence4", "mine4")


BANS_LOST = {flush_sets: 4, remove_rules: 0, destroy_everything: 4, rename_a_set: 2, swap_a_set: 2}


@pytest.mark.kernel
@pytest.mark.parametrize("harm", BANS_LOST)
def test_whatever_is_done_to_the_kernel_is_repaired(host: Host, harm: Callable[[], None]) -> None:
    """One check and one comparison restore rules, sets and every ban for its remaining time."""
    rules = run("iptables-save", "-t", "raw"), run("ip6tables-save", "-t", "raw")
    harm()
    host.heal()

    assert host.banned() == set(NETWORKS)
    assert host.in_force == (4, 4)
    assert all(3_500 < element.timeout <= 3_600 for element in host.backend.list())

    def of(saved: str) -> list[str]:
        return [line for line in saved.splitlines() if line.startswith("-A")]

    after = run("iptables-save", "-t", "raw"), run("ip6tables-save", "-t", "raw")
    assert [of(saved) for saved in after] == [of(saved) for saved in rules]
    assert (host.reconciler.counts.repaired, host.reconciler.counts.restored) == (1, BANS_LOST[harm])


@pytest.mark.kernel
def test_one_element_that_is_deleted_is_put_back(host: Host) -> None:
    """A single ban that another program removes with ``ipset del`` is restored and counted."""
    run("ipset", "del", "ringfence4", "198.18.0.1")
    host.reconciler.check()
    assert host.in_force == (3, 4)
    host.heal()

    assert (host.banned(), host.in_force, host.reconciler.counts.restored) == (set(NETWORKS), (4, 4), 1)


@pytest.mark.kernel
def test_elements_of_another_hand_are_adopted_by_the_rule(host: Host) -> None:
    """Foreign elements are adopted with their time, or for a day; an element for this host is removed."""
    for element in ("203.0.113.1 timeout 90", "203.0.113.2 timeout 0", "127.0.0.1", "198.18.0.1 timeout 20"):
        run("ipset", "-exist", "add", "ringfence4", *element.split())
    host.heal()

    left = {str(element.network): element.timeout for element in host.backend.list()}
    assert left.keys() == {str(network) for network in NETWORKS} | {"203.0.113.1/32", "203.0.113.2/32"}
    assert 60 < left["203.0.113.1/32"] <= 90
    assert DAY - 60 < left["203.0.113.2/32"] <= DAY
    assert 3_500 < left["198.18.0.1/32"] <= 3_600
    assert (host.in_force, host.reconciler.counts.adopted) == ((6, 6), 3)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("harm", "lost"),
    [
        ("flush ruleset", 4),
        ("delete table inet ringfence", 4),
        ("flush table inet ringfence", 0),
        ("flush set inet ringfence ban4_24", 1),
        ("delete element inet ringfence ban6_64 { 2001:db8:: }", 1),
    ],
)
def test_whatever_is_done_to_nftables_is_repaired(nft_host: Host, harm: str, lost: int) -> None:
    """One check and one comparison restore the table, rules, sets and every ban exactly."""
    before = run("nft", "-st", "list", "table", "inet", "ringfence")
    run("nft", *harm.split())
    nft_host.heal()

    assert nft_host.banned() == set(NETWORKS)
    assert (nft_host.in_force, nft_host.reconciler.counts.restored) == ((4, 4), lost)
    assert all(3_500 < element.timeout <= 3_600 for element in nft_host.backend.list())
    assert run("nft", "-st", "list", "table", "inet", "ringfence") == before


@pytest.mark.kernel
def test_a_list_is_filled_again_in_a_kernel_that_does_not_count(
    nft_host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.16 no number shows that a list is empty, so a foreign change has all lists written."""
    for module in (nft_backend, static_sets):
        monkeypatch.setattr(
            module, "read_sets", lambda kernel: [evolve(head, elements=None) for head in read_sets(kernel)]
        )
    denied = {network_lists.DENY: [ip_network("203.0.113.0/24")]}
    monkeypatch.setattr(ListContents, "contents", lambda _, target: denied.get(target, []))
    nft_host.enforcer.filler.refill()
    run("nft", "flush", "set", "inet", "ringfence", "deny4")
    nft_host.heal()

    assert "203.0.113.0/24" in run("nft", "list", "set", "inet", "ringfence", "deny4")


@pytest.mark.kernel
def test_elements_of_another_hand_are_adopted_by_the_same_rule(nft_host: Host) -> None:
    """Foreign nftables elements are adopted with their time, or for a day; one for this host is removed."""
    for element in ("203.0.113.1 timeout 90s", "203.0.113.2", "127.0.0.1 timeout 1h"):
        run("nft", "add", "element", "inet", "ringfence", "ban4_32", "{", element, "}")
    nft_host.heal()

    left = {str(element.network): element.timeout for element in nft_host.backend.list()}
    assert left.keys() == {str(network) for network in NETWORKS} | {"203.0.113.1/32", "203.0.113.2/32"}
    assert 60 < left["203.0.113.1/32"] <= 90
    assert DAY - 60 < left["203.0.113.2/32"] <= DAY
    assert (nft_host.in_force, nft_host.reconciler.counts.adopted) == ((6, 6), 3)


@pytest.mark.kernel
def test_a_width_that_is_full_gives_way_to_its_like(nft_host: Host) -> None:
    """In nftables each width has its own set, so a full width removes only a ban of the same width."""
    many = [ip_network((0xC6120100 + number, 32)) for number in range(999)]
    assert nft_host.enforcer.ban(many, 7_200.0, "") == []
    newcomer = ip_network("203.0.113.7")

    assert nft_host.enforcer.ban([newcomer], 7_200.0, "") == []
    assert nft_host.banned() == {*many, newcomer, *NETWORKS[1:]}
    assert nft_host.enforcer.book.counts.displaced == 1


def test_comparisons_after_damage_take_a_fifth_of_the_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first comparison runs at once; during damage each waits four times as long as the last one took."""
    slept: list[float] = []
    now = 100.0
    object.__setattr__(world.enforcer, "clock", SetClock(wall=lambda: START, mono=lambda: now))

    async def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    async def compare() -> None:
        nonlocal now
        now += 1.0
        if len(slept) == 4:
            raise asyncio.CancelledError
        world.reconciler._wanted.set()
        world.reconciler._damaged.set()

    monkeypatch.setattr("ringfence.bans.reconcile.asyncio.sleep", sleep)
    monkeypatch.setattr(world.reconciler, "compare", compare)
    world.reconciler._wanted.set()
    world.reconciler._damaged.set()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.reconciler.run())
    assert slept == [0.0, 4.0, 4.0, 4.0]


def test_after_other_changes_comparisons_are_seconds_apart(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that damages nothing waits until ``APART`` seconds after the last comparison."""
    waited: list[float] = []
    compared: list[float] = []
    object.__setattr__(world.enforcer, "clock", SetClock(wall=lambda: START, mono=lambda: 100.0))

    async def within(seconds: float, event: asyncio.Event) -> None:
        if event is world.reconciler._damaged:
            waited.append(seconds)

    async def compare() -> None:
        compared.append(100.0)
        if len(compared) == 3:
            raise asyncio.CancelledError
        world.reconciler._wanted.set()

    async def sleep(_: float) -> None:
        return None

    monkeypatch.setattr("ringfence.bans.reconcile._within", within)
    monkeypatch.setattr("ringfence.bans.reconcile.asyncio.sleep", sleep)
    monkeypatch.setattr(world.reconciler, "compare", compare)
    world.reconciler._wanted.set()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(world.reconciler.run())
    assert waited == [-inf, APART, APART]
