"""Network lists of nftables: only differences are sent, and steady addresses are always found."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, ip_network

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis import given
from tests.firewall.nftables.conftest import Losing
from tests.support.lists import write_list
from tests.support.netns import run

from ringfence.bans.filling import Filler, ListContents
from ringfence.errors import FirewallError
from ringfence.firewall import network_lists
from ringfence.firewall.contract import Add, FirewallPlan, Health, ListSteps, Remove
from ringfence.firewall.network_lists import NetworkList
from ringfence.firewall.nftables import backend as nft_backend
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.firewall.nftables import installation, static_sets
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.state import read_sets, read_state
from ringfence.firewall.nftables.static_sets import Difference, Ranges
from ringfence.firewall.requirements import FinishedProgram
from ringfence.netlink.connection import (
    NetlinkConnection,
    NetlinkError,
    NetlinkLostError,
    NetlinkTooLongError,
    Refusal,
)
from ringfence.values.network import Network

BASE = 0x0A000000


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that collects the lengths of all transactions."""
    lengths: list[int] = []
    real = NetlinkConnection.transact

    def transact(self: NetlinkConnection, *messages: bytes) -> object:
        lengths.append(sum(map(len, messages)))
        return real(self, *messages)

    monkeypatch.setattr(NetlinkConnection, "transact", transact)
    return lengths


def nets(*texts: str) -> list[Network]:
    """Parse networks."""
    return [ip_network(text) for text in texts]


def denied(version: int = 4) -> str:
    """Return the elements of the deny list as nft lists them."""
    listed = run("nft", "list", "set", "inet", "ringfence", f"deny{version}")
    return " ".join(listed.partition("elements = {")[2].partition("}")[0].split())


networks = st.builds(
    lambda address, length: IPv4Network((BASE + address, length), strict=False),
    st.integers(0, 255),
    st.integers(24, 32),
)


@given(st.lists(networks, max_size=12), st.lists(networks, max_size=12), st.integers(1, 8))
def test_differences_lead_from_the_one_to_the_other(
    before: list[Network], after: list[Network], most: int
) -> None:
    """The changes lead from one list to the other; common addresses always stay, without overlaps."""
    held, wanted = Ranges.covering(4, before), Ranges.covering(4, after)
    difference, now = Difference(held, wanted), {*held}
    steady = {one for a, z in held for one in range(a, z + 1)} & {
        one for a, z in wanted for one in range(a, z + 1)
    }
    while len(difference):
        change = difference.next_change(most)
        assert change is not None
        assert now.issuperset(change.removed)
        now = now - {*change.removed} | {*change.added}
        covered = [one for a, z in sorted(now) for one in range(a, z + 1)]
        assert len(covered) == len(set(covered))
        assert steady <= set(covered)
        assert sorted(now) == [*difference.contents_after(change.last)]
    assert sorted(now) == [*wanted] == nft_elements.merged(after)


def test_a_change_that_is_put_back_is_returned_again() -> None:
    """A change that was put back is returned again, also in smaller changes."""
    wanted = Ranges.covering(4, nets("10.0.0.0/24", "10.0.2.0/24", "10.0.4.0/24"))
    difference = Difference(Ranges(4, b""), wanted)
    change = difference.next_change(2)
    assert change is not None
    assert len(change) == 2
    difference.put_back(change)
    taken = [one for _ in range(3) if (again := difference.next_change(1)) is not None for one in again.added]
    assert taken == [*wanted]


def test_too_many_overlaps_are_not_divided() -> None:
    """A range that replaces very many others cannot be divided."""
    many = Ranges.covering(4, [ip_network((BASE + 2 * n, 32)) for n in range(12_000)])
    assert Difference(many, Ranges.covering(4, nets("10.0.0.0/8"))).next_change(100) is None


def test_ranges_are_packed() -> None:
    """Ranges of both IP versions are packed in 8 and in 32 bytes each, unpacked, and counted."""
    four = Ranges.covering(4, nets("192.0.2.0/24", "10.0.0.0/8"))
    six = Ranges.covering(6, nets("2001:db8::/32", "ff00::/8"))

    assert [*four] == [(BASE, BASE + 0xFFFFFF), (0xC0000200, 0xC00002FF)]
    assert [*six][1] == (0xFF << 120, (1 << 128) - 1)
    assert (len(four.packed), len(six.packed)) == (16, 64)
    assert (len(four), four.counted, len(six), six.counted) == (2, 2, 2, 1)


