"""The nftables messages for all but elements, as bytes: builders and parsers, no socket, no clock.

They are about tables, chains, rules, headers of sets and named counters. ``elements.py`` has those about
elements, of which there may be many. The program ``nft`` writes all rules but those of a new set of bans
(:func:`add_set`, :func:`add_lookup`).

The ipset backend needs one deletion too. iptables-nft makes its table ``raw`` with the first rule, and has no
command to delete it. So after ringfence has removed its iptables rules, it deletes the chains and the table
in one batch (:func:`delete_empty_table`). The kernel carries out a batch completely or not at all. It refuses
this one if a chain has rules, or if the table has anything else (NLM_F_NONREC, since kernel 4.20). It would
delete a chain whose policy drops packets, so the caller checks the policies before.

The numbers of messages and attributes are the kernel's (``linux/netfilter/nf_tables.h``). Builders leave the
sequence number 0; the connection replaces it.
"""

import enum
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache

from attrs import frozen

from ringfence.netlink.connection import (
    FAMILIES,
    HEADER,
    NESTED,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_NONREC,
    attribute,
    attributes,
    attributes_of,
    integer,
    message,
    nested,
    parse,
    string,
    text,
)
from ringfence.values.network import BITS, Network

INET = 1  # NFPROTO_INET: a table for both IP versions
_COMMENT = 0  # the type of a comment in a rule's user data
_REGISTER = 1  # NFT_REG_1
_GOTO = -4 & 0xFFFFFFFF  # NFT_GOTO
_ADDRESS_TYPES = {4: 7, 6: 8}  # nft's numbers for the type of a set's keys
_ADDRESSES = {(4, "saddr"): 12, (4, "daddr"): 16, (6, "saddr"): 8, (6, "daddr"): 24}
"""Where an address begins in the IP header, in bytes."""


class MessageType(enum.IntEnum):
    """The message types of the nftables subsystem that are used here, with the number of the subsystem."""

    NEWTABLE = 0xA00
    GETTABLE = 0xA01
    DELTABLE = 0xA02
    NEWCHAIN = 0xA03
    GETCHAIN = 0xA04
    DELCHAIN = 0xA05
    NEWRULE = 0xA06
    GETRULE = 0xA07
    NEWSET = 0xA09
    GETSET = 0xA0A
    DELSET = 0xA0B
    NEWSETELEM = 0xA0C
    GETSETELEM = 0xA0D
    DELSETELEM = 0xA0E
    NEWGEN = 0xA0F
    GETGEN = 0xA10
    NEWOBJ = 0xA12
    GETOBJ = 0xA13
    DESTROYSETELEM = 0xA1E


@frozen
class Table:
    """A table; ``dormant``: its chains receive no packets."""

    name: str
    handle: int
    dormant: bool


@frozen
class NftChain:
    """A chain.

    ``hook`` and ``priority`` are None if packets reach it from other chains only. ``policy`` is the kernel's
    number for what happens to packets that no rule drops or accepts.
    """

    table: str
    name: str
    handle: int
    hook: int | None = None
    priority: int | None = None
    policy: int | None = None


@frozen
class NftRule:
    """A rule. ``body`` is what it does, as the kernel encodes it, without the numbers of its counter.

    A replaced rule may keep its handle, so the body is compared too.
    """

    table: str
    chain: str
    handle: int
    comment: str = ""
    body: bytes = b""


@frozen
class NftSetHeader:
    """The properties of a set.

    ``key_length`` is the size of a key in bytes, ``size`` the maximum number of elements (0: no maximum).
    ``timeout`` is the default timeout of an element in milliseconds. ``elements`` is the number of elements;
    None if the kernel does not count them (before 6.16).
    """

    name: str
    handle: int
    flags: int
    key_length: int
    size: int
    timeout: int
    elements: int | None = None


@frozen
class NftCounter:
    """A named counter."""

    name: str
    packets: int
    bytes: int


@frozen
class Generation:
    """The last transaction of nftables, in any table.

    ``number`` increases with each transaction. ``port`` is the netlink port of the program that made it; 0 if
    unknown.
    """

    number: int
    port: int = 0


def delete_empty_table(
    version: int, table: str = "raw", chains: Iterable[str] = ("PREROUTING", "OUTPUT")
) -> tuple[bytes, ...]:
    """Build the messages that delete a table with these chains, if they have no rules.

    The error is EBUSY if the table contains anything else.
    """
    family, named = FAMILIES[version], text(1, table)
    return (
        *(message(MessageType.DELCHAIN, NLM_F_NONREC, family, named, text(3, name)) for name in chains),
        message(MessageType.DELTABLE, NLM_F_NONREC, family, named),
    )


