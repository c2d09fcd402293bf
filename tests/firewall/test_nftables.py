"""The nftables backend against the real kernel: what it finds, heals, refuses and leaves alone."""

import errno
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallPermissionError, FirewallUnsupportedError
from ringfence.firewall import nft_changes, nft_rules, nft_tool, nftables
from ringfence.firewall.contract import (
    Add,
    Element,
    Limit,
    LimitMode,
    Opened,
    Outcome,
    Plan,
    Pulse,
    Remove,
    Roll,
    Verdict,
)
from ringfence.firewall.netlink import Conversation, NetlinkError, NetlinkInterruptedError
from ringfence.firewall.nft_rules import Ruleset
from ringfence.firewall.nftables import NftablesBackend
from ringfence.firewall.probe import verify
from ringfence.model import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

FOREIGN = """\
table inet theirs {
  set banned { type ipv4_addr; elements = { 203.0.113.9 } }
  chain input { type filter hook input priority filter; policy accept; ip saddr @banned drop; }
}
table ip raw {
  chain PREROUTING { type filter hook prerouting priority raw; policy accept; }
}
"""
BOTH = {4: None, 6: None}
BANS = [
    Add(ip_network("192.0.2.1"), 600.0),
    Add(ip_network("2001:db8::/64"), 600.0),
    Add(ip_network("198.51.100.0/20", strict=False), 600.0),
    Add(ip_network("192.0.2.7"), 600.0, Scope.SIP_UDP),
]


@pytest.fixture
def backend(netns: None) -> Iterator[NftablesBackend]:
    """The backend, opened."""
    made = NftablesBackend()
    made.open()
    yield made
    made.close()


def banned(backend: NftablesBackend) -> set[tuple[str, Scope]]:
    """Give what is banned."""
    return {(str(element.network), element.scope) for element in backend.list()}


def ruleset_text() -> str:
    """Give the rules of this namespace as nft lists them, without what changes by itself."""
    return run("nft", "-s", "-t", "list", "ruleset")


ALL = {
    ("192.0.2.1/32", Scope.FULL),
    ("2001:db8::/64", Scope.FULL),
    ("198.51.96.0/20", Scope.FULL),
    ("192.0.2.7/32", Scope.SIP_UDP),
}
FULL = {one for one in ALL if one[1] is Scope.FULL}


def test_bans_of_each_scope_and_length_are_listed(backend: NftablesBackend) -> None:
    """Both scopes and any prefix length go in and are listed; a network may be banned in each scope."""
    network = ip_network("192.0.2.1")
    changes = [*BANS, Add(network, 60.0, Scope.SIP_UDP)]
    assert backend.apply(changes) == [Outcome(change, change.timeout) for change in changes]
    assert banned(backend) == ALL | {("192.0.2.1/32", Scope.SIP_UDP)}

    backend.apply([Remove(network)])
    assert banned(backend) == ALL - {("192.0.2.1/32", Scope.FULL)} | {("192.0.2.1/32", Scope.SIP_UDP)}


def test_a_new_prefix_length_stays(backend: NftablesBackend) -> None:
    """A length that has no set gets one when it is first banned, over a restart and a new plan too."""
    backend.apply(BANS)
    assert backend.pulse() == Pulse(elements=4)
    assert backend.apply([Remove(ip_network("10.0.0.0/9"))]) == [Outcome(Remove(ip_network("10.0.0.0/9")))]
    backend.close()

    other = NftablesBackend(Plan(log_group=7, limit=Limit(LimitMode.OBSERVE)))
    assert other.open() == Opened(BOTH, adopted=4)
    assert banned(other) == ALL
    assert "ip saddr & 255.255.240.0 == @ban4_20 goto from_banned" in ruleset_text()
    other.close()


def test_a_restart_changes_nothing(backend: NftablesBackend) -> None:
    """A second process with the same plan adopts what stands, and finds nothing to heal."""
    backend.apply(BANS[:2])
    backend.close()
    before = ruleset_text()
    second = NftablesBackend()
    assert second.open() == Opened(BOTH, adopted=2)
    assert ruleset_text() == before
    second.close()


