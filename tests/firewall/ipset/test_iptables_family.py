"""The rules of one IP version: installed, repaired, removed, and their counters."""

from collections.abc import Iterator

import pytest
from tests.support.flavours import FLAVOURS, command, rules, tools_of
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallToolError
from ringfence.features.fence.stage import FenceFilter
from ringfence.features.limiter import stage
from ringfence.features.limiter.stage import Limit
from ringfence.firewall.contract import BanAction, FirewallPlan, Fragments
from ringfence.firewall.ipset import iptables, iptables_rules, matches
from ringfence.firewall.ipset.installation import Family, InstalledRules, rule_requirements
from ringfence.firewall.ipset.sets import create_set, set_specs
from ringfence.firewall.limits import LimitMode
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
ALL = FirewallPlan(log_group=7, log=True, added=(Limit(LimitMode.OBSERVE),))
LARGEST = FirewallPlan(
    interfaces=("eth0",), every_port=False, added=(Limit(LimitMode.ENFORCE, rate=3001, burst=40_000),)
)
PLANS = [
    ALL,
    FirewallPlan(),
    FirewallPlan(action=BanAction.TCP_RESET, added=(Limit(LimitMode.ENFORCE, rate=7, burst=99),)),
    FirewallPlan(action=BanAction.ADMIN_PROHIBITED, interfaces=("lo", "eth0"), log=True),
    LARGEST,
    FirewallPlan(action=BanAction.PORT_UNREACHABLE, every_port=False, log_group=9),
]
# Foreign rules, as an administrator may have them.
FOREIGN = """\
*raw
-A OUTPUT -j ACCEPT
COMMIT
*filter
:mine - [0:0]
-A INPUT -j mine
COMMIT
"""