def get_generation() -> bytes:
    """Build the query for the present generation; :func:`generation_of` parses its one answer."""
    return message(MessageType.GETGEN, NLM_F_ACK, 0)


def get_table(name: str, *, family: int = INET) -> bytes:
    """Build the query for one table; :func:`tables_of` parses the answer.

    The error is ENOENT if there is no such table.
    """
    return message(MessageType.GETTABLE, NLM_F_ACK, family, text(1, name))


def get_chains(*, family: int = INET) -> bytes:
    """Build the request for all chains of a family, of every table; :func:`chains_of` parses the answers."""
    return message(MessageType.GETCHAIN, NLM_F_DUMP, family)


def get_rules(table: str, chain: str = "", *, family: int = INET) -> bytes:
    """Build the request for a table's rules, or those of one ``chain``; :func:`rules_of` parses the answers.

    If there is no such table, there is no answer. ``family`` is INET, or AF_INET or AF_INET6 for the tables
    of iptables-nft.
    """
    named = (text(2, chain),) if chain else ()
    return message(MessageType.GETRULE, NLM_F_DUMP, family, text(1, table), *named)


def get_sets(table: str) -> bytes:
    """Build the request for the headers of a table's sets; :func:`sets_of` parses the answers.

    The error is ENOENT if there is no such table.
    """
    return message(MessageType.GETSET, NLM_F_DUMP, INET, text(1, table))


def get_counters(table: str) -> bytes:
    """Build the request for a table's named counters; :func:`counters_of` parses the answers."""
    return message(MessageType.GETOBJ, NLM_F_DUMP, INET, text(1, table))


def delete_table(name: str) -> bytes:
    """Build the message that deletes a table with all its contents; the error is ENOENT if there is none."""
    return message(MessageType.DELTABLE, 0, INET, text(1, name))


def delete_set(table: str, name: str) -> bytes:
    """Build the message that deletes a set with its elements; the error is EBUSY if a rule names the set."""
    return message(MessageType.DELSET, 0, INET, text(1, table), text(2, name))


def add_set(table: str, name: str, version: int, size: int) -> bytes:
    """Build the message that makes a set of bans; the error is EEXIST if there is one of this ``name``.

    Its elements are at most ``size`` addresses of IP ``version``, each with a timeout and a counter.
    """
    return message(
        MessageType.NEWSET,
        NLM_F_CREATE | NLM_F_EXCL,
        INET,
        text(1, table),
        text(2, name),
        _word(3, 0x10),  # NFT_SET_TIMEOUT
        _word(4, _ADDRESS_TYPES[version]),
        _word(5, BITS[version] // 8),
        _word(10, 1),  # an ID, which the kernel requires and nothing uses
        _nest(9, _word(1, size)),
        # For nft: the keys have the byte order of the network. (type, length, value in the host's order)
        attribute(13, bytes((0, 4)) + (2).to_bytes(4, sys.byteorder)),
        _nest(0x11, text(1, "counter") + _nest(2)),
    )


def add_lookup(
    table: str,
    chain: str,
    name: str,
    network: Network,
    address: str,
    end: str,
    *,
    unless: str = "",
    before: int | None = None,
) -> bytes:
    """Build the message that makes a rule in ``chain``: look an address up, and go to the chain ``end``.

    ``address`` is "saddr" or "daddr". Its first bits, as many as the prefix of ``network``, are looked up in
    the set ``name``. The rule does not match packets whose whole address is in the set ``unless``, if any. It
    stands before the rule with the handle ``before``; None: it is the last one.
    """
    mask, version = network.netmask.packed, network.version
    family = bytes((FAMILIES[version],))
    load = _expression(
        "payload",
        _word(1, _REGISTER),
        _word(2, 1),  # NFT_PAYLOAD_NETWORK_HEADER
        _word(3, _ADDRESSES[version, address]),
        _word(4, len(mask)),
    )
    excluding = (load, _expression("lookup", text(1, unless), _word(2, _REGISTER), _word(5, 1)))
    rule = (
        _expression("meta", _word(1, _REGISTER), _word(2, 15)),  # NFT_META_NFPROTO
        _expression("cmp", _word(1, _REGISTER), _word(2, 0), _nest(3, attribute(1, family))),
        *(excluding if unless else ()),
        load,
        _expression(
            "bitwise",
            _word(1, _REGISTER),
            _word(2, _REGISTER),
            _word(3, len(mask)),
            _nest(4, attribute(1, mask)),
            _nest(5, attribute(1, bytes(len(mask)))),
        ),
        _expression("lookup", text(1, name), _word(2, _REGISTER)),
        _expression("immediate", _word(1, 0), _nest(2, _nest(2, _word(1, _GOTO), text(2, end)))),
    )
    parts = [text(1, table), text(2, chain), _nest(4, *rule)]
    if before is None:
        return message(MessageType.NEWRULE, NLM_F_CREATE | NLM_F_APPEND, INET, *parts)
    return message(MessageType.NEWRULE, NLM_F_CREATE, INET, *parts, attribute(6, before.to_bytes(8, "big")))


def _expression(name: str, *parts: bytes) -> bytes:
    return _nest(1, text(1, name), _nest(2, *parts))


def _nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(parts))


