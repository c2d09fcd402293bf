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

import enum
from collections.abc import Mapping

from attrs import Factory, frozen

from ringfence.config.converters import MAX_DURATION
from ringfence.control import LINE_KINDS, MOST_LISTED
from ringfence.daemon.request_fields import (
    Field,
    check_fields,
    choice,
    choices,
    flag,
    network,
    networks,
    nullable,
    numbers,
    objects,
    optional,
    seconds,
    text,
    texts,
    whole,
)
from ringfence.errors import ControlError
from ringfence.lists.messages import MAX_AT_ONCE, MAX_NOTE, MAX_SECONDS, MAX_TEXT

WEB_USER = "ringfence-web"
"""The user of the live page's systemd unit, ``ringfence-web.service``."""
MOST_BANS_OF_PAGE = 20_000
PAGE_SHORTEST: Mapping[int, int] = {4: 24, 6: 48}
"""The shortest prefix length that the live page may ban, unban, allow or deny, by IP version.

The rule ``prefix`` bans networks of this length, so the page can unban whatever a rule has banned.
"""
_PAGE_BAN = 30 * 86_400.0
_MOST_NETWORKS = 20_000  # networks that one request bans or unbans
_MOST_FILTER = 64  # networks of a filter: each is compared with each ban
_MOST_REASON = 1_000
_MOST_NAME = 256

Fields = Mapping[str, Field]


class Role(enum.StrEnum):
    """What the user of a client may do."""

    ADMINISTRATOR = "administrator"
    PAGE = "page"
    DAEMON = "daemon"
    READER = "reader"


@frozen
class Request:
    """A row of the table: the fields that each role may send.

    A role without an entry may not send the request. ``changes``: the request changes something.
    """

    fields: Mapping[Role, Fields]
    changes: bool = False


def _only(fields: Fields, page: Fields | None = None, *, daemon: bool = False) -> Request:
    """Return a request that changes something: administrators may send it, the page with ``page``."""
    found = {Role.ADMINISTRATOR: fields}
    if page is not None:
        found[Role.PAGE] = page
    if daemon:
        found[Role.DAEMON] = fields
    return Request(found, changes=True)


def _read(fields: Fields, page: Fields | None = None, reader: Fields | None = None) -> Request:
    """Return a request that only reads: administrators and readers may send it, the page with ``page``."""
    found = {Role.ADMINISTRATOR: fields, Role.READER: fields if reader is None else reader}
    if page is not None:
        found[Role.PAGE] = page
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
_REMOVE: Fields = {"what": optional(texts(MAX_AT_ONCE, MAX_TEXT)), "origin": nullable(text(4_096, 1))}
_PAGE_REMOVE: Fields = {"what": texts(1, MAX_TEXT)}
_MARK: Fields = {"numbers": optional(numbers(100_000)), "all": flag(), "by": _BY}
_PAGE_MARK: Fields = {"numbers": numbers(1), "by": _BY}
_KINDS: Fields = {"kinds": optional(choices(LINE_KINDS))}

REQUESTS: Mapping[str, Request] = {
    "alarms": _read({"past": flag(), "seconds": _PERIOD}, page={"past": flag(), "seconds": _PERIOD}),
    "alarms_acknowledge": _only(_MARK, page=_PAGE_MARK),
    "alarms_dismiss": _only(_MARK, page=_PAGE_MARK),
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
    "lists_reload": _only(_NONE),
    "notify_test": _only({"channel": nullable(text(MAX_TEXT))}),
    "off": _only(_NONE),
    "on": _only(_NONE),
    "past_bans": _read({"networks": _FILTER, "seconds": _PERIOD}, page={"seconds": _PERIOD}),
    "reload": _only(_NONE, daemon=True),
    "status": _read(_NONE, page=_NONE),
    "top": _read(_NONE, page=_NONE),
    "tops": _read({"kind": choice("accounts", "addresses"), "seconds": _PERIOD}),
    "unban": _only(
        {"networks": optional(networks(_MOST_NETWORKS)), "all": flag(), "allowed": flag()},
        page={"networks": _ONE_SMALL, "allowed": flag()},
    ),
    "why": _read({"network": network()}, page={"network": network()}),
    "why_account": _read({"account": text(_MOST_NAME, 1)}, page={"account": text(_MOST_NAME, 1)}),
}
"""Every request, by its name (``do``)."""

_REFUSALS = {
    Role.PAGE: "the live page may not send the request {}; use the command line",
    Role.DAEMON: "the daemon's own user may not send the request {}; fix: be root",
    Role.READER: "the request {} needs more rights; fix: be root, or a user that [control] admins names",
}


def check_request(role: Role, do: str, request: Mapping[str, object]) -> None:
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

    def role_of(self, user: int, name: str) -> Role:
        """Return the role of the user with the id ``user`` and the name ``name`` ("" if it has none)."""
        if user == 0:
            return Role.ADMINISTRATOR
        if name == WEB_USER:
            return Role.PAGE
        if str(user) in self.admins or name in self.admins:
            return Role.ADMINISTRATOR
        return Role.DAEMON if user == self.own else Role.READER