@pytest.mark.parametrize("damage", ["flush table", "flush chain"])
def test_damage_before_a_restart_is_healed(backend: NftablesBackend, damage: str) -> None:
    """What somebody did while nobody looked is brought back, and that is said."""
    backend.close()
    run("nft", f"{damage} inet ringfence {'output' if damage == 'flush chain' else ''}")
    second = NftablesBackend()
    assert second.open() == Opened(BOTH, healed=True)
    assert second.open() == Opened(BOTH)
    second.close()


def test_a_plan_may_be_replaced(backend: NftablesBackend) -> None:
    """Every plan may follow every other one, there and back, and no element is lost."""
    backend.apply(BANS)
    before = ruleset_text()
    for plan in (
        Plan(verdict=Verdict.TCP_RESET, interfaces=("lo",), log=True),
        Plan(every_port=False, limit=Limit(LimitMode.ENFORCE), log_group=5),
        Plan(verdict=Verdict.ADMIN_PROHIBITED),
    ):
        backend.plan = plan
        for _ in range(2):
            assert backend.open() == Opened(BOTH, adopted=4)
        assert banned(backend) == ALL
        assert backend.pulse().trouble is None
    backend.plan = Plan()
    backend.open()
    assert "reject" not in ruleset_text()
    assert sorted(line for line in ruleset_text().splitlines() if "jump" in line or "goto" in line) == sorted(
        line for line in before.splitlines() if "jump" in line or "goto" in line
    )


@pytest.mark.parametrize(
    ("damage", "left"),
    [
        ("nft flush ruleset", set()),
        ("nft delete table inet ringfence", set()),
        ("nft flush table inet ringfence", ALL),
        ("nft flush chain inet ringfence prerouting", ALL),
        ("nft insert rule inet ringfence prerouting accept", ALL),
        ("nft 'add table inet ringfence { flags dormant; }'", ALL),
        ("nft 'flush table inet ringfence; delete chain inet ringfence output'", ALL),
        ("nft 'flush table inet ringfence; delete set inet ringfence sip4_32'", FULL),
        ("nft 'add chain inet ringfence output { policy drop; }'", ALL),
    ],
)  # fmt: skip
def test_damage_is_seen_and_healed(
    backend: NftablesBackend, damage: str, left: set[tuple[str, Scope]]
) -> None:
    """Whatever somebody does to the table is told by each look, until open() has brought it all back."""
    backend.apply(BANS)
    assert backend.pulse() == Pulse(elements=4)
    whole = ruleset_text()
    run("sh", "-c", damage)

    first, second = backend.pulse(), backend.pulse()
    assert first.changed
    assert first.trouble is not None
    assert "ringfence" in first.trouble
    assert (second.trouble, second.changed) == (first.trouble, False)
    opened = backend.open()
    assert (opened.families, opened.healed) == (BOTH, True)
    assert banned(backend) == left
    assert backend.pulse() == Pulse(elements=len(left))
    assert {outcome.error for outcome in backend.apply(BANS)} == {None}
    assert banned(backend) == ALL
    assert ruleset_text() == whole or "ban4_20" not in {name for name, _ in left}


def test_changes_of_others_elsewhere_are_no_trouble(backend: NftablesBackend) -> None:
    """Rules of somebody else's are a change and no trouble; our own changes are none at all."""
    backend.apply(BANS)
    backend.fill(Roll.ALLOW, [ip_network("10.0.0.0/8")])
    backend.fill(Roll.DENY, [ip_network((0x0A000000 + n * 2, 32)) for n in range(5000)])
    assert backend.pulse() == Pulse(elements=4)
    run("nft", "-f", "-", text=FOREIGN)
    assert backend.pulse() == Pulse(elements=4, changed=True)
    assert backend.pulse() == Pulse(elements=4)


