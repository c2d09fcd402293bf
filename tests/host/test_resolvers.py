"""The DNS resolvers of this host, read from files as they exist on real hosts."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.unprivileged import unprivileged

from ringfence.errors import HostError
from ringfence.host.protected import read_resolvers
from ringfence.values.network import Network

RESOLVED = """\
# This is /run/systemd/resolve/stub-resolv.conf managed by man:systemd-resolved(8).
nameserver 127.0.0.53
options edns0 trust-ad
search example.net
"""


def resolvers(*addresses: str) -> dict[Network, str]:
    """Return these addresses as the reader reports them."""
    return {ip_network(address): "a DNS resolver of this host" for address in addresses}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.53\n", ["192.0.2.53"]),
        ("nameserver\t192.0.2.53 # ours\r\nnameserver 2001:db8::53", ["192.0.2.53", "2001:db8::53"]),
        ("nameserver fe80::1%eth0\n", ["fe80::1"]),
        ("# nameserver 192.0.2.53\n; nameserver 192.0.2.54\n nameserver 192.0.2.55\n", []),
        ("nameserver\nnameserver one.example\nnameservers 192.0.2.53 x\n", []),
        ("nameserver 0.0.0.0\nnameserver ::1\nnameserver 127.0.0.1\n", []),
        ("nameserver 192.0.2.0/24\nnameserver \xff\xfe\n", []),
        ("", []),
    ],
    ids=["one", "two", "zone", "not from the beginning", "no address", "this host", "garbage", "empty"],
)
def test_lines_that_name_a_server(tmp_path: Path, text: str, found: list[str]) -> None:
    """Each nameserver line with a remote address counts; lines that the C library ignores do not."""
    path = tmp_path / "resolv.conf"
    path.write_text(text, "latin-1", newline="")
    assert read_resolvers(path, ()) == resolvers(*found)


def test_upstream_servers_of_a_local_server_count(tmp_path: Path) -> None:
    """If resolv.conf names a loopback address (systemd-resolved, dnsmasq), its upstream servers count."""
    path, upstream = tmp_path / "resolv.conf", tmp_path / "upstream"
    path.write_text(RESOLVED)
    upstream.write_text("nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    assert read_resolvers(path, (upstream, tmp_path / "none")) == resolvers("192.0.2.53", "2001:db8::53")


def test_an_unused_upstream_file_is_ignored(tmp_path: Path) -> None:
    """If resolv.conf names no local server, an upstream file that a server left behind is ignored."""
    path, upstream = tmp_path / "resolv.conf", tmp_path / "upstream"
    path.write_text("nameserver 198.51.100.53\n")
    upstream.write_text("nameserver 192.0.2.53\n")
    assert read_resolvers(path, (upstream,)) == resolvers("198.51.100.53")


def test_without_a_file_there_is_no_resolver(tmp_path: Path) -> None:
    """A host without resolv.conf has no resolvers, and that is no error."""
    assert read_resolvers(tmp_path / "none" / "resolv.conf", ()) == {}


def test_a_file_that_cannot_be_read_is_a_host_error() -> None:
    """An unreadable file raises HostError, unlike a file without resolvers."""
    with unprivileged() as folder:
        path = folder / "resolv.conf"
        path.write_text("nameserver 192.0.2.53\n")
        path.chmod(0)
        with pytest.raises(HostError, match=r"resolvers of this host cannot be read: .*Permission denied"):
            read_resolvers(path, ())
