"""The wire with the real kernel, through a cable, and with real Asterisks."""

import asyncio
import errno
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address, ip_network
from typing import ClassVar

import pytest
from attrs import evolve, frozen
from tests.support.asterisk_files import Kind
from tests.support.lab import RELEASES, Lab
from tests.support.netns import inside, neighbour, run
from tests.support.network import PBX_IPV4, PBX_IPV6, Network, socket_in
from tests.support.sources import KnownHost, Packets

from ringfence.clock import Backoff
from ringfence.firewall.contract import DROPPED_PREFIX, REQUEST_PREFIX, Add, FirewallPlan, Remove
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.ports import Ports
from ringfence.netlink.nflog import GROUP
from ringfence.sources import nflog, wire
from ringfence.sources.state import EndError, State
from ringfence.sources.wire import TOGETHER, WireItem, WireSink, WireSource
from ringfence.values.event import Service, Transport
from ringfence.values.packet import CopiedAnswer, CopiedRequest

SECONDS = 10.0
QUIET = 0.2
FAMILIES = {4: (PBX_IPV4, "198.18.1.1", "198.18.1.2"), 6: (PBX_IPV6, "fd00:18::a", "fd00:18::b")}


def reply(status: bytes, call_id: bytes = b"c@lab", nonce: bytes = b"n") -> bytes:
    """Return an answer as Asterisk writes it, reduced to the essential headers."""
    head = b"SIP/2.0 " + status + b" Whatever\r\nVia: SIP/2.0/UDP 198.18.1.1:5062\r\nCall-ID: " + call_id
    name = b"Proxy" if status == b"407" else b"WWW"
    return head + b"\r\n" + name + b'-Authenticate: Digest realm="asterisk",nonce="' + nonce + b'"\r\n\r\n'


class Reports(Packets):
    """The reports of a source."""

    @property
    def challenges(self) -> list[CopiedAnswer]:
        """The challenges alone."""
        return [one for one in self.seen if isinstance(one, CopiedAnswer)]


