"""What ``check`` says of those who belong to this PBX: what ringfence cannot know of them by itself.

A trunk that is known by its address alone never registers and never logs in, so no event says that it is one:
it is offered for the list of those who are never banned. And phones and trunks that register are known from
the start only where our manager user may ask for them.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ringfence.cli.findings import Finding
from ringfence.model import Network, printable

if TYPE_CHECKING:
    from ringfence.config import Settings
    from ringfence.host.console import AsteriskConsole
    from ringfence.host.shown import Trunk

WIDEST = {4: 16, 6: 32}
"""No wider network is offered: no carrier calls from so many addresses, and who is allowed may guess."""
_RIGHTS = (("read", "security"), ("read", "system"), ("write", "reporting"))


def trunk_findings(console: "AsteriskConsole", allowed: Sequence[Network]) -> Iterator[Finding]:
    """Offer the addresses that Asterisk takes for a trunk without a word, but for those that are allowed."""
    from ringfence.host.shown import identifies_from, peers_from  # noqa: PLC0415 - loaded when it runs

    trunks: dict[Trunk, None] = {}
    for command, reader in (("pjsip show identifies", identifies_from), ("sip show peers", peers_from)):
        trunks |= dict.fromkeys(reader(console.show(command) or ""))
    if console.lack:
        why = "they raise no event, and are no friends until they are allowed"
        yield Finding(None, "trunks", f"by address alone: not seen ({console.lack}); {why}")
        return
    offered: dict[str, list[Network]] = {}
    for trunk in trunks:
        if trunk.network.prefixlen < WIDEST[trunk.network.version]:
            yield _too_wide(trunk)
        elif not _is_in(trunk.network, allowed):
            offered.setdefault(trunk.name, []).append(trunk.network)
    for name, networks in offered.items():
        words = ["ringfence", "allow", "add", *map(_short, networks), "--note", printable(name)]
        why = "is known by its address, and may be banned for what others forge, since no event says so"
        yield Finding(None, f"trunk {printable(name)}", f"{why}; if it is yours: {shlex.join(words)}")
    if not offered:
        seen = (
            "all that are known by their address are allowed, or friends"
            if trunks
            else "none is known by its address alone"
        )
        yield Finding(True, "trunks", seen)


def decoy_findings(decoys: Iterable[str], accounts: Iterable[str]) -> Iterator[Finding]:
    """Say which decoys are accounts in Asterisk's files: one mistyped password there would be a ban."""
    for name in sorted({*decoys} & {*accounts}):
        why = "is an account in Asterisk's files, so who mistypes its password is banned"
        mend = "mend: take it out of accounts in [rules.decoy]"
        yield Finding(False, f"decoy {printable(name)}", f"{why}; {mend}")


def _too_wide(trunk: "Trunk") -> Finding:
    everybody = not trunk.network.prefixlen
    whose = "anybody is taken for it" if everybody else f"is taken for whoever has one of {trunk.network}"
    mend = "mend: only its own addresses in match or host"
    return Finding(False if everybody else None, f"trunk {printable(trunk.name)}", f"{whose}; {mend}")


def _is_in(network: Network, allowed: Iterable[Network]) -> bool:
    return any(network.network_address in other and network.prefixlen >= other.prefixlen for other in allowed)


def _short(network: Network) -> str:
    """Write a network of one address as the address."""
    alone = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if alone else str(network)


def rights_findings(folder: Path, user: str) -> Iterator[Finding]:
    """Say what our manager user may not ask for; nothing where that cannot be told."""
    from ringfence.host.services import read_services  # noqa: PLC0415 - loaded when the command runs

    own = read_services(folder).manager(user)
    lacking = [f"{side} = {name}" for side, name in _RIGHTS if own and not own.may(side, name)]
    if lacking:
        yield Finding(
            None,
            f"asterisk's settings: manager user {printable(user)}",
            f"lacks {', '.join(lacking)}: phones and trunks are friends only once they are heard, not from "
            "the start; mend: read = security,system and write = reporting there, then manager reload",
        )


def allowed_of(
    settings: "Settings",
    rows: "Sequence[Mapping[str, Any]] | None",
    friends: "Sequence[Mapping[str, Any]] | None" = None,
) -> list[Network]:
    """Give who needs no offer: who is allowed, by the daemon's list or else the configuration, and trunks.

    A trunk to which this PBX registers is a friend by that.
    """
    from ringfence.lists.entries import what_from  # noqa: PLC0415 - loaded when the command runs
    from ringfence.model import Side, Tie, network_from  # noqa: PLC0415 - loaded when the command runs

    if rows is None:
        entries = [entry.what for entry in settings.lists().entries if entry.side is Side.ALLOW]
    else:
        entries = [row["entry"] for row in rows]
    led = [address for row in rows or () for address in row["leads_to"]]
    led += [friend["address"] for friend in friends or () if friend["tie"] == Tie.TRUNK]
    whats = [what_from(entry) for entry in entries]
    return [what.network for what in whats if what.network] + [network_from(address) for address in led]
