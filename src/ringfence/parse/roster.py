"""Asterisk's answers about its phones and trunks: events of lists → contacts and trunks.

Measured on Asterisk 16 and 22; the names of headers are those of ``main/db.c``, ``res_pjsip_registrar``,
``chan_sip.c`` and ``chan_iax2.c``. The order of the headers is not fixed, so they are looked up by name.

An address comes from one field only: the contact's URI (PJSIP), or ``IPaddress`` (chan_sip, IAX2), which is
where Asterisk sends. ``ViaAddr`` and ``Perceived`` are claims of the phone or of a proxy. A host name gives
no contact, because its owner can change the address.
"""

import json
from collections.abc import Callable, Collection, Mapping

from attrs import frozen

from ringfence.model import Contact, Service, Transport, TrunkHost
from ringfence.parse.roster_uri import address_of, host_address, target_of

EOL = "\r\n"
MOST_EVENT = 8 * 1024
"""The maximum size of a phone's or trunk's event in bytes. A contact has a few hundred."""
MOST_DIGITS = 12
_DEFAULT_PORTS = (5060, 5061)


@frozen
class RosterEvent:
    """An event about phones or trunks.

    ``action`` is the ActionID of the query; "" if Asterisk sent it unasked.
    """

    name: str
    action: str
    headers: Mapping[str, str]


@frozen
class ListedContact:
    """A contact of a list, with the URI that distinguishes it from other contacts of its account.

    ``uri`` is "" for chan_sip and IAX2, where an account has one contact. ``has_status``: the list shows
    whether the contact can be reached.
    """

    contact: Contact
    uri: str = ""
    has_status: bool = True


Entry = ListedContact | TrunkHost
EntryParser = Callable[[Mapping[str, str], str], tuple[Entry, ...]]


@frozen
class Question:
    """An action to which Asterisk replies with a list, and the parser of the list's entries.

    ``entry`` is the name of the event that carries one entry. ``headers`` are sent with the action. ``empty``
    is the error message that Asterisk sends in place of an empty list.
    """

    action: str
    entry: str
    service: Service
    parse: EntryParser
    headers: tuple[tuple[str, str], ...] = ()
    empty: str = ""


def parse_roster_event(packet: bytes) -> RosterEvent | None:
    """Parse an event's headers.

    Return None if the event is too long, repeats a header, has no name, or has a line without a colon.
    Asterisk writes no such event.
    """
    if len(packet) > MOST_EVENT:
        return None
    headers: dict[str, str] = {}
    for line in packet.decode("utf-8", "backslashreplace").split(EOL):
        name, colon, value = line.partition(":")
        if not colon or name in headers:
            return None
        headers[name] = value.removeprefix(" ")
    name = headers.get("Event", "")
    return RosterEvent(name, headers.get("ActionID", ""), headers) if name else None


