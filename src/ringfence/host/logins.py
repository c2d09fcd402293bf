"""Who is logged in to this host from elsewhere, as logind knows it: who must not be locked out.

A login is one that was let in: sshd and its like open a session when the password or key was right, on
whatever port they listen. That somebody has a connection to port 22 says nothing; anybody has one for the
asking.

libsystemd tells, a C library that every Debian has: it reads files below ``/run/systemd/sessions``, whose
form is its own affair. It needs no bus and no right; only functions without callbacks are called, so nothing
has to be written into memory that is then run (``MemoryDenyWriteExecute=``).
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
"""How many sessions are looked at; who may log in may have as many as he likes."""

_LIBRARY = "libsystemd.so.0"
# Who is on the way out counts no more, and whom nobody has let in yet: a login screen.
_OVER = b"closing"
_NOBODYS = frozenset({b"greeter", b"lock-screen", b"manager", b"manager-early"})


def why_no_logins(library: str = _LIBRARY) -> str:
    """Say why no login can be known here, for people; nothing where they can."""
    if _systemd(library) is None:
        return f"logins from elsewhere are not known: {library} is not there; mend: install systemd's library"
    if not SESSIONS.is_dir():
        return f"logins from elsewhere are not known: {SESSIONS} is not there (no systemd-logind runs here)"
    return ""


def read_logins(library: str = _LIBRARY) -> dict[Network, str]:
    """Give the addresses from which somebody is logged in, each with who it is to people.

    Empty where they cannot be known. Names are left out: whoever runs the name server of an address says what
    its name is, and to ask would take time. Looks up the name of a user where it is not known yet, which may
    take time: not for the event loop.
    """
    found: dict[Network, set[str]] = {}
    systemd = _systemd(library)
    if systemd is None:
        return {}
    for session in _sessions(systemd):
        network = _remote(systemd, session)
        if network is not None:
            found.setdefault(network, set()).add(_who(systemd, session))
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
    """Give the names of all sessions; the list and each name are ours to free."""
    names = ctypes.POINTER(ctypes.c_void_p)()
    count = systemd.sd_get_sessions(ctypes.byref(names))
    if count < 0:
        return
    given = [_taken(names[index]) for index in range(count)]
    _free(ctypes.cast(names, ctypes.c_void_p))
    yield from given[:MOST]


def _remote(systemd: ctypes.CDLL, session: bytes) -> Network | None:
    """Give the address that a session comes from, if it does and is not over."""
    if _text(systemd, "state", session) in {b"", _OVER} or _text(systemd, "class", session) in _NOBODYS:
        return None
    # A zone (fe80::1%eth0) says by which link; firewall sets know none.
    host = _text(systemd, "remote_host", session).partition(b"%")[0].decode("ascii", "replace")
    try:
        address = ip_address(host)  # never a network: whoever could have one noted would be protected whole
    except ValueError:
        return None
    return None if address.is_loopback else ip_network(getattr(address, "ipv4_mapped", None) or address)


def _who(systemd: ctypes.CDLL, session: bytes) -> str:
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
    """Ask for one thing of a session; nothing where it has none, or has ended meanwhile."""
    answer = ctypes.c_void_p()
    if systemd[f"sd_session_get_{what}"](session, ctypes.byref(answer)) < 0:
        return b""
    return _taken(answer.value)


def _taken(pointer: int | None) -> bytes:
    """Copy a text that was given to us, and free it."""
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
