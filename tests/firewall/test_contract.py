"""What every backend must keep, over each of them: the kernel's in a network namespace of its own."""

import threading
import time
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from tests.support.flavours import finder
from tests.support.netns import netns

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall import BACKENDS, make_backend
from ringfence.firewall.contract import (
    Add,
    Backend,
    Change,
    Limit,
    LimitMode,
    Opened,
    Outcome,
    Plan,
    Ports,
    Pulse,
    Remove,
    Roll,
    Usage,
    Verdict,
)
from ringfence.firewall.ipset import IpsetBackend
from ringfence.model import Network, Scope

MAXELEM = 64


@pytest.fixture(
    params=[
        "memory",
        pytest.param("ipset iptables-nft", marks=pytest.mark.kernel),
        pytest.param("ipset iptables-legacy", marks=pytest.mark.kernel),
        pytest.param("nftables", marks=pytest.mark.kernel),
    ]
)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each backend in turn, opened, in a namespace of its own where it is the kernel's."""
    name, _, flavour = request.param.partition(" iptables-")
    plan = Plan(maxelem=MAXELEM)
    made = IpsetBackend(plan, find_tools=finder(flavour)) if flavour else make_backend(name, plan)
    if not made.enforces:
        made.open()
        yield made
        return
    with netns():
        made.open()
        yield made
        made.close()


def networks(backend: Backend) -> set[Network]:
    """Give what is banned."""
    return {element.network for element in backend.list()}


def nets(*texts: str) -> set[Network]:
    """Give the networks of these texts."""
    return {ip_network(text) for text in texts}


def test_every_name_makes_a_backend() -> None:
    """Each name in BACKENDS makes the backend of that name; `auto` is one of them (test_choice.py)."""
    assert list(BACKENDS) == ["auto", "ipset", "nftables", "memory"]
    for name in set(BACKENDS) - {"auto"}:
        backend = make_backend(name)
        assert backend.name == name
        backend.close()


def test_bans_are_confirmed_and_listed(backend: Backend) -> None:
    """Addresses and prefixes of both families are confirmed with their timeouts, and listed."""
    changes = [
        Add(ip_network("192.0.2.1"), 600.0),
        Add(ip_network("2001:db8:1::/64"), 60.0),
        Add(ip_network("198.51.100.0/24"), 3600.0),
        Add(ip_network("2001:db8::1"), 0.3),
    ]

    outcomes = backend.apply(changes)

    assert outcomes == [
        Outcome(change, timeout) for change, timeout in zip(changes, (600.0, 60.0, 3600.0, 1.0), strict=True)
    ]
    listed = {element.network: element for element in backend.list()}
    assert set(listed) == {change.network for change in changes}
    for change, outcome in zip(changes, outcomes, strict=True):
        assert 0 < listed[change.network].timeout <= outcome.timeout
        assert (listed[change.network].packets, listed[change.network].bytes) == (0, 0)


def test_nothing_to_do_is_done(backend: Backend) -> None:
    """An empty batch has no outcomes."""
    assert backend.apply([]) == []


def test_adding_again_gives_a_new_timeout(backend: Backend) -> None:
    """A second Add of a network is confirmed, and its timeout counts, longer or shorter."""
    network = ip_network("192.0.2.1")
    backend.apply([Add(network, 600.0)])
    for timeout in (900.0, 30.0):
        assert backend.apply([Add(network, timeout)]) == [Outcome(Add(network, timeout), timeout)]
        [element] = backend.list()
        assert timeout - 2 <= element.timeout <= timeout


def test_removing_is_repeatable(backend: Backend) -> None:
    """Remove is confirmed whether or not the network was in, and touches no other."""
    backend.apply([Add(ip_network("192.0.2.1"), 60.0), Add(ip_network("192.0.2.2"), 60.0)])
    change = Remove(ip_network("192.0.2.1"))

    assert [backend.apply([change]), backend.apply([change])] == [[Outcome(change)]] * 2
    assert networks(backend) == nets("192.0.2.2")


def test_changes_are_carried_out_in_order(backend: Backend) -> None:
    """The last change of a network in a batch is what counts."""
    first, second = ip_network("192.0.2.1"), ip_network("2001:db8::/64")
    changes: list[Change] = [
        Add(first, 60.0),
        Remove(first),
        Remove(second),
        Add(second, 60.0),
        Add(first, 30.0),
        Remove(first),
    ]

    outcomes = backend.apply(changes)

    assert [outcome.change for outcome in outcomes] == changes
    assert [outcome.error for outcome in outcomes] == [None] * len(changes)
    assert networks(backend) == {second}


def test_a_prefix_and_what_is_in_it_are_two_bans(backend: Backend) -> None:
    """An address within a banned prefix is a ban of its own: removing one leaves the other."""
    backend.apply([Add(ip_network(text), 60.0) for text in ("192.0.0.0/16", "192.0.2.0/24", "192.0.2.1")])
    backend.apply([Remove(ip_network("192.0.2.0/24"))])

    assert networks(backend) == nets("192.0.0.0/16", "192.0.2.1")


