"""Host names in the hosts file."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from ringfence.host.hosts_file import full_name, hosts_line, knows_host
from ringfence.host.names import MAX_SIZE, HostsFile


def test_it_is_parsed_once_for_each_change(tmp_path: Path) -> None:
    """A hundred lookups cost one reading, and a change or removal of the file is noticed."""
    path = tmp_path / "hosts"
    path.write_text("192.0.2.1 A.example b.example # a.example is a comment\n\n2001:db8::1 a.example\n")

    async def ask() -> None:
        hosts = HostsFile(path)
        asked = await asyncio.gather(*(hosts.addresses("a.example") for _ in range(100)))
        assert asked == [["192.0.2.1", "2001:db8::1"]] * 100
        assert await hosts.addresses("c.example") == []
        assert hosts.reads == 1
        path.write_text("192.0.2.7 a.example\n")
        os.utime(path, ns=(1, 1))
        assert await hosts.addresses("a.example") == ["192.0.2.7"]
        assert hosts.reads == 2
        path.unlink()
        assert await hosts.addresses("a.example") == []

    asyncio.run(ask())


def test_a_long_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    """Entries after the first megabyte are ignored."""
    path = tmp_path / "hosts"
    line = "0.0.0.0 advertiser.example\n"
    path.write_text("192.0.2.1 first.example\n" + line * (MAX_SIZE // len(line)) + "192.0.2.2 last.example\n")

    async def ask() -> list[list[str]]:
        hosts = HostsFile(path)
        return [await hosts.addresses(name) for name in ("first.example", "last.example")]

    assert asyncio.run(ask()) == [["192.0.2.1"], []]


@pytest.mark.parametrize(
    ("known", "full", "line"),
    [
        ("pbx.example.org", "pbx.example.org", "127.0.1.1 pbx.example.org pbx"),
        ("PBX.example.org.", "PBX.example.org", "127.0.1.1 PBX.example.org pbx"),
        ("pbx", "pbx", "127.0.1.1 pbx"),
        ("other.example.org", "pbx", "127.0.1.1 pbx"),
        ("pbx.example.org\n192.0.2.9 bank.example", "pbx", "127.0.1.1 pbx"),
        (None, "pbx", "127.0.1.1 pbx"),
    ],
)
def test_the_domain_of_this_host(
    monkeypatch: pytest.MonkeyPatch, known: str | None, full: str, line: str
) -> None:
    """Name servers know it, but they write nothing else into the hosts file."""

    def look_up(*_args: object, **_options: object) -> list[tuple[object, ...]]:
        if known is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, known, ("192.0.2.5", 0))]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    assert full_name("pbx") == full
    assert hosts_line("pbx", full_name("pbx")) == line


@pytest.mark.parametrize(
    ("hosts", "ways", "known"),
    [
        ("127.0.0.1 localhost\n", "files myhostname dns", True),
        ("127.0.0.1 localhost\n", "files dns myhostname", False),
        ("127.0.0.1 localhost\n", "files mdns4_minimal [NOTFOUND=return] dns mymachines myhostname", False),
        ("127.0.1.1 pbx\n", "files dns myhostname", True),
        ("::1 pbx\n", "files dns", True),
        ("2001:db8::5 pbx\n", "files dns", False),
    ],
)
def test_a_name_server_is_asked_before_what_stands_after_it(
    tmp_path: Path, hosts: str, ways: str, *, known: bool
) -> None:
    """The C library asks from left to right, and by IPv4 it ignores the lines of IPv6 addresses."""
    (tmp_path / "hosts").write_text(hosts, "utf-8")
    (tmp_path / "nsswitch.conf").write_text(f"hosts: {ways}\n", "utf-8")

    assert knows_host("pbx", tmp_path / "hosts", tmp_path / "nsswitch.conf") is known
