"""The checks of the fields of requests: which JSON values a field accepts.

A check never raises an exception, whatever the value is. The texts say what the value must be.
"""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import evolve, frozen

from ringfence.errors import ControlError
from ringfence.model import parse_network, printable

MOST_NETWORK = 64  # characters of an address or a network
_MOST_SHOWN = 40  # characters of a field's name in an error


@frozen
class Field:
    """What a field of a request accepts.

    ``accepts`` returns whether it accepts a value. ``form`` completes the sentence "the field must be …".
    """

    accepts: Callable[[Any], bool]
    form: str
    is_required: bool = True


def check_fields(do: str, fields: Mapping[str, Field], request: Mapping[str, object]) -> None:
    """Raise ControlError unless the request ``do`` has valid fields: all that are required, and no other."""
    for name, value in request.items():
        field = fields.get(name)
        if field is None:
            raise ControlError(f"{do}: there is no field {printable(name[:_MOST_SHOWN])}")
        if not field.accepts(value):
            raise ControlError(f"{do}: {name} must be {field.form}")
    for name, field in fields.items():
        if field.is_required and name not in request:
            raise ControlError(f"{do}: {name} is missing; it must be {field.form}")


def optional(field: Field) -> Field:
    """Return ``field`` for a value that may be missing."""
    return evolve(field, is_required=False)


def nullable(field: Field) -> Field:
    """Return ``field`` for a value that may be null or missing."""
    accepts = field.accepts
    return Field(lambda value: value is None or accepts(value), f"null or {field.form}", is_required=False)


def flag() -> Field:
    """Return a field for true or false, which may be missing."""
    return Field(lambda value: isinstance(value, bool), "true or false", is_required=False)


def whole(least: int, most: int) -> Field:
    """Return a field for a whole number."""
    return Field(lambda value: _is_whole(value, least, most), f"a whole number from {least} to {most}")


def seconds(most: float) -> Field:
    """Return a field for a number of seconds above 0."""

    def accepts(value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return 0 < value <= most  # false for NaN

    return Field(accepts, f"a number of seconds, above 0 and at most {most:.0f}")


def text(most: int, least: int = 0) -> Field:
    """Return a field for a text with ``least`` to ``most`` characters."""
    return Field(lambda value: _is_text(value, least, most), f"a text of {least} to {most} characters")


def texts(most: int, longest: int) -> Field:
    """Return a field for a list of 1 to ``most`` texts, each with at most ``longest`` characters."""
    form = f"a list of 1 to {most} texts, each of 1 to {longest} characters"
    return Field(_each(lambda value: _is_text(value, 1, longest), most), form)


def choices(allowed: tuple[str, ...]) -> Field:
    """Return a field for a list of some of the texts in ``allowed``."""
    form = f"a list of some of: {', '.join(allowed)}"
    return Field(_each(lambda value: isinstance(value, str) and value in allowed, len(allowed)), form)


def choice(*allowed: str) -> Field:
    """Return a field for one of the texts in ``allowed``."""
    return Field(lambda value: isinstance(value, str) and value in allowed, f"one of: {', '.join(allowed)}")


def numbers(most: int) -> Field:
    """Return a field for a list of at most ``most`` whole numbers from 0."""
    form = f"a list of at most {most} whole numbers"
    return Field(_each(lambda value: _is_whole(value, 0, 2**53), most, least=0), form)


def objects(most: int) -> Field:
    """Return a field for a list of at most ``most`` JSON objects."""
    form = f"a list of at most {most} objects"
    return Field(_each(lambda value: isinstance(value, dict), most, least=0), form)


def network(shortest: Mapping[int, int] | None = None) -> Field:
    """Return a field for an address or a network.

    ``shortest`` has the shortest prefix length that is accepted, by IP version; None for any length.
    """
    return Field(lambda value: _is_network(value, shortest), f"an address or network{_lengths(shortest)}")


def networks(most: int, shortest: Mapping[int, int] | None = None) -> Field:
    """Return a field for a list of 1 to ``most`` addresses or networks."""
    form = f"a list of 1 to {most} addresses or networks{_lengths(shortest)}"
    return Field(_each(lambda value: _is_network(value, shortest), most), form)


def _lengths(shortest: Mapping[int, int] | None) -> str:
    return "" if shortest is None else f", each a /{shortest[4]} (IPv6: /{shortest[6]}) or smaller"


def _each(accepts: Callable[[object], bool], most: int, least: int = 1) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, list) and least <= len(value) <= most and all(accepts(one) for one in value)
    )


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_text(value: object, least: int, most: int) -> bool:
    """Whether a value is a text of this length that UTF-8, and so the database, can represent."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_network(value: object, shortest: Mapping[int, int] | None) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_NETWORK:
        return False
    try:
        found = parse_network(value)
    except ValueError:
        return False
    return shortest is None or found.prefixlen >= shortest[found.version]
