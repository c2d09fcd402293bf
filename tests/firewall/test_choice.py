"""Which backend `auto` is, and why."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

import pytest
from attrs import define, field

from ringfence import firewall
from ringfence.errors import FirewallUnsupportedError
from ringfence.firewall import choose, make_backend
from ringfence.firewall.contract import Add, Part, Plan
from ringfence.firewall.ipset import IpsetBackend
from ringfence.firewall.memory import MemoryBackend
from ringfence.firewall.nftables import NftablesBackend


@define
class Pretence(MemoryBackend):
    """A backend that says it lacks what it is told to lack."""

    name: str = "memory"
    plan: Plan = field(factory=Plan)
    parts: Sequence[Part] = ()

    def __attrs_post_init__(self) -> None:
        """Begin without bans."""
        MemoryBackend.__init__(self, self.plan)

    def look(self) -> list[Part]:
        """Say what is lacking."""
        return list(self.parts)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Pretence]]:
    """Two backends in place of the kernel's."""
    made = {name: Pretence(name=name) for name in firewall.KERNELS}
    rows = {name: (lambda _plan, one=one: one) for name, one in made.items()}
    monkeypatch.setattr(firewall, "BACKENDS", {**firewall.BACKENDS, **rows})
    yield made
    made.clear()


LACKING = Part("tool", "is not installed; mend: apt-get install it")


def test_ipset_is_chosen_where_it_can_be_used(kernels: dict[str, Pretence]) -> None:
    """Where both can be used it is ipset, also where it lacks what it goes without."""
    kernels["ipset"].parts = [Part("limiter", "modprobe it", spared=True)]
    assert choose() == (kernels["ipset"], "what it needs is there")
    assert make_backend("auto") is kernels["ipset"]


def test_nftables_is_chosen_where_ipset_lacks_something(kernels: dict[str, Pretence]) -> None:
    """Where ipset lacks what it needs it is nftables, and that is the reason."""
    kernels["ipset"].parts = [LACKING]
    assert choose() == (
        kernels["nftables"],
        "ipset cannot be used (tool: is not installed; mend: apt-get install it)",
    )


def test_who_has_bans_in_the_kernel_goes_on(kernels: dict[str, Pretence]) -> None:
    """A restart stays with the backend whose bans stand, where it can be used."""
    kernels["nftables"].apply([Add(ip_network("192.0.2.1"), 60.0)])
    assert choose() == (kernels["nftables"], "its bans are in the kernel already")

    kernels["nftables"].parts = [LACKING]
    assert choose()[0] is kernels["ipset"]
    kernels["nftables"].parts = []
    kernels["ipset"].apply([Add(ip_network("192.0.2.1"), 60.0)])
    assert choose()[0] is kernels["ipset"]


def test_where_neither_can_be_used_both_mends_are_named(kernels: dict[str, Pretence]) -> None:
    """The error says of each backend what it lacks."""
    for name, one in kernels.items():
        one.parts = [Part("tool", f"mend: apt-get install {name}")]
    with pytest.raises(FirewallUnsupportedError, match=r"install ipset\) and nftables .*install nftables\)$"):
        make_backend("auto")


@pytest.mark.kernel
@pytest.mark.usefixtures("netns")
def test_the_kernels_own_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host with both it is ipset; without iptables nftables, whose bans then keep it."""
    chosen, _ = choose()
    assert isinstance(chosen, IpsetBackend)
    chosen.close()

    with monkeypatch.context() as without:
        without.setattr(
            IpsetBackend, "look", lambda _self: [Part("iptables for IPv4", "mend: apt-get install iptables")]
        )
        chosen, why = choose()
        assert isinstance(chosen, NftablesBackend)
        assert "apt-get install iptables" in why
    chosen.open()
    assert chosen.apply([Add(ip_network("192.0.2.1"), 60.0)])[0].error is None
    chosen.close()
    again, why = choose()
    assert (again.name, why) == ("nftables", "its bans are in the kernel already")
    again.flush()
    again.close()
    back = make_backend("auto")
    assert back.name == "ipset"
    back.close()
