"""Netlink connection: lost, late, stale and refused answers, and many requests on one socket."""

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
from ringfence.firewall.ipset import messages
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.netlink import connection
from ringfence.netlink.connection import (
    NetlinkConnection,
    NetlinkError,
    NetlinkInterruptedError,
    NetlinkLostError,
    NetlinkTooLongError,
    Refusal,
)

REQUEST = messages.protocol()
SOAK = 200_000
NETWORK = ip_network("192.0.2.1")


def answer(sequence: int, kind: int, payload: bytes) -> bytes:
    """Build one netlink message."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, sequence, 0) + payload


def ack(sequence: int, code: int = 0) -> bytes:
    """Build an acknowledgement, or an error."""
    return answer(sequence, 2, struct.pack("=i", -code) + REQUEST)


def request(kind: int, flags: int) -> bytes:
    """Build one request without a body."""
    return struct.pack("=IHHII", 16, kind, flags, 0, 0)


MESSAGE = request(2575, 5)


def attribute(kind: int, value: bytes) -> bytes:
    """Build one attribute of an error."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


class Kernel:
    """A fake kernel socket that returns the scripted answers, or raises the scripted errors."""

    def __init__(self, *script: bytes | OSError) -> None:
        self._script = list(script)
        self.closed = False
        self.sent: list[bytes] = []

    def send(self, message: bytes) -> None:
        """Record a request."""
        self.sent.append(message)

    def recv(self, _size: int) -> bytes:
        """Return the next answer of the script."""
        answered = self._script.pop(0)
        if isinstance(answered, OSError):
            raise answered
        return answered

    def getsockname(self) -> tuple[int, int]:
        """Return a port."""
        return 1, 0

    def getsockopt(self, _level: int, _option: int) -> int:
        """Return a size that is sufficient for every batch."""
        return 1 << 30

    def close(self) -> None:
        """Record that the socket was closed."""
        self.closed = True


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Kernel]]:
    """Yield a list for the fake kernels of a test; each new socket gets the next one."""
    made: list[Kernel] = []
    sockets = iter(made)
    monkeypatch.setattr(connection, "_connect", lambda _timeout: next(sockets))
    yield made
    assert [kernel.closed for kernel in made] == [True] * len(made)


def test_answers_are_returned_without_the_ack(kernels: list[Kernel]) -> None:
    """A request returns its answers; each has its own sequence number; stale answers are skipped."""
    kernels.append(Kernel(answer(1, 0x601, b"data"), ack(1), answer(1, 0x601, b"late") + ack(1) + ack(2)))
    with NetlinkConnection() as kernel:
        assert [kernel.request(REQUEST), kernel.request(REQUEST)] == [[answer(1, 0x601, b"data")], []]

    assert [message[8:12] for message in kernels[0].sent] == [struct.pack("=I", 1), struct.pack("=I", 2)]


def test_a_refusal_has_a_code(kernels: list[Kernel]) -> None:
    """A refusal is a NetlinkError with the code and the request as the kernel repeats it."""
    kernels.append(Kernel(ack(1, errno.ENOENT), ack(2, messages.Code.HASH_FULL), ack(3, errno.EPERM)))
    with NetlinkConnection() as kernel:
        for code in (errno.ENOENT, messages.Code.HASH_FULL):
            with pytest.raises(NetlinkError) as caught:
                kernel.request(REQUEST)
            assert (caught.value.code, caught.value.request) == (code, REQUEST)
        with pytest.raises(FirewallPermissionError, match="CAP_NET_ADMIN"):
            kernel.request(REQUEST)


def test_lost_answers_are_requested_again(kernels: list[Kernel]) -> None:
    """After ENOBUFS the request is sent once more, on a new socket."""
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(ack(2))]
    with NetlinkConnection() as kernel:
        assert kernel.request(REQUEST) == []


def test_a_request_that_is_not_safe_to_repeat_is_sent_once(kernels: list[Kernel]) -> None:
    """Without ``repeat`` a lost answer is a NetlinkLostError, and the request is not sent again."""
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(ack(2))]
    with NetlinkConnection() as kernel:
        with pytest.raises(NetlinkLostError, match="the kernel's answer was lost"):
            kernel.request(REQUEST, repeat=False)
        assert kernel.request(REQUEST, repeat=False) == []
    assert [len(one.sent) for one in kernels] == [1, 1]


