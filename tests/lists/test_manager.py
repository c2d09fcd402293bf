"""The lists at work, with a real database."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from tests.support.mmdb import write

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.errors import ControlError, StoreError
from ringfence.lists import manager
from ringfence.lists.compose import ListNetworks
from ringfence.lists.entries import CONFIGURATION, Configured
from ringfence.lists.importing import replace_imported
from ringfence.lists.manager import Lists
from ringfence.lists.prefixes import Prefixes
from ringfence.model import ListEntry, ListKind, Network
from ringfence.store.database import Store

GATEWAY = ip_network("192.0.2.1")
PROTECTED = {GATEWAY: "the default gateway"}
PATIENCE = 20.0


class At:
    """Lists with a database in a folder, a clock that the test sets, and the networks that they reported."""

    def __init__(self, folder: Path, configured: Configured | None = None) -> None:
        self.now = 1_000.0
        self.told: list[ListNetworks] = []
        self.followed: list[frozenset[str]] = []
        self.store = Store.open(folder / "db", owner=False)
        self.lists = Lists(
            self.store,
            configured if configured is not None else Configured(),
            self.told.append,
            now=lambda: self.now,
            follow=self.followed.append,
        )
        self.lists.load()

    def ask(self, do: str, **arguments: object) -> Any:  # noqa: ANN401 - as JSON has it
        """Send a request as a command does."""
        return asyncio.run(self._answer(do, arguments))

    async def _answer(self, do: str, arguments: Mapping[str, object]) -> object:
        answer: object = await self.lists.handlers()[do](arguments)
        return answer

    def run(self, script: Callable[[], Awaitable[None]]) -> None:
        """Run the lists in the background while the script runs."""

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(self.lists.run())
                await script()
                task.cancel()

        asyncio.run(both())

    async def until(self, true: Callable[[], object]) -> None:
        """Wait until a condition is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():  # noqa: ASYNC110 - what is waited for is a condition, not an event
                await asyncio.sleep(0.01)


def configured(
    *entries: tuple[ListKind, str], databases: tuple[Path, ...] = (), most: int = 1_000
) -> Configured:
    """Return a configuration."""
    said = (ListEntry(kind, value, "", 0.0, None, CONFIGURATION) for kind, value in entries)
    return Configured(tuple(said), databases, most)


def prefixes(*texts: str) -> Prefixes:
    """Return the networks of these texts."""
    return Prefixes.of(ip_network(text) for text in texts)


def test_what_is_configured_and_what_is_kept_is_in_force_from_the_start(tmp_path: Path) -> None:
    """Entries of both origins apply from the start, and names are followed."""
    At(tmp_path).ask("deny_add", what=["203.0.113.9"])
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.0/24"), (ListKind.ALLOW, "sip.carrier.example")))

    assert at.lists.networks == ListNetworks(prefixes("192.0.2.0/24"), prefixes("203.0.113.9"))
    assert at.followed == [frozenset({"sip.carrier.example"})]
    assert [(alarm.code, alarm.subject) for alarm in at.lists.alarms] == [
        ("list.unresolved", "sip.carrier.example")
    ]


def test_entries_come_and_go_by_command(tmp_path: Path) -> None:
    """Each change is reported once with the whole lists; adding an entry again replaces its note."""
    at = At(tmp_path)

    assert at.ask("allow_add", what=["192.0.2.7"], note="office") == {
        "done": ["192.0.2.7"],
        "problems": [],
        "notes": [],
    }
    at.ask("allow_add", what=["192.0.2.7/32"], note="the office")
    assert at.ask("allow_remove", what=["192.0.2.7"])["done"] == ["192.0.2.7"]

    assert at.told == [ListNetworks(allow=prefixes("192.0.2.7")), ListNetworks()]


def test_the_good_of_a_request_is_done_and_the_bad_is_told(tmp_path: Path) -> None:
    """An invalid entry does not affect the others of the request."""
    at = At(tmp_path)
    answer = at.ask("deny_add", what=["rubbish", "203.0.113.9", "a.example", "country DE"])

    assert answer["done"] == ["203.0.113.9"]
    assert [problem.split(":")[0] for problem in answer["problems"]] == ["rubbish", "a.example", "country DE"]
    assert at.lists.networks.deny == prefixes("203.0.113.9")


