"""Asterisk's answers about its phones and trunks: events of lists → contacts and trunks.

Measured on Asterisk 16 and 22; the names of headers are those of ``main/db.c``, ``res_pjsip_registrar``,
``chan_sip.c`` and ``chan_iax2.c``. The order of the headers is not fixed, so they are looked up by name.

An address comes from one field only: the contact's URI (PJSIP), or ``IPaddress`` (chan_sip, IAX2), which is
where Asterisk sends. ``ViaAddr`` and ``Perceived`` are claims of the phone or of a proxy. A host name gives
no contact, because its owner can change the address.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address

from attrs import field, frozen

from ringfence.parse.address import MAX_PORT, parse_source, unmapped
from ringfence.parse.line_result import text_of
from ringfence.values.event import Service, Transport
from ringfence.values.fast import evolve
from ringfence.values.friend import Contact, TrunkHost
from ringfence.values.network import Address

# -- the host to which Asterisk sends requests for a SIP URI (``pjsip/src/pjsip/sip_parser.c``)
#
# A phone chooses the URI of its contact. A malicious URI may make Asterisk send to one host, while a parser
# finds another one in the text: by ``maddr``, by headers (``?Route=``), by an ``@`` within a parameter, or
# by an escaped parameter name. A URI that can be read in two ways has no target.


_LONGEST = 1024
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45}+)\]|(?P<host>[A-Za-z0-9._-]{1,255}+))(?::(?P<port>[0-9]{1,5}+))?"
)
_TRANSPORTS = {str(transport).lower(): transport for transport in Transport}
_SCHEMES = {"sip": Transport.UDP, "sips": Transport.TLS}


@frozen
class SipTarget:
    """Where Asterisk sends SIP requests: host name or address, port (None if not named), and transport."""

    host: str
    port: int | None
    transport: Transport


def target_of(uri: str) -> SipTarget | None:
    """Return where Asterisk sends requests for ``uri``; None if ``uri`` is no SIP URI, or is ambiguous."""
    uri = uri.removeprefix("<").removesuffix(">")
    scheme, _, rest = uri.partition(":")
    default = _SCHEMES.get(scheme.lower())
    if default is None or len(uri) > _LONGEST or rest.count("@") > 1 or "?" in rest:
        return None
    where, *parameters = rest.rpartition("@")[2].split(";")
    found = _HOST_AND_PORT.fullmatch(where)
    names = {name.lower(): value for name, _, value in (text.partition("=") for text in parameters)}
    if found is None or "maddr" in names or any("%" in name for name in names):
        return None
    port = None if found["port"] is None else int(found["port"])
    if port is not None and not 0 < port <= MAX_PORT:
        return None
    transport = _TRANSPORTS.get(names["transport"].lower()) if "transport" in names else default
    return SipTarget(found["v6"] or found["host"], port, transport or Transport.UNKNOWN)


def address_of(uri: str) -> Address | None:
    """Return the IP address to which Asterisk sends requests for the SIP URI ``uri``, or None.

    Return None for an invalid URI, for a host name, and for an address that is not that of a single host.
    """
    target = target_of(uri)
    return None if target is None else host_address(target.host)


def host_address(host: str) -> Address | None:
    """Parse the address of one host; None for other text, and for an unspecified or multicast address."""
    try:
        address = unmapped(ip_address(host))
    except ValueError:
        return None
    return None if address.is_unspecified or address.is_multicast else address


EOL = "\r\n"
MOST_EVENT = 8 * 1024
"""The maximum size of a phone's or trunk's event in bytes. A contact has a few hundred."""
MOST_DIGITS = 12
_REACHABLE, _UNREACHABLE = "Reachable", "Unreachable"
_DEFAULT_PORTS = (5060, 5061)


class Headers(dict[str, str]):
    """The headers of an AMI event, or the values of a contact in Asterisk's database.

    A missing one is empty.
    """

    def __missing__(self, name: str) -> str:
        """Return "" for a missing header."""
        return ""


@frozen
class RosterEvent:
    """An AMI event about phones or trunks.

    ``action`` is the ActionID of the query; "" if Asterisk sent the event unasked.
    """

    name: str
    action: str
    headers: Headers = field(converter=Headers)


@frozen
class ListedContact:
    """A phone's contact in one of AMI's lists; its URI distinguishes the contacts of an account.

    ``uri`` is "" for chan_sip and IAX2, where an account has one contact. ``has_status``: the list shows
    whether the contact can be reached.
    """

    contact: Contact
    uri: str = ""
    has_status: bool = True


Entry = ListedContact | TrunkHost
EntryParser = Callable[[Headers, str], tuple[Entry, ...]]


@frozen
class Question:
    """An AMI action to which Asterisk replies with a list, and the parser of the list's entries.

    ``entry`` is the name of the event that carries one entry. ``headers`` are sent with the action.
    """

    action: str
    entry: str
    service: Service
    parse: EntryParser
    headers: tuple[tuple[str, str], ...] = ()


def parse_roster_event(packet: bytes) -> RosterEvent | None:
    """Parse the headers of an AMI event about phones or trunks.

    Return None if the event is too long, repeats a header, has no name, or has a line without a colon.
    Asterisk writes no such event.
    """
    if len(packet) > MOST_EVENT:
        return None
    headers = Headers()
    for line in text_of(packet).split(EOL):
        name, colon, value = line.partition(":")
        if not colon or name in headers:
            return None
        headers[name] = value.removeprefix(" ")
    event = headers["Event"]
    return RosterEvent(event, headers["ActionID"], headers) if event else None


_LISTED = frozenset({"contacts", "endpoints", "aors", "auths", "peers", "registrations"})


def means_empty(message: str) -> bool:
    r"""Whether an AMI error message stands for an empty list, such as ``No Contacts found\n``.

    Asterisk sends such an error, with the newline, in place of an empty list (``res_pjsip/location.c``).
    After any other error, such as ``No such command``, the contents of the list are unknown.
    """
    words = message.casefold().strip(". \r\n").removesuffix(" found").split()
    return any(words == ["no", name] for name in _LISTED)


def _of_tree(headers: Headers, asterisk: str) -> tuple[Entry, ...]:
    """Parse a PJSIP contact from an event that lists Asterisk's database (``res_sorcery_astdb.c``).

    Return () if the event has none that counts.
    """
    try:
        found = json.loads(headers["Val"])
    except (ValueError, RecursionError):
        return ()
    if not isinstance(found, dict):
        return ()
    values = Headers({name: value for name, value in found.items() if isinstance(value, str)})
    # The key begins with the AOR's name. Most phones have one name for AOR and endpoint, so the AOR's name is
    # used if the endpoint is missing.
    aor = headers["Key"].removeprefix("/registrar/contact/").rpartition(";@")[0]
    account = values["endpoint"] or aor
    return _pjsip(asterisk, account, values["uri"], values["expiration_time"], values["path"])


def _of_contact_list(headers: Headers, asterisk: str) -> tuple[Entry, ...]:
    """Parse a contact as PJSIPShowContacts lists it; return () if the event has none that counts."""
    values = [headers[name] for name in ("Endpoint", "Uri", "ExpirationTime", "Path", "Status")]
    account, uri, until, path, status = values
    account = account or headers["ObjectName"].rpartition(";@")[0]
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
        reachable=status == _REACHABLE,
        unreachable=status == _UNREACHABLE,
    )
    return (ListedContact(contact, uri, has_status=status is not None),)


def _seconds(text: str) -> float | None:
    """Parse a time (seconds since the epoch).

    Return None for any other text, and for 0, which means that the contact never expires.
    """
    known = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return (float(text) or None) if known else None


def _of_peer(service: Service) -> EntryParser:
    """Return the parser of AMI events that list the peers of ``service``, chan_sip or IAX2.

    Asterisk sends requests to the address of the peer. With chan_sip this address is only the phone's claim,
    until the phone answers there (status OK). With IAX2 a registered phone has already answered a challenge
    there, so it counts as reachable. No security event reports that answer.
    """

    def parse(headers: Headers, asterisk: str) -> tuple[Entry, ...]:
        address = host_address(headers["IPaddress"])
        account = headers["ObjectName"].partition("/")[0]
        if address is None or not account:
            return ()
        registered = service is Service.IAX2 and headers["Dynamic"] == "yes"
        status = headers["Status"]
        contact = Contact(
            asterisk,
            service,
            account,
            address,
            reachable=registered or status.startswith("OK ("),
            unreachable=status == "UNREACHABLE",
        )
        return (ListedContact(contact),)

    return parse


def _of_registration(headers: Headers, asterisk: str) -> tuple[Entry, ...]:
    """Parse the headers of an event of ``asterisk`` (its name) about its registration at a trunk by PJSIP.

    Return the trunk's server, and the outbound proxy if there is one.
    """
    name = headers["ObjectName"]
    targets = [target_of(headers[header]) for header in ("ServerUri", "OutboundProxy")]
    return tuple(
        TrunkHost(asterisk, Service.PJSIP, name, target.host, target.port, target.transport)
        for target in targets
        if target is not None
    )


def _of_registry(service: Service) -> EntryParser:
    """Return the parser of events about registrations of this PBX at a trunk, by chan_sip or IAX2.

    If no port is configured, Asterisk prints the default port, even if SRV records name another one. So a
    default port counts as unknown.
    """

    def parse(headers: Headers, asterisk: str) -> tuple[Entry, ...]:
        text = headers["Host"]
        port = headers["Port"]
        target = target_of(f"sip:{text}:{port}" if port else f"sip:{text}")
        if target is None:
            return ()
        known = None if target.port in _DEFAULT_PORTS else target.port
        name = f"{headers['Username']}@{headers['Domain'] or target.host}"
        return (TrunkHost(asterisk, service, name, target.host, known, Transport.UNKNOWN),)

    return parse


_PJSIP_CONTACTS = (
    # Only the first action that is allowed is sent. PJSIPShowContacts requires the write class `system`. It
    # also lists whether contacts can be reached, and finds contacts in an external database.
    Question("PJSIPShowContacts", "ContactList", Service.PJSIP, _of_contact_list),
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
"""An AMI action of Asterisk's core. A user that may not use it may request none of the lists either."""


