"""The items of an AMI connection, and which of them a client of AMI over HTTP may have forged.

AMI over HTTP (``webenabled`` in manager.conf, off by default) percent-decodes the user name of a login. A
failed login writes that name into a security event of service AMI, CR LF included. So one HTTP request
can write whole packets of any kind, correct to the last byte (tried on 16.28 and 22.10, with names of 40
kB). On the AMI port itself a value ends at its CR LF, so no packet can be forged.

Two facts distinguish forged packets from Asterisk's own:

- The event begins with Asterisk's own head, which names service AMI, before any text of the client.
- A reply with an ActionID that only ringfence knows is Asterisk's own. Asterisk writes the events and
  replies of a connection one after the other, so the client's text ends before the reply.

Therefore ringfence sends a *question*, the action ``CoreSettings``, at each event of service AMI. The
field ``CoreHTTPenabled`` of the reply reports whether AMI over HTTP is on
(``main/manager.c:action_coresettings``). An earlier reply alone does not suffice: an administrator can
switch AMI over HTTP on by ``manager reload``, and no event reports that.

- If the last ``ENOUGH`` replies were No, the event and all items after it are held until the next reply
  (0.1 ms on an idle machine). If this reply is No too, everything held is passed on unchanged.
- Otherwise everything from the event to the reply may be forged: security events are marked with
  ``forgeable``, and changes of phones are dropped.

Limits: at most ``MOST_HELD`` bytes are held, for at most ``HOLD_WITHIN`` seconds. Beyond these limits the
held items are treated as forgeable.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import TypeAlias

from attrs import evolve, frozen

from ringfence.parse.roster import RosterEvent
from ringfence.values.event import SecurityEvent

EOL_TEXT = "\r\n"


@frozen
class Banner:
    """The first line that Asterisk's manager interface (AMI) sends on a connection.

    ``version`` is that of the AMI protocol, such as ``11.0.0`` on Asterisk 22; "" if the line is not AMI's.
    """

    version: str


@frozen
class Reply:
    """AMI's answer to an action of ringfence, as text with CR LF between the headers."""

    text: str


@frozen
class ManagerEvent:
    """A mark among the items of an AMI connection: an event about a manager login or action begins here.

    A client of AMI over HTTP may have written any item that follows the mark.
    """


AmiItem: TypeAlias = Banner | Reply | RosterEvent | SecurityEvent
"""The values that :class:`~ringfence.parse.ami.AmiDecoder` returns."""

ENOUGH = 2
"""The number of replies in a row that AMI over HTTP is off, after which it counts as off.

One would not suffice. After the first No there may still come an event from the time when AMI over HTTP was
on, because it was queued before that reply. After the second No there cannot.
"""
HOLD_WITHIN = 5.0
MOST_HELD = 4 * 2**20

_FIELD = f"{EOL_TEXT}CoreHTTPenabled: "
_VALUES = {"Yes": True, "No": False}


