"""What the previous release leaves in the kernel and in its database, as recorded from that release.

It has two sets, both of bans. Its rules contain neither lists nor ports. Its database has version 2.
"""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.support.netns import run
from tests.support.network import Network

_STORE = Path(__file__).with_name("store-2.sql")
_SECONDS = 604_800
# As `ipset save` and `iptables-save` wrote them.
_SETS = """\
create ringfence4 hash:net family inet hashsize 16384 maxelem 262144 timeout 0 counters
create ringfence6 hash:net family inet6 hashsize 16384 maxelem 262144 timeout 0 counters
"""
_RULES = """\
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ringfence-made - [0:0]
:ringfence-out - [0:0]
:ringfence-pre - [0:0]
-A PREROUTING -j ringfence-pre
-A OUTPUT -j ringfence-out
-A ringfence-out -m set --match-set {set} dst -j DROP
-A ringfence-out -p udp -m u32 --u32 "{sip}" -j NFLOG --nflog-group 21063
-A ringfence-pre -m set --match-set {set} src -j DROP
-A ringfence-pre -m set --match-set {set} dst -j DROP
-A ringfence-pre -p udp -m u32 --u32 "{sip}" -m rpfilter -m addrtype --dst-type UNICAST \
-j NFLOG --nflog-group 21063
COMMIT
"""
_DATAGRAM = "0x0>>0x16&0x3c"
_SIP = {
    4: f"{_DATAGRAM}@0x8=0x5349502f&&{_DATAGRAM}@0xc=0x322e3020&&{_DATAGRAM}@0xf=0x20343031,0x20343037",
    6: "0x30=0x5349502f&&0x34=0x322e3020&&0x37=0x20343031,0x20343037",
}


def release_before(network: Network, database: Path, bans: Sequence[str]) -> None:
    """Restore the state of that release after a stop, with these manual bans of one week."""
    elements = "".join(
        f"add ringfence{6 if ':' in ban else 4} {ban} timeout {_SECONDS - 1}\n" for ban in bans
    )
    run(*network.in_pbx("ipset", "restore"), text=_SETS + elements)
    for version, tool in ((4, "iptables-restore"), (6, "ip6tables-restore")):
        rules = _RULES.format(set=f"ringfence{version}", sip=_SIP[version])
        run(*network.in_pbx(tool), text=rules)
    now = time.time()
    rows = [
        (ban if "/" in ban else f"{ban}/{128 if ':' in ban else 32}", now, now + _SECONDS) for ban in bans
    ]
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(_STORE.read_text("utf-8"))
        connection.executescript("DELETE FROM switches; DELETE FROM attempts; DELETE FROM bans;")
        connection.executemany(
            "INSERT INTO bans (network, since, expires, rule, reason, origin) "
            "VALUES (?, ?, ?, 'admin', 'by hand', 'admin')",
            rows,
        )
        connection.commit()
