"""What a line of the lists may be, and what is refused of it.

A network, a host's name, a country or a network number. A name has a dot, so that ``DE`` is nothing else, and
only the list of those who are allowed takes one: whoever owns a name says where it leads, and could have
anybody denied.
"""

import enum
import re
from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from ringfence.lists.prefixes import code_of, text_of
from ringfence.model import ListEntry, Network, Side, network_from, printable

COMMAND = "command"
CONFIGURATION = "configuration"
"""Where an entry comes from, if from no file that was imported."""

MAX_NAME = 253
SHORTEST = {4: 8, 6: 16}
"""The widest networks that are denied without --force; no register hands out a wider one."""


class Kind(enum.StrEnum):
    """The kinds of entry."""

    NETWORK = "network"
    HOST = "host"
    PLACE = "place"  # a country or a network number: what a database of addresses knows


@frozen
class What:
    """What an entry is about: its kind, and its text in the one form that it is kept in."""

    kind: Kind
    text: str
    network: Network | None = None


@frozen
class Configured:
    """What the configuration says of the lists.

    ``most`` is how many networks a set of the kernel takes.
    """

    entries: tuple[ListEntry, ...] = ()
    databases: tuple[Path, ...] = ()
    most: int = 262_144


_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+\Z){_LABEL}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_NUMBER = re.compile(r"AS([1-9][0-9]{0,9})")
_MAX_NUMBER = 2**32 - 1


def what_from(text: str) -> What:
    """Read what a person or the configuration wrote; ValueError says what it must be."""
    with_country = text.removeprefix("country ")
    if with_country != text:
        return place_from(with_country)
    try:
        network = network_from(text)
    except ValueError as error:
        return _other(text, error)
    if not network.prefixlen:
        raise ValueError(f"{text}: that is everybody; whoever wants that wants `ringfence off`, or no PBX")
    return What(Kind.NETWORK, text_of(*code_of(network)), network)


def host_from(text: str) -> What:
    """Read a host's name (RFC 1123, in full, in ASCII); else raise ValueError."""
    name = text.lower().removesuffix(".")
    if len(name) > MAX_NAME or not _HOST.fullmatch(name):
        raise ValueError('must be a host\'s name in full, such as "sip.carrier.example" (IDN: as xn--...)')
    return What(Kind.HOST, name)


def place_from(text: str) -> What:
    """Read a country (``DE``) or a network number (``AS64496``); else raise ValueError."""
    code = text.upper()
    if _COUNTRY.fullmatch(code):
        return What(Kind.PLACE, f"country {code}")
    number = _NUMBER.fullmatch(code)
    if number and int(number[1]) <= _MAX_NUMBER:
        return What(Kind.PLACE, code)
    raise ValueError('must be a country such as "DE" or a network number such as "AS64496"')


def _other(text: str, why_no_network: ValueError) -> What:
    if "/" in text or ":" in text or "%" in text:
        raise ValueError(printable(str(why_no_network))) from None
    for reader in (place_from, host_from):
        try:
            return reader(text)
        except ValueError:
            continue
    raise ValueError(
        f"{printable(text[:80])}: neither an address, a network, a host's name in full, "
        "a country (DE) nor a network number (AS64496)"
    )


def refused(network: Network, protected: Mapping[Network, str]) -> str | None:
    """Say why ``network`` must not be denied or banned, None where it may.

    ``protected`` maps what must stay reachable to what it is: ``the default gateway``.
    """
    for own, what in protected.items():
        if own.overlaps(network):
            where = "is" if own == network else f"holds {text_of(*code_of(own))},"
            return f"{text_of(*code_of(network))} {where} {what}"
    return None


def refused_of(side: Side, what: What, protected: Mapping[Network, str]) -> str | None:
    """Say why an entry is not put on a list without force, None where it is."""
    if side is Side.ALLOW:
        return None
    if what.kind is Kind.HOST:
        return f"{what.text}: whoever owns a name could have anybody denied by it; give addresses"
    if what.network is None:
        return None
    reason = refused(what.network, protected)
    if reason is not None:
        return f"{reason}: it is not denied; --force does it all the same"
    if what.network.prefixlen < SHORTEST[what.network.version]:
        return f"{what.text} is a large part of the internet: it is not denied; --force does it all the same"
    return None
