"""Databases in MaxMind's format: records of all forms, damaged ones, and hostile ones."""

import io
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.mmdb import Number, Record, encode, write

from ringfence.features.geo import mmdb
from ringfence.features.geo.mmdb import Database, Location

DE = frozenset({"country DE"})
ADDRESS = int(ip_address("192.0.2.7"))


def database_of(data: bytes) -> Database:
    """Return a database of these bytes."""

    def read(at: int, size: int) -> bytes:
        file = io.BytesIO(data)
        file.seek(at)
        return file.read(size)

    return Database(read, len(data))


def with_record(folder: Path, record: object, *, tail: bytes = b"") -> Database:
    """Return a database of IPv4 whose only record has these values; ``tail`` follows it."""
    path = write(folder / "x.mmdb", [("192.0.2.0/24", {"MARK": "MARK"})], version=4)
    content = record if isinstance(record, bytes) else encode(record)
    return database_of(path.read_bytes().replace(encode({"MARK": "MARK"}), content + tail))


@pytest.mark.parametrize(
    ("record", "place"),
    [
        ({"country": {"names": {"en": "Germany"}, "iso_code": "DE"}}, Location("DE")),
        ({"country": {"x": 1}, "registered_country": {"iso_code": "de"}}, Location("DE")),
        ({"country": "Germany", "country_code": "DE", "asn": "AS64496"}, Location("DE", "AS64496")),
        ({"asn": "", "as_name": "Example"}, Location("", "", "Example")),
        ({"autonomous_system_number": 64496, "asn": "AS1"}, Location("", "AS64496")),
        ({"autonomous_system_number": Number(9, 2**40)}, Location("", f"AS{2**40}")),
        ({"autonomous_system_organization": "x" * 5_000}, Location("", "", "x" * mmdb.MAX_TEXT)),
        ({"x": ["a", {"b": ["c" * 300, "d" * 70_000]}], "country": {"iso_code": "DE"}}, Location("DE")),
        ({"y" * 300: 1, "country": {"iso_code": ["DE"]}}, Location()),
        (["country"], Location()),
        ({}, Location()),
        (b"\xe1" + encode("country") + b"\x42DE", Location("DE")),
        (b"\xe2" + encode("x") + b"\x01\x07" + encode("country") + b"\x42DE", Location("DE")),
        (b"\xe1" + encode("x") + b"\x04\x0812345678", Location()),
        (b"\xe1" + encode("asn") + b"\xb1" + bytes(17), Location()),
    ],
)
def test_the_place_of_a_record(tmp_path: Path, record: Record, place: Location) -> None:
    """Records are nested or flat; values that are not needed may have any form."""
    database = with_record(tmp_path, record)
    assert database.location_of(ADDRESS, 4) == place
    assert database.location_of(ADDRESS + 256, 4) == database.location_of(1, 6) == Location()


@pytest.mark.parametrize(
    ("pointer", "distance"),
    [
        (b"\x20\x28", 40),
        (b"\x28\x00\x00", 2_048),
        (b"\x30\x00\x00\x00", 526_336),
        (b"\x38\x00\x00\x10\x00", 4_096),
    ],
)
def test_a_value_may_be_a_pointer(tmp_path: Path, pointer: bytes, distance: int) -> None:
    """Each of the four sizes of a pointer names a position in the data."""
    record = b"\xe1" + encode("country") + pointer
    database = with_record(tmp_path, record, tail=bytes(distance - len(record)) + encode({"iso_code": "DE"}))
    assert database.location_of(ADDRESS, 4) == Location("DE")
    assert [found for found, _, _ in database.networks(DE)] == [DE]


@pytest.mark.parametrize(
    "record",
    [
        {"x": list(range(mmdb.MOST_VALUES))},
        b"\xe1" + encode("x") + b"\x1f\x04\xff\xff\xff" + bytes(9),
        b"\xff\xff\xff\xff",
        b"\xe1" + encode("x") + b"\x00\x05",
        b"\xe2" + encode("x") + b"\x5f\xff\xff\xff",
    ],
)
def test_a_record_of_endless_work_is_an_error(tmp_path: Path, record: object) -> None:
    """A record may have so many values, and each must be in the file."""
    database = with_record(tmp_path, record)
    with pytest.raises(ValueError, match=r"values|unknown type|cut"):
        database.location_of(ADDRESS, 4)


