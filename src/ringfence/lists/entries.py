"""The entries of the lists, and which of them are refused.

An entry is a network, a host name or a *region*: a country or an autonomous system. A name must have a dot,
so ``DE`` is always a country. Only the allow list accepts names, because the owner of a name decides its
addresses. If the deny list had a name, its owner could have any address denied.
"""

import enum
import re
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

from attrs import Factory, asdict, define, frozen

from ringfence import street
from ringfence.clock import TEN_YEARS
from ringfence.errors import ControlError
from ringfence.firewall.network_lists import NetworkList
from ringfence.values.entry import ListEntry, ListKind
from ringfence.values.network import SHORTEST, Network, contains, format_network, parse_network
from ringfence.values.text import printable

COMMAND = "command"
CONFIGURATION = "configuration"
OWN_ORIGINS = frozenset({COMMAND, CONFIGURATION})
"""The origins of the administrator's own entries. Other origins are names that features give."""
NO_REGIONS = street.reason("geo")
"""The reason why regions have no networks in a copy of ringfence without the feature ``geo``."""

COUNTRY = "country "
"""The beginning of the text of a country. A command accepts the country with it or without it."""
MAX_NAME = 253


class EntryKind(enum.StrEnum):
    """The kind of an entry of the allow list or the deny list."""

    NETWORK = "network"
    HOST = "host"
    REGION = "region"  # a country or an autonomous system, resolved by a database of addresses


@frozen
class EntryValue:
    """The value of an entry: its kind, and its text in canonical form.

    ``network`` is set if the entry is a network.
    """

    kind: EntryKind
    text: str
    network: Network | None = None

    @property
    def command(self) -> str:
        """The command of ``ringfence allow`` and ``ringfence deny`` that adds such an entry."""
        return "country" if self.kind is EntryKind.REGION else "add"


@frozen
class Configured:
    """The part of the configuration that concerns the allow list and the deny list.

    ``databases`` are the files with the networks of regions. ``most`` is the maximum number of networks in a
    set of the kernel. ``kept`` is the file with the networks of regions that were read last; None: they are
    not kept. ``added`` are the networks and regions on lists of the kernel that features add.
    """

    entries: tuple[ListEntry, ...] = ()
    databases: tuple[Path, ...] = ()
    most: int = 262_144
    kept: Path | None = None
    added: Mapping[NetworkList, tuple[str, ...]] = Factory(dict)


_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+\Z){_LABEL}")
_COUNTRY = re.compile(r"[A-Z]{2}")
_NUMBER = re.compile(r"AS([1-9][0-9]{0,9})")
_MAX_NUMBER = 2**32 - 1


def parse_entry(text: str) -> EntryValue:
    """Parse an entry of a command or of the configuration; raise ValueError if it is invalid."""
    with_country = text.removeprefix(COUNTRY)
    if with_country != text:
        return parse_region(with_country)
    try:
        network = parse_network(text)
    except ValueError as error:
        return _region_or_host(text, error)
    if not network.prefixlen:
        raise ValueError(f"{text}: is the whole internet, which cannot be allowed or denied")
    return EntryValue(EntryKind.NETWORK, format_network(network), network)


def parse_host(text: str) -> EntryValue:
    """Parse a host name (RFC 1123, fully qualified, in ASCII); raise ValueError if it is invalid."""
    name = text.lower().removesuffix(".")
    if len(name) > MAX_NAME or not _HOST.fullmatch(name):
        raise ValueError('must be a host\'s name in full, such as "sip.carrier.example" (IDN: as xn--...)')
    return EntryValue(EntryKind.HOST, name)


def parse_region(text: str) -> EntryValue:
    """Parse a country (``DE``) or an autonomous system (``AS64496``); raise ValueError if it is neither."""
    code = text.upper()
    if _COUNTRY.fullmatch(code):
        return EntryValue(EntryKind.REGION, COUNTRY + code)
    number = _NUMBER.fullmatch(code)
    if number and int(number[1]) <= _MAX_NUMBER:
        return EntryValue(EntryKind.REGION, code)
    raise ValueError('must be a country such as "DE" or a network number such as "AS64496"')


def _region_or_host(text: str, why_no_network: ValueError) -> EntryValue:
    if "/" in text or ":" in text or "%" in text:
        raise ValueError(printable(str(why_no_network))) from None
    for reader in (parse_region, parse_host):
        try:
            return reader(text)
        except ValueError:
            continue
    raise ValueError(
        f"{printable(text[:80])}: neither an address, a network, a full host name, "
        "a country (DE) nor a network number (AS64496)"
    )


