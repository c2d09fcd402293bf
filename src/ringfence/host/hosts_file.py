"""This host's own hosts file: whether it knows a name, so that no name server is asked for it."""

import re
import socket
from pathlib import Path

HOSTS = Path("/etc/hosts")
_MOST_BYTES = 8 << 20  # as many as in a file that setup changes
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def knows_host(name: str, hosts: Path, nsswitch: Path) -> bool:
    """Whether this host finds the host name ``name`` without a name server.

    ``hosts`` is a file like ``/etc/hosts``, ``nsswitch`` one like ``/etc/nsswitch.conf``, with the ways of a
    look-up.
    """
    ways = next((words for words in _words_in(nsswitch) if words[:1] == ["hosts:"]), [])
    before_dns = ways[: ways.index("dns")] if "dns" in ways else ways  # they are asked from left to right
    # Asterisk asks for an IPv4 address. Then the C library ignores the lines of IPv6 addresses except ::1.
    lines = [words for words in _words_in(hosts) if words and (":" not in words[0] or words[0] == "::1")]
    known = {word.lower() for words in lines for word in words[1:]}
    return "myhostname" in before_dns or name.lower() in known


def full_name(name: str) -> str:
    """Return ``name``, the name of this host, with the domain that name servers know for it.

    Return ``name`` alone if they know none. The look-up may take many seconds if they do not answer.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except (OSError, UnicodeError):
        return name
    full = found[0][3].removesuffix(".")
    return full if full.lower().startswith(f"{name.lower()}.") and _NAME.fullmatch(full) else name


def hosts_line(name: str, full: str) -> str:
    """Return the line of a hosts file that makes ``name`` the name of this host.

    ``full`` is the name with its domain, if it has one. It stands first, so that ``hostname --fqdn`` has the
    domain.
    """
    return f"127.0.1.1 {name if full == name else f'{full} {name}'}"


def _words_in(path: Path) -> list[list[str]]:
    """Return the words of each line of a small file, without comments; [] if it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.partition("#")[0].split() for line in text.split("\n")]
