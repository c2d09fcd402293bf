"""The lists of a running daemon: what is in force, and when it changes."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from threading import Event

import pytest
from attrs import evolve
from tests.lists.world import At, configured, prefixes
from tests.support.mmdb import write

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.ban_facts import ClockSet
from ringfence.errors import StoreError
from ringfence.features.fence.network_list import LIST as INSIDE
from ringfence.features.geo import regions as geo
from ringfence.features.geo.regions import networks_of
from ringfence.firewall.network_lists import EXTERNAL, NetworkList
from ringfence.lists import manager
from ringfence.lists.compose import ListNetworks
from ringfence.lists.manager import Holder, Lists, OtherNetworks
from ringfence.lists.prefixes import Prefixes
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import Network

GATEWAY = ip_network("192.0.2.1")
PROTECTED = {GATEWAY: "the default gateway"}
OWN = NetworkList("own", "networks of a feature")


def test_configured_and_stored_entries_are_in_force_from_the_start(tmp_path: Path) -> None:
    """Entries of both origins apply from the start, and names are followed."""
    At(tmp_path).ask("deny_add", what=["203.0.113.9"])
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.0/24"), (ListKind.ALLOW, "sip.carrier.example")))

    assert at.lists.networks == ListNetworks(prefixes("192.0.2.0/24"), prefixes("203.0.113.9"))
    assert at.followed == [frozenset({"sip.carrier.example"})]
    assert [(alarm.code, alarm.subject) for alarm in at.lists.alarms] == [
        ("list.unresolved", "sip.carrier.example")
    ]


def test_a_list_that_does_not_fit_is_an_alarm(tmp_path: Path) -> None:
    """The configuration determines the maximum size."""
    at = At(tmp_path, configured(*((ListKind.DENY, f"203.0.113.{n}") for n in (1, 3, 5)), most=2))

    text = "3 networks, of which the first 2 are in force: raise [firewall] max_bans"
    assert at.lists.alarms == [Alarm(AlarmCode.LIST_FULL, "deny list", text)]


def test_an_alarm_of_a_list_that_does_not_fit_ends_with_it(tmp_path: Path) -> None:
    """A reload with a lower limit raises the alarm, and one with a higher limit ends it."""
    entries = [(ListKind.DENY, f"203.0.113.{n}") for n in (1, 3, 5)]
    at = At(tmp_path, configured(*entries, most=3))
    assert at.lists.alarms == []
    at.lists.configure(configured(*entries, most=2))
    assert len(at.lists.alarms) == 1
    at.lists.configure(configured(*entries, most=3))
    assert at.lists.alarms == []


def test_a_new_configuration_applies(tmp_path: Path) -> None:
    """A new configuration replaces entries, names and databases."""
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.7"), (ListKind.ALLOW, "sip.carrier.example")))

    async def script() -> None:
        at.lists.configure(configured((ListKind.DENY, "country DE"), databases=(database,)))
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(others={EXTERNAL: prefixes("203.0.113.0/24")})]
    assert at.followed[-1] == frozenset()


def test_the_addresses_of_names_apply(tmp_path: Path) -> None:
    """A DNS answer changes the list without a request."""
    at = At(tmp_path, configured((ListKind.ALLOW, "sip.carrier.example")))

    async def script() -> None:
        at.lists.on_resolved({"sip.carrier.example": frozenset({ip_network("192.0.2.7")})})
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(allow=prefixes("192.0.2.7"))]
    assert at.lists.alarms == []


def test_addresses_of_other_names_compose_no_list(tmp_path: Path) -> None:
    """Only the names on the lists count, and any name while a list is composed: it may become one of them."""
    at = At(tmp_path, configured((ListKind.ALLOW, "sip.carrier.example")))
    known = {"sip.carrier.example": frozenset({ip_network("192.0.2.7")})}
    other = {"trunk.example": frozenset({ip_network("192.0.2.9")})}
    at.lists.on_resolved(known)
    asyncio.run(at.lists.refresh())
    at.lists.on_resolved(known | other)
    assert not at.lists._stale.is_set()

    async def compose() -> None:
        async with at.lists._turn:
            at.lists.on_resolved(known)

    asyncio.run(compose())
    assert at.lists._stale.is_set()


def test_an_entry_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expired entry is removed without a request."""
    monkeypatch.setattr(manager, "LOOK_EVERY", 0.02)
    at = At(tmp_path)
    at.ask("allow_add", what=["192.0.2.7"], seconds=60)
    at.ask("allow_add", what=["192.0.2.9"], seconds=3_600)

    async def script() -> None:
        await asyncio.sleep(0.1)
        assert len(at.told) == 2
        at.now += 61
        await at.until(lambda: len(at.told) == 3)

    at.run(script)

    assert at.told[-1] == ListNetworks(allow=prefixes("192.0.2.9"))