def test_what_is_protected_is_denied_by_force_only(tmp_path: Path) -> None:
    """The refusal has the reason; a forced entry removes the protection until the entry is removed."""
    at = At(tmp_path)
    at.lists.protect(PROTECTED)
    assert at.told == [ListNetworks(guarded=frozenset({GATEWAY}))]

    refused = at.ask("deny_add", what=["192.0.2.0/24"])
    assert refused["done"] == []
    assert refused["problems"] == [
        "192.0.2.0/24 contains 192.0.2.1, the default gateway: it is not denied; --force denies it anyway"
    ]
    at.ask("deny_add", what=["192.0.2.0/24"], force=True)
    assert at.lists.networks == ListNetworks(deny=prefixes("192.0.2.0/24"))
    at.lists.protect({})
    at.lists.protect(PROTECTED)
    assert at.lists.networks.guarded == frozenset()
    [row] = at.ask("lists", side="deny")
    assert row["forced"]

    at.ask("deny_remove", what=["192.0.2.0/24"])
    assert at.lists.networks == ListNetworks(guarded=frozenset({GATEWAY}))


def test_a_name_is_denied_by_no_force(tmp_path: Path) -> None:
    """Force relies on the administrator's knowledge, and the future addresses of a name are unknown."""
    answer = At(tmp_path).ask("deny_add", what=["a.example"], force=True)

    assert answer["done"] == []


def test_who_denies_what_is_allowed_is_told(tmp_path: Path) -> None:
    """The entry is kept, and a note explains that it changes nothing."""
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.0/24")))

    assert at.ask("deny_add", what=["192.0.2.7"])["notes"] == [
        "192.0.2.7 stays allowed: the allow list has 192.0.2.0/24, and it wins"
    ]


def test_what_cannot_be_removed_is_told_with_where_it_stands(tmp_path: Path) -> None:
    """The answer explains configured entries, parts of an entry, and missing entries."""
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.0/24"), (ListKind.DENY, "192.0.2.0/24")))
    answer = at.ask("allow_remove", what=["192.0.2.0/24", "192.0.2.7", "203.0.113.9", "rubbish"])

    assert answer["done"] == []
    assert answer["problems"][:3] == [
        "192.0.2.0/24 is in the configuration, [allow]: remove it there, and reload",
        "192.0.2.7 is not on the allow list itself, but within 192.0.2.0/24, which is",
        "203.0.113.9 is not on the allow list",
    ]
    at.ask("allow_add", what=["192.0.2.0/24"])
    assert at.ask("allow_remove", what=["192.0.2.0/24"]) == {
        "done": ["192.0.2.0/24"],
        "problems": [],
        "notes": ["192.0.2.0/24 is still in the configuration, [allow]"],
    }


def test_an_import_counts_when_the_lists_are_read_again(tmp_path: Path) -> None:
    """An imported file is one row, with its name."""
    at = At(tmp_path)
    networks = prefixes("203.0.113.0/24", "2001:db8::1")
    replace_imported(at.store, ListKind.DENY, "/srv/list", networks, note="VoIPBL", now=at.now, most=1_000)

    assert at.ask("lists_reload") == {"allow": 0, "deny": 2, "alarms": []}
    assert at.lists.networks.deny == networks
    [row] = at.ask("lists", side="deny")
    assert (row["entry"], row["file"], row["networks"], row["note"]) == ("/srv/list", True, 2, "VoIPBL")
    assert at.ask("deny_remove", origin="/srv/other")["problems"] == [
        "nothing on the deny list was imported from /srv/other"
    ]
    assert at.ask("deny_remove", origin="/srv/list")["done"] == ["2 networks of /srv/list"]
    assert at.lists.networks == ListNetworks()


