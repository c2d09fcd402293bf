"""Connections, read from the kernel's socket list, for real sockets of both IP versions."""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.support.clock import SetClock
from tests.support.daemon import until
from tests.support.netns import inside, neighbour, run

from ringfence.errors import HostError
from ringfence.gathering import GatheringLoop, GatheringSelector
from ringfence.host import connections as connections_of_host
from ringfence.host.closed import Closed, ClosedSockets
from ringfence.host.connections import (
    FRESH,
    MOST_REMEMBERED,
    OLDEST,
    REMEMBERED,
    SOON,
    ConnectionTable,
    _Past,
)
from ringfence.values.event import Endpoint, Transport
from ringfence.values.network import Address, parse_network

LENGTH = 250
USER, OTHER = 1000, 1001
HOLDER = f" 0:0 0:0 0 {USER} x\n"
"""The rest of a line of `/proc/net/tcp`: the socket belongs to ``USER``."""


class Refreshed:
    """A table that asks the kernel before each look-up, as the daemon does."""

    def __init__(
        self,
        lists: tuple[Path, ...] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table, self._clock = ConnectionTable(lists, SetClock(mono=clock)), clock

    def has(self, remote: Endpoint) -> bool:
        """Whether ``remote`` has or had a connection."""
        self.table.refresh(remote)
        return self.table.has(remote, self._clock())

    def backs(self, remote: Endpoint, length: int) -> bool:
        """Whether the connection of ``remote`` confirms a line."""
        self.table.refresh(remote, length)
        return self.table.backs(remote, length, self._clock())

    def had_any(self, address: Address) -> bool | None:
        """Whether ``address`` has or had a connection."""
        self.table.refresh()
        return self.table.had_any(address, self._clock())


def endpoint(host: str, port: int) -> Endpoint:
    """Return one end of a TCP connection."""
    return Endpoint(parse_network(host).network_address, port, Transport.TCP)


@pytest.mark.parametrize(
    ("family", "listen", "connect"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "IPv4 in IPv6 clothes"],
)
def test_an_open_connection_counts_by_address_and_port(
    family: socket.AddressFamily, listen: str, connect: str
) -> None:
    """An open connection counts, and another port of the same address does not."""
    now = [0.0]
    connections = Refreshed(clock=lambda: now[0])
    dual = listen == "::"
    with socket.create_server((listen, 0), family=family, dualstack_ipv6=dual) as server:
        with socket.create_connection((connect, server.getsockname()[1])) as client:
            accepted, _ = server.accept()
            here = endpoint(connect, client.getsockname()[1])
            with accepted:
                assert connections.has(here)
                assert not connections.has(endpoint(connect, 1))
                assert not connections.has(endpoint("203.0.113.9", here.port))
        now[0] += FRESH
        assert not connections.has(endpoint(connect, 1))
    assert connections.table.error == ""


@pytest.mark.parametrize("closes", [False, True])
def test_each_line_is_paid_for_by_bytes_that_came(*, closes: bool) -> None:
    """An idle connection backs no log line, although its port is known; a request backs one line."""
    now = [0.0]
    connections = Refreshed(clock=lambda: now[0])
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client:
            accepted, _ = server.accept()
            here = endpoint("127.0.0.1", client.getsockname()[1])
            with accepted:
                assert connections.has(here)
                assert not connections.backs(here, LENGTH)
                client.sendall(b"x" * 2 * LENGTH)
                assert len(accepted.recv(4 * LENGTH)) == 2 * LENGTH
                now[0] += FRESH
                assert connections.has(here)
                if not closes:
                    assert [connections.backs(here, LENGTH) for _ in range(3)] == [True, True, False]
        now[0] += FRESH
        if closes:
            assert [connections.backs(here, LENGTH) for _ in range(3)] == [True, True, False]


def test_without_counts_a_connection_is_enough(tmp_path: Path) -> None:
    """`/proc/net/tcp` has no byte counters, so there each connection backs every line."""
    (tmp_path / "tcp").write_text(HEAD + LISTENER + CONNECTION)
    connections = Refreshed((tmp_path / "tcp",))
    assert [connections.backs(REMOTE, LENGTH) for _ in range(3)] == [True] * 3


def test_an_outgoing_connection_does_not_count() -> None:
    """A trunk's or web server's port is publicly known, so an outgoing connection does not count."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            connections = Refreshed()

            assert not connections.has(endpoint("127.0.0.1", port))
            assert connections.has(endpoint("127.0.0.1", client.getsockname()[1]))


def test_a_listener_is_no_connection() -> None:
    """A listener is not a connection, although the list shows it with the remote end 0.0.0.0:0."""
    with socket.create_server(("127.0.0.1", 0)):
        assert not Refreshed().has(endpoint("0.0.0.0", 0))


HEAD = "  sl  local_address rem_address   st\n"
LISTENER = "   0: 0100007F:13C4 00000000:0000 0A" + HOLDER
CONNECTION = "   1: 0100007F:13C4 07AA12C6:13C6 01" + HOLDER
REMOTE = endpoint("198.18.170.7", 5062)


@pytest.mark.parametrize(("took", "again"), [(0.0, SOON), (0.002, 0.02)])
def test_the_list_is_read_again_for_a_connection_that_it_lacks(
    tmp_path: Path, took: float, again: float
) -> None:
    """The next reading waits for 5 ms and for ten times the duration of the last one."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER)
    connections = Refreshed((table,), lambda: now[0])
    assert not connections.has(REMOTE)
    connections.table._reading_took = took
    table.write_text(HEAD + LISTENER + CONNECTION)
    now[0] = again - 0.001
    assert not connections.has(REMOTE)
    now[0] = again
    assert connections.has(REMOTE)


def test_only_connections_to_sockets_of_asterisks_users_count(tmp_path: Path) -> None:
    """The users of a web server see the remote ports of its connections, so those confirm no line."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER + CONNECTION)
    connections = Refreshed((table,), lambda: now[0])
    connections.table.users = frozenset({OTHER})
    assert not connections.has(REMOTE)
    connections.table._known_from = 0.0
    now[0] = FRESH
    assert connections.had_any(REMOTE.address) is False
    table.write_text(HEAD + LISTENER + LISTENER.replace(f" {USER} ", f" {OTHER} ") + CONNECTION)
    now[0] = 2 * FRESH
    assert connections.has(REMOTE)


def test_the_list_answers_for_50_ms(tmp_path: Path) -> None:
    """A connection in the list is not looked up again, and neither are all connections of an address."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER + CONNECTION)
    connections = Refreshed((table,), lambda: now[0])
    assert connections.has(REMOTE)
    table.write_text(HEAD + LISTENER)
    now[0] = FRESH - 0.01
    assert connections.has(REMOTE)
    assert connections.had_any(REMOTE.address)


def test_the_connections_of_an_asterisk_elsewhere_are_unknown(tmp_path: Path) -> None:
    """A container's connections are in no list of this host: that one is missing means nothing."""
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER)
    connections = Refreshed((table,), lambda: 0.0)
    connections.table._known_from = 0.0
    assert connections.had_any(REMOTE.address) is False
    connections.table.elsewhere = True
    assert connections.had_any(REMOTE.address) is None


