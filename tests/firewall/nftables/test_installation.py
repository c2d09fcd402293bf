"""The rules of our table: refused by the kernel, and changed by other programs."""

import pytest
from tests.firewall.nftables.test_backend import BANS, BOTH
from tests.support.netns import run

from ringfence.errors import FirewallError, FirewallToolError
from ringfence.features.limiter.stage import FLOODS, Limit
from ringfence.firewall.contract import FirewallPlan, Health
from ringfence.firewall.limits import LimitMode
from ringfence.firewall.nftables import installation as nft_installation
from ringfence.firewall.nftables import installation as nft_tool
from ringfence.firewall.nftables import ruleset as nft_ruleset
from ringfence.firewall.nftables import state as nft_state
from ringfence.firewall.nftables.backend import NftablesBackend
from ringfence.firewall.nftables.ruleset import Ruleset
from ringfence.firewall.nftables.state import TableState
from ringfence.netlink.connection import NetlinkConnection

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("netns")]


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


def test_a_flush_while_rules_are_written_is_noticed(
    backend: NftablesBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another program changes after our rules were read again is found by the next check."""
    real, reads = nft_state.read_state, 0

    def read_state(kernel: NetlinkConnection) -> TableState | None:
        nonlocal reads
        state, reads = real(kernel), reads + 1
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
    monkeypatch.setattr(nft_installation, "ruleset_text", lambda _rules, **_options: "unknown to all\n")
    outcomes = backend.apply(BANS)
    assert [outcome.error is None for outcome in outcomes] == [True, True, False, True]
    assert "nft failed" in str(outcomes[2].error)
    monkeypatch.undo()
    run("nft", "flush", "chain", "inet", "ringfence", "output")
    assert "opening the firewall again repairs it" in str(backend.apply(BANS)[2].error)
    backend.open()
    assert {outcome.error for outcome in backend.apply(BANS)} == {None}