def test_answers_lost_twice_are_an_error(kernels: list[Kernel]) -> None:
    """A second loss is a NetlinkLostError, and the next request opens a new socket."""
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(OSError(errno.ENOBUFS, "")), Kernel(ack(3))]
    with NetlinkConnection() as kernel:
        with pytest.raises(NetlinkLostError, match="failed twice"):
            kernel.request(REQUEST)
        assert kernel.request(REQUEST) == []


def test_a_missing_answer_is_an_error(kernels: list[Kernel]) -> None:
    """No answer in time is a NetlinkLostError without a retry; so is an endless series of stale answers."""
    kernels += [Kernel(BlockingIOError()), Kernel(*[ack(99)] * 1000), Kernel(ack(3))]
    with NetlinkConnection(timeout=0.0) as kernel:
        for _ in range(2):
            with pytest.raises(NetlinkLostError, match="did not answer"):
                kernel.request(REQUEST)
        assert kernel.request(REQUEST) == []


@pytest.mark.parametrize("length", [0, 15, 17, 0xFFFFFFFF])
def test_a_wrong_length_is_an_error(kernels: list[Kernel], length: int) -> None:
    """A message whose length exceeds its datagram is a NetlinkLostError."""
    kernels.append(Kernel(struct.pack("=IHHII", length, 2, 0, 1, 0)))
    with NetlinkConnection() as kernel, pytest.raises(NetlinkLostError, match="exceeds"):
        kernel.request(REQUEST)


def test_a_missing_nfnetlink_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel has no nfnetlink socket, the error names the missing kernel option."""

    def none(*_arguments: int) -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr("socket.socket", none)

    with (
        NetlinkConnection() as kernel,
        pytest.raises(FirewallUnsupportedError, match="CONFIG_NETFILTER_NETLINK"),
    ):
        kernel.request(REQUEST)


def test_a_batch_is_answered_message_by_message(kernels: list[Kernel]) -> None:
    """Each message has its own number; a refusal has the message's index, the position and the text."""
    first, second = request(2575, 5), request(2575, 5)
    extra = attribute(1, b"too much\0") + attribute(2, struct.pack("=I", 40))
    refused = struct.pack("=IHHII", 36 + len(extra), 2, 0x300, 3, 0) + struct.pack("=i", -22) + second + extra
    kernels.append(Kernel(ack(2) + refused, ack(6), ack(7)))
    with NetlinkConnection() as kernel:
        assert kernel.transact(first, second) == [Refusal(1, 22, 40, "too much")]
        assert kernel.transact(first, second) == []
    numbers = [sent[at + 8] for sent in kernels[0].sent for at in (0, 20, 36, 52)]
    assert numbers == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_batch_that_is_refused_as_a_whole_is_an_error(kernels: list[Kernel]) -> None:
    """An error of the begin message concerns the whole batch: NetlinkError, or the missing capability."""
    kernels.append(Kernel(ack(1, errno.EOPNOTSUPP), ack(4, errno.EPERM), ack(8, errno.EPERM)))
    with NetlinkConnection() as kernel:
        with pytest.raises(NetlinkError) as caught:
            kernel.transact(MESSAGE)
        assert caught.value.code == errno.EOPNOTSUPP
        for _ in range(2):
            with pytest.raises(FirewallPermissionError, match="CAP_NET_ADMIN"):
                kernel.transact(MESSAGE)


def test_a_batch_with_lost_answers_is_not_sent_again(kernels: list[Kernel]) -> None:
    """After ENOBUFS and after a timeout a batch may have been carried out: an error, and it is sent once."""
    kernels += [Kernel(OSError(errno.ENOBUFS, "")), Kernel(BlockingIOError()), Kernel(ack(8))]
    with NetlinkConnection() as kernel:
        with pytest.raises(NetlinkLostError, match="answer to a batch was lost"):
            kernel.transact(MESSAGE)
        with pytest.raises(NetlinkLostError, match="did not answer"):
            kernel.transact(MESSAGE)
        assert kernel.transact(MESSAGE) == []
    assert [len(one.sent) for one in kernels] == [1, 1, 1]


