"""The ipset backend against the real kernel: packets through a cable, damage, and foreign rules."""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from ipaddress import ip_network
from pathlib import Path

import pytest
from tests.support.cable import CABLES, arrives, far_end
from tests.support.daemon import until
from tests.support.flavours import FLAVOURS, command, finder, tools_of
from tests.support.lists import write_list
from tests.support.netns import run

from ringfence.errors import (
    FirewallError,
    FirewallPermissionError,
    FirewallToolError,
    FirewallUnsupportedError,
)
from ringfence.features.limiter.stage import Limit
from ringfence.firewall import network_lists, requirements
from ringfence.firewall.contract import Add, FirewallPlan, Health, Opened, Outcome
from ringfence.firewall.ipset import installation, iptables, messages
from ringfence.firewall.ipset import sets as ipset_kernel
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.probe import verify
from ringfence.netlink.connection import NetlinkConnection
from ringfence.values.ban import Scope
from ringfence.values.network import VERSIONS

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

MARK = "ringfence-made"
FOREIGN = """\
*raw
-A PREROUTING -p udp -m udp --dport 53 -j NOTRACK
COMMIT
*filter
:mine - [0:0]
-A INPUT -j mine
-A mine -m set --match-set theirs-{family} src -j DROP
COMMIT
"""
THEIRS = """\
create theirs-{family} hash:ip family {family} hashsize 1024 maxelem 65536
add theirs-{family} {address}
"""


def saved() -> tuple[list[str], ...]:
    """Return all rules of both families and all sets, without comments, counters and our mark."""
    return tuple(
        [
            line.split(" [")[0]
            for line in run(tool, *options).splitlines()
            if line[:1] != "#" and MARK not in line
        ]
        for tool, *options in (("iptables-save",), ("ip6tables-save",), ("ipset", "save"))
    )


@pytest.fixture
def far(backend: IpsetBackend) -> Iterator[str]:
    """Yield a namespace at the other end of a cable, with all addresses of CABLES."""
    with far_end() as name:
        yield name


def test_a_ban_expires(backend: IpsetBackend, far: str) -> None:
    """After the timeout the kernel accepts the sender's packets again."""
    cable = CABLES["IPv4"]
    with ExitStack() as stack:
        here, there = map(stack.enter_context, cable.pair(far, cable.banned))
        backend.apply([Add(ip_network(cable.network), 60)])
        assert not arrives(there, here)
        backend.apply([Add(ip_network(cable.network), 1)])
        until(lambda: arrives(there, here), "a packet after the ban", 30.0)


def test_flush_removes_only_our_own() -> None:
    """After open, bans and flush all rules and sets of the host are the same as before."""
    for tool, family, address in (
        ("iptables-restore", "inet", "203.0.113.9"),
        ("ip6tables-restore", "inet6", "2001:db8::9"),
    ):
        run("ipset", "restore", text=THEIRS.format(family=family, address=address))
        run(tool, "--noflush", text=FOREIGN.format(family=family))
    before = saved()
    backend = IpsetBackend()
    backend.open()
    backend.apply([Add(ip_network("192.0.2.1"), 60), Add(ip_network("2001:db8::/64"), 60)])
    assert saved() != before

    backend.flush()
    backend.close()

    assert saved() == before


# What a feature that is gone may have left: its chains jump to ours.
LEFT = """\
*raw
:ringfence-gone - [0:0]
:ringfence-left - [0:0]
-A ringfence-pre -j ringfence-gone
-A ringfence-gone -m set --match-set ringfence-gone4 src -g ringfence-left
-A ringfence-left -j ringfence-drop
COMMIT
"""


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("plan", [FirewallPlan(log=True), FirewallPlan()], ids=["same", "less"])
def test_what_a_feature_left_is_removed(flavour: str, plan: FirewallPlan) -> None:
    """Chains and sets of ours that this release does not make are removed at the start, and at the end."""
    for end in (IpsetBackend.open, IpsetBackend.flush):
        tools = tools_of(flavour, 4)
        with closing(IpsetBackend(FirewallPlan(log=True), find_tools=finder(flavour))) as before:
            before.open()
        run("ipset", "create", "ringfence-gone4", "hash:ip")
        run(tools.restore, "--noflush", text=LEFT)
        with closing(IpsetBackend(plan, find_tools=finder(flavour))) as backend:
            end(backend)
            found = run(tools.save) + run("ipset", "save")
            assert [word for word in ("gone", "left") if f"ringfence-{word}" in found] == []
            backend.flush()
            assert "ringfence" not in run(tools.save) + run("ipset", "save")


