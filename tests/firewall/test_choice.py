"""The choice of the backend ``auto``, and its reason."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path

import pytest
from attrs import define, field
from tests.support.daemon import Guard

from ringfence import firewall
from ringfence.errors import FirewallUnsupportedError
from ringfence.firewall import choose_backend, make_backend
from ringfence.firewall.contract import Add, FirewallPlan, Requirement
from ringfence.firewall.ipset.backend import IpsetBackend
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.nftables.backend import NftablesBackend


@define
class ScriptedBackend(MemoryBackend):
    """A backend with scripted requirements."""

    name: str = "memory"
    plan: FirewallPlan = field(factory=FirewallPlan)
    scripted: Sequence[Requirement] = ()

    def __attrs_post_init__(self) -> None:
        """Start without bans."""
        MemoryBackend.__init__(self, self.plan)

    def requirements(self) -> list[Requirement]:
        """Return the scripted requirements."""
        return list(self.scripted)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ScriptedBackend]]:
    """Replace the kernel backends by two scripted ones."""
    made = {name: ScriptedBackend(name=name) for name in firewall.KERNEL_BACKENDS}
    rows = {name: (lambda _plan, one=one: one) for name, one in made.items()}
    monkeypatch.setattr(firewall, "require_capabilities", lambda *_: None)
    monkeypatch.setattr(firewall, "BACKENDS", {**firewall.BACKENDS, **rows})
    yield made
    made.clear()


MISSING = Requirement("tool", "is not installed; fix: apt-get install it")


def test_ipset_is_chosen_if_it_can_be_used(kernels: dict[str, ScriptedBackend]) -> None:
    """If both can be used, ipset is chosen, even if it lacks an optional requirement."""
    kernels["ipset"].scripted = [Requirement("limiter", "modprobe it", optional=True)]
    assert choose_backend() == (kernels["ipset"], "it has everything it needs")
    assert make_backend("auto") is kernels["ipset"]


def test_nftables_is_chosen_if_ipset_lacks_something(kernels: dict[str, ScriptedBackend]) -> None:
    """If ipset lacks a requirement, nftables is chosen, and that is the reason."""
    kernels["ipset"].scripted = [MISSING]
    assert choose_backend() == (
        kernels["nftables"],
        "ipset cannot be used (tool: is not installed; fix: apt-get install it)",
    )


def test_a_backend_with_bans_in_the_kernel_is_kept(kernels: dict[str, ScriptedBackend]) -> None:
    """A restart chooses the backend whose bans are in the kernel, if it can be used."""
    kernels["nftables"].apply([Add(ip_network("192.0.2.1"), 60)])
    assert choose_backend() == (kernels["nftables"], "its bans are in the kernel already")

    kernels["nftables"].scripted = [MISSING]
    assert choose_backend()[0] is kernels["ipset"]
    kernels["nftables"].scripted = []
    kernels["ipset"].apply([Add(ip_network("192.0.2.1"), 60)])
    assert choose_backend()[0] is kernels["ipset"]


def test_if_neither_can_be_used_both_problems_are_named(kernels: dict[str, ScriptedBackend]) -> None:
    """If neither can be used, the error contains the problems of both."""
    for name, one in kernels.items():
        one.scripted = [Requirement("tool", f"fix: apt-get install {name}")]
    with pytest.raises(FirewallUnsupportedError, match=r"install ipset\) and nftables .*install nftables\)$"):
        make_backend("auto")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_real_backends_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with both gets ipset. Without iptables it gets nftables, whose bans then keep it chosen."""
    chosen, _ = choose_backend()
    assert isinstance(chosen, IpsetBackend)
    chosen.close()

    with monkeypatch.context() as without:
        without.setattr(
            IpsetBackend,
            "requirements",
            lambda _self: [Requirement("iptables for IPv4", "fix: apt-get install iptables")],
        )
        chosen, why = choose_backend()
        assert isinstance(chosen, NftablesBackend)
        assert "apt-get install iptables" in why
    chosen.open()
    assert chosen.apply([Add(ip_network("192.0.2.1"), 60)])[0].error is None
    chosen.close()
    again, why = choose_backend()
    assert (again.name, why) == ("nftables", "its bans are in the kernel already")
    again.flush()
    again.close()
    back = make_backend("auto")
    assert back.name == "ipset"
    back.close()


@pytest.mark.kernel
def test_a_process_without_the_capability_gets_one_line(tmp_path: Path) -> None:
    """Without capabilities the daemon logs one error, with the fix for systemd, Docker and LXC."""
    guard = Guard(
        tmp_path,
        prefix=["setpriv", "--bounding-set=-net_admin,-net_raw", "--inh-caps=-net_admin,-net_raw"],
        firewall={"backend": "auto"},
    )

    assert guard.ended() == 1
    assert guard.log == (
        "the firewall needs CAP_NET_ADMIN, which this process lacks; fix: start ringfence by its unit "
        "(systemctl start ringfence) or as root; in Docker: docker run --cap-add=NET_ADMIN; "
        "in LXC: remove net_admin from lxc.cap.drop\n"
    )
