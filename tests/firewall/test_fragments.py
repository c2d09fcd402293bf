"""Large packets in fragments: the kernel reassembles them before our rules, or strangers' are dropped."""

import socket
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.cable import Cable, received
from tests.support.lists import write_list
from tests.support.netns import inside
from tests.support.nflog import copies
from tests.support.packets import OTHER, SIP, ban, ends, opened, plan

from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import FRAGMENTS, REQUEST_PREFIX, Backend, FirewallPlan, Requirement
from ringfence.firewall.ipset import installation as ipset_installation
from ringfence.firewall.ipset import iptables
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables import installation

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

GROUP = 7
LARGE, SMALL = b"REGISTER " + b"x" * 3_000, b"REGISTER x"
_TCP = b"\x30\x39" + SIP.to_bytes(2, "big") + b"\0" * 3_000
_TRACKED = Path("/proc/thread-self/net/nf_conntrack")


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the kernel lack the extensions that reassemble packets."""
    monkeypatch.setattr(ipset_installation, "_REASSEMBLING_EXTENSIONS", ("gone",))
    monkeypatch.setattr(installation, "REASSEMBLING", "gone")


def arrives(cable: Cable, far: str, payload: bytes, port: int = SIP) -> bool:
    """Send a datagram from the far end to a port here, and return whether it arrives."""
    with ends(cable, far, port) as (here, there):
        there.sendto(payload, here.getsockname())
        return received(here) == payload


def dropped(backend: Backend) -> int:
    """Return how many fragments were dropped."""
    return sum(one.packets for one in backend.counters().rules if one.name == FRAGMENTS)


def requirements(backend: Backend) -> list[Requirement]:
    """Return the backend's requirements for fragments."""
    return [one for one in backend.requirements() if one.name.startswith("fragments of packets")]


def test_a_large_request_is_copied_whole(backend: Backend, far: str, cable: Cable) -> None:
    """A request in three fragments is one packet for our rules, and no connection is tracked for it."""
    plan(backend, FirewallPlan(log_group=GROUP))
    with copies(GROUP) as until:
        assert arrives(cable, far, LARGE)
        assert arrives(cable, far, SMALL)
        assert until(SMALL) == [(REQUEST_PREFIX, LARGE)]

    assert dropped(backend) == 0
    assert _TRACKED.read_text("ascii") == ""
    told = {(one.problem, one.note) for one in requirements(backend)}
    assert told == {(None, "reassembled: large requests are read whole")}
    assert not backend.open().repaired


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("interfaces", [(), ("near0",)])
def test_fragments_of_strangers_are_dropped(
    backend: Backend, far: str, cable: Cable, interfaces: tuple[str, ...]
) -> None:
    """Where the kernel does not reassemble, a stranger's request must fit into a packet; `check` shows it."""
    plan(backend, FirewallPlan(log_group=GROUP, interfaces=interfaces))

    assert not arrives(cable, far, LARGE)
    assert dropped(backend) == 1
    assert arrives(cable, far, SMALL)
    assert arrives(cable, far, LARGE, OTHER)
    with inside(far), socket.socket(cable.family, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        raw.sendto(_TCP, (cable.here, 0))
    assert dropped(backend) == 2
    [problem, *others] = [one.problem for one in requirements(backend) if one.optional]
    assert problem is not None
    assert problem.startswith("dropped: this kernel does not reassemble them first, and those of strangers")
    assert others in ([], [problem])
    assert not backend.open().repaired


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("which", [network_lists.ALLOW, network_lists.FRIENDS, network_lists.UNSHIELDED])
def test_friends_may_send_large_requests(
    backend: Backend, far: str, cable: Cable, which: NetworkList
) -> None:
    """Fragments of friends and of allowed networks pass on every kernel."""
    plan(backend, FirewallPlan())
    write_list(backend, which, [ip_network(cable.banned)])

    assert arrives(cable, far, LARGE)
    assert dropped(backend) == 0


def test_without_any_support_bans_still_work(
    backend: Backend, far: str, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that can neither reassemble nor drop fragments passes them; `check` shows it."""
    monkeypatch.setattr(ipset_installation, "_REASSEMBLING_EXTENSIONS", ("gone",))
    monkeypatch.setattr(ipset_installation, "_FRAGMENT_EXTENSIONS", dict.fromkeys((4, 6), ("gone",)))
    monkeypatch.setattr(installation, "REASSEMBLING", "gone")
    monkeypatch.setattr(installation, "DROPPING", "gone")
    plan(backend, FirewallPlan())

    assert arrives(cable, far, LARGE)
    assert {str(one.problem).partition(":")[0] for one in requirements(backend)} == {"passed"}
    ban(backend, cable)
    assert not arrives(cable, far, LARGE)


def test_refused_rules_for_fragments_leave_the_bans(
    far: str, cable: Cable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If iptables refuses the rules although the kernel has the extension, the others stand without them."""
    real = iptables.restore

    def refusing(tools: iptables.Tools, text: str) -> None:
        if "socket" in text:
            raise FirewallError("no chain/target/match by that name")
        real(tools, text)

    monkeypatch.setattr(iptables, "restore", refusing)
    with opened("nft") as made:
        ban(made, cable)
        assert not arrives(cable, far, SMALL)