@pytest.mark.kernel
def test_only_differences_are_sent(backend: NftablesBackend, sent: list[int]) -> None:
    """Small differences of a long list take few bytes, no difference takes none; the contents are right."""
    many = [ip_network((BASE + n * 512, 24)) for n in range(2_000)]
    write_list(backend, network_lists.DENY, many)
    whole, transactions = sum(sent), len(sent)
    write_list(backend, network_lists.DENY, reversed(many))
    assert len(sent) == transactions

    for contents in (
        [*many, *nets("192.0.2.0/24", "2001:db8::/32")],
        many[1:],
        [*many, *nets("10.0.1.0/24")],
    ):
        write_list(backend, network_lists.DENY, contents)
        assert sent[-1] < whole / 50
    assert denied().startswith("10.0.0.0-10.0.2.255, 10.0.4.0/24")
    assert denied(6) == ""
    assert backend.health() == Health(elements=0)


@pytest.mark.kernel
def test_any_list_follows_any_other(backend: NftablesBackend) -> None:
    """Lists whose ranges grow, shrink, split, join and reach both ends are listed by nft as written."""
    steps = [
        ("10.0.0.0/24",),
        ("10.0.0.0/23",),
        ("10.0.1.0/24", "10.0.4.0/24", "0.0.0.0/8"),
        ("10.0.0.0/24", "10.0.2.0/24", "10.0.4.0/24", "255.0.0.0/8"),
        ("10.0.0.0/22", "10.0.4.0/24", "255.0.0.0/8"),
        ("0.0.0.0/0",),
        ("10.0.0.0/24", "255.255.255.255"),
        (),
        ("10.0.0.0/24", "10.0.2.0/24", "10.0.4.0/24", "10.0.6.0/24"),
        ("10.0.0.0/24", "10.0.2.0/24", "10.0.4.0/24"),
    ]
    for texts in steps:
        write_list(backend, network_lists.DENY, nets(*texts))
        fresh = denied()
        backend._lists.forget()
        write_list(backend, network_lists.DENY, nets(*texts))
        assert fresh == denied()
        assert backend.health() == Health(elements=0)


@pytest.mark.kernel
def test_an_emptied_list_is_damage_and_filled_again(backend: NftablesBackend) -> None:
    """A list that another program emptied is reported by the next health check, and filled again."""
    contents = nets("10.0.0.0/24", "192.0.2.0/24")
    write_list(backend, network_lists.DENY, contents)
    run("nft", "flush set inet ringfence deny4")
    health = backend.health()
    assert health.changed
    assert health.damage in (None, "set deny4 has 0 elements instead of 2")  # None: a kernel without counts
    backend.open()
    write_list(backend, network_lists.DENY, contents)
    assert denied() == "10.0.0.0/24, 192.0.2.0/24"
    assert backend.health() == Health(elements=0)


@pytest.mark.kernel
def test_damage_of_several_lists_is_reported_until_open(backend: NftablesBackend) -> None:
    """open() reports damaged lists once: health() does not report those that are still to be written."""
    if read_sets(backend._kernel)[0].elements is None:
        pytest.skip("this kernel does not count the elements of a set")
    contents = nets("10.0.0.0/24", "192.0.2.0/24", "2001:db8::/32", "2001:db8:ffff::/48", "fd00::/8")
    write_list(backend, network_lists.EXTERNAL, contents)
    run("nft", "delete element inet ringfence external4 { 10.0.0.0/24 }")
    run("nft", "delete element inet ringfence external6 { fd00::/8 }")
    assert "external" in (backend.health().damage or "")
    assert backend.open().repaired
    assert backend.health() == Health(elements=0)
    assert not backend.open().repaired

    write_list(backend, network_lists.EXTERNAL, contents)
    for name, network in (("external4", "10.0.0.0/24"), ("external6", "fd00::/8")):
        assert network in run("nft", "list", "set", "inet", "ringfence", name)
    assert backend.health() == Health(elements=0)