def _word(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "big"))


def generation_of(answer: bytes) -> Generation | None:
    """Parse an answer or a notification of type NEWGEN; return None for any other type."""
    if len(answer) < HEADER.size:
        return None
    _length, kind, _flags, _sequence, port = HEADER.unpack_from(answer)[:5]
    if kind != MessageType.NEWGEN:
        return None
    return Generation(integer(parse(answer, MessageType.NEWGEN), 1), port)


def tables_of(answers: Iterable[bytes]) -> list[Table]:
    """Parse the answers to :func:`get_table`."""
    return [
        Table(string(top, 1), integer(top, 4), dormant=bool(integer(top, 2) & 1))
        for top in _tops(answers, MessageType.NEWTABLE)
    ]


def chains_of(answers: Iterable[bytes]) -> list[NftChain]:
    """Parse the answers to :func:`get_chains`."""
    chains = []
    for top in _tops(answers, MessageType.NEWCHAIN):
        found = NftChain(string(top, 1), string(top, 3), integer(top, 2))
        if 4 in top:  # noqa: PLR2004 - NFTA_CHAIN_HOOK
            hook = nested(top, 4)
            priority = int.from_bytes(hook.get(2, b""), "big", signed=True)
            found = NftChain(
                found.table, found.name, found.handle, integer(hook, 1), priority, integer(top, 5)
            )
        chains.append(found)
    return chains


def rules_of(answers: Iterable[bytes]) -> list[NftRule]:
    """Parse the answers to :func:`get_rules`, in the order of the rules in each chain."""
    return [_rule(attributes_of(answer, MessageType.NEWRULE)) for answer in answers]


# The rules are read again after each transaction of another program, and most of them are unchanged. A plan
# has some 350 rules and 150 sets: a cache with less room would find none of them again.
@lru_cache(maxsize=2048)
def _rule(found: bytes) -> NftRule:
    top, empty = dict(attributes(memoryview(found))), memoryview(b"")
    return NftRule(
        string(top, 1),
        string(top, 2),
        integer(top, 3),
        _comment(top.get(7, empty)),
        _body(top.get(4, empty)),
    )


def sets_of(answers: Iterable[bytes]) -> list[NftSetHeader]:
    """Parse the answers to :func:`get_sets`, including anonymous sets (``__set0``)."""
    return [_set(attributes_of(answer, MessageType.NEWSET)) for answer in answers]


@lru_cache(maxsize=1024)  # the sets are read every second, and most of them are unchanged
def _set(found: bytes) -> NftSetHeader:
    top = dict(attributes(memoryview(found)))
    described = nested(top, 9)
    return NftSetHeader(
        string(top, 2),
        integer(top, 16),
        integer(top, 3),
        integer(top, 5),
        integer(described, 1),
        integer(top, 11),
        integer(top, _SET_COUNT) if _SET_COUNT in top else None,
    )


_SET_COUNT = 20


def counters_of(answers: Iterable[bytes]) -> list[NftCounter]:
    """Parse the answers to :func:`get_counters`; other named objects are skipped."""
    counters = []
    for top in _tops(answers, MessageType.NEWOBJ):
        if integer(top, 3) == 1:  # NFT_OBJECT_COUNTER
            data = nested(top, 4)
            counters.append(NftCounter(string(top, 2), integer(data, 2), integer(data, 1)))
    return counters


def _tops(answers: Iterable[bytes], kind: MessageType) -> Iterator[dict[int, memoryview]]:
    return (parse(answer, kind) for answer in answers)


def _body(expressions: memoryview) -> bytes:
    """Return what a rule does, as bytes without the numbers of its counter, which every packet changes."""
    found = [expression for _, expression in attributes(expressions)]
    counting = b"counter\0"
    return b"".join(
        b"counter" if bytes(dict(attributes(one)).get(1, b"")) == counting else bytes(one) for one in found
    )


def _comment(user_data: memoryview) -> str:
    """Parse a rule's comment from its user data: type (one byte), length (one byte), value."""
    position = 0
    while position + 2 <= len(user_data):
        kind, length = user_data[position], user_data[position + 1]
        if kind == _COMMENT:
            return (
                bytes(user_data[position + 2 : position + 2 + length])
                .rstrip(b"\0")
                .decode("utf-8", "replace")
            )
        position += 2 + length
    return ""
