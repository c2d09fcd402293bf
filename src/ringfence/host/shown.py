"""What Asterisk's console shows, read row by row: identifies, peers, settings, contexts.

Its tables are made for people, and differ a little from release to release. A row that is not just as it is
known here is passed over: what follows of these tables is a hint to an administrator, and a wrong one is
worse than none.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from attrs import frozen

from ringfence.model import Network

MOST_ROWS = 100_000

_IDENTIFY = re.compile(r" Identify:  ([^/\s]{1,80})/(\S{1,80})")
_MATCH = re.compile(r"      Match: ([0-9a-fA-F.:]{2,39}/[0-9]{1,3})")
_HOST = re.compile(r"[0-9a-fA-F.:]{2,39}")
_SETTING = re.compile(r"  ([^:]{1,40}):[ \t]+(\S.*)")
_STEP = re.compile(r" {1,25}(?:\[[^\]]{1,80}\] {1,25})?([0-9]{1,9})\. (.*)")
_TARGET = re.compile(r"  (Include|Alt\. Switch) => +'([^']{1,160})'.*")
_EXTENSION = re.compile(r"  '([^']{1,160})' (?:\(CID match '[^']*'\) )?=> (.*)")
_GLOBAL = re.compile(r" {1,4}([^= ]{1,80})=(.*)")


@frozen
class Trunk:
    """Who is known by his address alone: a network, and what Asterisk calls him."""

    name: str
    network: Network


@frozen
class Step:
    """A step of the dialplan: the extension or pattern, which step of it, the application with arguments."""

    extension: str
    priority: int
    application: str


@frozen
class Context:
    """A context of the dialplan: its own steps, the contexts it includes, and the switches it asks."""

    steps: tuple[Step, ...] = ()
    includes: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()


def identifies_from(text: str) -> list[Trunk]:
    """Read ``pjsip show identifies``: every network that is taken for an endpoint.

    An identify by a header (``X-Token: ...``) names no address, and what it matches is nobody's to see.
    """
    found, endpoint = [], ""
    for line in _rows(text):
        if header := _IDENTIFY.fullmatch(line.rstrip()):
            endpoint = header[2]
        elif endpoint and (match := _MATCH.fullmatch(line.rstrip())):
            network = _network(match[1])
            found += [Trunk(endpoint, network)] if network else []
    return found


def peers_from(text: str) -> list[Trunk]:
    """Read ``sip show peers``: those with an address of their own, that is, who do not register.

    The columns are found by the heading's. A name is cut there after 25 characters.
    """
    found: list[Trunk] = []
    columns: tuple[int, int, int] | None = None
    for line in _rows(text):
        if columns is None:
            places = line.find("Host "), line.find(" Dyn "), line.find(" Forcerport")
            columns = places if line.startswith("Name/username ") and min(places) > 0 else None
            continue
        host, dynamic, end = columns
        name, address = line[:host].split("/")[0].strip(), line[host:dynamic].strip()
        if line[dynamic:end].strip() or not name or not _HOST.fullmatch(address):
            continue  # a phone, or nowhere yet: (Unspecified), or the last line
        network = _network(address)
        found += [Trunk(name, network)] if network else []
    return found


def settings_from(text: str) -> dict[str, str]:
    """Read a table of settings, such as ``sip show settings``: each with its value, the first of a name."""
    found: dict[str, str] = {}
    for line in _rows(text):
        if match := _SETTING.fullmatch(line.rstrip()):
            found.setdefault(match[1].strip().lower(), match[2].strip())
    return found


def context_from(text: str) -> Context | None:
    """Read ``dialplan show CONTEXT``; None where there is no such context."""
    steps: list[Step] = []
    includes: list[str] = []
    switches: list[str] = []
    extension, begun = "", False
    for line in _rows(text):
        if line.startswith("[ Context '"):
            begun = True
        elif target := _TARGET.fullmatch(line):
            (includes if target[1] == "Include" else switches).append(target[2])
        elif begun:
            first = _EXTENSION.fullmatch(line)
            if first:
                extension = first[1]
            step = _STEP.fullmatch(" " + first[2] if first else line)
            if step and extension:
                steps.append(Step(extension, int(step[1]), step[2].rpartition(" [")[0].strip()))
    return Context(tuple(steps), tuple(includes), tuple(switches)) if begun else None


def globals_from(text: str) -> dict[str, str]:
    """Read ``dialplan show globals``."""
    return {match[1]: match[2].strip() for line in _rows(text) if (match := _GLOBAL.fullmatch(line))}


def _rows(text: str) -> Iterator[str]:
    for number, line in enumerate(text.split("\n")):
        if number == MOST_ROWS:
            return
        yield line


def _network(text: str) -> Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    address = ip_address(network.network_address)
    return None if address.is_loopback or (address.is_unspecified and network.prefixlen) else network