def test_an_entry_keeps_the_rest_of_its_time_if_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that is ahead for a moment ends no entry; one that was added meanwhile has its length."""
    monkeypatch.setattr(manager, "LOOK_EVERY", 0.02)
    year = 365 * 86_400.0
    at = At(tmp_path)
    at.ask("allow_add", what=["192.0.2.7"], seconds=60)

    async def script() -> None:
        at.now += year
        await at.until(lambda: at.told[-1] == ListNetworks())  # nobody has noticed that the clock was set
        at.lists.on_fact(ClockSet(year))
        await at.until(lambda: at.told[-1] == ListNetworks(allow=prefixes("192.0.2.7")))
        request = {"what": ["192.0.2.9"], "note": "", "seconds": 3_600, "force": False}
        await at.handlers["allow_add"](request)  # type: ignore[misc]  # this handler waits
        at.now -= year
        at.lists.on_fact(ClockSet(-year))
        at.now += 61
        await at.until(lambda: at.told[-1] == ListNetworks(allow=prefixes("192.0.2.9")))
        at.now += 3_600
        await at.until(lambda: at.told[-1] == ListNetworks())

    at.run(script)


def test_a_clock_that_was_slow_makes_no_entry_longer(tmp_path: Path) -> None:
    """A host without a battery boots with a date in the past: what was recorded before has the right end."""
    table = At(tmp_path).store.entries
    table.add([ListEntry(ListKind.ALLOW, "192.0.2.7", "", 1_000.0, 1_060.0)])

    table.move(900.0, 100.0)
    assert [one.until for one in table.current(ListKind.ALLOW, 0.0)] == [1_060.0]
    table.move(900.0, 1_000.0)
    assert [(one.added, one.until) for one in table.current(ListKind.ALLOW, 0.0)] == [(1_900.0, 1_960.0)]


def test_an_updated_database_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed database file changes the list without a request."""
    monkeypatch.setattr(manager, "LOOK_EVERY", 0.02)
    record = {"country": {"iso_code": "DE"}}
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", record)])
    at = At(tmp_path, configured((ListKind.DENY, "country DE"), databases=(database,)))

    async def script() -> None:
        networks = [("203.0.113.0/24", record), ("198.51.100.0/24", record)]
        write(tmp_path / "new.mmdb", networks).replace(database)
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(others={EXTERNAL: prefixes("203.0.113.0/24", "198.51.100.0/24")})]