def test_pointers_that_point_to_themselves_end(tmp_path: Path) -> None:
    """A map of which each value points to the map itself has no country, and is decoded once."""
    assert (
        with_record(tmp_path, b"\xe2" + (encode("country") + b"\x20\x00") * 2).location_of(ADDRESS, 4)
        == Location()
    )
    assert with_record(tmp_path, b"\x20\x00").location_of(ADDRESS, 4) == Location()


def test_the_work_of_all_records_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many records of many values are an error, and so are too many records or nodes."""
    records = [(f"11.0.{n}.0/24", {"x": [*range(50)], "n": n}) for n in range(100)]
    data = write(tmp_path / "x.mmdb", records).read_bytes()
    assert [*database_of(data).networks(DE)] == []
    for name, most in (("MOST_WORK", 1_000), ("MOST_RECORDS", 99), ("MOST_NODES", 100)):
        monkeypatch.setattr(mmdb, name, most)
        with pytest.raises(ValueError, match=r"too many|more than"):
            [*database_of(data).networks(DE)]
        monkeypatch.undo()


def test_networks_may_share_a_record(tmp_path: Path) -> None:
    """Each network has the regions of its record, which is read once."""
    record = {"country": {"iso_code": "DE"}}
    path = write(tmp_path / "x.mmdb", [("192.0.2.0/24", record), ("203.0.113.0/24", record)], version=4)

    found = [*database_of(path.read_bytes()).networks(DE)]

    starts = [int(ip_address("192.0.2.0")), int(ip_address("203.0.113.0"))]
    assert found == [(DE, start, 24) for start in starts]


def test_any_number_of_pages_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some pages of a file are kept in memory."""
    monkeypatch.setattr(mmdb, "_MOST_PAGES", 2)
    records = [(f"11.{n}.0.0/16", {"country": {"iso_code": "DE"}, "n": "x" * 900}) for n in range(200)]
    assert len([*database_of(write(tmp_path / "x.mmdb", records).read_bytes()).networks(DE)]) == 200


@pytest.mark.parametrize("change", [("record_size", "record_sIze"), ("ip_version", "ip_versioN")])
def test_damaged_metadata_is_an_error(tmp_path: Path, change: tuple[str, str]) -> None:
    """The metadata must have what is needed to read the tree."""
    data = write(tmp_path / "x.mmdb", [("192.0.2.0/24", {"n": 1})]).read_bytes()
    with pytest.raises(ValueError, match="metadata is damaged"):
        database_of(data.replace(change[0].encode(), change[1].encode()))
    with pytest.raises(ValueError, match="no metadata"):
        database_of(data[:200])


@pytest.mark.parametrize("size", [24, 28, 32])
def test_a_cyclic_tree_is_an_error(tmp_path: Path, size: int) -> None:
    """Reading ends although a node points back to the first one."""
    for version in (4, 6):
        data = bytearray(
            write(tmp_path / "x.mmdb", [("192.0.2.0/24", {})], version=version, size=size).read_bytes()
        )
        data[0 : size // 4] = bytes(size // 4)
        with pytest.raises(ValueError, match="cycle"):
            [*database_of(bytes(data)).networks(DE)]
        assert database_of(bytes(data)).location_of(ADDRESS, 4) == Location()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_bytes_are_read_or_refused(tmp_path: Path, changes: list[tuple[int, int]]) -> None:
    """A file with any changed bytes has networks, or raises ValueError."""
    record = {"country": {"iso_code": "DE", "names": {"en": "x"}}, "asn": 5}
    broken = bytearray(
        write(tmp_path / "x.mmdb", [("192.0.2.0/24", record), ("2001:db8::/32", {})]).read_bytes()
    )
    for at, byte in changes:
        broken[at % len(broken)] = byte
    with suppress(ValueError):
        database = database_of(bytes(broken))
        database.location_of(ADDRESS, 4)
        assert all(found == DE for found, _, _ in database.networks(DE))
