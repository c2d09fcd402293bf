"""The network interfaces of this host, by name."""

import socket
from collections.abc import Iterable


def missing_interfaces(names: Iterable[str]) -> list[str]:
    """Return a message if this host lacks some of the interfaces that the configuration names."""
    there = {name for _, name in socket.if_nameindex()}
    missing = ", ".join(name for name in names if name not in there)
    if not missing:
        return []
    return [f"[firewall] interfaces: there is no {missing} here; what comes by others is not dropped"]