def test_a_store_that_cannot_be_read_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists stay unchanged, and an alarm reports it until the store works again."""
    at = At(tmp_path, configured((ListKind.DENY, "203.0.113.9")))
    entries = at.store.entries.current

    def failing(kind: ListKind, now: float) -> list[ListEntry]:
        raise StoreError("disk gone")

    monkeypatch.setattr(at.store.entries, "current", failing)
    asyncio.run(at.lists.refresh())
    assert at.lists.networks.deny == prefixes("203.0.113.9")
    assert [(alarm.code, alarm.text) for alarm in at.lists.alarms] == [
        ("list.unreadable", "the lists stay as they are: disk gone")
    ]

    monkeypatch.setattr(at.store.entries, "current", entries)
    asyncio.run(at.lists.refresh())
    assert (at.lists.alarms, at.told) == ([], [])


def test_an_unreadable_store_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists retry the store, and its entries apply soon after it works again, without a request."""
    monkeypatch.setattr(manager, "RETRY_EVERY", 0.02)
    at = At(tmp_path)
    entries = at.store.entries.current
    at.store.entries.add([ListEntry(ListKind.DENY, "203.0.113.9", "", at.now)])

    def failing(kind: ListKind, now: float) -> list[ListEntry]:
        raise StoreError("disk gone")

    monkeypatch.setattr(at.store.entries, "current", failing)

    async def script() -> None:
        at.lists.configure(configured())
        await at.until(lambda: at.lists.alarms)
        monkeypatch.setattr(at.store.entries, "current", entries)
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(deny=prefixes("203.0.113.9"))]
    assert at.lists.alarms == []


def test_protected_networks_are_guarded_at_once(tmp_path: Path) -> None:
    """A floating address is guarded when ``protect`` returns; the same addresses again report nothing."""
    at = At(tmp_path, configured((ListKind.DENY, "192.0.2.0/24")))
    own: dict[Network, str] = {ip_network("192.0.2.5"): "this host's own address"}
    for _ in range(2):
        at.lists.protect(own)

    assert at.told == [ListNetworks(deny=prefixes("192.0.2.0/24"), guarded=frozenset(own))]


def test_the_entries_around_an_address_are_found(tmp_path: Path) -> None:
    """Configured and added entries are found; names and countries are found by their networks."""
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    at = At(tmp_path, configured((ListKind.ALLOW, "country DE"), databases=(database,)))
    at.ask("allow_add", what=["sip.carrier.example"])
    at.ask("deny_add", what=["198.51.100.0/24"], note="bad people")
    at.ask("deny_add", what=["198.51.100.9"], seconds=60)
    at.lists.on_resolved({"sip.carrier.example": frozenset({ip_network("192.0.2.7")})})

    def held(text: str) -> list[tuple[str, str, str]]:
        found = asyncio.run(at.lists.holding(ip_network(text)))
        return [(str(one.entry.kind), one.entry.value, str(one.network)) for one in found]

    assert held("203.0.113.5") == [("allow", "country DE", "203.0.113.0/24")]
    assert held("192.0.2.7") == [("allow", "sip.carrier.example", "192.0.2.7/32")]
    assert held("198.51.100.7") == [("deny", "198.51.100.0/24", "198.51.100.0/24")]
    assert len(held("198.51.100.9")) == 2
    assert held("11.0.1.1") == []
    at.now += 61
    assert len(held("198.51.100.9")) == 1


def test_the_configured_entries_are_in_force_without_a_store(tmp_path: Path) -> None:
    """A database that cannot be read does not prevent the start: the configured entries apply."""
    at = At(tmp_path, configured((ListKind.ALLOW, "203.0.113.0/24")))
    at.store.close()
    rolls = at.lists.load()

    assert list(rolls.allow) == [ip_network("203.0.113.0/24")]
    [alarm] = at.lists.alarms
    assert alarm.text.startswith("only the configured entries of the lists are in force: ")


class Decided(OtherNetworks):
    """Networks on a list of their own, which changes often."""

    which = OWN

    def __init__(self) -> None:
        self.networks = Prefixes()

    def compose(self, now: float) -> list[Prefixes]:
        """Return the networks."""
        return [self.networks]

    def holding(self, network: Network, now: float) -> list[Holder]:
        """Return an entry that contains every network."""
        return [Holder(ListEntry(ListKind.DENY, "all", "", now, None, "test"), network)]


