"""The nftables backend against the real kernel: adoption, repair, refusals, and foreign tables."""

import errno
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import evolve
from tests.support.lists import write_list
from tests.support.netns import run

from ringfence.errors import (
    FirewallError,
    FirewallIncompleteError,
    FirewallPermissionError,
    FirewallUnsupportedError,
)
from ringfence.features.limiter.stage import Limit
from ringfence.firewall import network_lists, requirements
from ringfence.firewall.contract import Add, BanAction, Element, FirewallPlan, Health, Opened, Outcome, Remove
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables import backend as nft_backend
from ringfence.firewall.nftables import elements as nft_elements
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.state import read_generation, read_sets
from ringfence.firewall.probe import verify
from ringfence.netlink.connection import NetlinkConnection, NetlinkError, NetlinkInterruptedError
from ringfence.values.ban import Scope
from ringfence.values.network import Network

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
    Add(ip_network("192.0.2.1"), 600),
    Add(ip_network("2001:db8::/64"), 600),
    Add(ip_network("198.51.100.0/20", strict=False), 600),
    Add(ip_network("192.0.2.7"), 600, Scope.SIP_UDP),
]


def banned(backend: NftablesBackend) -> set[tuple[str, Scope]]:
    """Return the bans."""
    return {(str(element.network), element.scope) for element in backend.list()}


def ruleset_text() -> str:
    """Return the rules of this namespace as nft lists them, without counters and elements."""
    return run("nft", "-s", "-t", "list", "ruleset")


ALL = {
    ("192.0.2.1/32", Scope.FULL),
    ("2001:db8::/64", Scope.FULL),
    ("198.51.96.0/20", Scope.FULL),
    ("192.0.2.7/32", Scope.SIP_UDP),
}


FULL = {one for one in ALL if one[1] is Scope.FULL}


def test_bans_of_each_scope_and_length_are_listed(backend: NftablesBackend) -> None:
    """Bans of every scope and prefix length are listed; a network may be banned in each scope."""
    network = ip_network("192.0.2.1")
    changes = [*BANS, Add(network, 60, Scope.SIP_UDP)]
    assert backend.apply(changes) == [Outcome(change, change.timeout) for change in changes]
    assert banned(backend) == ALL | {("192.0.2.1/32", Scope.SIP_UDP)}

    backend.apply([Remove(network)])
    assert banned(backend) == ALL - {("192.0.2.1/32", Scope.FULL)} | {("192.0.2.1/32", Scope.SIP_UDP)}


def test_a_new_prefix_length_stays(backend: NftablesBackend) -> None:
    """The first ban of a prefix length makes its set, which survives a restart and a new plan."""
    backend.apply(BANS)
    assert backend.health() == Health(elements=4)
    assert backend.apply([Remove(ip_network("10.0.0.0/9"))]) == [Outcome(Remove(ip_network("10.0.0.0/9")))]
    backend.close()

    other = NftablesBackend(FirewallPlan(log_group=7, added=(Limit(LimitMode.OBSERVE),)))
    assert other.open() == Opened(BOTH, adopted=4)
    assert banned(other) == ALL
    assert "ip saddr & 255.255.240.0 == @ban4_20 goto from_banned" in ruleset_text()
    other.close()


