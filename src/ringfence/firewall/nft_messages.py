"""The nftables messages that ask and tidy up, as bytes: builders and parsers, no socket, no clock.

What they ask for is small (tables, chains, rules, the heads of sets, named counters): elements, of which
there may be many, have ``nft_elements.py``.

The deletion of an empty table raw is for cleaning up after iptables-nft, which makes that table when the
first rule comes, and has no command to delete it. It is one batch of which nothing happens unless everything
in it can: each chain only if no rule is in it, the table only if nothing is left in it (NLM_F_NONREC, kernel
4.20). A chain's policy is not asked about here.

Everything parsed here came from the kernel, and is nevertheless checked: a length that leads out of its
buffer raises :class:`MessageError`. The numbers are the kernel's (``linux/netfilter/nf_tables.h``). Integers
in attributes are big-endian. Builders leave the sequence number 0: the conversation writes it.
"""

import enum
from collections.abc import Iterable, Iterator
from socket import AF_INET, AF_INET6
from typing import TypeAlias

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall.nfnetlink import (
    ATTRIBUTE,
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_NONREC,
    TYPE_MASK,
    message,
    text,
)

Bytes: TypeAlias = bytes  # within a class that has a field of that name
INET = 1  # NFPROTO_INET: a table for both IP versions
SUBSYSTEM = 10
_FAMILIES = {4: AF_INET, 6: AF_INET6}
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_COMMENT = 0  # the kind of the tools' own notes in a rule's user data


class Message(enum.IntEnum):
    """The messages of the nftables subsystem that are used here."""

    NEWTABLE = 0
    GETTABLE = 1
    DELTABLE = 2
    NEWCHAIN = 3
    GETCHAIN = 4
    DELCHAIN = 5
    NEWRULE = 6
    GETRULE = 7
    NEWSET = 9
    GETSET = 10
    NEWSETELEM = 12
    GETSETELEM = 13
    DELSETELEM = 14
    NEWGEN = 15
    GETGEN = 16
    NEWOBJ = 18
    GETOBJ = 19
    DESTROYSETELEM = 30

    @property
    def kind(self) -> int:
        """The number in a message's header, with that of the subsystem."""
        return SUBSYSTEM << 8 | self


class MessageError(FirewallError):
    """Bytes from the kernel that are no nftables message."""


@frozen
class Table:
    """A table; ``dormant``: its chains see no packet."""

    name: str
    handle: int
    dormant: bool


@frozen
class Chain:
    """A chain; ``hook`` and ``priority`` are None where packets come to it by other chains alone."""

    table: str
    name: str
    handle: int
    hook: int | None = None
    priority: int | None = None
    policy: int | None = None


@frozen
class Rule:
    """A rule: where it stands, and what it counted, where it has a counter.

    ``position`` is the handle of the rule before it (None for the first). ``body`` is what it does, as the
    kernel writes it but for what its counter has counted: a rule that somebody replaces may keep its handle.
    """

    table: str
    chain: str
    handle: int
    position: int | None = None
    comment: str = ""
    packets: int | None = None
    bytes: int | None = None
    body: Bytes = b""


@frozen
class SetHead:
    """A set without its elements. ``elements`` is None where the kernel does not count (before 6.16)."""

    name: str
    handle: int
    flags: int
    key_length: int
    size: int
    timeout: int
    elements: int | None = None


@frozen
class Counter:
    """A named counter."""

    name: str
    packets: int
    bytes: int


@frozen
class Generation:
    """A state of all tables together: its number, and the netlink port that made it (0: not told)."""

    number: int
    port: int = 0


def table_query(version: int, table: str = "raw") -> bytes:
    """Build the question whether nftables has this table of iptables for IP ``version``; ENOENT if not."""
    return get_table(table, family=_FAMILIES[version])


def delete_empty_table(
    version: int, table: str = "raw", chains: Iterable[str] = ("PREROUTING", "OUTPUT")
) -> tuple[bytes, ...]:
    """Build the batch that deletes a table with these chains; EBUSY if anything else is in it."""
    family, named = _FAMILIES[version], text(1, table)
    return batch(
        *(message(Message.DELCHAIN.kind, NLM_F_NONREC, family, named, text(3, name)) for name in chains),
        message(Message.DELTABLE.kind, NLM_F_NONREC | NLM_F_ACK, family, named),
    )


