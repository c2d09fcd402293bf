"""The rows of the table of requests: the fields of a request, and which users may send it.

The kernel reports the user of each client. A user has one role:

- ``administrator``: root, and the users that ``admins`` in ``[control]`` of the configuration names. They may
  send every request.
- ``page``: the user of a process that shows pages, if a feature has one. Somebody may take this process over.
  So it may read, and change one small network at a time. It cannot switch ringfence off, or cut off a friend.
- ``daemon``: the user of the daemon itself. Programs that the daemon starts may have this user, too. It may
  only reload the configuration, which ``systemctl reload`` does.
- ``reader``: every other user who can reach the socket, by the group of the daemon. It may only read.

The table denies by default: a role that a request does not name may not send it, and a field that is not
named is refused. The bounds of a role may be tighter than those of an administrator.
"""

import enum
from collections.abc import Callable, Mapping
from functools import partial

from attrs import evolve, frozen

from ringfence.clock import TEN_YEARS
from ringfence.errors import ControlError
from ringfence.values.network import parse_network
from ringfence.values.text import printable

# -- the checks of the fields of requests: which JSON values a field accepts
#
# A check never raises an exception, whatever the value is. The texts describe the value.


MOST_NETWORK = 64  # characters of an address or a network
_LONGEST_NAME = 40  # characters of a field's name in an error


Accepts = Callable[[object], bool]
"""A function that returns whether a field accepts a value."""


@frozen
class Field:
    """A field of a request, and the values that it accepts.

    ``accepts`` returns whether the field accepts a value. ``form`` completes the sentence "the field must
    be …".
    The value of a field that ``is_secret`` is not logged.
    """

    accepts: Accepts
    form: str
    is_required: bool = True
    is_secret: bool = False


def check_fields(do: str, fields: Mapping[str, Field], request: Mapping[str, object]) -> None:
    """Raise ControlError unless the request ``do`` has valid fields: all that are required, and no other."""
    for name, value in request.items():
        field = fields.get(name)
        if field is None:
            raise ControlError(f"{do}: there is no field {printable(name[:_LONGEST_NAME])}")
        if not field.accepts(value):
            raise ControlError(f"{do}: {name} must be {field.form}")
    for name, field in fields.items():
        if field.is_required and name not in request:
            raise ControlError(f"{do}: {name} is missing; it must be {field.form}")


def optional(field: Field) -> Field:
    """Return a copy of ``field`` that a request may omit."""
    return evolve(field, is_required=False)


def nullable(field: Field) -> Field:
    """Return a copy of ``field`` that also accepts null, and that a request may omit."""
    return Field(partial(_is_null_or, field.accepts), f"null or {field.form}", is_required=False)


def flag() -> Field:
    """Return a field that accepts true or false, and that a request may omit."""
    return Field(partial(_is, bool), "true or false", is_required=False)


def whole(least: int, most: int) -> Field:
    """Return a field for a whole number from ``least`` to ``most``."""
    return Field(partial(_is_whole, least, most), f"a whole number from {least} to {most}")


