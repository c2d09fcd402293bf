"""The control socket's requests about friends.

A *reason* is one reason why an address is a friend. The answer to ``{"do": "friends"}`` is a list of all
reasons; with ``networks``, only the reasons of addresses in these networks. ``friends_forget`` has an
``address``. It removes all reasons of this address, and returns their number. ``friends_import`` has
``friends`` as in a document (``exchange``). They come in parts, because requests have a size limit. All parts
have the same ``transfer``, and all but the last have ``more``. Nothing is imported before all parts have
arrived and are valid.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from ringfence.detect.friends import MOST
from ringfence.errors import ControlError
from ringfence.friends.exchange import as_json, friend_from
from ringfence.friends.registry import FriendRegistry
from ringfence.model import Friend, Network

_ROWS = 500  # friends of one part of the answer


class FriendRequests:
    """Handles requests about the friends of ``registry``. ``wall`` returns wall-clock seconds."""

    def __init__(self, registry: FriendRegistry, wall: Callable[[], float]) -> None:
        self._registry = registry
        self._wall = wall
        self._transfer: object = None
        self._arrived: list[Friend] = []

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], object]]:
        """Return the handlers of the requests that change friends, by the name of the request."""
        return {"friends_import": self.import_part, "friends_forget": self.forget}

    def listed(self, networks: Sequence[Network] | None = None) -> Iterator[bytes]:
        """Yield all reasons why addresses are friends now, as one JSON list, in parts.

        With ``networks`` only the reasons of addresses in one of them are listed.
        """
        friends: Iterable[Friend] = self._registry.friends.all()
        if networks is not None:
            friends = (one for one in friends if any(one.address in network for network in networks))
        return _in_parts(friends)

    def import_part(self, request: Mapping[str, Any]) -> object:
        """Accept a part of an import; return how many friends have arrived so far.

        With the last part all of them are imported, except those that ended meanwhile; return their number.
        Raise ControlError if a friend is invalid: then none of them is imported.
        """
        if request.get("transfer") != self._transfer:
            self._transfer, self._arrived = request.get("transfer"), []
        try:
            now = self._wall()
            self._arrived += [friend_from(row, now) for row in request["friends"]]
            if len(self._arrived) > MOST:
                raise ValueError(f"more than {MOST}")  # noqa: TRY301 - as every other fault
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._transfer, self._arrived = None, []
            raise ControlError(f"no friend was imported, because one is invalid: {error}") from None
        if request.get("more") is True:
            return len(self._arrived)
        friends = [friend for friend in self._arrived if friend.until > now]
        self._transfer, self._arrived = None, []
        self._registry.add(friends)
        return len(friends)

    def forget(self, request: Mapping[str, Any]) -> object:
        """Forget all reasons why the ``address`` in ``request`` is a friend; return their number."""
        try:
            address = ip_address(str(request["address"]))
        except (LookupError, ValueError) as error:
            raise ControlError(f"not an address: {error}") from None
        return self._registry.forget(address)


def _in_parts(friends: Iterable[Friend]) -> Iterator[bytes]:
    rows: list[str] = []
    between = "["
    for friend in friends:
        rows.append(json.dumps(as_json(friend)))
        if len(rows) == _ROWS:
            yield (between + ", ".join(rows)).encode()
            between = ", "
            rows.clear()
    if rows:
        yield (between + ", ".join(rows)).encode()
        between = ", "
    yield b"]" if between == ", " else b"[]"