def test_networks_of_a_feature_on_a_list_of_their_own_are_renewed_alone(tmp_path: Path) -> None:
    """They stay after each composition, and the entries that contain an address are named."""
    other = Decided()
    at = At(tmp_path, others=[other])

    async def script() -> None:
        other.networks = prefixes("198.51.100.7", "203.0.113.0/24")
        await at.lists.renew(other)
        assert at.told == [ListNetworks(others={OWN: other.networks})]
        await at.lists.refresh()
        assert at.lists.networks == at.told[-1]
        [found] = await at.lists.holding(ip_network("203.0.113.9"))
        assert (found.entry.origin, found.by_hand) == ("test", False)
        other.networks = Prefixes()
        await at.lists.renew(other)
        assert at.lists.networks.of(OWN) == Prefixes()

    at.run(script)


def test_a_slow_database_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start reads no database. Changes wait a short time for one; its networks apply when it is read."""
    monkeypatch.setattr(manager, "READ_WITHIN", 0.01)
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    reads: list[Path] = []
    goes_on = Event()

    def slow(path: Path, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        reads.append(path)
        assert goes_on.wait(20)
        return networks_of(path, regions)

    monkeypatch.setattr(geo, "networks_of", slow)
    at = At(tmp_path)
    wanted = evolve(
        configured((ListKind.DENY, "country DE"), databases=(database,)),
        kept=tmp_path / "kept",
        added={INSIDE: ("country DE",)},
    )
    lists = Lists(at.store.entries, wanted, at.told.append, now=lambda: at.now)
    assert (lists.load(), reads) == (ListNetworks(partial=frozenset({EXTERNAL, INSIDE})), [])

    async def script() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(lists.run())
            for _ in range(3):
                await lists.refresh()
            assert (lists.networks, lists.alarms) == (ListNetworks(partial=frozenset({EXTERNAL, INSIDE})), [])
            goes_on.set()
            await at.until(lambda: not lists.networks.partial)
            task.cancel()

    asyncio.run(script())
    assert lists.networks.of(EXTERNAL) == lists.networks.of(INSIDE) == prefixes("203.0.113.0/24")
    assert reads == [database]

    database.write_bytes(b"broken")
    later = Lists(at.store.entries, wanted, at.told.append, now=lambda: at.now)
    assert later.load() == lists.networks
    later.read_databases()
    assert later.load() == lists.networks


def test_a_database_is_tried_again_after_a_lack_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm names the lack; after a pause, and not at once, the database is read again."""
    monkeypatch.setattr(manager, "LOOK_EVERY", 3_600.0)
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    reads: list[Path] = []

    def failing(path: Path, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        reads.append(path)
        if len(reads) == 1:
            raise MemoryError
        return networks_of(path, regions)

    monkeypatch.setattr(geo, "networks_of", failing)
    at = At(tmp_path)
    wanted = configured((ListKind.DENY, "country DE"), databases=(database,))
    lists = Lists(at.store.entries, wanted, at.told.append, now=lambda: at.now)
    lists.load()

    async def script() -> None:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(lists.run())
            await at.until(lambda: lists.alarms)
            assert [alarm.code for alarm in lists.alarms] == ["geo.unreadable"]
            await asyncio.sleep(0.1)
            assert len(reads) == 1
            monkeypatch.setattr(manager, "LOOK_EVERY", 0.02)
            task.cancel()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(lists.run())
            await at.until(lambda: at.told)
            task.cancel()

    asyncio.run(script())
    assert (lists.networks.of(EXTERNAL), lists.alarms) == (prefixes("203.0.113.0/24"), [])
    assert len(reads) == 2


def test_an_alarm_about_a_database_ends_with_the_last_region(tmp_path: Path) -> None:
    """While no list has a region, a broken database harms nobody."""
    database = tmp_path / "geo.mmdb"
    database.write_bytes(b"broken")
    at = At(tmp_path, configured((ListKind.DENY, "country DE"), databases=(database,)))
    assert [alarm.code for alarm in at.lists.alarms] == ["geo.unreadable"]

    at.lists.configure(configured(databases=(database,)))
    asyncio.run(at.lists.refresh())
    assert at.lists.alarms == []
