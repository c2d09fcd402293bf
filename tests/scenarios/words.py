"""Words that many parts of the scenarios' language share: numbers, durations, times, names."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_network

from ringfence.values.network import Network

MOST_DEEDS = 200_000
"""The most repetitions that one line may ask for: a typing error must not overload the machine."""

NUMBER = r"\d{1,3}(?: \d{3})+|\d+"
_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0}
DURATION = rf"(?:{NUMBER}) (?:{'|'.join(_UNITS)})"


def number_from(text: str) -> int:
    """Parse a number as people write it: ``1 000``."""
    return int(text.replace(" ", ""))


def duration_from(text: str) -> float:
    """Parse a duration: ``10 min``."""
    number, _, unit = text.rpartition(" ")
    return number_from(number) * _UNITS[unit]


def duration_text(seconds: float) -> str:
    """Return a duration as a transcript states it."""
    for unit, size in reversed(_UNITS.items()):
        if seconds >= size and round(seconds / size, 6).is_integer():
            return f"{round(seconds / size)} {unit}"
    return f"{seconds:g} s"


def clock_text(seconds: float) -> str:
    """Return a time as a transcript states it."""
    day, of_day = divmod(seconds, 86_400)
    minutes, second = divmod(of_day, 60)
    clock = f"{int(minutes) // 60:02}:{int(minutes) % 60:02}:{second:06.3f}".removesuffix(".000")
    return f"day {int(day) + 1} {clock}" if day else clock


def network_from(text: str, names: Mapping[str, Network]) -> Network:
    """Return the network that a name stands for, or that is written."""
    if text in names:
        return names[text]
    try:
        return ip_network(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a name that was given one") from None


def accounts_from(text: str) -> Iterator[str]:
    """Yield the accounts of a text such as ``200 to 249 and alice``."""
    for part in text.split(" and "):
        first, to, last = part.partition(" to ")
        if not to:
            if " " in part:
                raise ValueError(f"{part!r} is no account")
            yield part
        elif first.isdecimal() and last.isdecimal() and int(first) < int(last) <= int(first) + MOST_DEEDS:
            yield from (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
        else:
            raise ValueError(f"{part!r} goes from one number to a higher one")
