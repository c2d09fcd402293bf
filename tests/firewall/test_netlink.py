"""The conversation with the kernel: what is lost, late, stale or refused, and many requests on one socket."""

import errno
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall import netlink, nft_elements, nft_messages
from ringfence.firewall.netlink import (
    Conversation,
    NetlinkError,
    NetlinkInterruptedError,
    NetlinkLostError,
    Refusal,
)

REQUEST = messages.protocol()
SOAK = 200_000


def answer(sequence: int, kind: int, payload: bytes) -> bytes:
    """Build one netlink message."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, sequence, 0) + payload


def ack(sequence: int, code: int = 0) -> bytes:
    """Build an acknowledgement, or an error."""
    return answer(sequence, 2, struct.pack("=i", -code) + REQUEST)


def request(kind: int, flags: int) -> bytes:
    """Build one request without a body."""
    return struct.pack("=IHHII", 16, kind, flags, 0, 0)


def attribute(kind: int, value: bytes) -> bytes:
    """Build one attribute of an error."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


class Kernel:
    """A kernel of pretence: it gives what it was told to give, or fails as it was told to fail."""

    def __init__(self, *script: bytes | OSError) -> None:
        self._script = list(script)
        self.closed = False
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        """Take a request."""
        self.sent.append(message)

    def recv(self, _size: int) -> bytes:
        """Give what is next in the script."""
        said = self._script.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    def getsockopt(self, _level: int, _option: int) -> int:
        """Have room for everything."""
        return 1 << 30

    def close(self) -> None:
        """Note that the socket was given back."""
        self.closed = True


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Kernel]]:
    """The kernels that the conversations of this test will meet, one a socket."""
    made: list[Kernel] = []
    sockets = iter(made)
    monkeypatch.setattr(netlink, "_connect", lambda _timeout: next(sockets))
    yield made
    assert [kernel.closed for kernel in made] == [True] * len(made)


def test_answers_come_without_the_ack(kernels: list[Kernel]) -> None:
    """A request gives its answers; each has a sequence number of its own; stale answers are passed over."""
    kernels.append(Kernel(answer(1, 0x601, b"data"), ack(1), answer(1, 0x601, b"late") + ack(1) + ack(2)))
    with Conversation() as kernel:
        assert [kernel.request(REQUEST), kernel.request(REQUEST)] == [[answer(1, 0x601, b"data")], []]

    assert [message[8:12] for message in kernels[0].sent] == [struct.pack("=I", 1), struct.pack("=I", 2)]


def test_a_refusal_has_its_code(kernels: list[Kernel]) -> None:
    """What the kernel refuses is a NetlinkError with the code and the request as the kernel repeats it."""
    kernels.append(Kernel(ack(1, errno.ENOENT), ack(2, messages.Code.HASH_FULL), ack(3, errno.EPERM)))
    with Conversation() as kernel:
        for code in (errno.ENOENT, messages.Code.HASH_FULL):
            with pytest.raises(NetlinkError) as caught:
                kernel.request(REQUEST)
            assert (caught.value.code, caught.value.request) == (code, REQUEST)
        with pytest.raises(FirewallPermissionError, match="CAP_NET_ADMIN"):
            kernel.request(REQUEST)


def test_lost_answers_are_asked_for_again(kernels: list[Kernel]) -> None:
    """After ENOBUFS the request is sent once more, on a fresh socket."""
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(ack(2))]
    with Conversation() as kernel:
        assert kernel.request(REQUEST) == []


def test_answers_lost_twice_are_an_error(kernels: list[Kernel]) -> None:
    """A second loss is a NetlinkLostError, and the next request begins anew."""
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(OSError(errno.ENOBUFS, "")), Kernel(ack(3))]
    with Conversation() as kernel:
        with pytest.raises(NetlinkLostError, match="failed twice"):
            kernel.request(REQUEST)
        assert kernel.request(REQUEST) == []