def test_an_unsent_batch_is_sent_on_a_new_socket(kernels: list[Kernel]) -> None:
    """If sending fails, the kernel has done nothing: the batch is sent once more, and then it is an error."""

    class Unsending(Kernel):
        def send(self, message: bytes) -> None:
            raise OSError(errno.ENOBUFS, "")

    kernels += [Unsending(), Kernel(ack(2)), Unsending(), Unsending()]
    with NetlinkConnection() as kernel:
        assert kernel.transact(MESSAGE) == []
        kernel.close()
        with pytest.raises(NetlinkLostError, match="failed twice"):
            kernel.transact(MESSAGE)


class Small(Kernel):
    """A fake kernel that grants an unprivileged process a send buffer of 100 bytes."""

    def __init__(self) -> None:
        super().__init__(ack(2), ack(5))
        self.room = 64

    def getsockopt(self, _level: int, _option: int) -> int:
        """Return the size of the send buffer."""
        return self.room

    def setsockopt(self, _level: int, option: int, value: int) -> None:
        """Refuse SO_SNDBUFFORCE, and grant SO_SNDBUF up to the limit."""
        if option == 32:
            raise PermissionError(errno.EPERM, "Operation not permitted")
        self.room = 2 * min(value, 50)


def test_the_granted_send_buffer_limits_a_batch(kernels: list[Kernel]) -> None:
    """A batch is sent if the granted buffer is large enough; a larger one is an error, and is not sent."""
    kernels.append(Small())
    with NetlinkConnection() as kernel:
        assert kernel.transact(MESSAGE) == []
        with pytest.raises(NetlinkTooLongError, match=r"batches of 68 bytes .* not of 88"):
            kernel.transact(MESSAGE, MESSAGE, MESSAGE)
    assert len(kernels[0].sent) == 1


@pytest.mark.parametrize("tail", ["00000100", "03000100", "ff000100", "0400", "0800020001000000ff"])
def test_invalid_attributes_of_an_error_are_ignored(kernels: list[Kernel], tail: str) -> None:
    """Attributes of an error with wrong lengths are ignored, and the refusal is still reported."""
    more = bytes.fromhex(tail)
    refused = (
        struct.pack("=IHHII", 36 + len(more), 2, 0x300, 2, 0) + struct.pack("=i", -22) + bytes(16) + more
    )
    kernels.append(Kernel(refused))
    with NetlinkConnection() as kernel:
        [refusal] = kernel.transact(MESSAGE)
        assert (refusal.index, refusal.code, refusal.message) == (0, 22, "")


def test_a_list_is_streamed(kernels: list[Kernel]) -> None:
    """A dump yields answer by answer; a lost answer and a change during the dump are errors after them."""
    one, changed = answer(1, 0x601, b"one!"), struct.pack("=IHHII", 16, 0x601, 0x12, 2, 0)
    kernels += [
        Kernel(
            one, one + answer(1, 3, bytes(4)), changed + answer(2, 3, bytes(4)), OSError(errno.ENOBUFS, "")
        ),
        Kernel(),
    ]
    with NetlinkConnection() as kernel:
        assert list(kernel.stream(REQUEST)) == [one, one]
        stream = kernel.stream(REQUEST)
        assert next(stream) == changed
        with pytest.raises(NetlinkInterruptedError) as interrupted:
            next(stream)
        assert interrupted.value.answers == [changed]
        with pytest.raises(NetlinkLostError, match="list broke off"):
            list(kernel.stream(REQUEST))
    kernels.pop()  # unused: no request was sent


