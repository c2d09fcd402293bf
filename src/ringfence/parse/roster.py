"""What an Asterisk says of its phones and trunks when it is asked: events of lists → contacts and trunks.

Measured on Asterisk 16 and 22; the names of headers are those of ``main/db.c``, ``res_pjsip_registrar``,
``chan_sip.c`` and ``chan_iax2.c``. Their order is not fixed, so they are read by name.

An address is taken from one place only: the contact's URI (PJSIP), or ``IPaddress`` (chan_sip, IAX2), which
is where Asterisk sends. ``ViaAddr`` and ``Perceived`` are what others claim. A host that is a name gives no
contact: whoever owns the name says where it leads.
"""

import json
from collections.abc import Callable, Collection, Mapping

from attrs import frozen

from ringfence.model import Contact, Service, Transport, TrunkHost
from ringfence.parse.roster_uri import address_of, host_address, place_of

EOL = "\r\n"
MOST_DIGITS = 12
_DEFAULT_PORTS = (5060, 5061)


@frozen
class Item:
    """An event that tells of phones or trunks. ``action`` is whose answer it belongs to; empty: nobody's."""

    name: str
    action: str
    headers: Mapping[str, str]


@frozen
class Listed:
    """A contact of a list, and the URI that tells it from others of its account.

    ``tells``: whether the list knows if the contact can be reached.
    """

    contact: Contact
    uri: str = ""
    tells: bool = True


Entry = Listed | TrunkHost
Reader = Callable[[Mapping[str, str], str], tuple[Entry, ...]]


@frozen
class Question:
    """An action that is answered by a list, and how an entry of that list is read.

    ``empty`` is what is said in place of an empty list, as an error.
    """

    action: str
    entry: str
    service: Service
    read: Reader
    headers: tuple[tuple[str, str], ...] = ()
    empty: str = ""


def item_of(packet: bytes) -> Item | None:
    """Read an event by its headers; None where it says something twice, which Asterisk does not."""
    headers: dict[str, str] = {}
    for line in packet.decode("utf-8", "backslashreplace").split(EOL):
        name, colon, value = line.partition(":")
        if not colon or name in headers:
            return None
        headers[name] = value.removeprefix(" ")
    name = headers.get("Event", "")
    return Item(name, headers.get("ActionID", ""), headers) if name else None