def test_silence_ends(kernels: list[Kernel]) -> None:
    """No answer in time is a NetlinkLostError, not sent again; so is an endless stream of stale answers."""
    kernels += [Kernel(BlockingIOError()), Kernel(*[ack(99)] * 1000), Kernel(ack(3))]
    with Conversation(timeout=0.0) as kernel:
        for _ in range(2):
            with pytest.raises(NetlinkLostError, match="did not answer"):
                kernel.request(REQUEST)
        assert kernel.request(REQUEST) == []


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_a_length_that_lies_is_an_error(kernels: list[Kernel], length: int) -> None:
    """A message whose length leads out of its datagram is a NetlinkLostError, whatever it claims."""
    kernels.append(Kernel(struct.pack("=IHHII", length, 2, 0, 1, 0)))
    with Conversation() as kernel, pytest.raises(NetlinkLostError, match="outside"):
        kernel.request(REQUEST)


def test_a_kernel_without_nfnetlink_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the socket cannot be had, the error says what is lacking."""

    def none(*_arguments: int) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr("socket.socket", none)

    with Conversation() as kernel, pytest.raises(FirewallUnsupportedError, match="CONFIG_NETFILTER_NETLINK"):
        kernel.request(REQUEST)


def test_a_batch_is_answered_message_by_message(kernels: list[Kernel]) -> None:
    """Each message has a number of its own; refusals are told by their place, with where and why."""
    begin, first, second, end = (
        request(kind, flags) for kind, flags in ((16, 1), (2575, 5), (2575, 5), (17, 1))
    )
    told = attribute(1, b"too much\0") + attribute(2, struct.pack("=I", 40))
    refused = struct.pack("=IHHII", 36 + len(told), 2, 0x300, 3, 0) + struct.pack("=i", -22) + second + told
    kernels.append(Kernel(ack(2) + refused, ack(6), ack(7)))
    with Conversation() as kernel:
        assert kernel.transact([begin, first, second, end]) == [Refusal(2, 22, 40, "too much")]
        assert kernel.transact([begin, first, second, end]) == []
    numbers = [sent[at + 8] for sent in kernels[0].sent for at in range(0, len(sent), 16)]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_batch_that_is_refused_as_a_whole_is_an_error(kernels: list[Kernel]) -> None:
    """What concerns the beginning concerns all: NetlinkError, or the capability by its name."""
    batch = [request(16, 1), request(2575, 5), request(17, 1)]
    kernels.append(Kernel(ack(1, errno.EOPNOTSUPP), ack(4, errno.EPERM), ack(8, errno.EPERM)))
    with Conversation() as kernel:
        with pytest.raises(NetlinkError) as caught:
            kernel.transact(batch)
        assert caught.value.code == errno.EOPNOTSUPP
        for _ in range(2):
            with pytest.raises(FirewallPermissionError, match="CAP_NET_ADMIN"):
                kernel.transact(batch)


def test_a_batch_whose_answers_are_lost_is_sent_again(kernels: list[Kernel]) -> None:
    """After ENOBUFS once more on a fresh socket; silence is an error."""
    batch = [request(16, 1), request(2575, 5), request(17, 1)]
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(ack(5), BlockingIOError())]
    with Conversation() as kernel:
        assert kernel.transact(batch) == []
        with pytest.raises(NetlinkLostError, match="did not answer"):
            kernel.transact(batch)


@pytest.mark.parametrize("tail", ["00000100", "03000100", "ff000100", "0400", "0800020001000000ff"])
def test_what_stands_behind_an_error_is_not_trusted(kernels: list[Kernel], tail: str) -> None:
    """Attributes of an error whose lengths lie are left out, and the refusal stands."""
    more = bytes.fromhex(tail)
    refused = (
        struct.pack("=IHHII", 36 + len(more), 2, 0x300, 2, 0) + struct.pack("=i", -22) + bytes(16) + more
    )
    kernels.append(Kernel(refused))
    with Conversation() as kernel:
        [refusal] = kernel.transact([request(16, 1), request(2575, 5), request(17, 1)])
        assert (refusal.place, refusal.code, refusal.said) == (1, 22, "")


def test_a_list_is_streamed(kernels: list[Kernel]) -> None:
    """A dump's answers come one after the other; a broken one and a changed one are errors behind them."""
    one, changed = answer(1, 0x601, b"one!"), struct.pack("=IHHII", 16, 0x601, 0x12, 2, 0)
    kernels += [
        Kernel(
            one, one + answer(1, 3, bytes(4)), changed + answer(2, 3, bytes(4)), OSError(errno.ENOBUFS, "")
        ),
        Kernel(),
    ]
    with Conversation() as kernel:
        assert list(kernel.stream(REQUEST)) == [one, one]
        stream = kernel.stream(REQUEST)
        assert next(stream) == changed
        with pytest.raises(NetlinkInterruptedError):
            next(stream)
        with pytest.raises(NetlinkLostError, match="broke a list off"):
            list(kernel.stream(REQUEST))
    kernels.pop()  # nothing was asked of it


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_large_batch_goes_at_once_and_a_bad_one_has_no_effect() -> None:
    """A transaction of megabytes is taken; one with an error says where, and does nothing."""
    run("nft", "add table inet t; add set inet t s { type ipv4_addr; flags timeout; }")
    networks = [(ip_network((0x0A000000 + n, 32)), 60) for n in range(60_000)]
    messages = [nft_elements.add("t", "s", networks[at : at + 1200]) for at in range(0, 60_000, 1200)]
    bad = nft_elements.add("t", "s", networks[:2], exclusive=True)
    with Conversation(timeout=30.0, extended=True) as kernel:
        ports = [kernel.port]
        assert kernel.transact(nft_messages.batch(*messages)) == []
        ports.append(kernel.port)
        assert [port is None for port in ports] == [True, False]
        [refusal] = kernel.transact(nft_messages.batch(nft_elements.clear("t", "s"), bad, bad))
        assert (refusal.place, refusal.code) == (3, errno.EEXIST)
        assert nft_elements.refused_place(bad, refusal.offset) == 0
        assert sum(len(got) > 40 for got in kernel.stream(nft_elements.dump("t", "s"))) > 50


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_kernel_answers_and_refuses() -> None:
    """The real kernel answers the protocol question and refuses a set that is not there."""
    with Conversation() as kernel:
        [said] = kernel.request(REQUEST)
        assert said.endswith(bytes.fromhex("05000a0006000000"))
        with pytest.raises(NetlinkError) as caught:
            kernel.request(messages.list_elements("absent"))
        assert caught.value.code == errno.ENOENT


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_without_the_capability_the_kernel_refuses() -> None:
    """A process without CAP_NET_ADMIN is told which capability it lacks."""
    script = (
        "from ringfence.errors import FirewallPermissionError\n"
        "from ringfence.firewall.ipset import IpsetBackend\n"
        "try: list(IpsetBackend().list())\n"
        "except FirewallPermissionError as error: print(error)\n"
    )
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "without CAP_NET_ADMIN" in done.stdout


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_one_socket_carries_many_requests() -> None:
    """200 000 requests on one socket are all acknowledged, the sequence number wraps, nothing is kept."""
    with Conversation() as kernel:
        kernel.request(messages.create("soak", 4, hashsize=1024, maxelem=1024))
        message = messages.add("soak", [(ip_network("192.0.2.1"), 600)])
        kernel._sequence = 0xFFFFFFFF - SOAK // 2
        answers = sum(len(kernel.request(message)) for _ in range(SOAK))
        [head] = kernel.request(messages.list_head("soak"))

        assert (answers, messages.parse_head(head).elements) == (0, 1)
        assert kernel._sequence == SOAK // 2
