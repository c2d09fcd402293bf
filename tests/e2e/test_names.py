"""A name on the allow list, over a DNS of its own: who it leads to is let in, also while that is down."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.support.daemon import Guard, until
from tests.support.door import Door
from tests.support.nameserver import NameServer
from tests.support.netns import inside
from tests.support.network import Network

pytestmark = pytest.mark.kernel

NAME = "sip.carrier.example"
OLD, NEW, OTHER = "198.19.7.7", "198.19.7.8", "198.19.7.9"
ASKING = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'


@contextmanager
def served(server: NameServer) -> Iterator[None]:
    """Answer at 127.0.0.1:53 of this network namespace, in a thread of its own."""
    up, over, loop = threading.Event(), asyncio.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        transport, _ = await loop.create_datagram_endpoint(lambda: server, local_addr=("127.0.0.1", 53))
        up.set()
        await over.wait()
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
        loop.call_soon_threadsafe(over.set)
        thread.join()


def test_a_name_is_let_in_wherever_it_leads(tmp_path: Path) -> None:
    """Also out of what is denied and banned; its last answer outlasts a restart with the DNS gone."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    server = NameServer({(NAME, "A"): [OLD]}, ttl=1)
    with Network() as network, Door(network) as door:
        prefix = network.in_pbx(
            "unshare", "--mount", "--propagation", "private", "sh", "-c", ASKING, "sh", str(resolv)
        )
        guard = Guard(
            tmp_path,
            prefix=prefix,
            firewall={"backend": "nftables"},
            deny={"networks": ["198.19.7.0/24"]},
        )
        with inside(network.pbx), served(server), guard:
            guard.must("ban", OLD)
            assert door.let_in(OLD, NEW) == set()
            guard.must("allow", "add", NAME)
            until(lambda: door.let_in(OLD, NEW, OTHER) == {OLD}, "the name's address")
            server.silent = True
            guard.stop()
            guard.start()
            assert door.let_in(OLD, NEW, OTHER) == {OLD}
            server.silent = False
            server.zone[NAME, "A"] = [NEW]
            until(lambda: door.let_in(OLD, NEW, OTHER) == {NEW}, "the name's new address", 40)
            guard.must("allow", "remove", NAME)
            assert door.let_in(OLD, NEW, OTHER) == set()
