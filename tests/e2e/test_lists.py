"""Both lists in the kernel, tested with real packets."""

import socket
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.cable import CABLES, Cable, far_end, received
from tests.support.daemon import Guard, until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

HELLO = b"hello"


def arrives(cable: Cable, far: str, there: str) -> bool:
    """Whether a datagram from ``there`` arrives here."""
    local, remote = cable.pair(far, there)
    with closing(local), closing(remote):
        remote.sendto(HELLO, local.getsockname())
        return received(local) == HELLO


def passes(cable: Cable, far: str, there: str) -> None:
    """Check that a datagram from ``there`` arrives; on a slow machine, send another one."""
    until(lambda: arrives(cable, far, there), f"a datagram from {there}")


@pytest.mark.parametrize(
    ("backend", "which"),
    [
        ("ipset", "IPv4"),
        ("nftables", "IPv6 /64"),
        pytest.param("ipset", "IPv6 /64", marks=pytest.mark.long),
        pytest.param("nftables", "IPv4", marks=pytest.mark.long),
    ],
)
def test_the_lists_are_what_the_kernel_does(tmp_path: Path, backend: str, which: str) -> None:
    """Denied packets are dropped, also without a daemon; allowed ones pass, even if denied and banned."""
    cable = CABLES[which]
    with far_end() as far, Guard(tmp_path, firewall={"backend": backend}) as guard:
        passes(cable, far, cable.banned)

        guard.must("deny", "add", cable.network)
        assert not arrives(cable, far, cable.banned)
        passes(cable, far, cable.other)

        guard.command("ban", cable.network)
        guard.must("allow", "add", cable.banned)
        passes(cable, far, cable.banned)
        guard.must("allow", "remove", cable.banned)
        assert not arrives(cable, far, cable.banned)

        guard.kill()
        assert not arrives(cable, far, cable.banned)
        guard.start()
        assert not arrives(cable, far, cable.banned)
        guard.must("deny", "remove", cable.network)
        guard.command("unban", "--all")
        passes(cable, far, cable.banned)


@pytest.mark.parametrize("backend", ["nftables", pytest.param("ipset", marks=pytest.mark.long)])
def test_a_block_list_never_hits_this_host(tmp_path: Path, backend: str) -> None:
    """A network of a list that contains this host's own address is left out, and the others are dropped."""
    cable = CABLES["IPv4"]
    with far_end() as far, Guard(tmp_path, firewall={"backend": backend}) as guard:
        (tmp_path / "list.txt").write_text(f"198.18.0.0/15\n{cable.network}\n")
        done = guard.command("feeds", "add", "hostile", "--file", str(tmp_path / "list.txt"))
        assert (done.returncode, "leaves out: 198.18.0.0/15 (this host needs it)" in done.stderr) == (0, True)
        until(lambda: not arrives(cable, far, cable.banned), "the feed in the kernel")

        with closing(socket.socket(cable.family, socket.SOCK_DGRAM)) as looped:
            looped.bind((cable.here, 0))
            looped.settimeout(5)
            looped.sendto(HELLO, looped.getsockname())
            assert looped.recv(100) == HELLO