def test_a_long_list_is_read_less_often(tmp_path: Path) -> None:
    """Reading takes at most a tenth of the time; meanwhile the absence of a connection is unknown."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER)
    connections = Refreshed((table,), lambda: now[0])
    connections.table._known_from = 0.0
    assert connections.had_any(REMOTE.address) is False
    connections.table._reading_took = 0.02
    table.write_text(HEAD + LISTENER + CONNECTION)
    now[0] = 0.199
    assert not connections.has(REMOTE)
    assert connections.had_any(REMOTE.address) is None
    now[0] = 0.2
    assert connections.had_any(REMOTE.address) is True


def test_the_list_is_never_older_than_half_a_second(tmp_path: Path) -> None:
    """However long a reading takes, a connection is found before the report that it confirms is given up."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER)
    connections = Refreshed((table,), lambda: now[0])
    assert not connections.has(REMOTE)
    connections.table._reading_took = 3.0
    table.write_text(HEAD + LISTENER + CONNECTION)
    now[0] = OLDEST
    assert connections.has(REMOTE)


def test_a_connection_that_leaves_the_list_counts_from_when_it_was_last_seen(tmp_path: Path) -> None:
    """It counts for 60 s, also if the program stops listening in between."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER + CONNECTION)
    connections = Refreshed((table,), lambda: now[0])
    assert connections.has(REMOTE)
    table.write_text(HEAD)
    now[0] = REMEMBERED - 1
    assert connections.has(REMOTE)
    assert connections.had_any(REMOTE.address)
    now[0] = REMEMBERED
    assert not connections.has(REMOTE)
    assert connections.had_any(REMOTE.address) is None


def test_a_handshake_that_is_not_finished_proves_nothing(tmp_path: Path) -> None:
    """Anyone can make SYN_RECV appear under another address, and with Fast Open FIN_WAIT1 after it."""
    table = tmp_path / "tcp"
    for state in ("02", "03", "04", "0C"):  # SYN_SENT, SYN_RECV, FIN_WAIT1, NEW_SYN_RECV
        table.write_text(HEAD + LISTENER + CONNECTION.replace(" 01 ", f" {state} "))
        assert not Refreshed((table,)).has(REMOTE)


def test_an_unreadable_list_is_reported(tmp_path: Path) -> None:
    """An unreadable list is reported and counts as empty; a missing list is no error."""
    connections = Refreshed((tmp_path, tmp_path / "none"))
    assert not connections.has(endpoint("198.18.170.7", 5062))
    assert connections.table.error == f"{tmp_path}: Is a directory"


def test_a_host_without_any_list_knows_nothing(tmp_path: Path) -> None:
    """If both lists are missing, the reason is an error, and not an empty list."""
    connections = Refreshed((tmp_path / "none", tmp_path / "none6"))
    connections.table._known_from = 0.0
    assert connections.had_any(endpoint("198.18.170.7", 1).address) is None
    assert connections.table.error.startswith("neither sock_diag nor /proc/net/tcp can be read")


def test_a_kernel_that_is_short_of_memory_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile the last list counts, and the error is reported. Then the byte counts are there again."""
    now = [0.0]
    connections = Refreshed(clock=lambda: now[0])

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOBUFS, "no buffer space")

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0],
    ):
        here = endpoint(*client.getsockname())
        assert connections.has(here)
        connections.table._known_from = 0.0
        now[0] += OLDEST
        with monkeypatch.context() as failing:
            failing.setattr(connections_of_host, "_asked", refuse)
            assert connections.has(here)
            assert connections.table.error == "the kernel's list of connections: no buffer space"
            assert connections.had_any(endpoint("203.0.113.9", 1).address) is None
        now[0] += OLDEST
        connections.table.retry()
        assert connections.table.error == ""
        assert not connections.backs(here, LENGTH)  # no byte came by it