@pytest.fixture
def without_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel count no elements of sets."""
    for module in (nft_backend, static_sets):
        monkeypatch.setattr(
            module, "read_sets", lambda kernel: [evolve(head, elements=None) for head in read_sets(kernel)]
        )


@pytest.mark.kernel
@pytest.mark.usefixtures("without_counts")
def test_without_counts_a_foreign_change_between_two_transactions_causes_a_refill(
    backend: NftablesBackend,
) -> None:
    """A long list that another program empties while it is written is written again as a whole."""
    steps, call = first_call(backend)
    call()
    assert next(steps) is None
    run("nft", "flush set inet ringfence deny4")
    assert backend.health().changed
    for rest in steps:
        if rest is not None:
            rest()
    assert not in_use(backend, MANY[0])
    write_list(backend, network_lists.DENY, MANY)
    assert in_use(backend, MANY[0])
    assert in_use(backend, MANY[-1])


@pytest.mark.kernel
@pytest.mark.usefixtures("without_counts")
@pytest.mark.parametrize("by_others", [False, True])
def test_without_counts_a_foreign_change_causes_a_refill(
    backend: NftablesBackend,
    sent: list[int],
    by_others: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """On a kernel without counts a list is refilled only after a foreign change."""
    contents = nets("10.0.0.0/24", "192.0.2.0/24")
    write_list(backend, network_lists.DENY, contents)
    if by_others:
        run("nft", "flush set inet ringfence deny4")
    write_list(backend, network_lists.DENY, contents)
    assert len(sent) == (3 if by_others else 1)  # a refill of both IP versions
    assert denied() == "10.0.0.0/24, 192.0.2.0/24"


@pytest.mark.kernel
def test_refused_differences_cause_a_refill(backend: NftablesBackend, sent: list[int]) -> None:
    """If another program exchanged elements, refused differences lead to a refill."""
    write_list(backend, network_lists.DENY, nets("10.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24"))
    run("nft", "delete element inet ringfence deny4 { 10.0.0.0/24 }")
    run("nft", "add element inet ringfence deny4 { 172.16.0.0/12 }")
    write_list(backend, network_lists.DENY, nets("192.0.2.0/24", "198.51.100.0/24"))
    assert len(sent) == (3 if read_sets(backend._kernel)[0].elements is not None else 2)
    assert denied() == "192.0.2.0/24, 198.51.100.0/24"


@pytest.mark.kernel
def test_differences_for_a_missing_set_are_an_error(backend: NftablesBackend) -> None:
    """If the set is gone, its contents are forgotten; opening repairs it, and it is refilled."""
    write_list(backend, network_lists.DENY, nets("10.0.0.0/24"))
    run("nft", "flush table inet ringfence; delete set inet ringfence deny4")
    with pytest.raises(FirewallError, match="list deny is gone"):
        write_list(backend, network_lists.DENY, nets("10.0.0.0/24"))
    backend.open()
    write_list(backend, network_lists.DENY, nets("10.0.0.0/24"))
    assert denied() == "10.0.0.0/24"


@pytest.mark.kernel
def test_an_address_on_both_lists_is_never_missing(backend: NftablesBackend) -> None:
    """While ranges around an address grow, shrink and move, each query finds it."""
    steady = ip_network("10.0.0.7")
    shapes = [nets("10.0.0.0/24"), nets("10.0.0.4/30", "10.0.1.0/24"), nets("10.0.0.0/22"), nets("10.0.0.7")]
    filler = [ip_network((0x14000000 + n * 512, 24)) for n in range(500)]
    write_list(backend, network_lists.DENY, [*filler, *shapes[0]])
    done, looks, missed = threading.Event(), itertools.count(), list[NetlinkError]()

    def watch() -> None:
        with NetlinkConnection(extended=True) as other:
            while not done.is_set():
                try:
                    other.request(nft_elements.query_elements("ringfence", "deny4", steady))
                except NetlinkError as error:
                    missed.append(error)
                next(looks)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(100):
            write_list(backend, network_lists.DENY, [*filler[turn % 7 :], *shapes[turn % len(shapes)]])
    finally:
        done.set()
        watcher.join()
    assert missed == []
    assert next(looks) > 10


def in_use(backend: NftablesBackend, network: Network) -> bool:
    """Whether a network is in the deny set that the rules name."""
    state = read_state(backend._kernel)
    assert state is not None
    try:
        backend._kernel.request(nft_elements.query_elements("ringfence", state.names["deny4"], network))
    except NetlinkError:
        return False
    return True


MANY = [ip_network((0x0B000000 + n * 512, 24)) for n in range(6_000)]


@pytest.mark.kernel
@pytest.mark.parametrize("again", [MANY[1_000:], [*MANY[:5_000], *nets("172.16.0.0/12")]])
def test_a_long_list_of_unknown_contents_fills_the_alternate_set(
    backend: NftablesBackend, again: list[Network]
) -> None:
    """At every step an address on both lists is found in the set in use, and health reports nothing."""
    steady = MANY[2_000]
    write_list(backend, network_lists.DENY, MANY)
    for _ in range(2):  # there, and back to the first set
        backend._lists.forget()
        for call in backend.replace_list_in_steps(network_lists.DENY, again):
            if call is not None:
                call()
            assert in_use(backend, steady)
            assert backend.health() == Health(elements=0)
        assert in_use(backend, again[-1])
        assert not in_use(backend, ip_network("192.0.2.0/24"))
    names = {head.name for head in read_sets(backend._kernel)}
    assert "deny4" in names
    assert "deny4_2" not in names


@pytest.mark.kernel
def test_a_restart_adopts_the_set_in_use(backend: NftablesBackend) -> None:
    """After a restart the rules name the same set, nothing is missing, and a half filled set is removed."""
    write_list(backend, network_lists.DENY, MANY)
    backend._lists.forget()
    write_list(backend, network_lists.DENY, MANY)
    backend._lists.forget()
    unfinished = backend.replace_list_in_steps(network_lists.DENY, MANY[:4_000])
    for _ in range(4):
        if (call := next(unfinished)) is not None:
            call()
    assert {"deny4", "deny4_2"} <= {head.name for head in read_sets(backend._kernel)}

    following = NftablesBackend()
    assert not following.open().repaired
    assert in_use(following, MANY[-1])
    write_list(following, network_lists.DENY, MANY[:3_000])
    assert not in_use(following, MANY[-1])
    assert in_use(following, MANY[0])
    assert {head.name for head in read_sets(backend._kernel)} & {"deny4", "deny4_2"} == {"deny4"}
    following.close()


@pytest.mark.kernel
def test_an_abandoned_replacement_is_known(backend: NftablesBackend, sent: list[int]) -> None:
    """After an abandoned replacement the next one adds the rest, and health reports nothing meanwhile."""
    unfinished, call = first_call(backend)
    call()
    unfinished.close()
    [deny4] = [head for head in read_sets(backend._kernel) if head.name == "deny4"]
    assert deny4.elements in (None, 5_000)
    assert backend.health() == Health(elements=0)
    sent.clear()
    write_list(backend, network_lists.DENY, MANY)
    assert 35_000 < sum(sent) < 50_000
    assert in_use(backend, MANY[-1])
    assert in_use(backend, MANY[0])


def first_call(backend: NftablesBackend) -> tuple[ListSteps, Callable[[], None]]:
    """Start to write a long list; return its steps, and the call that carries out the first transaction."""
    steps = backend.replace_list_in_steps(network_lists.DENY, MANY)
    next(steps)
    call = next(steps)
    assert call is not None
    return steps, call


class Held:
    """Holds other threads after their transactions until ``release`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrived, self.release, self.main = threading.Event(), threading.Event(), threading.get_ident()
        real = NetlinkConnection.transact

        def transact(connection: NetlinkConnection, *messages: bytes) -> list[Refusal]:
            refusals = real(connection, *messages)
            if threading.get_ident() != self.main:
                self.arrived.set()
                assert self.release.wait(20)
            return refusals

        monkeypatch.setattr(NetlinkConnection, "transact", transact)


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.integers(1, 5), st.sampled_from([4, 6]))
def test_lists_are_compared_in_parts(before: set[int], after: set[int], size: int, version: int) -> None:
    """Whatever the size of a part, the ranges that the other list lacks are found, in order."""

    def ranges(numbers: set[int]) -> Ranges:
        bounds = [(BASE + 4 * n + odd * (n % 3)) for n in sorted(numbers) for odd in (0, 1)]
        return Ranges.between(version, bounds)

    one, other = ranges(before), ranges(after)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(static_sets, "_COMPARED", size)
        found = one.without(other)
    assert found == [row for row in one.rows() if row not in other.rows()]


@pytest.mark.kernel
def test_a_ban_does_not_wait_for_a_list_in_a_thread(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread changes a list, bans are placed, and nothing counts as damage or as a foreign change."""
    held = Held(monkeypatch)
    steps, call = first_call(backend)
    with ThreadPoolExecutor() as pool:
        future = pool.submit(call)
        assert held.arrived.wait(20)
        [outcome] = backend.apply([Add(ip_network("198.18.0.1"), 60)])
        assert outcome.error is None
        assert backend.health() == Health(elements=1)
        held.release.set()
        future.result(20)
    write_list(backend, network_lists.ALLOW, nets("192.0.2.1"))
    for rest in steps:
        if rest is not None:
            rest()
    assert in_use(backend, MANY[-1])
    assert not backend._foreign.suspect
    assert backend.health() == Health(elements=1)


@pytest.mark.kernel
@pytest.mark.parametrize("begun", [True, False])
def test_an_abandoned_replacement_leaves_nothing_behind_in_a_thread(
    backend: NftablesBackend,
    monkeypatch: pytest.MonkeyPatch,
    begun: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A replacement that is abandoned in its transaction waits for the end, or prevents the transaction."""
    held = Held(monkeypatch)
    steps, call = first_call(backend)
    if begun:
        with ThreadPoolExecutor() as pool:
            future = pool.submit(call)
            assert held.arrived.wait(20)
            closing = pool.submit(steps.close)
            held.release.set()
            closing.result(20)
            future.result(20)
    else:
        steps.close()
        call()
    assert in_use(backend, MANY[0]) is begun
    assert backend.health() == Health(elements=0)
    assert not backend._foreign.suspect
    write_list(backend, network_lists.DENY, MANY[:10])
    assert in_use(backend, MANY[0])
    assert not in_use(backend, MANY[10])


@pytest.mark.kernel
@pytest.mark.parametrize("done", [True, False])
def test_a_lost_answer_is_not_sent_again(
    backend: NftablesBackend,
    monkeypatch: pytest.MonkeyPatch,
    done: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """After a lost answer the error names it, nothing is repeated, and the next replacement corrects it."""
    real = NetlinkConnection.transact
    calls = 0

    def losing(self: NetlinkConnection, *messages: bytes) -> list[Refusal]:
        nonlocal calls
        calls += 1
        if done:
            real(self, *messages)
        raise NetlinkLostError("the kernel's answer to a batch was lost")

    write_list(backend, network_lists.DENY, MANY[:3_000])
    with monkeypatch.context() as lost:
        lost.setattr(NetlinkConnection, "transact", losing)
        with pytest.raises(FirewallError, match="was lost"):
            write_list(backend, network_lists.DENY, MANY)
    assert calls == 1
    assert in_use(backend, MANY[0])
    write_list(backend, network_lists.DENY, MANY)
    assert [in_use(backend, one) for one in (MANY[0], MANY[3_500], MANY[-1])] == [True] * 3
    assert backend.health().damage is None


@pytest.mark.kernel
@pytest.mark.parametrize("uncounted", ["0.0.0.0/0", "255.255.255.255"])
def test_after_a_lost_answer_an_uncounted_range_is_removed(
    backend: NftablesBackend, losing_answers: Losing, uncounted: str
) -> None:
    """If the answer to a range that the kernel does not count is lost, an empty list removes the range."""
    with losing_answers(), pytest.raises(NetlinkLostError):
        write_list(backend, network_lists.DENY, nets(uncounted))
    assert denied() != ""
    write_list(backend, network_lists.DENY, [])
    assert denied() == ""
    assert backend.health() == Health(elements=0)


@pytest.mark.kernel
@pytest.mark.parametrize("uncounted", ["0.0.0.0/0", "128.0.0.0/1", "255.255.255.255", "8000::/1"])
def test_after_a_restart_an_uncounted_range_is_removed(backend: NftablesBackend, uncounted: str) -> None:
    """If a new process writes an empty list, a range that the kernel does not count is removed."""
    [network] = nets(uncounted)
    write_list(backend, network_lists.DENY, [network])
    following = NftablesBackend()
    assert not following.open().repaired
    assert denied(network.version) != ""
    write_list(following, network_lists.DENY, [])
    assert denied(network.version) == ""
    assert following.health() == Health(elements=0)
    following.close()


@pytest.mark.kernel
def test_short_batches_are_enough(backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel accepts only 20 000 bytes at once, every list is written."""
    real = NetlinkConnection.transact

    def small(self: NetlinkConnection, *messages: bytes) -> list[Refusal]:
        if sum(map(len, messages)) > 20_000:
            raise NetlinkTooLongError("the kernel accepts batches of 20000 bytes")
        return real(self, *messages)

    monkeypatch.setattr(NetlinkConnection, "transact", small)
    write_list(backend, network_lists.DENY, MANY)
    backend._lists.forget()
    write_list(backend, network_lists.DENY, MANY[:2_000])
    assert in_use(backend, MANY[0])
    assert not in_use(backend, MANY[-1])


def next_nft(steps: ListSteps) -> Callable[[], None]:
    """Carry out steps; return the next call that runs nft."""
    for call in steps:
        if isinstance(getattr(call, "__self__", None), installation._Program):
            assert call is not None
            return call
        if call is not None:
            call()
    pytest.fail("nft is not run")


class Switching:
    """A replacement of a long list that has come to the switch: ``nft`` runs in a thread.

    ``nft`` begins when ``release`` is set, at the latest when another caller has to wait for it.
    """

    def __init__(self, backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.release, self.begun, real = threading.Event(), threading.Event(), installation.run_nft
        loop = threading.get_ident()

        def run_nft(program: str, text: str, *, check: bool = False) -> int:
            if threading.get_ident() != loop:
                self.begun.set()
                assert self.release.wait(20)
            return real(program, text, check=check)

        write_list(backend, network_lists.DENY, MANY)
        backend._lists.forget()
        self.steps = backend.replace_list_in_steps(network_lists.DENY, MANY[1:])
        next_nft(self.steps)()  # makes the other set
        call = next_nft(self.steps)
        monkeypatch.setattr(installation, "run_nft", run_nft)
        self.future = ThreadPoolExecutor(1).submit(call)
        assert self.begun.wait(20)

    def end(self) -> None:
        """Let ``nft`` begin, and complete the replacement."""
        self.release.set()
        self.future.result(20)
        for call in self.steps:
            assert call is None


WITHOUT_SET = Add(ip_network("198.18.0.0/19"), 60)


@pytest.mark.kernel
def test_bans_go_on_during_a_switch(backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nft lets the rules use the other set, bans are placed and removed, and nothing is damage."""
    epoch, switching = backend._foreign.epoch, Switching(backend, monkeypatch)
    one, other = ip_network("198.18.0.1"), ip_network("198.18.0.2")
    done = backend.apply([Add(one, 60), Add(other, 60), Remove(one)])
    assert [outcome.error for outcome in done] == [None] * 3
    run("nft", "add", "table", "inet", "other")  # so our rules are suspect
    write_list(backend, network_lists.ALLOW, nets("192.0.2.1"))
    health = backend.health()
    switching.end()
    assert health == backend.health() == Health(elements=1)
    assert [element.network for element in backend.list()] == [other]
    assert in_use(backend, MANY[-1])
    assert not in_use(backend, MANY[0])
    assert backend._foreign.epoch == epoch
    assert not backend.open().repaired


def _ban_another_length(backend: NftablesBackend) -> None:
    assert [one.error for one in backend.apply([WITHOUT_SET])] == [None]


def _change_the_plan(backend: NftablesBackend) -> None:
    backend.plan = FirewallPlan(log=True)
    assert not backend.open().repaired


@pytest.mark.kernel
@pytest.mark.parametrize("change", [_ban_another_length, _change_the_plan])
def test_another_change_waits_for_the_switch(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch, change: Callable[[NftablesBackend], None]
) -> None:
    """A new set of bans and the rules of another plan are made after the switch, and the list is complete."""
    switching = Switching(backend, monkeypatch)
    threading.Timer(0.2, switching.release.set).start()
    change(backend)
    assert in_use(backend, MANY[-1])
    switching.end()
    assert backend.health().damage is None
    assert in_use(backend, MANY[-1])
    assert backend._installation.require().state == read_state(backend._kernel, {"deny4": "deny4_2"})


@pytest.mark.kernel
def test_no_rules_remain_after_a_switch(backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all rules are removed during a switch, nft does not write them again afterwards."""
    switching = Switching(backend, monkeypatch)
    threading.Timer(0.2, switching.release.set).start()
    backend.flush()
    assert not backend.is_present()
    switching.future.result(20)
    switching.steps.close()
    assert not backend.is_present()


@pytest.mark.kernel
@pytest.mark.parametrize("finished", [True, False])
def test_a_switch_that_fails_leaves_the_old_list(
    backend: NftablesBackend,
    monkeypatch: pytest.MonkeyPatch,
    finished: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """If nft is killed, the list reports it, also if a ban has waited for nft; the old list is in use."""
    switching = Switching(backend, monkeypatch)
    monkeypatch.setattr(installation, "run_program", lambda *_: FinishedProgram(1, -9, "", ""))
    switching.release.set()
    switching.future.result(20)
    monkeypatch.undo()
    if finished:
        _ban_another_length(backend)
    with pytest.raises(FirewallError, match=r"failed \(-9\)"):
        switching.end()
    assert in_use(backend, MANY[0])
    assert backend.health().damage is None
    write_list(backend, network_lists.DENY, MANY[1:])
    assert not in_use(backend, MANY[0])


@pytest.mark.kernel
def test_a_list_that_no_rule_uses_is_switched(netns: None) -> None:
    """If the plan does not use a list, its switch is not damage either."""
    backend = NftablesBackend(FirewallPlan(dropped=()))
    backend.open()
    for _ in range(3):
        write_list(backend, network_lists.DENY, MANY)
        backend._lists.forget()
        assert backend.health() == Health(elements=0)
        run("nft", "add", "table", "inet", "other")
        assert backend.health() == Health(elements=0)
    backend.close()


@pytest.mark.kernel
def test_the_event_loop_goes_on_during_a_switch(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nft runs for a long list, the event loop runs other tasks."""
    write_list(backend, network_lists.DENY, MANY)
    backend._lists.forget()
    real, running, ticks = installation.run_nft, threading.Event(), threading.Semaphore(0)

    def run_nft(program: str, text: str, *, check: bool = False) -> int:
        running.set()
        assert ticks.acquire(timeout=20)  # the loop goes on
        assert ticks.acquire(timeout=20)
        running.clear()
        return real(program, text, check=check)

    async def tick() -> None:
        while True:
            if running.is_set():
                ticks.release()
            await asyncio.sleep(0.001)

    async def go() -> None:
        filler = Filler(backend, Denied())
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(filler.run()), group.create_task(tick())]
            await asyncio.sleep(0)
            filler.fill(network_lists.DENY)
            async with asyncio.timeout(60):
                while filler.filling:  # noqa: ASYNC110 - any number of turns
                    await asyncio.sleep(0.01)
            assert filler.error == ""
            for task in tasks:
                task.cancel()

    monkeypatch.setattr(installation, "run_nft", run_nft)
    asyncio.run(go())
    assert in_use(backend, MANY[-1])
    assert not in_use(backend, MANY[0])


class Denied(ListContents):
    """The wanted contents of the lists: all but one of ``MANY`` are denied."""

    def contents(self, target: NetworkList) -> list[Network]:
        """Return the networks of a list."""
        return MANY[1:] if target is network_lists.DENY else []
