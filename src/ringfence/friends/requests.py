"""What commands ask of the friends over the control socket.

``{"do": "friends"}`` is answered with every reason, with ``networks`` those of who is in one of them.
``friends_forget`` takes an ``address`` and says how many reasons it had. ``friends_import`` takes ``friends``
as a document has them, in parts, since a request is not long: all parts but the last have ``more``, and all
the same ``transfer``. Nothing is taken before everything is there and in order.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from ringfence.detect.friends import MOST
from ringfence.errors import ControlError
from ringfence.friends.document import as_json, friend_from
from ringfence.friends.keeping import Keeping
from ringfence.model import Friend, Network

_ROWS = 500  # to a part of an answer


class Requests:
    """Answers commands about the friends that ``keeping`` has. ``wall`` gives wall-clock seconds."""

    def __init__(self, keeping: Keeping, wall: Callable[[], float]) -> None:
        self._keeping = keeping
        self._wall = wall
        self._transfer: object = None
        self._arrived: list[Friend] = []

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], object]]:
        """Give what answers the commands that change something."""
        return {"friends_import": self.take, "friends_forget": self.forget}

    def listed(self, networks: Sequence[Network] | None = None) -> Iterator[bytes]:
        """Give every reason as a JSON list in parts; they are those of now, whenever the parts are read.

        With ``networks`` only of who is in one of them.
        """
        friends: Iterable[Friend] = self._keeping.friends.all()
        if networks is not None:
            friends = (one for one in friends if any(one.address in network for network in networks))
        return _in_parts(friends)

    def take(self, request: Mapping[str, Any]) -> object:
        """Take a part of an import; give how many friends were taken with the last one."""
        if request.get("transfer") != self._transfer:
            self._transfer, self._arrived = request.get("transfer"), []
        try:
            now = self._wall()
            self._arrived += [friend_from(row, now) for row in request["friends"]]
            if len(self._arrived) > MOST:
                raise ValueError(f"more than {MOST}")  # noqa: TRY301 - as every other fault
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            self._transfer, self._arrived = None, []
            raise ControlError(f"no friends that can be taken, so none is: {error}") from None
        if request.get("more") is True:
            return len(self._arrived)
        friends, self._transfer, self._arrived = self._arrived, None, []
        self._keeping.take(friend for friend in friends if friend.until > now)
        return len(friends)

    def forget(self, request: Mapping[str, Any]) -> object:
        """Let an address be no friend any more; give how many reasons there were."""
        try:
            address = ip_address(str(request["address"]))
        except (LookupError, ValueError) as error:
            raise ControlError(f"no address: {error}") from None
        return self._keeping.forget(address)


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
