"""The *protected* addresses, whose ban would hurt this host: its gateways, DNS resolvers and remote logins.

With the host's own addresses (``routes.py``) and its SIP proxies they are the :class:`ProtectedNetworks`. The
kernel reports changes of gateways.
Resolvers and logins are read every two seconds, because their files are few and short (0.06 ms for each
login, 0.02 ms for the resolvers). They are read in a thread, because a file or a user's name may come from a
server on the network.
"""

import asyncio
import ctypes
import pwd
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from ipaddress import ip_address, ip_network
from itertools import islice
from pathlib import Path
from typing import Literal, TypeAlias

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.clock import until_tick
from ringfence.errors import HostError
from ringfence.host.routes import follow_gateways, read_addresses, read_gateways
from ringfence.values.network import Address, Network, NetworkSet

# -- the DNS resolvers of this host
#
# ``/etc/resolv.conf`` lists them, or it lists a server on this host itself (systemd-resolved at 127.0.0.53,
# dnsmasq). Such a server queries other servers, and another file lists these (``UPSTREAM``). Only lines
# ``nameserver ADDRESS`` are read, as in the C library (``resolv.conf(5)``). The library uses only the first
# three, but other programs may use more, so all count.


RESOLV_CONF = Path("/etc/resolv.conf")
UPSTREAM = (
    Path("/run/systemd/resolve/resolv.conf"),
    Path("/run/NetworkManager/no-stub-resolv.conf"),
    Path("/run/dnsmasq/resolv.conf"),
)
"""Files that list the DNS servers which a DNS server on this host itself queries."""

_REASON = "a DNS resolver of this host"
_MOST_BYTES = 64 * 1024


def read_resolvers(path: Path = RESOLV_CONF, upstream: Sequence[Path] = UPSTREAM) -> dict[Network, str]:
    """Return the DNS servers of this host, each with its role; raise HostError if they cannot be read.

    Servers on this host itself are left out, but the servers that they query are included. If the file does
    not exist, there are no resolvers.
    """
    found = set(_servers(path))
    if any(address.is_loopback for address in found):
        found.update(address for file in upstream for address in _servers(file))
    return {
        ip_network(address): _REASON
        for address in sorted(found, key=str)
        if not (address.is_loopback or address.is_unspecified)
    }


