"""The alarm about phones that are gone: when it begins, what it says, and what a restart keeps."""

import asyncio
from ipaddress import ip_address
from itertools import pairwise
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve
from tests.support.kept import Kept

from ringfence.config.converters import Name
from ringfence.config.loader import parse
from ringfence.config.schema import Settings
from ringfence.errors import ConfigError
from ringfence.features.phones import guard as phones
from ringfence.features.phones.absence import AT_ONCE, BREAK, DAY, GoneNetwork, SavedPhone
from ringfence.features.phones.guard import AGAIN, SAVE_EVERY, STALE, GonePhones
from ringfence.features.phones.settings import PhonesSettings
from ringfence.features.phones.table import PhonesTable
from ringfence.store.database import Store
from ringfence.values.event import Service
from ringfence.values.friend import Contact, Roster
from ringfence.values.network import parse_network

PBX, AFTER = "asterisk", 1_800.0
HOME, FAR = "203.0.113.7", "198.51.100.9"


def contact(account: str, address: str = HOME, **more: bool) -> Contact:
    """Return a contact of an account."""
    return Contact(PBX, Service.PJSIP, account, ip_address(address), **more)


class World:
    """The feature beside the parts that guard, with an Asterisk whose lists a test writes."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.listening: dict[str, float] = {PBX: 1.0}
        self.contacts: list[Contact] = []
        self.table = PhonesTable(kept.store.connection)
        self.start()

    def start(self) -> None:
        """Start the feature, as the daemon does."""
        sources: Any = SimpleNamespace(listening=self.listening)
        self.feature = GonePhones(self.kept.side, sources, AFTER)
        self.feature.begin()

    def know(self, *accounts: str, address: str = HOME) -> None:
        """Let the phones of these accounts be registered for two days, and start the feature again."""
        self.contacts += [contact(account, address) for account in accounts]
        now = self.kept.now
        self.table.replace(
            [SavedPhone(PBX, one.account, one.address, now - 2 * DAY, now) for one in self.contacts]
        )
        self.start()

    def lose(self, *accounts: str) -> None:
        """Take the contacts of these accounts out of the lists."""
        self.contacts = [one for one in self.contacts if one.account not in accounts]

    def look(self, seconds: float = 60.0, *, lists: bool = True) -> str:
        """Let so much time pass, with a list of Asterisk each minute; return the text of the alarm."""
        until = self.kept.now + seconds
        while True:
            if lists:
                self.feature.on_roster(Roster(PBX, tuple(self.contacts), ()))
            asyncio.run(self.feature.look())
            if self.kept.now >= until:
                break
            self.kept.now = min(until, self.kept.now + 60.0)
        self.kept.alarms.hold(self.feature.alarms())
        [*_, text] = ["", *(one.text for one in self.kept.alarms.active)]
        return text

    @property
    def began(self) -> list[float]:
        """The time since which the alarm is active."""
        return [one.since for one in self.kept.alarms.active]


@pytest.fixture(name="world")
def _world(kept: Kept) -> World:
    """Return a world whose clock has run for long."""
    kept.now += 30 * DAY
    return World(kept)


def test_it_is_off_by_default() -> None:
    """Without the setting nothing is built, and a duration switches it on."""
    assert Settings().of(PhonesSettings).gone_after is None
    ami = [{"ami": {"secret": "x"}}]
    read = parse({"asterisk": ami, "phones": {"gone_after": "30m"}}, "here", {})
    assert read.of(PhonesSettings).gone_after == 1_800.0
    with pytest.raises(ConfigError, match="gone_after"):
        parse({"asterisk": ami, "phones": {"gone_after": "soon"}}, "here", {})
    with pytest.raises(ConfigError, match="gone_after: must be at most 3d"):
        parse({"asterisk": ami, "phones": {"gone_after": "8d"}}, "here", {})

    def given(settings: PhonesSettings) -> Any:  # noqa: ANN401 - parts of the daemon
        wanted = SimpleNamespace(settings=SimpleNamespace(of=lambda _: settings))
        return SimpleNamespace(side=SimpleNamespace(kernel=SimpleNamespace(wanted_rules=wanted)))

    assert phones.build(given(PhonesSettings())) is None


def test_the_phones_of_an_office_are_one_alarm(world: World) -> None:
    """The alarm lists the phones by network, says if it is the line, and clears when they come back."""
    world.know("alice", "bob")
    world.know("carol", "dave", address=FAR)
    assert world.look(600.0) == ""
    lost, mine = world.kept.now, list(world.contacts)
    world.lose("alice", "bob", "carol")
    assert world.look(AFTER - 10) == ""
    text = world.look()
    assert text.startswith("all 2 phones of 203.0.113.0/24 since 2023-")
    assert "(alice, bob): it is the line or the power there; 1 of 2 phones of 198.51.100.0/24 since " in text
    assert text.endswith("(carol)")
    assert world.feature.section().as_json() == {"phones_registered": 1, "phones_gone": 3}
    assert world.began == [pytest.approx(world.kept.now, abs=1.0)]

    world.contacts = mine
    assert world.look() == ""
    assert world.kept.now - lost < AFTER + 300


def test_a_change_counts_at_once(world: World) -> None:
    """Asterisk reports that a phone does not answer, or is gone, before the next list."""
    world.know("alice", "bob", "carol")
    world.look()
    world.lose("alice", "bob")
    world.contacts.append(contact("alice", unreachable=True))
    world.feature.on_contact(contact("alice", unreachable=True))
    world.feature.on_contact(contact("bob", gone=True))
    world.look(AFTER - 10)
    assert world.feature.alarms() == []
    assert "(alice, bob)" in world.look(10)
    world.feature.on_contact(contact("alice", reachable=True))
    assert "(bob)" in world.look(0, lists=False)


def test_nothing_is_gone_that_nobody_could_see(world: World) -> None:
    """While the manager interface is not connected, or sends no list, absences do not count."""
    world.know("alice", "bob")
    world.look()
    world.lose("alice")
    world.look()
    del world.listening[PBX]
    assert world.look(2 * AFTER, lists=False) == ""
    world.listening[PBX] = 1.0
    assert world.look(AFTER - 60) == ""
    assert "(alice)" in world.look(120)

    world.lose("bob")
    world.look()
    assert "bob" not in world.look(STALE + AFTER, lists=False)
    assert "(bob)" in world.look(AFTER + 60).replace("alice, ", "")


def test_a_restart_of_asterisk_gives_phones_an_hour(world: World) -> None:
    """An Asterisk that forgot its contacts lists none; the phones register again within an hour."""
    world.know("alice", "bob")
    world.look()
    mine = list(world.contacts)
    world.lose("alice", "bob")
    world.listening[PBX] = world.kept.clock.mono()
    assert world.look(BREAK) == ""
    world.contacts = mine[:1]
    assert world.look(AFTER - 60) == ""
    assert "1 of 2 phones" in world.look(120)


def test_none_is_listed_in_outage_mode(world: World) -> None:
    """When all phones fail at once, another alarm says so; the absence counts from its end."""
    world.know("alice", "bob")
    world.look()
    friends = world.kept.side.exempt.friends.friends
    friends.set_outage_mode(on=True)
    world.lose("alice", "bob")
    assert world.look(3 * AFTER) == ""
    friends.set_outage_mode(on=False)
    assert world.look(AFTER - 60) == ""
    assert "all 2 phones" in world.look(120)


def test_a_restart_of_the_daemon_keeps_the_alarm(world: World) -> None:
    """Phones that are listed stay so, and those that disappear meanwhile have an hour, too."""
    world.know("alice", "bob", "carol")
    world.look()
    world.lose("alice")
    before = world.look(AFTER + 60)
    assert "(alice)" in before
    began = world.began
    world.feature.finish()
    world.lose("bob")
    world.listening = {PBX: 2.0}
    world.start()
    assert [one.text for one in world.feature.alarms()] != []
    assert "1 of 2 phones" in world.look(BREAK)
    assert "2 of 3 phones" in world.look(AFTER + 60)
    assert world.began != began


def test_phones_are_saved_now_and_then(world: World) -> None:
    """A daemon that is killed remembers the phones that were registered ten minutes before."""
    world.know("alice")
    world.look(SAVE_EVERY + 60)
    saved = [one.seen for one in world.table.all()]
    assert saved == [pytest.approx(world.kept.now, abs=120.0)]
    world.lose("alice")
    world.look(120.0)
    assert [one.away for one in world.table.all()] == [True]


def test_a_phone_that_comes_and_goes_is_no_reason_to_save_all(world: World) -> None:
    """All phones are written at most once a minute, whatever one phone does."""
    world.know("alice", "bob")
    world.look()
    saved = []
    for number in range(60):
        world.feature.on_contact(contact("alice", gone=number % 2 == 0))
        asyncio.run(world.feature.look())
        saved.append(world.feature._saved_at)
        world.kept.now += 5.0
    assert len(set(saved)) <= 6


def test_many_changes_leave_room_for_other_work(world: World) -> None:
    """If all phones of a large PBX change at once, the event loop runs other work meanwhile."""
    for number in range(1_000):
        world.feature.on_contact(contact(f"phone-{number}"))
    left = [1_000]

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(world.feature.look())
            while not looking.done():
                left.append(len(world.feature._waiting))
                await asyncio.sleep(0)

    asyncio.run(main())
    assert left[-1] == 0
    assert max(before - after for before, after in pairwise(left)) <= AT_ONCE


def test_further_phones_begin_the_alarm_again(world: World) -> None:
    """The alarm about more phones is notified again, also after it was dismissed, once an hour."""
    world.know("alice", "bob")
    world.know("carol", address=FAR)
    world.look()
    world.lose("alice")
    world.look(AFTER + 60)
    first = world.began
    world.lose("carol")
    world.look(AFTER + 60)
    assert world.began == first
    [alarm] = world.kept.alarms.active
    world.kept.alarms.dismiss(alarm.number, "root")
    world.look(AGAIN)
    assert world.began != first


def test_phones_of_a_removed_asterisk_are_forgotten(world: World) -> None:
    """A new configuration without the Asterisk ends the alarm."""
    world.know("alice")
    world.look()
    world.lose("alice")
    assert world.look(AFTER + 60) != ""
    settings = world.kept.side.kernel.wanted_rules.settings
    world.feature.on_fact(settings)
    assert world.look(0, lists=False) != ""
    world.feature.on_contact(contact("alice"))  # it is handled after the new configuration
    world.feature.on_fact(evolve(settings, asterisk=(evolve(settings.asterisk[0], name=Name("other")),)))
    assert world.look(0, lists=False) == ""
    assert world.feature.section().as_json()["phones_registered"] == 0

    world.table.replace([SavedPhone("other", "bob", ip_address(FAR), 1.0, world.kept.now)])
    world.start()
    assert world.feature.section().as_json()["phones_registered"] == 0


def test_an_asterisk_that_lists_no_contacts_loses_none(world: World) -> None:
    """Changes alone do not show which phones there are."""
    world.know("alice")
    world.feature.on_contact(contact("alice", gone=True))
    assert world.look(AFTER + BREAK, lists=False) == ""


def test_long_texts_are_cut() -> None:
    """The text names twenty networks, and ten phones of each, and escapes what a name contains."""
    networks = [
        GoneNetwork(parse_network(f"10.0.{n}.0/24"), ("a\n", *(str(i) for i in range(11))), 0.0, 1)
        for n in range(25)
    ]
    text = phones.text_of(networks, 0.0)
    assert text.count("; ") == 20
    assert text.startswith("12 of 13 phones of 10.0.0.0/24 since 1970-01-01T00:00:00")
    assert "(a\\n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 2 more); " in text
    assert text.endswith("; 60 phones of 5 other networks")


def test_the_table_keeps_what_it_gets(store: Store) -> None:
    """Rows are replaced as a whole; a damaged row is left out, and an old one is removed."""
    table = PhonesTable(store.connection)
    one = SavedPhone(PBX, "alice", ip_address(HOME), 1.0, 2.0, away=True, until=inf, listed=True)
    table.replace([one, one._replace(account="bob", seen=3.0, until=None)])
    assert [phone.account for phone in table.all()] == ["alice", "bob"]
    table.replace([one])
    with store.connection.transaction() as execute:
        execute("INSERT INTO phones VALUES ('asterisk', 'x', 'nowhere', 1, 2, 0, NULL, 0)")
    assert table.all() == [one]
    store.purge(8 * DAY)
    assert table.all() == []
