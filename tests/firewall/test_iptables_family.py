"""One IP version's rules: put in, healed, taken out, and what they have met."""

from collections.abc import Iterator

import pytest
from tests.support.flavours import FLAVOURS, command, rules, tools_of
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import iptables, iptables_rules
from ringfence.firewall.contract import Limit, LimitMode, Plan, Verdict
from ringfence.firewall.ipset_sets import creation, kinds
from ringfence.firewall.iptables_family import Family, Placed, lacks
from ringfence.firewall.netlink import Conversation

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]
ALL = Plan(log_group=7, limit=Limit(LimitMode.OBSERVE), log=True)
PLANS = [
    ALL,
    Plan(),
    Plan(verdict=Verdict.TCP_RESET, limit=Limit(LimitMode.ENFORCE, rate=7, burst=99)),
    Plan(verdict=Verdict.ADMIN_PROHIBITED, interfaces=("lo", "eth0"), log=True),
    Plan(interfaces=("eth0",), every_port=False, limit=Limit(LimitMode.ENFORCE, rate=3001, burst=40_000)),
    Plan(verdict=Verdict.PORT_UNREACHABLE, every_port=False, log_group=9),
]
# As a release before this one, or an administrator with a hand of his own, may have left a chain of ours.
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
def kernel(netns: None) -> Iterator[Conversation]:
    """A conversation in a namespace that has all sets."""
    with Conversation() as conversation:
        for kind in [*kinds(4), *kinds(6)]:
            conversation.request(creation(kind, 1024))
        yield conversation


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_every_plan_takes_the_place_of_every_other(kernel: Conversation, flavour: str, version: int) -> None:
    """After each change exactly the plan's rules stand, nothing is told as damage, and at last nothing is."""
    tools = tools_of(flavour, version)
    run(tools.restore, "--noflush", text=FOREIGN)
    before = rules(tools)
    family = Family(version, tools, kernel)
    for plan in [*PLANS, *reversed(PLANS)]:
        assert family.put(plan) == Placed()
        state = iptables.ours_in(iptables.parse(iptables.save(tools)))
        assert {
            table: {name: len(lines) for name, lines in chains.items()} for table, chains in state.items()
        } == {
            table: {
                **{name: len(wanted) for name, wanted in chains.items()},
                **{hook: 1 for hook, name in iptables_rules.HOOKS[table].items() if name in chains},
            }
            for table, chains in iptables_rules.wanted_rules(plan, version).items()
        }
        assert [line for line in rules(tools) if "ringfence" not in line] == before
    family.remove()
    assert rules(tools) == before


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_stands_is_not_written_again(
    kernel: Conversation, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once written, a plan is written no second time, however the tool prints it."""
    for plan in PLANS:
        family = Family(4, tools_of(flavour, 4), kernel)
        family.put(plan)
        with monkeypatch.context() as forbidden:
            forbidden.setattr(iptables, "restore", None)
            assert family.put(plan) == Placed()
            if plan.limit.rate < 3000:  # the largest are printed rounded: who comes anew writes once
                assert Family(4, tools_of(flavour, 4), kernel).put(plan) == Placed()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_damage_is_told_and_healed(kernel: Conversation, flavour: str) -> None:
    """What somebody did to our rules is told once and undone; a new plan alone is no damage."""
    family, tool = Family(4, tools_of(flavour, 4), kernel), command(flavour, 4)
    family.put(ALL)
    whole = rules(family.tools)
    for damage in (
        "-F",
        "-D ringfence-pre 1",
        "-I OUTPUT 1 -j ringfence-out",
        "-I PREROUTING 1 -j ACCEPT",
        "-I ringfence-limit 1 -j ACCEPT",
    ):
        run(tool, "-t", "raw", *damage.split())
        assert [family.put(ALL).damaged for _ in range(2)] == [True, False]
        assert [line for line in rules(family.tools) if "-j ACCEPT" not in line] == whole
    family.remove()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_table_made_for_us_goes_with_us(kernel: Conversation, flavour: str) -> None:
    """Both tables are gone with our rules where there were none, though the plan has left one before."""
    family = Family(6, tools_of(flavour, 6), kernel)
    family.put(Plan(verdict=Verdict.PORT_UNREACHABLE))
    family.put(Plan())
    family.remove()
    family.remove()

    assert run("nft", "list", "ruleset") == ""
    assert "ringfence" not in run("ip6tables-legacy-save")


@pytest.mark.parametrize(
    ("broken", "wire", "limiter"),
    [
        (["_CHALLENGES"], True, False),
        (["_GUESS"], False, True),
        (["_CHALLENGES", "_GUESS"], True, True),
    ],
)
def test_what_cannot_stand_is_left_out_and_told(
    kernel: Conversation, monkeypatch: pytest.MonkeyPatch, broken: list[str], *, wire: bool, limiter: bool
) -> None:
    """A log rule or limiter that is refused is named with its mend; the other one and the drops stand."""
    values = {"_CHALLENGES": {4: "no test of u32"}, "_GUESS": 10**15}
    with monkeypatch.context() as refused:
        for name in broken:
            refused.setattr(iptables_rules, name, values[name])
        family = Family(4, tools_of("nft", 4), kernel)
        placed = family.put(ALL)
        assert not family.put(ALL).damaged
        saved = run("iptables-nft-save")

    assert (placed.wire is not None, placed.limiter is not None) == (wire, limiter)
    assert placed.wire is None or "mend: `modprobe xt_u32 " in placed.wire
    assert placed.limiter is None or "mend: `modprobe xt_hashlimit " in placed.limiter
    assert ("NFLOG" in saved, "hashlimit" in saved) == (not wire, not limiter)
    assert "--match-set ringfence4 src -j ringfence-drop" in saved


def test_who_cannot_drop_says_so(kernel: Conversation) -> None:
    """Where the drops themselves are refused nothing stands, and the tool's words are told."""
    run("ipset", "destroy", "ringfence-deny4")
    family = Family(4, tools_of("nft", 4), kernel)
    with pytest.raises(FirewallError, match=r"restore failed.*ringfence-deny4"):
        family.put(ALL)
    assert "ringfence" not in run("iptables-nft-save")


def test_rules_that_do_not_stay_are_an_error(kernel: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody undoes what is written each time, it is told and not repeated without end."""
    real = iptables.restore

    def undone(tools: iptables.Tools, text: str) -> None:
        real(tools, text)
        run("nft", "flush", "ruleset")

    monkeypatch.setattr(iptables, "restore", undone)
    with pytest.raises(FirewallError, match="do not stay as they are written"):
        Family(4, tools_of("nft", 4), kernel).put(Plan())


def test_the_kernel_is_asked_for_what_the_plan_needs(
    kernel: Conversation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is asked where nothing more than bans is wanted; what lacks is named with its mend."""
    assert lacks(kernel, 4, Plan()) == []
    assert lacks(kernel, 6, ALL) == [("the log rule for the wire, IPv6", None), ("the limiter, IPv6", None)]
    monkeypatch.setattr(
        "ringfence.firewall.iptables_family._LIMITER_EXTENSIONS", ("hashlimit", "gone", "SET")
    )
    [_, (_, lack)] = lacks(kernel, 4, ALL)
    assert lack is not None
    assert lack.startswith("this kernel has no gone for IPv4; mend: `modprobe xt_hashlimit")
