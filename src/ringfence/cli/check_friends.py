"""Findings of ``ringfence check`` about phones and trunks that ringfence cannot recognize without help.

A friend is a known phone or trunk of this PBX. Asterisk identifies some trunks only by their address: such a
trunk never registers and never logs in, so no event shows that it is a friend. For such trunks, a finding
suggests an entry of the allow list.
"""

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ringfence.config.schema import Settings
from ringfence.findings import Finding
from ringfence.host.console import Console
from ringfence.host.console_tables import Trunk, identifies_from, peers_from
from ringfence.lists.entries import parse_entry
from ringfence.values.entry import ListKind
from ringfence.values.friend import FriendReason
from ringfence.values.network import Network, format_network
from ringfence.values.text import printable

WIDEST = {4: 16, 6: 32}
"""The shortest prefix length of a suggested network, by IP version. No carrier needs a wider network."""


def trunks_from(console: Console) -> list[Trunk]:
    """Return the trunks that Asterisk identifies by address alone; none if the console cannot be used."""
    trunks: dict[Trunk, None] = {}
    for command, reader in (("pjsip show identifies", identifies_from), ("sip show peers", peers_from)):
        trunks |= dict.fromkeys(reader(console.show(command) or ""))
    return [*trunks]


def unchecked(console: Console) -> Iterator[str]:
    """Yield a line with the reason if the trunks that Asterisk identifies by address alone are unreadable."""
    if console.problem:
        yield f"trunks known by address alone: not checked ({console.problem})"


def denied_trunks(
    console: Console, denied: Callable[[Network], bool], allowed: Sequence[Network]
) -> Iterator[str]:
    """Yield a line for each trunk known by its address of which a list denies a part, with the fix.

    ``denied`` is whether the list denies a part of a network. ``allowed`` are the networks that pass all
    lists. An entry that makes any address a trunk is left out: :func:`trunk_findings` reports it.
    """
    for trunk in trunks_from(console):
        if trunk.network.prefixlen and not _is_in(trunk.network, allowed) and denied(trunk.network):
            name = (
                f"{format_network(trunk.network)} is a trunk ({printable(trunk.name)}) known by its address"
            )
            command = _allow_command([trunk.network], trunk.name)
            yield f"{name}: denied unless it becomes a friend; to allow it: {command}"


def _allow_command(networks: Iterable[Network], name: str) -> str:
    words = ["ringfence", "allow", "add", *map(format_network, networks), "--note", printable(name)]
    return shlex.join(words)


def trunk_findings(console: Console, allowed: Sequence[Network]) -> Iterator[Finding]:
    """Suggest allow list entries for the addresses that Asterisk accepts as a trunk without a password.

    ``allowed`` are the networks that need no suggestion. A trunk with too wide a network is reported instead.
    """
    trunks = trunks_from(console)
    if console.problem:
        why = "they cause no event, so they become friends only when they are allowed"
        yield Finding(None, "trunks", f"known by address alone: not checked ({console.problem}); {why}")
        return
    offered: dict[str, list[Network]] = {}
    for trunk in trunks:
        if trunk.network.prefixlen < WIDEST[trunk.network.version]:
            yield _too_wide(trunk)
        elif not _is_in(trunk.network, allowed):
            offered.setdefault(trunk.name, []).append(trunk.network)
    for name, networks in offered.items():
        why = "is known by its address, which no event shows, so forged packets may get it banned"
        fix = f"if it is yours: {_allow_command(networks, name)}"
        yield Finding(None, f"trunk {printable(name)}", f"{why}; {fix}")
    if not offered:
        seen = (
            "all trunks known by their address are allowed, or friends"
            if trunks
            else "no trunk is known by its address alone"
        )
        yield Finding(True, "trunks", seen)


def _too_wide(trunk: Trunk) -> Finding:
    any_address = not trunk.network.prefixlen
    addresses = "every address" if any_address else f"every address of {trunk.network}"
    fix = "fix: list only its own addresses in match or host"
    return Finding(
        False if any_address else None,
        f"trunk {printable(trunk.name)}",
        f"{addresses} is accepted as this trunk; {fix}",
    )


def _is_in(network: Network, allowed: Iterable[Network]) -> bool:
    return any(network.network_address in other and network.prefixlen >= other.prefixlen for other in allowed)


def allowed_of(
    settings: Settings,
    rows: Sequence[Mapping[str, Any]] | None,
    friends: Sequence[Mapping[str, Any]] | None = None,
) -> list[Network]:
    """Return the networks that `check` need not suggest to allow.

    These are the allowed ones, and the trunks at which this PBX registers: the friends of kind "trunk".
    Entries that are no networks are left out.

    ``rows`` is the daemon's allow list. If it is None, the allow list of the configuration is used.
    ``friends`` are the daemon's friends, None if they are unknown.
    """
    if rows is None:
        entries = [entry.value for entry in settings.lists().entries if entry.kind is ListKind.ALLOW]
    else:
        entries = [row["entry"] for row in rows]
    resolved = [address for row in rows or () for address in row["leads_to"]]
    resolved += [friend["address"] for friend in friends or () if friend["reason"] == FriendReason.TRUNK]
    return [network for text in (*entries, *resolved) if (network := _network(text)) is not None]


def _network(text: str) -> Network | None:
    """Parse a list entry as a network; return None if it is a host name, a region, or not an entry."""
    try:
        return parse_entry(text).network
    except ValueError:
        return None
