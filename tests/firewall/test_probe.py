"""The probe: it verifies working bans, and names the direction in which a packet passes."""

import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest
from tests.support.flavours import FLAVOURS
from tests.support.netns import netns as fresh
from tests.support.netns import run
from tests.support.packets import opened

from ringfence.errors import ProbeError
from ringfence.features.limiter.stage import Limit
from ringfence.firewall.contract import PROBE_PORT, Add, BanAction, FirewallPlan
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.probe import Check, Direction, Verification, verify

BOTH = {4: None, 6: None}
VERIFIED4 = (Check(4, Direction.FROM, verified=True), Check(4, Direction.TO, verified=True))


@pytest.fixture
def backend(netns: None) -> Iterator[IpsetBackend]:
    """Yield the ipset backend, opened in its own network namespace."""
    made = IpsetBackend()
    made.open()
    yield made
    made.close()


def add_route() -> None:
    """Add an IPv6 default route that leads nowhere."""
    run("ip", "link", "add", "out", "type", "veth", "peer", "name", "far")
    for device in ("out", "far"):
        run("ip", "link", "set", device, "up")
    run("ip", "address", "add", "fd00:18::1/64", "dev", "out", "nodad")
    run("ip", "route", "add", "default", "via", "fd00:18::2")


@pytest.mark.kernel
def test_working_bans_are_verified(backend: IpsetBackend) -> None:
    """IPv4 is verified both ways, IPv6 on the way in; the way out of IPv6 needs a route."""
    note = "not tried: no route to 2001:db8:5246::1/128 (Network is unreachable)"

    assert verify(backend, BOTH) == Verification(
        (
            *VERIFIED4,
            Check(6, Direction.FROM, verified=True),
            Check(6, Direction.TO, verified=False, note=note, possible=False),
        )
    )
    assert list(backend.list()) == []


@pytest.mark.kernel
@pytest.mark.parametrize("name", [*FLAVOURS, "nftables"])
@pytest.mark.parametrize("every_port", [True, False])
def test_no_rule_counts_the_packets_of_the_probe(netns: None, name: str, *, every_port: bool) -> None:
    """An administrator who sees a number of dropped packets has a banned sender."""
    add_route()
    with opened(name) as backend:
        backend.plan = FirewallPlan(every_port=every_port)
        backend.open()
        assert verify(backend, BOTH).verified
        counted = backend.counters().rules
    assert {rule.name for rule in counted} >= {"from banned addresses", "to banned addresses"}
    assert {(rule.packets, rule.bytes) for rule in counted} == {(0, 0)}


@pytest.mark.kernel
def test_with_a_route_all_four_are_verified(backend: IpsetBackend) -> None:
    """If a route leads to the IPv6 test address, the way out is verified too."""
    add_route()

    verification = verify(backend, BOTH)

    assert [check.verified for check in verification.checks] == [True] * 4
    assert verification.verified


@pytest.mark.kernel
def test_only_a_guarded_family_is_tried(backend: IpsetBackend) -> None:
    """A family that is not guarded is reported with its reason."""
    assert verify(backend, {4: None, 6: "this host has no IPv6"}) == Verification(
        (
            *VERIFIED4,
            Check(6, Direction.FROM, verified=False, note="this host has no IPv6", possible=False),
            Check(6, Direction.TO, verified=False, note="this host has no IPv6", possible=False),
        )
    )


def test_the_memory_backend_is_not_verified() -> None:
    """A backend that drops nothing is not verified, and the note states why."""
    verification = verify(MemoryBackend(), BOTH)

    assert not verification.verified
    assert verification.untried == []
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
    ],
)
def test_a_passing_packet_is_reported(backend: IpsetBackend, damage: str, message: str) -> None:
    """The error names the direction, the family and the fix, and the test element is removed."""
    add_route()
    run(*damage.split())

    with pytest.raises(ProbeError, match=message):
        verify(backend, BOTH)
    assert list(backend.list()) == []


@pytest.mark.kernel
def test_a_host_that_drops_such_packets_itself_is_verified(backend: IpsetBackend) -> None:
    """Administrator's rules behind ours that drop the probe do not prevent its verification."""
    run("iptables", "-A", "INPUT", "-s", "127.82.70.0/24", "-j", "DROP")

    checks = verify(backend, {4: None}).checks

    assert checks == (
        Check(4, Direction.FROM, verified=True, note="other rules of this host drop such packets too"),
        Check(4, Direction.TO, verified=True),
    )


@pytest.mark.kernel
def test_without_loopback_nothing_is_tried() -> None:
    """If the loopback interface is down, nothing is tried; the note names the fix, and nothing is raised."""
    with fresh(loopback=False):
        backend = IpsetBackend()
        families = backend.open().families
        verification = verify(backend, families)
        assert not verification.verified
        assert verification.checks[0].note.startswith("not tried: ")
        assert verification.checks[0].note.endswith("fix: `ip link set lo up`")
        assert list(backend.list()) == []
        backend.close()


