"""Whether our iptables rules are still installed, asked without a process: 0.1 ms if nothing changed.

Rules of iptables-nft are rules of nftables. The kernel numbers every transaction of nftables (the
generation). While that number is the same, nothing has changed. After a change the rules are read by
netlink and compared. For tables of iptables-legacy the kernel reports only the number of rules and their
bytes. So there a change of another program's rules counts as damage too, until ``open`` finds our rules
in place.

iptables-legacy sends no notification and has no netlink interface. But ``getsockopt`` on any socket of
the IP version returns the number of rules in a table and their bytes (``IPT_SO_GET_INFO``,
CAP_NET_ADMIN). It reads the table's name from the buffer for its answer. Python's own getsockopt cannot
pass such a buffer, so ctypes calls the C function. If another program replaces a rule, or moves one before
ours, and neither number changes, this is not noticed.

Matches and targets are queried by nfnetlink if the kernel has nft_compat, else by ``getsockopt`` too.
"""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Callable, Collection, Mapping

from attrs import frozen

from ringfence.errors import FirewallError
from ringfence.firewall.ipset.iptables_rules import HOOKS, PREFIX
from ringfence.firewall.nftables import messages as nft_messages
from ringfence.netlink.connection import (
    FAMILIES,
    NLM_F_ACK,
    NetlinkConnection,
    NetlinkError,
    message,
    number,
    text,
)

# The socket option IPT_SO_GET_INFO; IP6T_SO_GET_INFO has the same number. The options that query a match or a
# target (``_REVISION``) have other numbers for IPv6 than for IPv4.
_GET_INFO = 64
_REVISION = {4: (66, 67), 6: (68, 69)}
_LEVELS = {4: socket.SOL_IP, 6: socket.IPPROTO_IPV6}
_INFO = struct.Struct("=32sI20s20sII")
_EXTENSION = struct.Struct("=29sB")
_COMPAT_GET = 11 << 8
_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Size:
    """The size of a table: its number of entries (rules, and one or two for each chain) and their bytes."""

    entries: int
    size: int


def table_size(version: int, table: str) -> Size | None:
    """Return the size of a table of iptables-legacy; None if the kernel has no such table.

    Raise FirewallError if the kernel does not answer.
    """
    try:
        answer = _query(version, _GET_INFO, _INFO.pack(table.encode(), 0, b"", b"", 0, 0))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOPROTOOPT):
            return None
        raise FirewallError(f"table {table} of IPv{version} cannot be queried: {error}") from error
    *_, entries, size = _INFO.unpack(answer)
    return Size(entries, size)


def has_extension(kernel: NetlinkConnection, version: int, name: str, *, target: bool = False) -> bool:
    """Whether the kernel has a match or target of that name; True if it cannot be queried."""
    request = message(
        _COMPAT_GET,
        NLM_F_ACK,
        FAMILIES[version],
        text(1, name),
        number(2, 0),
        number(3, int(target)),
    )
    try:
        kernel.request(request)
    except NetlinkError as error:
        if error.code != errno.EINVAL:  # EINVAL: the kernel has no nft_compat, so it cannot answer
            return error.code != errno.ENOENT
    else:
        return True
    try:
        _query(version, _REVISION[version][target], _EXTENSION.pack(name.encode(), 0))
    except OSError as error:
        return error.errno != errno.ENOENT
    return True


def _query(version: int, option: int, query: bytes) -> bytes:
    buffer = ctypes.create_string_buffer(query, len(query))
    length = ctypes.c_uint32(len(query))
    with socket.socket(FAMILIES[version], socket.SOCK_DGRAM) as any_socket:
        code = _libc.getsockopt(any_socket.fileno(), _LEVELS[version], option, buffer, ctypes.byref(length))
    if code != 0:
        number_ = ctypes.get_errno()
        raise OSError(number_, os.strerror(number_))
    return buffer.raw


# By table and chain: the handle and the body of each rule, in order. Both are compared: a replaced rule may
# keep its handle, and a rule that was deleted and added again has the same body.
_Recorded = Mapping[tuple[str, str], tuple[tuple[int, bytes], ...]]


class NftWatch:
    """The check of the rules of iptables-nft."""

    def __init__(self, version: int, kernel: NetlinkConnection) -> None:
        self._version = version
        self._kernel = kernel
        self._tables: Collection[str] = ()
        self._recorded: _Recorded = {}
        self._generation: int | None = None
        self._damage: str | None = None

    def look(self, tables: Collection[str]) -> Callable[[], None]:
        """Read the rules in ``tables``, and return a function that records them as the wanted ones.

        The caller calls it when it has found that the rules are the wanted ones.
        """
        number = self._number()
        rules = self._rules(tables)

        def record() -> None:
            self._tables, self._recorded = tables, rules
            self._generation, self._damage = number, None

        return record

    def check(self) -> str | None:
        """Return a message about damage to our rules, None without damage."""
        number = self._number()
        if number != self._generation:
            self._damage = self._compare()
            self._generation = number
        return self._damage

    def _number(self) -> int | None:
        answers = self._kernel.request(nft_messages.get_generation())
        generation = nft_messages.generation_of(answers[0]) if answers else None
        return generation.number if generation is not None else None

    def _rules(self, tables: Collection[str]) -> _Recorded:
        """Return the rules of our chains, and the first rule of each builtin chain, which should be ours."""
        recorded: dict[tuple[str, str], tuple[tuple[int, bytes], ...]] = {}
        for table in tables:
            request = nft_messages.get_rules(table, family=FAMILIES[self._version])
            for rule in nft_messages.rules_of(self._kernel.request(request)):
                key = table, rule.chain
                if rule.chain.startswith(PREFIX) or (rule.chain in HOOKS[table] and key not in recorded):
                    recorded[key] = (*recorded.get(key, ()), (rule.handle, rule.body))
        return recorded

    def _compare(self) -> str | None:
        now = self._rules(self._tables)
        for (table, chain), rules in self._recorded.items():
            found = now.get((table, chain), ())
            if found == rules:
                continue
            where = f"chain {chain} in table {table} of IPv{self._version}"
            if chain in HOOKS[table] and found:
                return f"another rule stands before ours in {where}"
            return f"rules of {where} were {'changed' if found else 'removed'}"
        return None


class LegacyWatch:
    """The check of the rules of iptables-legacy."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._recorded: Mapping[str, Size | None] = {}

    def look(self, tables: Collection[str]) -> Callable[[], None]:
        """Read the sizes of ``tables``, and return a function that records them.

        The caller calls it when it has found that the rules are the wanted ones.
        """
        sizes = self._sizes(tables)

        def record() -> None:
            self._recorded = sizes

        return record

    def check(self) -> str | None:
        """Return a message about a table that no longer has its recorded size; None if there is none."""
        now = self._sizes(self._recorded)
        for table, size in self._recorded.items():
            if now[table] != size:
                return f"the rules in table {table} of IPv{self._version} were changed"
        return None

    def _sizes(self, tables: Collection[str]) -> dict[str, Size | None]:
        return {table: table_size(self._version, table) for table in tables}