class HttpCheck:
    """Holds or marks the items of one AMI connection that a client of AMI over HTTP may have forged.

    A *question* is an action by which ringfence asks Asterisk whether it serves AMI over HTTP. The argument
    ``token`` is secret, and begins the ActionID of each question. If it is "", no answer is recognized.

    The attribute ``enabled`` is the last answer; None if it is unknown. ``wanted``: the caller should now
    send a question with the ActionID that :meth:`ask` returns. ``active``: items must go through
    :meth:`pass_on`. ``deadline`` is the monotonic time at which :meth:`expire` has something to return, or
    None.

    With the argument ``recorded``, the items come from a recording, so no question can be sent. All items are
    then passed on unchanged. The attribute ``recorded_manager`` becomes true if some of them may be forged.
    """

    def __init__(self, token: str, *, recorded: bool) -> None:
        self.enabled: bool | None = None
        self.recorded_manager = False
        self._recorded = recorded
        self.wanted = False
        self.active = False
        self.deadline: float | None = None
        self._token = token
        self._id = f"{token}-http-"
        self._mark = f"{EOL_TEXT}ActionID: {self._id}" if token else ""
        self._numbers = count()
        self._waiting = False
        self._off = 0
        self._suspect = False
        self._held: list[AmiItem] = []
        self._size = 0

    def ask(self) -> str:
        """Return the ActionID for a new action that asks whether AMI over HTTP is on; send the action now."""
        self.wanted, self._waiting = False, True
        return f"{self._id}{next(self._numbers)}"

    def is_answer(self, reply: Reply) -> bool:
        """Whether ``reply`` answers a question whether Asterisk serves AMI over HTTP."""
        return bool(self._mark) and self._mark in reply.text

    def pass_on(self, items: Iterable[AmiItem | ManagerEvent], size: int, now: float) -> list[AmiItem]:
        """Return the items that can be passed on at ``now`` (monotonic); ``items`` had ``size`` bytes.

        The items after a ManagerEvent, up to the next reply to a question, may be forged. If AMI over HTTP
        counts as off, these items are held until that reply. Otherwise they are returned at once, as
        :func:`_as_forgeable` changes them. All other items, and those that :meth:`_is_trusted` accepts, are
        returned at once and unchanged. A ManagerEvent itself is never returned.
        """
        passed: list[AmiItem] = []
        for item in items:
            if isinstance(item, ManagerEvent):
                if self._recorded:
                    self.recorded_manager = True
                else:
                    self._begin(now)
            elif isinstance(item, Reply) and self.is_answer(item):
                passed += self._end(item)
                passed.append(item)
            elif not self._suspect or self._is_trusted(item):
                passed.append(item)
            elif self.deadline is not None:
                self._held.append(item)
            else:
                passed += _as_forgeable([item])
        if self.deadline is not None:
            self._size += size
            if self._size > MOST_HELD:
                passed += self._give_up()
        self.active = self._suspect
        return passed

    def expire(self, now: float) -> list[AmiItem]:
        """Return all held items if the first one was held too long at ``now`` (monotonic seconds); else [].

        Security events are marked as forgeable; the other items, about phones and trunks, are dropped.
        """
        return self._give_up() if self.deadline is not None and now >= self.deadline else []

    def _begin(self, now: float) -> None:
        if not self._suspect and self._off >= ENOUGH:
            self.deadline = now + HOLD_WITHIN
        self._suspect = True
        # No new question is needed while an earlier one has no reply: that reply will come after this event.
        self.wanted = not self._waiting

    def _end(self, answer: Reply) -> list[AmiItem]:
        _, found, value = answer.text.partition(_FIELD)
        self.enabled = _VALUES.get(value.partition(EOL_TEXT)[0]) if found else None
        self._off = min(self._off + 1, ENOUGH) if self.enabled is False else 0
        self._waiting = self.wanted = self._suspect = False
        return self._end_hold() if self.enabled is False else self._give_up()

    def _give_up(self) -> list[AmiItem]:
        return list(_as_forgeable(self._end_hold()))

    def _end_hold(self) -> list[AmiItem]:
        held, self._held, self._size, self.deadline = self._held, [], 0, None
        return held

    def _is_trusted(self, item: AmiItem) -> bool:
        """Whether ``item`` is an answer to ringfence, or can do no harm if a client has forged it.

        A RosterEvent must have ringfence's token, which no client knows. Every Reply is accepted: no action
        waits for a forged one, because it lacks the token. So a forged Reply has no effect.
        """
        if isinstance(item, RosterEvent):
            return bool(self._token) and item.action.startswith(self._token)
        return isinstance(item, Reply)


def _as_forgeable(items: Iterable[AmiItem]) -> Iterator[AmiItem]:
    """Yield ``items`` with security events marked as forgeable, and without events about phones."""
    for item in items:
        if isinstance(item, SecurityEvent):
            yield evolve(item, forgeable=True)
