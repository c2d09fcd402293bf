"""This host's own hosts file: whether it knows a name, so that no name server is asked for it."""

from pathlib import Path

HOSTS = Path("/etc/hosts")
_MOST_BYTES = 1 << 20


def knows_host(name: str, hosts: Path, nsswitch: Path) -> bool:
    """Whether this host finds the host name ``name`` without a name server.

    ``hosts`` is a file like ``/etc/hosts``, ``nsswitch`` one like ``/etc/nsswitch.conf``, with the ways of a
    look-up.
    """
    ways = next((words for words in _words_in(nsswitch) if words[:1] == ["hosts:"]), [])
    known = {word.lower() for words in _words_in(hosts) for word in words[1:]}
    return "myhostname" in ways or name.lower() in known


def hosts_line(name: str) -> str:
    """Return the line of a hosts file that makes ``name`` the name of this host."""
    return f"127.0.1.1 {name}"


def _words_in(path: Path) -> list[list[str]]:
    """Return the words of each line of a small file, without comments; [] if it cannot be read."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.partition("#")[0].split() for line in text.split("\n")]