def _servers(path: Path) -> Iterator[Address]:
    try:
        with path.open("rb") as file:
            lines = file.read(_MOST_BYTES).split(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise HostError(f"the DNS resolvers of this host cannot be read: {path}: {error.strerror}") from error
    for line in lines:
        words = line.split(None, 2)
        if len(words) > 1 and words[0] == b"nameserver" and line.startswith(b"n"):
            # A zone (fe80::1%eth0) names the link; firewall sets do not support zones.
            text = words[1].partition(b"%")[0].decode("ascii", "replace")
            try:
                yield ip_address(text)
            except ValueError:
                continue


# -- the remote logins on this host that logind knows. Their addresses must not be banned
#
# Only accepted logins count: sshd and similar programs open a session after a valid password or key. A mere
# connection to port 22 proves nothing, because anyone can open one.
#
# The sessions are read by libsystemd, a C library that every Debian has. It reads files below
# ``/run/systemd/sessions``, whose format is not documented, and needs neither D-Bus nor any permission.
# Only functions without callbacks are called. (A callback from C would need memory that is both writable
# and executable. ``MemoryDenyWriteExecute=`` in the daemon's systemd unit forbids that.) The daemon reads
# every two seconds, so no call may leave a reference cycle, as ``ctypes.cast`` and each ``systemd[name]`` do.


SESSIONS = Path("/run/systemd/sessions")
MOST = 1_000
"""The maximum number of remote logins that count. A user may open any number of them.

Local sessions do not count, and each takes one look at its file: logind allows 8,192 (``SessionsMax=``).
"""

_LIBRARY = "libsystemd.so.0"
# Sessions that are closing do not count, nor do login screens.
_OVER = b"closing"
_NOBODYS = frozenset({b"greeter", b"lock-screen", b"manager", b"manager-early"})


def why_no_logins(library: str = _LIBRARY) -> str:
    """Return the reason why logins cannot be read by the ``library`` of systemd; "" if they can."""
    if _systemd(library) is None:
        return f"logins from elsewhere are not known: {library} is not there; fix: install systemd's library"
    if not SESSIONS.is_dir():
        return f"logins from elsewhere are not known: {SESSIONS} is not there (no systemd-logind runs here)"
    return ""


def read_logins(library: str = _LIBRARY) -> dict[Network, str]:
    """Return the addresses of remote logins, each with a description; {} if logins cannot be read.

    A login whose remote host is known only by name is left out: the owner of an address chooses its name in
    the DNS, and a look-up takes time. The look-up of a user's name may take time too, so do not call this in
    the event loop.
    """
    found: dict[Network, set[str]] = {}
    systemd = _systemd(library)
    if systemd is None:
        return {}
    every = ((session, _remote(systemd, session)) for session in _sessions(systemd))
    remote = ((session, network) for session, network in every if network is not None)
    for session, network in islice(remote, MOST):
        found.setdefault(network, set()).add(_user_and_terminal(systemd, session))
    return {
        network: f"the remote host of a login ({', '.join(sorted(who))})" for network, who in found.items()
    }


@cache
def _systemd(library: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(library)
    except OSError:
        return None


def _sessions(systemd: ctypes.CDLL) -> Iterator[bytes]:
    """Yield the names of all login sessions, and free the memory of libsystemd's list."""
    names = ctypes.POINTER(ctypes.c_void_p)()
    count = systemd.sd_get_sessions(ctypes.byref(names))
    if count < 0:
        return
    given = [_taken(names[index]) for index in range(count)]
    _libc().free(names)
    yield from given


def _remote(systemd: ctypes.CDLL, session: bytes) -> Network | None:
    """Return the address of the remote host of a login session.

    Return None for a local session, a session that is closing, and a login screen.
    """
    # A zone (fe80::1%eth0) names the link; firewall sets do not support zones.
    host = _text(systemd, "remote_host", session).partition(b"%")[0].decode("ascii", "replace")
    try:
        address = ip_address(host)  # an address only, so that a login never protects a whole network
    except ValueError:
        return None
    if _text(systemd, "state", session) in {b"", _OVER} or _text(systemd, "class", session) in _NOBODYS:
        return None
    return None if address.is_loopback else ip_network(getattr(address, "ipv4_mapped", None) or address)


def _user_and_terminal(systemd: ctypes.CDLL, session: bytes) -> str:
    uid = ctypes.c_uint32()
    known = systemd.sd_session_get_uid(session, ctypes.byref(uid)) >= 0
    tty = _text(systemd, "tty", session).decode("utf-8", "replace")
    user = _user(uid.value) if known else "somebody"
    return f"{user} on {tty}" if tty else user


@cache
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _text(systemd: ctypes.CDLL, what: str, session: bytes) -> bytes:
    """Return the property ``what`` of a login session; b"" if the session lacks it or has ended."""
    answer = ctypes.c_void_p()
    if getattr(systemd, f"sd_session_get_{what}")(session, ctypes.byref(answer)) < 0:
        return b""
    return _taken(answer.value)


def _taken(pointer: int | None) -> bytes:
    """Return a copy of the text at ``pointer``, which libsystemd allocated, and free it; b"" for None."""
    if not pointer:
        return b""
    text = ctypes.string_at(pointer)
    _libc().free(pointer)
    return text


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free.restype = None
    return libc


LOOK_EVERY = 2.0
"""Seconds between two readings of this host's DNS servers and remote logins."""

Reasons: TypeAlias = Mapping[Network, str]
"""Networks that must stay reachable, each with its role (``the gateway of eth0``)."""


def read_protected() -> dict[str, Reasons | HostError]:
    """Return the networks that must stay reachable, with their roles: gateways, DNS servers, remote logins.

    Each of these three parts that cannot be read has an error instead. Do not call this function in a running
    event loop; use follow_protected there.
    """
    parts: dict[str, Reasons | HostError] = {}
    for part, read in (("gateways", read_gateways), ("resolvers", read_resolvers), ("logins", read_logins)):
        try:
            parts[part] = read()
        except HostError as error:
            parts[part] = error
    return parts


def follow_protected() -> dict[str, AsyncIterator[Reasons | HostError]]:
    """Return an endless iterator for each part of :func:`read_protected`, by its name.

    It yields the networks of this part now and after each change. It also yields each new error of the part;
    when the error has cleared, it yields the networks again.
    """
    return {
        "gateways": follow_gateways(),
        "resolvers": _look_at(read_resolvers),
        "logins": _look_at(read_logins),
    }


async def _look_at(read: Callable[[], Reasons]) -> AsyncIterator[Reasons | HostError]:
    known: Reasons | str | None = None
    while True:
        try:
            now = await asyncio.to_thread(read)
        except HostError as error:
            if known != str(error):
                known = str(error)
                yield error
        else:
            if known != now:
                known = now
                yield now
        await asyncio.sleep(until_tick(LOOK_EVERY))


def join_reasons(parts: Iterable[Reasons]) -> Reasons:
    """Return the networks of all ``parts``, each with all its roles: a router is often also DNS server."""
    reasons: dict[Network, list[str]] = {}
    for part in parts:
        for network, reason in part.items():
            reasons.setdefault(network, []).append(reason)
    return {network: " and ".join(each) for network, each in reasons.items()}


# -- the networks that this host needs: its own addresses, gateways, resolvers, remote logins, SIP proxies


_OWN = "an address of this host"
_PROXY = "a SIP proxy ([asterisk] proxies)"


class ProtectedNetworks:
    """The networks that this host needs, such as its own addresses, its gateway and its SIP proxies.

    They are never banned. :meth:`read` reads them, and the daemon then sets what has changed.
    """

    def __init__(self, proxies: NetworkSet) -> None:
        self.proxies = proxies
        """The addresses of the SIP proxies that the configuration names."""
        self._own: frozenset[Network] = frozenset()
        self.own_addresses: set[Address] = set()
        """This host's addresses, except those of loopback. The set is changed in place."""
        self._parts: dict[str, Reasons] = {}
        self._errors: dict[str, str] = {}

    @property
    def reasons(self) -> dict[Network, str]:
        """The protected networks, each with the reason as text, such as ``an address of this host``."""
        proxies = dict.fromkeys(self.proxies.networks, _PROXY)
        return {**proxies, **dict.fromkeys(self._own, _OWN), **join_reasons(self._parts.values())}

    @property
    def alarms(self) -> list[Alarm]:
        """An alarm if this host's addresses cannot be read, and one if other protected networks cannot."""
        return [Alarm(AlarmCode.HOST_UNREADABLE, what, error) for what, error in self._errors.items()]

    def is_own(self, address: Address) -> bool:
        """Whether ``address`` is one of this host's addresses. False for a loopback address."""
        return address in self.own_addresses

    def read(self) -> None:
        """Read this host's addresses and the other protected networks now; an error becomes an alarm.

        Do not call this while an event loop runs, because a library that it uses starts one.
        """
        try:
            self.set_own(read_addresses())
        except HostError as error:  # the follower tries again
            self.set_own(error)
        for part, found in read_protected().items():
            self.set_part(part, found)

    def set_own(self, own: frozenset[Network] | HostError) -> bool:
        """Set this host's own addresses, or why they cannot be read; return whether they changed."""
        if isinstance(own, HostError):
            return self._failed("addresses", own)
        self._errors.pop("addresses", None)
        before, self._own = self._own, own
        self.own_addresses.clear()
        addresses = (network.network_address for network in own)
        self.own_addresses.update(one for one in addresses if not one.is_loopback)
        return own != before

    def set_part(self, part: str, found: Reasons | HostError) -> bool:
        """Set a part of the other networks (such as the gateways), or why it cannot be read.

        Return whether the networks changed. After an error, those that were read last stay.
        """
        if isinstance(found, HostError):
            return self._failed(part, found)
        self._errors.pop(part, None)
        before, self._parts[part] = self._parts.get(part, {}), found
        return found != before

    def _failed(self, part: str, error: HostError) -> Literal[False]:
        self._errors[part] = str(error)
        return False