@pytest.mark.kernel
def test_disabled_ipv6_is_not_an_error(backend: IpsetBackend) -> None:
    """A host without ::1 has nothing to verify for IPv6, and the note states so."""
    run("sysctl", "-q", "net.ipv6.conf.all.disable_ipv6=1")

    checks = verify(backend, BOTH).checks

    assert [(check.verified, check.note) for check in checks[2:]] == [
        (False, "this host has no ::1 (IPv6 is switched off)")
    ] * 2


@pytest.mark.kernel
def test_a_banned_test_address_is_not_used(backend: IpsetBackend) -> None:
    """A test address that is banned already is not used: another one is chosen."""
    taken = ip_network("127.82.70.1")
    backend.apply([Add(taken, 600)])

    assert verify(backend, {4: None}).checks == VERIFIED4
    assert [element.network for element in backend.list()] == [taken]


@pytest.mark.kernel
def test_a_full_set_prevents_the_probe() -> None:
    """If the set is full, its family is not tried; the note states it, and nothing is raised."""
    with fresh():
        backend = IpsetBackend(FirewallPlan(maxelem=1))
        families = backend.open().families
        backend.apply([Add(ip_network("192.0.2.1"), 600)])
        checks = verify(backend, families).checks
        assert [(check.version, check.verified) for check in checks[:3]] == [
            (4, False),
            (4, False),
            (6, True),
        ]
        assert checks[0].note == checks[1].note
        assert checks[0].note.startswith("not tried: the test ban was refused: set ringfence4 is full")
        backend.close()


