"""Databases in MaxMind's format: the networks of countries and AS numbers, from files of the test."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.mmdb import Record, write

from ringfence.alarm_codes import Alarm
from ringfence.errors import ListError
from ringfence.features.geo import regions as geo
from ringfence.features.geo.regions import GeoDatabases, locations_of, networks_of
from ringfence.lists.prefixes import Prefixes

DE: Record = {
    "country": {"iso_code": "DE", "names": {"en": "Germany"}},
    "registered_country": {"iso_code": "FR"},
}
FR: Record = {"country": {"iso_code": "FR"}}
REGISTERED: Record = {"registered_country": {"iso_code": "DE"}}
NUMBER: Record = {"autonomous_system_number": 64496, "autonomous_system_organization": "Example"}
FLAT: Record = {"asn": "AS64496", "country": "Germany", "country_code": "DE"}
PLACES = frozenset({"country DE", "country FR", "AS64496"})


def read(databases: GeoDatabases, regions: frozenset[str]) -> Mapping[str, Prefixes]:
    """Read the databases, and return the networks of the regions."""
    databases.networks(regions)
    databases.read()
    return databases.networks(regions)


def prefixes(*texts: str) -> Prefixes:
    """Return the networks of these texts."""
    return Prefixes.of(ip_network(text) for text in texts)


@pytest.mark.parametrize("size", [24, 28, 32])
@pytest.mark.parametrize("aliases", [True, False])
def test_the_networks_of_a_region(tmp_path: Path, size: int, aliases: bool) -> None:  # noqa: FBT001 - a row of the table
    """Both IP versions are merged, for every record size; aliases of IPv4 are not counted twice."""
    path = write(
        tmp_path / "test.mmdb",
        [
            ("192.0.2.0/25", DE),
            ("192.0.2.128/25", REGISTERED),
            ("198.51.100.0/24", FR),
            ("203.0.113.7/32", NUMBER),
            ("2001:db8::/32", DE),
            ("2400:1::/33", FLAT),
        ],
        size=size,
        aliases=aliases,
    )

    assert networks_of(path, PLACES) == {
        "country DE": prefixes("192.0.2.0/24", "2001:db8::/32", "2400:1::/33"),
        "country FR": prefixes("198.51.100.0/24"),
        "AS64496": prefixes("203.0.113.7", "2400:1::/33"),
    }


def test_a_database_of_ipv4_alone(tmp_path: Path) -> None:
    """A tree may be 32 bits deep."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE), ("198.51.100.1/32", DE)], version=4)

    assert networks_of(path, PLACES)["country DE"] == prefixes("192.0.2.0/24", "198.51.100.1")


def test_ipv4_addresses_written_as_ipv6_are_left_out(tmp_path: Path) -> None:
    """IPv4-mapped, 6to4 and Teredo networks are skipped, also in files without alias records."""
    path = write(
        tmp_path / "test.mmdb",
        [("::ffff:192.0.2.0/120", DE), ("2002:c000:200::/40", DE), ("2001::/32", DE), ("2400::/32", DE)],
        aliases=False,
    )

    assert networks_of(path, PLACES)["country DE"] == prefixes("2400::/32")


def test_local_networks_are_left_out(tmp_path: Path) -> None:
    """A record of private networks, or one that contains some of them, denies no phone in the building."""
    path = write(tmp_path / "test.mmdb", [("10.0.0.0/8", DE), ("192.168.0.0/15", DE), ("fc00::/7", DE)])

    assert networks_of(path, PLACES)["country DE"] == Prefixes()


def test_a_record_of_the_whole_internet_is_an_error(tmp_path: Path) -> None:
    """No set of the kernel accepts a network of all addresses."""
    path = write(tmp_path / "test.mmdb", [("0.0.0.0/0", DE)], aliases=False)

    with pytest.raises(ListError, match="is broken: a record of it covers the whole internet"):
        networks_of(path, PLACES)


