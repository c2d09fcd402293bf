"""Changes as transactions: the outcome of each, on old and new kernels, and with refusals."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import pytest
from attrs import evolve, frozen
from tests.support.netns import run
from tests.support.usernamespace import in_user_namespace, why_no_user_namespace

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall.contract import Add, Change, Element, Outcome, Remove
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.firewall.nftables.backend import Changes
from ringfence.firewall.nftables.ruleset import BanSet
from ringfence.netlink.connection import NetlinkConnection, NetlinkLostError, NetlinkTooLongError, Refusal
from ringfence.values.ban import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

TABLE = """\
table inet ringfence {
  set ban4_32 { type ipv4_addr; flags timeout; counter; size 100; }
  set sip4_32 { type ipv4_addr; flags timeout; counter; size 20000; }
  set ban6_64 { type ipv6_addr; flags timeout; counter; size 20000; }
}
"""
SMALL, LARGE, V6 = BanSet(Scope.FULL, 4, 32), BanSet(Scope.SIP_UDP, 4, 32), BanSet(Scope.FULL, 6, 64)


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection to this test's kernel, in which the sets exist."""
    run("nft", "-f", "-", text=TABLE)
    with NetlinkConnection(extended=True) as made:
        yield made


@frozen
class Kind:
    """A kernel connection, whether adding again renews, and whether a refusal has a position."""

    kernel: NetlinkConnection
    modern: bool
    positions: bool


