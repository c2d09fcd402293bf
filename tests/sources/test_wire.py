"""The wire against the real kernel, through a cable, and beside real Asterisks."""

import asyncio
import errno
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address, ip_network
from typing import ClassVar

import pytest
from attrs import Factory, define, frozen
from tests.support.asterisk_files import Kind
from tests.support.lab import Lab
from tests.support.netns import inside, neighbour, run
from tests.support.network import PBX_IPV4, PBX_IPV6, Network, socket_in

from ringfence.firewall.contract import Add, Plan
from ringfence.firewall.ipset import IpsetBackend
from ringfence.model import Challenge, Service
from ringfence.sources import wire
from ringfence.sources.backoff import Backoff
from ringfence.sources.state import EndError, State
from ringfence.sources.wire import GROUP, WireSource

SECONDS = 10.0
QUIET = 0.2
FAMILIES = {4: (PBX_IPV4, "198.18.1.1", "198.18.1.2"), 6: (PBX_IPV6, "fd00:18::a", "fd00:18::b")}


def reply(status: bytes, call_id: bytes = b"c@lab", nonce: bytes = b"n") -> bytes:
    """Give an answer as Asterisk writes it, cut down to what counts."""
    head = b"SIP/2.0 " + status + b" Whatever\r\nVia: SIP/2.0/UDP 198.18.1.1:5062\r\nCall-ID: " + call_id
    name = b"Proxy" if status == b"407" else b"WWW"
    return head + b"\r\n" + name + b'-Authenticate: Digest realm="asterisk",nonce="' + nonce + b'"\r\n\r\n'


@define
class Ears:
    """What a source told."""

    heard: list[Challenge] = Factory(list)
    gaps: list[float] = Factory(list)

    def take(self, challenges: Sequence[Challenge], now: float) -> None:
        """Be the sink."""
        self.heard += challenges


