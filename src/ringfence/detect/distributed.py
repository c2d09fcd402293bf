"""Distributed attacks: what a stranger's failure leads to while many addresses try one account.

An address that has guessed once and does not return is not stopped by a ban of this address. So while an
account is under a distributed attack (``judge``), the first proven failure of a stranger there already closes
SIP, by the transport that it used. It closes SIP to the *network around the stranger* as soon as others of
this network have failed there within the hour:

- two subjects of a /24 or /48: the /24, or of the /48 the narrowest /60, /56, /52 or /48 that has them all
- subjects of sixteen /24s within a /16, or of eight /48s within a /32: the narrowest of these networks that
  has them all, in steps of four bits

In this network may be an address that is known: exempt, or a friend now or in the last month. Then the ban is
for the widest part that contains the stranger and nobody known. So the known places of an account can always
log in. Each such part costs one more guess: at most eight for each known address of a /16 outside the /24s of
the attacker, and sixteen in a /32. The bans last minutes, and longer on return: they are those of claimed
evidence (``rules.Claimed``).

**How many guesses Asterisk checks** at one account in an hour. The attack begins for the judge with the
eighth address, or with the twentieth failure of at least three that are not banned in full.

=======================================  ==========================================================  =======
the attacker has                         what ends it                                                checked
=======================================  ==========================================================  =======
60 addresses of a /24, in turn           the eighth address bans the /24                             8
the same, four guesses of each           the twentieth failure (also by the rule ``prefix``)         20
forty /64s of a /48, four of each        the twentieth failure bans a /60; then at most one more     24
                                         for each wider network, up to the /48
forty /64s that share no /32, the same   twenty, and one of each of the others                       55
a /32, a new /48 for each guess          the eighth /48 bans their network; then at most one more    12
                                         for each wider one, in steps of four bits, up to the /32
a /32, a new /64 for each guess          the same; before it, at most four in each of seven /48s     32
256 /24s of a /16, in turn               the sixteenth /24; then the same, up to the /16             20
256 /24s, one after the other            eight of the first, and two of each other one; 19 of each   28
                                         in a day are eleven /24s an hour
=======================================  ==========================================================  =======

When a ban ends, the first guess from this network renews it: after 10 and 40 minutes, and then each two
hours.

Not bounded is an attacker with many networks that have nothing in common: each can guess once.
"""

from collections.abc import Collection, Iterable

from ringfence.detect.history import Key, Subject, Subjects, unpack_network
from ringfence.model import Address, Network, Scope, Transport
from ringfence.networks import BITS, is_one_host

LEAST_24S, LEAST_48S = 16, 8
"""The number of /24s of a /16, or of /48s of a /32, whose failures lead to a ban of a network around them."""

_SUBJECTS = 2
_STEP = 4  # bits
_IPV4 = 4
_DATAGRAMS = (Transport.UDP, Transport.UNKNOWN)


def scope_of_ban(transport: Transport) -> Scope:
    """Return the scope that closes SIP by one transport."""
    return Scope.SIP_UDP if transport in _DATAGRAMS else Scope.SIP_TCP


def network_to_ban(subject: Subject, members: Iterable[Key], subjects: Subjects) -> Network:
    """Return the network around a stranger to ban; its subject alone if nobody else takes part there.

    ``members`` are the strangers that have failed on the account within the hour, including this one.
    """
    own = subject.network
    length = _common_length(subject, members)
    if length >= own.prefixlen:
        return own
    length = max(length, _unknown_from(subject.address, subjects))
    while length < own.prefixlen:
        network = own.supernet(new_prefix=length)
        if not subjects.exempt.overlaps(network):
            return network
        length += 1
    return own


def _common_length(subject: Subject, members: Iterable[Key]) -> int:
    """Return the prefix length of the network that the members around a stranger have in common."""
    address, own = subject.address, subject.network
    wide, near = _lengths_around(address)
    bits = BITS[address.version]
    number = int(own.network_address)
    around: set[int] = set()
    for key in members:
        network = unpack_network(key)
        other = int(network.network_address)
        if network.version == address.version and not (number ^ other) >> (bits - wide):
            around.add(other)
    together = {other for other in around if not (number ^ other) >> (bits - near)}
    least = LEAST_24S if is_one_host(address) else LEAST_48S
    if len({other >> (bits - near) for other in around}) >= least:
        return max(wide, _shared(number, around, bits))
    if len(together) >= _SUBJECTS:
        return near if is_one_host(address) else max(near, _shared(number, together, bits))
    return own.prefixlen


def _shared(number: int, others: Collection[int], bits: int) -> int:
    """Return the number of first bits that ``others`` share with ``number``, in steps of four."""
    longest = max((number ^ other).bit_length() for other in others)
    return (bits - longest) // _STEP * _STEP


def _lengths_around(address: Address) -> tuple[int, int]:
    """Return the prefix lengths of the widest network around an address, and of its /24 or /48."""
    if address.version == _IPV4:
        return 16, 24
    return (112, 120) if is_one_host(address) else (32, 48)


def _unknown_from(address: Address, subjects: Subjects) -> int:
    """Return the shortest prefix length of a network around ``address`` without a friend, or a former one.

    A former friend's phone may log in again. All friends are compared once, because a search in each network
    of another length would take as long for each.
    """
    number, bits = int(address), BITS[address.version]
    friends = subjects.friends
    nearest = bits + 1
    for known in (friends.addresses(), friends.former_addresses()):
        for one in known:
            if one.version == address.version:
                nearest = min(nearest, (number ^ int(one)).bit_length())
    return bits + 1 - nearest
