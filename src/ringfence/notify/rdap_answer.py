"""The answer of an RDAP server about an IP network (RFC 9083), reduced to what a message shows.

The answer is hostile: each owner of a network writes its own contacts, and a server may send anything. What
does not have the form of the RFC is left out. The number of entities is bounded.
"""

import json
import re
from collections import deque
from collections.abc import Mapping
from ipaddress import ip_address

from attrs import frozen

from ringfence.model import Address

MAX_ENTITIES = 200
"""The maximum number of contacts (entities) of an answer that are read. Real answers have fewer than 20."""

MAX_CONTACT = 100
"""The maximum length of an abuse contact.

A longer one is left out. It is not cut, because a part of it could be the address of someone else.
"""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._&'+/-]{0,63}")
"""The form of a network's name.

In a message the contact follows the name. A name of another form could look like a contact, so it is left
out.
"""

_SHARED_BITS = {4: 8, 6: 16}
"""The shortest prefix length of a network whose answer is used for all its addresses, by IP version.

A wider network is a block of the registry itself, whose addresses have different owners. So the answer
about one address is not used for the others.
"""

_LOCAL = r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,63}"
_LABEL = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}"
_MAILBOX = re.compile(rf"{_LOCAL}@(?:{_LABEL}\.){{1,20}}[A-Za-z][A-Za-z0-9-]{{0,61}}[A-Za-z0-9]")
_COUNTRY = re.compile(r"[A-Za-z]{2}")


@frozen
class Registration:
    """What a registry has about the network of an address. "" means unknown.

    ``first`` and ``last`` are the first and the last address of the network. Both are None if they are
    unknown, or if the network is wider than ``_SHARED_BITS`` allows.
    """

    abuse: str = ""
    country: str = ""
    name: str = ""
    first: Address | None = None
    last: Address | None = None

    def covers(self, address: Address) -> bool:
        """Whether the network contains ``address``; False if its ends are unknown."""
        if self.first is None or self.last is None or self.first.version != address.version:
            return False
        return int(self.first) <= int(address) <= int(self.last)


def parse_answer(body: bytes) -> Registration | None:
    """Parse an answer; return None if it is not a JSON object. Never raises."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    first, last = _ends(document)
    country = document.get("country")
    return Registration(
        abuse=_abuse_contact(document),
        country=country.upper() if isinstance(country, str) and _COUNTRY.fullmatch(country) else "",
        name=_name(document.get("name")) or _name(document.get("handle")),
        first=first,
        last=last,
    )


def _name(value: object) -> str:
    """Return the name of a network; "" if ``value`` does not have the form of a name."""
    text = value.strip(" ") if isinstance(value, str) else ""
    return text if _NAME.fullmatch(text) else ""


def _ends(document: Mapping[str, object]) -> tuple[Address | None, Address | None]:
    first, last = (_address(document.get(key)) for key in ("startAddress", "endAddress"))
    if first is None or last is None or first.version != last.version:
        return None, None
    wide = (int(first) ^ int(last)) >> (first.max_prefixlen - _SHARED_BITS[first.version])
    return (None, None) if wide else (first, last)


def _address(value: object) -> Address | None:
    try:
        return ip_address(value.partition("/")[0]) if isinstance(value, str) else None
    except ValueError:
        return None


def _abuse_contact(document: Mapping[str, object]) -> str:
    """Return the first mail address of the entities with the role ``abuse``; "" without such an address.

    Entities are searched before the entities within them.
    """
    waiting = deque(_listed(document.get("entities")))
    for _ in range(MAX_ENTITIES):
        if not waiting:
            break
        entity = waiting.popleft()
        if not isinstance(entity, dict):
            continue
        if "abuse" in _listed(entity.get("roles")):
            for_abuse, others = _mail_addresses(entity)
            if found := for_abuse or others:
                return found[0]
        waiting.extend(_listed(entity.get("entities")))
    return ""


def _mail_addresses(entity: Mapping[str, object]) -> tuple[list[str], list[str]]:
    """Return the mail addresses of an entity's jCard (RFC 7095): those of the type ``abuse``, and the others.

    A property is ``[name, parameters, type, value, …]``. RIPE marks the address for abuse by its type.
    """
    for_abuse: list[str] = []
    others: list[str] = []
    for one in _listed([*_listed(entity.get("vcardArray")), None, None][1]):
        own = [*_listed(one), None, None]
        name, parameters, values = own[0], own[1], own[3:]
        if not isinstance(name, str) or name.lower() != "email":
            continue
        kind = parameters.get("type") if isinstance(parameters, dict) else None
        found = for_abuse if kind == "abuse" or "abuse" in _listed(kind) else others
        for value in values:
            text = value.strip(" ").removeprefix("mailto:") if isinstance(value, str) else ""
            if len(text) <= MAX_CONTACT and _MAILBOX.fullmatch(text):
                found.append(text)
    return for_abuse, others


def _listed(value: object) -> list[object]:
    return value[:MAX_ENTITIES] if isinstance(value, list) else []