def batch(*messages: bytes) -> tuple[bytes, ...]:
    """Put messages into one transaction: all of it happens, or nothing."""
    return (
        message(_BATCH_BEGIN, 0, 0, resource=SUBSYSTEM),
        *messages,
        message(_BATCH_END, 0, 0, resource=SUBSYSTEM),
    )


def get_generation() -> bytes:
    """Build the question which generation it is; one answer, :func:`generation_of`."""
    return message(Message.GETGEN.kind, NLM_F_ACK, 0)


def get_table(name: str, *, family: int = INET) -> bytes:
    """Build the question for one table; ENOENT where there is none, else :func:`tables_of`."""
    return message(Message.GETTABLE.kind, NLM_F_ACK, family, text(1, name))


def get_chains(*, family: int = INET) -> bytes:
    """Build the dump of all chains of a family, of every table; read with :func:`chains_of`."""
    return message(Message.GETCHAIN.kind, NLM_F_DUMP, family)


def get_rules(table: str, *, family: int = INET) -> bytes:
    """Build the dump of a table's rules; read with :func:`rules_of`. Nothing where there is no such table.

    ``family`` is INET, or AF_INET or AF_INET6 for the tables of iptables-nft.
    """
    return message(Message.GETRULE.kind, NLM_F_DUMP, family, text(1, table))


def get_sets(table: str, *, family: int = INET) -> bytes:
    """Build the dump of a table's sets without elements; read with :func:`sets_of`. ENOENT: no such table."""
    return message(Message.GETSET.kind, NLM_F_DUMP, family, text(1, table))


def get_counters(table: str, *, family: int = INET) -> bytes:
    """Build the dump of a table's named counters; read with :func:`counters_of`."""
    return message(Message.GETOBJ.kind, NLM_F_DUMP, family, text(1, table))


def delete_table(name: str, *, family: int = INET) -> tuple[bytes, ...]:
    """Build the batch that deletes a table with all that is in it; ENOENT where there is none."""
    return batch(message(Message.DELTABLE.kind, NLM_F_ACK, family, text(1, name)))


def generation_of(answer: bytes) -> Generation | None:
    """Read one answer, or one notification, of NEWGEN; None for any other."""
    if len(answer) < HEADER.size:
        return None
    _length, kind, _flags, _sequence, port = HEADER.unpack_from(answer)[:5]
    if kind != Message.NEWGEN.kind:
        return None
    return Generation(_integer(_top(answer, Message.NEWGEN), 1), port)


def tables_of(answers: Iterable[bytes]) -> list[Table]:
    """Read what :func:`get_table` is answered."""
    return [
        Table(_name(top, 1), _integer(top, 4), dormant=bool(_integer(top, 2) & 1))
        for top in _tops(answers, Message.NEWTABLE)
    ]


def chains_of(answers: Iterable[bytes]) -> list[Chain]:
    """Read what :func:`get_chains` is answered."""
    chains = []
    for top in _tops(answers, Message.NEWCHAIN):
        found = Chain(_name(top, 1), _name(top, 3), _integer(top, 2))
        if 4 in top:  # noqa: PLR2004 - NFTA_CHAIN_HOOK
            hook = dict(attributes(top[4]))
            priority = int.from_bytes(hook.get(2, b""), "big", signed=True)
            found = Chain(
                found.table, found.name, found.handle, _integer(hook, 1), priority, _integer(top, 5)
            )
        chains.append(found)
    return chains


def rules_of(answers: Iterable[bytes]) -> list[Rule]:
    """Read what :func:`get_rules` is answered, in the order in which the rules stand in each chain."""
    rules = []
    for top in _tops(answers, Message.NEWRULE):
        body, packets, octets = _expressions(top.get(4, memoryview(b"")))
        rules.append(
            Rule(
                _name(top, 1),
                _name(top, 2),
                _integer(top, 3),
                _integer(top, 6) if 6 in top else None,  # noqa: PLR2004 - NFTA_RULE_POSITION
                _comment(top.get(7, memoryview(b""))),
                packets,
                octets,
                body,
            )
        )
    return rules


