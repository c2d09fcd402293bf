"""Parsers for the output of Asterisk's console: trunks and settings.

These tables are made for people, and differ slightly between releases. Unexpected rows are skipped: the
results are hints for an administrator, and a wrong hint is worse than none.
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import islice

from attrs import frozen

from ringfence.values.network import Network

MAX_ROWS = 100_000

_IDENTIFY = re.compile(r" Identify:  ([^/\s]{1,80})/(\S{1,80})")
_MATCH = re.compile(r"      Match: ([0-9a-fA-F.:]{2,39}/[0-9]{1,3})")
_HOST = re.compile(r"[0-9a-fA-F.:]{2,39}")
_SETTING = re.compile(r"  ([^:]{1,40}):[ \t]+(\S.*)")


@frozen
class Trunk:
    """A trunk that Asterisk identifies by its address alone: its name in Asterisk, and a network."""

    name: str
    network: Network


def identifies_from(text: str) -> list[Trunk]:
    """Parse ``pjsip show identifies``: return each network by which Asterisk identifies an endpoint.

    An endpoint that is identified by a header (``X-Token: ...``) is skipped: the header contains no address,
    and its value is secret.
    """
    found, endpoint = [], ""
    for line in rows_of(text):
        if header := _IDENTIFY.fullmatch(line.rstrip()):
            endpoint = header[2]
        elif endpoint and (match := _MATCH.fullmatch(line.rstrip())):
            network = _network(match[1])
            found += [Trunk(endpoint, network)] if network else []
    return found


def peers_from(text: str) -> list[Trunk]:
    """Parse ``sip show peers``: return the peers with a fixed address, which do not register.

    The columns are found by their headings. Asterisk cuts a name after 25 characters.
    """
    found: list[Trunk] = []
    columns: tuple[int, int, int] | None = None
    for line in rows_of(text):
        if columns is None:
            places = line.find("Host "), line.find(" Dyn "), line.find(" Forcerport")
            columns = places if line.startswith("Name/username ") and min(places) > 0 else None
            continue
        host, dynamic, end = columns
        name, address = line[:host].split("/")[0].strip(), line[host:dynamic].strip()
        if line[dynamic:end].strip() or not name or not _HOST.fullmatch(address):
            continue  # a phone that registers, an "(Unspecified)" address, or the line with the totals
        network = _network(address)
        found += [Trunk(name, network)] if network else []
    return found


def settings_from(text: str) -> dict[str, str]:
    """Parse a table of settings, such as ``sip show settings``: return the values by name.

    Names are in lower case. If a name occurs twice, its first value counts.
    """
    found: dict[str, str] = {}
    for line in rows_of(text):
        if match := _SETTING.fullmatch(line.rstrip()):
            found.setdefault(match[1].strip().lower(), match[2].strip())
    return found


def rows_of(text: str) -> Iterator[str]:
    """Yield the first ``MAX_ROWS`` lines of a console command's output."""
    return islice(text.split("\n"), MAX_ROWS)


def _network(text: str) -> Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    address = ip_address(network.network_address)
    return None if address.is_loopback or (address.is_unspecified and network.prefixlen) else network