async def until(happened: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until ``happened`` returns True."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - of threads, the kernel and the source itself
            await asyncio.sleep(0.005)


def listen(
    act: Callable[[], object], number: int = 0, calls: Iterable[bytes] = (), **options: object
) -> tuple[list[CopiedAnswer], WireSource, list[float]]:
    """Listen while ``act`` runs in a thread, until ``number`` challenges and one of each call came."""
    reports, source = watch(act, number, calls, requests=False, **options)
    return reports.challenges, source, reports.gaps


def watch(
    act: Callable[[], object],
    number: int = 0,
    calls: Iterable[bytes] = (),
    *,
    requests: bool = True,
    **options: object,
) -> tuple[Reports, WireSource]:
    """Listen for challenges and, if ``requests``, requests, as :func:`listen` does for challenges."""
    reports, wanted = Reports(), set(calls)

    def came(source: WireSource) -> bool:
        seen = reports.seen if requests else reports.challenges
        counts = source.counts
        enough = len(seen) + counts.passing + counts.foreign + counts.unnamed >= number
        return enough and wanted <= {challenge.call_id for challenge in reports.challenges}

    async def session() -> WireSource:
        source = WireSource(reports, **options)  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            await asyncio.to_thread(act)
            await until(lambda: came(source))
            await asyncio.sleep(QUIET)
            task.cancel()
        return source

    return reports, asyncio.run(session())


@frozen
class Host:
    """The test runs in a PBX's namespace, with the rules in place; the attacker is across the cable."""

    network: Network
    backend: IpsetBackend

    def sender(self, version: int, port: int = 0) -> socket.socket:
        """Return a socket of the PBX."""
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind((FAMILIES[version][0], port))
        return made


@contextmanager
def guarded() -> Iterator[Host]:
    """Make both sides of a cable, with the log rule at the PBX's."""
    with Network() as network:
        backend = IpsetBackend(FirewallPlan(log_group=GROUP))
        with inside(network.pbx):
            assert backend.open().wire is None
        yield Host(network, backend)
        backend.close()


@pytest.fixture(scope="module", name="shared")
def _shared() -> Iterator[Host]:
    with guarded() as host:
        yield host


@pytest.fixture
def host(shared: Host) -> Iterator[Host]:
    """The PBX's side of a cable, for tests that leave its rules and its network as they are."""
    with inside(shared.network.pbx):
        yield shared


@pytest.fixture
def own_host() -> Iterator[Host]:
    """The PBX's side of a cable of its own."""
    with guarded() as host, inside(host.network.pbx):
        yield host


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_challenges_are_seen_and_nothing_else(host: Host, version: int) -> None:
    """An answer by UDP is reported with addresses and ports; requests of this host and others are not."""
    here, there, _ = FAMILIES[version]
    with host.sender(version, 5060) as pbx:

        def act() -> None:
            for text in (
                reply(b"200"),
                reply(b"401", b"one", b"1"),
                reply(b"408"),
                reply(b"404", b"three"),
                reply(b"407", b"t\xffo", b"2"),
                b"REGISTER sip:a SIP/2.0\r\n\r\n",
                b"",
                b"SIP/2.0 40",
            ):
                pbx.sendto(text, (there, 5062))

        every, source, gaps = listen(act, 5)

    assert [one.status for one in every] == [200, 401, 408, 404, 407]
    far, near = ip_address(there), ip_address(here)
    challenges = [evolve(one, sequence=None) for one in every if one.status in (401, 404, 407)]
    digest = challenges[1].digest
    assert challenges == [
        CopiedAnswer(far, 5062, near, 5060, b"one", b"1", service=Service.SIP),
        CopiedAnswer(far, 5062, near, 5060, b"three", b"", service=Service.SIP, status=404, digest=digest),
        CopiedAnswer(far, 5062, near, 5060, b"t\xffo", b"2", service=Service.SIP, status=407),
    ]
    assert source.counts == wire.WireCounts(challenges=5, unreadable=1)
    assert source.last_sign is not None
    assert (source.condition.state, len(gaps)) == (State.LISTENING, 2)


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_dropped_challenge_is_seen(host: Host, version: int) -> None:
    """A challenge to a banned address is reported, although the ban drops it."""
    _, banned, other = FAMILIES[version]
    host.backend.apply([Add(ip_network(banned), 60)])
    with host.sender(version) as pbx:

        def act() -> None:
            with pytest.raises(PermissionError):
                pbx.sendto(reply(b"401"), (banned, 5060))
            pbx.sendto(reply(b"401"), (other, 5060))

        challenges, _, _ = listen(act, 2)
    host.backend.apply([Remove(ip_network(banned))])

    assert [challenge.address for challenge in challenges] == [ip_address(banned), ip_address(other)]


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_of_any_size_is_read_whole(host: Host, version: int) -> None:
    """A Call-ID after 60 kB of echoed text is read: nothing is cut off."""
    there = FAMILIES[version][1]
    text = reply(b"401", b"far behind").replace(b"5062", b"5062;x=" + b"y" * 60_000)
    with host.sender(version) as pbx:
        challenges, source, _ = listen(lambda: pbx.sendto(text, (there, 5060)), 1)

    assert [challenge.call_id for challenge in challenges] == [b"far behind"]
    assert source.counts.unreadable == 0


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_segment_before_it_is_split_is_read_whole(host: Host, version: int) -> None:
    """The kernel logs the data of one TCP call before it splits it; each answer is read once."""
    here, there, _ = FAMILIES[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    text = reply(b"401").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
    answers = [text.replace(b"c@lab", b"%d" % number) for number in range(15)]
    answers[7] = answers[7].replace(b"5062", b"5062;x=" + b"y" * 2_000)
    with (
        socket.socket(family, socket.SOCK_STREAM) as pbx,
        socket_in(host.network.attacker, family) as phone,
    ):
        pbx.bind((here, 5060))
        pbx.listen()
        phone.bind((there, 0))
        phone.connect((here, 5060))
        connection, _ = pbx.accept()
        with connection:
            challenges, source, _ = listen(lambda: connection.sendall(b"".join(answers)), 15)

    assert [challenge.call_id for challenge in challenges] == [b"%d" % number for number in range(15)]
    assert {challenge.transport for challenge in challenges} == {Transport.TCP}
    assert source.counts.challenges == 15


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_requests_and_answers_come_in_the_kernels_order(own_host: Host, version: int) -> None:
    """A stranger's packet is a request even if it looks like an answer, and is read whole."""
    here, there, _ = FAMILIES[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for tool in ("iptables", "ip6tables"):  # connection tracking reassembles fragments before raw
        run(tool, "-A", "INPUT", "-m", "conntrack", "--ctstate", "INVALID")
    behind = b"REGISTER sip:x SIP/2.0\r\nX: " + b"y" * 60_000 + b'\r\nCall-ID: c\r\nX: nonce="n"\r\n\r\n'
    with (
        own_host.sender(version, 5060) as pbx,
        socket_in(own_host.network.attacker, family, socket.SOCK_DGRAM) as phone,
    ):
        phone.bind((there, 5062))

        def act() -> None:
            pbx.sendto(reply(b"401", b"one"), (there, 5062))
            phone.sendto(reply(b"401", b"two"), (here, 5060))
            assert pbx.recv(1 << 16)
            pbx.sendto(reply(b"401", b"three"), (there, 5062))
            phone.sendto(behind, (here, 5060))
            assert pbx.recv(1 << 16)

        reports, source = watch(act, 4)

    far = ip_address(there)
    [one, two, three, four] = reports.seen
    assert [one, three] == reports.challenges
    for request, call_id in ((two, b"two"), (four, b"c")):
        assert isinstance(request, CopiedRequest)
        assert (request.address, request.port) == (far, 5062)
        assert (request.nonces, request.call_ids) == ((b"n",), (call_id,))
    assert source.counts == wire.WireCounts(challenges=2, requests=2)


@pytest.mark.kernel
def test_an_answer_is_readable_as_soon_as_it_left(host: Host) -> None:
    """The kernel holds no copy back, so all answers before an event count before the event."""
    reports = Reports()
    calls = [b"%d" % number for number in range(20)]

    async def session(pbx: socket.socket) -> list[int]:
        source = WireSource(reports)
        read = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for call_id in calls:
                pbx.sendto(reply(b"401", call_id), ("198.18.1.1", 5062))
                source.drain()
                read.append(len(reports.challenges))
            task.cancel()
        return read

    with host.sender(4) as pbx:
        read = asyncio.run(session(pbx))

    assert read == [*range(1, len(calls) + 1)]
    assert [challenge.call_id for challenge in reports.challenges] == calls


@pytest.mark.kernel
def test_a_backlog_beyond_the_turns_is_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only some turns are read before an event is judged; the caller learns that packets still wait."""
    monkeypatch.setattr(nflog, "TURN", 2)
    monkeypatch.setattr(nflog, "MOST_TURNS", 3)
    reports = Reports()

    async def session(pbx: socket.socket) -> list[bool]:
        source = WireSource(reports)
        assert source.drain()  # it is not bound yet
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for number in range(8):
                pbx.sendto(reply(b"401", b"%d" % number), ("198.18.1.1", 5062))
            whole = [source.drain(), source.drain()]
            task.cancel()
        return whole

    with host.sender(4) as pbx:
        assert asyncio.run(session(pbx)) == [False, True]
    assert len(reports.challenges) == 8


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_of_a_request_in_fragments_the_first_is_read(own_host: Host, version: int) -> None:
    """Without connection tracking the fragments are not reassembled before the copy is made."""
    here, there, _ = FAMILIES[version]
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    text = b'REGISTER sip:x SIP/2.0\r\nCall-ID: c\r\nX: nonce="n"' + b"y" * 3_000 + b'nonce="m"\r\n\r\n'
    with (
        own_host.sender(version, 5060),
        socket_in(own_host.network.attacker, family, socket.SOCK_DGRAM) as phone,
    ):
        phone.bind((there, 5062))
        reports, _ = watch(lambda: phone.sendto(text, (here, 5060)), 1)

    [request] = reports.seen
    assert isinstance(request, CopiedRequest)
    assert (request.address, request.port) == (ip_address(there), 5062)
    assert (request.nonces, request.call_ids) == ((b"n",), (b"c",))


@pytest.mark.kernel
def test_the_hosts_own_logging_is_unchanged(host: Host) -> None:
    """Reading the group does not redirect other LOG rules to the packet log."""
    before = run("sysctl", "net.netfilter.nf_log")
    during: list[str] = []

    def act() -> None:
        with inside(host.network.pbx):
            during.append(run("sysctl", "net.netfilter.nf_log"))

    listen(act)
    assert during == [before]


def add_bridge() -> None:
    """Make a bridge for containers, in 10.9.9.0/24, and route."""
    run("sysctl", "-q", "net.ipv4.ip_forward=1")
    run("ip", "link", "add", "br9", "type", "bridge")
    run("ip", "link", "set", "br9", "up")
    run("ip", "address", "add", "10.9.9.1/24", "dev", "br9")


@contextmanager
def bridged() -> Iterator[socket.socket]:
    """Yield the socket of a PBX in a container, 10.9.9.2."""
    add_bridge()
    with neighbour() as container:
        run("ip", "link", "add", "near9", "type", "veth", "peer", "name", "far9", "netns", container)
        run("ip", "link", "set", "near9", "master", "br9", "up")
        run("ip", "-n", container, "link", "set", "far9", "up")
        run("ip", "-n", container, "address", "add", "10.9.9.2/24", "dev", "far9")
        run("ip", "-n", container, "route", "add", "default", "via", "10.9.9.1")
        with inside(container):
            pbx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            with pbx:
                pbx.bind(("10.9.9.2", 5060))
                yield pbx
        finally:
            run("ip", "-batch", "-", text="link delete near9\nlink delete br9\n")


@pytest.mark.kernel
@pytest.mark.parametrize("containers", [[ip_network("10.9.9.0/24")], []], ids=["known", "unknown"])
def test_known_containers_count(host: Host, containers: list[object]) -> None:
    """A bridged container's challenge has its own address; of an unknown network, it only passes through."""
    with bridged() as pbx:
        act = partial(pbx.sendto, reply(b"401"), ("198.18.1.1", 5062))
        challenges, source, _ = listen(act, 1, containers=containers)  # it is seen, or passes through

    near, far = ip_address("10.9.9.2"), ip_address("198.18.1.1")
    expected = CopiedAnswer(far, 5062, near, 5060, b"c@lab", b"n", service=Service.SIP)
    assert challenges == [expected] * len(containers)
    assert source.counts.passing == 1 - len(containers)


@pytest.mark.kernel
@pytest.mark.parametrize("known", [True, False, None])
def test_only_answers_of_asterisks_container_count(host: Host, *, known: bool | None) -> None:
    """Another container's answers are foreign; while Asterisk's address is unknown, each is a gap."""
    with bridged() as pbx:

        def act() -> None:
            pbx.sendto(reply(b"401"), ("198.18.1.1", 5062))

        networks = [ip_network("10.9.9.0/24")]
        challenges, source, gaps = listen(act, 1, containers=networks, host=KnownHost(container=known))

    assert len(challenges) == (known is True)
    assert (source.counts.foreign, source.counts.unnamed) == (known is False, known is None)
    assert len(gaps) == 2 + (known is None)


@pytest.mark.kernel
def test_containers_may_change(host: Host) -> None:
    """A network counts from when it is known until it is not; a new one is a gap for the time before."""
    reports = Reports()
    network = ip_network("10.9.9.0/24")

    async def session(pbx: socket.socket) -> list[int]:
        source = WireSource(reports)
        gaps = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for call_id, containers in ((b"0", []), (b"1", [network]), (b"2", [network]), (b"3", [])):
                source.set_containers(containers)
                gaps.append(len(reports.gaps))
                pbx.sendto(reply(b"401", call_id), ("198.18.1.1", 5062))
                await until(lambda: source.counts.challenges + source.counts.passing == len(gaps))
            task.cancel()
        return gaps

    with bridged() as pbx:
        gaps = asyncio.run(session(pbx))

    assert [challenge.call_id for challenge in reports.challenges] == [b"1", b"2"]
    assert gaps == [1, 2, 2, 2]


def test_containers_are_listed_in_order() -> None:
    """In any order of calls: IPv4 before IPv6, each by its number."""
    source = WireSource(Reports())
    texts = ["fd00::/64", "172.18.0.0/16", "172.17.0.0/16", "10.88.0.0/16"]
    source.set_containers(ip_network(text) for text in texts)
    assert [str(network) for network in source.containers] == texts[::-1]


@pytest.mark.kernel
def test_packets_of_strangers_are_no_challenges(own_host: Host) -> None:
    """A provider's 401 to this host and a stranger's under a container's address are not even logged.

    Under its own address a stranger in a routed network may get one logged; it does not count.
    """
    add_bridge()
    run("ip", "route", "add", "10.8.8.0/24", "via", "198.18.1.1")
    text = reply(b"401")

    def packet(source: str, target: str) -> bytes:
        udp = struct.pack(">HHHH", 5060, 5062, 8 + len(text), 0) + text
        addresses = socket.inet_aton(source) + socket.inet_aton(target)
        return b"E\0\0\0\0\0\0\0\x40\x11\0\0" + addresses + udp

    with inside(own_host.network.attacker):
        run("ip", "route", "add", "10.8.8.0/24", "via", PBX_IPV4)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:

        def act() -> None:
            raw.sendto(packet("198.18.1.1", PBX_IPV4), (PBX_IPV4, 0))
            raw.sendto(packet("10.9.9.2", "10.8.8.8"), ("10.8.8.8", 0))
            raw.sendto(packet("198.18.1.1", "10.8.8.8"), ("10.8.8.8", 0))

        challenges, source, _ = listen(act, 1, containers=[ip_network("10.9.9.0/24")])

    assert challenges == []
    assert source.counts == wire.WireCounts(passing=1)


@pytest.mark.kernel
def test_a_full_buffer_is_noticed(host: Host) -> None:
    """Packets lost while nothing reads are a gap, reported before later packets, and counted exactly."""
    order: list[str] = []

    class Order(WireSink):
        def on_packets(self, seen: Sequence[WireItem], now: float) -> None:
            order.extend("challenge" for _ in seen)

        def on_gap(self, now: float) -> None:
            order.append("gap")

    async def session(pbx: socket.socket) -> WireSource:
        source = WireSource(Order(), buffer=4096)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for _ in range(500):  # no turn of the loop in between
                pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            await until(lambda: "challenge" in order)
            pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            await until(lambda: source.counts.lost > 0)
            await asyncio.sleep(QUIET)
            task.cancel()
        return source

    with host.sender(4) as pbx:
        source = asyncio.run(session(pbx))

    counts = source.counts
    assert counts.challenges + counts.lost == 501
    assert 0 < counts.challenges < 501
    assert counts.gaps >= 2  # the kernel's error, and the missing numbers
    assert order[0] == "gap"
    assert "gap" in order[1:]


@pytest.mark.kernel
def test_a_busy_group_is_named(host: Host) -> None:
    """A second reader is refused with the file to read; it succeeds when the first is gone."""

    async def session() -> list[State]:
        states = []
        first, second = (WireSource(Reports(), backoff=Backoff(0.01, 0.02)) for _ in range(2))
        async with asyncio.TaskGroup() as group:
            one = group.create_task(first.run())
            await until(first.settled.is_set)
            two = group.create_task(second.run())
            await until(second.settled.is_set)
            states += [first.condition.state, second.condition.state]
            assert "/proc/net/netfilter/nfnetlink_log" in second.condition.detail
            one.cancel()
            await until(lambda: second.condition.state is State.LISTENING)
            two.cancel()
        return states

    assert asyncio.run(session()) == [State.LISTENING, State.DENIED]


@pytest.mark.kernel
def test_a_missing_capability_is_named(host: Host) -> None:
    """For a process without CAP_NET_ADMIN the state names the missing capability."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # one thread, in the namespace of the test
        os.setgid(65534)
        os.setuid(65534)
        _, source, _ = listen(lambda: None)
        os.write(writer, f"{source.condition.state}: {source.condition.detail}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        output = pipe.read()

    assert output.startswith("denied: ")
    assert "CAP_NET_ADMIN" in output


class FakeSocket:
    """A netlink socket with scripted datagrams, of which the last one is repeated."""

    def __init__(self, *answers: bytes | OSError) -> None:
        self._answers = list(answers)

    def send(self, request: bytes) -> int:
        """Accept the request."""
        return len(request)

    def recv(self, size: int) -> bytes:
        """Return the next datagram."""
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer


def error(code: int) -> bytes:
    """Return an nfnetlink error of the kernel."""
    return struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -code)


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (error(errno.EINVAL), State.ABSENT, "modprobe nfnetlink_log"),
        (error(errno.EPERM), State.DENIED, "CAP_NET_ADMIN"),
        (error(errno.ENOMEM), State.LOST, "ENOMEM"),
        (b"", State.LOST, "EPROTO"),
        (OSError(errno.EAGAIN, "nothing"), State.LOST, "nothing"),
    ],
)
def test_a_refusal_is_a_named_state(answer: bytes | OSError, state: State, text: str) -> None:
    """Each refusal of the group has its state, and the fix."""
    with pytest.raises(EndError) as refused:
        nflog._bind(FakeSocket(answer), GROUP)  # type: ignore[arg-type]
    assert refused.value.condition.state is state
    assert text in refused.value.condition.detail


def test_packets_may_arrive_before_the_answer_to_the_binding() -> None:
    """Under load the kernel copies packets before it answers; the answer after them counts."""
    nflog._bind(FakeSocket(logged(b"SIP"), error(0)), GROUP)  # type: ignore[arg-type]
    with pytest.raises(EndError, match="CAP_NET_ADMIN"):
        nflog._bind(FakeSocket(logged(b"SIP"), logged(b"SIP"), error(errno.EPERM)), GROUP)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (errno.EPROTONOSUPPORT, State.ABSENT),
        (errno.EAFNOSUPPORT, State.DENIED),
        (errno.EMFILE, State.LOST),
    ],
)
def test_a_missing_socket_is_a_named_state(monkeypatch: pytest.MonkeyPatch, code: int, state: State) -> None:
    """A kernel or a unit without netlink is a state, and the source tries again."""

    def refuse(*_: object) -> socket.socket:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(EndError) as refused:
        nflog._open(4096)
    assert refused.value.condition.state is state


class Modest(socket.socket):
    """A socket of a user namespace, which may not exceed the host's limits."""

    asked: ClassVar[list[int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
        """Refuse the larger buffer."""
        self.asked.append(option)
        if option != socket.SO_RCVBUF:
            raise PermissionError


def test_a_user_namespace_has_a_smaller_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the buffer may not be forced, the host's limit is used."""
    monkeypatch.setattr(socket, "socket", Modest)
    nflog._open(1 << 20).close()
    assert Modest.asked == [33, socket.SO_RCVBUF]  # SO_RCVBUFFORCE


@pytest.mark.parametrize("gathers", [True, False])
def test_packets_gather_unless_a_source_reads_them_at_once(
    monkeypatch: pytest.MonkeyPatch, *, gathers: bool
) -> None:
    """Only then is its socket marked for the event loop."""
    marked: list[int] = []

    @contextmanager
    def mark(descriptor: int) -> Iterator[None]:
        marked.append(descriptor)
        yield

    ours, kernel = socket.socketpair()
    monkeypatch.setattr(nflog, "_open", lambda _: ours)
    monkeypatch.setattr(nflog, "_bind", lambda *_: None)
    monkeypatch.setattr(nflog, "patient", mark)
    source = nflog.NflogSource("copies", 1, gathers=gathers)

    async def session() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(source._session(), 0.05)

    asyncio.run(session())
    kernel.close()
    assert len(marked) == gathers


class Script:
    """A netlink socket that returns these datagrams and errors, then nothing."""

    def __init__(self, *acts: bytes | OSError) -> None:
        self._acts = list(acts)

    def recv_into(self, space: memoryview) -> int:
        """Return the next."""
        act = self._acts.pop(0) if self._acts else BlockingIOError()
        if isinstance(act, OSError):
            raise act
        space[: len(act)] = act
        return len(act)


def test_a_turn_of_odd_messages() -> None:
    """An unreadable packet is counted, ENOBUFS is a gap, and the text of an answer is no packet."""
    reports = Reports()
    source = WireSource(reports)
    script = Script(error(0), b"odd", OSError(errno.ENOBUFS, ""), error(0))

    source._read_turn(script)  # type: ignore[arg-type]

    assert source.counts == wire.WireCounts(gaps=1, unreadable=1)
    assert (reports.challenges, len(reports.gaps)) == ([], 1)


def test_a_turn_that_fails_passes_on_what_it_has_read() -> None:
    """An answer that was read before the socket failed reaches the sink, and not in a later session."""
    reports = Reports()
    source = WireSource(reports)
    script = Script(
        logged(begin(99)), logged(segment(100, reply(b"401"))), OSError(errno.ENOTCONN, "Not connected")
    )

    with pytest.raises(EndError):
        source._read_turn(script)  # type: ignore[arg-type]

    assert len(reports.challenges) == 1


def test_packets_of_one_turn_have_the_times_at_which_they_were_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is read late in a long turn seems no older than reports about it by other sources."""
    moments: list[float] = []
    monkeypatch.setattr(Reports, "on_packets", lambda _, seen, now: moments.extend([now] * len(seen)))
    monkeypatch.setattr(time, "monotonic", itertools.count().__next__)
    answer = reply(b"401")
    packets = [segment(100 + len(answer) * number, answer) for number in range(TOGETHER + 2)]

    WireSource(Reports())._read_turn(Script(*map(logged, (begin(99), *packets))))  # type: ignore[arg-type]

    assert moments == [1 + TOGETHER] * TOGETHER + [1 + len(packets)] * 2


def logged(packet: bytes, prefix: bytes = b"", user: int | None = 0) -> bytes:
    """Return the kernel's message for a packet that a user's program on this host sent."""
    owner = [] if user is None else [(11, struct.pack(">I", user))]
    attributes = b"".join(
        struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)
        for kind, value in ((1, b"\x08\0\x03\0"), (10, prefix + b"\0"), *owner, (9, packet))
    )
    return struct.pack("=IHHIIBBH", 20 + len(attributes), 0x400, 0, 0, 0, 2, 0, 0) + attributes


def segment(sequence: int, *answers: bytes) -> bytes:
    """Return an IPv4 packet with a segment of TCP."""
    tcp = struct.pack(">HHIIBBHHH", 5060, 5062, sequence, 0, 0x50, 0x18, 0, 0, 0) + b"".join(answers)
    addresses = socket.inet_aton(PBX_IPV4) + socket.inet_aton("198.18.1.1")
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0) + addresses + tcp


def begin(sequence: int) -> bytes:
    """Return an IPv4 packet with a SYN."""
    packet = bytearray(segment(sequence))
    packet[20 + 13] = 0x12
    return bytes(packet)


def test_a_retransmitted_answer_counts_once() -> None:
    """An answer counts when its last byte has left, and not again; a retransmission is not unreadable."""
    reports = Reports()
    source = WireSource(reports)
    answers = [reply(b"401", b"%d" % number) for number in range(2)]
    size = len(answers[0])
    packets = [
        begin(99),
        segment(100, answers[0][:50]),
        segment(100, answers[0]),
        segment(100 + size, answers[1]),
        segment(100, *answers),
    ]
    source._read_turn(Script(*map(logged, packets)))  # type: ignore[arg-type]

    assert [challenge.call_id for challenge in reports.challenges] == [b"0", b"1"]
    assert source.counts == wire.WireCounts(challenges=2)


def test_an_answer_that_is_kept_from_leaving_counts_when_nothing_waits() -> None:
    """The status line alone counts at the end of a turn, as evasive; the rest of the answer does not."""
    reports = Reports()
    source = WireSource(reports)
    source._read_turn(Script(logged(begin(99)), logged(segment(100, reply(b"401")[:20]))))  # type: ignore[arg-type]
    source._read_turn(Script(logged(segment(120, reply(b"401")[20:]))))  # type: ignore[arg-type]

    assert [(challenge.status, challenge.evasive) for challenge in reports.challenges] == [(401, True)]


def test_only_answers_of_asterisks_user_count() -> None:
    """Packets of other users, and those without a socket, are not Asterisk's; unknown is a gap, not a no."""
    reports = Reports()
    users: dict[int, bool | None] = {7: True, 8: False, 9: None}
    source = WireSource(reports, KnownHost(users))
    first, second = reply(b"401", b"one"), reply(b"401", b"two")
    theirs = segment(0, first).replace(b"\x13\xc4\x13\xc6", b"\x13\xc4\x13\xc7")
    script = [
        logged(begin(99), user=None),
        logged(segment(100, first), user=8),
        logged(segment(100, first), user=None),
        logged(segment(100, first), user=9),
        logged(segment(100, first), user=7),
        logged(segment(100 + len(first), second), user=None),  # Asterisk has closed this connection
        logged(theirs, user=None),
    ]
    source._read_turn(Script(*script))  # type: ignore[arg-type]

    assert [challenge.call_id for challenge in reports.challenges] == [b"one", b"two"]
    assert source.counts == wire.WireCounts(challenges=2, foreign=3, unowned=1)
    assert len(reports.gaps) == 1


def test_a_prefix_alone_makes_a_request() -> None:
    """A copy with another prefix is no request. A segment of an unknown connection cannot be read.

    The firewall writes the same prefix.
    """
    assert (REQUEST_PREFIX.encode(), DROPPED_PREFIX.encode()) == (wire.REQUEST, wire.DROPPED)
    reports = Reports()
    source = WireSource(reports)
    packet = segment(0, reply(b"401"))
    prefixes = b"request", b"request2", b"REQUEST", b""
    source._read_turn(Script(*(logged(packet, prefix) for prefix in prefixes)))  # type: ignore[arg-type]

    assert source.counts == wire.WireCounts(challenges=1, unread=1)


def test_a_socket_that_fails_is_lost() -> None:
    """Any other error ends the binding with its name."""
    reports = Reports()
    with pytest.raises(EndError, match="down") as lost:
        WireSource(reports)._read_turn(Script(OSError(errno.ENETDOWN, "down")))  # type: ignore[arg-type]
    assert lost.value.condition.state is State.LOST


@pytest.mark.kernel
def test_a_defect_behind_the_source_does_not_end_it(host: Host) -> None:
    """An error of the sink is a visible state; the source binds again, and reports a gap."""
    calls: list[int] = []

    class Defect(Packets):
        def on_packets(self, seen: Sequence[WireItem], now: float) -> None:
            calls.append(len(seen))
            if len(calls) == 1:
                raise ZeroDivisionError

    defect = Defect()

    async def session(pbx: socket.socket) -> None:
        source = WireSource(defect, backoff=Backoff(0.01, 0.02))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            await until(lambda: source.condition.state is State.DEFECT)
            await until(lambda: source.condition.state is State.LISTENING)
            pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            await until(lambda: len(calls) == 2)
            task.cancel()

    with host.sender(4) as pbx:
        asyncio.run(session(pbx))
    assert len(defect.gaps) == 4


@pytest.mark.kernel
def test_a_flood_does_not_block_the_loop(host: Host) -> None:
    """While thousands of challenges wait, other tasks run after each 256."""
    turns: list[int] = []

    async def session(pbx: socket.socket) -> None:
        reports = Reports()
        source = WireSource(reports)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for _ in range(2000):
                pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            while len(reports.challenges) < 2000:
                turns.append(len(reports.challenges))
                await asyncio.sleep(0)
            task.cancel()

    with host.sender(4) as pbx:
        asyncio.run(session(pbx))
    assert max(b - a for a, b in itertools.pairwise(turns)) <= nflog.TURN


@pytest.mark.kernel
def test_challenges_are_passed_on_although_more_wait(host: Host) -> None:
    """While thousands of challenges wait, the sink gets at most eight at a time: a ban need not wait."""
    sizes: list[int] = []

    class Sizes(WireSink):
        def on_packets(self, seen: Sequence[WireItem], now: float) -> None:
            sizes.append(len(seen))

    async def session(pbx: socket.socket) -> None:
        source = WireSource(Sizes())
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for _ in range(2000):
                pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            await until(lambda: sum(sizes) == 2000)
            task.cancel()

    with host.sender(4) as pbx:
        asyncio.run(session(pbx))
    assert max(sizes) == wire.TOGETHER


@pytest.fixture(scope="module")
def guard_of() -> Iterator[Callable[[Lab], IpsetBackend]]:
    """Return a function that puts the log rule beside a real Asterisk, once for all tests."""
    backends: dict[str, IpsetBackend] = {}

    def guard(lab: Lab) -> IpsetBackend:
        if lab.network.pbx not in backends:
            backend = backends[lab.network.pbx] = IpsetBackend(FirewallPlan(log_group=GROUP))
            assert backend.open().wire is None
        return backends[lab.network.pbx]

    yield guard
    for namespace, backend in backends.items():
        with inside(namespace):
            backend.flush()
            backend.close()


@pytest.fixture
def wired(each_asterisk: Lab, guard_of: Callable[[Lab], IpsetBackend]) -> Iterator[Lab]:
    """A real Asterisk, with the log rule beside it; the test is in its namespace."""
    with inside(each_asterisk.network.pbx):
        guard_of(each_asterisk)
        yield each_asterisk


@pytest.mark.asterisk
@pytest.mark.parametrize(
    "hostile",
    [(), ("--call-id", r"\xff\xfe\x1b{}"), ("--via", ";rport;x=y"), ("--account", "nobody{}")],
    ids=["plain", "not UTF-8", "parameters", "unknown account"],
)
def test_each_guess_is_seen(wired: Lab, hostile: tuple[str, ...]) -> None:
    """For any text of a guess, the wire reports the address of its challenges, and the bytes.

    PJSIP challenges the probe and refuses the guess with a challenge; chan_sip refuses with a 403.
    """
    guess = partial(wired.attack, "guess", "--number", "3", *hostile)
    challenges, source, _ = listen(guess, 6)

    refusal = 403 if wired.asterisk.kind is Kind.CHAN_SIP else 401
    assert [challenge.status for challenge in challenges] == [401, refusal] * 3
    assert {str(challenge.sender) for challenge in challenges} == {"198.18.1.1"}
    assert not any(challenge.relayed for challenge in challenges)
    assert {str(challenge.address) for challenge in challenges} == {"198.18.1.1"}
    assert {(str(one.local_address), one.local_port) for one in challenges} == {(PBX_IPV4, 5060)}
    assert len({challenge.call_id for challenge in challenges}) == 3
    if "--call-id" in hostile:
        assert all(challenge.call_id.startswith(b"\xff\xfe\x1b") for challenge in challenges)
    assert all(bool(challenge.nonce) is (challenge.status == 401) for challenge in challenges)
    assert source.counts.lost == 0


def ask(
    lab: Lab, *requests: bytes, number: int = 1, calls: Iterable[bytes] = (), port: int = 5060
) -> list[CopiedAnswer]:
    """Send requests as they are, all from one port; return the challenges (see :func:`listen`)."""
    with socket_in(lab.network.attacker, kind=socket.SOCK_DGRAM) as phone:
        phone.bind(("198.18.1.1", 5099))
        challenges, _, _ = listen(
            lambda: [phone.sendto(text, (PBX_IPV4, port)) for text in requests], number, calls
        )
    return challenges


def request(call_id: bytes, via: bytes = b";rport", name: bytes = b"") -> bytes:
    """Return a REGISTER with these texts."""
    return (
        b"REGISTER sip:198.18.0.1 SIP/2.0\r\n"
        b"Via: SIP/2.0/UDP 198.18.1.1:5099"
        + via
        + b";branch=z9hG4bK"
        + os.urandom(6).hex().encode()
        + b"\r\n"
        b"From: " + name + b"<sip:alice@198.18.0.1>;tag=1\r\nTo: <sip:alice@198.18.0.1>\r\n"
        b"Call-ID: " + call_id + b"\r\nCSeq: 1 REGISTER\r\n"
        b"Contact: <sip:alice@198.18.1.1:5099>\r\nContent-Length: 0\r\n\r\n"
    )


@pytest.mark.asterisk
def test_text_that_hides_from_logs_is_seen(wired: Lab) -> None:
    """An ESC in the display name and a Call-ID that is not UTF-8 are seen; texts miss or forge them."""
    [seen] = ask(wired, request(b"\xff\xfe a", name=b'"\x1b" '))
    assert (str(seen.address), seen.port, seen.call_id) == ("198.18.1.1", 5099, b"\xff\xfe a")


def ask_both(lab: Lab, number: int) -> tuple[CopiedAnswer, CopiedAnswer]:
    """Request a challenge to another address, then one; return both, in this order."""
    elsewhere = request(b"named%d" % number, b";rport;maddr=198.18.1.77")
    seen = {one.call_id[:5]: one for one in ask(lab, elsewhere, request(b"plain%d" % number), number=2)}
    return seen[b"named"], seen[b"plain"]


@pytest.mark.asterisk
def test_the_target_of_a_via_maddr(wired: Lab) -> None:
    """chan_sip challenges the true sender; PJSIP challenges any address of the Via, with a usable nonce.

    PJSIP's nonce depends on the source address and the second. So a challenge to an address proves nothing
    about it, and neither does a nonce that went to the sender as well.
    """
    pairs = [ask_both(wired, number) for number in range(3)]  # most within one second
    named, plain = next(((n, p) for n, p in pairs if n.nonce == p.nonce), pairs[0])

    assert plain.address == ip_address("198.18.1.1")
    if wired.asterisk.kind is Kind.CHAN_SIP:
        assert named.address == plain.address
    else:
        assert named.address == ip_address("198.18.1.77")
        assert named.nonce == plain.nonce


@pytest.mark.asterisk
def test_no_header_can_be_forged(wired: Lab) -> None:
    """A Call-ID in a quoted string, after text that other parsers take for a line end, is not reported.

    To chan_sip a bare LF ends a line of the request: there it is the request's own, also in its events.
    """
    for place, text in enumerate((b"\r", b"\n", b"\r\n ", b"\r\r", b"\0\r")):
        forged = b'"a' + text + b'Call-ID: forged" '
        true = b"true%d" % place
        sent = request(true, name=forged), request(true + b"v", via=b";rport;x=" + forged)
        to = request(true + b"t").replace(b"To: ", b"To: " + forged)
        for seen in ask(wired, request(b"first"), *sent, to):
            own = (
                wired.asterisk.kind is Kind.CHAN_SIP
                and text == b"\n"
                and seen.call_id.startswith(b'forged" ')
            )
            refused = seen.status in (401, 403)  # chan_sip answers 4xx to a NUL, without the Call-ID
            assert own or not refused or seen.call_id.startswith((b"true", b"first")), text


@pytest.mark.asterisk
def test_each_guess_by_tcp_is_seen(wired: Lab) -> None:
    """The challenges of one connection are seen, with the port of their sender, each once."""
    guess = partial(wired.attack, "guess", "--number", "5", "--transport", "TCP")
    challenges, source, _ = listen(guess, 10)

    refusal = 403 if wired.asterisk.kind is Kind.CHAN_SIP else 401
    assert [challenge.status for challenge in challenges] == [401, refusal] * 5
    assert {one.transport for one in challenges} == {Transport.TCP}
    assert {(str(one.address), str(one.sender)) for one in challenges} == {("198.18.1.1", "198.18.1.1")}
    assert len({one.port for one in challenges}) == 1
    assert not any(one.relayed for one in challenges)
    assert source.counts.challenges == len(challenges)


@pytest.mark.asterisk
def test_each_of_many_answers_by_tcp_is_seen(wired: Lab) -> None:
    """Requests back to back in one segment give as many answers, in any segments of the kernel."""
    texts = [request(b"%d" % number).replace(b"/UDP", b"/TCP") for number in range(30)]
    with socket_in(wired.network.attacker) as phone:
        phone.bind(("198.18.1.1", 0))
        phone.connect((PBX_IPV4, 5060))
        challenges, _, _ = listen(lambda: phone.sendall(b"".join(texts)), len(texts))

    # An answer that continues in the next segment is seen, perhaps without its Call-ID and nonce.
    assert len(challenges) == 30
    assert len({one.call_id for one in challenges}) >= 25


@pytest.mark.asterisk
def test_a_relayed_challenge_is_marked(wired: Lab) -> None:
    """A second Via of the request, in a line of its own or after a comma, is in the answer."""
    second = b"SIP/2.0/UDP 203.0.113.9;branch=z9"
    requests = {
        b"plain": request(b"plain"),
        b"line": request(b"line").replace(b"From:", b"Via: " + second + b"\r\nFrom:"),
        b"short": request(b"short").replace(b"From:", b"v: " + second + b"\r\nFrom:"),
        b"comma": request(b"comma").replace(b"\r\nFrom:", b"," + second + b"\r\nFrom:"),
        b"fold": request(b"fold").replace(b"\r\nFrom:", b"\r\n , " + second + b"\r\nFrom:"),
        b"quoted": request(b"quoted", via=b';rport;x="a,b"'),
        b"bracket": request(b"bracket").replace(b" 198.18.1.1:5099", b" [x," + second + b"]"),
    }
    sure = (b"plain", b"line", b"short", b"comma")
    seen = {one.call_id: one.relayed for one in ask(wired, *requests.values(), number=5, calls=sure)}
    assert not seen.pop(b"plain")
    assert not seen.pop(b"quoted", False)
    assert {b"line", b"short", b"comma"} <= seen.keys()
    assert all(seen.values())


def message(sequence: int, extra: bytes = b"") -> bytes:
    """Return a MESSAGE from the account bob."""
    text = request(b"m%d" % os.getpid()).replace(b"REGISTER sip:198", b"MESSAGE sip:100@198")
    text = text.replace(b"1 REGISTER", b"%d MESSAGE" % sequence).replace(b"alice", b"bob")
    return text.replace(b"Contact:", extra + b"Content-Type: text/plain\r\nContact:")


@pytest.mark.asterisk
def test_chan_sip_refuses_a_message_with_a_403(
    asterisk16: Lab, guard_of: Callable[[Lab], IpsetBackend]
) -> None:
    """The challenge, its answer and the refusal share nonce and Call-ID."""
    digest = b'Authorization: Digest username="bob",realm="asterisk",uri="x",response="%s",nonce="%s"\r\n'
    with (
        inside(asterisk16.network.pbx),
        socket_in(asterisk16.network.attacker, kind=socket.SOCK_DGRAM) as phone,
    ):
        guard_of(asterisk16)
        phone.bind(("198.18.1.1", 5099))
        phone.settimeout(SECONDS)

        def act() -> None:
            phone.sendto(message(1), (PBX_IPV4, 5060))
            nonce = phone.recv(4096).split(b'nonce="')[1].split(b'"')[0]
            phone.sendto(message(2, digest % (b"0" * 32, nonce)), (PBX_IPV4, 5060))
            assert phone.recv(4096).startswith(b"SIP/2.0 403 ")

        reports, _ = watch(act, 4)

    [first, challenge, second, refusal] = reports.seen
    assert isinstance(first, CopiedRequest)
    assert isinstance(challenge, CopiedAnswer)
    assert isinstance(second, CopiedRequest)
    assert isinstance(refusal, CopiedAnswer)
    assert (challenge.status, refusal.status) == (401, 403)
    assert (first.nonces, second.nonces) == ((), (challenge.nonce,))
    assert first.call_ids == second.call_ids == (challenge.call_id,) == (refusal.call_id,)
    assert (refusal.service, str(refusal.sender), refusal.relayed) == (Service.SIP, "198.18.1.1", False)


HTTP = f"[general]\nenabled=yes\nbindaddr={PBX_IPV4}\nbindport=8088\n"
TRANSPORT = f"[ws]\ntype=transport\nprotocol=ws\nbind={PBX_IPV4}\n"
GUESTS = "[anonymous@guests.example]\ntype = endpoint\ncontext = public\ndisallow = all\nallow = ulaw\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: sip\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture(scope="module", params=sorted(RELEASES))
def with_guests(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A real Asterisk with guests and with SIP by WebSocket, and the log rule beside it."""
    extra = {"http.conf": HTTP, "pjsip.conf": TRANSPORT + "\n" + GUESTS}
    with Lab.made(request.param, extra) as lab:
        backend = IpsetBackend(FirewallPlan(log_group=GROUP, sip_ports=Ports(tcp=(8088,))))
        with inside(lab.network.pbx):
            assert backend.open().wire is None
        yield lab
        backend.close()


def frame(text: bytes, kind: int = 0x81) -> bytes:
    """Return a client's frame of a WebSocket, whose mask changes nothing."""
    return bytes([kind, 0xFE]) + len(text).to_bytes(2, "big") + bytes(4) + text


@pytest.mark.asterisk
@pytest.mark.parametrize("kind", [0x81, 0x82], ids=["text", "binary"])
def test_challenges_by_websocket_are_seen(with_guests: Lab, kind: int) -> None:
    """Asterisk answers in text frames, also to binary ones; each answer is parsed, with its nonce."""
    calls = [b"%d" % (16 * kind + number) for number in range(3)]
    requests = [request(call).replace(b"/UDP", b"/WS") for call in calls]
    with inside(with_guests.network.pbx), socket_in(with_guests.network.attacker) as browser:
        browser.bind(("198.18.1.1", 0))
        browser.settimeout(SECONDS)
        browser.connect((PBX_IPV4, 8088))
        browser.sendall(UPGRADE)
        assert browser.recv(4096).startswith(b"HTTP/1.1 101 ")
        challenges, _, _ = listen(
            lambda: browser.sendall(b"".join(frame(text, kind) for text in requests)), 3
        )
        port = browser.getsockname()[1]

    assert sorted(one.call_id for one in challenges) == calls
    assert {(str(one.address), one.port, str(one.sender)) for one in challenges} == {
        ("198.18.1.1", port, "198.18.1.1")
    }
    assert {(one.transport, one.status, one.relayed) for one in challenges} == {(Transport.TCP, 401, False)}
    assert all(one.nonce for one in challenges)


@pytest.mark.asterisk
def test_a_guests_call_to_an_unknown_extension_is_seen(with_guests: Lab) -> None:
    """PJSIP and chan_sip answer it with 404, which names its sender, also if a Via redirects it."""
    pjsip = with_guests.asterisk.kind is Kind.PJSIP
    for port, service in [(5060, Service.PJSIP)] if pjsip else [(5060, Service.SIP), (5080, Service.PJSIP)]:
        plain, redirected = b"plain%d" % port, b"redirected%d" % port
        calls = []
        for call_id, via in ((plain, b";rport"), (redirected, b";maddr=198.18.1.2")):
            call = request(call_id, via).replace(b"REGISTER sip:198", b"INVITE sip:nobody-here@198")
            call = call.replace(b"1 REGISTER", b"1 INVITE")
            calls.append(call.replace(b"alice@198.18.0.1>;", b"stranger@guests.example>;"))
        with inside(with_guests.network.pbx):
            answers = ask(with_guests, *calls, number=2, calls=(plain, redirected), port=port)

        # Asterisk repeats an answer until it is acknowledged, also that of the other driver.
        challenges = [one for one in answers if one.call_id in (plain, redirected)]
        assert {(one.status, one.service, str(one.sender), one.nonce) for one in challenges} == {
            (404, service, "198.18.1.1", b"")
        }
        assert {(one.call_id, str(one.address)) for one in challenges} == {
            (plain, "198.18.1.1"),
            (redirected, "198.18.1.2"),
        }
