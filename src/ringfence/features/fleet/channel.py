"""One direction of the connection to the local API: when it worked, when it is due, its errors. No I/O."""

from math import inf
from random import Random

from attrs import define

from ringfence.errors import RingfenceError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""The shortest and the longest pause in seconds after failed requests."""


class FleetError(RingfenceError):
    """A request to CrowdSec's local API failed.

    ``status`` is the status of its answer, 0 without an answer. ``pause`` is how many seconds the API asks to
    wait. ``refused``: it will never accept this request.
    """

    def __init__(self, text: str, status: int = 0, pause: float = 0.0, refused: bool = False) -> None:  # noqa: FBT002
        super().__init__(text)
        self.status = status
        self.pause = pause
        self.refused = refused


@define
class Channel:
    """One kind of requests to CrowdSec's local API: when one last succeeded, and when the next is due.

    ``error`` is why the latest request failed, "" if it did not. ``since`` is when the first of the requests
    began that have not succeeded; None if the last one has. All times are in monotonic seconds. ``chance``,
    which is ``random.uniform``, makes the pauses after failures random: from the shortest one to three times
    the one before. Without ``chance``, each is twice as long as the one before.
    """

    _chance: Random | None = None
    last: float | None = None
    due: float = -inf
    error: str = ""
    since: float | None = None
    _pause: float = 0.0

    def begins(self, now: float) -> None:
        """Record that a request is sent at ``now`` (monotonic seconds)."""
        if self.since is None:
            self.since = now

    def worked(self, now: float) -> None:
        """Record that a request succeeded at ``now`` (monotonic seconds)."""
        self.last, self.error, self.due, self.since, self._pause = now, "", -inf, None, 0.0

    def failed(self, error: str, now: float, pause: float = 0.0) -> None:
        """Record that a request failed at ``now`` (monotonic seconds) with ``error``.

        ``pause``: the server asks to wait so many seconds (limited).
        """
        self.begins(now)
        longer = (
            2 * self._pause if self._chance is None else self._chance.uniform(FIRST_PAUSE, 3 * self._pause)
        )
        self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, longer))
        self.error, self.due = error, now + min(LONGEST_PAUSE, max(pause, self._pause))

    def problem(self, now: float, seconds: float) -> str:
        """Return why no request has succeeded for ``seconds`` before ``now`` (monotonic seconds).

        Return "" if one has, or if none was sent.
        """
        if self.since is None or now - self.since <= seconds:
            return ""
        return self.error or "no answer yet"
