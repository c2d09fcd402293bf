"""Effects of FreePBX's `fwconsole restart` on the firewall of a host, and for how long bans are open then.

FreePBX's firewall sets the policies to ACCEPT, empties `filter` and `nat`, deletes their chains, and runs
`modprobe -r` for the modules of iptables. Then it loads its own rules, and its fail2ban adds chains.

`modprobe -r` refuses a module that rules use. But iptables-legacy's modules of the tables are in use by no
rule: without `iptable_raw`, the table `raw` and all its rules are gone, in every namespace of the machine.
So the script never calls modprobe, and empties `raw` instead, with each flavour of iptables.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from tests.support.contention import contention
from tests.support.daemon import Guard, until
from tests.support.door import Door, Knocks, Round
from tests.support.flavours import command
from tests.support.netns import run
from tests.support.network import Network

from ringfence.values.network import VERSIONS

KINDS: Mapping[str, tuple[str, str]] = {
    "nftables": ("nftables", "nft"),
    "ipset with iptables-nft": ("ipset", "nft"),
    "ipset with iptables-legacy": ("ipset", "legacy"),
}
"""By name: the backend, and the flavour of iptables that the host has."""
ROUNDS = 3
BETWEEN = 0.02
"""Seconds between two packets of each banned sender."""
MOST = 1.0
"""Seconds that a ban may be ineffective."""
BANNED = ("198.18.1.9", "fd00:18::b9")

_BUSY = 0.3
_LONGEST = 0.3  # seconds
_PATIENCE = 120.0
_TRIES = 3
# The chains and their order are those of FreePBX's module firewall, with few rules in each.
_RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:fpbxfirewall - [0:0]
:fpbxblacklist - [0:0]
:fpbxinterfaces - [0:0]
:fpbxknownreg - [0:0]
:fpbxsignalling - [0:0]
:zone-internal - [0:0]
:zone-external - [0:0]
-A INPUT -j fpbxfirewall
-A fpbxfirewall -i lo -j ACCEPT
-A fpbxfirewall -p tcp -m state --state RELATED,ESTABLISHED -j ACCEPT
-A fpbxfirewall -j fpbxblacklist
-A fpbxfirewall -j fpbxsignalling
-A fpbxfirewall -j fpbxinterfaces
-A fpbxsignalling -p udp -m udp --dport 5060 -j ACCEPT
-A fpbxinterfaces -i lan -j zone-internal
-A zone-internal -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:masq-input - [0:0]
-A PREROUTING -j masq-input
COMMIT
"""
_SCRIPT = """\
for tool in iptables ip6tables; do
    for chain in INPUT FORWARD OUTPUT; do $tool -w -P $chain ACCEPT; done
    for table in filter nat raw; do
        $tool -w -t $table -F
        $tool -w -t $table -X
    done
done
for tool in iptables ip6tables; do
    $tool-restore -w <rules
    for jail in SIP recidive; do
        $tool -w -N fail2ban-$jail
        $tool -w -A fail2ban-$jail -j RETURN
        $tool -w -I INPUT -j fail2ban-$jail
    done
done
"""


@frozen
class Opening:
    """How long packets of a banned sender arrived (seconds), and how busy the machine was.

    ``waited`` is the share of the time that work waited for a processor, ``longest`` its longest wait in
    seconds.
    """

    seconds: float
    waited: float
    longest: float

    @property
    def is_fair(self) -> bool:
        """Whether the machine was fast enough for a judgement."""
        return self.seconds <= MOST or (self.waited <= _BUSY and self.longest <= _LONGEST)


class FreePbx:
    """A guarded host with two banned senders, and FreePBX's firewall on it."""

    def __init__(self, network: Network, guard: Guard, door: Door, path: str) -> None:
        self.guard = guard
        self._network = network
        self._door = door
        self._path = path

    def restart(self) -> Opening:
        """Run `fwconsole restart` twice, the second time as soon as the bans are effective again.

        This is the worst moment: the daemon has just checked the rules.
        """
        with contention() as busy, self._door.knocking(*BANNED, between=BETWEEN) as knocks:
            for _ in range(2):
                self._run()
                done = knocks.rounds
                until(lambda: _is_shut(knocks, done), "bans that are effective again", _PATIENCE)  # noqa: B023
        longest = max(_longest(knocks.passed, address) for address in BANNED)
        return Opening(longest, busy.share, busy.longest)

    def restart_fairly(self) -> Opening:
        """Do the same again if bans were open for long while the machine was busy; return the last result."""
        for _ in range(_TRIES - 1):
            opening = self.restart()
            if opening.is_fair:
                return opening
        return self.restart()

    def _run(self) -> None:
        # `-X` fails if the daemon has restored its chains since `-F`. FreePBX ignores such errors too.
        script = f"cd {self.guard.folder}; PATH={self._path}; {_SCRIPT}"
        run(*self._network.in_pbx("sh", "-c", script))


def _is_shut(knocks: Knocks, since: int) -> bool:
    """Whether no banned packet arrived in the latest of at least three rounds."""
    return knocks.rounds > since + 3 and not knocks.passed[-1].arrived


def _longest(rounds: Sequence[Round], address: str) -> float:
    """Return the longest time from a packet that arrived to the next one that did not (seconds)."""
    longest, began = 0.0, None
    for one in rounds:
        if address in one.arrived:
            began = one.time if began is None else began
        elif began is not None:
            longest, began = max(longest, one.time - began), None
    return longest


@contextmanager
def freepbx(kind: str, folder: Path) -> Iterator[FreePbx]:
    """Yield a host whose daemon bans two senders, with one of KINDS."""
    backend, flavour = KINDS[kind]
    programs = folder / "programs"
    programs.mkdir()
    for version in VERSIONS:
        for verb in ("", "-save", "-restore"):
            name = f"{'iptables' if version == 4 else 'ip6tables'}{verb}"
            (programs / name).symlink_to(f"{command(flavour, version)}{verb}")
    (folder / "rules").write_text(_RULES)
    path = f"{programs}:{os.environ['PATH']}"
    with Network() as network, Door(network) as door:
        guard = Guard(folder, prefix=network.in_pbx(), environ={"PATH": path}, firewall={"backend": backend})
        with guard:
            assert door.passing(*BANNED) == {*BANNED}
            guard.must("ban", *BANNED)
            yield FreePbx(network, guard, door, path)