@pytest.fixture
def kernel(netns: None) -> Iterator[NetlinkConnection]:
    """Yield a connection in a namespace that has all sets."""
    with NetlinkConnection() as made:
        for spec in [*set_specs(4), *set_specs(6)]:
            made.request(create_set(spec, 1024))
        yield made


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_plan_replaces_every_other(kernel: NetlinkConnection, flavour: str, version: int) -> None:
    """After each change exactly the plan's rules are installed, without damage; removal leaves none."""
    tools = tools_of(flavour, version)
    run(tools.restore, "--noflush", text=FOREIGN)
    before = rules(tools)
    family = Family(version, tools, kernel)
    for plan in [*PLANS, *reversed(PLANS)]:
        assert family.install(plan) == InstalledRules()
        state = iptables.own_rules(iptables.parse(iptables.save(tools)))
        assert {
            table: {name: len(lines) for name, lines in chains.items()} for table, chains in state.items()
        } == {
            table: {
                **{name: len(wanted) for name, wanted in chains.items()},
                **{hook: 1 for hook, name in iptables_rules.HOOKS[table].items() if name in chains},
            }
            for table, chains in iptables_rules.wanted_rules(
                plan, version, fragments=Fragments.REASSEMBLED
            ).items()
        }
        assert [line for line in rules(tools) if "ringfence" not in line] == before
    family.remove()
    assert rules(tools) == before


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_installed_plan_is_not_written_again(
    kernel: NetlinkConnection, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed plan is not written a second time, in any printed form."""
    for plan in PLANS:
        family = Family(4, tools_of(flavour, 4), kernel)
        family.install(plan)
        with monkeypatch.context() as forbidden:
            forbidden.setattr(iptables, "restore", None)
            assert family.install(plan) == InstalledRules()
            if plan is not LARGEST:  # its numbers largest are printed rounded: a new process writes once
                assert Family(4, tools_of(flavour, 4), kernel).install(plan) == InstalledRules()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_tool_that_did_not_end_is_no_refusal(
    kernel: NetlinkConnection, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a passing failure of iptables, the rules are written with the wire and the limits."""
    real, calls = iptables.restore, 0

    def hangs_once(tools: iptables.Tools, text: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise FirewallToolError(f"{tools.restore} did not end within 10 s")
        real(tools, text)

    family = Family(4, tools_of(flavour, 4), kernel)
    with monkeypatch.context() as patch:
        patch.setattr(iptables, "restore", hangs_once)
        with pytest.raises(FirewallToolError):
            family.install(ALL)
    assert family.install(ALL) == InstalledRules()
    family.remove()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_damage_is_reported_and_repaired(kernel: NetlinkConnection, flavour: str) -> None:
    """Damage to our rules is reported once and repaired; a new plan alone is not damage."""
    family, tool = Family(4, tools_of(flavour, 4), kernel), command(flavour, 4)
    family.install(ALL)
    whole = rules(family.tools)
    for damage in (
        "-F",
        "-D ringfence-pre 1",
        "-I OUTPUT 1 -j ringfence-out",
        "-I PREROUTING 1 -j ACCEPT",
        "-I ringfence-limit 1 -j ACCEPT",
    ):
        run(tool, "-t", "raw", *damage.split())
        assert [family.install(ALL).damaged for _ in range(2)] == [True, False]
        assert [line for line in rules(family.tools) if "-j ACCEPT" not in line] == whole
    family.remove()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_table_made_for_us_is_removed(kernel: NetlinkConnection, flavour: str) -> None:
    """Both tables that were made for our rules are removed, even if the plan used one only before."""
    family = Family(6, tools_of(flavour, 6), kernel)
    family.install(FirewallPlan(action=BanAction.PORT_UNREACHABLE))
    family.install(FirewallPlan())
    family.remove()
    family.remove()

    assert run("nft", "list", "ruleset") == ""
    assert "ringfence" not in run("ip6tables-legacy-save")


@pytest.mark.parametrize(
    ("broken", "wire", "limits"),
    [
        (["STREAM"], True, False),
        (["GUESS"], False, True),
        (["STREAM", "GUESS"], True, True),
    ],
)
def test_refused_features_are_left_out_and_reported(
    kernel: NetlinkConnection,
    monkeypatch: pytest.MonkeyPatch,
    broken: list[str],
    *,
    wire: bool,
    limits: bool,
) -> None:
    """Refused log rules or limits are reported with the fix; the other one and the drops remain."""
    values = {"STREAM": {4: "no test of u32"}, "GUESS": 10**15}
    with monkeypatch.context() as refused:
        for name in broken:
            refused.setattr(matches if name == "STREAM" else stage, name, values[name])
        family = Family(4, tools_of("nft", 4), kernel)
        installed = family.install(ALL)
        assert not family.install(ALL).damaged
        saved = run("iptables-nft-save")

    assert (installed.wire is not None, installed.limits is not None) == (wire, limits)
    assert installed.wire is None or "fix: `modprobe xt_u32 " in installed.wire
    assert installed.limits is None or "fix: `modprobe xt_hashlimit " in installed.limits
    assert ("NFLOG" in saved, "hashlimit" in saved) == (not wire, not limits)
    assert "--match-set ringfence4 src -j ringfence-drop" in saved


def test_without_connection_tracking_feeds_drop_all_packets(
    kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel cannot track connections, external networks are dropped like denied ones."""
    real = iptables.restore

    def refusing(tools: iptables.Tools, text: str) -> None:
        if "conntrack" in text:
            raise FirewallError("no chain/target/match by that name")
        real(tools, text)

    monkeypatch.setattr(iptables, "restore", refusing)
    Family(4, tools_of("nft", 4), kernel).install(FirewallPlan(new_only=True))

    saved = run("iptables-nft-save")
    assert "conntrack" not in saved
    assert "--match-set ringfence-external4 src " in saved


def test_refused_drops_are_an_error(kernel: NetlinkConnection) -> None:
    """If the drops are refused, nothing is installed, and the error contains the tool's output."""
    run("ipset", "destroy", "ringfence-deny4")
    family = Family(4, tools_of("nft", 4), kernel)
    with pytest.raises(FirewallError, match=r"restore failed.*ringfence-deny4"):
        family.install(ALL)
    assert "ringfence" not in run("iptables-nft-save")


def test_rules_that_do_not_stay_are_an_error(
    kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another program undoes each write, that is an error after a few attempts."""
    real = iptables.restore

    def undone(tools: iptables.Tools, text: str) -> None:
        real(tools, text)
        run("nft", "flush", "ruleset")

    monkeypatch.setattr(iptables, "restore", undone)
    with pytest.raises(FirewallError, match="do not stay as written"):
        Family(4, tools_of("nft", 4), kernel).install(FirewallPlan())


def test_the_features_of_the_plan_are_checked(
    kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the plan's optional features are checked; a missing extension is named with the fix."""
    [_] = rule_requirements(kernel, 4, FirewallPlan())  # of fragments
    assert [(one.name, one.problem) for one in rule_requirements(kernel, 6, ALL)[:-1]] == [
        ("the log rule for the wire, IPv6", None),
        ("the limits, IPv6", None),
    ]
    needed = ("hashlimit", "gone", "SET")
    monkeypatch.setattr("ringfence.firewall.ipset.installation._limits_extensions", lambda *_: needed)
    _, limits, _ = rule_requirements(kernel, 4, ALL)
    assert limits.problem is not None
    assert limits.problem.startswith("this kernel has no gone for IPv4; fix: `modprobe xt_hashlimit")


def test_the_fix_of_a_missing_filter_names_each_module_once(
    kernel: NetlinkConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One module has a match and a target of the same name."""
    monkeypatch.setattr("ringfence.firewall.ipset.installation.has_extension", lambda *_, **__: False)
    fence, _ = rule_requirements(kernel, 4, FirewallPlan().adding(FenceFilter(LimitMode.OBSERVE)))
    assert fence.problem is not None
    assert fence.problem.endswith("; fix: `modprobe xt_multiport xt_conntrack xt_set`")
