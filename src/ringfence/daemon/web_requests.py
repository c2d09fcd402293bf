"""The requests that the live page may send. The daemon refuses its other requests.

The live page is a web server, a process of its own with the user ``ringfence-web``. This user is in the
daemon's group, so it may use the control socket. If an attacker takes the process over, this module limits
what it can do: it cannot switch ringfence off, end all bans at once, use ``--force``, make friends, or send
requests about thousands of networks.
"""

import asyncio
import inspect
from collections.abc import Mapping
from pwd import getpwuid
from typing import Any

from ringfence import control
from ringfence.errors import ControlError

WEB_USER = "ringfence-web"
"""The user of the live page's systemd unit, ``ringfence-web.service``."""
MOST_TEXT = 400  # characters of an argument

_ARGUMENTS: Mapping[str, frozenset[str]] = {
    "alarms": frozenset({"past", "seconds"}),
    "alarms_acknowledge": frozenset({"numbers", "by"}),
    "alarms_dismiss": frozenset({"numbers", "by"}),
    "allow_add": frozenset({"what", "note"}),
    "allow_remove": frozenset({"what"}),
    "ban": frozenset({"networks", "seconds", "reason"}),
    "bans": frozenset({"most"}),
    "deny_add": frozenset({"what", "note"}),
    "deny_remove": frozenset({"what"}),
    "friends": frozenset({"networks"}),
    "friends_forget": frozenset({"address"}),
    "history": frozenset({"seconds"}),
    "latest": frozenset({"kinds"}),
    "lists": frozenset({"side"}),
    "past_bans": frozenset({"seconds"}),
    "status": frozenset(),
    "top": frozenset(),
    "unban": frozenset({"networks", "allowed"}),
    "why": frozenset({"network"}),
    "why_account": frozenset({"account"}),
}
"""The requests that the live page may send, each with the arguments that it may have."""
_ONE = frozenset({"networks", "what", "numbers"})
"""Arguments that are lists. The live page may send only lists with one element."""


def web_refusal(do: str, request: Mapping[str, Any]) -> str | None:
    """Return why the live page may not send the request ``do``; None if it may.

    ``request`` has the arguments.
    """
    if do not in _ARGUMENTS:
        return f"the live page may not send the request {do}; use the command line"
    for name, value in request.items():
        if name not in _ARGUMENTS[do]:
            return f"the live page may not send {name} with the request {do}; use the command line"
        if name in _ONE and not (isinstance(value, list) and len(value) == 1):
            return f"the live page may send one value only as {name}"
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and len(text) > MOST_TEXT for text in texts):
            return f"{name} has more than {MOST_TEXT} characters"
    return None


class WebLimit:
    """Handlers of requests that refuse what the user of the live page may not send.

    They pass all other requests to ``handlers``. The requests of other users are not limited.
    """

    def __init__(self, handlers: Mapping[str, control.Handler]) -> None:
        self._handlers = handlers
        self._is_web: dict[int, bool] = {}

    def handlers(self) -> Mapping[str, control.Handler]:
        """Return a limited handler for each request."""
        return {do: self._limited(do, handler) for do, handler in self._handlers.items()}

    def _limited(self, do: str, handler: control.Handler) -> control.Handler:
        async def answer(request: Mapping[str, Any]) -> object:
            refusal = web_refusal(do, request)
            if refusal is not None and await self._comes_from_web():
                raise ControlError(refusal)
            result = handler(request)
            return await result if inspect.isawaitable(result) else result

        return answer

    async def _comes_from_web(self) -> bool:
        user = control.USER.get()
        if not user:  # user id 0 is root, which is not limited
            return False
        if user not in self._is_web:  # looked up in a thread, because names may be on a slow server (LDAP)
            self._is_web[user] = await asyncio.to_thread(_is_web_user, user)
        return self._is_web[user]


def _is_web_user(user: int) -> bool:
    try:
        return getpwuid(user).pw_name == WEB_USER
    except KeyError:
        return False
