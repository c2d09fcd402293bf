"""The table of all requests on the control socket: their fields, and which users may send them.

The kernel reports the user of each client. A user has one role:

- ``administrator``: root, and the users that ``admins`` in ``[control]`` of the configuration names. They may
  send every request.
- ``page``: the user of the live page, ``ringfence-web``. Somebody may take this process over. So it may read,
  and change one small network at a time. It cannot switch ringfence off, or cut off a friend.
- ``daemon``: the user of the daemon itself. Programs that the daemon starts may have this user, too. It may
  only reload the configuration, which ``systemctl reload`` does.
- ``reader``: every other user who can reach the socket, by the group of the daemon. It may only read.

The table denies by default: a role that a request does not name may not send it, and a field that is not
named is refused. The bounds of a role may be tighter than those of an administrator.
"""

import asyncio
import enum
import inspect
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pwd import getpwuid
from typing import Any

import structlog
from attrs import Factory, evolve, frozen

from ringfence import control
from ringfence.config.converters import MAX_DURATION
from ringfence.control import LINE_KINDS, MOST_LISTED, Peer
from ringfence.daemon.fence_links import MOST_ADMITTED_FOR, MOST_VALID
from ringfence.errors import ControlError
from ringfence.lists.entries import MAX_AT_ONCE, MAX_NAME, MAX_NOTE, MAX_SECONDS, MAX_TEXT
from ringfence.model import MASK, Network, parse_network, printable
from ringfence.networks import PAGE_SHORTEST, PAGE_UNBAN_SHORTEST

# -- the checks of the fields of requests: which JSON values a field accepts
#
# A check never raises an exception, whatever the value is. The texts say what the value must be.


MOST_NETWORK = 64  # characters of an address or a network
_LONGEST_NAME = 40  # characters of a field's name in an error


@frozen
class Field:
    """What a field of a request accepts.

    ``accepts`` returns whether it accepts a value. ``form`` completes the sentence "the field must be …".
    The value of a field that ``is_secret`` is not logged.
    """

    accepts: Callable[[Any], bool]
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


WEB_USER = "ringfence-web"
"""The user of the live page's systemd unit, ``ringfence-web.service``."""
MOST_BANS_OF_PAGE = 20_000
_PAGE_BAN = 30 * 86_400.0
_MOST_NETWORKS = 20_000  # networks that one request bans or unbans
_MOST_FILTER = 64  # networks of a filter: each is compared with each ban
_MOST_LOCATED = 200  # networks whose country one request asks for
_MOST_REASON = 1_000
_MOST_NAME = 256

Fields = Mapping[str, Field]


class PeerRole(enum.StrEnum):
    """What the user of a client may do."""

    ADMINISTRATOR = "administrator"
    PAGE = "page"
    DAEMON = "daemon"
    READER = "reader"


@frozen
class Request:
    """A row of the table: the fields that each role may send.

    A role without an entry may not send the request. ``changes``: the request changes something.
    ``records``: a person relies on it that the database has the change.
    """

    fields: Mapping[PeerRole, Fields]
    changes: bool = False
    records: bool = False


def _only(
    fields: Fields, page: Fields | None = None, *, daemon: bool = False, records: bool = True
) -> Request:
    """Return a request that changes something: administrators may send it, the page with ``page``."""
    found = {PeerRole.ADMINISTRATOR: fields}
    if page is not None:
        found[PeerRole.PAGE] = page
    if daemon:
        found[PeerRole.DAEMON] = fields
    return Request(found, changes=True, records=records)


def _read(fields: Fields, page: Fields | None = None, reader: Fields | None = None) -> Request:
    """Return a request that only reads: administrators and readers may send it, the page with ``page``."""
    found = {PeerRole.ADMINISTRATOR: fields, PeerRole.READER: fields if reader is None else reader}
    if page is not None:
        found[PeerRole.PAGE] = page
    return Request(found)