@pytest.mark.parametrize("used", [True, False])
def test_a_prefix_length_without_bans_is_removed_at_the_start(
    backend: NftablesBackend,
    used: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """A start removes the set and the rules of a prefix length without bans, and keeps those with one."""
    if read_sets(backend._kernel)[0].elements is None:
        pytest.skip("this kernel does not count the elements of a set")
    ban = Add(ip_network("10.0.0.0/20"), 600)
    backend.apply([ban] if used else [ban, Remove(ban.network)])
    assert "@ban4_20 " in ruleset_text()
    backend.close()

    with closing(NftablesBackend()) as other:
        assert other.open() == Opened(BOTH, adopted=int(used))
        assert ("ban4_20" in ruleset_text()) is used
        assert other.open() == Opened(BOTH, adopted=int(used))
        assert other.apply([ban]) == [Outcome(ban, 600)]
        assert other.health() == Health(elements=1)


def test_a_restart_changes_nothing(backend: NftablesBackend) -> None:
    """A second process with the same plan adopts the table, and finds nothing to repair."""
    backend.apply(BANS[:2])
    backend.close()
    before = ruleset_text()
    second = NftablesBackend()
    assert second.open() == Opened(BOTH, adopted=2)
    assert ruleset_text() == before
    second.close()


@pytest.mark.parametrize("damage", ["flush table", "flush chain"])
def test_damage_before_a_restart_is_repaired(backend: NftablesBackend, damage: str) -> None:
    """Damage that happened while no process ran is repaired and reported."""
    backend.close()
    run("nft", f"{damage} inet ringfence {'output' if damage == 'flush chain' else ''}")
    second = NftablesBackend()
    assert second.open() == Opened(BOTH, repaired=True)
    assert second.open() == Opened(BOTH)
    second.close()


def test_what_a_feature_left_is_removed(backend: NftablesBackend) -> None:
    """Chains and sets that this release does not make are removed at the start, and bans stay."""
    backend.apply(BANS)
    backend.close()
    before = ruleset_text()
    run("nft", "add set inet ringfence gone4 { type ipv4_addr; flags dynamic; size 9; }")
    run("nft", "add chain inet ringfence gone")
    run("nft", "add rule inet ringfence gone ip saddr @gone4 drop")
    run("nft", "add rule inet ringfence prerouting jump gone")
    second = NftablesBackend()
    assert second.open().adopted == 4
    assert ruleset_text() == before
    second.close()


def test_a_plan_may_be_replaced(backend: NftablesBackend) -> None:
    """Every plan may follow every other one, there and back, and no element is lost."""
    backend.apply(BANS)
    before = ruleset_text()
    for plan in (
        FirewallPlan(action=BanAction.TCP_RESET, interfaces=("lo",), log=True),
        FirewallPlan(every_port=False, log_group=5, added=(Limit(LimitMode.ENFORCE),)),
        FirewallPlan(action=BanAction.ADMIN_PROHIBITED),
    ):
        backend.plan = plan
        for _ in range(2):
            assert backend.open() == Opened(BOTH, adopted=4)
        assert banned(backend) == ALL
        assert backend.health().damage is None
    backend.plan = FirewallPlan()
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
def test_damage_is_reported_and_repaired(
    backend: NftablesBackend, damage: str, left: set[tuple[str, Scope]]
) -> None:
    """Damage to the table is reported by each health check until open() has repaired it."""
    backend.apply(BANS)
    assert backend.health() == Health(elements=4)
    whole = ruleset_text()
    run("sh", "-c", damage)

    first, second = backend.health(), backend.health()
    assert first.changed
    assert first.damage is not None
    assert "ringfence" in first.damage
    assert (second.damage, second.changed) == (first.damage, False)
    opened = backend.open()
    assert (opened.families, opened.repaired) == (BOTH, True)
    assert banned(backend) == left
    assert backend.health() == Health(elements=len(left))
    assert {outcome.error for outcome in backend.apply(BANS)} == {None}
    assert banned(backend) == ALL
    assert ruleset_text() == whole or "ban4_20" not in {name for name, _ in left}


def test_lists_are_filled_and_emptied(backend: NftablesBackend) -> None:
    """Each list has exactly its last contents: overlapping networks, or none."""
    write_list(
        backend,
        network_lists.ALLOW,
        [ip_network(text) for text in ("10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32")],
    )
    write_list(backend, network_lists.ALLOW, [ip_network(text) for text in ("10.1.0.0/16", "10.1.2.0/24")])
    listed = run("nft", "list", "set", "inet", "ringfence", "allow4")
    assert "elements = { 10.1.0.0/16 }" in listed
    assert "elements" not in run("nft", "list", "set", "inet", "ringfence", "allow6")
    write_list(backend, network_lists.ALLOW, [])
    assert "elements" not in run("nft", "list", "set", "inet", "ringfence", "allow4")


@pytest.mark.parametrize("number", [10_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_a_long_list_is_denied_in_short_transactions(backend: NftablesBackend, number: int) -> None:
    """A list of very many networks of both families is replaced by another and back."""
    many = [ip_network((0x0A000000 + n * 512, 24)) for n in range(number)]
    many += [ip_network(((0xFD000000 << 96) + (n << 80), 48)) for n in range(0, 2 * number, 2)]
    for contents in (many, [ip_network("192.0.2.0/24")], many):
        before = read_generation(backend._kernel)
        write_list(backend, network_lists.DENY, contents)
        assert 1 <= read_generation(backend._kernel) - before <= 80
    assert backend.counters().sets["deny"] in (len(many), None)
    assert backend.health() == Health(elements=0)


def test_a_missing_list_set_is_an_error(backend: NftablesBackend) -> None:
    """If the set of a list is gone, replacing it raises, and open repairs it."""
    run("nft", "flush table inet ringfence; delete set inet ringfence deny6")
    with pytest.raises(FirewallError, match="list deny is gone"):
        write_list(backend, network_lists.DENY, [ip_network("192.0.2.0/24")])
    backend.open()
    write_list(backend, network_lists.DENY, [ip_network("192.0.2.0/24")])
    assert "192.0.2.0/24" in run("nft", "list", "set", "inet", "ringfence", "deny4")


@pytest.mark.parametrize("number", [10_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_very_many_bans(backend: NftablesBackend, number: int) -> None:
    """Very many bans of both families are added, listed and removed, all confirmed."""
    bans = [Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(number)]
    bans += [Add(ip_network(((0xFD000000 << 96) + (n << 64), 64)), 600) for n in range(number)]

    assert {outcome.error for outcome in backend.apply(bans)} == {None}
    assert {element.network for element in backend.list()} == {ban.network for ban in bans}
    assert {outcome.error for outcome in backend.apply([Remove(ban.network) for ban in bans])} == {None}
    assert list(backend.list()) == []


@pytest.mark.parametrize(
    ("known", "counted", "times"),
    [(None, True, 3), ([(BANS[1].network, BANS[1].scope)], True, 1), ([], False, 3)],
)
def test_a_list_that_is_changed_meanwhile_is_read_again(
    backend: NftablesBackend,
    monkeypatch: pytest.MonkeyPatch,
    known: list[tuple[Network, Scope]] | None,
    counted: bool,  # noqa: FBT001 - a column
    times: int,
) -> None:
    """An interrupted dump is read three times, or once if known bans are looked up and few are missing."""
    backend.apply(BANS[:1])
    [filled] = [head for head in read_sets(backend._kernel) if head.name == "ban4_32"]
    heads = [filled if counted else evolve(filled, elements=None)]
    monkeypatch.setattr("ringfence.firewall.nftables.state.read_sets", lambda _kernel: heads)
    real, dumps = NetlinkConnection.stream, 0

    def disturbed(self: NetlinkConnection, message: bytes) -> Iterator[bytes]:
        nonlocal dumps
        dumps += 1
        answers = [*real(self, message), *real(self, message)]
        yield from answers
        raise NetlinkInterruptedError(answers)

    monkeypatch.setattr(NetlinkConnection, "stream", disturbed)
    found: list[Element] = []
    with pytest.raises(FirewallIncompleteError, match="changed while they were listed"):
        found.extend(backend.list(known))
    assert [one.network for one in found] == [BANS[0].network]
    assert dumps == times


def test_a_list_that_lacks_very_many_is_read_again(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted dump that lacks more bans than are looked up is read again, and the next is enough."""
    backend.apply([Add(ip_network((0x0A000000 + n, 32)), 600) for n in range(3_000)])
    real, dumps = NetlinkConnection.stream, 0

    def disturbed(self: NetlinkConnection, message: bytes) -> Iterator[bytes]:
        nonlocal dumps
        dumps += 1
        answers = [*real(self, message)][: 1 if dumps == 1 else None]
        yield from answers
        raise NetlinkInterruptedError(answers)

    monkeypatch.setattr(NetlinkConnection, "stream", disturbed)
    found: list[Element] = []
    with pytest.raises(FirewallIncompleteError, match="changed while they were listed"):
        found.extend(backend.list([]))
    assert (len(found), dumps) == (3_000, 2)


def test_nothing_known_is_missing_from_a_disturbed_list(backend: NftablesBackend) -> None:
    """While others change our sets 100 times a second and more, each list has all known bans."""
    steady = [Add(ip_network((0x0A000000 + n, 32)), 3600) for n in range(5_000)]
    backend.apply(steady)
    known = [(add.network, add.scope) for add in steady]
    done, turns = threading.Event(), 0

    def disturb() -> None:
        nonlocal turns
        added = nft_elements.add_elements("ringfence", "ban4_32", [(ip_network("192.0.2.1"), 60)])
        removed = nft_elements.delete_elements("ringfence", "ban4_32", [ip_network("192.0.2.1")])
        with NetlinkConnection(extended=True) as other:
            while not done.is_set():
                assert other.transact(added) == other.transact(removed) == []
                turns += 1
                time.sleep(0.002)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        rounds = 0
        while rounds < 10 or turns <= 20:  # a slow machine disturbs seldom
            rounds += 1
            found: set[Network] = set()
            missing = (one for one in known if one[0] not in found)
            with suppress(FirewallIncompleteError):
                for element in backend.list(missing):
                    found.add(element.network)
            assert found >= {network for network, _ in known}
    finally:
        done.set()
        thread.join()


def test_a_foreign_element_is_listed(backend: NftablesBackend) -> None:
    """An element without a timeout that another program added is listed with infinity."""
    run("nft", "add", "element", "inet", "ringfence", "ban4_24", "{ 198.51.100.0 }")
    assert list(backend.list()) == [Element(ip_network("198.51.100.0/24"), float("inf"), 0, 0)]


def test_flush_removes_only_our_own() -> None:
    """After open, bans, lists and flush the host's rules are the same as before."""
    run("nft", "-f", "-", text=FOREIGN)
    before = ruleset_text()
    backend = NftablesBackend()
    backend.open()
    backend.apply(BANS)
    write_list(backend, network_lists.ALLOW, [ip_network("10.0.0.0/8")])
    assert ruleset_text() != before

    backend.flush()
    backend.flush()
    backend.close()
    assert ruleset_text() == before
    with pytest.raises(FirewallError, match="not open"):
        backend.apply(BANS)
    with pytest.raises(FirewallError, match="not open"):
        backend.health()


def test_flush_and_list_of_an_untouched_host_change_nothing() -> None:
    """On a host without our table, flush and list succeed and make nothing."""
    backend = NftablesBackend()
    assert list(backend.list()) == []
    backend.flush()
    backend.close()
    assert ruleset_text() == ""


def test_a_wrong_set_is_refused_before_any_change() -> None:
    """A set of our name and another type is an error with the fix; nothing was made; flush removes it."""
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
def test_a_set_with_another_declaration_is_an_error(body: str) -> None:
    """A set with another declaration, which the kernel refuses, is an error with the fix."""
    run("nft", f"add table inet ringfence; add set inet ringfence {body}")
    before = ruleset_text()
    backend = NftablesBackend()
    with pytest.raises(FirewallError, match=r"File exists .*fix: `ringfence off`, or `nft delete table"):
        backend.open()
    assert ruleset_text() == before
    backend.flush()
    backend.open()
    backend.close()


@pytest.mark.parametrize("there", ["", "; add set inet ringfence ours { type ipv4_addr; }"])
def test_a_dormant_table_is_woken(there: str) -> None:
    """A dormant table of our name without our chains is woken: its bans work."""
    run("nft", f"add table inet ringfence {{ flags dormant; }}{there}")
    backend = NftablesBackend()
    backend.open()
    assert backend.health() == Health(elements=0)
    assert [check.verified for check in verify(backend, {4: None}).checks] == [True, True]
    run("nft", "add table inet ringfence { flags dormant; }; delete chain inet ringfence output")
    assert "dormant" in (backend.health().damage or "")
    assert backend.open().repaired
    assert backend.health() == Health(elements=0)
    backend.close()


def test_only_cap_net_admin_is_needed() -> None:
    """With CAP_NET_ADMIN alone everything works: open, bans, lists, health checks, flush."""
    script = """
from ipaddress import ip_network
from ringfence.firewall import network_lists
from ringfence.features.limiter.stage import Limit
from ringfence.firewall.contract import *
from ringfence.firewall.nftables.backend import NftablesBackend
backend = NftablesBackend(FirewallPlan(log_group=7, added=(Limit(LimitMode.ENFORCE),)))
print([part.problem for part in backend.requirements()])
print(backend.open())
print([outcome.error for outcome in backend.apply([Add(ip_network("10.0.0.0/9"), 60)])])
for call in backend.replace_list_in_steps(network_lists.DENY, [ip_network((n * 2, 32)) for n in range(5000)]):
    if call is not None:
        call()
counted = backend.counters()
print(backend.health(), backend.watch_fd() is None, len(list(backend.list())), counted.of("limiter_drops"))
backend.flush()
"""
    # Not as another user, which might not be permitted to read these files.
    alone = ["--inh-caps=-all,+net_admin", "--bounding-set=-all,+net_admin"]
    command = ["setpriv", *alone, sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/bin"}
    )

    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0] == repr([None] * 7)
    assert lines[1] == repr(Opened(BOTH))
    assert lines[2] == "[None]"
    assert lines[3] in {f"{Health(elements=number)!r} False 1 0" for number in (1, None)}
    assert ruleset_text() == ""


def test_a_missing_cap_net_admin_is_named_before_any_change() -> None:
    """Without the capability open(), flush() and requirements() name it, and nothing has changed."""
    script = """
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.errors import FirewallPermissionError
for verb in ("open", "flush"):
    try:
        getattr(NftablesBackend(), verb)()
    except FirewallPermissionError as error:
        print(error)
print(NftablesBackend().requirements()[0].problem)
"""
    command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("the firewall needs CAP_NET_ADMIN, which this process lacks; fix: ") == 3
    assert ruleset_text() == ""


def test_a_missing_nft_is_named_before_any_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nft the error names the package, and nothing was made."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(requirements, "_FOLDERS", ())
    backend = NftablesBackend()
    with pytest.raises(FirewallUnsupportedError, match=r"nft is not installed; .*apt-get install nftables"):
        backend.open()
    problems = [part.problem for part in backend.requirements()]
    assert problems[:2] == [None, None]
    assert "apt-get install nftables" in (problems[2] or "")
    backend.close()
    monkeypatch.undo()
    assert ruleset_text() == ""


def test_a_kernel_without_nftables_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel has no nftables, every method names the missing module."""

    def refuse(_self: NetlinkConnection, *_messages: bytes) -> list[bytes]:
        raise NetlinkError(errno.EINVAL, b"")

    monkeypatch.setattr(NetlinkConnection, "request", refuse)
    backend = NftablesBackend()
    part = backend.requirements()[1]
    assert part.name == "nftables in the kernel"
    assert (part.problem or "").startswith(
        "this kernel has no nftables; fix: `modprobe nf_tables` (CONFIG_NF_TABLES;"
    )
    for verb in (backend.open, backend.flush, lambda: list(backend.list())):
        with pytest.raises(FirewallUnsupportedError, match="modprobe nf_tables"):
            verb()


def test_a_host_without_ipv6_is_guarded_for_ipv4(tmp_path: Path) -> None:
    """A host without IPv6 is guarded for IPv4, and an IPv6 ban fails with the reason."""
    (tmp_path / "self/net").mkdir(parents=True)
    shutil.copy("/proc/self/status", tmp_path / "self/status")
    backend = NftablesBackend(proc=tmp_path)
    assert backend.open() == Opened({4: None, 6: "this host has no IPv6"})
    first, second = backend.apply([BANS[1], BANS[0]])
    assert isinstance(first.error, FirewallUnsupportedError)
    assert second == Outcome(BANS[0], 600.0)
    backend.close()


def test_a_dead_socket_is_replaced(backend: NftablesBackend) -> None:
    """A ban succeeds although the backend's socket was closed."""
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
def test_the_release_decides_about_renewing(release: str, renews: bool) -> None:  # noqa: FBT001
    """From 6.12 on adding again renews; an unknown release counts as an old kernel."""
    assert nft_backend.renews(release) == renews


def test_an_old_kernel_is_supported() -> None:
    """On a kernel that does not renew, bans are added, renewed and removed."""
    backend = NftablesBackend(release="6.1.0-13-amd64")
    backend.open()
    for timeout in (600, 30, 900):
        changes = [evolve(change, timeout=timeout) for change in BANS]
        assert {outcome.error for outcome in backend.apply(changes)} == {None}
        assert all(timeout - 2 <= element.timeout <= timeout for element in backend.list())
    removals = [Remove(change.network, change.scope) for change in BANS] * 2
    assert {outcome.error for outcome in backend.apply(removals)} == {None}
    assert list(backend.list()) == []
    with suppress(FirewallPermissionError):
        assert verify(backend, BOTH).verified
    backend.close()
