"""Distributed attacks: what a stranger's failure leads to while many addresses try one account.

An address that has guessed once and does not return is not stopped by a ban of this address. So while an
account is under a distributed attack (``judge``), the first proven failure of a stranger there already closes
SIP, by the transport that it used. It closes SIP to the *network around the stranger* as soon as others of
this network have failed there within the hour:

- two subjects of a /24 or /48: the /24, or of the /48 the narrowest /60, /56 or /52 that has them all; five
  subjects: the whole /48
- subjects of sixteen /24s of a /16, or of eight /48s of a /32: the whole /16 or /32

In this network may be addresses that are known: exempt, or a friend now or in the last month. Then each part
of it without them is banned (of a /16 or /32, down to a /24 or /48), at most ``MOST_PARTS``. So an account
can always log in from its known addresses. Failures of friends do not count for an attack
(``Judge.count_friend``): the phones of many homes may have the same wrong account. The bans last minutes, and
longer on return: they are those of claimed evidence (``rules.Claimed``).

**How many guesses Asterisk checks** at one account in an hour. The attack begins for the judge with the
eighth address, or with the twentieth failure of at least three that are not banned in full.

=======================================  ==========================================================  =======
the attacker has                         what ends it                                                checked
=======================================  ==========================================================  =======
60 addresses of a /24, in turn           the eighth address bans the /24                             8
the same, four guesses of each           the twentieth failure (also by the rule ``prefix``)         20
forty /64s of a /48, four of each        the twentieth failure, of the fifth /64                     20
forty /64s that share no /32, the same   twenty, and one of each of the others                       55
a /32, a new /48 for each guess          the eighth /48 bans the /32                                 8
a /32, a new /64 for each guess          at most five in each of eight /48s, without what the rule   26
                                         ``prefix`` bans before
256 /24s of a /16, in turn               the sixteenth /24 bans the /16                              16
256 /24s, one after the other            eight of the first, and two of each other one; 19 of each   28
                                         in a day are eleven /24s an hour
=======================================  ==========================================================  =======

When a ban ends, the first guess from this network renews it: after 10 and 40 minutes, and then each two
hours. So two or three more are checked in an hour.

Not bounded is an attacker with many networks that have nothing in common: each can guess once.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import attrgetter

from ringfence.detect.history import Key, Subject, Subjects, keys_in, unpack_network
from ringfence.values.ban import Scope
from ringfence.values.event import DATAGRAMS, Transport
from ringfence.values.network import Address, Network, contains, is_one_host, narrowest

LEAST_24S, LEAST_48S, LEAST_64S = 16, 8, 5
"""A /16 is banned if this many of its /24s fail on one account; a /32 by its /48s, and a /48 by its /64s."""

MOST_PARTS = 64
"""The greatest number of parts in which a network is banned, to leave out friends and exempt addresses."""

MOST_KNOWN = 1_024
"""The maximum number of friends in a banned /16 or /32: more would take long to leave out of the ban.

If there are more, only the sender's /24 or /48 is banned.
"""

_SUBJECTS = 2
_IPV4 = 4


def scope_of_ban(transport: Transport) -> Scope:
    """Return the scope of a ban of SIP by ``transport``: SIP by UDP, or SIP by TCP (with TLS, WS and WSS)."""
    return Scope.SIP_UDP if transport in DATAGRAMS else Scope.SIP_TCP


def networks_to_ban(subject: Subject, members: Iterable[Key], subjects: Subjects) -> Sequence[Network]:
    """Return the networks to ban for a distributed attack, the one with the address of ``subject`` first.

    ``members`` are the senders that failed on the attacked account within the hour, with ``subject``.
    """
    own = subject.network
    whole = _network_of_attack(subject, members, subjects)
    if whole == own:
        return (own,)
    near = own.supernet(new_prefix=_lengths_around(subject.address)[1])
    known = _known_in(whole, subjects)
    if len(known) > MOST_KNOWN:
        whole, known = near, _known_in(near, subjects)
    longest = own.prefixlen if contains(near, whole) else near.prefixlen
    parts = [*_parts_without(whole, known, longest, subjects)]
    first = next((part for part in parts if contains(part, own)), None)
    if first is None:
        near_parts = _parts_without(near, _known_in(near, subjects), own.prefixlen, subjects)
        first = next((part for part in near_parts if contains(part, own)), own)
    others = sorted((part for part in parts if part != first), key=attrgetter("prefixlen"))
    return (first, *others[: MOST_PARTS - 1])


def _known_in(network: Network, subjects: Subjects) -> list[Address]:
    """Return the present and former friends in a network. Only numbers are compared, as they may be many."""
    bits = network.max_prefixlen - network.prefixlen
    prefix, friends = int(network.network_address) >> bits, subjects.friends
    return [
        one
        for one in chain(friends.addresses(), friends.former_addresses())
        if one.version == network.version and int(one) >> bits == prefix
    ]


def _network_of_attack(subject: Subject, members: Iterable[Key], subjects: Subjects) -> Network:
    """Return the widest network around ``subject`` to ban: one in which enough other senders fail too.

    ``members`` are all senders that fail. Those that are friends now or in the last month do not widen the
    ban: a sender may fail as a stranger, and then turn out to be a phone. Without near ones, the result is
    the network of ``subject``.
    """
    own, alone = subject.network, is_one_host(subject.address)
    wide, near = (own.supernet(new_prefix=length) for length in _lengths_around(subject.address))
    parts, together = set[Network](), list[Network]()
    for key in keys_in(wide, members):
        if key != subject.key and subjects.is_known(key):
            continue
        one = unpack_network(key)
        parts.add(one.supernet(new_prefix=near.prefixlen))
        if len(parts) >= (LEAST_24S if alone else LEAST_48S):
            return wide
        if contains(near, one):
            together.append(one)
    if len(together) < _SUBJECTS:
        return own
    return near if alone or len(together) >= LEAST_64S else narrowest(near, together)


def _lengths_around(address: Address) -> tuple[int, int]:
    """Return the prefix lengths of the two networks around an address that may be banned, the wider first."""
    if address.version == _IPV4:
        return 16, 24
    return (112, 120) if is_one_host(address) else (32, 48)


def _parts_without(
    network: Network, known: Sequence[Address], longest: int, subjects: Subjects
) -> Iterator[Network]:
    """Yield the subnets without ``known`` and exempt addresses, with prefix lengths up to ``longest``."""
    if not known and not subjects.exempt.overlaps(network):
        yield network
    elif network.prefixlen < longest:
        for half in network.subnets():
            yield from _parts_without(half, [one for one in known if one in half], longest, subjects)
