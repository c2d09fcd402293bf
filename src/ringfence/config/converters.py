"""Converters of configuration values: they check a value while it is read.

A *hook* is a function that converts a TOML value. If the value is invalid, it raises ValueError with a text
such as "must be true or false". cattrs passes the wanted type as the second argument.
"""

import enum
import json
import re
from collections.abc import Callable, Collection, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NewType
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from attrs import frozen

from ringfence.clock import TEN_YEARS
from ringfence.firewall import BACKENDS
from ringfence.firewall.contract import BanAction
from ringfence.firewall.limits import LimitMode
from ringfence.lists.entries import parse_entry, parse_host, parse_region
from ringfence.values.network import Address, Network, parse_network
from ringfence.values.secret import Secret

# -- files that contain a secret


MAX_SECRET_BYTES = 1024


def is_visible(path: Path) -> bool:
    """Whether the file ``path`` exists and this user may know that."""
    try:
        return path.exists()
    except OSError:  # systemd's folder of credentials is for another user only
        return False


def read_secret(path: Path, key: str) -> Secret:
    """Return the secret that the file ``path`` contains, without its newline.

    Raise ValueError, with a text that begins with ``key``, if the file is unreadable or its content invalid.
    """
    line_end = len("\r\n")
    try:
        with path.open("rb") as file:
            whole = file.read(MAX_SECRET_BYTES + line_end + 1)
        clear = whole.strip(b"\r\n").decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"{key}: {path} cannot be read: {reason}") from None
    if len(whole) > MAX_SECRET_BYTES + line_end or len(clear.encode()) > MAX_SECRET_BYTES:
        raise ValueError(f"{key}: {path} holds more than {MAX_SECRET_BYTES} bytes")
    try:
        return Secret(text_from(clear))
    except ValueError as error:
        raise ValueError(f"{key}: {path}: {error}") from None


MAX_ATTEMPTS = 1_000
MAX_FRIENDS_ATTEMPTS = 100_000
MAX_PER_MINUTE = 100_000
MAX_PORT = 65_535
MAX_RATE = 10_000
"""The highest packet limit that can be set (packets per second). Above it, the kernel limits inexactly."""

MAX_SET = 4_194_304
_IPV6 = 6

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
Region = NewType("Region", str)
Interface = NewType("Interface", str)
ScopeName = NewType("ScopeName", str)
TimesName = NewType("TimesName", str)
Rate = NewType("Rate", int)
Burst = NewType("Burst", int)
SetSize = NewType("SetSize", int)
Paths = NewType("Paths", tuple[Path, ...])
UserName = NewType("UserName", str)


@frozen
class SipPort:
    """A SIP port of this host, for UDP, for TCP, or for both."""

    number: int
    udp: bool = True
    tcp: bool = True


@frozen
class ListenAddress:
    """An address and a TCP port on which to listen."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == _IPV6 else str(self.address)
        return f"{host}:{self.port}"


def parse_duration(text: object) -> float:
    """Parse ``"90s"``, ``"10m"``, ``"1h30m"`` or ``"7d"`` into seconds; raise ValueError otherwise.

    The units are ``w``, ``d``, ``h``, ``m`` and ``s``, in this order, each at most once. One space may stand
    between two parts, as in ``"1h 30m"``. The longest duration is ``TEN_YEARS``.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    seconds = sum(int(number) * _UNITS[unit] for unit, number in match.groupdict("0").items()) if match else 0
    if not 0 < seconds <= TEN_YEARS:
        raise ValueError('must be a duration such as "90s", "10m", "1h30m" or "7d", at most ten years')
    return seconds


def text_of_duration(seconds: float) -> str:
    """Return seconds as a text that :func:`parse_duration` accepts, such as ``"1h30m"``.

    The unit ``w`` is not used: a week is ``"7d"``.
    """
    left, parts = round(seconds), []
    for unit in "dhms":
        number, left = divmod(left, int(_UNITS[unit]))
        parts += [f"{number}{unit}"] if number else []
    return "".join(parts)


def toml_of(value: int | str | Sequence[int | str]) -> str:
    """Return a value as TOML. Texts must be printable.

    For these types, JSON is also valid TOML, if characters beyond ASCII are not escaped.
    """
    return json.dumps(value, ensure_ascii=False)


