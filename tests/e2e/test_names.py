"""A name on the allow list, with a test's own DNS server: its address is allowed, also while DNS is down."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.parse.rosters import REGISTRATION
from tests.sources.test_roster import entry
from tests.support.amiserver import NO_PHONES, Script
from tests.support.daemon import GRANTED, Guard, ami_server, until
from tests.support.door import Door
from tests.support.nameserver import NameServer
from tests.support.netns import inside
from tests.support.network import Network

from ringfence.values.friend import FriendReason

pytestmark = pytest.mark.kernel

NAME = "sip.carrier.example"
HOST = "edge1.carrier.example"
OLD, NEW, OTHER = "198.19.7.7", "198.19.7.8", "198.19.7.9"
ASKING = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'


@contextmanager
def served(server: NameServer) -> Iterator[None]:
    """Answer at 127.0.0.1:53 of this network namespace, in a separate thread."""
    up, stop, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 53))
        up.set()
        await stop.wait()
        transport.close()
        await asyncio.sleep(0)  # until it is

    def run() -> None:
        with closing(loop):
            loop.run_until_complete(serve())

    thread = threading.Thread(target=run, name="dns")
    thread.start()
    up.wait(10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@contextmanager
def asking(folder: Path, network: Network) -> Iterator[list[str]]:
    """Yield the prefix of a command in the PBX's namespace that makes it use DNS at 127.0.0.1."""
    resolv = folder / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    yield network.in_pbx(
        "unshare", "--mount", "--propagation", "private", "sh", "-c", ASKING, "sh", str(resolv)
    )


def test_each_address_of_an_allowed_name_is_allowed(tmp_path: Path) -> None:
    """It is allowed even if denied and banned; the last answer survives a restart without DNS."""
    server = NameServer({(NAME, "A"): [OLD]}, ttl=1)
    with Network() as network, Door(network) as door, asking(tmp_path, network) as prefix:
        guard = Guard(
            tmp_path,
            prefix=prefix,
            firewall={"backend": "nftables"},
            deny={"networks": ["198.19.7.0/24"]},
        )
        with inside(network.pbx), served(server), guard:
            guard.must("ban", OLD)
            assert door.passing(OLD, NEW) == set()
            guard.must("allow", "add", NAME)
            until(lambda: door.passing(OLD, NEW, OTHER) == {OLD}, "the name's address", pause=0.1)
            server.silent = True
            guard.stop()
            guard.start()
            assert door.passing(OLD, NEW, OTHER) == {OLD}
            server.silent = False
            server.zone[NAME, "A"] = [NEW]
            both = {OLD, NEW}  # an answer may have only some of the addresses
            until(lambda: door.passing(OLD, NEW, OTHER) == both, "the name's new address", 40, pause=0.2)
            guard.must("allow", "remove", NAME)
            assert door.passing(OLD, NEW, OTHER) == set()


def test_each_address_of_a_trunks_name_is_a_friend(tmp_path: Path) -> None:
    """SRV records count as for Asterisk; the addresses survive a restart without DNS and Asterisk."""
    server = NameServer({(f"_sips._tcp.{NAME}", "SRV"): [f"0 0 5061 {HOST}."], (HOST, "A"): [OLD]}, ttl=1)
    lists = {**NO_PHONES, "PJSIPShowRegistrationsOutbound": [entry(REGISTRATION)]}
    with Network() as network, asking(tmp_path, network) as prefix, inside(network.pbx), served(server):
        with ami_server(Script(play=[GRANTED], lists=lists)) as pbx:
            guard = Guard(tmp_path, prefix=prefix, ami={"port": pbx.port}, firewall={"backend": "nftables"})
            with guard:
                until(lambda: trunks(guard) == {OLD: "named"}, "the trunk's address", pause=0.05)
            server.zone[HOST, "A"] = [NEW]
            with guard:
                until(lambda: trunks(guard) == {OLD: "named", NEW: "named"}, "its new one", pause=0.05)
        server.silent = True
        with guard:
            assert trunks(guard) == {OLD: "named", NEW: "named"}


def trunks(guard: Guard) -> dict[str, str]:
    """Return the friends that are trunks, with their names."""
    return {
        row["address"]: row["account"] for row in guard.ask("friends") if row["reason"] == FriendReason.TRUNK
    }
