"""The log rule for outgoing challenges: behind the drops, only where asked for, and never instead of them."""

import pytest
from tests.support.flavours import FLAVOURS, command, finder, tools_of
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import iptables_rules, make_backend
from ringfence.firewall.contract import Backend, Opened, Plan
from ringfence.firewall.ipset import IpsetBackend
from ringfence.firewall.iptables_rules import wanted_rules

GROUP = 21063
HEADER = "0x0>>0x16&0x3c"  # the length of IPv4's header
TESTS = {
    4: f"{HEADER}@0x8=0x5349502f&&{HEADER}@0xc=0x322e3020&&{HEADER}@0xf=0x20343031,0x20343037",
    6: "0x30=0x5349502f&&0x34=0x322e3020&&0x37=0x20343031,0x20343037",
}


def rules_of(version: int, *, logged: bool) -> list[str]:
    """Give our rules as iptables-save must print them."""
    match, target = f'-p udp -m u32 --u32 "{TESTS[version]}"', f"-j NFLOG --nflog-group {GROUP}"
    drops = wanted_rules(Plan(), version)["raw"]
    out = [f"-A ringfence-out {rule.text}" for rule in drops["ringfence-out"]]
    pre = [f"-A ringfence-pre {rule.text}" for rule in drops["ringfence-pre"]]
    if logged:
        out.append(f"-A ringfence-out {match} {target}")
        pre.append(f"-A ringfence-pre {match} -m rpfilter -m addrtype --dst-type UNICAST {target}")
    return out + pre


def saved(version: int, flavour: str = "nft") -> list[str]:
    """Give the rules of our chains as they are, chain by chain."""
    lines = run(tools_of(flavour, version).save).splitlines()
    return sorted(
        (line for line in lines if line.startswith("-A ringfence-")), key=lambda line: line.split()[1]
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_log_rule_goes_in_heals_and_goes_out(flavour: str) -> None:
    """With each flavour: as the tool itself prints it, behind the drops, once, after damage, and out."""
    backend = IpsetBackend(Plan(log_group=GROUP), find_tools=finder(flavour))
    for version in (4, 6):
        for damage in (
            "",
            "-D ringfence-out 4",
            "-D ringfence-pre 7",
            "-D ringfence-pre 1",
            "-F ringfence-out",
        ):
            if damage:
                run(command(flavour, version), "-t", "raw", *damage.split())
            assert [backend.open().healed for _ in range(2)] == [bool(damage), False]
            assert saved(version, flavour) == rules_of(version, logged=True)

    backend.plan = Plan()
    assert [backend.open().healed for _ in range(2)] == [False, False]
    assert [saved(version, flavour) for version in (4, 6)] == [rules_of(v, logged=False) for v in (4, 6)]
    backend.plan = Plan(log_group=GROUP)
    backend.open()
    backend.flush()
    backend.close()
    assert [saved(version, flavour) for version in (4, 6)] == [[], []]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_backend_logs_only_where_asked() -> None:
    """Asked for, the rule stands for both IP versions and nothing is told; else it is not there."""
    for group, logged in ((GROUP, True), (None, False), (GROUP, True)):
        backend = make_backend("ipset", Plan(log_group=group))
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
def test_what_cannot_be_logged_is_banned_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log rule is refused the drops stand without it, at once and after damage, and it is told."""
    backend = make_backend("ipset", Plan(log_group=GROUP))
    with monkeypatch.context() as broken:
        broken.setitem(iptables_rules._PASSING, "ringfence-pre", "-m unknown-to-all ")
        for _ in range(2):
            opened = backend.open()
            assert opened.families == {4: None, 6: None}
            assert opened.wire is not None
            assert opened.wire.startswith("IPv4: ")
            assert "; IPv6: " in opened.wire
            assert "unknown-to-all" in opened.wire
            assert "mend: `modprobe xt_u32 xt_NFLOG " in opened.wire
            assert saved(4) == rules_of(4, logged=False)
            run("iptables", "-t", "raw", "-F", "ringfence-out")

    assert backend.open().wire is None
    assert saved(4) == rules_of(4, logged=True)
    backend.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_one_ip_version_may_lack_the_log_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal for IPv6 leaves the rule of IPv4 in place, and only IPv6 is told."""
    monkeypatch.setitem(iptables_rules._CHALLENGES, 6, "no test of u32")
    backend = make_backend("ipset", Plan(log_group=GROUP))

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
def test_drops_that_are_refused_are_no_matter_of_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drops cannot stand either, open() fails as it does without a log rule."""
    monkeypatch.setattr(iptables_rules, "bans_name", lambda version, scope: f"absent{version}{scope}")
    backend = make_backend("ipset", Plan(log_group=GROUP))
    with pytest.raises(FirewallError, match="restore failed"):
        backend.open()
    backend.close()


@pytest.mark.parametrize(("group", "wire"), [(None, None), (GROUP, "a dry run puts no rule into the kernel")])
def test_a_dry_run_has_no_wire(group: int | None, wire: str | None) -> None:
    """The memory backend says so where a log rule is asked for."""
    backend: Backend = make_backend("memory", Plan(log_group=group))
    assert backend.open() == Opened({4: None, 6: None}, wire=wire)
