"""The probe: it passes where bans work, and names what got through where they do not."""

import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.netns import netns as fresh
from tests.support.netns import run

from ringfence.errors import ProbeError
from ringfence.firewall.contract import PROBE_PORT, Add, Limit, LimitMode, Plan, Verdict
from ringfence.firewall.ipset import IpsetBackend
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.nftables import NftablesBackend
from ringfence.firewall.probe import Check, Direction, Verification, verify

BOTH = {4: None, 6: None}
VERIFIED4 = (Check(4, Direction.FROM, verified=True), Check(4, Direction.TO, verified=True))


@pytest.fixture
def backend(netns: None) -> Iterator[IpsetBackend]:
    """The kernel's backend, opened in a namespace of its own."""
    made = IpsetBackend()
    made.open()
    yield made
    made.close()


def add_route() -> None:
    """Give this namespace a default route for IPv6 that leads nowhere."""
    run("ip", "link", "add", "out", "type", "veth", "peer", "name", "far")
    for device in ("out", "far"):
        run("ip", "link", "set", device, "up")
    run("ip", "address", "add", "fd00:18::1/64", "dev", "out", "nodad")
    run("ip", "route", "add", "default", "via", "fd00:18::2")


@pytest.mark.kernel
def test_working_bans_are_verified(backend: IpsetBackend) -> None:
    """Both directions of IPv4 and the way in of IPv6 are verified; the way out needs a route, and says so."""
    note = "not tried: no route to 2001:db8:5246::1/128 (Network is unreachable)"

    assert verify(backend, BOTH) == Verification(
        (
            *VERIFIED4,
            Check(6, Direction.FROM, verified=True),
            Check(6, Direction.TO, verified=False, note=note),
        )
    )
    assert list(backend.list()) == []


@pytest.mark.kernel
def test_with_a_route_all_four_are_verified(backend: IpsetBackend) -> None:
    """Where a route leads to the IPv6 test address, the way out is verified too."""
    add_route()

    verification = verify(backend, BOTH)

    assert [check.verified for check in verification.checks] == [True] * 4
    assert verification.verified


@pytest.mark.kernel
def test_only_a_guarded_family_is_tried(backend: IpsetBackend) -> None:
    """A family that is not guarded is told with its reason."""
    assert verify(backend, {4: None, 6: "this host has no IPv6"}) == Verification(
        (
            *VERIFIED4,
            Check(6, Direction.FROM, verified=False, note="this host has no IPv6"),
            Check(6, Direction.TO, verified=False, note="this host has no IPv6"),
        )
    )


def test_the_memory_backend_is_not_verified() -> None:
    """A backend that drops nothing is not verified, and the result says so."""
    verification = verify(MemoryBackend(), BOTH)

    assert not verification.verified
    assert {check.note for check in verification.checks} == {"the memory backend drops nothing"}


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "iptables -t raw -F ringfence-pre",
            r"a packet from the banned 127\.82\.70\.1/32 \(IPv4\) got through",
        ),
        (
            "iptables -t raw -F ringfence-out",
            r"a packet to the banned 127\.82\.70\.1/32 \(IPv4\) got through",
        ),
        (
            "iptables -t raw -D OUTPUT -j ringfence-out",
            r"a packet to .* \(IPv4\) got through.*iptables -t raw -S",
        ),
        ("iptables -t raw -I PREROUTING -j ACCEPT", r"a packet from .* \(IPv4\) got through"),
        (
            "ip6tables -t raw -F ringfence-pre",
            r"a packet from the banned 2001:db8:5246::1/128 \(IPv6\) got through",
        ),
        (
            "ip6tables -t raw -F ringfence-out",
            r"a packet to the banned 2001:db8:5246::1/128 \(IPv6\) got through",
        ),
        ("iptables -t raw -I PREROUTING -j DROP", r"a packet from .* neither arrived nor was dropped"),
        (
            "iptables -t raw -I OUTPUT -d 127.82.70.1 -j DROP",
            r"a packet to .* neither arrived nor was dropped",
        ),
    ],
)
def test_what_gets_through_is_named(backend: IpsetBackend, damage: str, message: str) -> None:
    """The error names the direction, the family and the mend, and the test element is gone."""
    add_route()
    run(*damage.split())

    with pytest.raises(ProbeError, match=message):
        verify(backend, BOTH)
    assert list(backend.list()) == []


@pytest.mark.kernel
def test_a_host_that_drops_such_packets_itself_is_verified(backend: IpsetBackend) -> None:
    """Rules of the administrator behind ours that drop the probe do not hide that ours dropped it."""
    run("iptables", "-A", "INPUT", "-s", "127.82.70.0/24", "-j", "DROP")

    checks = verify(backend, {4: None}).checks

    assert checks == (
        Check(4, Direction.FROM, verified=True, note="other rules of this host drop such packets too"),
        Check(4, Direction.TO, verified=True),
    )