def test_a_change_wakes_who_waits(backend: NftablesBackend) -> None:
    """What others change makes the descriptor readable at once."""
    backend.pulse()
    run("nft", "add", "table", "inet", "theirs")
    descriptor = backend.watch_fd()
    assert descriptor is not None
    with socket.fromfd(descriptor, socket.AF_NETLINK, socket.SOCK_RAW) as told:
        assert told.recv(1 << 14, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def test_flush_of_our_sets_is_a_change_with_fewer_elements(backend: NftablesBackend) -> None:
    """A set that somebody empties is no trouble of rules: it shows as a change, and in the number of bans."""
    backend.apply(BANS)
    run("nft", "flush", "set", "inet", "ringfence", "ban4_32")
    assert backend.pulse() in (Pulse(elements=3, changed=True), Pulse(elements=None, changed=True))


def test_a_change_while_a_long_list_is_filled_is_noticed(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the watch is closed for a long list, somebody's change is seen by the generation's number."""
    real = Conversation.transact

    def transact(self: Conversation, messages: object) -> object:
        run("nft", "flush", "chain", "inet", "ringfence", "output")
        return real(self, messages)  # type: ignore[arg-type]

    backend.pulse()
    monkeypatch.setattr(Conversation, "transact", transact)
    backend.fill(Roll.DENY, [ip_network((0x0A000000 + n * 2, 32)) for n in range(5000)])
    monkeypatch.undo()
    pulse = backend.pulse()
    assert pulse.changed
    assert "chain output" in (pulse.trouble or "")


def test_without_notifications_every_look_compares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the group cannot be joined, damage is seen all the same."""

    class Deaf:
        def __init__(self) -> None:
            raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(nftables, "Watch", Deaf)
    backend = NftablesBackend()
    backend.open()
    assert backend.watch_fd() is None
    assert backend.pulse() == Pulse(elements=0)
    run("nft", "flush", "chain", "inet", "ringfence", "output")
    assert "chain output" in (backend.pulse().trouble or "")
    backend.close()


def test_rules_that_change_at_once_are_put_in_again(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody undoes right behind us is put in again; whoever goes on undoing it is told."""
    real, times = nft_tool.run_nft, 0

    def undone(program: str, text: str) -> int:
        nonlocal times
        port = real(program, text)
        times += 1
        if times != 2:
            run("nft", "flush", "chain", "inet", "ringfence", "output")
        return port

    monkeypatch.setattr(nftables, "run_nft", undone)
    backend.plan = Plan(log=True)
    backend.open()
    assert times == 2
    times = 2
    backend.plan = Plan()
    with pytest.raises(FirewallError, match="changed by somebody as soon as"):
        backend.open()


def test_rolls_are_filled_and_emptied(backend: NftablesBackend) -> None:
    """Each list holds exactly what it was last given, overlapping networks and none at all."""
    backend.fill(Roll.ALLOW, [ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32")])
    backend.fill(Roll.ALLOW, [ip_network(text) for text in ("10.1.0.0/16", "10.1.2.0/24")])
    listed = run("nft", "list", "set", "inet", "ringfence", "allow4")
    assert "elements = { 10.1.0.0/16 }" in listed
    assert "elements" not in run("nft", "list", "set", "inet", "ringfence", "allow6")
    backend.fill(Roll.ALLOW, [])
    assert "elements" not in run("nft", "list", "set", "inet", "ringfence", "allow4")


def test_a_hundred_thousand_are_denied(backend: NftablesBackend) -> None:
    """A list of a hundred thousand networks goes in, another, and it again, in one transaction each."""
    many = [ip_network((0x0A000000 + n * 512, 24)) for n in range(50_000)]
    many += [ip_network(((0xFD000000 << 96) + (n << 80), 48)) for n in range(0, 100_000, 2)]
    for on_it in (many, [ip_network("192.0.2.0/24")], many):
        before = backend._generation()
        backend.fill(Roll.DENY, on_it)
        assert backend._generation() == before + 1
    assert backend.usage().sets["deny"] in (100_000, None)
    assert backend.pulse() == Pulse(elements=0)


def test_a_roll_whose_set_is_gone_is_told(backend: NftablesBackend) -> None:
    """Where the set is gone, fill raises, and open mends it."""
    run("nft", "flush table inet ringfence; delete set inet ringfence deny6")
    with pytest.raises(FirewallError, match="list deny is gone"):
        backend.fill(Roll.DENY, [ip_network("192.0.2.0/24")])
    backend.open()
    backend.fill(Roll.DENY, [ip_network("192.0.2.0/24")])
    assert "192.0.2.0/24" in run("nft", "list", "set", "inet", "ringfence", "deny4")


def test_a_hundred_thousand_bans(backend: NftablesBackend) -> None:
    """A hundred thousand bans of both families go in, are listed and are removed, all confirmed."""
    bans = [Add(ip_network((0x0A000000 + n, 32)), 600.0) for n in range(50_000)]
    bans += [Add(ip_network(((0xFD000000 << 96) + (n << 64), 64)), 600.0) for n in range(50_000)]

    assert {outcome.error for outcome in backend.apply(bans)} == {None}
    assert {element.network for element in backend.list()} == {ban.network for ban in bans}
    assert {outcome.error for outcome in backend.apply([Remove(ban.network) for ban in bans])} == {None}
    assert list(backend.list()) == []


def test_a_list_that_is_changed_meanwhile_is_read_again(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dump that is not of one state is read again, at most three times, and nothing is given twice."""
    backend.apply(BANS[:1])
    real, dumps = Conversation.stream, 0

    def disturbed(self: Conversation, message: bytes) -> Iterator[bytes]:
        nonlocal dumps
        dumps += 1
        yield from real(self, message)
        yield from real(self, message)
        raise NetlinkInterruptedError("changed")

    monkeypatch.setattr(Conversation, "stream", disturbed)
    [element] = backend.list()
    assert str(element.network) == "192.0.2.1/32"
    assert dumps % 3 == 0


def test_what_others_put_in_is_listed(backend: NftablesBackend) -> None:
    """An element without an end that somebody put into our set is listed with one of infinity."""
    run("nft", "add", "element", "inet", "ringfence", "ban4_24", "{ 198.51.100.0 }")
    assert list(backend.list()) == [Element(ip_network("198.51.100.0/24"), float("inf"), 0, 0)]


def test_flush_leaves_what_others_have_and_nothing_else() -> None:
    """After open, bans, lists and flush the host's rules are what they were before."""
    run("nft", "-f", "-", text=FOREIGN)
    before = ruleset_text()
    backend = NftablesBackend()
    backend.open()
    backend.apply(BANS)
    backend.fill(Roll.ALLOW, [ip_network("10.0.0.0/8")])
    assert ruleset_text() != before

    backend.flush()
    backend.flush()
    backend.close()
    assert ruleset_text() == before
    with pytest.raises(FirewallError, match="not open"):
        backend.apply(BANS)
    with pytest.raises(FirewallError, match="not open"):
        backend.pulse()


def test_flush_and_list_of_an_untouched_host_change_nothing() -> None:
    """Where nothing of ours is, flush and list are fine and nothing is made."""
    backend = NftablesBackend()
    assert list(backend.list()) == []
    backend.flush()
    backend.close()
    assert ruleset_text() == ""


def test_a_wrong_set_is_refused_before_anything_changes() -> None:
    """A set of our name that is none of ours is named with the mend; nothing was made; flush removes it."""
    run("nft", "add table inet ringfence; add set inet ringfence ban4_32 { type ipv4_addr; }")
    before = ruleset_text()
    backend = NftablesBackend()
    with pytest.raises(FirewallError, match=r"ban4_32 of table inet ringfence exists and .*`ringfence off`"):
        backend.open()
    assert ruleset_text() == before
    backend.flush()
    backend.open()
    backend.close()


@pytest.mark.parametrize(
    "body",
    ["ban4_32 { type ipv4_addr; flags timeout; }", "deny4 { type ipv4_addr; flags interval; counter; }"],
)
def test_a_set_made_in_another_way_is_told_with_the_mend(body: str) -> None:
    """A set that looks like ours and that the kernel does not take for ours is an error with the mend."""
    run("nft", f"add table inet ringfence; add set inet ringfence {body}")
    before = ruleset_text()
    backend = NftablesBackend()
    with pytest.raises(FirewallError, match=r"File exists .*mend: `ringfence off`, or `nft delete table"):
        backend.open()
    assert ruleset_text() == before
    backend.flush()
    backend.open()
    backend.close()


@pytest.mark.parametrize("there", ["", "; add set inet ringfence ours { type ipv4_addr; }"])
def test_a_dormant_table_is_woken(there: str) -> None:
    """A table of our name that sleeps, with nothing of ours in it, is woken: its bans work."""
    run("nft", f"add table inet ringfence {{ flags dormant; }}{there}")
    backend = NftablesBackend()
    backend.open()
    assert backend.pulse() == Pulse(elements=0)
    assert [check.verified for check in verify(backend, {4: None}).checks] == [True, True]
    run("nft", "add table inet ringfence { flags dormant; }; delete chain inet ringfence output")
    assert "dormant" in (backend.pulse().trouble or "")
    assert backend.open().healed
    assert backend.pulse() == Pulse(elements=0)
    backend.close()


def test_only_cap_net_admin_is_needed() -> None:
    """With CAP_NET_ADMIN alone everything works: open, bans, lists, looks, flush."""
    script = """
from ipaddress import ip_network
from ringfence.firewall.contract import *
from ringfence.firewall.nftables import NftablesBackend
backend = NftablesBackend(Plan(log_group=7, limit=Limit(LimitMode.ENFORCE)))
print([part.lack for part in backend.look()])
print(backend.open())
print([outcome.error for outcome in backend.apply([Add(ip_network("10.0.0.0/9"), 60.0)])])
backend.fill(Roll.DENY, [ip_network((n * 2, 32)) for n in range(5000)])
print(backend.pulse(), backend.watch_fd() is None, len(list(backend.list())), backend.usage().limiter_drops)
backend.flush()
"""
    # Not as another user, who may not be allowed to read these files.
    alone = ["--inh-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"]
    command = ["setpriv", *alone, sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/bin"}
    )

    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == "[None, None, None]"
    assert lines[1] == repr(Opened(BOTH))
    assert lines[2] == "[None]"
    assert lines[3] in {f"{Pulse(elements=number)!r} False 1 0" for number in (1, None)}
    assert ruleset_text() == ""


def test_without_cap_net_admin_it_is_named_before_anything_changes() -> None:
    """Without the capability open() and flush() name it, look() says so, and nothing has changed."""
    script = """
from ringfence.firewall.nftables import NftablesBackend
from ringfence.errors import FirewallPermissionError
for verb in ("open", "flush"):
    try:
        getattr(NftablesBackend(), verb)()
    except FirewallPermissionError as error:
        print(error)
print(NftablesBackend().look()[0].lack)
"""
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (
        done.stdout.count("the firewall needs CAP_NET_ADMIN, which this process lacks; the systemd unit") == 3
    )
    assert ruleset_text() == ""


def test_a_missing_nft_is_named_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nft the error names the package, and nothing was made."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(nft_tool, "_FOLDERS", ())
    backend = NftablesBackend()
    with pytest.raises(FirewallUnsupportedError, match=r"nft is not installed; .*apt-get install nftables"):
        backend.open()
    lack = [part.lack for part in backend.look()]
    assert lack[:2] == [None, None]
    assert "apt-get install nftables" in (lack[2] or "")
    backend.close()
    monkeypatch.undo()
    assert ruleset_text() == ""


def test_a_kernel_without_nftables_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no nftables, look, open, list and flush say which module is lacking."""

    def refuse(_self: Conversation, *_messages: bytes) -> list[bytes]:
        raise NetlinkError(errno.EINVAL, b"")

    monkeypatch.setattr(Conversation, "request", refuse)
    backend = NftablesBackend()
    part = backend.look()[1]
    assert part.what == "nftables in the kernel"
    assert (part.lack or "").startswith(
        "this kernel has no nftables; mend: `modprobe nf_tables` (CONFIG_NF_TABLES;"
    )
    for verb in (backend.open, backend.flush, lambda: list(backend.list())):
        with pytest.raises(FirewallUnsupportedError, match="modprobe nf_tables"):
            verb()


def test_a_host_without_ipv6_is_guarded_for_ipv4(tmp_path: Path) -> None:
    """No IPv6 is a state, not an error: IPv4 is guarded, and an IPv6 ban says why it cannot be."""
    (tmp_path / "self/net").mkdir(parents=True)
    shutil.copy("/proc/self/status", tmp_path / "self/status")
    backend = NftablesBackend(proc=tmp_path)
    assert backend.open() == Opened({4: None, 6: "this host has no IPv6"})
    first, second = backend.apply([BANS[1], BANS[0]])
    assert isinstance(first.error, FirewallUnsupportedError)
    assert second == Outcome(BANS[0], 600.0)
    backend.close()


@pytest.mark.parametrize(
    ("refused", "told"),
    [("log group", ("wire",)), ("limit rate over", ("limiter",)), ("fib", ("wire", "limiter"))],
)
def test_what_the_kernel_lacks_beside_the_drops_is_told(
    monkeypatch: pytest.MonkeyPatch, refused: str, told: tuple[str, ...]
) -> None:
    """Where log rule or limiter is refused the drops stand without it, after damage too, and it is told."""
    real = nft_rules.text_of

    def text_of(rules: Ruleset, **options: object) -> str:
        return real(rules, **options).replace(refused, "unknown-to-all")  # type: ignore[arg-type]

    monkeypatch.setattr(nftables, "text_of", text_of)
    backend = NftablesBackend(Plan(log_group=7, limit=Limit(LimitMode.ENFORCE)))
    for _ in range(2):
        opened = backend.open()
        assert opened.families == BOTH
        assert (opened.wire is not None, opened.limiter is not None) == ("wire" in told, "limiter" in told)
        assert all("nft failed" in why for why in (opened.wire, opened.limiter) if why)
        assert {outcome.error for outcome in backend.apply(BANS)} == {None}
        assert list(backend.flooding()) == []
        run("nft", "flush", "chain", "inet", "ringfence", "output")
    backend.close()


def test_drops_that_are_refused_are_no_matter_of_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drops cannot stand either, open() fails with what the tool said."""
    monkeypatch.setattr(nftables, "text_of", lambda _rules, **_options: "unknown to all\n")
    backend = NftablesBackend(Plan(log_group=7))
    with pytest.raises(FirewallError, match="nft failed"):
        backend.open()
    with pytest.raises(FirewallError, match="not open"):
        backend.apply(BANS)
    backend.close()


def test_a_length_that_cannot_be_made_is_told(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the set for a length cannot be made its bans are refused with the reason, and others stand."""
    monkeypatch.setattr(nftables, "text_of", lambda _rules, **_options: "unknown to all\n")
    outcomes = backend.apply(BANS)
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, True]
    assert "nft failed" in str(outcomes[2].error)
    monkeypatch.undo()
    run("nft", "flush", "chain", "inet", "ringfence", "output")
    assert "opening the firewall again heals it" in str(backend.apply(BANS)[2].error)
    backend.open()
    assert {outcome.error for outcome in backend.apply(BANS)} == {None}


def test_a_dead_socket_is_replaced(backend: NftablesBackend) -> None:
    """A ban gets through although the socket was closed under the backend."""
    assert backend._kernel._socket is not None
    backend._kernel._socket.close()
    assert backend.apply(BANS[:1]) == [Outcome(BANS[0], 600.0)]


@pytest.mark.parametrize(
    ("release", "renews"),
    [
        ("6.12.0", True),
        ("6.18.44-fc-v669", True),
        ("7.0-rc1", True),
        ("6.11.9", False),
        ("6.1.0-13-amd64", False),
        ("5.14.0-427.el9.x86_64", False),
        ("strange", False),
    ],
)
def test_what_a_kernel_can_do_is_told_by_its_release(release: str, renews: bool) -> None:  # noqa: FBT001
    """From 6.12 on adding again renews; what cannot be read is taken for an old kernel."""
    assert nft_changes.renews(release) == renews


def test_an_old_kernel_is_guarded_as_well() -> None:
    """On a kernel that does not renew, bans go in, are renewed and lifted."""
    backend = NftablesBackend(release="6.1.0-13-amd64")
    backend.open()
    for timeout in (600.0, 30.0, 900.0):
        changes = [evolve(change, timeout=timeout) for change in BANS]
        assert {outcome.error for outcome in backend.apply(changes)} == {None}
        assert all(timeout - 2 <= element.timeout <= timeout for element in backend.list())
    removals = [Remove(change.network, change.scope) for change in BANS] * 2
    assert {outcome.error for outcome in backend.apply(removals)} == {None}
    assert list(backend.list()) == []
    with suppress(FirewallPermissionError):
        assert verify(backend, BOTH).verified
    backend.close()
