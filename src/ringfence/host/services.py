"""Asterisk's doors beside telephony, by its files: the manager interface, its HTTP server, ARI behind it.

What listens where is the kernel's word, if Asterisk runs in this network namespace; else the files'.
"""

import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from attrs import frozen

from ringfence.host.asterisk_conf import Conf, Section, is_true, read_conf
from ringfence.host.passwords import is_weak
from ringfence.host.sockets import LISTENING, address_of, port_of, sockets
from ringfence.model import Address

POWERS = ("all", "command", "originate", "system", "config")
"""Write classes of the manager interface that give its user this host, or calls to anywhere."""

_SECRET = frozenset({"secret", "password"})
_WANTED = frozenset(
    {
        *("enabled", "bindaddr", "port", "bindport", "tlsenable", "tlsbindaddr", "webenabled"),
        *("read", "write", "deny", "acl", "type", "password_format"),
    }
)
_ACLS = ("deny", "acl")
_PLACE = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15})|([0-9a-fA-F:]{2,39}))(?::([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,5}")


@frozen
class Manager:
    """A user of the manager interface: his classes, and what is wrong with him."""

    name: str
    read: frozenset[str]
    write: frozenset[str]
    bounded: bool
    weak: bool

    @property
    def powers(self) -> tuple[str, ...]:
        """Give the write classes that are dangerous in a thief's hands."""
        return tuple(power for power in POWERS if power in self.write)

    def may(self, side: str, name: str) -> bool:
        """Say whether a class is granted: ``may("read", "system")``."""
        return not {name, "all"}.isdisjoint(self.read if side == "read" else self.write)


@frozen
class Door:
    """A port that is meant to listen: what for, where, and the setting that says so."""

    what: str
    port: int
    addresses: tuple[Address, ...]
    setting: str

    @property
    def to_the_world(self) -> bool:
        """Whether it listens on more than loopback."""
        return any(not address.is_loopback for address in self.addresses)


@frozen
class Services:
    """What the files say. ``ari``: its users' names, where it is on; ``weak_ari``: those with weak passwords.

    ``webmanager``: the manager interface is served over HTTP too.
    """

    managers: tuple[Manager, ...] = ()
    doors: tuple[Door, ...] = ()
    ari: tuple[str, ...] = ()
    weak_ari: tuple[str, ...] = ()
    webmanager: bool = False
    unread: tuple[str, ...] = ()

    def manager(self, name: str) -> Manager | None:
        """Give the manager user of a name."""
        return next((manager for manager in self.managers if manager.name == name), None)

    def open_doors(self, what: str) -> list[Door]:
        """Give the doors of a kind that listen on more than loopback."""
        return [door for door in self.doors if door.what == what and door.to_the_world]


AMI, HTTP = "AMI", "HTTP"


def read_services(folder: Path) -> Services:
    """Read the files, and ask the kernel what listens."""
    read = {
        name: read_conf(
            folder / name, lambda _, option: option in _WANTED, lambda _, option: option in _SECRET
        )
        for name in ("manager.conf", "http.conf", "ari.conf")
    }
    manager, http, ari = (read[name] or Conf() for name in read)
    ami_on, http_on = (is_true(conf.section("general").last("enabled")) for conf in (manager, http))
    own, web = manager.section("general"), http.section("general")
    doors = (
        *(_doors(AMI, "manager.conf", own, "port", (5038, 5039)) if ami_on else ()),
        *(_doors(HTTP, "http.conf", web, "bindport", (8088, 8089)) if http_on else ()),
    )
    users = _ari_users(ari) if is_true(ari.section("general").last("enabled", "yes")) else ()
    return Services(
        managers=tuple(_manager(section) for section in manager.sections if section.name.lower() != "general")
        if ami_on
        else (),
        doors=doors,
        ari=tuple(section.name for section in users),
        weak_ari=tuple(section.name for section in users if _is_weak_ari(section)),
        webmanager=is_true(own.last("webenabled")),
        unread=tuple(name for name, conf in read.items() if conf and conf.unread),
    )


def _manager(section: Section) -> Manager:
    secret = section.secret("secret")
    return Manager(
        section.name,
        read=frozenset(_classes(section.last("read"))),
        write=frozenset(_classes(section.last("write"))),
        bounded=any(section.last(option) for option in _ACLS),
        weak=secret is not None and is_weak(secret, [section.name]),
    )


def _classes(text: str) -> Iterable[str]:
    return (part.strip().lower() for part in text.split(","))


def _ari_users(ari: Conf) -> tuple[Section, ...]:
    return tuple(section for section in ari.sections if section.last("type").lower() == "user")


def _is_weak_ari(section: Section) -> bool:
    secret = section.secret("password")
    plain = section.last("password_format", "plain").lower() == "plain"
    return plain and secret is not None and is_weak(secret, [section.name])


def _doors(
    what: str, file: str, general: Section, port_option: str, ports: tuple[int, int]
) -> Iterable[Door]:
    """Give the plain door and, where it is on, that over TLS."""
    text = general.last(port_option)
    plain = int(text) if _NUMBER.fullmatch(text) else ports[0]
    yield _door(what, plain, general.last("bindaddr"), f"bindaddr = 127.0.0.1 in {file} [general]")
    if is_true(general.last("tlsenable")):
        setting = f"tlsbindaddr = 127.0.0.1:{ports[1]} in {file} [general]"
        yield _door(what, ports[1], general.last("tlsbindaddr"), setting)


def _door(what: str, port: int, place: str, setting: str) -> Door:
    """Say where a door is: by what listens there, else as it is written. No address is every one.

    Where a name leads is the resolver's to say: that is nowhere here.
    """
    written = _PLACE.fullmatch(place)
    if written and written[4]:
        port = int(written[4])
    found = listening_at(port) or ({ip_address("::")} if not place else set())
    if not found and written:
        with suppress(ValueError):
            found = {ip_address(written[1] or written[2] or written[3])}
    return Door(what, port, tuple(sorted(found, key=str)), setting)


def listening_at(port: int) -> set[Address]:
    """Give the local addresses on which something listens at a TCP port, in this network namespace."""
    try:
        return {
            address_of(row.local[:4] if family is socket.AF_INET else row.local)
            for family in (socket.AF_INET, socket.AF_INET6)
            for row in sockets(family, socket.IPPROTO_TCP, 1 << LISTENING)
            if port_of(row.local_port) == port
        }
    except OSError:  # a kernel without the modules for it
        return set()