def test_a_list_that_does_not_fit_is_an_alarm(tmp_path: Path) -> None:
    """The configuration determines the maximum size."""
    at = At(tmp_path, configured(*((ListKind.DENY, f"203.0.113.{n}") for n in (1, 3, 5)), most=2))

    text = "3 networks, of which the first 2 are in force: raise [firewall] max_bans"
    assert at.lists.alarms == [Alarm(AlarmCode.LIST_FULL, "deny list", text)]


@pytest.mark.parametrize("kind", list(ListKind))
def test_a_full_list_takes_no_more_by_command(tmp_path: Path, kind: ListKind) -> None:
    """An entry beyond the limit is refused and not stored; a network within a listed one needs no room."""
    at = At(tmp_path, configured((kind, "203.0.113.1"), (kind, "203.0.113.128/25"), most=3))

    answer = at.ask(f"{kind}_add", what=["203.0.113.200", "192.0.2.7", "192.0.2.9"])

    assert answer["done"] == ["203.0.113.200", "192.0.2.7"]
    assert answer["problems"] == [
        f"192.0.2.9: the {kind} list is full (3 networks); raise [firewall] max_bans and reload"
    ]
    assert [entry.value for entry in at.store.entries(kind, at.now)] == ["192.0.2.7", "203.0.113.200"]
    assert at.lists.alarms == []


def test_an_alarm_of_a_list_that_does_not_fit_ends_with_it(tmp_path: Path) -> None:
    """A reload with a lower limit raises the alarm, and one with a higher limit ends it."""
    entries = [(ListKind.DENY, f"203.0.113.{n}") for n in (1, 3, 5)]
    at = At(tmp_path, configured(*entries, most=3))
    assert at.lists.alarms == []
    at.lists.configure(configured(*entries, most=2))
    assert len(at.lists.alarms) == 1
    at.lists.configure(configured(*entries, most=3))
    assert at.lists.alarms == []


def test_the_list_says_where_each_entry_comes_from(tmp_path: Path) -> None:
    """Configured entries come first, and names are shown with their addresses."""
    at = At(tmp_path, configured((ListKind.ALLOW, "sip.carrier.example"), (ListKind.ALLOW, "other.example")))
    at.lists.on_resolved({"sip.carrier.example": frozenset({ip_network("192.0.2.7")})})
    at.ask("allow_add", what=["198.51.100.0/24"], note="office", seconds=3_600)

    rows = [
        (r["entry"], r["source"], r["networks"], r["leads_to"], r["ends"])
        for r in at.ask("lists", side="allow")
    ]
    assert rows == [
        ("sip.carrier.example", "configuration", 1, ["192.0.2.7"], None),
        ("other.example", "configuration", None, [], None),
        ("198.51.100.0/24", "command", 1, [], "1970-01-01T01:16:40Z"),
    ]
    with pytest.raises(ControlError, match='the list must be "allow" or "deny"'):
        at.ask("lists", side="friends")


def test_a_country_is_its_networks(tmp_path: Path) -> None:
    """A country can be on a list by command or configuration; a note reports a country without networks."""
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    at = At(tmp_path, configured((ListKind.ALLOW, "country DE"), databases=(database,)))
    assert at.lists.networks.allow == prefixes("203.0.113.0/24")

    answer = at.ask("deny_add", what=["country XX"])
    assert answer["done"] == ["country XX"]
    assert answer["notes"] == ["country XX: no database has a network of it, so nothing changes"]
    assert [(alarm.code, alarm.subject) for alarm in at.lists.alarms] == [
        ("list.unknown_place", "country XX")
    ]
    assert [row["networks"] for row in at.ask("lists", side="allow")] == [1]


def test_a_new_configuration_is_taken(tmp_path: Path) -> None:
    """A new configuration replaces entries, names and databases."""
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.7"), (ListKind.ALLOW, "sip.carrier.example")))

    async def script() -> None:
        at.lists.configure(configured((ListKind.DENY, "country DE"), databases=(database,)))
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(deny=prefixes("203.0.113.0/24"))]
    assert at.followed[-1] == frozenset()


def test_where_names_lead_is_taken(tmp_path: Path) -> None:
    """A DNS answer changes the list without a request."""
    at = At(tmp_path, configured((ListKind.ALLOW, "sip.carrier.example")))

    async def script() -> None:
        at.lists.on_resolved({"sip.carrier.example": frozenset({ip_network("192.0.2.7")})})
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(allow=prefixes("192.0.2.7"))]
    assert at.lists.alarms == []