_UNITS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0}
_PARTS = "".join(f"(?: ?(?P<{unit}>[0-9]{{1,9}}){unit})?" for unit in _UNITS)
_DURATION = re.compile(f"(?! ){_PARTS}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def text_from(value: object, _: object = None) -> str:
    """Return ``value``. Raise ValueError if it is no text, is empty, or has control characters.

    A control character, such as the end of a line, could end a command of AMI or of a mail server early.
    """
    if not isinstance(value, str) or not value or _CONTROL.search(value):
        raise ValueError("must be a text, not empty, without control characters")
    return value


def _truth(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


Hook = Callable[[Any, Any], Any]
"""A converter of cattrs: it is called with a value of the file and the wanted type; ValueError refuses."""


def whole_number(lowest: int, highest: int) -> Hook:
    """Return a converter for settings that accepts whole numbers from ``lowest`` to ``highest``."""

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
        network = parse_network(text_from(value))
        parse_entry(str(network))  # raises ValueError for the whole internet (0.0.0.0/0 or ::/0)
    except ValueError as error:
        if isinstance(value, str) and _is_host(value):
            raise ValueError(f'"{value}" is a name: [allow] hosts takes names, nothing else does') from None
        raise ValueError(f'must be an address or a network such as "192.0.2.0/24": {error}') from None
    return network


def _is_host(text: str) -> bool:
    try:
        parse_host(text)
    except ValueError:
        return False
    return True


def one_of(names: Collection[str]) -> Hook:
    """Return a converter for settings that accepts one of the texts ``names``."""
    return partial(_one_of, names)


def _one_of(names: Collection[str], value: object, _: object) -> str:
    if not isinstance(value, str) or value not in names:
        raise ValueError("must be one of " + ", ".join(f'"{name}"' for name in names))
    return value


def member(value: object, kind: Any) -> enum.StrEnum:  # noqa: ANN401 - an enum
    """Convert a text to the member of the enum ``kind`` that it names; raise ValueError if it names none."""
    found: enum.StrEnum = kind(_one_of(tuple(kind), value, kind))
    return found


def _duration(value: object, _: object) -> float:
    return parse_duration(value)


def _host_name(value: object, _: object) -> HostName:
    return HostName(parse_host(text_from(value)).text)


def _region(value: object, _: object) -> Region:
    return Region(parse_region(text_from(value)).text.rpartition(" ")[2])


def _secret(value: object, _: object) -> Secret:
    return Secret(text_from(value))


_SIP_PORT = re.compile(r"([0-9]{1,5})(?:/(udp|tcp))?")


def _sip_port(value: object, _: object) -> SipPort:
    match = _SIP_PORT.fullmatch(value) if isinstance(value, str) else None
    number = int(match[1]) if match else 0
    if match is None or not 1 <= number <= MAX_PORT:
        raise ValueError('must be a port such as "5060" (both), "5060/udp" or "5061/tcp"')
    return SipPort(number, udp=match[2] != "tcp", tcp=match[2] != "udp")


_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9.]{7,15})):([0-9]{1,5})")


def _listen(value: object, _: object) -> ListenAddress:
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    try:
        if match is None or not 1 <= int(match[3]) <= MAX_PORT:
            raise ValueError
        return ListenAddress(ip_address(match[1] or match[2]), int(match[3]))
    except ValueError:
        raise ValueError('must be an address and a port such as "127.0.0.1:9721" or "[::1]:9721"') from None


_INTERFACE = re.compile(r"[!-.0-9;-~]{1,15}")


def _interface(value: object, _: object) -> Interface:
    """Parse an interface name that the kernel accepts. Characters of patterns (``*``, ``+``) are refused."""
    if not isinstance(value, str) or not _INTERFACE.fullmatch(value) or set(value) & set('*+"\\'):
        raise ValueError('must be the name of a network interface, such as "eth0"')
    return Interface(value)


def _paths(value: object, _: object) -> tuple[Path, ...]:
    return tuple(_path(one, Path) for one in (value if isinstance(value, list) else [value]))


def is_url(text: str, schemes: tuple[str, ...] = ("https",)) -> bool:
    """Whether a text is a plain URL of one of ``schemes``, without user, fragment and special characters."""
    try:
        parts = urlsplit(text)
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return valid and "@" not in parts.netloc and "#" not in text and text.isascii() and " " not in text


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


def list_only(structure: Hook) -> Hook:
    """Return a converter that refuses everything but a list, and converts a list with ``structure``.

    Without this converter, cattrs would read a text as a list of letters.
    """

    def hook(value: object, kind: object) -> object:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        return structure(value, kind)

    return hook


_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.@\\-]{0,63}\$?")
_USER_NUMBER = re.compile(r"[0-9]{1,10}")
_MAX_USER = 2**32 - 2


def _user(value: object, _: Any) -> UserName:  # noqa: ANN401 - a type
    """Return a user of the configuration, a name or a number, as text; raise ValueError if invalid."""
    number = int(value) if isinstance(value, str) and _USER_NUMBER.fullmatch(value) else value
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= _MAX_USER:
        return UserName(str(number))
    if isinstance(value, str) and _USER.fullmatch(value):
        return UserName(value)
    raise ValueError('must be the name of a user such as "alice", or its number')


HOOKS: dict[Any, Hook] = {
    Text: text_from,
    Name: _name,
    Port: whole_number(1, MAX_PORT),
    Count: whole_number(1, MAX_ATTEMPTS),
    FriendCount: whole_number(0, MAX_FRIENDS_ATTEMPTS),
    PerMinute: whole_number(0, MAX_PER_MINUTE),
    Duration: _duration,
    Ladder: _ladder,
    BackendName: one_of(BACKENDS),
    ScopeName: one_of(("all", "sip")),
    TimesName: one_of(("utc", "local")),
    BanAction: member,
    LimitMode: member,
    Rate: whole_number(1, MAX_RATE),
    Burst: whole_number(1, MAX_RATE),
    SetSize: whole_number(1_024, MAX_SET),
    SipPort: _sip_port,
    Interface: _interface,
    HostName: _host_name,
    Region: _region,
    Paths: _paths,
    LevelName: _level,
    UserName: _user,
    Name | None: _name,
    Duration | None: _duration,
    Text | None: text_from,
    Pattern: _pattern,
    bool: _truth,
    Path: _path,
    Path | None: _path,
    ZoneInfo | None: _zone,
    Network: _network,
    ListenAddress | None: _listen,
    Secret | None: _secret,
}
"""The converter for each type of a setting. A feature adds those of its types in its module ``settings``."""
