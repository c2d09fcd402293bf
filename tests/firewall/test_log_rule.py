"""The log rule for outgoing challenges: behind the drops, only where asked for, and never instead of them."""

import pytest
from tests.support.netns import run

from ringfence.errors import FirewallError
from ringfence.firewall import iptables, make_backend
from ringfence.firewall.contract import Backend, Opened, Plan
from ringfence.firewall.ipset import SETS
from ringfence.firewall.iptables import Log

GROUP = 21063
HEADER = "0x0>>0x16&0x3c"  # the length of IPv4's header
TESTS = {
    4: f"{HEADER}@0x8=0x5349502f&&{HEADER}@0xc=0x322e3020&&{HEADER}@0xf=0x20343031,0x20343037",
    6: "0x30=0x5349502f&&0x34=0x322e3020&&0x37=0x20343031,0x20343037",
}


def rules_of(version: int, *, logged: bool) -> list[str]:
    """Give our rules as iptables-save must print them."""
    name = SETS[version]
    match, target = f'-p udp -m u32 --u32 "{TESTS[version]}"', f"-j NFLOG --nflog-group {GROUP}"
    out = [f"-A ringfence-out -m set --match-set {name} dst -j DROP"]
    pre = [f"-A ringfence-pre -m set --match-set {name} {side} -j DROP" for side in ("src", "dst")]
    if logged:
        out.append(f"-A ringfence-out {match} {target}")
        pre.append(f"-A ringfence-pre {match} -m rpfilter -m addrtype --dst-type UNICAST {target}")
    return out + pre


def saved(version: int, tool: str = "") -> list[str]:
    """Give the rules of our chains as they are, chain by chain."""
    prefix = "iptables" if version == 4 else "ip6tables"
    lines = run(tool or f"{prefix}-save").splitlines()
    return sorted(
        (line for line in lines if line.startswith("-A ringfence-")), key=lambda line: line.split()[1]
    )


@pytest.fixture(params=["nft", "legacy"])
def flavour(request: pytest.FixtureRequest, netns: None) -> str:
    """Each flavour of iptables, with the sets that the rules name."""
    for version, name in SETS.items():
        family = "inet" if version == 4 else "inet6"
        run("ipset", "create", name, "hash:net", "family", family, "timeout", "0", "counters")
    flavour: str = request.param
    return flavour


@pytest.mark.kernel
@pytest.mark.parametrize("version", [4, 6])
def test_the_log_rule_goes_in_heals_and_goes_out(flavour: str, version: int) -> None:
    """With each flavour: as the tool itself prints it, behind the drops, once, after damage, and out."""
    prefix = f"/usr/sbin/{'iptables' if version == 4 else 'ip6tables'}-{flavour}"
    tools = iptables.Tools(save=f"{prefix}-save", restore=f"{prefix}-restore")
    name, log = SETS[version], Log(version, GROUP)

    def state() -> list[str]:
        return saved(version, tools.save)

    assert [iptables.install(tools, name, log=log) for _ in range(2)] == [True, False]
    assert state() == rules_of(version, logged=True)
    for damage in ("-D ringfence-out 2", "-D ringfence-pre 3", "-D ringfence-pre 1", "-F ringfence-out"):
        run(prefix, "-t", "raw", *damage.split())
        assert [iptables.install(tools, name, log=log) for _ in range(2)] == [True, False]
        assert state() == rules_of(version, logged=True)

    assert [iptables.install(tools, name) for _ in range(2)] == [True, False]
    assert state() == rules_of(version, logged=False)
    iptables.install(tools, name, log=log)
    iptables.remove(tools)
    assert "ringfence" not in run(tools.save)


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_backend_logs_only_where_asked() -> None:
    """Asked for, the rule stands for both IP versions and nothing is told; else it is not there."""
    for group, logged in ((GROUP, True), (None, False), (GROUP, True)):
        backend = make_backend("ipset", Plan(log_group=group))
        assert backend.open().wire is None
        for version in SETS:
            assert saved(version) == rules_of(version, logged=logged)
        backend.close()

    backend = make_backend("ipset")
    backend.flush()
    backend.close()
    assert [saved(version) for version in SETS] == [[], []]


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_what_cannot_be_logged_is_banned_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the log rule is refused the drops stand without it, at once and after damage, and it is told."""
    backend = make_backend("ipset", Plan(log_group=GROUP))
    with monkeypatch.context() as broken:
        broken.setitem(iptables._PASSING, "ringfence-pre", "-m unknown-to-all ")
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
    monkeypatch.setitem(iptables._CHALLENGES, 6, "no test of u32")
    backend = make_backend("ipset", Plan(log_group=GROUP))

    wire = backend.open().wire

    assert wire is not None
    assert wire.startswith("IPv6: ")
    assert "IPv4" not in wire
    assert [saved(version) for version in SETS] == [
        rules_of(4, logged=True),
        rules_of(6, logged=False),
    ]
    backend.close()


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_drops_that_are_refused_are_no_matter_of_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the drops cannot stand either, open() fails as it does without a log rule."""
    monkeypatch.setitem(iptables._SIDES, "ringfence-out", ("nowhere",))
    backend = make_backend("ipset", Plan(log_group=GROUP))
    with pytest.raises(FirewallError, match="restore failed"):
        backend.open()
    backend.close()


@pytest.mark.parametrize(
    ("group", "wire"), [(None, None), (GROUP, "a dry run puts no log rule into the kernel")]
)
def test_a_dry_run_has_no_wire(group: int | None, wire: str | None) -> None:
    """The memory backend says so where a log rule is asked for."""
    backend: Backend = make_backend("memory", Plan(log_group=group))
    assert backend.open() == Opened({4: None, 6: None}, wire=wire)