def test_an_entry_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    assert at.told == [ListNetworks(deny=prefixes("203.0.113.0/24", "198.51.100.0/24"))]


def test_a_store_that_cannot_be_read_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists stay unchanged, and an alarm reports it until the store works again."""
    at = At(tmp_path, configured((ListKind.DENY, "203.0.113.9")))
    entries = at.store.entries

    def failing(kind: ListKind, now: float) -> list[ListEntry]:
        raise StoreError("disk gone")

    monkeypatch.setattr(at.store, "entries", failing)
    answer = at.ask("lists_reload")
    assert answer["deny"] == 1
    assert [(alarm["code"], alarm["text"]) for alarm in answer["alarms"]] == [
        ("list.unreadable", "the lists stay as they are: disk gone")
    ]

    monkeypatch.setattr(at.store, "entries", entries)
    assert at.ask("lists_reload")["alarms"] == []
    assert at.told == []


def test_a_store_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lists retry the store, and its entries apply soon after it works again, without a request."""
    monkeypatch.setattr(manager, "RETRY_EVERY", 0.02)
    at = At(tmp_path)
    entries = at.store.entries
    at.store.add_entries([ListEntry(ListKind.DENY, "203.0.113.9", "", at.now)])

    def failing(kind: ListKind, now: float) -> list[ListEntry]:
        raise StoreError("disk gone")

    monkeypatch.setattr(at.store, "entries", failing)

    async def script() -> None:
        at.lists.on_resolved({})
        await at.until(lambda: at.lists.alarms)
        monkeypatch.setattr(at.store, "entries", entries)
        await at.until(lambda: at.told)

    at.run(script)

    assert at.told == [ListNetworks(deny=prefixes("203.0.113.9"))]
    assert at.lists.alarms == []


def test_what_is_protected_is_guarded_at_once(tmp_path: Path) -> None:
    """A floating address is guarded when ``protect`` returns; the same addresses again report nothing."""
    at = At(tmp_path, configured((ListKind.DENY, "192.0.2.0/24")))
    own: dict[Network, str] = {ip_network("192.0.2.5"): "this host's own address"}
    for _ in range(2):
        at.lists.protect(own)

    assert at.told == [ListNetworks(deny=prefixes("192.0.2.0/24"), guarded=frozenset(own))]


def test_what_holds_an_address_is_found_among_very_many(tmp_path: Path) -> None:
    """Configured, added and imported entries are found; names and countries are found by their networks."""
    database = write(tmp_path / "geo.mmdb", [("203.0.113.0/24", {"country": {"iso_code": "DE"}})])
    at = At(tmp_path, configured((ListKind.ALLOW, "country DE"), databases=(database,)))
    at.ask("allow_add", what=["sip.carrier.example"])
    at.ask("deny_add", what=["198.51.100.0/24"], note="bad people")
    at.ask("deny_add", what=["198.51.100.9"], seconds=60)
    many = Prefixes.of(ip_network((0x0B000000 + (n << 9), 24)) for n in range(20_000))
    replace_imported(at.store, ListKind.DENY, "/list", many, note="", now=at.now, most=262_144)
    at.lists.on_resolved({"sip.carrier.example": frozenset({ip_network("192.0.2.7")})})

    def held(text: str) -> list[tuple[str, str, str]]:
        found = asyncio.run(at.lists.holding(ip_network(text)))
        return [(str(one.entry.kind), one.entry.value, str(one.network)) for one in found]

    assert held("203.0.113.5") == [("allow", "country DE", "203.0.113.0/24")]
    assert held("192.0.2.7") == [("allow", "sip.carrier.example", "192.0.2.7/32")]
    assert held("198.51.100.7") == [("deny", "198.51.100.0/24", "198.51.100.0/24")]
    assert len(held("198.51.100.9")) == 2
    assert held("11.0.2.200") == [("deny", "11.0.2.0/24", "11.0.2.0/24")]
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
