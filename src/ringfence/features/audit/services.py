"""Asterisk's services besides telephony, from its files: the manager interface, its HTTP server, and ARI.

If Asterisk runs in this network namespace, the kernel's list of sockets shows on which addresses they
listen. Otherwise the addresses come from the files.
"""

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address

from attrs import evolve, frozen

from ringfence.features.audit.accounts import is_weak
from ringfence.host.asterisk_conf import AsteriskFiles, Conf, Section, is_true, joined
from ringfence.host.asterisk_logging import unread_of
from ringfence.host.conf_reader import Unread
from ringfence.netlink.sock_diag import LISTENING, address_of, port_of, sockets
from ringfence.values.network import Address

POWERS = ("all", "command", "originate", "system", "config")
"""Write classes of manager users that permit them to control this host or to call any number."""

_SECRET = frozenset({"secret", "password"})
_WANTED = frozenset(
    {
        *("enabled", "bindaddr", "port", "bindport", "tlsenable", "tlsbindaddr", "webenabled"),
        *("read", "write", "deny", "acl", "type", "password_format"),
    }
)
_ACLS = ("deny", "acl")
_ADDRESS = re.compile(r"(?:\[([0-9a-fA-F:.]{2,45})\]|([0-9.]{7,15})|([0-9a-fA-F:]{2,39}))(?::([0-9]{1,5}))?")
_NUMBER = re.compile(r"[0-9]{1,5}")


@frozen
class Manager:
    """A user of the manager interface.

    ``read`` and ``write`` are the user's rights, which Asterisk calls classes. ``restricted``: an ACL limits
    the addresses from which the user may log in. ``weak``: the user's password can be guessed easily.
    """

    name: str
    read: frozenset[str]
    write: frozenset[str]
    restricted: bool
    weak: bool

    @property
    def powers(self) -> tuple[str, ...]:
        """The write classes of this user that permit it to control this host or to call any number."""
        return tuple(power for power in POWERS if power in self.write)

    def may(self, side: str, name: str) -> bool:
        """Whether the user has the class ``name``, or all classes. ``side`` is "read" or "write"."""
        return not {name, "all"}.isdisjoint(self.read if side == "read" else self.write)


@frozen
class Listener:
    """A configured listening port.

    ``what`` is its service (AMI or HTTP). ``addresses`` are the local addresses on which it listens.
    ``setting`` is the option that makes it reachable from this host only. ``tls``: it uses TLS.
    """

    what: str
    port: int
    addresses: tuple[Address, ...]
    setting: str
    tls: bool = False

    @property
    def is_public(self) -> bool:
        """Whether other hosts may reach the port: it listens on more than loopback addresses."""
        return any(not address.is_loopback for address in self.addresses)


@frozen
class Services:
    """The services that Asterisk's files configure.

    ``managers``: the users of the manager interface, none if it is off. ``listeners``: the ports of the
    manager interface and of the HTTP server, as far as they are on. ``ari``: the users of ARI, none if it is
    off. ``weak_ari``: the users of ARI with weak passwords. ``webmanager``: the manager interface is also
    served over HTTP. ``unread``: parts of the files that are not known.
    """

    managers: tuple[Manager, ...] = ()
    listeners: tuple[Listener, ...] = ()
    ari: tuple[str, ...] = ()
    weak_ari: tuple[str, ...] = ()
    webmanager: bool = False
    unread: tuple[Unread, ...] = ()

    def manager(self, name: str) -> Manager | None:
        """Return the manager user with this name; None if there is no such user."""
        return next((manager for manager in self.managers if manager.name == name), None)

    def open_listeners(self, what: str) -> list[Listener]:
        """Return the ports of the service ``what`` (AMI or HTTP) that other hosts may reach."""
        return [door for door in self.listeners if door.what == what and door.is_public]


AMI, HTTP = "AMI", "HTTP"