_NONE: Fields = {}
_PERIOD = optional(seconds(MAX_DURATION))
_FILTER = optional(networks(_MOST_FILTER))
_NOTE = optional(text(MAX_NOTE))
_BY = optional(text(_MOST_NAME))
_ONE_SMALL = networks(1, PAGE_SHORTEST)
_ADD: Fields = {
    "what": texts(MAX_AT_ONCE, MAX_TEXT),
    "note": _NOTE,
    "seconds": nullable(seconds(MAX_SECONDS)),
    "force": flag(),
}
_PAGE_ADD: Fields = {"what": _ONE_SMALL, "note": _NOTE}
_REMOVE: Fields = {"what": texts(MAX_AT_ONCE, MAX_TEXT)}
_PAGE_REMOVE: Fields = {"what": _ONE_SMALL}
_DISMISS: Fields = {"numbers": optional(numbers(100_000)), "all": flag(), "by": _BY}
_PAGE_DISMISS: Fields = {"numbers": numbers(1), "by": _BY}
_REDEEM: Fields = {
    "token": evolve(text(64, 1), is_secret=True),
    "address": network({4: 32, 6: 128}),
}
_KINDS: Fields = {"kinds": optional(choices(LINE_KINDS))}

REQUESTS: Mapping[str, Request] = {
    "alarms": _read({"past": flag(), "seconds": _PERIOD}, page={"past": flag(), "seconds": _PERIOD}),
    "alarms_dismiss": _only(_DISMISS, page=_PAGE_DISMISS),
    "allow_add": _only(_ADD, page=_PAGE_ADD),
    "allow_remove": _only(_REMOVE, page=_PAGE_REMOVE),
    "ban": _only(
        {
            "networks": networks(_MOST_NETWORKS),
            "seconds": seconds(MAX_DURATION),
            "reason": optional(text(_MOST_REASON)),
            "force": flag(),
        },
        page={"networks": _ONE_SMALL, "seconds": seconds(_PAGE_BAN), "reason": optional(text(MAX_NOTE))},
    ),
    "bans": _read(
        {"most": whole(1, MOST_LISTED), "networks": _FILTER}, page={"most": whole(1, MOST_BANS_OF_PAGE)}
    ),
    "confirm": _only(_NONE),
    "deny_add": _only(_ADD, page=_PAGE_ADD),
    "deny_remove": _only(_REMOVE, page=_PAGE_REMOVE),
    "feeds": _read({"networks": _FILTER}, page=_NONE),
    "feeds_refresh": _only(
        {"names": optional(texts(_MOST_FILTER, MAX_NAME)), "force": flag()}, records=False
    ),
    "fence": _read({"networks": _FILTER}, page=_NONE),
    "fence_admit": _only({"what": text(MAX_TEXT, 1), "seconds": seconds(MAX_SECONDS)}),
    "fence_confirm": _only(_NONE),
    "fence_enforce": _only({"seconds": optional(seconds(MAX_SECONDS)), "force": flag()}),
    "fence_link": _only({"seconds": seconds(MOST_ADMITTED_FOR), "valid": seconds(MOST_VALID)}, records=False),
    "fence_redeem": _only(_REDEEM, page=_REDEEM),
    "fleet": _read(_NONE, page=_NONE),
    "follow": _read(_KINDS),
    "friends": _read(
        {"networks": optional(networks(_MOST_NETWORKS))},
        reader={"networks": _FILTER},
        page={"networks": networks(1)},
    ),
    "friends_forget": _only({"address": text(MAX_TEXT, 1)}),
    "friends_import": _only({"friends": objects(10_000), "transfer": text(MAX_TEXT), "more": flag()}),
    "history": _read({"seconds": _PERIOD}, page={"seconds": _PERIOD}),
    "latest": _read(_KINDS, page=_KINDS),
    "lists": _read({"side": choice("allow", "deny")}, page={"side": choice("allow", "deny")}),
    "locations": _read({"networks": networks(_MOST_LOCATED)}, page={"networks": networks(_MOST_LOCATED)}),
    "notify_test": _only({"channel": nullable(text(MAX_TEXT))}, records=False),
    "off": _only(_NONE),
    "on": _only(_NONE),
    "past_bans": _read({"networks": _FILTER, "seconds": _PERIOD}, page={"seconds": _PERIOD}),
    "reload": _only(_NONE, daemon=True, records=False),
    "status": _read(_NONE, page=_NONE),
    "top": _read(_NONE, page=_NONE),
    "tops": _read({"kind": choice("accounts", "addresses"), "seconds": _PERIOD}),
    "unban": _only(
        {"networks": optional(networks(_MOST_NETWORKS)), "all": flag(), "allowed": flag()},
        page={"networks": networks(1, PAGE_UNBAN_SHORTEST), "allowed": flag()},
    ),
    "why": _read({"network": network()}, page={"network": network()}),
    "why_account": _read({"account": text(_MOST_NAME, 1)}, page={"account": text(_MOST_NAME, 1)}),
}
"""Every request, by its name (``do``)."""