def test_a_left_set_is_present() -> None:
    """A set of a feature that is gone is found, and removed."""
    run("ipset", "create", "ringfence-gone4", "hash:ip")
    run("ipset", "create", "ringfences", "hash:ip")
    with closing(IpsetBackend()) as backend:
        assert backend.is_present()
        backend.flush()
        assert not backend.is_present()
    assert run("ipset", "list", "-n").split() == ["ringfences"]


@pytest.mark.parametrize(
    ("meanwhile", "left"),
    [
        ("true", []),
        ("iptables -t raw -A OUTPUT -j ACCEPT", ["table ip raw {"]),
        ("iptables -t raw -P OUTPUT DROP; ip6tables -t raw -N mine", ["table ip raw {", "table ip6 raw {"]),
    ],
)
def test_a_table_made_for_us_is_removed(backend: IpsetBackend, meanwhile: str, left: list[str]) -> None:
    """A table raw that was made for our rules is removed with them, unless it has other contents."""
    run("sh", "-c", meanwhile)
    backend.flush()

    assert [line for line in run("nft", "list", "ruleset").splitlines() if line.startswith("table")] == left


def test_a_foreign_table_stays() -> None:
    """An empty table raw that existed before stays."""
    rules = "-A PREROUTING -j ACCEPT\n-A OUTPUT -j ACCEPT\n"
    run("iptables-restore", "--noflush", text=f"*raw\n{rules}-F\nCOMMIT\n")
    before = run("nft", "list", "ruleset")
    backend = IpsetBackend()
    backend.open()
    backend.flush()
    backend.close()

    assert run("nft", "list", "ruleset") == before


def test_iptables_legacy_is_supported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With iptables-legacy bans work both ways, and flush leaves nothing in either flavour."""
    for name in ("iptables", "ip6tables"):
        for verb in ("save", "restore"):
            (tmp_path / f"{name}-{verb}").symlink_to(f"/usr/sbin/{name}-legacy-{verb}")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    backend = IpsetBackend()
    families = backend.open().families

    verification = verify(backend, families)

    assert [check.verified for check in verification.checks] == [True, True, True, False]
    assert run("nft", "list", "ruleset") == ""
    assert "ringfence-pre" in run("iptables-legacy-save")
    backend.flush()
    backend.close()
    assert "ringfence" not in run("iptables-legacy-save") + run("ip6tables-legacy-save") + run(
        "ipset", "save"
    )


@pytest.mark.parametrize("old", FLAVOURS)
@pytest.mark.parametrize("end", [IpsetBackend.open, IpsetBackend.flush], ids=["open", "flush"])
def test_rules_in_the_other_flavour_are_removed(old: str, end: Callable[[IpsetBackend], object]) -> None:
    """If the host's flavour of iptables was changed, a start and a flush leave no rules in the old one."""
    [new] = [flavour for flavour in FLAVOURS if flavour != old]
    with closing(IpsetBackend(find_tools=finder(old))) as before:
        before.open()
        before.apply([Add(ip_network("192.0.2.1"), 60)])
    with closing(IpsetBackend(find_tools=finder(new))) as backend:
        end(backend)
        for version in VERSIONS:
            assert "ringfence" not in run(tools_of(old, version).save)
            assert ("ringfence-pre" in run(tools_of(new, version).save)) == (end is IpsetBackend.open)
        backend.flush()
    assert run("ipset", "save") == ""


def test_flush_of_an_untouched_host_changes_nothing() -> None:
    """On a host without our sets, flush and list succeed and make nothing."""
    backend = IpsetBackend()
    assert list(backend.list()) == []
    backend.flush()
    backend.close()

    assert run("nft", "list", "ruleset") == ""
    assert run("ipset", "save") == ""


DAMAGE = [
    "iptables -t raw -F",
    "ip6tables -t raw -D PREROUTING -j ringfence-pre",
    "iptables -t raw -D ringfence-out 1",
    "iptables -t raw -I OUTPUT 1 -j ACCEPT",
    "iptables -t raw -F; iptables -t raw -X",
    "ipset flush ringfence4",
    "ipset flush ringfence-allow6",
    "ipset flush ringfence-deny4",
    "ipset del ringfence-friends4 192.0.2.0/24",
    "ipset create other hash:net; ipset swap other ringfence-udp4",
    "ip6tables -t raw -F; ip6tables -t raw -X; sleep 0.1; ipset destroy ringfence6",
    "iptables -t raw -F; iptables -t raw -X; sleep 0.1; ipset rename ringfence4 theirs4",
    "nft flush ruleset",
    "nft flush ruleset; sleep 0.1; ipset destroy",
]


