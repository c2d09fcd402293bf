"""Asterisk's other services: listening addresses, users and their rights."""

import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

from ringfence.features.audit.services import AMI, HTTP, Manager, listening_at, read_services
from ringfence.host.asterisk_conf import AsteriskFiles

STRONG = "f3Q9zLw27vTk"


def write(etc: Path, **files: str) -> None:
    """Write configuration files by name."""
    for name, text in files.items():
        (etc / f"{name}.conf").write_text(text, "utf-8")


def test_nothing_is_on_unless_it_is_switched_on(tmp_path: Path) -> None:
    """Without files, and with Asterisk's own samples, nothing listens."""
    assert read_services(AsteriskFiles(tmp_path)).listeners == ()
    write(tmp_path, manager="[general]\nenabled=no\n[a]\nsecret=1\n", http="[general]\nbindaddr=0.0.0.0\n")

    services = read_services(AsteriskFiles(tmp_path))
    assert (services.listeners, services.managers) == ((), ())


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_configured_addresses(tmp_path: Path) -> None:
    """If nothing listens, the file's addresses count; none means all, and TLS is a listener of its own."""
    write(
        tmp_path,
        manager="[general]\nenabled=yes\nport=5040\ntlsenable=yes\ntlsbindaddr=[2001:db8::1]:5041\n",
        http="[general]\nenabled=yes\nbindaddr=127.0.0.1\nbindport=8090\ntlsenable=yes\ntlsbindaddr=name:1\n",
    )
    services = read_services(AsteriskFiles(tmp_path))

    assert [(door.what, door.port, [str(a) for a in door.addresses]) for door in services.listeners] == [
        (AMI, 5040, ["::"]),
        (AMI, 5041, ["2001:db8::1"]),
        (HTTP, 8090, ["127.0.0.1"]),
        (HTTP, 8089, []),
    ]
    assert [door.tls for door in services.listeners] == [False, True, False, True]
    assert [door.port for door in services.open_listeners(AMI)] == [5040, 5041]
    assert services.open_listeners(HTTP) == []


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_kernel_addresses_override_the_file(tmp_path: Path) -> None:
    """If the port is open, the kernel's addresses count."""
    write(tmp_path, manager="[general]\nenabled=yes\nbindaddr=127.0.0.1\nport=5999\n")
    assert read_services(AsteriskFiles(tmp_path)).open_listeners(AMI) == []

    with socket.create_server(("0.0.0.0", 5999)), socket.create_server(("::1", 5998), family=socket.AF_INET6):
        [door] = read_services(AsteriskFiles(tmp_path)).open_listeners(AMI)
        assert door.addresses == (ip_address("0.0.0.0"),)
        assert listening_at(5998) == {ip_address("::1")}
    assert listening_at(5999) == set()


def test_manager_users(tmp_path: Path) -> None:
    """Each user has its classes, the dangerous ones, an ACL or none, and a weak password or not."""
    write(
        tmp_path,
        manager=f"""
[general]
enabled = yes
[ringfence]
secret = {STRONG}
deny = 0.0.0.0/0.0.0.0
read = security, system
write = reporting
[admin]
secret = admin
permit = 10.0.0.0/255.0.0.0
read = all
write = all
""",
    )
    services = read_services(AsteriskFiles(tmp_path))
    own, admin = services.managers

    assert own == Manager(
        "ringfence", frozenset({"security", "system"}), frozenset({"reporting"}), restricted=True, weak=False
    )
    assert (own.may("read", "security"), own.may("write", "system"), own.powers) == (True, False, ())
    assert (admin.powers, admin.restricted, admin.weak) == (("all",), False, True)
    assert admin.may("write", "reporting")
    assert services.manager("nobody") is None
    assert STRONG not in repr(services)


def test_ari_users(tmp_path: Path) -> None:
    """If ARI is enabled, its users and their weak passwords are listed; hashes are not checked."""
    users = (
        f"[a]\ntype=user\npassword={STRONG}\n[b]\ntype=user\npassword=b\n"
        "[c]\ntype=user\npassword_format=crypt\npassword=$1$\n[d]\ntype=other\n"
    )
    write(tmp_path, ari=users)
    assert read_services(AsteriskFiles(tmp_path)).ari == ("a", "b", "c")
    assert read_services(AsteriskFiles(tmp_path)).weak_ari == ("b",)
    write(tmp_path, ari=f"[general]\nenabled=no\n{users}")
    assert read_services(AsteriskFiles(tmp_path)).ari == ()


def test_unread_files_are_named(tmp_path: Path) -> None:
    """A missing include makes the rest uncertain."""
    write(tmp_path, manager="[general]\nenabled=yes\nwebenabled=yes\n#include gone.conf\n")
    services = read_services(AsteriskFiles(tmp_path))

    assert [one.file for one in services.unread] == ["manager.conf"]
    assert services.webmanager


def test_only_the_first_general_section_counts(tmp_path: Path) -> None:
    """Asterisk ignores a second one in manager.conf and http.conf, and reads every one in ari.conf."""
    write(
        tmp_path,
        manager="[general]\nenabled=yes\n[general]\nenabled=no\nwebenabled=yes\n[a]\nread=call\n[A]\nwrite=system\n",
        http="[general]\nenabled=no\n[general]\nenabled=yes\n",
        ari="[general]\nenabled=no\n[general]\nenabled=yes\n[u]\ntype=user\npassword=x\n",
    )
    services = read_services(AsteriskFiles(tmp_path))

    [manager] = services.managers
    assert (manager.name, manager.read, manager.write) == ("a", frozenset({"call"}), frozenset({"system"}))
    assert not services.webmanager
    assert {listener.what for listener in services.listeners} == {"AMI"}
    assert services.ari == ("u",)