def seconds(most: float) -> Field:
    """Return a field for a number of seconds: above 0, at most ``most``."""

    def accepts(value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return 0 < value <= most  # false for NaN

    return Field(accepts, f"a number of seconds, above 0 and at most {most:.0f}")


def text(most: int, least: int = 0) -> Field:
    """Return a field for a text with ``least`` to ``most`` characters."""
    return Field(partial(_is_text, least, most), f"a text of {least} to {most} characters")


def texts(most: int, longest: int) -> Field:
    """Return a field for a list of 1 to ``most`` texts, each with at most ``longest`` characters."""
    form = f"a list of 1 to {most} texts, each of 1 to {longest} characters"
    return Field(partial(_is_list, partial(_is_text, 1, longest), 1, most), form)


def choices(allowed: tuple[str, ...]) -> Field:
    """Return a field for a list of texts, each one of ``allowed``."""
    form = f"a list of some of: {', '.join(allowed)}"
    return Field(partial(_is_list, partial(_is_one_of, allowed), 1, len(allowed)), form)


def choice(*allowed: str) -> Field:
    """Return a field for one of the texts in ``allowed``."""
    return Field(partial(_is_one_of, allowed), f"one of: {', '.join(allowed)}")


def numbers(most: int) -> Field:
    """Return a field for a list of at most ``most`` whole numbers, each 0 or more."""
    form = f"a list of at most {most} whole numbers"
    return Field(partial(_is_list, partial(_is_whole, 0, 2**53), 0, most), form)


def objects(most: int) -> Field:
    """Return a field for a list of at most ``most`` JSON objects."""
    form = f"a list of at most {most} objects"
    return Field(partial(_is_list, partial(_is, dict), 0, most), form)


def network(shortest: Mapping[int, int] | None = None) -> Field:
    """Return a field for an address or a network.

    ``shortest`` has the shortest prefix length that is accepted, by IP version; None for any length.
    """
    return Field(partial(_is_network, shortest), f"an address or network{_lengths(shortest)}")


def networks(most: int, shortest: Mapping[int, int] | None = None) -> Field:
    """Return a field for a list of 1 to ``most`` addresses or networks.

    ``shortest`` has the shortest prefix length that is accepted, by IP version; None for any length.
    """
    form = f"a list of 1 to {most} addresses or networks{_lengths(shortest)}"
    return Field(partial(_is_list, partial(_is_network, shortest), 1, most), form)


def _lengths(shortest: Mapping[int, int] | None) -> str:
    return "" if shortest is None else f", each a /{shortest[4]} (IPv6: /{shortest[6]}) or smaller"


def _is(kind: type, value: object) -> bool:
    return isinstance(value, kind)


def _is_null_or(accepts: Accepts, value: object) -> bool:
    return value is None or accepts(value)


def _is_list(accepts: Accepts, least: int, most: int, value: object) -> bool:
    return isinstance(value, list) and least <= len(value) <= most and all(map(accepts, value))


def _is_one_of(allowed: tuple[str, ...], value: object) -> bool:
    return isinstance(value, str) and value in allowed


def _is_whole(least: int, most: int, value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_text(least: int, most: int, value: object) -> bool:
    """Whether ``value`` is a text of ``least`` to ``most`` characters that the database (UTF-8) can store."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _is_network(shortest: Mapping[int, int] | None, value: object) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MOST_NETWORK:
        return False
    try:
        found = parse_network(value)
    except ValueError:
        return False
    return shortest is None or found.prefixlen >= shortest[found.version]


# -- the rows


Fields = Mapping[str, Field]


class PeerRole(enum.StrEnum):
    """The role of the user who sends a request: it decides which requests the daemon handles."""

    ADMINISTRATOR = "administrator"
    PAGE = "page"
    DAEMON = "daemon"
    READER = "reader"


@frozen
class Request:
    """A kind of request on the control socket: the fields that each role of a client may send.

    A role without an entry may not send the request. ``changes``: the request changes something.
    ``records``: if the database cannot record the change, the answer says so. ``limited``: it counts as one
    of the changes of which a page may make only some in an hour.
    """

    fields: Mapping[PeerRole, Fields]
    changes: bool = False
    records: bool = False
    limited: bool = False


def only(
    fields: Fields, page: Fields | None = None, *, daemon: bool = False, records: bool = True
) -> Request:
    """Return a row for a request that changes something: the fields of administrators and of a page.

    If ``page`` is None, the page may not send it. ``daemon``: the daemon's user may send it. ``records``: if
    the database cannot record the change, the answer says so.
    """
    found = {PeerRole.ADMINISTRATOR: fields}
    if page is not None:
        found[PeerRole.PAGE] = page
    if daemon:
        found[PeerRole.DAEMON] = fields
    return Request(found, changes=True, records=records, limited=True)


def read(fields: Fields, page: Fields | None = None, reader: Fields | None = None) -> Request:
    """Return a row for a request that only reads: the fields of administrators, a page and readers.

    If ``page`` is None, the page may not send it. If ``reader`` is None, readers have ``fields``.
    """
    found = {PeerRole.ADMINISTRATOR: fields, PeerRole.READER: fields if reader is None else reader}
    if page is not None:
        found[PeerRole.PAGE] = page
    return Request(found)


NONE: Fields = {}
MOST_FILTER = 64  # networks of a filter: each is compared with each ban
FILTER = optional(networks(MOST_FILTER))
PERIOD = optional(seconds(TEN_YEARS))
"""The field for how far to look back (seconds); optional, because each request has a default."""
