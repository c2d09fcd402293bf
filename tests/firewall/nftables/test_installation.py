"""The rules of our table: added for a ban, refused by the kernel, and changed by other programs."""

import errno
import subprocess
from collections.abc import Mapping
from contextlib import closing
from ipaddress import ip_network
from itertools import chain

import pytest
from attrs import evolve
from tests.firewall.nftables.conftest import Losing
from tests.firewall.nftables.test_backend import BANS, BOTH
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallToolError
from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import Add, BanAction, FirewallPlan, Health, Opened, Outcome
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables import installation as nft_installation
from ringfence.firewall.nftables import installation as nft_tool
from ringfence.firewall.nftables import ruleset as nft_ruleset
from ringfence.firewall.nftables import state as nft_state
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.messages import delete_table
from ringfence.firewall.nftables.ruleset import Ruleset
from ringfence.firewall.nftables.state import TableState
from ringfence.netlink.connection import NetlinkConnection, NetlinkError, Refusal
from ringfence.values.ban import Scope

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]

WITHOUT_SETS = [
    Add(ip_network(network), 600, scope)
    for network in ("10.0.0.0/16", "10.1.0.0/17", "10.2.0.0/29", "fd00::/33", "fd01::/60", "fd02::/112")
    for scope in Scope
]
"""Bans of prefix lengths that have no set from the start, such as those of distributed attacks."""
PLANS = [
    FirewallPlan(),
    FirewallPlan(log_group=7, added=(Limit(LimitMode.ENFORCE),)),
    FirewallPlan(action=BanAction.TCP_RESET, log_group=7),
]


def start_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each start of a process fail, as the event loop would wait for its end."""

    def fail(*_args: object, **_options: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", fail)


@pytest.mark.parametrize("together", [True, False])
def test_no_ban_waits_for_a_process(
    backend: NftablesBackend,
    monkeypatch: pytest.MonkeyPatch,
    together: bool,  # noqa: FBT001 - a column
) -> None:
    """The first bans of a prefix length, in one batch or in several, start no process; all are confirmed."""
    with monkeypatch.context() as patch:
        start_no_process(patch)
        for batch in [WITHOUT_SETS] if together else [[ban] for ban in WITHOUT_SETS]:
            assert backend.apply(batch) == [Outcome(ban, 600) for ban in batch]
        assert backend.health() == Health(elements=len(WITHOUT_SETS))
    assert {(one.network, one.scope) for one in backend.list()} == {
        (ban.network, ban.scope) for ban in WITHOUT_SETS
    }


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("friends", ["friends6", "friends6_2"])
def test_a_ban_adds_the_rules_that_nft_writes(
    backend: NftablesBackend, plan: FirewallPlan, friends: str
) -> None:
    """The sets and rules that a ban adds are those that nft writes for them at the next start."""
    backend.plan = plan
    backend.open()
    installation = backend._installation
    if friends != "friends6":
        for call in chain(installation.make_empty(friends, 6), installation.switch_list("friends6", friends)):
            call()
    backend.apply(WITHOUT_SETS)
    added = nft_state.read_state(backend._kernel)
    assert installation.require().state == added
    assert added is not None
    text = run("nft", "-s", "-t", "list", "ruleset")
    backend.close()

    second = NftablesBackend(plan)
    assert second.open() == Opened(BOTH, adopted=len(WITHOUT_SETS))
    assert second._installation.require().state.shape == added.shape
    assert run("nft", "-s", "-t", "list", "ruleset") == text
    second.close()


@pytest.mark.parametrize("plan", PLANS)
def test_a_command_adds_the_rules_that_fit_the_table(backend: NftablesBackend, plan: FirewallPlan) -> None:
    """A command that wants copies adds the rules that nft writes, also to a table that copies nothing."""
    backend.plan = plan
    backend.open()
    backend.close()
    with closing(NftablesBackend(evolve(plan, log_group=7))) as command:
        command.attach()
        assert command.apply(WITHOUT_SETS) == [Outcome(ban, 600) for ban in WITHOUT_SETS]
    text = run("nft", "-s", "-t", "list", "ruleset")

    with closing(NftablesBackend(plan)) as second:
        assert second.open() == Opened(BOTH, adopted=len(WITHOUT_SETS))
    assert run("nft", "-s", "-t", "list", "ruleset") == text


def test_a_command_needs_a_table() -> None:
    """Without our table, a command gets an error, and makes none."""
    with closing(NftablesBackend()) as command:
        with pytest.raises(FirewallError, match="table inet ringfence is gone"):
            command.attach()
        with pytest.raises(FirewallError, match="not open"):
            command.apply(BANS)
    assert run("nft", "list", "ruleset") == ""


@pytest.mark.parametrize("damage", ["flush chain inet ringfence output", "flush ruleset"])
def test_a_change_while_a_ban_adds_rules_is_noticed(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """What another program changes while a ban adds its rules is found by the next check, and repaired."""
    real = nft_state.read_added

    def read_added(*args: object) -> TableState:
        run("nft", damage)
        return real(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(nft_installation, "read_added", read_added)
        errors = {one.error is None for one in backend.apply(WITHOUT_SETS)}

    assert errors == {damage != "flush ruleset"}
    assert backend.health().damage is not None
    assert backend.open().repaired
    assert {one.error for one in backend.apply(WITHOUT_SETS)} == {None}
    assert backend.health() == Health(elements=len(WITHOUT_SETS))


def test_rules_whose_acknowledgement_is_lost_are_repaired(
    backend: NftablesBackend, losing_answers: Losing
) -> None:
    """If the kernel's answer is lost, the bans fail, and the next check finds what the kernel carried out."""
    with losing_answers():
        assert {str(one.error) for one in backend.apply(WITHOUT_SETS)} == {"the answer was lost"}

    assert "another program added set" in (backend.health().damage or "")
    backend.open()
    assert {one.error for one in backend.apply(WITHOUT_SETS)} == {None}
    assert backend.health() == Health(elements=len(WITHOUT_SETS))


