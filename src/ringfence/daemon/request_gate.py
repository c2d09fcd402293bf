"""The gate of the control socket: every request passes it before a handler sees it.

The gate looks up the role of the client's user, checks the request against the table of requests, and logs
each change with the user and the process of the client. Changes of the allow list and the deny list are also
notified. The live page may make a limited number of changes, none of which may block a friend.
"""

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pwd import getpwuid
from typing import Any

import structlog

from ringfence import control
from ringfence.control import Peer
from ringfence.daemon.request_table import REQUESTS, Rights, Role, check_request
from ringfence.errors import ControlError
from ringfence.model import Network, parse_network, printable

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
    ``mono`` returns monotonic seconds.
    """

    def __init__(
        self,
        handlers: Mapping[str, control.Handler],
        rights: Rights,
        has_friend: Callable[[Network], bool],
        announce: Announce,
        mono: Callable[[], float],
    ) -> None:
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
            if role is Role.PAGE and REQUESTS[do].changes:
                self._check_page(do, request)
        except ControlError as error:
            self._log_refusal(do, peer, name, str(error))
            raise
        result = handler(request)
        if inspect.isawaitable(result):
            result = await result
        if REQUESTS[do].changes:
            self._report_change(do, request, result, _author(peer, name))
        return result

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
        fields = {key: _shortened(value) for key, value in request.items()}
        text = json.dumps(fields, ensure_ascii=False)
        self._log.info("control.changed", do=do, by=who, fields=printable(text[:_MOST_LOGGED]))
        if do == "lists_reload":
            self._announce(do, [], who)
        elif do in _LIST_CHANGES and isinstance(result, Mapping) and result["done"]:
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
