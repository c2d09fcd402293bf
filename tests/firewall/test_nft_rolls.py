"""The rolls of nftables: only differences are sent, what is doubtful goes whole, and nobody is missing."""

import itertools
import threading
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_network

import hypothesis.strategies as st
import pytest
from attrs import evolve
from hypothesis import given
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import nft_elements, nftables
from ringfence.firewall.contract import Pulse, Roll
from ringfence.firewall.netlink import Conversation, NetlinkError, Refusal
from ringfence.firewall.nft_messages import SetHead
from ringfence.firewall.nft_rolls import Ranges, Rolls, differences
from ringfence.firewall.nft_state import read_sets
from ringfence.firewall.nftables import NftablesBackend
from ringfence.model import Network

BASE = 0x0A000000


@pytest.fixture
def backend(netns: None) -> Iterator[NftablesBackend]:
    """The backend, opened."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all transactions from now on."""
    lengths: list[int] = []
    real = Conversation.transact

    def transact(self: Conversation, messages: list[bytes]) -> object:
        lengths.append(sum(map(len, messages)))
        return real(self, messages)

    monkeypatch.setattr(Conversation, "transact", transact)
    return lengths


def nets(*texts: str) -> list[Network]:
    """Give the networks of these texts."""
    return [ip_network(text) for text in texts]


def denied(version: int = 4) -> str:
    """Give what nft lists of the denied."""
    listed = run("nft", "list", "set", "inet", "ringfence", f"deny{version}")
    return " ".join(listed.partition("elements = {")[2].partition("}")[0].split())


networks = st.builds(
    lambda address, length: IPv4Network((BASE + address, length), strict=False),
    st.integers(0, 255),
    st.integers(24, 32),
)


@given(st.lists(networks, max_size=12), st.lists(networks, max_size=12))
def test_differences_lead_from_the_one_to_the_other(before: list[Network], after: list[Network]) -> None:
    """Without what only the one has, and with what only the other has, it is the other; nothing else goes."""
    held, wanted = Ranges.of(4, before), Ranges.of(4, after)
    gone, new = differences(held, wanted)

    assert sorted({*held} - {*gone} | {*new}) == [*wanted] == nft_elements.merged(after)
    assert not {*gone} & {*wanted}
    assert not {*new} & {*held}


def test_ranges_are_packed() -> None:
    """Ranges of both IP versions are read as they were given, in 8 and in 32 bytes each, and counted."""
    four = Ranges.of(4, nets("192.0.2.0/24", "10.0.0.0/8"))
    six = Ranges.of(6, nets("2001:db8::/32", "ff00::/8"))

    assert [*four] == [(BASE, BASE + 0xFFFFFF), (0xC0000200, 0xC00002FF)]
    assert [*six][1] == (0xFF << 120, (1 << 128) - 1)
    assert (len(four.packed), len(six.packed)) == (16, 64)
    assert (len(four), four.counted, len(six), six.counted) == (2, 2, 2, 1)


class Confirming(Conversation):
    """Confirms everything."""

    def transact(self, messages: object) -> list[Refusal]:
        """Refuse nothing."""
        return []


def heads(counted: int | None) -> list[SetHead]:
    """Give the heads of the sets of those who are denied."""
    return [SetHead("deny4", 1, 4, 4, 0, 0, counted), SetHead("deny6", 2, 4, 16, 0, 0, 0)]


@pytest.mark.parametrize("counted", [0, 2])
def test_what_the_kernel_does_not_confirm_goes_whole(counted: int) -> None:
    """Where the kernel counts others than were given, it is trouble, and nothing is taken for known."""
    rolls, wanted = Rolls(), nets("10.0.0.0/24")
    rolls.send(Confirming(), rolls.filling(Roll.DENY, wanted, heads(1)))
    assert rolls.trouble(heads(1)) is None
    assert rolls.filling(Roll.DENY, wanted, heads(1)).parts == []

    filling = rolls.filling(Roll.DENY, wanted, heads(counted))
    assert filling.parts[0] == nft_elements.clear("ringfence", "deny4")
    assert rolls.trouble(heads(counted)) == f"set deny4 has {counted} elements and was given 1"
    rolls.forget()
    assert rolls.trouble(heads(counted)) is None
    assert len(rolls.filling(Roll.DENY, [], heads(1)).parts) == 2


def test_where_the_kernel_does_not_count_others_make_a_doubt() -> None:
    """Without a count what is remembered holds until somebody else changes anything; then it goes whole."""
    rolls, wanted = Rolls(), nets("10.0.0.0/24")
    rolls.send(Confirming(), rolls.filling(Roll.DENY, wanted, heads(None)))
    assert rolls.trouble(heads(None)) is None
    assert rolls.filling(Roll.DENY, wanted, heads(None)).parts == []

    rolls.doubt()
    assert rolls.filling(Roll.DENY, wanted, heads(1)).parts == []
    filling = rolls.filling(Roll.DENY, wanted, heads(None))
    assert filling.parts[0] == nft_elements.clear("ringfence", "deny4")
    rolls.send(Confirming(), filling)
    assert rolls.filling(Roll.DENY, wanted, heads(None)).parts == []


