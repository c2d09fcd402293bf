"""Friends: the known phones and trunks of a PBX, and what its Asterisk reports of them."""

import enum

from attrs import frozen

from ringfence.values.event import Service, Transport
from ringfence.values.network import Address


class FriendReason(enum.StrEnum):
    """The kind of reason why an address is a friend (a known phone or trunk) of this PBX."""

    AUTHENTICATED = "authenticated"  # a valid password came from the address, and the address is proven
    REACHABLE = "reachable"  # Asterisk has a contact there, and it answers
    REGISTERED = "registered"  # Asterisk has a contact there; the address is the phone's own claim
    TRUNK = "trunk"  # this PBX registers there
    IMPORTED = "imported"  # imported from another ringfence


@frozen
class Friend:
    """One of the reasons why an address is a friend, that is, a known phone or trunk of this PBX.

    ``account`` is the account that is used there, or the trunk's name. ``since`` is the time when the reason
    was first seen, also if it ended within a month and began again. ``seen`` is when it was last seen, and
    ``until`` when it ends (seconds since the epoch).
    """

    asterisk: str
    address: Address
    account: str
    reason: FriendReason
    since: float
    seen: float
    until: float

    @property
    def proven(self) -> bool:
        """Whether the address is proven. In a registered contact, the phone can name any address."""
        return self.reason is not FriendReason.REGISTERED

    def moved(self, seconds: float) -> "Friend":
        """Return the reason with all its times ``seconds`` later."""
        times = self.since + seconds, self.seen + seconds, self.until + seconds
        return Friend(self.asterisk, self.address, self.account, self.reason, *times)


@frozen
class Contact:
    """A phone's contact (where Asterisk reaches it), as Asterisk reports it.

    ``address`` is the host in the contact's URI: the true source address if Asterisk rewrites contacts
    (``rewrite_contact``), otherwise the phone's claim. ``until`` is the end of the registration (seconds
    since the epoch), None if unknown. ``reachable`` means that the phone answered Asterisk there recently.
    ``unreachable`` means that Asterisk asked it there, and got no answer. Without either, Asterisk did not
    ask yet, does not ask at all, or does not list whether the phone answers. ``gone`` means that the contact
    was removed.
    """

    asterisk: str
    service: Service
    account: str
    address: Address
    until: float | None = None
    reachable: bool = False
    unreachable: bool = False
    gone: bool = False


@frozen
class TrunkHost:
    """A server at which this PBX registers: ``host`` is a name or an address, as configured.

    ``name`` is the name of the trunk. ``port`` is None if none is configured; then SRV records decide.
    """

    asterisk: str
    service: Service
    name: str
    host: str
    port: int | None
    transport: Transport


@frozen
class Roster:
    """All contacts and trunks of one Asterisk. A contact that is missing here is gone.

    ``contacts`` and ``trunks`` are None if Asterisk could not be queried for them. ``refused`` has a line for
    each query that Asterisk refused.
    """

    asterisk: str
    contacts: tuple[Contact, ...] | None
    trunks: tuple[TrunkHost, ...] | None
    refused: tuple[str, ...] = ()
