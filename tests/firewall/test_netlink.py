"""The conversation with the kernel: what is lost, late, stale or refused, and many requests on one socket."""

import errno
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from ringfence.errors import FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall import ipset_messages as messages
from ringfence.firewall import netlink
from ringfence.firewall.netlink import Conversation, NetlinkError, NetlinkLostError

REQUEST = messages.protocol()
SOAK = 200_000


def answer(sequence: int, kind: int, payload: bytes) -> bytes:
    """Build one netlink message."""
    return struct.pack("=IHHII", 16 + len(payload), kind, 0, sequence, 0) + payload


def ack(sequence: int, code: int = 0) -> bytes:
    """Build an acknowledgement, or an error."""
    return answer(sequence, 2, struct.pack("=i", -code) + REQUEST)


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
        "try: IpsetBackend().list()\n"
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
