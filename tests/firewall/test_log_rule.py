"""The log rules for challenges: before the drops of outgoing and routed packets, and never required."""

import re

import pytest
from tests.support.flavours import FLAVOURS, command, finder, tools_of
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import make_backend
from ringfence.firewall.contract import Backend, FirewallPlan, Opened
from ringfence.firewall.ipset import iptables_rules, matches
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.ipset.iptables_rules import wanted_rules

GROUP = 21063
UDP, TCP = "-p udp -m multiport", "-p tcp -m multiport"
CODES = "0x20343031,0x20343033,0x20343037"
DATAGRAMS = f"{CODES},0x20343034"
IPV4 = "0x0>>0x16&0x3c@"  # the end of the IPv4 header
TCP4, TCP6 = f"{IPV4}0xc>>0x1a&0x3c@", "0x34>>0x1a&0x3c@"  # and of the TCP header
TESTS = {
    4: [
        f"{IPV4}0x8=0x5349502f&&{IPV4}0xc=0x322e3020&&{IPV4}0xf={DATAGRAMS}",
        f"{TCP4}0x0=0x5349502f&&{TCP4}0x4=0x322e3020&&{TCP4}0x7={CODES}",
        f"{TCP4}0x0>>0x10=0x817e&&{TCP4}0x4=0x5349502f&&{TCP4}0x8=0x322e3020&&{TCP4}0xb={CODES}",
        f"{TCP4}0x0>>0x10=0x8100:0x817d&&{TCP4}0x2=0x5349502f&&{TCP4}0x6=0x322e3020&&{TCP4}0x9={CODES}",
    ],
    6: [
        f"0x30=0x5349502f&&0x34=0x322e3020&&0x37={DATAGRAMS}",
        f"{TCP6}0x28=0x5349502f&&{TCP6}0x2c=0x322e3020&&{TCP6}0x2f={CODES}",
        f"{TCP6}0x28>>0x10=0x817e&&{TCP6}0x2c=0x5349502f&&{TCP6}0x30=0x322e3020&&{TCP6}0x33={CODES}",
        f"{TCP6}0x28>>0x10=0x8100:0x817d&&{TCP6}0x2a=0x5349502f&&{TCP6}0x2e=0x322e3020&&{TCP6}0x31={CODES}",
    ],
}
ROUTED = {
    4: "-m rpfilter -m addrtype --dst-type UNICAST",
    6: "-m rpfilter -m addrtype --dst-type UNICAST -m addrtype ! --dst-type LOCAL",
}


def rules_of(version: int, *, logged: bool) -> list[str]:
    """Return our rules as iptables-save must print them."""
    target = f"-j NFLOG --nflog-group {GROUP}"
    datagram, *beginnings = (f'-m u32 --u32 "{test}"' for test in TESTS[version])
    ports = "-p tcp -m multiport --sports 5038,5060,5061,8089"
    drops = wanted_rules(FirewallPlan(), version)["raw"]
    whole = ["-A ringfence-whole -m socket"]
    out = [f"-A ringfence-out {rule.text}" for rule in drops["ringfence-out"]]
    pre = [f"-A ringfence-pre {rule.text}" for rule in drops["ringfence-pre"]]
    if logged:
        any_status, copied = TESTS[version][0].rsplit("&&", 1)[0], TESTS[version][0]
        both = f'-m u32 --u32 "{any_status}" -m u32 ! --u32 "{copied}"'
        whose = {
            side: (
                f"-m set --match-set ringfence-observed{version} {side}",
                " ".join(
                    f"-m set ! --match-set ringfence-{which}{version} {side}"
                    for which in ("friends", "allow", "observed")
                ),
            )
            for side in ("src", "dst")
        }
        out = [
            f"-A ringfence-out -p udp {datagram} {target}",
            f"-A ringfence-out -o lo {ports} -j ringfence-answer",
            f"-A ringfence-out ! -o lo {ports} -j ringfence-segment",
            *(f"-A ringfence-out ! -o lo {UDP} --sports 5060 {both} {one} {target}" for one in whose["dst"]),
            *out,
        ]
        pre = [
            *(rule for rule in pre if " src " in rule),
            *(
                f"-A ringfence-pre ! -i lo {ports} {one} -j ringfence-seen"
                for ports in (f"{UDP} --dports 5060", f"{TCP} --dports 5038,5060,8089")
                for one in whose["src"]
            ),
            f"-A ringfence-pre -p udp {datagram} {ROUTED[version]} {target}",
            f"-A ringfence-pre {ports} {ROUTED[version]} -j ringfence-segment",
            *(
                f"-A ringfence-pre {UDP} --sports 5060 {both} {ROUTED[version]} {one} {target}"
                for one in whose["dst"]
            ),
            *(rule for rule in pre if " dst " in rule),
        ]
        seen, narrow = (
            f"-m limit --limit {rate}/sec --limit-burst {rate} -j NFLOG --nflog-prefix {prefix} "
            f"--nflog-group {GROUP}"
            for rate, prefix in ((10_000, "request"), (500, "dropped"))
        )
        pre = [re.sub(r"(-udp\S* src) -j DROP$", r"\1 -j ringfence-narrow", rule) for rule in pre]
        mask = " --hashlimit-srcmask 64" if version == 6 else ""
        pre += [
            (
                "-A ringfence-seen -m hashlimit --hashlimit-upto 200000/sec --hashlimit-burst 200000 "
                "--hashlimit-name ringfence-copies-all -m hashlimit --hashlimit-above 5000/sec "
                "--hashlimit-burst 5000 --hashlimit-mode srcip --hashlimit-name ringfence-copies-5000 "
                "--hashlimit-htable-size 65536 --hashlimit-htable-max 1000000 --hashlimit-htable-expire 2000"
                f"{mask} -j RETURN"
            ),
            f"-A ringfence-seen {seen}",
        ]
        narrowed = [f"-A ringfence-narrow {narrow}", "-A ringfence-narrow -j DROP"]
        answers = [f"-A ringfence-answer -p tcp {test} {target}" for test in beginnings]
        known = [
            f"-A ringfence-segment -m set ! --match-set ringfence-observed{version} dst "
            f"-m set --match-set ringfence-{which}{version} dst -g ringfence-answer"
            for which in ("allow", "friends")
        ]
        return [*answers, *narrowed, *out, *pre, *known, f"-A ringfence-segment {target}", *whole]
    return out + pre + whole


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
    monkeypatch.setattr(iptables_rules, "ban_set_name", lambda version, _scope, **_: f"absent{version}")
    backend = make_backend("ipset", FirewallPlan(log_group=GROUP))
    with pytest.raises(FirewallError, match="restore failed"):
        backend.open()
    backend.close()


@pytest.mark.parametrize(("group", "wire"), [(None, None), (GROUP, "a dry run puts no rule into the kernel")])
def test_a_dry_run_has_no_wire(group: int | None, wire: str | None) -> None:
    """The memory backend reports configured log rules as missing."""
    backend: Backend = make_backend("memory", FirewallPlan(log_group=group))
    assert backend.open() == Opened({4: None, 6: None}, wire=wire)
