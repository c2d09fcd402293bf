"""Both flavours of iptables, independent of the machine's default `iptables`."""

from collections.abc import Callable

from tests.support.netns import run

from ringfence.firewall.ipset.iptables import Tools

FLAVOURS = ("nft", "legacy")


def command(flavour: str, version: int) -> str:
    """Return the path of one flavour's iptables."""
    return f"/usr/sbin/{'iptables' if version == 4 else 'ip6tables'}-{flavour}"


def tools_of(flavour: str, version: int) -> Tools:
    """Return one flavour's tools."""
    return Tools(*(f"{command(flavour, version)}-{verb}" for verb in ("save", "restore")))


def finder(flavour: str) -> Callable[[int], Tools]:
    """Return the function by which a backend finds its tools."""
    return lambda version: tools_of(flavour, version)


def rules(tools: Tools) -> list[str]:
    """Return the saved rules of all tables, without comments and counters."""
    return [line.split(" [")[0] for line in run(tools.save).splitlines() if not line.startswith("#")]