@contextmanager
def followed(
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Refreshed, asyncio.AbstractEventLoop]]:
    """Return connections that follow the kernel's reports, and the event loop, which the test runs."""
    connections = Refreshed(clock=clock)
    loop = asyncio.new_event_loop()
    connections.table.follow(loop)
    try:
        yield connections, loop
    finally:
        connections.table.close()
        loop.close()


def short_connection(server: socket.socket) -> Endpoint:
    """Connect and close, and return the connecting end."""
    with socket.create_connection(server.getsockname()) as client:
        there = endpoint(*client.getsockname())
        server.accept()[0].close()
    time.sleep(0.05)  # the kernel reports from a work queue
    return there


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_end_of_a_connection_to_a_foreign_listener_is_forgotten_at_once() -> None:
    """A busy web server's closed connections cause no readings of the list, and confirm no line."""
    now = [1000.0]
    with followed(lambda: now[0]) as (connections, _), socket.create_server(("127.0.0.1", 0)) as server:
        connections.table.users = frozenset({os.getuid() + 1})
        now[0] += OLDEST
        assert not connections.has(endpoint("127.0.0.1", 1))  # this reads the list
        there = short_connection(server)
        assert not connections.has(there)
        port = server.getsockname()[1].to_bytes(2, "big")
        assert port not in {closed.local_port for closed, _ in connections.table._unsure}
        now[0] += OLDEST
        with socket.create_server(("127.0.0.1", 0)) as another:
            connections.table.users = frozenset({os.getuid()})
            there = short_connection(another)
            until(lambda: connections.has(there), "the end at a listener of Asterisk's user")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_connection_that_no_reading_saw_counts_for_60_seconds() -> None:
    """The kernel's report of its end is read before the lookup is answered."""
    now = [1000.0]
    with followed(lambda: now[0]) as (connections, _), socket.create_server(("127.0.0.1", 0)) as server:
        now[0] += 1  # the first reading did not have this listener
        there = short_connection(server)
        until(lambda: connections.has(there), "the report of its end")
        assert not connections.has(endpoint("127.0.0.1", there.port + 1))
        assert connections.had_any(there.address)
        now[0] += REMEMBERED - 0.1
        assert connections.has(there)
        now[0] += 2 * FRESH + 0.1
        assert not connections.has(there)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_an_outgoing_connection_never_counts() -> None:
    """This host does not listen on its local port, so its remote port and address are not remembered."""
    with followed() as (connections, _), neighbour() as far:
        run("ip", "link", "add", "near0", "type", "veth", "peer", "name", "far0", "netns", far)
        run("ip", "address", "add", "198.18.0.1/24", "dev", "near0")
        run("ip", "-n", far, "address", "add", "198.18.0.2/24", "dev", "far0")
        run("ip", "link", "set", "near0", "up")
        run("ip", "-n", far, "link", "set", "far0", "up")
        with inside(far):
            server = socket.create_server(("198.18.0.2", 0))
        with server:
            there = endpoint(*server.getsockname())
            short_connection(server)
        time.sleep(FRESH)
        assert not connections.has(there)
        assert not connections.had_any(there.address)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_whether_an_address_had_a_connection_is_unknown_at_first_and_after_a_loss() -> None:
    """Each of these states lasts 60 s, and a connection that is known is reported at any time."""
    now = [1000.0]
    stranger = endpoint("203.0.113.9", 1).address
    with followed(lambda: now[0]) as (connections, _), socket.create_server(("127.0.0.1", 0)) as server:
        there = short_connection(server)
        now[0] += 2 * FRESH
        assert connections.had_any(stranger) is None
        until(lambda: connections.had_any(there.address) is True, "the report of its end")
        now[0] = 1000.0 + REMEMBERED
        assert connections.had_any(stranger) is False
        kernel = connections.table._closed._kernel
        assert kernel is not None
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        for _ in range(50):
            short_connection(server)
        until(lambda: connections.had_any(stranger) is None, "the loss")
        now[0] += REMEMBERED
        assert connections.had_any(stranger) is False
    assert connections.had_any(stranger) is None


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_reports_are_read_without_a_lookup() -> None:
    """The event loop reads the reports, so the kernel's buffer does not fill."""
    now = [1000.0]
    with followed(lambda: now[0]) as (connections, loop), socket.create_server(("127.0.0.1", 0)) as server:
        now[0] += FRESH
        assert not connections.has(REMOTE)
        there = short_connection(server)

        def is_reported() -> bool:
            loop.run_until_complete(asyncio.sleep(0.05))
            return connections.table.has(there, now[0])

        until(is_reported, "the report")
        assert connections.table._closed.read() == ([], False, False)
        assert connections.has(there)