def protection_refusal(network: Network, protected: Mapping[Network, str]) -> str | None:
    """Return why ``network`` must not be denied or banned; None if it may be.

    ``protected`` maps networks that must stay reachable to their role, such as ``the default gateway``.
    """
    for own, role in protected.items():
        if own.overlaps(network):
            name = format_network(own)
            if own == network:
                relation = "is"
            elif contains(network, own):
                relation = f"contains {name},"
            else:
                relation = f"is in {name},"
            return f"{format_network(network)} {relation} {role}"
    return None


def entry_refusal(kind: ListKind, value: EntryValue, protected: Mapping[Network, str]) -> str | None:
    """Return why a list refuses an entry; None if it accepts it.

    Both lists refuse a network that is a large part of the Internet. With ``--force``, the caller adds a
    refused network nevertheless, but never a host name on the deny list.
    """
    if kind is ListKind.ALLOW:
        return _too_wide(value, "allowed", "allows")
    if value.kind is EntryKind.HOST:
        return (
            f"{value.text}: only addresses can be denied, because the owner of a name decides its addresses"
        )
    if value.network is None:
        return None
    reason = protection_refusal(value.network, protected)
    if reason is not None:
        return f"{reason}: it is not denied; --force denies it anyway"
    return _too_wide(value, "denied", "denies")


def _too_wide(value: EntryValue, done: str, does: str) -> str | None:
    if value.network is None or value.network.prefixlen >= SHORTEST[value.network.version]:
        return None
    return f"{value.text} is a large part of the internet, so it is not {done}; --force {does} it anyway"


# -- the control socket's requests about lists, and the rows of their answers
#
# The answer to ``{"do": "deny_add", "what": ["203.0.113.9"], "note": "", "seconds": null, "force": false}``
# is an :class:`Answer` as JSON. ``seconds`` is how long the entries last (null: without end).
# ``deny_remove`` has ``what``, the entries. ``lists`` has ``side``, the list ("allow" or "deny"), and returns
# rows.


MAX_AT_ONCE = 1_000
MAX_NOTE = 200
MAX_TEXT = 300


@define
class Answer:
    """The result of a request to change a list: what was done, what failed and why, and further notes."""

    done: list[str] = Factory(list)
    problems: list[str] = Factory(list)
    notes: list[str] = Factory(list)

    def as_json(self) -> dict[str, list[str]]:
        """Return the answer as an object for JSON: each field is a key with its lines."""
        return asdict(self)


@frozen
class Addition:
    """Entries to be added to a list; ``wrong`` has a line for each text that is not an entry.

    ``seconds`` is how long the entries last, None for no end. ``force``: a network is accepted even if it is
    protected, or wider than the deny list allows.
    """

    values: tuple[EntryValue, ...]
    wrong: tuple[str, ...]
    note: str
    seconds: float | None
    force: bool

    @classmethod
    def of(cls, request: Mapping[str, Any]) -> "Addition":
        """Parse a request with the texts ``what``, and perhaps ``note``, ``seconds`` and ``force``.

        Raise ControlError if a value is malformed. A text that is not an entry only adds a line to ``wrong``.
        """
        values, wrong = [], []
        for text in texts_of(request, "what"):
            try:
                values.append(parse_entry(text))
            except ValueError as error:
                wrong.append(str(error))
        note, seconds = request.get("note", ""), request.get("seconds")
        if not isinstance(note, str) or len(note) > MAX_NOTE or not note.isprintable():
            raise ControlError(f"the note must be a text of at most {MAX_NOTE} characters, in one line")
        length = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if seconds is not None and not (length and 0 < seconds <= TEN_YEARS):
            raise ControlError(
                "the duration must be a number of seconds above 0 and at most ten years, or null"
            )
        return cls(tuple(values), tuple(wrong), note, seconds, request.get("force") is True)


def texts_of(request: Mapping[str, Any], key: str) -> list[str]:
    """Return the list of texts that the request has under ``key``.

    Raise ControlError if the list is missing, empty or too long, or if one of its texts is.
    """
    texts = request.get(key)
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= MAX_AT_ONCE
        or not all(isinstance(text, str) and 0 < len(text) <= MAX_TEXT for text in texts)
    ):
        raise ControlError(f"{key}: must be 1 to {MAX_AT_ONCE} texts")
    return texts


def addresses(networks: frozenset[Network]) -> list[str]:
    """Return the addresses of a host name as sorted texts."""
    return [format_network(n) for n in sorted(networks, key=attrgetter("version", "network_address"))]