@pytest.mark.parametrize(
    "record", [{}, {"country": {}}, {"country": 5}, {"country": {"iso_code": 7}}, {"asn": ""}]
)
def test_a_record_may_be_empty(tmp_path: Path, record: Record) -> None:
    """Records of other shapes belong to no region."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", record)])

    assert set(networks_of(path, PLACES).values()) == {Prefixes()}


def test_an_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A missing file and an invalid one are reported with a fix."""
    text = tmp_path / "test.mmdb"
    text.write_text("no database", "utf-8")

    with pytest.raises(ListError, match=r"cannot be read: No such file.*; \[geo\] database names a file"):
        networks_of(tmp_path / "absent", PLACES)
    with pytest.raises(ListError, match=r"is broken: it has no metadata; \[geo\] database names a file"):
        networks_of(text, PLACES)
    text.write_bytes(b"")
    with pytest.raises(ListError, match="is broken"):
        networks_of(text, PLACES)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_broken_file_is_only_a_problem(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """A file with any changed bytes returns networks or raises ListError."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE), ("2001:db8::/32", FR)])
    broken = bytearray(path.read_bytes())
    for region, byte in changes:
        broken[region % len(broken)] = byte
    path.write_bytes(broken)
    with suppress(ListError):
        assert set(networks_of(path, PLACES)) == PLACES


def test_a_cyclic_tree_is_an_error(tmp_path: Path) -> None:
    """Reading ends although a node points back to the first one."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)], version=4)
    whole = bytearray(path.read_bytes())
    whole[0:6] = bytes(6)
    path.write_bytes(whole)

    with pytest.raises(ListError, match="has a cycle"):
        networks_of(path, PLACES)


def test_several_databases_are_merged(tmp_path: Path) -> None:
    """Country and AS databases are combined; a broken one is an alarm, and the others count."""
    first = write(tmp_path / "country.mmdb", [("192.0.2.0/24", DE)])
    second = write(tmp_path / "number.mmdb", [("203.0.113.0/24", NUMBER)])
    databases = GeoDatabases([first, tmp_path / "absent", second])

    found = read(databases, frozenset({"country DE", "AS64496", "country XX"}))

    assert found == {
        "country DE": prefixes("192.0.2.0/24"),
        "AS64496": prefixes("203.0.113.0/24"),
        "country XX": Prefixes(),
    }
    [alarm] = databases.alarms
    assert (alarm.code, alarm.subject) == ("geo.unreadable", f"{tmp_path}/absent")
    assert alarm.text.startswith(f"{tmp_path}/absent cannot be read")


def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """An update is noticed; a broken one is reported while it exists, and the known networks stay."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)])
    databases = GeoDatabases([path])
    regions = frozenset({"country DE"})
    assert read(databases, regions) == {"country DE": prefixes("192.0.2.0/24")}
    assert not databases.changed()

    _replace(path, b"broken")
    assert databases.changed()
    for _ in range(2):
        assert read(databases, regions) == {"country DE": prefixes("192.0.2.0/24")}
        assert len(databases.alarms) == 1
        assert not databases.changed()

    update = write(tmp_path / "update.mmdb", [("198.51.100.0/24", DE), ("203.0.113.0/24", FR)])
    _replace(path, update.read_bytes())
    assert read(databases, regions) == {"country DE": prefixes("198.51.100.0/24")}
    assert databases.alarms == []
    assert read(databases, PLACES)["country FR"] == prefixes("203.0.113.0/24")


def test_a_database_that_lost_almost_all_of_a_country_is_refused(tmp_path: Path) -> None:
    """The networks that were read last stay, also over a restart, and other regions are updated."""
    before: list[tuple[str, Record]] = [("192.0.2.0/24", DE), ("2001:db8::/32", DE)]
    path = write(tmp_path / "test.mmdb", [*before, ("198.51.100.0/24", FR)])
    regions, kept = frozenset({"country DE", "country FR"}), tmp_path / "kept" / "regions"
    first, rest = GeoDatabases([path], kept), ("203.0.113.0/24", FR)
    whole = read(first, regions)["country DE"]
    assert first.alarms == []

    updates: list[list[tuple[str, Record]]] = [[], [("192.0.2.0/28", DE), before[1]], before[:1]]
    for left in updates:
        _replace(path, write(tmp_path / "update.mmdb", [*left, rest]).read_bytes())
        for databases in (first, GeoDatabases([path], kept)):
            found = read(databases, regions)
            assert found == {"country DE": whole, "country FR": prefixes("203.0.113.0/24")}
            assert [(one.code, one.subject) for one in databases.alarms] == [("geo.refused", "country DE")]
            assert databases.alarms[0].text.endswith(f"remove {kept}, and restart ringfence")
            assert not databases.waits
    first.networks(frozenset({"country FR"}))
    assert first.alarms == []

    right = write(tmp_path / "right.mmdb", [("192.0.2.0/25", DE), before[1], rest])
    _replace(path, right.read_bytes())
    assert read(first, regions)["country DE"] == prefixes("192.0.2.0/25", "2001:db8::/32")
    assert first.alarms == []


def test_removing_the_kept_networks_accepts_a_small_database(tmp_path: Path) -> None:
    """After a restart, nothing is known with which the database could be compared."""
    path, kept = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)]), tmp_path / "regions"
    read(GeoDatabases([path], kept), PLACES)
    write(path, [("192.0.2.0/32", DE)])
    assert [one.code for one in _alarms(path, kept)] == ["geo.refused"]
    kept.unlink()
    assert _alarms(path, kept) == []


def _alarms(path: Path, kept: Path) -> Sequence[Alarm]:
    databases = GeoDatabases([path], kept)
    read(databases, PLACES)
    return databases.alarms


def test_no_file_is_read_for_regions_that_left_the_lists(tmp_path: Path) -> None:
    """The alarm about the file ends, and its changes count no more, until a region is listed again."""
    path = tmp_path / "test.mmdb"
    path.write_bytes(b"broken")
    databases = GeoDatabases([path])
    read(databases, frozenset({"country DE"}))
    assert len(databases.alarms) == 1

    assert databases.networks(frozenset()) == {}
    _replace(path, b"broken again")
    assert (databases.alarms, databases.changed(), databases.waits) == ([], False, False)

    _replace(path, write(tmp_path / "good.mmdb", [("192.0.2.0/24", DE)]).read_bytes())
    assert read(databases, frozenset({"country DE"})) == {"country DE": prefixes("192.0.2.0/24")}


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(content)
    os.utime(new, ns=(time.time_ns(), time.time_ns() + len(content)))
    new.replace(path)


def test_which_network_of_a_place_holds_another(tmp_path: Path) -> None:
    """Only regions of an earlier request have networks here, and a wider network is in none of them."""
    path = write(
        tmp_path / "test.mmdb", [("192.0.2.0/24", DE), ("2001:db8::/32", DE), ("198.51.100.0/24", FR)]
    )
    databases = GeoDatabases([path])
    read(databases, frozenset({"country DE"}))

    def around(text: str, region: str = "country DE") -> str:
        return str(databases.around(region, ip_network(text)))

    assert around("192.0.2.7") == around("192.0.2.0/24") == "192.0.2.0/24"
    assert around("2001:db8:1::7") == "2001:db8::/32"
    assert around("192.0.0.0/16") == around("203.0.113.1") == "None"
    assert around("198.51.100.1", "country FR") == "None"


def test_a_caller_that_has_no_more_time_gets_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the time is no fault of the database, which would be left out."""

    def late(_path: Path) -> None:
        raise TimeoutError("no answer in time")

    monkeypatch.setattr(geo, "_database", late)
    with pytest.raises(TimeoutError):
        locations_of([tmp_path / "x.mmdb"], [ip_address("192.0.2.1")])


def test_the_place_of_an_address(tmp_path: Path) -> None:
    """Each database adds what it has; a database without IPv6 or without content is left out."""
    countries = write(tmp_path / "country.mmdb", [("192.0.2.0/25", DE), ("2400:1::/33", FLAT)])
    numbers = write(tmp_path / "asn.mmdb", [("192.0.2.0/24", NUMBER)], version=4)
    broken = tmp_path / "broken.mmdb"
    broken.write_bytes(b"nothing")
    addresses = [ip_address(text) for text in ("192.0.2.1", "192.0.2.200", "2400:1::1", "203.0.113.1")]

    assert locations_of([broken, countries, numbers, tmp_path / "none"], addresses) == [
        {"country": "DE", "asn": "AS64496", "organisation": "Example"},
        {"asn": "AS64496", "organisation": "Example"},
        {"country": "DE", "asn": "AS64496"},
        {},
    ]


def test_the_networks_from_before_stay_until_all_is_read(tmp_path: Path) -> None:
    """Without reading a database, those of the last run are known; a region without them is unknown."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE), ("198.51.100.0/24", FR)])
    first = GeoDatabases([path], tmp_path / "kept" / "regions")
    assert read(first, frozenset({"country DE"})) == {"country DE": prefixes("192.0.2.0/24")}

    path.write_bytes(b"broken")
    later = GeoDatabases([path], tmp_path / "kept" / "regions")
    for _ in range(2):
        found = later.networks(frozenset({"country DE", "country FR"}))
        assert found == {"country DE": prefixes("192.0.2.0/24"), "country FR": Prefixes()}
        assert (later.unknown("country DE"), later.unknown("country FR")) == (False, True)
        assert str(later.around("country DE", ip_network("192.0.2.7"))) == "192.0.2.0/24"
        later.read()
    assert [alarm.code for alarm in later.alarms] == ["geo.unreadable"]

    write(path, [("203.0.113.0/24", DE)])
    assert read(later, PLACES)["country DE"] == prefixes("203.0.113.0/24")
    assert not any(map(later.unknown, PLACES))
    last = GeoDatabases([path], tmp_path / "kept" / "regions")
    assert last.networks(PLACES)["country DE"] == prefixes("203.0.113.0/24")
    assert last.waits


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"[" * 5_000, b'{"digest": 1, "regions": [], "sizes": []}\n']
)
def test_damaged_networks_from_before_are_unknown(tmp_path: Path, content: bytes) -> None:
    """A kept file that was not written whole is ignored, and so is a link."""
    kept = tmp_path / "regions"
    kept.write_bytes(content)
    databases = GeoDatabases([tmp_path / "absent"], kept)
    assert databases.networks(frozenset({"country DE"})) == {"country DE": Prefixes()}
    assert databases.unknown("country DE")


def test_networks_that_cannot_be_kept_are_an_alarm(tmp_path: Path) -> None:
    """They are in force, and an alarm states that a restart reads the databases again."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)])
    (tmp_path / "kept").write_bytes(b"no folder")
    databases = GeoDatabases([path], tmp_path / "kept" / "regions")
    assert read(databases, frozenset({"country DE"})) == {"country DE": prefixes("192.0.2.0/24")}
    assert [alarm.text.partition(":")[0] for alarm in databases.alarms] == [
        "cannot be written, so a restart reads the databases again"
    ]


def test_networks_that_could_not_be_kept_are_written_later(tmp_path: Path) -> None:
    """They wait for another try although no database changed; it ends the alarm."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)])
    folder = tmp_path / "kept"
    folder.write_bytes(b"no folder")
    databases = GeoDatabases([path], folder / "regions")
    read(databases, frozenset({"country DE"}))
    assert (databases.waits, databases.failed, len(databases.alarms)) == (True, True, 1)

    folder.unlink()
    databases.read()
    assert (databases.waits, databases.failed, databases.alarms) == (False, False, [])
    later = GeoDatabases([tmp_path / "absent"], folder / "regions")
    assert later.networks(frozenset({"country DE"})) == {"country DE": prefixes("192.0.2.0/24")}


def test_a_lack_of_memory_is_an_alarm_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not the database's own leaves it due; the other database counts."""
    first = write(tmp_path / "country.mmdb", [("192.0.2.0/24", DE)])
    second = write(tmp_path / "number.mmdb", [("203.0.113.0/24", NUMBER)])
    databases = GeoDatabases([first, second], tmp_path / "regions")

    def failing(path: Path, regions: frozenset[str]) -> Mapping[str, Prefixes]:
        if path == first:
            raise MemoryError
        return networks_of(path, regions)

    monkeypatch.setattr(geo, "networks_of", failing)
    for _ in range(2):
        assert read(databases, PLACES)["AS64496"] == prefixes("203.0.113.0/24")
        assert [(alarm.code, alarm.subject) for alarm in databases.alarms] == [("geo.unreadable", str(first))]
        assert databases.alarms[0].text.endswith("MemoryError")
        assert (databases.waits, databases.failed, databases.unknown("country DE")) == (True, True, True)

    monkeypatch.setattr(geo, "networks_of", networks_of)
    assert read(databases, PLACES)["country DE"] == prefixes("192.0.2.0/24")
    assert (databases.alarms, databases.waits, databases.failed) == ([], False, False)


def test_a_lack_of_memory_for_the_kept_networks_is_an_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The networks are in force all the same."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)])
    databases = GeoDatabases([path], tmp_path / "regions")

    def failing(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ringfence.lists.kept.write", failing)
    assert read(databases, PLACES)["country DE"] == prefixes("192.0.2.0/24")
    assert [alarm.text.rpartition(": ")[2] for alarm in databases.alarms] == ["MemoryError"]


def test_kept_networks_are_not_written_through_a_link(tmp_path: Path) -> None:
    """Whatever stands where the new file is written is removed, and a link's target stays unchanged."""
    path = write(tmp_path / "test.mmdb", [("192.0.2.0/24", DE)])
    kept, victim = tmp_path / "regions", tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "regions.new").symlink_to(victim)
    databases = GeoDatabases([path], kept)
    read(databases, PLACES)
    assert (victim.read_bytes(), databases.alarms) == (b"precious", [])
    assert kept.is_file()
    assert not kept.is_symlink()


def test_a_database_is_a_regular_file(tmp_path: Path) -> None:
    """A pipe, from which nothing ever comes, is refused and does not block."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ListError, match="is not a regular file"):
        networks_of(tmp_path / "pipe", PLACES)


def test_the_number_of_networks_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks of a region are merged before they are counted."""
    monkeypatch.setattr(geo, "MOST_NETWORKS", 10)
    path = write(tmp_path / "test.mmdb", [(f"11.0.{n}.0/24", DE) for n in range(64)])
    assert networks_of(path, PLACES)["country DE"] == prefixes("11.0.0.0/18")
    write(path, [(f"11.0.{n}.0/24", DE) for n in range(0, 64, 2)])
    with pytest.raises(ListError, match="more than 10 networks of these regions"):
        networks_of(path, PLACES)


def test_the_texts_of_a_database_are_escaped(tmp_path: Path) -> None:
    """A hostile database puts no control character and no long text into a mail or a command."""
    hostile: Record = {"asn": "AS1\r\n\x1b[2J" + "x" * 150, "country_code": "\n\u202e"}
    path = write(tmp_path / "flat.mmdb", [("192.0.2.0/24", hostile)])

    [found] = locations_of([path], [ip_address("192.0.2.1")])

    assert found.keys() >= {"asn", "country"}
    assert all(text.isprintable() and len(text) < 400 for text in found.values())
