"""Networks that setup proposes for the allow list."""

from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.features.setup.world import make_host

from ringfence.errors import HostError
from ringfence.features.setup import find
from ringfence.features.setup.find import networks_to_exempt, ssh_client, trunks_in, without_parts
from ringfence.host.console_tables import Trunk


@pytest.mark.parametrize(
    ("text", "client"),
    [
        ("192.0.2.9 50000 192.0.2.1 22", "192.0.2.9/32"),
        ("2001:db8::9 50000 2001:db8::1 22", "2001:db8::9/128"),
        ("fe80::1%eth0 1 fe80::2%eth0 22", "fe80::1/128"),
        ("::ffff:192.0.2.9 1 2 22", "192.0.2.9/32"),
        ("127.0.0.1 1 127.0.0.1 22", None),
        ("", None),
    ],
)
def test_the_ssh_client_is_exempt(text: str, client: str | None) -> None:
    """The variable has client and server, each with its port."""
    found = ssh_client({"SSH_CONNECTION": text})

    assert found == (ip_network(client) if client else None)


def test_a_trunk_with_a_wide_network_is_left_out() -> None:
    """A network of half of the Internet is no trunk."""
    trunks = [Trunk("a", ip_network("198.51.100.0/24")), Trunk("b", ip_network("128.0.0.0/1"))]

    assert trunks_in(trunks) == {ip_network("198.51.100.0/24"): "trunk a"}


def test_a_network_within_another_one_is_left_out() -> None:
    """The widest one is enough."""
    networks = {ip_network(text): "" for text in ("10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "fd00::/64")}

    assert [str(network) for network in without_parts(networks)] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "fd00::/64",
    ]


@pytest.mark.kernel
def test_local_networks_and_the_client_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network has its reason; a kernel that cannot be asked is reported and stops nothing."""
    asterisk = make_host(tmp_path).asterisk()
    environ = {"SSH_CONNECTION": "192.0.2.9 1 192.0.2.1 22"}
    monkeypatch.setattr(find, "read_local_networks", lambda: {ip_network("10.0.0.0/24"): "eth0"})
    found, problems = networks_to_exempt(asterisk, environ)

    assert (problems, {str(network): why for network, why in found.items()}) == (
        [],
        {"10.0.0.0/24": "the network of eth0", "192.0.2.9/32": "your SSH session comes from there"},
    )

    def fail() -> None:
        raise HostError("no rtnetlink")

    monkeypatch.setattr(find, "read_local_networks", fail)
    assert networks_to_exempt(asterisk, {}) == ({}, ["no rtnetlink"])