def _of_tree(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
    """Parse a contact from Asterisk's own database, where PJSIP keeps contacts (``res_sorcery_astdb.c``)."""
    try:
        found = json.loads(headers.get("Val", ""))
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    values = {name: value for name, value in found.items() if isinstance(value, str)}
    # The key begins with the AOR's name. Most phones have one name for AOR and endpoint, so the AOR's name is
    # used if the endpoint is missing.
    aor = headers.get("Key", "").removeprefix("/registrar/contact/").rpartition(";@")[0]
    account = values.get("endpoint") or aor
    return _pjsip(
        asterisk, account, values.get("uri", ""), values.get("expiration_time", ""), values.get("path", "")
    )


def _of_contact_list(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
    """Parse a contact as PJSIPShowContacts lists it."""
    values = [headers.get(name, "") for name in ("Endpoint", "Uri", "ExpirationTime", "Path", "Status")]
    account, uri, until, path, status = values
    account = account or headers.get("ObjectName", "").rpartition(";@")[0]
    return _pjsip(asterisk, account, uri, until, path, status)


def _pjsip(
    asterisk: str, account: str, uri: str, until: str, path: str, status: str | None = None
) -> tuple[Entry, ...]:
    address = address_of(uri)
    # Behind a proxy (RFC 3327) a phone sends nothing from its own address, so its answers do not prove that
    # address.
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
    return (ListedContact(contact, uri, has_status=status is not None),)


def _seconds(text: str) -> float | None:
    """Parse a time (seconds since the epoch).

    Return None for any other text, and for 0, which means that the contact never expires.
    """
    known = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return (float(text) or None) if known else None


def _of_peer(service: Service) -> EntryParser:
    """Return the parser of a peer of chan_sip or IAX2.

    Asterisk sends requests to the address of the peer. With chan_sip this address is only the phone's claim,
    until the phone answers there (status OK). With IAX2 a registered phone has already answered a challenge
    there, so it counts as reachable. No security event reports that answer.
    """

    def parse(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
        address = host_address(headers.get("IPaddress", ""))
        account = headers.get("ObjectName", "").partition("/")[0]
        if address is None or not account:
            return ()
        registered = service is Service.IAX2 and headers.get("Dynamic") == "yes"
        reachable = registered or headers.get("Status", "").startswith("OK (")
        return (ListedContact(Contact(asterisk, service, account, address, reachable=reachable)),)

    return parse


def _of_registration(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
    """Parse a registration of this PBX at a trunk, by PJSIP.

    Return the trunk's server, and the outbound proxy if there is one.
    """
    name = headers.get("ObjectName", "")
    targets = [target_of(headers.get(header, "")) for header in ("ServerUri", "OutboundProxy")]
    return tuple(
        TrunkHost(asterisk, Service.PJSIP, name, target.host, target.port, target.transport)
        for target in targets
        if target is not None
    )


def _of_registry(service: Service) -> EntryParser:
    """Return the parser of a registration of this PBX at a trunk, by chan_sip or IAX2.

    If no port is configured, Asterisk prints the default port, even if SRV records name another one. So a
    default port counts as unknown.
    """

    def parse(headers: Mapping[str, str], asterisk: str) -> tuple[Entry, ...]:
        text = headers.get("Host", "")
        port = headers.get("Port", "")
        target = target_of(f"sip:{text}:{port}" if port else f"sip:{text}")
        if target is None:
            return ()
        known = None if target.port in _DEFAULT_PORTS else target.port
        name = f"{headers.get('Username', '')}@{headers.get('Domain') or target.host}"
        return (TrunkHost(asterisk, service, name, target.host, known, Transport.UNKNOWN),)

    return parse


_PJSIP_CONTACTS = (
    # Only the first action that is allowed is sent. PJSIPShowContacts requires the write class `system`. It
    # also lists whether contacts can be reached, and finds contacts in an external database.
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
    # Not IAXpeers, because its entries have no ActionID.
    Question("IAXpeerlist", "PeerEntry", Service.IAX2, _of_peer(Service.IAX2)),
)
_TRUNKS = (
    Question("PJSIPShowRegistrationsOutbound", "OutboundRegistrationDetail", Service.PJSIP, _of_registration),
    Question("SIPshowregistry", "RegistryEntry", Service.SIP, _of_registry(Service.SIP)),
    Question("IAXregistry", "RegistryEntry", Service.IAX2, _of_registry(Service.IAX2)),
)
_ALWAYS = "corestatus"
"""An action of Asterisk's core. A user that may not use it may request none of the lists either."""


@frozen
class RosterPlan:
    """The questions that one manager user may ask: for lists of contacts, and for lists of trunks.

    ``refused``: the user lacks the right to ask any of them. ``unlisted``: PJSIP is loaded, but no action
    that lists PJSIP's contacts is allowed or exists.
    """

    contacts: tuple[Question, ...]
    trunks: tuple[Question, ...]
    refused: bool
    unlisted: bool


def plan_questions(commands: Collection[str]) -> RosterPlan:
    """Return the questions for an Asterisk that lists ``commands`` as allowed for this user."""
    known = {command.lower() for command in commands}
    pjsip = [question for question in _PJSIP_CONTACTS if question.action.lower() in known][:1]
    others = [question for question in _CONTACTS if question.action.lower() in known]
    return RosterPlan(
        contacts=(*pjsip, *others),
        trunks=tuple(question for question in _TRUNKS if question.action.lower() in known),
        refused=_ALWAYS not in known,
        unlisted=not pjsip and any(command.startswith("pjsip") for command in known),
    )