@pytest.fixture(params=["modern", "old", "oldest"])
def changes(
    request: pytest.FixtureRequest, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> Kind:
    """Return the kernel as one that renews (6.12), as an older one, and as one without positions (5.10)."""
    positions = request.param != "oldest"
    if not positions:
        real = kernel.transact

        def transact(*messages: bytes) -> list[Refusal]:
            return [evolve(one, offset=None) for one in real(*messages)]

        monkeypatch.setattr(kernel, "transact", transact)
    return Kind(kernel, request.param == "modern", positions)


def adds(number: int, timeout: int = 600, *, scope: Scope = Scope.FULL) -> list[Change]:
    """Return bans of ``number`` addresses."""
    return [Add(ip_network((0x0A000000 + n, 32)), timeout, scope) for n in range(number)]


def removes(number: int, *, scope: Scope = Scope.FULL) -> list[Change]:
    """Return removals of ``number`` addresses."""
    return [Remove(ip_network((0x0A000000 + n, 32)), scope) for n in range(number)]


def apply(kind: Kind, *batches: tuple[BanSet, Sequence[Change]]) -> list[Outcome]:
    """Carry out all changes as one batch, and return their outcomes in order."""
    flat = [change for _, batch in batches for change in batch]
    unknown = FirewallError("no result is known")
    outcomes = [Outcome(change, error=unknown) for change in flat]
    by_set: dict[BanSet, Sequence[int]] = {}
    begin = 0
    for ban, batch in batches:
        by_set[ban] = range(begin, begin + len(batch))
        begin += len(batch)
    Changes(kind.kernel, flat, outcomes, modern=kind.modern).apply(by_set)
    assert [one.change for one in outcomes] == flat
    assert unknown not in [one.error for one in outcomes]
    return outcomes


def listed(kernel: NetlinkConnection, ban: BanSet) -> list[Element]:
    """Return the elements of a set."""
    return [
        element
        for answer in kernel.stream(nft_elements.dump_elements("ringfence", ban.name))
        for element in nft_elements.bans_of(answer, ban.version, ban.length, ban.scope)
    ]


def counting(kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the transactions from now on: one entry each, the number of its messages."""
    sent: list[int] = []
    real = kernel.transact

    def transact(*messages: bytes) -> list[Refusal]:
        sent.append(len(messages))
        return real(*messages)

    monkeypatch.setattr(kernel, "transact", transact)
    return sent


def test_many_changes_take_few_transactions(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 000 changes of one kind take one transaction for each chunk, and all are confirmed."""
    sent = counting(kernel, monkeypatch)
    assert {one.error for one in apply(changes, (LARGE, adds(10_000, scope=Scope.SIP_UDP)))} == {None}
    assert sent == [1] * 9
    assert len(listed(kernel, LARGE)) == 10_000
    assert {one.error for one in apply(changes, (LARGE, removes(10_001, scope=Scope.SIP_UDP)))} == {None}
    assert len(sent) == 18
    assert listed(kernel, LARGE) == []


def test_times_are_renewed(changes: Kind, kernel: NetlinkConnection) -> None:
    """Adding again sets the new timeout, longer, shorter or the same, mixed with new elements."""
    [first] = adds(1, 600)
    for timeout in (900, 30, 30):
        apply(changes, (SMALL, [first]))
        known = {element.network: element.timeout for element in listed(kernel, SMALL)}
        outcomes = apply(changes, (SMALL, adds(3, timeout)))
        assert [(one.timeout, one.error) for one in outcomes] == [(timeout, None)] * 3
        times = [element.timeout for element in listed(kernel, SMALL)]
        assert len(times) == 3
        assert all(timeout - 2 <= left <= timeout for left in times)
        assert len(known) in (1, 3)


def test_a_network_may_occur_twice_in_a_batch(changes: Kind, kernel: NetlinkConnection) -> None:
    """A network may occur several times in a batch: the last change decides, and all are confirmed."""
    ban, other = adds(2)
    again = Add(ban.network, 30)
    outcomes = apply(changes, (SMALL, [ban, again, ban, again, other, Remove(other.network)]))
    assert {one.error for one in outcomes} == {None}
    [element] = listed(kernel, SMALL)
    assert element.network == ban.network
    assert element.timeout <= 30.0
    outcomes = apply(
        changes, (SMALL, [Remove(ban.network), Remove(ban.network), other, Remove(other.network)])
    )
    assert {one.error for one in outcomes} == {None}
    assert listed(kernel, SMALL) == []


def test_a_full_set_costs_a_few_transactions(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 10 000 bans for a set of 100 the first are added, the others refused, in few transactions."""
    sent = counting(kernel, monkeypatch)
    other = Add(ip_network("2001:db8::/64"), 60)

    outcomes = apply(changes, (SMALL, adds(10_000)), (V6, [other]))

    assert [one.error is None for one in outcomes] == [True] * 100 + [False] * 9900 + [True]
    assert {type(one.error) for one in outcomes[100:-1]} == {SetFullError}
    assert len(listed(kernel, SMALL)) == 100
    assert len(sent) <= (2 * 9 + 1 if changes.positions else 60)
    assert len(listed(kernel, V6)) == 1


def test_a_full_set_renews_and_removes_its_elements(changes: Kind, kernel: NetlinkConnection) -> None:
    """In a full set existing elements are renewed and removed, and new ones are refused."""
    apply(changes, (SMALL, adds(100)))

    outcomes = apply(changes, (SMALL, adds(120, 900)[90:]))
    assert [one.error is None for one in outcomes] == [True] * 10 + [False] * 20
    assert sum(element.timeout > 890 for element in listed(kernel, SMALL)) == 10

    outcomes = apply(changes, (SMALL, removes(120)[95:]))
    assert {one.error for one in outcomes} == {None}
    assert len(listed(kernel, SMALL)) == 95
    assert [one.error is None for one in apply(changes, (SMALL, adds(120)[95:]))] == [True] * 5 + [False] * 20


def test_a_full_set_confirms_no_removal_of_a_ban_that_stays(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no query is answered while a set is full, each removal that is confirmed was carried out."""
    apply(changes, (SMALL, adds(100)))

    def lost(_message: bytes) -> list[bytes]:
        raise NetlinkLostError("the kernel did not answer")

    monkeypatch.setattr(kernel, "request", lost)
    outcomes = apply(changes, (SMALL, removes(101)[:98:-1]))

    confirmed = {one.change.network for one in outcomes if one.error is None}
    assert removes(100)[99].network in confirmed
    assert not confirmed & {element.network for element in listed(kernel, SMALL)}


def test_a_removal_makes_room_in_its_batch(changes: Kind, kernel: NetlinkConnection) -> None:
    """A removal makes room for a later ban of the same batch."""
    apply(changes, (SMALL, adds(100)))
    batch = [*removes(10), *adds(110)[100:]]
    assert {one.error for one in apply(changes, (SMALL, batch))} == {None}
    assert len(listed(kernel, SMALL)) == 100


def test_a_removal_undoes_a_ban_of_its_batch_that_filled_the_set(
    changes: Kind, kernel: NetlinkConnection
) -> None:
    """A ban takes the last room, and removals of absent bans have none: its own removal is carried out."""
    apply(changes, (SMALL, adds(99)))
    batch = [*adds(100)[99:], *removes(104)[:98:-1]]
    assert {one.error for one in apply(changes, (SMALL, batch))} == {None}
    assert {element.network for element in listed(kernel, SMALL)} == {one.network for one in adds(99)}


def test_a_missing_set_affects_no_other(changes: Kind, kernel: NetlinkConnection) -> None:
    """Bans for a missing set are refused one by one; those of other sets are carried out."""
    run("nft", "delete set inet ringfence ban4_32")
    outcomes = apply(changes, (SMALL, adds(3)), (LARGE, adds(3, scope=Scope.SIP_UDP)))
    missing = (
        "set ban4_32 of table inet ringfence is gone: another program removed it; opening the firewall again"
    )
    assert [str(one.error) for one in outcomes[:3]] == [f"{missing} creates it"] * 3
    assert [one.error for one in outcomes[3:]] == [None] * 3
    run("nft", "delete table inet ringfence")
    assert all(one.error is not None for one in apply(changes, (LARGE, adds(2, scope=Scope.SIP_UDP))))


def test_a_refused_element_affects_no_other(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each element that the kernel refuses is reported, and all others are carried out."""
    bad = {7, 8, 50, 51, 80, 99}
    real = kernel.transact

    def transact(*messages: bytes) -> list[Refusal]:
        """Refuse the first bad element of each message with its position, as the kernel does."""
        refusals = []
        for index, message in enumerate(messages):
            size = int.from_bytes(message[52:54], "little")
            keys = [message[at + size - 4 : at + size] for at in range(52, len(message), size)]
            numbers = [int.from_bytes(key, "big") - 0x0A000000 for key in keys]
            wrong = next((n for n, number in enumerate(numbers) if number in bad), None)
            if wrong is not None:
                refusals.append(Refusal(index, 95, 52 + wrong * size))
        return refusals or real(*messages)

    monkeypatch.setattr(kernel, "transact", transact)
    outcomes = apply(changes, (SMALL, adds(100)))

    assert {number for number, one in enumerate(outcomes) if one.error is not None} == bad
    assert "Operation not supported" in str(outcomes[7].error)
    assert len(listed(kernel, SMALL)) == 94


def test_a_refusal_without_a_position_concerns_its_message(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal without a position is reported for every change of its message."""
    monkeypatch.setattr(kernel, "transact", lambda *_messages: [Refusal(0, 12)])
    outcomes = apply(changes, (SMALL, adds(3)))
    assert all(isinstance(one.error, FirewallError) for one in outcomes)
    assert listed(kernel, SMALL) == []


def test_a_broken_connection_costs_one_timeout(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel stops answering, all unconfirmed changes are errors, after one timeout."""
    real, requests = kernel.transact, 0

    def dying(*messages: bytes) -> list[Refusal]:
        nonlocal requests
        requests += 1
        if requests > 1:
            raise NetlinkLostError("the kernel did not answer")
        return real(*messages)

    monkeypatch.setattr(kernel, "transact", dying)
    outcomes = apply(changes, (LARGE, adds(3000, scope=Scope.SIP_UDP)))

    assert [one.error is None for one in outcomes] == [True] * 1200 + [False] * 1800
    assert requests == 2


def test_alternating_changes_are_all_answered(changes: Kind) -> None:
    """3 000 changes that alternate between Add and Remove are thousands of messages, and none is lost."""
    batch = [
        change
        for add, remove in zip(
            adds(1500, scope=Scope.SIP_UDP), removes(1500, scope=Scope.SIP_UDP)[::-1], strict=True
        )
        for change in (add, remove)
    ]
    assert [one.error for one in apply(changes, (LARGE, batch))] == [None] * 3000


@pytest.mark.parametrize("done", [True, False])
def test_a_lost_answer_is_looked_up_and_not_repeated(
    changes: Kind,
    kernel: NetlinkConnection,
    monkeypatch: pytest.MonkeyPatch,
    done: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """After a lost answer each result is looked up: confirmed or refused, and sent only once."""
    apply(changes, (LARGE, adds(5, 100, scope=Scope.SIP_UDP)[3:]))
    real, requests = kernel.transact, 0

    def losing(*messages: bytes) -> list[Refusal]:
        nonlocal requests
        requests += 1
        if done:
            real(*messages)
        raise NetlinkLostError("the kernel's answer to a batch was lost")

    monkeypatch.setattr(kernel, "transact", losing)
    batch: list[Change] = [*adds(3, 300, scope=Scope.SIP_UDP), *removes(7, scope=Scope.SIP_UDP)[3:]]
    outcomes = apply(changes, (LARGE, batch))

    absent = [False, False, True, True]  # of the four removed two were never there
    assert [one.error is None for one in outcomes] == ([True] * 7 if done else [False] * 3 + absent)
    assert requests == 1
    assert len(listed(kernel, LARGE)) == (3 if done else 2)


def test_a_long_transaction_is_divided(
    changes: Kind, kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel accepts only short batches, a long one is divided; an indivisible one is an error."""
    real, most = kernel.transact, 20_000

    def small(*messages: bytes) -> list[Refusal]:
        if sum(map(len, messages)) > most:
            raise NetlinkTooLongError("the kernel accepts batches of 20000 bytes")
        return real(*messages)

    monkeypatch.setattr(kernel, "transact", small)
    assert [one.error for one in apply(changes, (LARGE, adds(1200, scope=Scope.SIP_UDP)))] == [None] * 1200
    assert len(listed(kernel, LARGE)) == 1200
    most = 50
    [refused] = apply(changes, (SMALL, adds(1)))
    assert isinstance(refused.error, NetlinkTooLongError)


RENEWALS = """
import json
from ipaddress import ip_network
from ringfence.firewall.contract import Add
from ringfence.firewall.nftables.backend import NftablesBackend
backend = NftablesBackend(release={release!r})
backend.open()
networks = [ip_network((0x20010db8 << 96 | n << 64, 64)) for n in range(1200)]
errors = [str(one.error) for t in (600, 900, 300) for one in backend.apply([Add(n, t) for n in networks])]
print(json.dumps([sorted(set(errors)), sorted({{round(one.timeout / 10) for one in backend.list()}})]))
"""


@pytest.mark.parametrize("release", ["6.1.0", "6.18.0"])
def test_the_root_of_a_container_renews(release: str) -> None:
    """1 200 IPv6 bans are renewed at once by the root of a user namespace, also before kernel 6.12."""
    if why := why_no_user_namespace():
        pytest.skip(why)
    assert in_user_namespace(RENEWALS.format(release=release)) == [["None"], [30]]
