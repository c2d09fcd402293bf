"""The table of all requests on the control socket, and the gate that each request passes.

The table has the guard's requests, and those of each feature (``street.py``).
"""

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Iterable, Mapping
from functools import partial
from pwd import getpwuid
from typing import Any

import structlog
from attrs import Factory, frozen

from ringfence import control_server, street
from ringfence.ban_facts import Listener
from ringfence.clock import TEN_YEARS, Clock
from ringfence.control import LINE_KINDS, MOST_LISTED
from ringfence.control_server import Peer
from ringfence.detect.friends import Friends
from ringfence.errors import ControlError
from ringfence.guard.feature import Changed
from ringfence.guard.request_fields import (
    FILTER,
    NONE,
    PERIOD,
    Fields,
    PeerRole,
    Request,
    check_fields,
    choice,
    choices,
    flag,
    network,
    networks,
    nullable,
    numbers,
    objects,
    only,
    optional,
    read,
    seconds,
    text,
    texts,
    whole,
)
from ringfence.lists.entries import MAX_AT_ONCE, MAX_NOTE, MAX_TEXT
from ringfence.store.writer import BestEffort
from ringfence.values.network import PAGE_SHORTEST, PAGE_UNBAN_SHORTEST, parse_network
from ringfence.values.secret import MASK
from ringfence.values.text import printable

_PAGE_USERS = frozenset(street.functions("rights", "PAGE_USER"))
MOST_BANS_OF_PAGE = 20_000
_PAGE_BAN = 30 * 86_400.0
_MOST_NETWORKS = 20_000  # networks that one request bans or unbans
_MOST_LOCATED = 200  # networks whose locations one request asks for
_MOST_REASON = 1_000
_MOST_NAME = 256

_NOTE = optional(text(MAX_NOTE))
_BY = optional(text(_MOST_NAME))
_ONE_SMALL = networks(1, PAGE_SHORTEST)
_ADD: Fields = {
    "what": texts(MAX_AT_ONCE, MAX_TEXT),
    "note": _NOTE,
    "seconds": nullable(seconds(TEN_YEARS)),
    "force": flag(),
}
_PAGE_ADD: Fields = {"what": _ONE_SMALL, "note": _NOTE}
_REMOVE: Fields = {"what": texts(MAX_AT_ONCE, MAX_TEXT)}
_PAGE_REMOVE: Fields = {"what": _ONE_SMALL}
_DISMISS: Fields = {"numbers": optional(numbers(100_000)), "all": flag(), "by": _BY}
_PAGE_DISMISS: Fields = {"numbers": numbers(1), "by": _BY}
_KINDS: Fields = {"kinds": optional(choices(LINE_KINDS))}

REQUESTS: dict[str, Request] = {
    "alarms": read({"past": flag(), "seconds": PERIOD}, page={"past": flag(), "seconds": PERIOD}),
    "alarms_dismiss": only(_DISMISS, page=_PAGE_DISMISS),
    "allow_add": only(_ADD, page=_PAGE_ADD),
    "allow_remove": only(_REMOVE, page=_PAGE_REMOVE),
    "ban": only(
        {
            "networks": networks(_MOST_NETWORKS),
            "seconds": seconds(TEN_YEARS),
            "reason": optional(text(_MOST_REASON)),
            "force": flag(),
        },
        page={"networks": _ONE_SMALL, "seconds": seconds(_PAGE_BAN), "reason": optional(text(MAX_NOTE))},
    ),
    "bans": read(
        {"most": whole(1, MOST_LISTED), "networks": FILTER}, page={"most": whole(1, MOST_BANS_OF_PAGE)}
    ),
    "deny_add": only(_ADD, page=_PAGE_ADD),
    "deny_remove": only(_REMOVE, page=_PAGE_REMOVE),
    "follow": read(_KINDS),
    "friends": read(
        {"networks": optional(networks(_MOST_NETWORKS))},
        reader={"networks": FILTER},
        page={"networks": networks(1)},
    ),
    "friends_forget": only({"address": text(MAX_TEXT, 1)}),
    "friends_import": only(
        {
            "friends": objects(10_000),
            "transfer": text(MAX_TEXT),
            "before": optional(whole(0, 10_000_000)),
            "more": flag(),
        }
    ),
    "latest": read(_KINDS, page=_KINDS),
    "lists": read({"side": choice("allow", "deny")}, page={"side": choice("allow", "deny")}),
    "locations": read({"networks": networks(_MOST_LOCATED)}, page={"networks": networks(_MOST_LOCATED)}),
    "off": only(NONE),
    "on": only(NONE),
    "past_bans": read({"networks": FILTER, "seconds": PERIOD}, page={"seconds": PERIOD}),
    "reload": only(NONE, daemon=True, records=False),
    "status": read(NONE, page=NONE),
    "unban": only(
        {"networks": optional(networks(_MOST_NETWORKS)), "all": flag(), "allowed": flag()},
        page={"networks": networks(1, PAGE_UNBAN_SHORTEST), "allowed": flag()},
    ),
    "why": read({"network": network()}, page={"network": network()}),
    "why_account": read({"account": text(_MOST_NAME, 1)}, page={"account": text(_MOST_NAME, 1)}),
}
"""Every request, by its name (``do``): those of the guard, then those of each feature."""
for _feature in street.modules("guard"):
    REQUESTS |= getattr(_feature, "REQUESTS", {})

