"""``[fence]``: ports of other services, and the port of SSH."""

import pytest

from ringfence.config.converters import HOOKS
from ringfence.features.fence.settings import MOST_ALSO, FenceSettings, ServicePort, ports_of, problems
from ringfence.firewall.ports import Ports


@pytest.mark.parametrize(
    "value",
    ["443", "443/sctp", "0/tcp", "65536/tcp", "0443/tcp", "443/TCP", " 443/tcp", "443/tcp\n", 443, None],
)
def test_a_port_needs_its_protocol(value: object) -> None:
    """A number alone, another protocol, and a number that is no port are refused."""
    with pytest.raises(ValueError, match='such as "443/tcp"'):
        HOOKS[ServicePort](value, ServicePort)


def test_ports_by_protocol() -> None:
    """Ports are sorted by their protocol, each once."""
    assert ports_of(["8443/tcp", "443/tcp", "69/udp", "443/tcp"]) == Ports((69,), (443, 8443))
    assert ports_of([]) == Ports((), ())
    assert HOOKS[ServicePort]("65535/udp", ServicePort) == "65535/udp"


def test_ssh_is_refused_unless_it_is_forced() -> None:
    """The port of SSH needs ``also_ssh``; 22/udp is no SSH."""
    [problem] = problems(FenceSettings(also=(ServicePort("22/tcp"), ServicePort("443/tcp"))), {})
    assert "22/tcp is the port of SSH" in problem
    assert "also_ssh = true" in problem
    assert problems(FenceSettings(also=(ServicePort("22/tcp"),), also_ssh=True), {}) == []
    assert problems(FenceSettings(also=(ServicePort("22/udp"),)), {}) == []


def test_the_number_of_ports_is_limited() -> None:
    """One port too many is refused."""
    ports = tuple(ServicePort(f"{number}/tcp") for number in range(8_000, 8_000 + MOST_ALSO))
    assert problems(FenceSettings(also=ports), {}) == []
    [problem] = problems(FenceSettings(also=(*ports, ServicePort("9000/tcp"))), {})
    assert "more than 32" in problem