def _of_tree(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
    """Read a contact of Asterisk's own database, where PJSIP keeps them (``res_sorcery_astdb.c``)."""
    try:
        found = json.loads(headers.get("Val", ""))
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    said = {name: value for name, value in found.items() if isinstance(value, str)}
    # Where no endpoint stands in it: the key begins with the AOR's name, and most have one name for both.
    aor = headers.get("Key", "").removeprefix("/registrar/contact/").rpartition(";@")[0]
    account = said.get("endpoint") or aor
    return _pjsip(
        asterisk, account, said.get("uri", ""), said.get("expiration_time", ""), said.get("path", "")
    )


def _of_contact_list(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
    """Read a contact as PJSIPShowContacts lists it."""
    said = [headers.get(name, "") for name in ("Endpoint", "Uri", "ExpirationTime", "Path", "Status")]
    account, uri, until, path, status = said
    account = account or headers.get("ObjectName", "").rpartition(";@")[0]
    return _pjsip(asterisk, account, uri, until, path, status)


def _pjsip(
    asterisk: str, account: str, uri: str, until: str, path: str, status: str | None = None
) -> tuple[Entry, ...]:
    address = address_of(uri)
    # By way of a proxy (RFC 3327) nothing comes from the contact's own address, and its answers prove none.
    if address is None or path or not account:
        return ()
    contact = Contact(
        asterisk=asterisk,
        service=Service.PJSIP,
        account=account,
        address=address,
        until=_seconds(until),
        reachable=status == "Reachable",
    )
    return (Listed(contact, uri, tells=status is not None),)


def _seconds(text: str) -> float | None:
    """Read a time; None where there is none: 0 is what a contact has that the configuration names."""
    known = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return (float(text) or None) if known else None


def _of_peer(service: Service) -> Reader:
    """Read a peer of chan_sip's or IAX2's.

    Its address is where Asterisk sends. With chan_sip that is the phone's own word, unless it answers there;
    who registers by IAX2 has answered a challenge there, and no security event says so.
    """

    def read(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
        address = host_address(headers.get("IPaddress", ""))
        account = headers.get("ObjectName", "").partition("/")[0]
        if address is None or not account:
            return ()
        registered = service is Service.IAX2 and headers.get("Dynamic") == "yes"
        reachable = registered or headers.get("Status", "").startswith("OK (")
        return (Listed(Contact(asterisk, service, account, address, reachable=reachable)),)

    return read


def _of_registration(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
    """Read a registration of PJSIP's at another server: the server, and the proxy that leads there."""
    name = headers.get("ObjectName", "")
    places = [place_of(headers.get(header, "")) for header in ("ServerUri", "OutboundProxy")]
    return tuple(
        TrunkHost(asterisk, Service.PJSIP, name, place.host, place.port, place.transport)
        for place in places
        if place is not None
    )


def _of_registry(service: Service) -> Reader:
    """Read a registration of chan_sip's or IAX2's.

    The port is always printed, also where none was named: a default one may mean that SRV records decide.
    """

    def read(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
        text = headers.get("Host", "")
        port = headers.get("Port", "")
        place = place_of(f"sip:{text}:{port}" if port else f"sip:{text}")
        if place is None:
            return ()
        known = None if place.port in _DEFAULT_PORTS else place.port
        name = f"{headers.get('Username', '')}@{headers.get('Domain') or place.host}"
        return (TrunkHost(asterisk, service, name, place.host, known, Transport.UNKNOWN),)

    return read


_PJSIP_CONTACTS = (
    # Knows who can be reached, and contacts that lie in a database of their own; takes write class `system`.
    Question("PJSIPShowContacts", "ContactList", Service.PJSIP, _of_contact_list, empty="No Contacts found"),
    Question(
        "DBGetTree",
        "DBGetTreeResponse",
        Service.PJSIP,
        _of_tree,
        headers=(("Family", "registrar/contact"),),
    ),
)
_CONTACTS = (
    Question("SIPpeers", "PeerEntry", Service.SIP, _of_peer(Service.SIP)),
    # Not IAXpeers, whose entries do not say whose answer they are.
    Question("IAXpeerlist", "PeerEntry", Service.IAX2, _of_peer(Service.IAX2)),
)
_TRUNKS = (
    Question("PJSIPShowRegistrationsOutbound", "OutboundRegistrationDetail", Service.PJSIP, _of_registration),
    Question("SIPshowregistry", "RegistryEntry", Service.SIP, _of_registry(Service.SIP)),
    Question("IAXregistry", "RegistryEntry", Service.IAX2, _of_registry(Service.IAX2)),
)
_ALWAYS = "corestatus"
"""An action of the core's own that whoever has one of the classes may use."""


@frozen
class Plan:
    """What can be asked. ``refused``: nothing, since the user has not the right to.

    ``unlisted``: PJSIP is there, and this Asterisk has no action that lists its contacts.
    """

    contacts: tuple[Question, ...]
    trunks: tuple[Question, ...]
    refused: bool
    unlisted: bool


def plan_of(commands: Collection[str]) -> Plan:
    """Say what can be asked of an Asterisk that lists ``commands`` as those that this user may use."""
    known = {command.lower() for command in commands}
    pjsip = [question for question in _PJSIP_CONTACTS if question.action.lower() in known][:1]
    others = [question for question in _CONTACTS if question.action.lower() in known]
    return Plan(
        contacts=(*pjsip, *others),
        trunks=tuple(question for question in _TRUNKS if question.action.lower() in known),
        refused=_ALWAYS not in known,
        unlisted=not pjsip and any(command.startswith("pjsip") for command in known),
    )
