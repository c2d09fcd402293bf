"""The control requests about lists."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.lists.world import At, configured, prefixes
from tests.support.mmdb import write

from ringfence.errors import ControlError, StoreError
from ringfence.lists.compose import ListNetworks
from ringfence.values.entry import ListKind

GATEWAY = ip_network("192.0.2.1")
PROTECTED = {GATEWAY: "the default gateway"}


def test_commands_add_and_remove_entries(tmp_path: Path) -> None:
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


def test_valid_entries_are_added_and_invalid_ones_reported(tmp_path: Path) -> None:
    """An invalid entry does not affect the others of the request."""
    at = At(tmp_path)
    answer = at.ask("deny_add", what=["rubbish", "203.0.113.9", "a.example", "country DE"])

    assert answer["done"] == ["203.0.113.9"]
    assert [problem.split(":")[0] for problem in answer["problems"]] == ["rubbish", "a.example", "country DE"]
    assert at.lists.networks.deny == prefixes("203.0.113.9")


def test_a_protected_network_is_denied_only_by_force(tmp_path: Path) -> None:
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


def test_a_name_cannot_be_denied_even_by_force(tmp_path: Path) -> None:
    """Force relies on the administrator's knowledge, and the future addresses of a name are unknown."""
    answer = At(tmp_path).ask("deny_add", what=["a.example"], force=True)

    assert answer["done"] == []


def test_denying_an_allowed_network_adds_a_note(tmp_path: Path) -> None:
    """The entry is kept, and a note explains that it changes nothing."""
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.0/24")))

    assert at.ask("deny_add", what=["192.0.2.7"])["notes"] == [
        "192.0.2.7 stays allowed: the allow list has 192.0.2.0/24, and it wins"
    ]


def test_an_entry_that_cannot_be_removed_is_reported_with_its_origin(tmp_path: Path) -> None:
    """The answer explains configured entries, parts of an entry, and missing entries."""
    at = At(tmp_path, configured((ListKind.ALLOW, "192.0.2.0/24"), (ListKind.DENY, "192.0.2.0/24")))
    answer = at.ask("allow_remove", what=["192.0.2.0/24", "192.0.2.7", "203.0.113.9", "rubbish"])

    assert answer["done"] == []
    assert answer["problems"][1:] == [
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


def test_a_command_removes_all_entries_or_none(tmp_path: Path) -> None:
    """If the database fails at the second entry, the first one stays in the database and in the kernel."""
    at = At(tmp_path)
    at.ask("deny_add", what=["192.0.2.7", "203.0.113.9"])
    at.store.connection._writer.execute(
        "CREATE TEMP TRIGGER busy BEFORE DELETE ON entries WHEN old.what = '203.0.113.9'"
        " BEGIN SELECT raise(ABORT, 'database is locked'); END"
    )
    with pytest.raises(StoreError, match="database is locked"):
        at.ask("deny_remove", what=["192.0.2.7", "203.0.113.9"])

    assert [row["entry"] for row in at.ask("lists", side="deny")] == ["192.0.2.7", "203.0.113.9"]
    assert at.lists.networks.deny == prefixes("192.0.2.7", "203.0.113.9")


def test_an_entry_that_is_named_twice_is_removed_once(tmp_path: Path) -> None:
    """The answer names it once, and has no problem."""
    at = At(tmp_path)
    at.ask("deny_add", what=["192.0.2.7"])

    answer = at.ask("deny_remove", what=["192.0.2.7", "192.0.2.7/32"])
    assert answer == {"done": ["192.0.2.7"], "problems": [], "notes": []}


@pytest.mark.parametrize("kind", list(ListKind))
def test_a_full_list_takes_no_more_by_command(tmp_path: Path, kind: ListKind) -> None:
    """An entry beyond the limit is refused and not stored; a network within a listed one needs no room."""
    at = At(tmp_path, configured((kind, "203.0.113.1"), (kind, "203.0.113.128/25"), most=3))

    answer = at.ask(f"{kind}_add", what=["203.0.113.200", "192.0.2.7", "192.0.2.9"])

    assert answer["done"] == ["203.0.113.200", "192.0.2.7"]
    assert answer["problems"] == [
        f"192.0.2.9: the {kind} list is full (3 networks); raise [firewall] max_bans and reload"
    ]
    assert [entry.value for entry in at.store.entries.current(kind, at.now)] == ["192.0.2.7", "203.0.113.200"]
    assert at.lists.alarms == []


def test_the_list_has_the_origin_of_each_entry(tmp_path: Path) -> None:
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
        ("list.unknown_region", "country XX")
    ]
    assert [row["networks"] for row in at.ask("lists", side="allow")] == [1]
