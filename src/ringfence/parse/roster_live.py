"""Phone events that Asterisk sends unasked, combined with known contacts so that each names an address.

``ContactStatus`` (PJSIP) names the contact's URI. ``PeerStatus`` (chan_sip, IAX2) names an address only when
a phone registers. PJSIP's ``PeerStatus`` names none and is ignored. Asterisk reports the reachability of a
contact only when it changes, and the list from Asterisk's own database has no reachability. So the last
reported reachability stays valid.

Bounds: ``MOST`` contacts; the contact that was reported longest ago is dropped first.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable

from attrs import evolve, frozen

from ringfence.model import Contact, Service
from ringfence.parse.address import parse_source
from ringfence.parse.roster import ListedContact, RosterEvent
from ringfence.parse.roster_uri import address_of, host_address

MOST = 20_000
BOOTED = "FullyBooted"

_CHANNELS = {"SIP": Service.SIP, "IAX2": Service.IAX2}
_UNCHANGED = frozenset({"Created", "Updated", "Registered"})
"""Statuses that do not show whether a contact can be reached.

``Created`` and ``Updated`` are those of Asterisk 13 to 15.
"""

_Account = tuple[Service, str]


@frozen
class _KnownContact:
    """A contact. ``from_event``: an event reported it, and no list has named it since."""

    contact: Contact
    from_event: bool


class ContactTracker:
    """The addresses of the phones of one Asterisk, as far as one connection has reported them."""

    def __init__(self, asterisk: str, most: int = MOST) -> None:
        self._asterisk = asterisk
        self._most = most
        self._size = 0
        self._at: OrderedDict[_Account, dict[str, _KnownContact]] = OrderedDict()

    def on_event(self, event: RosterEvent) -> Contact | None:
        """Handle an event that Asterisk sent unasked; return the contact that changed, if any."""
        if event.name == "ContactStatus":
            return self._contact(event)
        return self._peer(event) if event.name == "PeerStatus" else None

    def replace_lists(
        self, listed: Iterable[ListedContact], services: Collection[Service]
    ) -> tuple[Contact, ...]:
        """Replace the contacts of these services by complete lists; return every known contact.

        A contact of PJSIP that an event reported and no list holds stays: it may be in a database that the
        list does not read, or be newer than the list.
        """
        before, self._at, self._size = self._at, OrderedDict(), 0
        for account, known in before.items():
            for uri, one in known.items():
                if account[0] not in services or (one.from_event and account[0] is Service.PJSIP):
                    self._put(account, uri, one)
        for entry in listed:
            account = entry.contact.service, entry.contact.account
            old = before.get(account, {}).get(entry.uri)
            reachable = entry.contact.reachable or (
                not entry.has_status and old is not None and old.contact.reachable
            )
            self._put(
                account,
                entry.uri,
                _KnownContact(evolve(entry.contact, reachable=reachable), from_event=False),
            )
        return tuple(one.contact for known in self._at.values() for one in known.values())

    def _contact(self, event: RosterEvent) -> Contact | None:
        headers = event.headers
        uri, status = headers.get("URI", ""), headers.get("ContactStatus", "")
        name = headers.get("EndpointName") or headers.get("AOR", "")
        address = address_of(uri)
        if address is None or not name or not status:
            return None
        contact = Contact(self._asterisk, Service.PJSIP, name, address)
        return self._change((Service.PJSIP, name), uri, contact, status, gone=status == "Removed")

    def _peer(self, event: RosterEvent) -> Contact | None:
        channel, slash, name = event.headers.get("Peer", "").partition("/")
        service = _CHANNELS.get(channel)
        status = event.headers.get("PeerStatus", "")
        if service is None or not slash or not name or status in ("", "Rejected"):
            return None
        old = self._at.get((service, name), {}).get("")
        contact = old.contact if old is not None else None
        if status == "Registered":
            there = parse_source(event.headers.get("Address", "").encode())
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
        """Record one status of a contact, and return the contact as it is now.

        Return None if the contact is gone, but the account has another one at the same address.
        """
        known = self._at.get(account, {})
        old = known.get(uri)
        if gone:
            self._drop(account, uri)
            stays = any(one.contact.address == contact.address for one in known.values())
            return None if stays else evolve(contact, gone=True, reachable=False)
        before = old.contact if old is not None else contact
        kept = contact.reachable or (before.reachable and before.address == contact.address)
        reachable = kept if status in _UNCHANGED else status == "Reachable"
        now = evolve(contact, until=before.until, reachable=reachable)
        self._put(account, uri, _KnownContact(now, from_event=old is None or old.from_event))
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