def sets_of(answers: Iterable[bytes]) -> list[SetHead]:
    """Read what :func:`get_sets` is answered, anonymous sets (``__set0``) too."""
    sets = []
    for top in _tops(answers, Message.NEWSET):
        described = dict(attributes(top.get(9, memoryview(b""))))
        sets.append(
            SetHead(
                _name(top, 2),
                _integer(top, 16),
                _integer(top, 3),
                _integer(top, 5),
                _integer(described, 1),
                _integer(top, 11),
                _integer(top, _SET_COUNT) if _SET_COUNT in top else None,
            )
        )
    return sets


_SET_COUNT = 20


def counters_of(answers: Iterable[bytes]) -> list[Counter]:
    """Read what :func:`get_counters` is answered; named things that are no counters are passed over."""
    counters = []
    for top in _tops(answers, Message.NEWOBJ):
        if _integer(top, 3) == 1:  # NFT_OBJECT_COUNTER
            data = dict(attributes(top.get(4, memoryview(b""))))
            counters.append(Counter(_name(top, 2), _integer(data, 2), _integer(data, 1)))
    return counters


def attributes(buffer: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Read attributes one after the other; MessageError where a length leads out of ``buffer``."""
    position = 0
    while position < len(buffer):
        if len(buffer) - position < ATTRIBUTE.size:
            raise MessageError("an nftables message ends within an attribute's head")
        length, kind = ATTRIBUTE.unpack_from(buffer, position)
        if length < ATTRIBUTE.size or position + length > len(buffer):
            raise MessageError(f"an nftables attribute gives its length as {length}, outside its message")
        yield kind & TYPE_MASK, buffer[position + ATTRIBUTE.size : position + length]
        position += length + (-length % 4)


def _tops(answers: Iterable[bytes], kind: Message) -> Iterator[dict[int, memoryview]]:
    return (_top(answer, kind) for answer in answers)


def _top(answer: bytes, kind: Message) -> dict[int, memoryview]:
    if len(answer) < HEADER.size:
        raise MessageError(f"an nftables message of only {len(answer)} bytes")
    length, number = HEADER.unpack_from(answer)[:2]
    if not HEADER.size <= length <= len(answer) or number != kind.kind:
        raise MessageError(f"no nftables {kind.name} message: type {number:#x}, length {length}")
    return dict(attributes(memoryview(answer)[HEADER.size : length]))


def _name(top: dict[int, memoryview], kind: int) -> str:
    if kind not in top:
        raise MessageError(f"an nftables message lacks attribute {kind}")
    return bytes(top[kind]).rstrip(b"\0").decode("ascii", "backslashreplace")


def _integer(top: dict[int, memoryview], kind: int) -> int:
    return int.from_bytes(top.get(kind, b""), "big")


def _expressions(expressions: memoryview) -> tuple[bytes, int | None, int | None]:
    """Read what a rule does, and what its own counter has met: packets and bytes."""
    body, packets, octets = [], None, None
    for _, expression in attributes(expressions):
        parts = dict(attributes(expression))
        if bytes(parts.get(1, b"")) == b"counter\0":
            data = dict(attributes(parts.get(2, memoryview(b""))))
            packets, octets = _integer(data, 2), _integer(data, 1)
            body.append(b"counter")
        else:
            body.append(bytes(expression))
    return b"".join(body), packets, octets


def _comment(noted: memoryview) -> str:
    """Read a rule's comment from its user data: kind, length and value of one byte, one byte and the rest."""
    place = 0
    while place + 2 <= len(noted):
        kind, length = noted[place], noted[place + 1]
        if kind == _COMMENT:
            return bytes(noted[place + 2 : place + 2 + length]).rstrip(b"\0").decode("utf-8", "replace")
        place += 2 + length
    return ""