LISTED = [ip_network(text) for text in ("192.0.2.0/24", "198.51.100.1", "2001:db8::/32")]


LONG = [ip_network((0x0A000000 + n, 32)) for n in range(5000)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_reported_repaired_and_removed(backend: IpsetBackend, damage: str) -> None:
    """A health check finds the damage, open() repairs and reports it, and flush() removes the rest."""

    def fill() -> None:
        """Add bans of every scope and network lists, some of them long: what the daemon restores."""
        for scope in Scope:
            backend.apply([Add(network, 600, scope) for network in LISTED])
        for which in network_lists.every():
            many = LONG if which is network_lists.DENY and damage.startswith("ipset flush") else []
            write_list(backend, which, [*LISTED, *many])

    fill()
    whole = [sorted(part) for part in saved()]
    assert backend.health() == Health(elements=len(Scope) * len(LISTED))
    for _ in range(2):
        run("sh", "-c", damage)
        found = backend.health()
        assert found.damage is not None
        assert found.changed
        assert backend.rules_differ() is not damage.startswith("ipset")
        opened = backend.open()
        assert (opened.families, opened.repaired) == ({4: None, 6: None}, damage != "ipset flush ringfence4")
        run(
            "sh",
            "-c",
            "iptables -t raw -D OUTPUT -j ACCEPT; ipset destroy other; ipset destroy theirs4; true",
        )
        fill()
        assert backend.health().damage is None
        assert [sorted(part) for part in saved()] == whole

    run("sh", "-c", damage)
    backend.flush()
    assert [line for part in saved() for line in part if "ringfence" in line] == []


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("damaged", ["rules", "list"])
def test_damage_stays_known_if_its_repair_fails(
    flavour: str, damaged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a program fails while open() repairs damage, health() still reports it, and open() repairs it."""

    def fail(*_args: object, **_options: object) -> None:
        raise FirewallToolError("the program did not end within 10 s")

    with closing(IpsetBackend(find_tools=finder(flavour))) as backend:
        backend.open()
        write_list(backend, network_lists.DENY, LISTED)
        assert backend.health().damage is None
        if damaged == "rules":
            run(command(flavour, 4), "-t", "raw", "-I", "PREROUTING", "-j", "ACCEPT")
        else:
            run("ipset", "flush", "ringfence-deny4")
        with monkeypatch.context() as patch:
            patch.setattr(iptables, "restore" if damaged == "rules" else "save", fail)
            with pytest.raises(FirewallToolError):
                backend.open()
        assert backend.health().damage is not None
        assert backend.open().repaired
        write_list(backend, network_lists.DENY, LISTED)
        assert backend.health().damage is None


def test_damage_of_several_lists_is_reported_until_open(backend: IpsetBackend) -> None:
    """open() reports damaged lists once: health() does not report those that are still to be written."""
    for which in (network_lists.DENY, network_lists.EXTERNAL):
        write_list(backend, which, LONG)
        run("ipset", "del", f"ringfence-{which}4", str(LONG[-1]))
        run("ipset", "add", f"ringfence-{which}4", "192.0.2.1")
    assert "has lost a network" in (backend.health().damage or "")
    assert backend.open().repaired
    assert backend.health().damage is None
    assert not backend.open().repaired

    for which in (network_lists.DENY, network_lists.EXTERNAL):
        write_list(backend, which, LONG)
    assert backend.health().damage is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "ringfence4 hash:ip timeout 0 counters",
            "ringfence4 exists and is a hash:ip for IPv4 and not a hash:net",
        ),
        (
            "ringfence4 hash:net family inet6 timeout 0 counters",
            "is a hash:net for IPv6 and not a hash:net for IPv4",
        ),
        ("ringfence6 hash:net family inet6", "ringfence6 exists and has no timeouts, has no counters"),
        ("ringfence4 list:set", "is a list:set"),
    ],
)
def test_a_wrong_set_is_refused_before_any_change(options: str, message: str) -> None:
    """A set of our name and another type is an error with the fix; nothing was made; flush removes it."""
    run("ipset", "create", *options.split())
    before = saved()
    backend = IpsetBackend()

    with pytest.raises(FirewallError, match=f"{message}.*`ringfence off`"):
        backend.open()
    assert saved() == before
    backend.flush()
    backend.close()
    assert run("ipset", "save") == ""


@pytest.mark.parametrize("missing", ["CAP_NET_RAW", "CAP_NET_ADMIN"])
def test_a_missing_capability_is_named_before_any_change(missing: str) -> None:
    """Without one of the two capabilities open() names it and has changed nothing."""
    name = missing.removeprefix("CAP_").lower()
    script = "from ringfence.firewall.ipset.backend import IpsetBackend\nIpsetBackend().open()\n"
    command = ["setpriv", f"--bounding-set=-{name}", f"--inh-caps=-{name}", sys.executable, "-c", script]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert f"{FirewallPermissionError.__name__}: the firewall needs {missing}, which" in done.stderr
    assert "systemctl start ringfence" in done.stderr
    assert run("ipset", "save") == ""
    assert run("nft", "list", "ruleset") == ""


def test_missing_iptables_is_named_before_any_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without iptables the error names the package, and no set was made."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(requirements, "_FOLDERS", ())
    backend = IpsetBackend()

    with pytest.raises(
        FirewallUnsupportedError, match=r"iptables-save is not installed; .*apt-get install iptables"
    ):
        backend.open()
    backend.close()
    monkeypatch.undo()
    assert run("ipset", "save") == ""


def test_the_requirements_of_the_plan_are_checked(
    backend: IpsetBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requirements name what log rules and limiter lack, for each IP version, with the fix."""
    assert [part.problem for part in backend.requirements()] == [None] * 6
    backend.plan = FirewallPlan(log_group=7, added=(Limit(LimitMode.OBSERVE),))
    assert [part.problem for part in backend.requirements()] == [None] * 10

    monkeypatch.setattr(installation, "_WIRE_EXTENSIONS", ("u32", "no-such-match"))
    missing = [part for part in backend.requirements() if part.problem is not None]
    assert [part.name for part in missing] == [
        "the log rule for the wire, IPv4",
        "the log rule for the wire, IPv6",
    ]
    assert {part.optional for part in missing} == {True}
    assert "this kernel has no no-such-match for IPv4; fix: `modprobe xt_u32 " in str(missing[0].problem)


def without_ipv6(tmp_path: Path) -> Path:
    """Make a procfs of a host without IPv6."""
    (tmp_path / "self/net").mkdir(parents=True)
    shutil.copy("/proc/self/status", tmp_path / "self/status")
    return tmp_path


def test_a_host_without_ipv6_is_guarded_for_ipv4(tmp_path: Path) -> None:
    """A host without IPv6 is guarded for IPv4, and an IPv6 ban fails with the reason."""
    backend = IpsetBackend(proc=without_ipv6(tmp_path))

    assert backend.open() == Opened(families={4: None, 6: "this host has no IPv6"}, adopted=0)
    first, second = backend.apply([Add(ip_network("2001:db8::/64"), 60), Add(ip_network("192.0.2.1"), 60)])
    assert isinstance(first.error, FirewallUnsupportedError)
    assert str(first.error) == "this host has no IPv6"
    assert second == Outcome(Add(ip_network("192.0.2.1"), 60), 60)
    backend.close()
    assert run("ip6tables-save") == ""


def test_a_set_in_foreign_use_stays(backend: IpsetBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a foreign rule uses our set, flush names the set and a command that finds the rule."""
    monkeypatch.setattr(ipset_kernel, "_RELEASE", 0.1)
    run("iptables", "-A", "INPUT", "-m", "set", "--match-set", "ringfence4", "src", "-j", "DROP")

    with pytest.raises(FirewallError, match="set ringfence4 is used by a rule that is not ringfence's"):
        backend.flush()
    run("iptables", "-F", "INPUT")
    monkeypatch.undo()
    backend.flush()
    assert run("ipset", "save") == ""


def test_a_set_that_another_program_lists_stays(backend: IpsetBackend) -> None:
    """While another program lists a set and does not read on, flush ends soon and names the cause."""
    backend.apply([Add(network, 600) for network in LONG])
    with NetlinkConnection() as other:
        listing = other.stream(messages.list_elements("ringfence4"))
        next(listing)
        began = time.monotonic()
        with pytest.raises(FirewallError, match="another program is listing it; fix: end that `ipset list`"):
            backend.flush()
        took = time.monotonic() - began
    assert took < 10 * ipset_kernel._RELEASE
    backend.flush()
    assert run("ipset", "save") == ""


def test_nothing_is_banned_before_open() -> None:
    """apply() without open() is an error."""
    with pytest.raises(FirewallError, match="not open"):
        IpsetBackend().apply([Add(ip_network("192.0.2.1"), 60)])


def test_a_dead_socket_is_replaced(backend: IpsetBackend) -> None:
    """A ban succeeds although the backend's socket was closed."""
    change = Add(ip_network("192.0.2.1"), 60)
    assert backend._kernel._socket is not None
    backend._kernel._socket.close()

    assert backend.apply([change]) == [Outcome(change, 60.0)]
