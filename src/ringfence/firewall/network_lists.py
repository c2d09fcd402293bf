"""The lists of networks in the kernel: what each holds, what it drops, and what passes it."""

from functools import cache

from attrs import frozen

from ringfence import street
from ringfence.values.ban import Scope


@frozen
class NetworkList:
    """A list of networks in the kernel, with its contents. Its sets hold no bans.

    ``drops`` is the traffic that is dropped as by a ban, or None. A list that is made ``by_machine`` may not
    silence a phone, so ``PASSING`` passes it.
    """

    name: str
    contents: str
    drops: Scope | None = None
    by_machine: bool = False

    def __str__(self) -> str:
        """Return the list's name, with which the names of its sets in the kernel begin."""
        return self.name


# The limits of each sender do not apply to FRIENDS, UNSHIELDED and ALLOW: forged senders must not end a
# phone's registration, nor make its calls slow. Some bans do not apply to FRIENDS (``exempts_friends`` of
# ``values/network.py``). ADMITTED has all friends: one that moves between two other lists passes at every
# moment.
ALLOW = NetworkList("allow", "the allow list, and the networks that this host needs")
FRIENDS = NetworkList("friends", "known phones and trunks")
UNSHIELDED = NetworkList("unshielded", "friends from whose address somebody else seems to guess")
OBSERVED = NetworkList("observed", "friends that Asterisk refuses again and again")
ADMITTED = NetworkList("admitted", "former and present friends with their /64, and admitted ones")
DENY = NetworkList("deny", "the deny list", Scope.FULL)
EXTERNAL = NetworkList("external", "denied regions, and block lists", Scope.FULL, by_machine=True)

PASSING = FRIENDS, UNSHIELDED, ADMITTED
"""The lists whose addresses are exempt from block lists, denied regions and closed ports."""


@cache
def every() -> tuple[NetworkList, ...]:
    """Return the lists of the guard, then those of features.

    They are written in this order, so the kernel knows the friends before it drops the networks of a list.
    """
    own = ALLOW, FRIENDS, UNSHIELDED, OBSERVED, ADMITTED, DENY, EXTERNAL
    return (*own, *(module.LIST for module in street.modules("network_list")))


def limited() -> tuple[NetworkList, ...]:
    """Return the lists of which only the first networks are used, up to ``max_bans`` of ``[firewall]``."""
    return (ALLOW, *(one for one in every() if one.drops is not None))