def test_timeouts_beyond_the_kernels_are_clamped_and_told(backend: Backend) -> None:
    """A ban for years is given the longest the kernel has, and the outcome says so."""
    change = Add(ip_network("192.0.2.1"), 3.2e8)

    assert backend.apply([change]) == [Outcome(change, 2_147_483.0)]
    [element] = backend.list()
    assert 2_147_480 <= element.timeout <= 2_147_483


def test_no_ban_is_for_ever(backend: Backend) -> None:
    """A timeout of nothing is one second, never the kernel's 0 for "no end"."""
    outcomes = backend.apply(
        [
            Add(ip_network(f"192.0.2.{place}"), timeout)
            for place, timeout in enumerate((0.0, -1.0, 0.4, float("nan")))
        ]
    )

    assert [(outcome.timeout, outcome.error) for outcome in outcomes] == [(1.0, None)] * 4
    time.sleep(2.1)
    assert list(backend.list()) == []


def test_a_refused_change_takes_no_other_with_it(backend: Backend) -> None:
    """A /0 is refused by itself, wherever it stands; what is before and behind it is done."""
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
    outcomes = backend.apply([Add(ip_network(text), 60.0) for text in texts])

    assert [isinstance(outcome.error, FirewallError) for outcome in outcomes] == [
        text.endswith("/0") for text in texts
    ]
    assert networks(backend) == nets("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::/64")


def test_a_full_set_is_told_element_by_element(backend: Backend) -> None:
    """Beyond maxelem each new network is a SetFullError; a known one is renewed; the other set has room."""
    many = [Add(ip_network((0x0A000000 + n, 32)), 600.0) for n in range(MAXELEM + 20)]
    known = Add(many[0].network, 900.0)
    other = Add(ip_network("2001:db8::/64"), 60.0)

    outcomes = backend.apply([*many, known, other])

    full = [isinstance(outcome.error, SetFullError) for outcome in outcomes]
    assert full == [False] * MAXELEM + [True] * 20 + [False, False]
    assert networks(backend) == {change.network for change in (*many[:MAXELEM], other)}


def test_opening_again_loses_nothing(backend: Backend) -> None:
    """A second open keeps what is banned and counts it."""
    backend.apply([Add(ip_network("192.0.2.1"), 60.0), Add(ip_network("2001:db8::/64"), 60.0)])

    assert backend.open() == Opened(families={4: None, 6: None}, adopted=2)
    assert networks(backend) == nets("192.0.2.1", "2001:db8::/64")


def test_flush_and_close_are_repeatable(backend: Backend) -> None:
    """After flush nothing is listed; flush and close may be repeated, and open begins anew."""
    backend.apply([Add(ip_network("192.0.2.1"), 60.0)])
    for verb in (backend.flush, backend.flush, backend.close, backend.close):
        verb()
        assert list(backend.list()) == []

    assert backend.open() == Opened(families={4: None, 6: None}, adopted=0)
    assert backend.apply([Remove(ip_network("192.0.2.1"))]) == [Outcome(Remove(ip_network("192.0.2.1")))]


def test_two_scopes_are_two_bans(backend: Backend) -> None:
    """A network may be banned with both scopes: each has its own time and room, and goes by itself."""
    network = ip_network("192.0.2.1")
    backend.apply([Add(network, 600.0), Add(network, 60.0, Scope.SIP_UDP)])

    found = {element.scope: element for element in backend.list()}
    assert {element.network for element in found.values()} == {network}
    assert found[Scope.FULL].timeout > 60 >= found[Scope.SIP_UDP].timeout
    assert backend.open().adopted == 2
    backend.apply([Remove(network)])
    assert [element.scope for element in backend.list()] == [Scope.SIP_UDP]
    backend.apply([Remove(network, Scope.SIP_UDP)])
    many = [ip_network((0x0A000000 + n, 32)) for n in range(MAXELEM)]
    bans = [Add(one, 60.0, scope) for scope in Scope for one in many]
    assert {outcome.error for outcome in backend.apply(bans)} == {None}


def test_one_ban_is_found(backend: Backend) -> None:
    """A ban is found by its network and scope: not by what covers it or is in it, and not once lifted."""
    banned = [
        Add(ip_network(text), 600.0, scope)
        for text in ("192.0.2.0/24", "192.0.2.7", "2001:db8:1::/64", "2001:db8::1")
        for scope in Scope
    ]
    many = [Add(ip_network((0x0A000000 + n, 32)), 600.0) for n in range(50)]
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