def read_services(files: AsteriskFiles) -> Services:
    """Return the services that Asterisk's files configure.

    The addresses of a service come from the kernel's list of sockets, or else from the files.
    """
    read = {
        name: files.read(name, lambda _, option: option in _WANTED, lambda _, option: option in _SECRET)
        for name in ("manager.conf", "http.conf", "ari.conf")
    }
    manager, http, ari = (read[name] or Conf() for name in read)
    ami_on, http_on = (is_true(conf.section("general").last("enabled")) for conf in (manager, http))
    own, web = manager.section("general"), http.section("general")
    listeners = (
        *(_listeners(AMI, "manager.conf", own, "port", (5038, 5039)) if ami_on else ()),
        *(_listeners(HTTP, "http.conf", web, "bindport", (8088, 8089)) if http_on else ()),
    )
    users = _ari_users(ari) if is_true(ari.all_of("general").last("enabled", "yes")) else ()
    return Services(
        managers=tuple(map(_manager, _manager_users(manager))) if ami_on else (),
        listeners=listeners,
        ari=tuple(section.name for section in users),
        weak_ari=tuple(section.name for section in users if _is_weak_ari(section)),
        webmanager=is_true(own.last("webenabled")),
        unread=unread_of(read.values()),
    )


def _manager_users(conf: Conf) -> Iterator[Section]:
    """Yield a section for each manager user. Asterisk joins sections of one name, which has no case."""
    groups: dict[str, list[Section]] = {}
    for section in conf.sections:
        if section.name.lower() != "general":
            groups.setdefault(section.name.lower(), []).append(section)
    for parts in groups.values():
        yield joined(parts[0].name, parts)


def _manager(section: Section) -> Manager:
    secret = section.secret("secret")
    return Manager(
        section.name,
        read=frozenset(_classes(section.last("read"))),
        write=frozenset(_classes(section.last("write"))),
        restricted=any(section.last(option) for option in _ACLS),
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


def _listeners(
    what: str, file: str, general: Section, port_option: str, ports: tuple[int, int]
) -> Iterable[Listener]:
    """Yield a service's listener without TLS, and its listener with TLS if TLS is enabled.

    ``what`` is the service (AMI or HTTP). ``file`` and its section ``general`` configure it. The option
    ``port_option`` sets its port without TLS. ``ports`` are its default ports, without and with TLS.
    """
    text = general.last(port_option)
    plain = int(text) if _NUMBER.fullmatch(text) else ports[0]
    yield _listener(what, plain, general.last("bindaddr"), f"bindaddr = 127.0.0.1 in {file} [general]")
    if is_true(general.last("tlsenable")):
        setting = f"tlsbindaddr = 127.0.0.1:{ports[1]} in {file} [general]"
        yield evolve(_listener(what, ports[1], general.last("tlsbindaddr"), setting), tls=True)


def _listener(what: str, port: int, place: str, setting: str) -> Listener:
    """Return a listener on ``port``, or on the port in ``place`` if that names one.

    ``place`` is the address from the file, "" if the file names none. The listener has the addresses of the
    kernel's sockets at its port. If there is no such socket, it has the address in ``place``, or all
    addresses (``::``) if ``place`` is "". A host name in ``place`` is not resolved, and counts as no address.
    ``what`` and ``setting`` are those of :class:`Listener`.
    """
    written = _ADDRESS.fullmatch(place)
    if written and written[4]:
        port = int(written[4])
    found = listening_at(port) or ({ip_address("::")} if not place else set())
    if not found and written:
        with suppress(ValueError):
            found = {ip_address(written[1] or written[2] or written[3])}
    return Listener(what, port, tuple(sorted(found, key=str)), setting)


def listening_at(port: int) -> set[Address]:
    """Return the local addresses on which a program listens at a TCP port in this network namespace.

    Return an empty set if the kernel cannot list its sockets.
    """
    try:
        return {
            address_of(row.local)
            for family in (socket.AF_INET, socket.AF_INET6)
            for row in sockets(family, socket.IPPROTO_TCP, 1 << LISTENING)
            if port_of(row.local_port) == port
        }
    except OSError:  # the kernel lacks the module that lists sockets
        return set()
