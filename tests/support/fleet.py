"""Two hosts that share their bans by a real CrowdSec, and guesses that lead to bans."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen
from tests.support.captures import capture
from tests.support.crowdsec import CrowdSec, crowdsec
from tests.support.daemon import Guard, ServedAmi, ami_server, until
from tests.support.netns import run
from tests.support.postgresql import PostgreSQL

CLAIMED = capture("asterisk-22", "wrong-password-register").ami.read_bytes()  # 3 by 198.18.1.101
GUESSES = CLAIMED.replace(b"/UDP/", b"/TCP/")  # by TCP an address is proven
RULES = {"guess": {"attempts": 3, "ban": ["1h", "6h"]}, "distributed": {"enabled": False}}


def guesses(address: str) -> bytes:
    """Return proven guesses of an address, enough for a ban."""
    return GUESSES.replace(b"198.18.1.101", address.encode())


def denied() -> str:
    """Return the kernel's list of networks that other hosts have banned."""
    return run("nft", "list", "set", "inet", "ringfence", "decided4")


@frozen
class Hosts:
    """Two hosts and their local API: ``one`` has a PBX, ``two`` has a firewall in the kernel."""

    api: CrowdSec
    pbx: ServedAmi
    one: Guard
    two: Guard


@contextmanager
def hosts(folder: Path, database: PostgreSQL | None = None, **settings: object) -> Iterator[Hosts]:
    """Run two hosts and a local API with this database (None: SQLite) until the block ends."""
    folders = [folder / name for name in ("one", "two", "crowdsec")]
    for one in folders:
        one.mkdir()
    with crowdsec(folders[2], database=database) as api, ami_server() as pbx:
        tables = [api.node(f"pbx-{one.name}", one, **settings) for one in folders[:2]]
        with (
            Guard(folders[0], ami={"port": pbx.port}, rules=RULES, crowdsec=tables[0]) as first,
            Guard(folders[1], firewall={"backend": "nftables"}, crowdsec=tables[1]) as second,
        ):
            until(lambda: first.source_is("listening"), "the source listens")
            until(lambda: pbx.server._listeners, "the PBX is listened to")
            until(lambda: all(one.ask("fleet")["pull"]["last"] for one in (first, second)), "both pull")
            yield Hosts(api, pbx, first, second)