@pytest.mark.parametrize("at_the_end", [True, False])
def test_an_interrupted_list_is_requested_again(
    kernels: list[Kernel],
    at_the_end: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A mark on any message counts, also on the last; after ten attempts it is an error with the answers."""

    def listed(number: int, *, marked: bool) -> bytes:
        one = struct.pack("=IHHII", 16, 0x601, 0x10 * (marked and not at_the_end), number, 0)
        end = struct.pack("=IHHIIi", 20, 3, 0x10 * (marked and at_the_end), number, 0, 0)
        return one + end

    kernels.append(Kernel(listed(1, marked=True), *(listed(n, marked=n > 2) for n in range(2, 14))))
    with NetlinkConnection() as kernel:
        assert len(kernel.request(REQUEST)) == 1
        with pytest.raises(NetlinkInterruptedError) as interrupted:
            kernel.request(REQUEST)
    assert len(interrupted.value.answers) == 1
    assert len(kernels[0].sent) == 12


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_large_batch_is_accepted_and_a_bad_one_has_no_effect() -> None:
    """A transaction of megabytes is accepted; one with an error reports the position, and has no effect."""
    run("nft", "add table inet t; add set inet t s { type ipv4_addr; flags timeout; }")
    networks = [(ip_network((0x0A000000 + n, 32)), 60) for n in range(60_000)]
    messages = [
        nft_elements.add_elements("t", "s", networks[at : at + 1200]) for at in range(0, 60_000, 1200)
    ]
    bad = nft_elements.add_elements("t", "s", networks[:2], exclusive=True)
    with NetlinkConnection(timeout=30.0, extended=True) as kernel:
        ports = [kernel.port]
        assert kernel.transact(*messages) == []
        ports.append(kernel.port)
        assert [port is None for port in ports] == [True, False]
        [refusal] = kernel.transact(nft_elements.clear_elements("t", "s"), bad, bad)
        assert (refusal.index, refusal.code) == (2, errno.EEXIST)
        assert nft_elements.refused_index(bad, refusal.offset) == 0
        assert sum(len(got) > 40 for got in kernel.stream(nft_elements.dump_elements("t", "s"))) > 50


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_a_batch_of_many_messages_is_answered_once() -> None:
    """A batch of 2 000 messages needs no more room for answers than a batch of one: none is lost."""
    run("nft", "add table inet t; add set inet t s { type ipv4_addr; flags timeout; }")
    adds = [
        nft_elements.add_elements("t", "s", [(ip_network((0x0A000000 + n, 32)), 60)]) for n in range(2_000)
    ]
    with NetlinkConnection(timeout=30.0, extended=True) as kernel:
        assert kernel.transact(*adds) == []
        [refusal] = kernel.transact(nft_elements.add_elements("t", "no", [(NETWORK, 60)]), *adds)
        assert (refusal.index, refusal.code) == (0, errno.ENOENT)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_kernel_answers_and_refuses() -> None:
    """The real kernel answers the protocol query and refuses to list a missing set."""
    with NetlinkConnection() as kernel:
        [answered] = kernel.request(REQUEST)
        assert answered.endswith(bytes.fromhex("05000a0006000000"))
        with pytest.raises(NetlinkError) as caught:
            kernel.request(messages.list_elements("absent"))
        assert caught.value.code == errno.ENOENT


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_without_the_capability_the_kernel_refuses() -> None:
    """For a process without CAP_NET_ADMIN the error names the missing capability."""
    script = (
        "from ringfence.errors import FirewallPermissionError\n"
        "from ringfence.firewall.ipset.backend import IpsetBackend\n"
        "try: list(IpsetBackend().list())\n"
        "except FirewallPermissionError as error: print(error)\n"
    )
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert "needs CAP_NET_ADMIN" in done.stdout


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_one_socket_carries_many_requests() -> None:
    """200 000 requests on one socket are all acknowledged, and the sequence number wraps."""
    with NetlinkConnection() as kernel:
        kernel.request(messages.create("soak", 4, hashsize=1024, maxelem=1024))
        message = messages.add("soak", [(ip_network("192.0.2.1"), 600)])
        kernel._sequence = 0xFFFFFFFF - SOAK // 2
        answers = sum(len(kernel.request(message)) for _ in range(SOAK))
        [head] = kernel.request(messages.list_header("soak"))

        assert (answers, messages.parse_header(head).elements) == (0, 1)
        assert kernel._sequence == SOAK // 2
