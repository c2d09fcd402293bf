"""The values of the configuration: what each may be, checked as it is read.

A hook takes what TOML gave and gives the value, or raises ValueError with what it must be; it is written for
cattrs, which passes the wanted type as well.
"""

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NewType
from zoneinfo import ZoneInfo

from attrs import frozen

from ringfence.firewall import BACKENDS
from ringfence.firewall.contract import LimitMode, Verdict
from ringfence.lists.entries import host_from, place_from, what_from
from ringfence.model import Network, Secret, network_from

MAX_ATTEMPTS = 1_000
MAX_FRIENDS_ATTEMPTS = 100_000
MAX_PER_MINUTE = 100_000
MAX_PORT = 65_535
MAX_RATE = 10_000
"""Packets a second; what the kernel's own limiters count in is exact up to here."""

MAX_SET = 4_194_304
MAX_DURATION = 10 * 365 * 86_400.0

Text = NewType("Text", str)
Name = NewType("Name", str)
Port = NewType("Port", int)
Count = NewType("Count", int)
FriendCount = NewType("FriendCount", int)
PerMinute = NewType("PerMinute", int)
Duration = NewType("Duration", float)
Ladder = NewType("Ladder", tuple[float, ...])
BackendName = NewType("BackendName", str)
LevelName = NewType("LevelName", str)
Pattern = NewType("Pattern", str)
HostName = NewType("HostName", str)
Place = NewType("Place", str)
Interface = NewType("Interface", str)
ScopeName = NewType("ScopeName", str)
Rate = NewType("Rate", int)
Burst = NewType("Burst", int)
SetSize = NewType("SetSize", int)
Paths = NewType("Paths", tuple[Path, ...])


@frozen
class SipPort:
    """A port of this host on which SIP is spoken, by UDP, by TCP, or by both."""

    number: int
    udp: bool = True
    tcp: bool = True


def parse_duration(text: object) -> float:
    """Read ``"90s"``, ``"10m"``, ``"1h"``, ``"7d"`` or ``"2w"`` → seconds; else raise ValueError."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= MAX_DURATION:
        raise ValueError('must be a duration such as "90s", "10m", "1h" or "7d", at most ten years')
    return seconds


_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")
_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def text_from(value: object, _: object = None) -> str:
    """Give a text that may stand in a line of a protocol, or raise ValueError."""
    if not isinstance(value, str) or not value or _CONTROL.search(value):
        raise ValueError("must be a text, not empty, without control characters")
    return value


def _truth(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _whole(lowest: int, highest: int) -> Callable[[object, object], int]:
    def hook(value: object, _: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return value

    return hook


def _zone(value: object, _: object) -> ZoneInfo:
    try:
        return ZoneInfo(text_from(value))
    except (OSError, LookupError, ValueError):
        raise ValueError('must be a time zone such as "Europe/Berlin" or "UTC"') from None


def _path(value: object, _: object) -> Path:
    path = Path(text_from(value))
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _ladder(value: object, _: object) -> Ladder:
    steps = value if isinstance(value, list) else [value]
    if not steps:
        raise ValueError('must be a duration such as "1h", or a list of them')
    return Ladder(tuple(parse_duration(step) for step in steps))


def _network(value: object, _: object) -> Network:
    try:
        network = network_from(text_from(value))
        what_from(str(network))  # everybody is nobody's entry
    except ValueError as error:
        if isinstance(value, str) and _is_host(value):
            raise ValueError(f'"{value}" is a name: [allow] hosts takes names, nothing else does') from None
        raise ValueError(f'must be an address or a network such as "192.0.2.0/24": {error}') from None
    return network


def _is_host(text: str) -> bool:
    try:
        host_from(text)
    except ValueError:
        return False
    return True


def _one_of(names: Collection[str]) -> Callable[[object, object], str]:
    def hook(value: object, _: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError("must be one of " + ", ".join(f'"{name}"' for name in names))
        return value

    return hook


_SIP_PORT = re.compile(r"([0-9]{1,5})(?:/(udp|tcp))?")


def _sip_port(value: object, _: object) -> SipPort:
    match = _SIP_PORT.fullmatch(value) if isinstance(value, str) else None
    number = int(match[1]) if match else 0
    if match is None or not 1 <= number <= MAX_PORT:
        raise ValueError('must be a port such as "5060" (both), "5060/udp" or "5061/tcp"')
    return SipPort(number, udp=match[2] != "tcp", tcp=match[2] != "udp")


_INTERFACE = re.compile(r"[!-.0-9;-~]{1,15}")


def _interface(value: object, _: object) -> Interface:
    """Read an interface's name as the kernel takes it, without what rules read as a pattern."""
    if not isinstance(value, str) or not _INTERFACE.fullmatch(value) or set(value) & set('*+"\\'):
        raise ValueError('must be the name of a network interface, such as "eth0"')
    return Interface(value)


def _paths(value: object, _: object) -> tuple[Path, ...]:
    return tuple(_path(one, Path) for one in (value if isinstance(value, list) else [value]))


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _name(value: object, _: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("must be a name of letters, digits, '.', '_' and '-'")
    return value


_LEVEL = re.compile(r"[A-Z][A-Z0-9_]{2,15}")


def _level(value: object, _: object) -> LevelName:
    if not isinstance(value, str) or not _LEVEL.fullmatch(value):
        raise ValueError('must be a level as Asterisk writes it, such as "NOTICE"')
    return LevelName(value)


def _pattern(value: object, _: object) -> Pattern:
    from ringfence.parse.custom import Custom  # noqa: PLC0415 - loaded where it is asked for

    Custom.compile(text_from(value))
    return Pattern(text_from(value))


def list_only(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Wrap a hook that would take a text for the list of its letters."""

    def hook(value: object, kind: object) -> object:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return structure(value, kind)

    return hook


HOOKS: dict[Any, Callable[[Any, Any], Any]] = {
    Text: text_from,
    Name: _name,
    Port: _whole(1, MAX_PORT),
    Count: _whole(1, MAX_ATTEMPTS),
    FriendCount: _whole(0, MAX_FRIENDS_ATTEMPTS),
    PerMinute: _whole(0, MAX_PER_MINUTE),
    Duration: lambda value, _: parse_duration(value),
    Ladder: _ladder,
    BackendName: _one_of(BACKENDS),
    ScopeName: _one_of(("all", "sip")),
    Verdict: lambda value, kind: Verdict(_one_of(tuple(Verdict))(value, kind)),
    LimitMode: lambda value, kind: LimitMode(_one_of(tuple(LimitMode))(value, kind)),
    Rate: _whole(1, MAX_RATE),
    Burst: _whole(1, MAX_RATE),
    SetSize: _whole(1_024, MAX_SET),
    SipPort: _sip_port,
    Interface: _interface,
    HostName: lambda value, _: HostName(host_from(text_from(value)).text),
    Place: lambda value, _: Place(place_from(text_from(value)).text.removeprefix("country ")),
    Paths: _paths,
    LevelName: _level,
    Pattern: _pattern,
    bool: _truth,
    Path: _path,
    Path | None: _path,
    ZoneInfo | None: _zone,
    Network: _network,
    Secret | None: lambda value, _: Secret(text_from(value)),
}
"""What reads a value of each type."""