def test_the_number_of_remembered_connections_is_limited() -> None:
    """The oldest entry goes first, and :meth:`add` reports that an address was dropped too early."""
    past = _Past()
    ends = [number.to_bytes(4, "big") + b"\0\1" for number in range(MOST_REMEMBERED + 1)]
    closed = [Closed(b"", end, 1) for end in ends]

    assert past.add(closed[:-1], 1.0)
    assert past.has(ends[0], 1.0)
    assert not past.add(closed[-1:], 2.0)
    assert [past.has(end, 2.0) for end in (ends[0], ends[1], ends[-1])] == [False, True, True]
    assert not past.had_any(ends[0][:-2], 2.0)
    assert past.add(closed[:1], 2.0 + REMEMBERED)
    assert (len(past._ends), past._received) == (1, {ends[0]: 1})


def test_many_connections_of_one_address_push_out_no_other_address() -> None:
    """The number of remembered connections is limited for each address."""
    past = _Past()
    past.add([Closed(b"", b"\1\1\1\1\0\1")], 1.0)
    for number in range(3 * MOST_REMEMBERED):
        assert past.add([Closed(b"", b"\2\2\2\2" + (number % 65_536).to_bytes(2, "big"))], 2.0)
    assert past.had_any(b"\1\1\1\1", 3.0)


