"""Two hosts that share their bans by a real CrowdSec, and guesses that lead to bans."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

from attrs import frozen
from tests.support.captures import capture
from tests.support.crowdsec import PORT, CrowdSec, crowdsec
from tests.support.daemon import Guard, ServedAmi, ami_server, until
from tests.support.netns import inside, neighbour, run
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
    """Two hosts and their local API. ``one`` has a PBX and a network namespace of its own.

    So only ``two`` drops packets in the namespace of the test.
    """

    api: CrowdSec
    pbx: ServedAmi
    one: Guard
    two: Guard


class _Relayed(BaseRequestHandler):
    """A connection from another network namespace, passed on to the local API in this one."""

    def handle(self) -> None:
        """Pass bytes on both ways until either side ends."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", PORT)) as api:
            back = threading.Thread(target=_pump, args=(api, self.request))
            back.start()
            _pump(self.request, api)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65_536):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def _relay(namespace: str) -> Iterator[None]:
    """Let the local API's address in another network namespace lead to the one here."""
    with inside(namespace):
        server = ThreadingTCPServer(("127.0.0.1", PORT), _Relayed)
    with server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def hosts(folder: Path, database: PostgreSQL | None = None, **settings: object) -> Iterator[Hosts]:
    """Run two hosts and a local API with this database (None: SQLite) until the block ends."""
    firewall = {"backend": "nftables"}
    folders = [folder / name for name in ("one", "two", "crowdsec")]
    for each in folders:
        each.mkdir()
    with ExitStack() as stack:
        api = stack.enter_context(crowdsec(folders[2], database=database))
        there = stack.enter_context(neighbour())
        with inside(there):
            pbx = stack.enter_context(ami_server())
        stack.enter_context(_relay(there))
        tables = [api.node(f"pbx-{each.name}", each, **settings) for each in folders[:2]]
        one = Guard(
            folders[0],
            prefix=["ip", "netns", "exec", there],
            ami={"port": pbx.port},
            rules=RULES,
            firewall=firewall,
            crowdsec=tables[0],
        )
        first = stack.enter_context(one)
        second = stack.enter_context(Guard(folders[1], firewall=firewall, crowdsec=tables[1]))
        until(lambda: first.source_is("listening"), "the source listens")
        until(lambda: pbx.server._listeners, "the PBX is listened to")
        until(lambda: all(each.ask("fleet")["pull"]["last"] for each in (first, second)), "both pull")
        yield Hosts(api, pbx, first, second)
