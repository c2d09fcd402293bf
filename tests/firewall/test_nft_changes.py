"""Changes in transactions: what the kernel says of each, old kernels and new, whatever is in the way."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import pytest
from attrs import frozen
from tests.support.netns import run

from ringfence.errors import FirewallError, SetFullError
from ringfence.firewall import nft_elements
from ringfence.firewall.contract import Add, Change, Element, Outcome, Remove
from ringfence.firewall.netlink import Conversation, NetlinkLostError, Refusal
from ringfence.firewall.nft_changes import Changes
from ringfence.firewall.nft_rules import BanSet
from ringfence.model import Scope

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
def kernel(netns: None) -> Iterator[Conversation]:
    """A conversation with this test's kernel, where the sets are made."""
    run("nft", "-f", "-", text=TABLE)
    with Conversation(extended=True) as made:
        yield made


@frozen
class Kind:
    """A kernel, and whether it renews."""

    kernel: Conversation
    modern: bool


@pytest.fixture(params=[True, False], ids=["modern", "old"])
def changes(request: pytest.FixtureRequest, kernel: Conversation) -> Kind:
    """The kernel as one that renews (6.12), and as one before."""
    return Kind(kernel, request.param)


def adds(number: int, timeout: float = 600.0, *, scope: Scope = Scope.FULL) -> list[Change]:
    """Give bans of so many addresses."""
    return [Add(ip_network((0x0A000000 + n, 32)), timeout, scope) for n in range(number)]


def removes(number: int, *, scope: Scope = Scope.FULL) -> list[Change]:
    """Lift bans of so many addresses."""
    return [Remove(ip_network((0x0A000000 + n, 32)), scope) for n in range(number)]


def apply(kind: Kind, *batches: tuple[BanSet, Sequence[Change]]) -> list[Outcome]:
    """Carry out all changes as one batch, and give their outcomes in order."""
    flat = [change for _, batch in batches for change in batch]
    unknown = FirewallError("nothing is known")
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


def listed(kernel: Conversation, ban: BanSet) -> list[Element]:
    """Give what is in a set."""
    return [
        element
        for answer in kernel.stream(nft_elements.dump("ringfence", ban.name))
        for element in nft_elements.bans_of(answer, ban.version, ban.length, ban.scope)
    ]