def test_reports_that_cannot_be_followed_are_an_error_and_the_list_still_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In that case nothing is known about an address without an open connection."""

    def refuse(_: ClosedSockets) -> None:
        raise HostError("cannot follow")

    monkeypatch.setattr(ClosedSockets, "open", refuse)
    with followed() as (connections, _), socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            accepted, _ = server.accept()
            with accepted:
                assert connections.has(endpoint(*client.getsockname()))
        assert connections.had_any(endpoint("203.0.113.9", 1).address) is None
        assert connections.table.error == "cannot follow"


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_reports_that_the_kernel_refuses_at_the_start_are_followed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shortage of memory or descriptors ends: then the error is gone, and closed connections are known."""

    def refuse(_: ClosedSockets) -> None:
        raise HostError("cannot follow")

    async def session() -> None:
        table, loop = ConnectionTable(), asyncio.get_running_loop()
        assert isinstance(loop, GatheringLoop)
        later = time.monotonic() + 2 * REMEMBERED
        with monkeypatch.context() as refusing:
            refusing.setattr(ClosedSockets, "open", refuse)
            async with table.followed():
                table.retry()
                assert (table.error, table.knows(later)) == ("cannot follow", False)
                refusing.undo()
                table.retry()
                assert (table.error, table.knows(later)) == ("", True)
                assert loop.selector._marked == {table._closed.fileno()}
        assert loop.selector._marked == set()

    selector = GatheringSelector(lambda: 0.0)
    with asyncio.Runner(loop_factory=lambda: GatheringLoop(selector)) as runner:
        runner.run(session())


def test_only_the_first_look_up_of_a_refresh_asks_the_kernel(tmp_path: Path) -> None:
    """Later look-ups answer from its list; an address without a connection is unknown after 50 ms."""
    now = [0.0]
    table = tmp_path / "tcp"
    table.write_text(HEAD + LISTENER)
    connections = ConnectionTable((table,), SetClock(mono=lambda: now[0]))
    connections._known_from = 0.0
    assert connections.had_any(REMOTE.address, 0.0) is None
    table.unlink()
    connections.refresh()
    table.write_text(HEAD + LISTENER)
    assert connections.had_any(REMOTE.address, 0.0) is False
    table.write_text(HEAD + LISTENER + CONNECTION)

    assert connections.had_any(REMOTE.address, FRESH - 0.01) is False
    assert connections.had_any(REMOTE.address, FRESH) is None
    assert not connections.has(REMOTE, FRESH)
    now[0] = FRESH
    connections.refresh(REMOTE)
    assert connections.has(REMOTE, FRESH)
