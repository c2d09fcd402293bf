"""The condition of a source, the base class that runs a source's sessions, and what no source can report.

``ringfence status`` shows the words of :class:`State`, and scripts may compare them.
"""

import asyncio
import enum
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from attrs import frozen

from ringfence.clock import Backoff
from ringfence.errors import SourceError

if TYPE_CHECKING:
    from ringfence.parse.ami import AmiCounts
    from ringfence.parse.line_result import LogCounts


class State(enum.StrEnum):
    """The states of a source, such as AMI or a log. Only LISTENING is good; CONNECTING is temporary."""

    CONNECTING = "connecting"
    LISTENING = "listening"
    NO_EVENTS = "no events"  # logged in, but the security class is not granted or its events are switched off
    UNREACHABLE = "unreachable"
    TLS_FAILED = "tls failed"
    NOT_AMI = "not ami"
    NO_CHALLENGE = "no md5 challenge"  # AMI does not offer MD5, the only login that hides the secret
    FOREIGN_USER = "foreign user"  # the program on AMI's port runs as a user that does not run Asterisk
    LOGIN_REFUSED = "login refused"
    UNRESPONSIVE = "unresponsive"  # AMI accepts connections, but does not answer in time
    LOST = "lost"  # the connection, or the program that reads the source, has ended
    ABSENT = "absent"  # this kernel lacks the feature that the source reads
    DENIED = "denied"  # this process may not read the source
    WAITING = "waiting"  # the log does not exist, or the search has found none that may be read
    UNREADABLE = "unreadable"  # a log that cannot be read
    FULL = "disk full"  # Asterisk cannot write to the log, because its disk is full
    DEFECT = "defect"  # an error of ringfence's own, logged in full


@frozen
class Condition:
    """A source's state, with details for the administrator (never a secret)."""

    state: State
    detail: str = ""


class EndError(SourceError):
    """Ends a source's session, such as a connection; ``condition`` is the state to show after it.

    ``pause`` is how many seconds to wait before the next session; with None the source's backoff decides.
    """

    def __init__(self, state: State, detail: str, pause: float | None = None) -> None:
        super().__init__(detail)
        self.condition = Condition(state, detail)
        self.pause = pause


def numbers_of(counts: "AmiCounts | LogCounts") -> dict[str, object]:
    """Return the counts of a source of one Asterisk, as the status shows them."""
    return {
        "events": counts.events,
        "tampered": counts.tampered,
        "garbled": counts.garbled,
        "dropped_bytes": counts.dropped_bytes,
    }


# -- the base class of sources: it keeps the condition, and runs one session after the other


GOOD_AFTER = 30.0
"""The duration in seconds of a session (such as a connection) after which the next pause is short again."""


class SupervisedSource:
    """A source of events that works in sessions. :meth:`run` begins a new one after each end.

    A session is one connection, one binding of a socket, or the following of one file. ``condition`` may be
    read at any time. ``settled`` is set once the first session has reported its state. ``backoff`` computes
    the pauses between sessions. An exception that is not an EndError is a defect of ringfence: it ends the
    session, ``status`` shows it, and the next session begins.
    """

    good_after = GOOD_AFTER

    def __init__(self, log: structlog.stdlib.BoundLogger, backoff: Backoff | None = None) -> None:
        self.condition = Condition(State.CONNECTING)
        self.settled = asyncio.Event()
        self._log = log
        chance = random.Random()  # noqa: S311 - jitter, no secret
        self._backoff = backoff if backoff is not None else Backoff(chance=chance)
        self._due = asyncio.Event()

    def retry(self) -> None:
        """End the pause before the next session; if a session runs now, no pause follows it."""
        self._due.set()

    async def run(self) -> None:
        """Run one session after the other until cancelled."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        while True:
            began = loop.time()
            pause: float | None = None
            self._due.clear()
            try:
                await self._session()
            except EndError as end:
                self._set_condition(end.condition)
                pause = end.pause
            except Exception as error:  # noqa: BLE001 - whatever it is, the source goes on
                defect = Condition(State.DEFECT, f"{type(error).__name__}; see the log")
                if defect != self.condition:
                    self._log.exception("source.defect")
                self._set_condition(defect)
            if task is not None and task.cancelling():
                # The task was cancelled while the session ended. The session's TaskGroup then raises the
                # session's own error in place of CancelledError.
                raise asyncio.CancelledError
            if loop.time() - began >= self.good_after:
                self._backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.next() if pause is None else pause):
                    await self._due.wait()

    async def _session(self) -> None:
        """Run one session (such as a connection) until it ends; raise an EndError with its last condition."""
        raise NotImplementedError

    def _set_condition(self, condition: Condition) -> None:
        if condition == self.condition:
            return
        changed, self.condition = condition.state is not self.condition.state, condition
        self.settled.set()
        if changed:
            listens = condition.state is State.LISTENING
            (self._log.info if listens else self._log.warning)(
                "source.state", state=str(condition.state), detail=condition.detail
            )


# -- attempts that the sources of an Asterisk cannot report, as lines for ``check`` and ``status``


WITHOUT_LOG = (
    "without a log, guesses by TLS and secure WebSocket whose bytes suppress Asterisk's events are not seen"
)
WITHOUT_WIRE = (
    "without the wire, guesses by UDP whose bytes suppress Asterisk's events cause no ban, and chan_sip's "
    "senders are known only if its log names them too"
)
WITHOUT_AMI = "without AMI, failed manager logins are listed and cause no ban, and no phone becomes a friend"

CHAN_SIP_TLS = (
    "no source reports guesses at chan_sip by MESSAGE, SUBSCRIBE and PUBLISH over TLS and secure WebSocket; "
    "fix: tlsenable = no and websocket_enabled = no in sip.conf [general], or serve both by PJSIP; "
    "accept_outofcall_message = no ends only those by MESSAGE"
)

WITHOUT_CLIENTS = (
    "attempts that come through a proxy name the proxy, which is never banned: AMI and the wire together "
    "name the client; fix: enabled = true in [asterisk.ami] and [asterisk.wire], and see: ringfence check"
)


def coverage_gaps(
    *, ami: bool, log: bool, wire: bool, chan_sip_tls: bool, proxies: bool = False
) -> list[str]:
    """Return a line for each kind of attempts that the configured sources cannot report.

    ``ami``, ``log``, ``wire``: this source is configured. ``wire`` is the capture of SIP packets by the
    kernel. ``chan_sip_tls``: chan_sip serves TLS or secure WebSocket. ``proxies``: SIP proxies stand in front
    of this Asterisk.
    """
    gaps = (
        (ami, WITHOUT_AMI),
        (log, WITHOUT_LOG),
        (wire, WITHOUT_WIRE),
        (not chan_sip_tls, CHAN_SIP_TLS),
        (not proxies or (ami and wire), WITHOUT_CLIENTS),
    )
    return [gap for there, gap in gaps if not there]