def test_rules_that_change_at_once_are_written_again(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules that another program removes at once are written again; repeated removal is an error."""
    real, times = nft_tool.run_nft, 0

    def undone(program: str, text: str, *, check: bool = False) -> int:
        nonlocal times
        port = real(program, text, check=check)
        if check:
            return port
        times += 1
        if times != 2:
            run("nft", "flush", "chain", "inet", "ringfence", "output")
        return port

    monkeypatch.setattr(nft_installation, "run_nft", undone)
    backend.plan = FirewallPlan(log=True)
    backend.open()
    assert times == 2
    times = 2
    backend.plan = FirewallPlan()
    with pytest.raises(
        FirewallError, match="another program changes the rules of table inet ringfence as soon as"
    ):
        backend.open()


@pytest.mark.parametrize(
    ("refused", "reported"),
    [("log group", ("wire",)), ("limit rate over", ("limiter",)), ("fib", ("wire", "limiter"))],
)
def test_refused_optional_rules_are_reported(
    monkeypatch: pytest.MonkeyPatch, refused: str, reported: tuple[str, ...]
) -> None:
    """If log rules or limiter are refused, the drops remain, also after damage, and it is reported."""
    real = nft_ruleset.ruleset_text

    def ruleset_text(rules: Ruleset, **options: object) -> str:
        return real(rules, **options).replace(refused, "unknown-to-all")  # type: ignore[arg-type]

    monkeypatch.setattr(nft_installation, "ruleset_text", ruleset_text)
    backend = NftablesBackend(FirewallPlan(log_group=7, added=(Limit(LimitMode.ENFORCE),)))
    for _ in range(2):
        opened = backend.open()
        assert opened.families == BOTH
        assert (opened.wire is not None, opened.limits is not None) == (
            "wire" in reported,
            "limiter" in reported,
        )
        assert all("nft failed" in why for why in (opened.wire, opened.limits) if why)
        assert {outcome.error for outcome in backend.apply(BANS)} == {None}
        assert list(backend.remembered(FLOODS)) == []
        run("nft", "flush", "chain", "inet", "ringfence", "output")
    backend.close()


def test_rules_that_were_refused_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the kernel accepts the log rules later, the next open() writes them, without other changes."""
    real = nft_ruleset.ruleset_text

    def ruleset_text(rules: Ruleset, **options: object) -> str:
        return real(rules, **options).replace("log group", "unknown-to-all")  # type: ignore[arg-type]

    with closing(NftablesBackend(FirewallPlan(log_group=7))) as backend:
        with monkeypatch.context() as patch:
            patch.setattr(nft_installation, "ruleset_text", ruleset_text)
            for _ in range(2):
                opened = backend.open()
                assert opened.wire is not None
                assert not opened.repaired
        assert backend.open() == Opened(BOTH)
        assert "log group 7" in run("nft", "list", "ruleset")


def test_a_flush_while_rules_are_written_is_noticed(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another program changes after our rules were read again is found by the next check."""
    real, reads = nft_state.read_state, 0

    def read_state(kernel: NetlinkConnection, names: Mapping[str, str]) -> TableState | None:
        nonlocal reads
        state, reads = real(kernel, names), reads + 1
        if reads == 2:  # the rules stand
            run("nft", "flush", "ruleset")
        return state

    backend.plan = FirewallPlan(log=True)
    with monkeypatch.context() as patch:
        patch.setattr(nft_installation, "read_state", read_state)
        backend.open()

    assert reads >= 2
    assert backend.health().damage is not None
    backend.open()
    assert backend.health() == Health(elements=0)


def test_a_tool_that_did_not_end_is_no_refusal(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a passing failure of nft, the rules are whole again, with all that the kernel supports."""
    real, calls = nft_tool.run_nft, 0

    def hangs_once(program: str, text: str, *, check: bool = False) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise FirewallToolError("nft did not end within 10 s")
        return real(program, text, check=check)

    inner = backend._installation.require().inner
    backend.plan = FirewallPlan(log_group=7, added=(Limit(LimitMode.ENFORCE),))
    with monkeypatch.context() as patch:
        patch.setattr(nft_installation, "run_nft", hangs_once)
        with pytest.raises(FirewallToolError):
            backend.open()
    opened = backend.open()

    assert (opened.wire, opened.limits) == (None, None)
    assert backend._installation.require().inner == inner


def test_limits_that_could_not_be_emptied_are_emptied_by_the_next_try(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the kernel refuses to forget the senders of a changed limit, the next try makes it forget them."""
    backend.plan = FirewallPlan(added=(Limit(LimitMode.ENFORCE),))
    backend.open()
    run("nft", "add element inet ringfence rate4 { 192.0.2.1 timeout 1h }")
    backend.plan = FirewallPlan(added=(Limit(LimitMode.ENFORCE, 7, 30),))
    with monkeypatch.context() as patch:
        patch.setattr(NetlinkConnection, "transact", lambda *_: [Refusal(0, errno.ENOMEM)])
        with pytest.raises(NetlinkError, match="the kernel refused"):
            backend.open()
    assert "192.0.2.1" in run("nft", "list", "set", "inet", "ringfence", "rate4")
    backend.open()
    assert "192.0.2.1" not in run("nft", "list", "set", "inet", "ringfence", "rate4")


def test_refused_drops_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the drops are refused too, open() fails with the output of the tool."""
    monkeypatch.setattr(nft_installation, "ruleset_text", lambda _rules, **_options: "unknown to all\n")
    backend = NftablesBackend(FirewallPlan(log_group=7))
    with pytest.raises(FirewallError, match="nft failed"):
        backend.open()
    with pytest.raises(FirewallError, match="not open"):
        backend.apply(BANS)
    backend.close()


def test_a_refused_set_is_reported_for_its_bans(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the set for a length cannot be made, its bans are refused with the reason; others are not."""
    with monkeypatch.context() as patch:
        patch.setattr(nft_installation, "messages_to_add", lambda *_: [delete_table("absent")])
        outcomes = backend.apply(BANS)
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, True]
    assert "the kernel refused: " in str(outcomes[2].error)
    run("nft", "flush", "chain", "inet", "ringfence", "output")
    assert "opening the firewall again repairs it" in str(backend.apply(BANS)[2].error)
    backend.open()
    assert {outcome.error for outcome in backend.apply(BANS)} == {None}