def counting(kernel: Conversation, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the transactions from now on: one entry each, the number of its messages."""
    sent: list[int] = []
    real = kernel.transact

    def transact(messages: Sequence[bytes]) -> list[Refusal]:
        sent.append(len(messages) - 2)
        return real(messages)

    monkeypatch.setattr(kernel, "transact", transact)
    return sent


def test_many_go_in_few_transactions(
    changes: Kind, kernel: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand changes of one verb take no more transactions than their chunks; all is confirmed."""
    sent = counting(kernel, monkeypatch)
    assert {one.error for one in apply(changes, (LARGE, adds(10_000, scope=Scope.SIP_UDP)))} == {None}
    assert sent == [1] * 9
    assert len(listed(kernel, LARGE)) == 10_000
    assert {one.error for one in apply(changes, (LARGE, removes(10_001, scope=Scope.SIP_UDP)))} == {None}
    assert len(sent) == 18
    assert listed(kernel, LARGE) == []


def test_times_are_renewed(changes: Kind, kernel: Conversation) -> None:
    """Adding again gives the new time, longer, shorter or the same, mixed with what was not there."""
    [first] = adds(1, 600.0)
    for timeout in (900.0, 30.0, 30.0):
        apply(changes, (SMALL, [first]))
        known = {element.network: element.timeout for element in listed(kernel, SMALL)}
        outcomes = apply(changes, (SMALL, adds(3, timeout)))
        assert [(one.timeout, one.error) for one in outcomes] == [(timeout, None)] * 3
        times = [element.timeout for element in listed(kernel, SMALL)]
        assert len(times) == 3
        assert all(timeout - 2 <= left <= timeout for left in times)
        assert len(known) in (1, 3)


def test_a_network_may_stand_twice_in_a_batch(changes: Kind, kernel: Conversation) -> None:
    """Twice added, twice removed, and both in turn: the last counts, and every change is confirmed."""
    ban, other = adds(2)
    again = Add(ban.network, 30.0)
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
    changes: Kind, kernel: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten thousand bans into a set for a hundred: the first are in, the others told, in few transactions."""
    sent = counting(kernel, monkeypatch)
    other = Add(ip_network("2001:db8::/64"), 60.0)

    outcomes = apply(changes, (SMALL, adds(10_000)), (V6, [other]))

    assert [one.error is None for one in outcomes] == [True] * 100 + [False] * 9900 + [True]
    assert {type(one.error) for one in outcomes[100:-1]} == {SetFullError}
    assert len(listed(kernel, SMALL)) == 100
    assert len(sent) <= 2 * 9 + 1
    assert len(listed(kernel, V6)) == 1


def test_in_a_full_set_the_known_are_renewed_and_removed(changes: Kind, kernel: Conversation) -> None:
    """Without room what is in is renewed and removed, what is not there is removed, and new ones are told."""
    apply(changes, (SMALL, adds(100)))

    outcomes = apply(changes, (SMALL, adds(120, 900.0)[90:]))
    assert [one.error is None for one in outcomes] == [True] * 10 + [False] * 20
    assert sum(element.timeout > 890 for element in listed(kernel, SMALL)) == 10

    outcomes = apply(changes, (SMALL, removes(120)[95:]))
    assert {one.error for one in outcomes} == {None}
    assert len(listed(kernel, SMALL)) == 95
    assert [one.error is None for one in apply(changes, (SMALL, adds(120)[95:]))] == [True] * 5 + [False] * 20


def test_room_that_a_batch_makes_is_used(changes: Kind, kernel: Conversation) -> None:
    """Who is let in makes room in the same batch for who is banned behind."""
    apply(changes, (SMALL, adds(100)))
    batch = [*removes(10), *adds(110)[100:]]
    assert {one.error for one in apply(changes, (SMALL, batch))} == {None}
    assert len(listed(kernel, SMALL)) == 100


def test_a_set_that_is_gone_takes_no_other_with_it(changes: Kind, kernel: Conversation) -> None:
    """Bans into a set that somebody removed are told one by one; those of other sets are carried out."""
    run("nft", "delete set inet ringfence ban4_32")
    outcomes = apply(changes, (SMALL, adds(3)), (LARGE, adds(3, scope=Scope.SIP_UDP)))
    gone = "set ban4_32 of table inet ringfence is gone: somebody removed it; opening the firewall again"
    assert [str(one.error) for one in outcomes[:3]] == [f"{gone} makes it anew"] * 3
    assert [one.error for one in outcomes[3:]] == [None] * 3
    run("nft", "delete table inet ringfence")
    assert all(one.error is not None for one in apply(changes, (LARGE, adds(2, scope=Scope.SIP_UDP))))


def test_a_refused_element_is_told_and_the_rest_goes_in(
    changes: Kind, kernel: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kernel refuses, many or few: each is told by itself, and all others are carried out."""
    bad = {7, 8, 50, 51, 80, 99}
    real = kernel.transact

    def transact(messages: Sequence[bytes]) -> list[Refusal]:
        """Refuse the first bad element of each message, as the kernel does, where it stands."""
        refusals = []
        for place, message in enumerate(messages[1:-1], 1):
            size = int.from_bytes(message[52:54], "little")
            keys = [message[at + size - 4 : at + size] for at in range(52, len(message), size)]
            numbers = [int.from_bytes(key, "big") - 0x0A000000 for key in keys]
            wrong = next((n for n, number in enumerate(numbers) if number in bad), None)
            if wrong is not None:
                refusals.append(Refusal(place, 95, 52 + wrong * size))
        return refusals or real(messages)

    monkeypatch.setattr(kernel, "transact", transact)
    outcomes = apply(changes, (SMALL, adds(100)))

    assert {number for number, one in enumerate(outcomes) if one.error is not None} == bad
    assert "Operation not supported" in str(outcomes[7].error)
    assert len(listed(kernel, SMALL)) == 94


def test_where_the_kernel_does_not_say_which_all_of_the_message_are_told(
    changes: Kind, kernel: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal without a place is told for every change of its message, and nothing is claimed."""
    monkeypatch.setattr(kernel, "transact", lambda _messages: [Refusal(1, 12)])
    outcomes = apply(changes, (SMALL, adds(3)))
    assert all(isinstance(one.error, FirewallError) for one in outcomes)
    assert listed(kernel, SMALL) == []


def test_a_broken_conversation_is_waited_for_once(
    changes: Kind, kernel: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the kernel stops answering, all but what was confirmed is an error, after one wait."""
    real, requests = kernel.transact, 0

    def dying(messages: Sequence[bytes]) -> list[Refusal]:
        nonlocal requests
        requests += 1
        if requests > 1:
            raise NetlinkLostError("the kernel did not answer")
        return real(messages)

    monkeypatch.setattr(kernel, "transact", dying)
    outcomes = apply(changes, (LARGE, adds(3000, scope=Scope.SIP_UDP)))

    assert [one.error is None for one in outcomes] == [True] * 1200 + [False] * 1800
    assert requests == 2