@frozen
class RosterPlan:
    """The AMI lists that one manager user may request: lists of contacts, and lists of trunks.

    ``refused``: the user lacks the right to request any list. ``unlisted``: PJSIP is loaded, but no action
    that lists PJSIP's contacts is allowed or exists.
    """

    contacts: tuple[Question, ...]
    trunks: tuple[Question, ...]
    refused: bool
    unlisted: bool


def plan_questions(commands: Collection[str]) -> RosterPlan:
    """Return the lists to request from an Asterisk that names ``commands`` as allowed for this user."""
    known = {command.lower() for command in commands}
    pjsip = [question for question in _PJSIP_CONTACTS if question.action.lower() in known][:1]
    others = [question for question in _CONTACTS if question.action.lower() in known]
    return RosterPlan(
        contacts=(*pjsip, *others),
        trunks=tuple(question for question in _TRUNKS if question.action.lower() in known),
        refused=_ALWAYS not in known,
        unlisted=not pjsip and any(command.startswith("pjsip") for command in known),
    )


# -- phone events that Asterisk sends unasked, combined with known contacts so that each names an address
#
# ``ContactStatus`` (PJSIP) names the contact's URI. ``PeerStatus`` (chan_sip, IAX2) names an address only
# when a phone registers. PJSIP's ``PeerStatus`` names none and is ignored. Asterisk reports the
# reachability of a contact only when it changes, and the list from Asterisk's own database has no
# reachability. So the last reported reachability stays valid.
#
# Bounds: ``MOST`` contacts; the contact that was reported longest ago is dropped first.


