"""Entries of the administrator's allow list and deny list."""

import enum

from attrs import frozen


class ListKind(enum.StrEnum):
    """One of the administrator's two lists: addresses never banned, and addresses always denied."""

    ALLOW = "allow"
    DENY = "deny"


@frozen
class ListEntry:
    """One entry of the administrator's lists, as it was written.

    ``value`` is a network, a host name or a region (``lists/entries.py``).
    ``origin`` is ``command`` or ``configuration``, or else names the list, or the ban of another host, that
    denies the network (``lists/entries.py``). ``until`` is when the entry ends (seconds since the epoch),
    None for never. ``forced`` means that the entry may deny an address that is otherwise protected.
    """

    kind: ListKind
    value: str
    note: str
    added: float
    until: float | None = None
    origin: str = "command"
    forced: bool = False