async def until(happened: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Wait until something has happened."""
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - of threads, the kernel and the source itself
            await asyncio.sleep(0.005)


def listen(
    act: Callable[[], object], number: int = 0, **options: object
) -> tuple[list[Challenge], WireSource, list[float]]:
    """Listen while ``act`` runs in a thread, until ``number`` challenges came and then it was quiet."""
    ears = Ears()

    async def session() -> WireSource:
        source = WireSource(ears.take, ears.gaps.append, **options)  # type: ignore[arg-type]
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            await asyncio.to_thread(act)
            await until(lambda: len(ears.heard) >= number)
            await asyncio.sleep(QUIET)
            task.cancel()
        return source

    source = asyncio.run(session())
    return ears.heard, source, ears.gaps


@frozen
class Host:
    """A PBX's namespace, in which the test is, with the rules in place; the attacker is beyond the cable."""

    network: Network
    backend: IpsetBackend

    def sender(self, version: int, port: int = 0) -> socket.socket:
        """Give a socket of the PBX."""
        made = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind((FAMILIES[version][0], port))
        return made


@pytest.fixture
def host() -> Iterator[Host]:
    """The PBX's side of a cable, guarded, with the log rule."""
    with Network() as network, inside(network.pbx):
        backend = IpsetBackend(Plan(log_group=GROUP))
        assert backend.open().wire is None
        yield Host(network, backend)
        backend.close()


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_challenges_are_seen_and_nothing_else(host: Host, version: int) -> None:
    """A 401 and a 407 by UDP are told with both addresses and ports; other answers and requests are not."""
    here, there, _ = FAMILIES[version]
    with host.sender(version, 5060) as pbx:

        def act() -> None:
            for text in (
                reply(b"200"),
                reply(b"401", b"one", b"1"),
                reply(b"403"),
                reply(b"407", b"t\xffo", b"2"),
                b"REGISTER sip:a SIP/2.0\r\n\r\n",
                b"",
                b"SIP/2.0 40",
            ):
                pbx.sendto(text, (there, 5062))

        heard, source, gaps = listen(act, 2)

    far, near = ip_address(there), ip_address(here)
    assert heard == [
        Challenge(far, 5062, near, 5060, b"one", b"1", service=Service.SIP),
        Challenge(far, 5062, near, 5060, b"t\xffo", b"2", service=Service.SIP),
    ]
    assert source.counts == wire.WireCounts(challenges=2)
    assert (source.condition.state, len(gaps)) == (State.LISTENING, 2)


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_challenge_that_was_dropped_is_none(host: Host, version: int) -> None:
    """What goes to a banned address never left, and is not told."""
    _, banned, other = FAMILIES[version]
    host.backend.apply([Add(ip_network(banned), 60.0)])
    with host.sender(version) as pbx:

        def act() -> None:
            with pytest.raises(PermissionError):
                pbx.sendto(reply(b"401"), (banned, 5060))
            pbx.sendto(reply(b"401"), (other, 5060))

        heard, _, _ = listen(act, 1)

    assert [challenge.address for challenge in heard] == [ip_address(other)]


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_of_any_size_is_read_whole(host: Host, version: int) -> None:
    """A Call-ID behind 60 kB of what the sender had echoed is read: nothing is cut off."""
    there = FAMILIES[version][1]
    text = reply(b"401", b"far behind").replace(b"5062", b"5062;x=" + b"y" * 60_000)
    with host.sender(version) as pbx:
        heard, source, _ = listen(lambda: pbx.sendto(text, (there, 5060)), 1)

    assert [challenge.call_id for challenge in heard] == [b"far behind"]
    assert source.counts.unreadable == 0


@pytest.mark.kernel
def test_nothing_of_the_hosts_own_logging_changes(host: Host) -> None:
    """Reading the group makes the packet log the destination of nobody else's LOG rules."""
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
    """Give the socket of a PBX in a container, 10.9.9.2."""
    add_bridge()
    with neighbour() as container:
        run("ip", "link", "add", "near9", "type", "veth", "peer", "name", "far9", "netns", container)
        run("ip", "link", "set", "near9", "master", "br9", "up")
        run("ip", "-n", container, "link", "set", "far9", "up")
        run("ip", "-n", container, "address", "add", "10.9.9.2/24", "dev", "far9")
        run("ip", "-n", container, "route", "add", "default", "via", "10.9.9.1")
        with inside(container):
            pbx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with pbx:
            pbx.bind(("10.9.9.2", 5060))
            yield pbx


@pytest.mark.kernel
@pytest.mark.parametrize("containers", [[ip_network("10.9.9.0/24")], []], ids=["known", "unknown"])
def test_containers_count_where_they_are_known(host: Host, containers: list[object]) -> None:
    """A bridged container's challenge is told with its own address; unknown, it only passes through."""
    with bridged() as pbx:
        act = partial(pbx.sendto, reply(b"401"), ("198.18.1.1", 5062))
        heard, source, _ = listen(act, len(containers), containers=containers)

    near, far = ip_address("10.9.9.2"), ip_address("198.18.1.1")
    told = Challenge(far, 5062, near, 5060, b"c@lab", b"n", service=Service.SIP)
    assert heard == [told] * len(containers)
    assert source.counts.passing == 1 - len(containers)


@pytest.mark.kernel
def test_containers_may_change_meanwhile(host: Host) -> None:
    """A network counts from when it is known until it is not; a new one is a gap, for what came before."""
    ears = Ears()
    network = ip_network("10.9.9.0/24")

    async def session(pbx: socket.socket) -> list[int]:
        source = WireSource(ears.take, ears.gaps.append)
        gaps = []
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for call_id, containers in ((b"0", []), (b"1", [network]), (b"2", [network]), (b"3", [])):
                source.count_containers(containers)
                gaps.append(len(ears.gaps))
                pbx.sendto(reply(b"401", call_id), ("198.18.1.1", 5062))
                await until(lambda: source.counts.challenges + source.counts.passing == len(gaps))
            task.cancel()
        return gaps

    with bridged() as pbx:
        gaps = asyncio.run(session(pbx))

    assert [challenge.call_id for challenge in ears.heard] == [b"1", b"2"]
    assert gaps == [1, 2, 2, 2]


def test_containers_are_told_in_order() -> None:
    """Whatever order they come in: IPv4 before IPv6, each by its number."""
    source = WireSource(Ears().take, Ears().gaps.append)
    texts = ["fd00::/64", "172.18.0.0/16", "172.17.0.0/16", "10.88.0.0/16"]
    source.count_containers(ip_network(text) for text in texts)
    assert [str(network) for network in source.containers] == texts[::-1]


@pytest.mark.kernel
def test_what_strangers_send_is_no_challenge(host: Host) -> None:
    """A provider's 401 to this host and a stranger's under a container's address are not even logged.

    Under his own address a stranger who is near enough to be routed may have one logged; it does not count.
    """
    add_bridge()
    run("ip", "route", "add", "10.8.8.0/24", "via", "198.18.1.1")
    text = reply(b"401")

    def packet(source: str, target: str) -> bytes:
        udp = struct.pack(">HHHH", 5060, 5062, 8 + len(text), 0) + text
        addresses = socket.inet_aton(source) + socket.inet_aton(target)
        return b"E\0\0\0\0\0\0\0\x40\x11\0\0" + addresses + udp

    with inside(host.network.attacker):
        run("ip", "route", "add", "10.8.8.0/24", "via", PBX_IPV4)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with raw:

        def act() -> None:
            raw.sendto(packet("198.18.1.1", PBX_IPV4), (PBX_IPV4, 0))
            raw.sendto(packet("10.9.9.2", "10.8.8.8"), ("10.8.8.8", 0))
            raw.sendto(packet("198.18.1.1", "10.8.8.8"), ("10.8.8.8", 0))

        heard, source, _ = listen(act, containers=[ip_network("10.9.9.0/24")])

    assert heard == []
    assert source.counts == wire.WireCounts(passing=1)


@pytest.mark.kernel
def test_a_buffer_that_is_full_is_noticed(host: Host) -> None:
    """What is lost while nobody reads is a gap, told before what comes after it, and counted exactly."""
    order: list[str] = []

    async def session(pbx: socket.socket) -> WireSource:
        source = WireSource(
            lambda challenges, _: order.extend("challenge" for _ in challenges),
            lambda _: order.append("gap"),
            buffer=4096,
        )
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
    assert counts.gaps >= 2  # the kernel's word, and the count
    assert order[0] == "gap"
    assert "gap" in order[1:]


@pytest.mark.kernel
def test_a_group_that_another_reads_is_named(host: Host) -> None:
    """A second reader is refused with the place to look; it takes over when the first is gone."""

    async def session() -> list[State]:
        states = []
        first, second = (WireSource(Ears().take, Ears().gaps.append, Backoff(0.01, 0.02)) for _ in range(2))
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
def test_without_the_capability_the_mend_is_named(host: Host) -> None:
    """A process without CAP_NET_ADMIN is told which capability it lacks."""
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
    with os.fdopen(reader) as told:
        said = told.read()

    assert said.startswith("denied: ")
    assert "CAP_NET_ADMIN" in said


class FakeSocket:
    """A netlink socket that answers as it is told."""

    def __init__(self, answer: bytes | OSError) -> None:
        self._answer = answer

    def send(self, request: bytes) -> int:
        """Take the request."""
        return len(request)

    def recv(self, size: int) -> bytes:
        """Give the answer."""
        if isinstance(self._answer, OSError):
            raise self._answer
        return self._answer


def error(code: int) -> bytes:
    """Give an nfnetlink error of the kernel's."""
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
    """Each way in which the group is not given has its state, and what mends it."""
    with pytest.raises(EndError) as refused:
        wire._bind(FakeSocket(answer), GROUP)  # type: ignore[arg-type]
    assert refused.value.condition.state is state
    assert text in refused.value.condition.detail


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
        wire._open(4096)
    assert refused.value.condition.state is state


class Modest(socket.socket):
    """A socket of a user namespace, which may not go beyond the host's limits."""

    asked: ClassVar[list[int]] = []

    def setsockopt(self, level: int, option: int, value: int) -> None:  # type: ignore[override]
        """Refuse the greater buffer."""
        self.asked.append(option)
        if option != socket.SO_RCVBUF:
            raise PermissionError


def test_a_user_namespace_has_a_smaller_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the buffer may not be forced, what the host allows is taken."""
    monkeypatch.setattr(socket, "socket", Modest)
    wire._open(1 << 20).close()
    assert Modest.asked == [wire._SO_RCVBUFFORCE, socket.SO_RCVBUF]


class Script:
    """A netlink socket that gives these datagrams and errors, then nothing."""

    def __init__(self, *acts: bytes | OSError) -> None:
        self._acts = list(acts)

    def recv_into(self, space: memoryview) -> int:
        """Give the next."""
        act = self._acts.pop(0) if self._acts else BlockingIOError()
        if isinstance(act, OSError):
            raise act
        space[: len(act)] = act
        return len(act)


def test_a_turn_of_odd_messages() -> None:
    """What cannot be read is counted, ENOBUFS is a gap, and what an answer says is no packet."""
    ears = Ears()
    source = WireSource(ears.take, ears.gaps.append)
    script = Script(error(0), b"odd", OSError(errno.ENOBUFS, ""), error(0))

    source._turn(script)  # type: ignore[arg-type]

    assert source.counts == wire.WireCounts(gaps=1, unreadable=1)
    assert (ears.heard, len(ears.gaps)) == ([], 1)


def test_a_socket_that_fails_is_lost() -> None:
    """Any other error ends the binding with its name."""
    ears = Ears()
    with pytest.raises(EndError, match="down") as lost:
        WireSource(ears.take, ears.gaps.append)._turn(Script(OSError(errno.ENETDOWN, "down")))  # type: ignore[arg-type]
    assert lost.value.condition.state is State.LOST


@pytest.mark.kernel
def test_a_defect_behind_the_source_does_not_end_it(host: Host) -> None:
    """An error of the sink is a state that is seen; the source binds again, and says that it was away."""
    gaps: list[float] = []
    calls: list[int] = []

    def sink(challenges: Sequence[Challenge], _: float) -> None:
        calls.append(len(challenges))
        if len(calls) == 1:
            raise ZeroDivisionError

    async def session(pbx: socket.socket) -> None:
        source = WireSource(sink, gaps.append, Backoff(0.01, 0.02))
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
    assert len(gaps) == 4


@pytest.mark.kernel
def test_a_flood_leaves_the_loop_its_turns(host: Host) -> None:
    """While thousands of challenges wait, others have their turn after each 256."""
    turns: list[int] = []

    async def session(pbx: socket.socket) -> None:
        ears = Ears()
        source = WireSource(ears.take, ears.gaps.append)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(source.run())
            await until(source.settled.is_set)
            for _ in range(2000):
                pbx.sendto(reply(b"401"), ("198.18.1.1", 5060))
            while len(ears.heard) < 2000:
                turns.append(len(ears.heard))
                await asyncio.sleep(0)
            task.cancel()

    with host.sender(4) as pbx:
        asyncio.run(session(pbx))
    assert max(b - a for a, b in itertools.pairwise(turns)) <= wire.TURN


@pytest.fixture
def wired(each_asterisk: Lab) -> Iterator[Lab]:
    """A real Asterisk, with the log rule beside it; the test is in its namespace."""
    with inside(each_asterisk.network.pbx):
        backend = IpsetBackend(Plan(log_group=GROUP))
        assert backend.open().wire is None
        yield each_asterisk
        backend.flush()
        backend.close()


@pytest.mark.asterisk
@pytest.mark.parametrize(
    "hostile",
    [(), ("--call-id", r"\xff\xfe\x1b{}"), ("--via", ";rport;x=y"), ("--account", "nobody{}")],
    ids=["plain", "not UTF-8", "parameters", "unknown account"],
)
def test_each_guess_is_seen(wired: Lab, hostile: tuple[str, ...]) -> None:
    """Whatever a guess does to the texts, the wire tells to whom its challenges went, and the bytes.

    PJSIP challenges the probe and refuses the guess with a challenge; chan_sip refuses with a 403.
    """
    each = 1 if wired.asterisk.kind is Kind.CHAN_SIP else 2
    guess = partial(wired.attack, "guess", "--number", "3", *hostile)
    heard, source, _ = listen(guess, 3 * each)

    assert len(heard) == 3 * each
    assert {str(challenge.address) for challenge in heard} == {"198.18.1.1"}
    assert {(str(one.local_address), one.local_port) for one in heard} == {(PBX_IPV4, 5060)}
    assert len({challenge.call_id for challenge in heard}) == 3
    if "--call-id" in hostile:
        assert all(challenge.call_id.startswith(b"\xff\xfe\x1b") for challenge in heard)
    assert all(challenge.nonce for challenge in heard)
    assert source.counts.unreadable == 0


def ask(lab: Lab, *requests: bytes, number: int = 1) -> list[Challenge]:
    """Send requests as they are, all from one port: at least ``number`` challenges leave."""
    with socket_in(lab.network.attacker, kind=socket.SOCK_DGRAM) as phone:
        phone.bind(("198.18.1.1", 5099))
        heard, _, _ = listen(lambda: [phone.sendto(text, (PBX_IPV4, 5060)) for text in requests], number)
    return heard


def request(call_id: bytes, via: bytes = b";rport", name: bytes = b"") -> bytes:
    """Give a REGISTER with these texts."""
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
def test_what_silences_the_texts_is_seen(wired: Lab) -> None:
    """An ESC in the display name and a Call-ID that is not UTF-8, which no other source tells truly."""
    [seen] = ask(wired, request(b"\xff\xfe a", name=b'"\x1b" '))
    assert (str(seen.address), seen.port, seen.call_id) == ("198.18.1.1", 5099, b"\xff\xfe a")


def ask_both(lab: Lab, number: int) -> tuple[Challenge, Challenge]:
    """Ask for a challenge to another address, then for one; give both, in this order."""
    elsewhere = request(b"named%d" % number, b";rport;maddr=198.18.1.77")
    seen = {one.call_id[:5]: one for one in ask(lab, elsewhere, request(b"plain%d" % number), number=2)}
    return seen[b"named"], seen[b"plain"]


@pytest.mark.asterisk
def test_where_a_via_maddr_sends_the_challenge(wired: Lab) -> None:
    """chan_sip challenges the true sender; PJSIP whom the sender names, with a nonce that serves himself.

    PJSIP's nonce is of the source address and the second. So a challenge to an address blames nobody, and
    neither does a nonce that went to the sender as well.
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
    """A Call-ID written into a quoted string, behind whatever ends a line elsewhere, is not the one told.

    To chan_sip a bare LF ends a line of the request: there it is the request's own, as its events say too.
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
            assert own or seen.call_id.startswith((b"true", b"first")), text
