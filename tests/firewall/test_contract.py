"""The contract of all backends, tested over each; kernel backends run in their own network namespace."""

import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from ipaddress import ip_network

import pytest
from tests.support.flavours import finder
from tests.support.lists import write_list
from tests.support.netns import netns

from ringfence.errors import FirewallError, SetFullError
from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.features.ration.stage import AskingRation
from ringfence.firewall import BACKENDS, make_backend, network_lists
from ringfence.firewall.contract import (
    MAX_TIMEOUT,
    Add,
    Backend,
    BanAction,
    Change,
    Counters,
    FirewallPlan,
    Health,
    Opened,
    Outcome,
    Remove,
)
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.ports import Ports
from ringfence.netlink.connection import NetlinkConnection
from ringfence.values.ban import Scope
from ringfence.values.network import Network, contains

MAXELEM = 64
PLAN = FirewallPlan(maxelem=MAXELEM)
restored = pytest.mark.usefixtures("_restored")


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        pytest.param("ipset iptables-nft", marks=pytest.mark.kernel),
        pytest.param("ipset iptables-legacy", marks=[pytest.mark.kernel, pytest.mark.long]),
        pytest.param("nftables", marks=pytest.mark.kernel),
    ],
)
def shared(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Yield each backend in turn, opened; kernel backends in their own network namespace."""
    name, _, flavour = request.param.partition(" iptables-")
    made = IpsetBackend(PLAN, find_tools=finder(flavour)) if flavour else make_backend(name, PLAN)
    with netns() if made.enforces else nullcontext():
        made.open()
        yield made
        made.close()


@pytest.fixture
def backend(shared: Backend) -> Iterator[Backend]:
    """Yield each backend in turn, opened and without bans."""
    if not shared.enforces:
        shared = make_backend(shared.name, PLAN)
        shared.open()
    yield shared
    shared.apply([Remove(element.network, element.scope) for element in shared.list()])


@pytest.fixture
def _restored(backend: Backend) -> Iterator[None]:
    """Make rules and sets again after a test that changes more than bans."""
    yield
    backend.flush()
    backend.plan = PLAN
    backend.open()
    backend.health()  # reports what another backend changed


def networks(backend: Backend) -> set[Network]:
    """Return the banned networks."""
    return {element.network for element in backend.list()}


def nets(*texts: str) -> set[Network]:
    """Parse networks."""
    return {ip_network(text) for text in texts}


def test_every_name_makes_a_backend() -> None:
    """Each name in BACKENDS makes the backend of that name; test_choice.py tests ``auto``."""
    assert list(BACKENDS) == ["auto", "ipset", "nftables", "memory"]
    for name in set(BACKENDS) - {"auto"}:
        backend = make_backend(name)
        assert backend.name == name
        backend.close()


def test_bans_are_confirmed_and_listed(backend: Backend) -> None:
    """Addresses and prefixes of both families are confirmed with their timeouts, and listed."""
    changes = [
        Add(ip_network("192.0.2.1"), 600),
        Add(ip_network("2001:db8:1::/64"), 60),
        Add(ip_network("198.51.100.0/24"), 3600),
        Add(ip_network("2001:db8::1"), 5),
    ]

    outcomes = backend.apply(changes)

    assert outcomes == [
        Outcome(change, timeout) for change, timeout in zip(changes, (600, 60, 3600, 5), strict=True)
    ]
    listed = {element.network: element for element in backend.list()}
    assert set(listed) == {change.network for change in changes}
    for change, outcome in zip(changes, outcomes, strict=True):
        assert 0 < listed[change.network].timeout <= outcome.timeout
        assert (listed[change.network].packets, listed[change.network].bytes) == (0, 0)


def test_an_empty_batch_has_no_outcomes(backend: Backend) -> None:
    """An empty batch has no outcomes."""
    assert backend.apply([]) == []


def test_adding_again_sets_a_new_timeout(backend: Backend) -> None:
    """A second Add of a network is confirmed, and sets a longer or a shorter timeout."""
    network = ip_network("192.0.2.1")
    backend.apply([Add(network, 600)])
    for timeout in (900, 30):
        assert backend.apply([Add(network, timeout)]) == [Outcome(Add(network, timeout), timeout)]
        [element] = backend.list()
        assert timeout - 2 <= element.timeout <= timeout


def test_removing_is_repeatable(backend: Backend) -> None:
    """Remove is confirmed whether or not the network is banned, and affects no other."""
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("192.0.2.2"), 60)])
    change = Remove(ip_network("192.0.2.1"))

    assert [backend.apply([change]), backend.apply([change])] == [[Outcome(change)]] * 2
    assert networks(backend) == nets("192.0.2.2")


def test_changes_are_carried_out_in_order(backend: Backend) -> None:
    """The last change of a network in a batch decides."""
    first, second = ip_network("192.0.2.1"), ip_network("2001:db8::/64")
    changes: list[Change] = [
        Add(first, 60),
        Remove(first),
        Remove(second),
        Add(second, 60),
        Add(first, 30),
        Remove(first),
    ]

    outcomes = backend.apply(changes)

    assert [outcome.change for outcome in outcomes] == changes
    assert [outcome.error for outcome in outcomes] == [None] * len(changes)
    assert networks(backend) == {second}


def test_a_prefix_and_what_is_in_it_are_two_bans(backend: Backend) -> None:
    """An address within a banned prefix is a ban of its own: removing one leaves the other."""
    backend.apply([Add(ip_network(text), 60) for text in ("192.0.0.0/16", "192.0.2.0/24", "192.0.2.1")])
    backend.apply([Remove(ip_network("192.0.2.0/24"))])

    assert networks(backend) == nets("192.0.0.0/16", "192.0.2.1")


def test_the_longest_timeout_is_accepted(backend: Backend) -> None:
    """A ban gets the longest timeout of the kernel in full."""
    change = Add(ip_network("192.0.2.1"), MAX_TIMEOUT)

    assert backend.apply([change]) == [Outcome(change, MAX_TIMEOUT)]
    [element] = backend.list()
    assert MAX_TIMEOUT - 3 <= element.timeout <= MAX_TIMEOUT


def test_a_ban_ends_in_the_kernel(backend: Backend) -> None:
    """The kernel removes a ban when its timeout is over."""
    assert backend.apply([Add(ip_network("192.0.2.1"), 1)])[0].error is None
    time.sleep(2.1)
    assert list(backend.list()) == []


def test_a_refused_change_affects_no_other(backend: Backend) -> None:
    """A /0 alone is refused, at any position; the changes before and after it are carried out."""
    texts = [
        "0.0.0.0/0",
        "192.0.2.1",
        "192.0.2.2",
        "0.0.0.0/0",
        "192.0.2.3",
        "::/0",
        "2001:db8::/64",
        "0.0.0.0/0",
    ]
    outcomes = backend.apply([Add(ip_network(text), 60) for text in texts])

    assert [isinstance(outcome.error, FirewallError) for outcome in outcomes] == [
        text.endswith("/0") for text in texts
    ]
    assert networks(backend) == nets("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::/64")


@restored
def test_a_full_set_is_reported_by_element(backend: Backend) -> None:
    """A new network beyond maxelem is a SetFullError; a known one is renewed; the other set has room.

    The sets are new: ipset would use the slots that earlier tests' bans left, beyond maxelem.
    """
    backend.flush()
    backend.open()
    many = [Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(MAXELEM + 20)]
    known = Add(many[0].network, 900)
    other = Add(ip_network("2001:db8::/64"), 60)

    outcomes = backend.apply([*many, known, other])

    full = [isinstance(outcome.error, SetFullError) for outcome in outcomes]
    assert full == [False] * MAXELEM + [True] * 20 + [False, False]
    assert networks(backend) == {change.network for change in (*many[:MAXELEM], other)}


def test_opening_again_loses_nothing(backend: Backend) -> None:
    """A second open keeps the bans and counts them."""
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("2001:db8::/64"), 60)])

    assert backend.open() == Opened(families={4: None, 6: None}, adopted=2)
    assert networks(backend) == nets("192.0.2.1", "2001:db8::/64")


@restored
def test_flush_and_close_are_repeatable(backend: Backend) -> None:
    """After flush nothing is listed. Flush and close may be repeated, and open works again."""
    backend.apply([Add(ip_network("192.0.2.1"), 60)])
    for verb in (backend.flush, backend.flush, backend.close, backend.close):
        verb()
        assert list(backend.list()) == []

    assert backend.open() == Opened(families={4: None, 6: None}, adopted=0)
    assert backend.apply([Remove(ip_network("192.0.2.1"))]) == [Outcome(Remove(ip_network("192.0.2.1")))]


def test_two_scopes_are_two_bans(backend: Backend) -> None:
    """A network may be banned in both scopes: each ban has its own time and room, and is removed alone."""
    network = ip_network("192.0.2.1")
    backend.apply([Add(network, 600), Add(network, 60, Scope.SIP_UDP)])

    found = {element.scope: element for element in backend.list()}
    assert {element.network for element in found.values()} == {network}
    assert found[Scope.FULL].timeout > 60 >= found[Scope.SIP_UDP].timeout
    assert backend.open().adopted == 2
    backend.apply([Remove(network)])
    assert [element.scope for element in backend.list()] == [Scope.SIP_UDP]
    backend.apply([Remove(network, Scope.SIP_UDP)])
    many = [ip_network((0x0A000000 + n, 32)) for n in range(MAXELEM)]
    bans = [Add(one, 60, scope) for scope in Scope for one in many]
    assert {outcome.error for outcome in backend.apply(bans)} == {None}


def test_one_ban_is_found(backend: Backend) -> None:
    """A ban is found by its network and scope, not by a wider or narrower network, and not once removed."""
    banned = [
        Add(ip_network(text), 600, scope)
        for text in ("192.0.2.0/24", "192.0.2.7", "2001:db8:1::/64", "2001:db8::1")
        for scope in Scope
    ]
    many = [Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(50)]
    backend.apply([*banned, *many])

    for change in banned:
        found = backend.find(change.network, change.scope)
        assert found is not None
        assert (found.network, found.scope, found.packets) == (change.network, change.scope, 0)
        assert 590 < found.timeout <= 600
    assert backend.find(many[0].network) is not None
    for text in ("192.0.2.8", "192.0.2.0/25", "192.0.0.0/16", "2001:db8:1::1", "2001:db8::/63", "::/1"):
        assert backend.find(ip_network(text)) is None
    assert backend.find(many[0].network, Scope.SIP_UDP) is None
    backend.apply([Remove(banned[0].network)])
    assert backend.find(banned[0].network) is None
    assert backend.find(banned[1].network, Scope.SIP_UDP) is not None


def test_the_bans_that_cover_a_network_are_found(backend: Backend) -> None:
    """The bans of a network and of networks around it are found, in each scope; no other is."""
    texts = ("192.0.0.0/16", "192.0.2.0/24", "192.0.2.7", "2001:db8::/32", "2001:db8:1::/64", "2001:db8:1::7")
    bans = [(ip_network(text), scope) for text in texts for scope in (Scope.FULL, Scope.SIP_TCP)]
    many = [Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(50)]
    backend.apply([*(Add(network, 600, scope) for network, scope in bans), *many])
    others = ("192.0.2.8", "192.0.2.0/25", "198.51.100.1", "2001:db8:1::8", "2001:db8:1::/80", "::/1")

    for network in map(ip_network, (*texts, *others)):
        found = [*backend.covering(network)]
        wanted = {one for one in bans if contains(one[0], network)}
        assert len(found) == len(wanted)
        assert {(one.network, one.scope) for one in found} == wanted
        assert all(590 < one.timeout <= 600 for one in found)


def test_an_address_without_a_ban_costs_no_list(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """That no ban covers an address is found without a list of the bans."""
    backend.apply([Add(ip_network(text), 600) for text in ("192.0.2.7", "2001:db8:1::/64")])
    with monkeypatch.context() as patch:
        patch.setattr(NetlinkConnection, "stream", lambda *_: pytest.fail("the bans are listed"))
        for text in ("192.0.2.8", "2001:db8::1"):
            assert [*backend.covering(ip_network(text))] == []


@restored
@pytest.mark.parametrize("which", network_lists.every(), ids=str)
def test_a_list_may_be_replaced_again_and_again(backend: Backend, which: NetworkList) -> None:
    """A list may be replaced by overlapping, no or many networks; bans stay, and health reports nothing."""
    backend.apply([Add(ip_network("192.0.2.1"), 60)])
    many = [ip_network((0x0A000000 + (n << 4), 28)) for n in range(10_000)]
    for contents in (
        [ip_network(text) for text in ("192.0.2.0/24", "192.0.2.1", "192.0.0.0/16", "2001:db8::/32")],
        [],
        [*many, *many, ip_network("2001:db8::1")],
        [ip_network("0.0.0.0/0"), ip_network("::/0")],
        many[:1],
    ):
        write_list(backend, which, contents)
        assert backend.health() == Health(elements=1)
    assert networks(backend) == nets("192.0.2.1")


@restored
def test_our_own_changes_are_not_damage(backend: Backend) -> None:
    """Our own bans, unbans, lists and openings are neither differing rules, nor damage or foreign changes."""
    network = ip_network("192.0.2.1")
    for step in (
        lambda: backend.apply([Add(network, 600), Add(ip_network("2001:db8::/64"), 4)]),
        lambda: write_list(backend, network_lists.ALLOW, [network]),
        backend.open,
        lambda: backend.apply([Remove(network)]),
        lambda: time.sleep(5.1),
    ):
        step()
        assert not backend.rules_differ()
        assert backend.health() == Health(elements=len(list(backend.list())))
    assert list(backend.list()) == []


def successor(backend: Backend) -> Backend:
    """Return the backend after a restart, or the same one if nothing outlives it."""
    if isinstance(backend, IpsetBackend):
        return IpsetBackend(backend.plan, find_tools=backend._find_tools)
    return make_backend(backend.name, backend.plan) if backend.enforces else backend


@restored
def test_bans_in_the_kernel_are_adopted_after_a_restart(backend: Backend) -> None:
    """A second backend lists, finds and removes the bans of a first, for every kind of network."""
    texts = (
        "192.0.2.1",
        "198.51.100.0/24",
        "2001:db8::1",
        "2001:db8:1::/64",
        "2001:db8:2::/96",
        "2001:db8:3::/48",
    )
    bans = {(ip_network(text), scope) for text in texts for scope in Scope}
    backend.apply([Add(network, 600, scope) for network, scope in bans])
    second = successor(backend)

    assert second.open().adopted == len(bans)
    assert {(element.network, element.scope) for element in second.list()} == bans
    assert {(found.network, found.scope) for ban in bans if (found := second.find(*ban)) is not None} == bans
    assert {outcome.error for outcome in second.apply([Remove(*ban) for ban in bans])} == {None}
    assert list(second.list()) == []
    second.close()


@restored
def test_a_command_without_a_daemon_changes_bans_and_no_rule(backend: Backend) -> None:
    """Another process with another plan removes and adds bans, and leaves the rules as they are."""
    backend.plan = PLANS[0]
    backend.open()
    backend.apply([Add(ip_network("192.0.2.0/24"), 600), Add(ip_network("2001:db8::/64"), 600)])
    command = successor(backend)
    if command is not backend:
        command.plan = PLANS[-1]
    command.attach()
    changes: list[Change] = [Remove(ip_network("192.0.2.0/24")), Add(ip_network("192.0.2.1"), 600)]

    assert {outcome.error for outcome in command.apply(changes)} == {None}
    assert networks(command) == nets("192.0.2.1", "2001:db8::/64")
    opened = backend.open()
    assert (opened.adopted, opened.repaired) == (2, False)
    if command is not backend:
        command.close()


PLANS = [
    FirewallPlan(maxelem=MAXELEM, log_group=7, added=(Limit(LimitMode.OBSERVE),)),
    FirewallPlan(maxelem=MAXELEM, action=BanAction.PORT_UNREACHABLE, interfaces=("eth0", "lo"), log=True),
    FirewallPlan(
        maxelem=MAXELEM, action=BanAction.TCP_RESET, added=(Limit(LimitMode.ENFORCE, rate=7, burst=30),)
    ),
    FirewallPlan(maxelem=MAXELEM, every_port=False, sip_ports=Ports(udp=tuple(range(5060, 5090)), tcp=())),
    FirewallPlan(maxelem=MAXELEM, action=BanAction.ADMIN_PROHIBITED, every_port=False),
    FirewallPlan(maxelem=MAXELEM),
]


@restored
def test_a_new_plan_loses_nothing(backend: Backend) -> None:
    """Plans replace each other: bans and lists stay, and our own change is not a repair."""
    network = ip_network("192.0.2.1")
    backend.apply([Add(network, 600), Add(network, 600, Scope.SIP_UDP)])
    for plan in PLANS:
        backend.plan = plan
        opened = backend.open()
        assert (opened.families, opened.adopted, opened.repaired) == ({4: None, 6: None}, 2, False)
        if backend.enforces:
            assert (opened.wire, opened.limits) == (None, None)
        assert backend.health() == Health(elements=2)
    assert networks(backend) == {network}


@restored
def test_counters_begin_at_zero(backend: Backend) -> None:
    """Without traffic all counters are 0 and there are no flooders; the sizes of the sets are reported."""
    backend.plan = PLANS[0]
    backend.open()
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("2001:db8::/64"), 60)])
    counters = backend.counters()

    assert {(rule.packets, rule.bytes) for rule in counters.rules} <= {(0, 0)}
    assert (counters.of("limiter_drops"), counters.of("limiter_full")) == (0, 0)
    assert sum(elements or 0 for elements in counters.sets.values()) == 2
    assert list(backend.remembered(FLOODS)) == []


def test_counters_may_be_read_in_a_thread_meanwhile(backend: Backend) -> None:
    """Reading the counters in another thread affects neither bans nor health checks."""
    readings: list[Counters] = []
    failed: list[BaseException] = []
    started, done = threading.Event(), threading.Event()

    def read() -> None:
        try:
            while not done.is_set() or len(readings) < 2:
                readings.append(backend.counters())
                started.set()
        except BaseException as error:  # noqa: BLE001 - any error fails the test
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        assert started.wait(30)
        for turn in range(200):
            changes: list[Change] = [Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(20)]
            if turn % 2:
                changes = [Remove(change.network) for change in changes]
            assert {outcome.error for outcome in backend.apply(changes)} == {None}
            assert backend.health() == Health(elements=20 * (1 - turn % 2))
    finally:
        done.set()
        thread.join()
    assert failed == []
    assert {sum(elements or 0 for elements in counters.sets.values()) for counters in readings} <= {
        *range(21)
    }


def test_changed_keys_are_named_as_in_the_configuration() -> None:
    """A plan names its differences from another plan by the keys of the configuration."""
    plan = FirewallPlan(
        sip_ports=Ports(udp=(5060,)), action=BanAction.TCP_RESET, added=(Limit(LimitMode.ENFORCE),)
    )

    assert plan.changed_keys(FirewallPlan()) == ["sip_ports", "action", "limiter"]
    assert plan.changed_keys(plan) == []


@pytest.mark.parametrize("timeout", [-5, 0, MAX_TIMEOUT + 1])
def test_a_ban_has_a_timeout_that_each_kernel_accepts(timeout: int) -> None:
    """A timeout of 0, which would mean no timeout, is an error, and so is one above the kernel's maximum."""
    with pytest.raises(ValueError, match="timeout"):
        Add(ip_network("192.0.2.1"), timeout)


@pytest.mark.parametrize(("burst", "rate", "seconds"), [(5, 2, 10), (40, 1, 40), (1_000, 1, 60)])
def test_strangers_are_forgotten_when_they_have_their_ration_again(
    burst: int, rate: int, seconds: int
) -> None:
    """A large ration is remembered for a minute, so that the tables have room for other strangers."""
    assert AskingRation(burst=burst, rate=rate).seconds == seconds