_REFUSALS = {
    PeerRole.PAGE: "the live page may not send the request {}; use the command line",
    PeerRole.DAEMON: "the daemon's own user may not send the request {}; fix: be root",
    PeerRole.READER: "the request {} needs more rights; fix: be root, or a user that [control] admins names",
}


def check_request(role: PeerRole, do: str, request: Mapping[str, object]) -> None:
    """Raise ControlError if ``role`` may not send the request ``do``, or if a field is invalid."""
    fields = REQUESTS[do].fields.get(role)
    if fields is None:
        raise ControlError(_REFUSALS[role].format(do))
    check_fields(do, fields, request)


@frozen
class Rights:
    """The role of each user.

    ``own`` is the user id of the daemon. ``admins`` are names or numbers of users, from ``[control]``.
    """

    own: int
    admins: frozenset[str] = Factory(frozenset)

    def role_of(self, user: int, name: str) -> PeerRole:
        """Return the role of the user with the id ``user`` and the name ``name`` ("" if it has none)."""
        if user == 0:
            return PeerRole.ADMINISTRATOR
        if name == WEB_USER:
            return PeerRole.PAGE
        if str(user) in self.admins or name in self.admins:
            return PeerRole.ADMINISTRATOR
        return PeerRole.DAEMON if user == self.own else PeerRole.READER


# -- the gate of the control socket: every request passes it before a handler sees it
#
# The gate looks up the role of the client's user, checks the request against the table of requests, and
# logs each change with the user and the process of the client. Changes of the allow list and the deny list
# are also notified. The live page may make a limited number of changes, none of which may block a friend.


PAGE_CHANGES = 200
PAGE_WITHIN = 3_600.0
"""The live page may make ``PAGE_CHANGES`` changes within this time (seconds)."""
LOGGED_REFUSALS = 10
LOGGED_WITHIN = 60.0
"""At most ``LOGGED_REFUSALS`` refused requests are logged within this time (seconds)."""
MOST_NAMES = 256  # users whose names are kept
_MOST_SHOWN = 10  # values of a list that a log line has
_MOST_LOGGED = 500  # characters of the fields of a request in a log line

Announce = Callable[[str, Sequence[str], str], object]
"""A function that notifies administrators of a change of a list.

It gets the request (such as ``allow_add``), the changed entries, and who changed them.
"""


