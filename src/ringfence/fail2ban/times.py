"""Times as fail2ban writes them: ``600``, ``10m``, ``1d12h``, ``1 week``, ``60*60``, ``1year-6mo``, ``-1``.

fail2ban replaces its units by products and has Python evaluate what comes of it (``MyTime.str2seconds``).
Here the sums and products that people write are read, and nothing is evaluated. A month is a twelfth of a
year of 365.25 days, as there.
"""

import re
from math import isfinite

from attrs import define

_YEAR = 365.25 * 86_400
_NAMES = {
    1.0: "s ss se sec second seconds",
    60.0: "m mm mi min minute minutes",
    3_600.0: "h hh ho hou hour hours",
    86_400.0: "d dd da day days",
    604_800.0: "w ww we wee week weeks",
    _YEAR / 12: "mo mon month months",
    _YEAR: "y yy ye yea year years",
}
_UNITS = {name: size for size, names in _NAMES.items() for name in names.split()}
_TOKEN = re.compile(r"([0-9]+(?:\.[0-9]*)?)|([A-Za-z]+)|([-+*/])")
_LONGEST = 200  # characters; nobody writes a time as long as that


def seconds_from(text: str) -> float:
    """Read a time as fail2ban does; ValueError where it is none."""
    left = text.partition("#")[0].strip()  # to Python, which fail2ban asks, the rest is a comment
    if len(left) > _LONGEST:
        raise ValueError("too long for a time")
    reading = _Reading()
    while left:
        match = _TOKEN.match(left)
        if match is None:
            raise ValueError("not a time")
        number, unit, operator = match.groups()
        if number:
            reading.take_number(float(number))
        elif unit:
            reading.take_unit(unit.lower())
        else:
            reading.take_operator(operator)
        left = left[match.end() :].lstrip()
    return reading.end()


def length_of(seconds: float) -> str:
    """Write a length in whole seconds as ringfence's configuration has it: ``90s``, ``10m``, ``7d``."""
    whole = round(seconds)
    size, letter = next(
        unit for unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")) if not whole % unit[0]
    )
    return f"{whole // size}{letter}"


@define
class _Reading:
    """A sum of products, as far as it was read: its last product, if any, is not in the total yet."""

    total: float = 0.0
    sign: float = 1.0
    product: float | None = None
    pending: str = ""

    def take_number(self, number: float) -> None:
        if self.product is not None and not self.pending:
            self.take_operator("+")  # as between "1h" and "30m"
        if self.product is None:
            self.product = number
        elif self.pending == "*":
            self.product *= number
        elif number:
            self.product /= number
        else:
            raise ValueError("divides by zero")
        self.pending = ""

    def take_unit(self, name: str) -> None:
        if self.product is None or self.pending or name not in _UNITS:
            raise ValueError("not a time")
        self.product *= _UNITS[name]

    def take_operator(self, operator: str) -> None:
        if self.pending or (operator in "*/" and self.product is None):
            raise ValueError("not a time")
        if operator in "*/":
            self.pending = operator
            return
        self.total += self.sign * (self.product or 0.0)
        self.sign = (1.0 if self.product is not None else self.sign) * (-1.0 if operator == "-" else 1.0)
        self.product = None

    def end(self) -> float:
        if self.product is None or self.pending:
            raise ValueError("not a time")
        total = self.total + self.sign * self.product
        if not isfinite(total):
            raise ValueError("not a time that can be counted")
        return total
