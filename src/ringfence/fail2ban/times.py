"""Durations in fail2ban's notation: ``600``, ``10m``, ``1d12h``, ``1 week``, ``60*60``, ``1y-6mo``, ``-1``.

fail2ban replaces units by products and evaluates the result with Python (``MyTime.str2seconds``). This module
parses the sums and products that people write, and evaluates nothing. A month is a twelfth of a year of
365.25 days, as in fail2ban.
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
_MAX_LENGTH = 200  # characters; longer than any real duration


def seconds_from(text: str) -> float:
    """Return the seconds of a duration, which may be negative; raise ValueError if it is invalid."""
    left = text.partition("#")[0].strip()  # the rest is a comment for Python's eval, which fail2ban uses
    if len(left) > _MAX_LENGTH:
        raise ValueError("too long for a time")
    parsed = _Sum()
    while left:
        match = _TOKEN.match(left)
        if match is None:
            raise ValueError("not a time")
        number, unit, operator = match.groups()
        if number:
            parsed.add_number(float(number))
        elif unit:
            parsed.add_unit(unit.lower())
        else:
            parsed.add_operator(operator)
        left = left[match.end() :].lstrip()
    return parsed.end()


def length_of(seconds: float) -> str:
    """Format whole seconds for ringfence's configuration: ``90s``, ``10m``, ``7d``."""
    whole = round(seconds)
    size, letter = next(
        unit for unit in ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")) if not whole % unit[0]
    )
    return f"{whole // size}{letter}"


@define
class _Sum:
    """A sum of products that is being parsed.

    ``product`` is the product that is being parsed, without its sign; None before its first number. ``sign``
    is 1 or -1. ``total`` is the sum of the products before it. ``pending`` is ``*`` or ``/`` if a number must
    follow, otherwise "".
    """

    total: float = 0.0
    sign: float = 1.0
    product: float | None = None
    pending: str = ""

    def add_number(self, number: float) -> None:
        if self.product is not None and not self.pending:
            self.add_operator("+")  # "1h30m" means "1h + 30m"
        if self.product is None:
            self.product = number
        elif self.pending == "*":
            self.product *= number
        elif number:
            self.product /= number
        else:
            raise ValueError("divides by zero")
        self.pending = ""

    def add_unit(self, name: str) -> None:
        if self.product is None or self.pending or name not in _UNITS:
            raise ValueError("not a time")
        self.product *= _UNITS[name]

    def add_operator(self, operator: str) -> None:
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
            raise ValueError("too large for a time")
        return total