@pytest.mark.kernel
def test_without_loopback_nothing_is_verified() -> None:
    """A loopback interface that is down is an error that names it."""
    with fresh(loopback=False):
        backend = IpsetBackend()
        families = backend.open().families
        with pytest.raises(ProbeError, match="ip link set lo up"):
            verify(backend, families)
        assert list(backend.list()) == []
        backend.close()


@pytest.mark.kernel
def test_ipv6_switched_off_is_no_error(backend: IpsetBackend) -> None:
    """A host without ::1 has nothing to verify for IPv6, and says so."""
    run("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1")

    checks = verify(backend, BOTH).checks

    assert [(check.verified, check.note) for check in checks[2:]] == [
        (False, "this host has no ::1 (IPv6 is switched off)")
    ] * 2


@pytest.mark.kernel
def test_a_ban_of_the_test_address_stays(backend: IpsetBackend) -> None:
    """A test address that somebody banned is left alone: another is taken."""
    taken = ip_network("127.82.70.1")
    backend.apply([Add(taken, 600.0)])

    assert verify(backend, {4: None}).checks == VERIFIED4
    assert [element.network for element in backend.list()] == [taken]


@pytest.mark.kernel
def test_a_set_without_room_is_told() -> None:
    """Where the test element finds no room, its family cannot be tried: that is said, and stops no daemon."""
    with fresh():
        backend = IpsetBackend(Plan(maxelem=1))
        families = backend.open().families
        backend.apply([Add(ip_network("192.0.2.1"), 600.0)])
        checks = verify(backend, families).checks
        assert [(check.version, check.verified) for check in checks[:3]] == [
            (4, False),
            (4, False),
            (6, True),
        ]
        assert checks[0].note == checks[1].note
        assert checks[0].note.startswith("not tried: set ringfence4 is full")
        backend.close()


@pytest.fixture
def tables(netns: None) -> Iterator[NftablesBackend]:
    """The backend of nftables, opened in a namespace of its own."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


@pytest.mark.kernel
@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(every_port=False),
        Plan(every_port=False, verdict=Verdict.PORT_UNREACHABLE),
        Plan(verdict=Verdict.ADMIN_PROHIBITED, log=True),
        Plan(verdict=Verdict.TCP_RESET, interfaces=("out",), limit=Limit(LimitMode.ENFORCE)),
    ],
)
def test_bans_of_nftables_are_verified_whatever_the_plan(tables: NftablesBackend, plan: Plan) -> None:
    """Each plan's bans are tried in both directions of both IP versions, and work."""
    add_route()
    tables.plan = plan
    tables.open()

    assert [check.verified for check in verify(tables, BOTH).checks] == [True] * 4
    assert list(tables.list()) == []


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("flush chain inet ringfence prerouting", r"a packet from .*IPv4\) got through.*`nft list ruleset`"),
        ("flush chain inet ringfence output", r"a packet to .*IPv4\) got through.*`nft list ruleset`"),
        ("flush chain inet ringfence to6_ban", r"a packet to .*IPv6\) got through"),
        (
            "add chain inet ringfence first { type filter hook prerouting priority -400; policy drop; }",
            r"a packet from .* neither arrived nor was dropped.*`nft list ruleset`",
        ),
    ],
)
def test_what_gets_through_nftables_is_named(tables: NftablesBackend, damage: str, message: str) -> None:
    """The error names the direction, the family and where to look, and the test element is gone."""
    add_route()
    run("nft", damage)

    with pytest.raises(ProbeError, match=message):
        verify(tables, BOTH)
    assert list(tables.list()) == []


@pytest.mark.kernel
def test_bans_that_do_not_stand_on_loopback_are_not_tried(backend: IpsetBackend) -> None:
    """Where bans stand on named interfaces only, that is said, and it is no error."""
    backend.plan = Plan(interfaces=("eth7",))
    backend.open()

    checks = verify(backend, {4: None}).checks

    note = "not tried: bans stand on eth7, and not on lo"
    assert [(check.verified, check.note) for check in checks] == [(False, note)] * 2
    assert list(backend.list()) == []


@pytest.mark.kernel
def test_somebody_at_the_probes_port_is_told(tables: NftablesBackend) -> None:
    """Where the port that is needed is taken nothing is tried, and that is said."""
    tables.plan = Plan(every_port=False)
    tables.open()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", PROBE_PORT))
        checks = verify(tables, {4: None}).checks

    assert {check.note for check in checks} == {f"not tried: somebody listens at UDP port {PROBE_PORT}"}
