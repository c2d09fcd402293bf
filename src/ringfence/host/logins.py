"""The remote logins on this host that logind knows. Their addresses must not be banned.

Only accepted logins count: sshd and similar programs open a session after a valid password or key. A mere
connection to port 22 proves nothing, because anyone can open one.

The sessions are read by libsystemd, a C library that every Debian has. It reads files below
``/run/systemd/sessions``, whose format is not documented, and needs neither D-Bus nor any permission. Only
functions without callbacks are called. (A callback from C would need memory that is both writable and
executable. ``MemoryDenyWriteExecute=`` in the daemon's systemd unit forbids that.)
"""

import ctypes
import pwd
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path

from ringfence.model import Network

SESSIONS = Path("/run/systemd/sessions")
MOST = 1_000
"""The maximum number of sessions that are read. A user may open any number of them."""

_LIBRARY = "libsystemd.so.0"
# Sessions that are closing do not count, nor do login screens.
_OVER = b"closing"
_NOBODYS = frozenset({b"greeter", b"lock-screen", b"manager", b"manager-early"})


def why_no_logins(library: str = _LIBRARY) -> str:
    """Return the reason why logins cannot be read on this host; "" if they can."""
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
    for session in _sessions(systemd):
        network = _remote(systemd, session)
        if network is not None:
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
    """Yield the names of the first ``MOST`` sessions. The memory of libsystemd's list is freed."""
    names = ctypes.POINTER(ctypes.c_void_p)()
    count = systemd.sd_get_sessions(ctypes.byref(names))
    if count < 0:
        return
    given = [_taken(names[index]) for index in range(count)]
    _free(ctypes.cast(names, ctypes.c_void_p))
    yield from given[:MOST]


def _remote(systemd: ctypes.CDLL, session: bytes) -> Network | None:
    """Return the address of the remote host of a session.

    Return None for a local session, a session that is closing, and a login screen.
    """
    if _text(systemd, "state", session) in {b"", _OVER} or _text(systemd, "class", session) in _NOBODYS:
        return None
    # A zone (fe80::1%eth0) names the link; firewall sets do not support zones.
    host = _text(systemd, "remote_host", session).partition(b"%")[0].decode("ascii", "replace")
    try:
        address = ip_address(host)  # an address only, so that a login never protects a whole network
    except ValueError:
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
    """Return the property ``what`` of a session; b"" if the session lacks it or has ended."""
    answer = ctypes.c_void_p()
    if systemd[f"sd_session_get_{what}"](session, ctypes.byref(answer)) < 0:
        return b""
    return _taken(answer.value)


def _taken(pointer: int | None) -> bytes:
    """Copy a text that libsystemd allocated, and free it."""
    if not pointer:
        return b""
    text = ctypes.string_at(pointer)
    _free(ctypes.c_void_p(pointer))
    return text


def _free(pointer: ctypes.c_void_p) -> None:
    _libc().free(pointer)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    libc.free.restype = None
    return libc
