"""The log rules for challenges: before the drops of outgoing and routed packets, and never required."""

import pytest
from tests.support.flavours import FLAVOURS, command, finder, tools_of
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Backend, FirewallPlan, Fragments, Opened
from ringfence.firewall.ipset import matches, stage_rules
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.ipset.iptables_rules import wanted_rules

GROUP = 21063


def rules_of(version: int, *, logged: bool) -> list[str]:
    """Return our rules as iptables-save must print them, chain by chain."""
    plan = FirewallPlan(log_group=GROUP if logged else None)
    chains = wanted_rules(plan, version, fragments=Fragments.REASSEMBLED)["raw"]
    return [f"-A {name} {rule.text}" for name in sorted(chains) for rule in chains[name]]


def saved(version: int, flavour: str = "nft") -> list[str]:
    """Return the rules of our chains in the kernel, chain by chain."""
    lines = run(tools_of(flavour, version).save).splitlines()
    return sorted(
        (line for line in lines if line.startswith("-A ringfence-")), key=lambda line: line.split()[1]
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_log_rules_are_added_repaired_and_removed(flavour: str) -> None:
    """Each flavour of iptables adds, repairs and removes the log rules beside the drops."""
    backend = IpsetBackend(FirewallPlan(log_group=GROUP), find_tools=finder(flavour))
    for version in (4, 6):
        last = {
            chain: sum(f"-A {chain} " in rule for rule in rules_of(version, logged=True))
            for chain in ("ringfence-out", "ringfence-pre")
        }
        for damage in (
            "",
            *(f"-D {chain} {number}" for chain, number in last.items()),
            "-D ringfence-pre 1",
            "-F ringfence-out",
        ):
            if damage:
                run(command(flavour, version), "-t", "raw", *damage.split())
            assert [backend.open().repaired for _ in range(2)] == [bool(damage), False]
            assert saved(version, flavour) == rules_of(version, logged=True)

    backend.plan = FirewallPlan()
    assert [backend.open().repaired for _ in range(2)] == [False, False]
    assert [saved(version, flavour) for version in (4, 6)] == [rules_of(v, logged=False) for v in (4, 6)]
    backend.plan = FirewallPlan(log_group=GROUP)
    backend.open()
    backend.flush()
    backend.close()
    assert [saved(version, flavour) for version in (4, 6)] == [[], []]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_backend_logs_only_if_configured() -> None:
    """With a log group both IP versions have the log rules, and no problem is reported; else neither has."""
    for group, logged in ((GROUP, True), (None, False), (GROUP, True)):
        backend = make_backend("ipset", FirewallPlan(log_group=group))
        assert backend.open().wire is None
        for version in (4, 6):
            assert saved(version) == rules_of(version, logged=logged)
        backend.close()

    backend = make_backend("ipset")
    backend.flush()
    backend.close()
    assert [saved(version) for version in (4, 6)] == [[], []]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_without_log_rules_bans_still_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the log rules are refused, the drops remain without them, also after damage, and it is reported."""
    backend = make_backend("ipset", FirewallPlan(log_group=GROUP))
    with monkeypatch.context() as broken:
        for version in (4, 6):
            broken.setitem(matches.FORWARDED, version, "-m unknown-to-all ")
        for _ in range(2):
            opened = backend.open()
            assert opened.families == {4: None, 6: None}
            assert opened.wire is not None
            assert opened.wire.startswith("IPv4: ")
            assert "; IPv6: " in opened.wire
            assert "unknown-to-all" in opened.wire
            assert "fix: `modprobe xt_u32 xt_multiport xt_NFLOG " in opened.wire
            assert saved(4) == rules_of(4, logged=False)
            run("iptables", "-t", "raw", "-F", "ringfence-out")

    assert backend.open().wire is None
    assert saved(4) == rules_of(4, logged=True)
    backend.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_one_ip_version_may_lack_the_log_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal for IPv6 leaves the rules of IPv4 in number, and only IPv6 is reported."""
    monkeypatch.setitem(matches.STREAM, 6, "no test of u32")
    backend = make_backend("ipset", FirewallPlan(log_group=GROUP))

    wire = backend.open().wire

    assert wire is not None
    assert wire.startswith("IPv6: ")
    assert "IPv4" not in wire
    assert [saved(version) for version in (4, 6)] == [
        rules_of(4, logged=True),
        rules_of(6, logged=False),
    ]
    backend.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_refused_drops_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the drops are refused too, open() fails as it does without log rules."""
    monkeypatch.setattr(stage_rules, "ban_set_name", lambda version, _scope, **_: f"absent{version}")
    backend = make_backend("ipset", FirewallPlan(log_group=GROUP))
    with pytest.raises(FirewallError, match="restore failed"):
        backend.open()
    backend.close()


@pytest.mark.parametrize(("group", "wire"), [(None, None), (GROUP, "a dry run puts no rule into the kernel")])
def test_a_dry_run_has_no_wire(group: int | None, wire: str | None) -> None:
    """The memory backend reports configured log rules as missing, and so the limit of their copies."""
    backend: Backend = make_backend("memory", FirewallPlan(log_group=group))
    assert backend.open() == Opened({4: None, 6: None}, wire=wire, limits=wire)
