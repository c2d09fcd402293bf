"""The network interfaces of this host, by name."""

import socket
from collections.abc import Iterable

from ringfence.alarm_codes import Alarm, AlarmCode


def missing_interfaces(names: Iterable[str]) -> list[Alarm]:
    """Return an alarm for each of ``names`` (from the configuration) that is no interface of this host."""
    there = {name for _, name in socket.if_nameindex()}
    text = "[firewall] interfaces: there is no such interface; what comes by others is not dropped"
    return [Alarm(AlarmCode.FIREWALL_INTERFACES, name, text) for name in names if name not in there]