@pytest.fixture
def tables(netns: None) -> Iterator[NftablesBackend]:
    """Yield the nftables backend, opened in its own network namespace."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


@pytest.mark.kernel
@pytest.mark.parametrize(
    "plan",
    [
        FirewallPlan(),
        FirewallPlan(every_port=False),
        FirewallPlan(every_port=False, action=BanAction.PORT_UNREACHABLE),
        FirewallPlan(action=BanAction.ADMIN_PROHIBITED, log=True),
        FirewallPlan(action=BanAction.TCP_RESET, interfaces=("out",), added=(Limit(LimitMode.ENFORCE),)),
    ],
)
def test_bans_of_nftables_are_verified_for_each_plan(tables: NftablesBackend, plan: FirewallPlan) -> None:
    """The bans of each plan are verified in both directions of both IP versions."""
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
    ],
)
def test_a_packet_passing_nftables_is_reported(tables: NftablesBackend, damage: str, message: str) -> None:
    """The error names the direction, the family and the command that shows the rules."""
    add_route()
    run("nft", damage)

    with pytest.raises(ProbeError, match=message):
        verify(tables, BOTH)
    assert list(tables.list()) == []


@pytest.mark.kernel
def test_bans_without_the_loopback_interface_are_not_tried(backend: IpsetBackend) -> None:
    """If bans apply to named interfaces only, nothing is tried; the note states it, without an error."""
    backend.plan = FirewallPlan(interfaces=("eth7",))
    backend.open()

    checks = verify(backend, {4: None}).checks

    note = "not tried: bans apply to eth7, not to lo"
    assert [(check.verified, check.note) for check in checks] == [(False, note)] * 2
    assert list(backend.list()) == []


@pytest.mark.kernel
def test_a_program_at_the_probes_port_is_named(tables: NftablesBackend) -> None:
    """If another program uses the port that the probe needs, nothing is tried, and the note names it."""
    tables.plan = FirewallPlan(every_port=False)
    tables.open()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", PROBE_PORT))
        checks = verify(tables, {4: None}).checks

    assert {check.note for check in checks} == {f"not tried: another program uses UDP port {PROBE_PORT}"}


DROPPED_FIRST = "not tried: another rule drops it first"
BOGONS4 = "127.82.0.0/16"
BOGONS6 = "2001:db8::/32"
# The rules of a bogon filter that stands before ours, and the directions whose test it prevents.
FOREIGN = {
    "sources": (
        [
            "add table inet bogons",
            "add chain inet bogons in {{ type filter hook prerouting priority {priority}; }}",
            f"add rule inet bogons in ip saddr {BOGONS4} drop",
            f"add rule inet bogons in ip6 saddr {BOGONS6} drop",
        ],
        {(4, Direction.FROM), (6, Direction.FROM)},
    ),
    "targets": (
        [
            "add table inet bogons",
            "add chain inet bogons out {{ type filter hook output priority {priority}; }}",
            f"add rule inet bogons out ip daddr {BOGONS4} drop",
            f"add rule inet bogons out ip6 daddr {BOGONS6} drop",
        ],
        {(4, Direction.TO), (6, Direction.TO)},
    ),
}


@pytest.fixture(params=[IpsetBackend, NftablesBackend], ids=["ipset", "nftables"])
def each_backend(
    request: pytest.FixtureRequest, netns: None
) -> Iterator[Callable[[], IpsetBackend | NftablesBackend]]:
    """Yield a function that opens each kernel backend, in a new namespace with an IPv6 route."""
    add_route()
    made: list[IpsetBackend | NftablesBackend] = []

    def opened() -> IpsetBackend | NftablesBackend:
        made.append(request.param())
        made[0].open()
        return made[0]

    yield opened
    for backend in made:
        backend.close()


def directions_of(verification: Verification) -> set[tuple[int, Direction]]:
    """Return the directions that another rule prevented; every other one must be verified."""
    for check in verification.untried:
        assert check.note.startswith(DROPPED_FIRST)
    return {(check.version, check.direction) for check in verification.untried}


@pytest.mark.kernel
@pytest.mark.parametrize("filtered", FOREIGN)
@pytest.mark.parametrize("first", [True, False], ids=["loaded before", "loaded after"])
def test_a_foreign_filter_before_ours_prevents_the_probe(
    each_backend: Callable[[], IpsetBackend | NftablesBackend], filtered: str, *, first: bool
) -> None:
    """A bogon filter at priority -310 prevents the test of its direction, and raises nothing."""
    lines, prevented = FOREIGN[filtered]
    text = "\n".join(lines).format(priority=-310)
    backend = None if first else each_backend()
    run("nft", "-f", "-", text=text)
    backend = backend or each_backend()

    assert directions_of(verify(backend, BOTH)) == prevented
    assert list(backend.list()) == []


@pytest.mark.kernel
@pytest.mark.parametrize("filtered", FOREIGN)
def test_a_foreign_filter_at_our_priority_stops_nothing(
    each_backend: Callable[[], IpsetBackend | NftablesBackend], filtered: str
) -> None:
    """At priority raw the filter that is loaded last comes first; its direction is not tried."""
    backend = each_backend()
    lines, prevented = FOREIGN[filtered]
    run("nft", "-f", "-", text="\n".join(lines).format(priority="raw"))

    assert directions_of(verify(backend, BOTH)) == prevented
    assert list(backend.list()) == []


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("rule", "prevented"),
    [
        (f"iptables -t raw -I PREROUTING -s {BOGONS4} -j DROP", {(4, Direction.FROM)}),
        (f"iptables -t raw -I OUTPUT -d {BOGONS4} -j DROP", {(4, Direction.TO)}),
        (f"ip6tables -t raw -I PREROUTING -s {BOGONS6} -j DROP", {(6, Direction.FROM)}),
        (f"ip6tables -t raw -I OUTPUT -d {BOGONS6} -j DROP", {(6, Direction.TO)}),
        ("iptables -t raw -I PREROUTING -j DROP", {(4, Direction.FROM)}),
        # No program reads this queue, so the kernel drops the packet while its sender sees no error.
        (f"iptables -t raw -I OUTPUT -d {BOGONS4} -j NFQUEUE --queue-num 4711", {(4, Direction.TO)}),
    ],
)
def test_a_foreign_rule_of_iptables_prevents_the_probe(
    backend: IpsetBackend, rule: str, prevented: set[tuple[int, Direction]]
) -> None:
    """A rule in table raw before our jump prevents the test of its direction, and raises nothing."""
    add_route()
    run(*rule.split())

    assert directions_of(verify(backend, BOTH)) == prevented
    assert list(backend.list()) == []


@pytest.mark.kernel
@pytest.mark.parametrize(
    "rule",
    [
        "sysctl -q net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.lo.rp_filter=1",
        "iptables -t raw -I PREROUTING -m rpfilter --invert -j DROP",
        "ip6tables -t raw -I PREROUTING -m rpfilter --invert -j DROP",
        (
            "nft add table inet rp; add chain inet rp pre { type filter hook prerouting priority -310; }; "
            "add rule inet rp pre fib saddr . iif oif missing drop"
        ),
    ],
    ids=["sysctl", "iptables", "ip6tables", "nft fib"],
)
def test_reverse_path_filters_do_not_disturb_the_probe(
    each_backend: Callable[[], IpsetBackend | NftablesBackend], rule: str
) -> None:
    """A reverse path filter accepts packets of the loopback interface: all four are verified."""
    backend = each_backend()
    program, _, rest = rule.partition(" ")
    run(program, *([rest] if program == "nft" else rest.split()))

    assert directions_of(verify(backend, BOTH)) == set()


@pytest.mark.kernel
@pytest.mark.parametrize("kind", ["blackhole", "prohibit"])
def test_a_bogon_route_prevents_the_way_out(tables: NftablesBackend, kind: str) -> None:
    """If a route discards packets to documentation addresses, the way out is not tried."""
    add_route()
    run("ip", "-6", "route", "add", kind, BOGONS6)

    (untried,) = verify(tables, BOTH).untried

    assert (untried.version, untried.direction) == (6, Direction.TO)
    assert untried.note.startswith("not tried: no route to ")


@pytest.mark.kernel
def test_loopback_without_spare_addresses_prevents_the_probe(tables: NftablesBackend) -> None:
    """If lo has only the address 127.0.0.1, IPv4 is not tried; nothing is raised."""
    run("ip", "address", "delete", "127.0.0.1/8", "dev", "lo")
    run("ip", "address", "add", "127.0.0.1/32", "dev", "lo")

    checks = verify(tables, {4: None}).checks

    assert [check.verified for check in checks] == [False, False]
    assert {check.note.partition(";")[0] for check in checks} == {
        "not tried: Cannot assign requested address"
    }
