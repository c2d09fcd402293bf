"""This host's own hosts file: whether it knows a name, so that no name server is asked for it."""

from pathlib import Path

HOSTS = Path("/etc/hosts")
_MOST_BYTES = 1 << 20


def knows_host(name: str, hosts: Path, nsswitch: Path) -> bool:
    """Whether ``name`` needs no name server.

    ``hosts`` has the names that are known without a name server. ``nsswitch`` has the ways of a look-up.
    """
    if "myhostname" in _words_of(nsswitch, "hosts:"):
        return True
    known = {word.lower() for line in _lines_of(hosts) for word in line.partition("#")[0].split()[1:]}
    return name.lower() in known


def hosts_line(name: str) -> str:
    """Return the line of a hosts file that makes ``name`` the name of this host."""
    return f"127.0.1.1 {name}"


def _words_of(path: Path, first: str) -> list[str]:
    """Return the words of the line that begins with ``first``; none if there is no such line."""
    found = (line.partition("#")[0].split() for line in _lines_of(path))
    return next((words[1:] for words in found if words and words[0] == first), [])


def _lines_of(path: Path) -> list[str]:
    """Return the lines of a small file of this host; none if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace").split("\n")
    except OSError:
        return []