class RequestGate:
    """Handlers of requests that check each request, and log each change.

    They pass valid requests to ``handlers``. ``has_friend`` returns whether a network contains a friend.
    ``mono`` returns monotonic seconds. ``recorded`` waits until the database has a change, and returns why it
    has not. A person relies on the answer to a change, so the answer comes only then.
    """

    def __init__(
        self,
        handlers: Mapping[str, control.Handler],
        rights: Rights,
        has_friend: Callable[[Network], bool],
        announce: Announce,
        mono: Callable[[], float],
        recorded: Callable[[], Awaitable[str]],
    ) -> None:
        self._recorded = recorded
        self._handlers = handlers
        self._rights = rights
        self._has_friend = has_friend
        self._announce = announce
        self._mono = mono
        self._names: dict[int, str] = {}
        self._page_changes: deque[float] = deque(maxlen=PAGE_CHANGES)
        self._refusals: deque[float] = deque(maxlen=LOGGED_REFUSALS)
        self._log = structlog.get_logger()

    def handlers(self) -> Mapping[str, control.Handler]:
        """Return a checked handler for each request."""
        return {do: partial(self._answer, do, handler) for do, handler in self._handlers.items()}

    async def _answer(self, do: str, handler: control.Handler, request: Mapping[str, Any]) -> object:
        peer = control.PEER.get()
        if peer is None:
            raise ControlError("the kernel does not report who sends this request, so it is refused")
        name = await self._name_of(peer.user)
        role = self._rights.role_of(peer.user, name)
        try:
            check_request(role, do, request)
            # Strangers make the page send fence_redeem. Its token decides, and it uses up no other change.
            if role is PeerRole.PAGE and REQUESTS[do].changes and do != "fence_redeem":
                self._check_page(do, request)
        except ControlError as error:
            self._log_refusal(do, peer, name, str(error))
            raise
        result = handler(request)
        if inspect.isawaitable(result):
            result = await result
        if REQUESTS[do].changes:
            self._report_change(do, request, result, _author(peer, name))
        why = await self._recorded() if REQUESTS[do].records else ""
        return control.Unrecorded(result, why) if why else result

    async def _name_of(self, user: int) -> str:
        """Return the name of a user; "" if it has none. A thread looks it up: it may be on a slow server."""
        if user == 0:
            return "root"
        if user not in self._names:
            name = await asyncio.to_thread(_user_name, user)
            while len(self._names) >= MOST_NAMES:
                del self._names[next(iter(self._names))]
            self._names[user] = name
        return self._names[user]

    def _check_page(self, do: str, request: Mapping[str, Any]) -> None:
        """Raise ControlError if the live page changes too much, or if the change would block a friend."""
        now = self._mono()
        if len(self._page_changes) == PAGE_CHANGES and now - self._page_changes[0] < PAGE_WITHIN:
            raise ControlError(
                f"the live page may make {PAGE_CHANGES} changes an hour, and has made them; "
                "use the command line"
            )
        if do in {"ban", "deny_add"}:
            for text in request["networks" if do == "ban" else "what"]:
                if self._has_friend(parse_network(text)):
                    raise ControlError(
                        f"{text}: a friend, a phone or trunk of this PBX, is there, so the live page may "
                        "not block it; use the command line"
                    )
        self._page_changes.append(now)

    def _log_refusal(self, do: str, peer: Peer, name: str, error: str) -> None:
        now = self._mono()
        if len(self._refusals) == LOGGED_REFUSALS and now - self._refusals[0] < LOGGED_WITHIN:
            return
        self._refusals.append(now)
        self._log.warning("control.refused", do=do, by=_author(peer, name), error=printable(error))

    def _report_change(self, do: str, request: Mapping[str, Any], result: object, who: str) -> None:
        """Log a change. Notify administrators if it is a change of a list."""
        known = REQUESTS[do].fields[PeerRole.ADMINISTRATOR]
        fields = {key: MASK if known[key].is_secret else _shortened(value) for key, value in request.items()}
        text = json.dumps(fields, ensure_ascii=False)
        self._log.info("control.changed", do=do, by=who, fields=printable(text[:_MOST_LOGGED]))
        if do in _LIST_CHANGES and isinstance(result, Mapping) and result["done"]:
            self._announce(do, result["done"], who)


_LIST_CHANGES = frozenset({"allow_add", "allow_remove", "deny_add", "deny_remove"})


def _shortened(value: object) -> object:
    """Return a value for the log; of a long list, the first values and the number of the others."""
    if not isinstance(value, list) or len(value) <= _MOST_SHOWN:
        return value
    return [*value[:_MOST_SHOWN], f"and {len(value) - _MOST_SHOWN} more"]


def _author(peer: Peer, name: str) -> str:
    return f"user {peer.user} ({printable(name)}), process {peer.process}"


def _user_name(user: int) -> str:
    try:
        return getpwuid(user).pw_name
    except KeyError:
        return ""