MOST = 20_000
BOOTED = "FullyBooted"
RELOADED = "Reload"
_OF_SIP = ("All", "res_pjsip", "chan_sip", "chan_iax2")

_CHANNELS = {"SIP": Service.SIP, "IAX2": Service.IAX2}
_UNCHANGED = frozenset({"Created", "Updated", "Registered"})
"""The statuses in AMI's events that do not show whether a contact can be reached.

``Created`` and ``Updated`` are those of Asterisk 13 to 15.
"""

_Account = tuple[Service, str]


@frozen
class _KnownContact:
    """A phone's contact. ``from_event``: an event of AMI reported it, and no full list has named it since."""

    contact: Contact
    from_event: bool


def reloads_accounts(event: RosterEvent) -> bool:
    """Whether an AMI event reports that Asterisk has reloaded a module with accounts and trunks."""
    done = event.name == RELOADED and event.headers["Status"] == "0"
    return done and event.headers["Module"].startswith(_OF_SIP)


class ContactTracker:
    """The addresses of the phones of one Asterisk, as far as one connection has reported them."""

    def __init__(self, asterisk: str, most: int = MOST) -> None:
        self._asterisk = asterisk
        self._most = most
        self._size = 0
        self._at: OrderedDict[_Account, dict[str, _KnownContact]] = OrderedDict()
        self._gone: set[tuple[_Account, str]] = set()  # by account and URI, since ``begin_lists``

    def begin_lists(self) -> None:
        """Record from now on which contacts go. Call this before lists of contacts are requested."""
        self._gone.clear()

    def on_event(self, event: RosterEvent) -> Contact | None:
        """Handle an AMI event about a phone that Asterisk sent unasked; return the contact that changed."""
        if event.name == "ContactStatus":
            return self._contact(event)
        return self._peer(event) if event.name == "PeerStatus" else None

    def replace_lists(
        self, listed: Iterable[ListedContact], services: Collection[Service]
    ) -> tuple[Contact, ...]:
        """Replace the contacts of these services by complete lists; return every known contact.

        A contact of PJSIP that an event reported and no list holds stays: it may be in a database that the
        list does not read, or be newer than the list. A listed contact that has gone since
        :meth:`begin_lists` is left out: the event is newer than the list.
        """
        before, self._at, self._size = self._at, OrderedDict(), 0
        for account, known in before.items():
            for uri, one in known.items():
                if account[0] not in services or (one.from_event and account[0] is Service.PJSIP):
                    self._put(account, uri, one)
        for entry in listed:
            account = entry.contact.service, entry.contact.account
            if (account, entry.uri) in self._gone:
                continue
            old = before.get(account, {}).get(entry.uri)
            contact = entry.contact
            if not entry.has_status and old is not None:
                last = old.contact
                contact = evolve(contact, reachable=last.reachable, unreachable=last.unreachable)
            self._put(account, entry.uri, _KnownContact(contact, from_event=False))
        return tuple(one.contact for known in self._at.values() for one in known.values())

    def _contact(self, event: RosterEvent) -> Contact | None:
        headers = event.headers
        uri, status = headers["URI"], headers["ContactStatus"]
        name = headers["EndpointName"] or headers["AOR"]
        address = address_of(uri)
        if address is None or not name or not status:
            return None
        contact = Contact(self._asterisk, Service.PJSIP, name, address)
        return self._change((Service.PJSIP, name), uri, contact, status, gone=status == "Removed")

    def _peer(self, event: RosterEvent) -> Contact | None:
        channel, _, name = event.headers["Peer"].partition("/")
        service = _CHANNELS.get(channel)
        status = event.headers["PeerStatus"]
        if service is None or not name or status in ("", "Rejected"):
            return None
        old = self._at.get((service, name), {}).get("")
        contact = old.contact if old is not None else None
        if status == "Registered":
            there = parse_source(event.headers["Address"].encode())
            address = host_address(str(there.address)) if there is not None else None
            if address is None:
                return None
            if contact is None or contact.address != address:
                contact = Contact(self._asterisk, service, name, address)
            if service is Service.IAX2:  # reachable: the phone answered a challenge at this address
                contact = evolve(contact, reachable=True)
        if contact is None:
            return None
        return self._change((service, name), "", contact, status, gone=status == "Unregistered")

    def _change(
        self, account: _Account, uri: str, contact: Contact, status: str, *, gone: bool
    ) -> Contact | None:
        """Record a contact's new ``status``, and return the contact as it is now.

        Return None if the contact is gone, but the account has another one at the same address. A contact
        counts as unreachable if no contact of the account at its address answers.
        """
        known = self._at.get(account, {})
        old = known.get(uri)
        if gone:
            self._drop(account, uri)
            if len(self._gone) < self._most:
                self._gone.add((account, uri))
            stays = any(one.contact.address == contact.address for one in known.values())
            return None if stays else evolve(contact, gone=True, reachable=False, unreachable=False)
        before = old.contact if old is not None else contact
        kept = contact.reachable or (before.reachable and before.address == contact.address)
        reachable, unreachable = kept, before.unreachable and before.address == contact.address and not kept
        if status not in _UNCHANGED:
            reachable, unreachable = status == _REACHABLE, status == _UNREACHABLE
        now = evolve(contact, until=before.until, reachable=reachable, unreachable=unreachable)
        self._gone.discard((account, uri))
        self._put(account, uri, _KnownContact(now, from_event=old is None or old.from_event))
        here = (one.contact for one in known.values() if one.contact.address == now.address)
        if now.unreachable and any(not one.unreachable for one in here):
            return evolve(now, unreachable=False)  # a phone that restarted has a new port
        return now

    def _put(self, account: _Account, uri: str, one: _KnownContact) -> None:
        known = self._at.setdefault(account, {})
        self._size += uri not in known
        known[uri] = one
        self._at.move_to_end(account)
        while self._size > self._most:
            oldest, uris = next(iter(self._at.items()))
            self._drop(oldest, next(iter(uris)))

    def _drop(self, account: _Account, uri: str) -> None:
        known = self._at.get(account)
        if known is None or known.pop(uri, None) is None:
            return
        self._size -= 1
        if not known:
            del self._at[account]