@pytest.mark.parametrize("roll", Roll)
def test_a_roll_may_be_filled_again_and_again(backend: Backend, roll: Roll) -> None:
    """Networks of both versions that overlap, none, many: no ban is touched, and the next look is content."""
    backend.apply([Add(ip_network("192.0.2.1"), 60.0)])
    many = [ip_network((0x0A000000 + (n << 4), 28)) for n in range(10_000)]
    for on_it in (
        [ip_network(text) for text in ("192.0.2.0/24", "192.0.2.1", "192.0.0.0/16", "2001:db8::/32")],
        [],
        [*many, *many, ip_network("2001:db8::1")],
        [ip_network("0.0.0.0/0"), ip_network("::/0")],
        many[:1],
    ):
        backend.fill(roll, on_it)
        assert backend.pulse() == Pulse(elements=1)
    assert networks(backend) == nets("192.0.2.1")


def test_the_next_look_is_content_with_what_we_do(backend: Backend) -> None:
    """Bans that come, go and end, a roll, another opening: nothing of it is trouble, or somebody else's."""
    network = ip_network("192.0.2.1")
    for step in (
        lambda: backend.apply([Add(network, 600.0), Add(ip_network("2001:db8::/64"), 1.0)]),
        lambda: backend.fill(Roll.ALLOW, [network]),
        backend.open,
        lambda: backend.apply([Remove(network)]),
        lambda: time.sleep(2.1),
    ):
        step()
        assert backend.pulse() == Pulse(elements=len(list(backend.list())))
    assert list(backend.list()) == []


PLANS = [
    Plan(maxelem=MAXELEM, log_group=7, limit=Limit(LimitMode.OBSERVE)),
    Plan(maxelem=MAXELEM, verdict=Verdict.PORT_UNREACHABLE, interfaces=("eth0", "lo"), log=True),
    Plan(maxelem=MAXELEM, verdict=Verdict.TCP_RESET, limit=Limit(LimitMode.ENFORCE, rate=7, burst=30)),
    Plan(maxelem=MAXELEM, every_port=False, sip_ports=Ports(udp=tuple(range(5060, 5090)), tcp=())),
    Plan(maxelem=MAXELEM, verdict=Verdict.ADMIN_PROHIBITED, every_port=False),
    Plan(maxelem=MAXELEM),
]


def test_a_new_plan_loses_nothing(backend: Backend) -> None:
    """One plan after the other is put in place: bans and rolls stay, and our own change heals nothing."""
    network = ip_network("192.0.2.1")
    backend.apply([Add(network, 600.0), Add(network, 600.0, Scope.SIP_UDP)])
    for plan in PLANS:
        backend.plan = plan
        opened = backend.open()
        assert (opened.families, opened.adopted, opened.healed) == ({4: None, 6: None}, 2, False)
        if backend.enforces:
            assert (opened.wire, opened.limiter) == (None, None)
        assert backend.pulse() == Pulse(elements=2)
    assert networks(backend) == {network}


def test_what_was_met_is_nothing_at_first(backend: Backend) -> None:
    """Rules have met nothing where nothing was sent, nobody floods, and what is banned is counted."""
    backend.plan = PLANS[0]
    backend.open()
    backend.apply([Add(ip_network("192.0.2.1"), 60.0), Add(ip_network("2001:db8::/64"), 60.0)])
    usage = backend.usage()

    assert {(rule.packets, rule.bytes) for rule in usage.rules} <= {(0, 0)}
    assert (usage.limiter_drops, usage.limiter_full) == (0, 0)
    assert sum(elements or 0 for elements in usage.sets.values()) == 2
    assert list(backend.flooding()) == []


def test_usage_may_be_asked_in_a_thread_while_bans_go_on(backend: Backend) -> None:
    """While another thread asks for the usage again and again, every ban and look is as without it."""
    usages: list[Usage] = []
    failed: list[BaseException] = []
    started, done = threading.Event(), threading.Event()

    def ask() -> None:
        try:
            while not done.is_set() or len(usages) < 2:
                usages.append(backend.usage())
                started.set()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        assert started.wait(30)
        for turn in range(200):
            changes: list[Change] = [Add(ip_network((0x0A000000 + n, 32)), 600.0) for n in range(20)]
            if turn % 2:
                changes = [Remove(change.network) for change in changes]
            assert {outcome.error for outcome in backend.apply(changes)} == {None}
            assert backend.pulse() == Pulse(elements=20 * (1 - turn % 2))
    finally:
        done.set()
        thread.join()
    assert failed == []
    assert {sum(elements or 0 for elements in usage.sets.values()) for usage in usages} <= {*range(21)}


def test_what_differs_is_named_as_in_the_configuration() -> None:
    """A plan says what is not as in another, in words that an administrator has written himself."""
    plan = Plan(sip_ports=Ports(udp=(5060,)), verdict=Verdict.TCP_RESET, limit=Limit(LimitMode.ENFORCE))

    assert plan.differing(Plan()) == ["sip_ports", "action", "limiter"]
    assert plan.differing(plan) == []