_REFUSALS = {
    PeerRole.PAGE: "a page may not send the request {}; use the command line",
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
    """The role of each user of the control socket.

    ``own`` is the user id of the daemon. ``admins`` are names or ids of users, from ``[control]``.
    """

    own: int
    admins: frozenset[str] = Factory(frozenset)

    def role_of(self, user: int, name: str) -> PeerRole:
        """Return the role of the user with the id ``user`` and the name ``name`` ("" if it has none)."""
        if user == 0:
            return PeerRole.ADMINISTRATOR
        if name in _PAGE_USERS:
            return PeerRole.PAGE
        if str(user) in self.admins or name in self.admins:
            return PeerRole.ADMINISTRATOR
        return PeerRole.DAEMON if user == self.own else PeerRole.READER


# -- the gate of the control socket: every request passes it before a handler sees it
#
# The gate looks up the role of the client's user, checks the request against the table of requests, and
# logs each change with the user and the process of the client. A page may make a limited number of
# changes, none of which may block a friend.


PAGE_CHANGES = 200
PAGE_WITHIN = 3_600.0
"""The period in seconds in which a page may make ``PAGE_CHANGES`` changes."""
LOGGED_REFUSALS = 10
LOGGED_WITHIN = 60.0
"""The period in seconds in which at most ``LOGGED_REFUSALS`` refused requests are logged."""
MOST_NAMES = 256  # users whose names are kept
NAMED_FOR = 60.0  # seconds for which a user's name counts
_MOST_SHOWN = 10  # values of a list that a log line has
_MOST_LOGGED = 500  # characters of the fields of a request in a log line


class RequestGate:
    """Checks each request before its handler gets it; logs each change, and passes it on to ``listeners``.

    ``handlers`` has the handlers by the request's name. ``best_effort`` runs the writes to the database. A
    person relies on the answer to a change, so the answer comes only when the database has the change.
    """

    def __init__(
        self,
        handlers: Mapping[str, control_server.Handler],
        rights: Rights,
        friends: Friends,
        listeners: Iterable[Listener],
        clock: Clock,
        best_effort: BestEffort,
    ) -> None:
        self._best_effort = best_effort
        self._handlers = handlers
        self._rights = rights
        self._friends = friends
        self._listeners = listeners
        self._clock = clock
        self._names: dict[int, tuple[str, float]] = {}  # the name, and until when it counts (monotonic)
        self._page_changes: deque[float] = deque(maxlen=PAGE_CHANGES)
        self._refusals: deque[float] = deque(maxlen=LOGGED_REFUSALS)
        self._log = structlog.get_logger()

    def handlers(self) -> Mapping[str, control_server.Handler]:
        """Return a handler for each request, by its name, that checks it before it is handled."""
        return {do: partial(self._answer, do, handler) for do, handler in self._handlers.items()}

    async def _answer(self, do: str, handler: control_server.Handler, request: Mapping[str, Any]) -> object:
        peer = control_server.PEER.get()
        if peer is None:
            raise ControlError("the kernel does not report who sends this request, so it is refused")
        name = await self._name_of(peer.user)
        role = self._rights.role_of(peer.user, name)
        try:
            check_request(role, do, request)
            if role is PeerRole.PAGE and REQUESTS[do].limited:
                self._check_page(do, request)
        except ControlError as error:
            self._log_refusal(do, peer, name, str(error))
            raise
        try:
            result = handler(request)
            if inspect.isawaitable(result):
                result = await result
        except BaseException as error:
            # It may have changed a part, also if its client has gone. Requests without a limit are not logged
            # here: strangers make a page send them, as often as they like, and the page logs some failures.
            if REQUESTS[do].limited:
                self._log_change(
                    "control.failed", do, request, _author(peer, name), error=printable(repr(error))
                )
            raise
        if REQUESTS[do].changes:
            self._report_change(do, request, result, _author(peer, name))
        why = await self._best_effort.recorded() if REQUESTS[do].records else ""
        return control_server.Unrecorded(result, why) if why else result

    async def _name_of(self, user: int) -> str:
        """Return the name of the user with the id ``user``; "" if there is none.

        It is looked up in a thread, as that may be slow, and again after ``NAMED_FOR`` seconds: an
        administrator may give the id to somebody else.
        """
        if user == 0:
            return "root"
        known, until = self._names.get(user, ("", 0.0))
        if known and self._clock.mono() < until:
            return known
        name = await asyncio.to_thread(_user_name, user)
        self._names.pop(user, None)
        while len(self._names) >= MOST_NAMES:
            del self._names[next(iter(self._names))]
        self._names[user] = name, self._clock.mono() + NAMED_FOR
        return name

    def _check_page(self, do: str, request: Mapping[str, Any]) -> None:
        """Count a change that a page makes by the request ``do``.

        Raise ControlError instead if a page has made ``PAGE_CHANGES`` changes in the last hour, or would
        block a friend (known phone or trunk).
        """
        now = self._clock.mono()
        if len(self._page_changes) == PAGE_CHANGES and now - self._page_changes[0] < PAGE_WITHIN:
            raise ControlError(
                f"a page may make {PAGE_CHANGES} changes an hour, and has made them; use the command line"
            )
        if do in {"ban", "deny_add"}:
            for blocked in request["networks" if do == "ban" else "what"]:
                if self._friends.any_in(parse_network(blocked)):
                    raise ControlError(
                        f"{blocked}: a friend, a phone or trunk of this PBX, is there, so a page may "
                        "not block it; use the command line"
                    )
        self._page_changes.append(now)

    def _log_refusal(self, do: str, peer: Peer, name: str, error: str) -> None:
        now = self._clock.mono()
        if len(self._refusals) == LOGGED_REFUSALS and now - self._refusals[0] < LOGGED_WITHIN:
            return
        self._refusals.append(now)
        self._log.warning("control.refused", do=do, by=_author(peer, name), error=printable(error))

    def _report_change(self, do: str, request: Mapping[str, Any], result: object, who: str) -> None:
        """Log the change that the request ``do`` of the user ``who`` made, and pass it to the listeners."""
        self._log_change("control.changed", do, request, who)
        for listener in self._listeners:
            listener.on_fact(Changed(do, request, result, who))

    def _log_change(self, event: str, do: str, request: Mapping[str, Any], who: str, **more: str) -> None:
        known = REQUESTS[do].fields[PeerRole.ADMINISTRATOR]
        fields = {key: MASK if known[key].is_secret else _shortened(value) for key, value in request.items()}
        encoded = json.dumps(fields, ensure_ascii=False)
        self._log.info(event, do=do, by=who, fields=printable(encoded[:_MOST_LOGGED]), **more)


def _shortened(value: object) -> object:
    """Return ``value`` for the log. Shorten a long list to its first values and the number of the others."""
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