@pytest.mark.kernel
def test_only_differences_are_sent(backend: NftablesBackend, sent: list[int]) -> None:
    """One line more or less of many is some bytes, and nothing is nothing; what is on the roll is right."""
    many = [ip_network((BASE + n * 512, 24)) for n in range(2_000)]
    backend.fill(Roll.DENY, many)
    [whole] = sent
    backend.fill(Roll.DENY, reversed(many))
    assert len(sent) == 1

    for on_it in ([*many, *nets("192.0.2.0/24", "2001:db8::/32")], many[1:], [*many, *nets("10.0.1.0/24")]):
        backend.fill(Roll.DENY, on_it)
        assert sent[-1] < whole / 50
    assert denied().startswith("10.0.0.0-10.0.2.255, 10.0.4.0/24")
    assert denied(6) == ""
    assert backend.pulse() == Pulse(elements=0)


@pytest.mark.kernel
def test_any_roll_follows_any_other(backend: NftablesBackend) -> None:
    """Ranges that grow, shrink, split, join and reach both ends: nft lists what was given last."""
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
        backend.fill(Roll.DENY, nets(*texts))
        fresh = denied()
        backend._rolls.forget()
        backend.fill(Roll.DENY, nets(*texts))
        assert fresh == denied()
        assert backend.pulse() == Pulse(elements=0)


@pytest.mark.kernel
def test_what_somebody_took_out_is_trouble_and_put_in_again(backend: NftablesBackend) -> None:
    """A roll that somebody emptied is named by the next look, and filled whole."""
    given_ = nets("10.0.0.0/24", "192.0.2.0/24")
    backend.fill(Roll.DENY, given_)
    run("nft", "flush set inet ringfence deny4")
    pulse = backend.pulse()
    assert pulse.changed
    assert pulse.trouble in (None, "set deny4 has 0 elements and was given 2")  # None: it does not count
    backend.open()
    backend.fill(Roll.DENY, given_)
    assert denied() == "10.0.0.0/24, 192.0.2.0/24"
    assert backend.pulse() == Pulse(elements=0)


@pytest.mark.kernel
@pytest.mark.parametrize("by_others", [False, True])
def test_without_a_count_a_change_of_others_is_heard(
    backend: NftablesBackend,
    sent: list[int],
    monkeypatch: pytest.MonkeyPatch,
    by_others: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """On a kernel that does not count, only a roll behind a change of somebody else goes whole."""
    monkeypatch.setattr(
        nftables, "read_sets", lambda kernel: [evolve(head, elements=None) for head in read_sets(kernel)]
    )
    given_ = nets("10.0.0.0/24", "192.0.2.0/24")
    backend.fill(Roll.DENY, given_)
    if by_others:
        run("nft", "flush set inet ringfence deny4")
    backend.fill(Roll.DENY, given_)
    assert len(sent) == 1 + by_others
    assert denied() == "10.0.0.0/24, 192.0.2.0/24"


@pytest.mark.kernel
def test_differences_that_are_refused_go_whole(backend: NftablesBackend, sent: list[int]) -> None:
    """Where somebody put as many in as he took out, what is refused goes whole, and it is right again."""
    backend.fill(Roll.DENY, nets("10.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24"))
    run("nft", "delete element inet ringfence deny4 { 10.0.0.0/24 }")
    run("nft", "add element inet ringfence deny4 { 172.16.0.0/12 }")
    backend.fill(Roll.DENY, nets("192.0.2.0/24", "198.51.100.0/24"))
    assert len(sent) == (3 if read_sets(backend._kernel)[0].elements is not None else 2)
    assert denied() == "192.0.2.0/24, 198.51.100.0/24"


@pytest.mark.kernel
def test_a_set_that_is_gone_is_told_also_of_differences(backend: NftablesBackend) -> None:
    """Where the set is gone nothing is remembered of the roll; opening mends it, and it goes whole."""
    backend.fill(Roll.DENY, nets("10.0.0.0/24"))
    run("nft", "flush table inet ringfence; delete set inet ringfence deny4")
    with pytest.raises(FirewallError, match="list deny is gone"):
        backend.fill(Roll.DENY, nets("10.0.0.0/24"))
    backend.open()
    backend.fill(Roll.DENY, nets("10.0.0.0/24"))
    assert denied() == "10.0.0.0/24"


@pytest.mark.kernel
def test_who_is_on_both_is_never_missing(backend: NftablesBackend) -> None:
    """While ranges around an address grow, shrink and move, it is found at every look."""
    steady = ip_network("10.0.0.7")
    shapes = [nets("10.0.0.0/24"), nets("10.0.0.4/30", "10.0.1.0/24"), nets("10.0.0.0/22"), nets("10.0.0.7")]
    filler = [ip_network((0x14000000 + n * 512, 24)) for n in range(500)]
    backend.fill(Roll.DENY, [*filler, *shapes[0]])
    done, looks, missed = threading.Event(), itertools.count(), list[NetlinkError]()

    def watch() -> None:
        with Conversation(extended=True) as other:
            while not done.is_set():
                try:
                    other.request(nft_elements.query("ringfence", "deny4", steady))
                except NetlinkError as error:
                    missed.append(error)
                next(looks)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(400):
            backend.fill(Roll.DENY, [*filler[turn % 7 :], *shapes[turn % len(shapes)]])
    finally:
        done.set()
        watcher.join()
    assert missed == []
    assert next(looks) > 10
