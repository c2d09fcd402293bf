"""The lists of networks in the kernel: what each holds, what it drops, and what passes it."""

import enum
from typing import Self

from ringfence.values.ban import Scope


class NetworkList(enum.StrEnum):
    """A list of networks in the kernel, with its contents. Its sets hold no bans.

    ``drops`` is the traffic that is dropped as by a ban, or None. ``passes``: its networks pass the lists
    that are ``by_machine``, and the fence: no list that a machine makes may silence a phone.

    The limiter and the rations do not apply to ``FRIENDS``, ``UNSHIELDED`` and ``ALLOW``: forged senders must
    not end a phone's registration, nor make its calls slow. Some bans do not apply to ``FRIENDS``
    (:func:`~ringfence.values.network.exempts_friends`). ``ADMITTED`` has all friends: one that moves between
    two other lists passes at every moment.
    """

    def __new__(cls, value: str, contents: str = "", drops: Scope | None = None, *flags: bool) -> Self:
        """Return the member of a row of the table below."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.contents, member.drops = contents, drops
        member.passes, member.by_machine = flags
        return member

    contents: str
    drops: Scope | None
    passes: bool
    by_machine: bool

    # They are written in this order, so the kernel knows the friends before it drops any.
    ALLOW = "allow", "the allow list, and the networks that this host needs", None, False, False
    FRIENDS = "friends", "known phones and trunks", None, True, False
    UNSHIELDED = "unshielded", "friends from whose address somebody else seems to guess", None, True, False
    OBSERVED = "observed", "friends that Asterisk refuses again and again", None, False, False
    ADMITTED = "admitted", "former and present friends with their /64, and admitted ones", None, True, False
    INSIDE = "inside", "the networks and countries of the fence", None, False, False
    DENY = "deny", "the deny list", Scope.FULL, False, False
    FETCHED = "fetched", "feeds, and denied countries and autonomous systems", Scope.FULL, False, True
    DECIDED = "decided", "networks that other hosts banned", Scope.SIP, False, True


PASSING = tuple(one for one in NetworkList if one.passes)
"""The lists that pass fetched and decided networks, and the fence, as the allow list does."""
