"""The alarms of a daemon: saved for a restart, and dismissed by commands.

The request ``{"do": "alarms"}`` returns the active alarms. With ``"past": true`` it returns the alarms that
cleared in the last ``seconds``.

The request ``alarms_dismiss`` has the arguments ``numbers`` (or ``"all": true``) and ``by``, the name of the
person. The kernel reports which user sent a request. The daemon records this
user's name, too.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pwd import getpwuid
from typing import Any

from ringfence.alarm_codes import Alarm, AlarmCode
from ringfence.alarms import AlarmRecord, Alarms
from ringfence.bans.enforcer import Enforcer
from ringfence.clock import Clock
from ringfence.control import PEER, Encoded, encoded_rows
from ringfence.errors import ControlError
from ringfence.model import printable
from ringfence.store.database import Store
from ringfence.store.rows import shortened
from ringfence.store.tables import KEEP_ALARMS

# -- alarms about the present state of the firewall. Each alarm lasts as long as the state does


def firewall_alarms(enforcer: Enforcer) -> Iterator[Alarm]:
    """Yield the alarms that follow from the firewall's present state.

    Missing rules for the wire source are not here, but in :attr:`WireReader.alarms`.
    """
    backend, opened = enforcer.backend, enforcer.opened
    if not enforcer.enforcing:
        yield Alarm(AlarmCode.FIREWALL_OFF, "", "no address is banned; switch it on with: ringfence on")
    elif not backend.enforces:
        yield Alarm(AlarmCode.FIREWALL_DRY_RUN, "", f"the {backend.name} firewall drops nothing")
    if enforcer.firewall_error:
        pending = len(enforcer.ledger.pending_keys())
        text = f"the firewall refuses bans ({pending} pending): {enforcer.firewall_error}"
        yield Alarm(AlarmCode.FIREWALL_REFUSED, "", text)
    if opened is not None and opened.limiter and backend.enforces:
        yield Alarm(AlarmCode.LIMITER_ABSENT, "", f"the limiter is not in place: {opened.limiter}")


MOST_PAST = 2_000
_MAX_NAME = 64  # bytes of the name that a person gives


class KeptAlarms:
    """Saves the alarms in the database, and restores them at the start."""

    def __init__(self, alarms: Alarms, store: Store) -> None:
        self._alarms = alarms
        self._store = store

    def restore(self) -> None:
        """Restore the alarms that were active when the last daemon ended; none if they cannot be read."""
        table, read = self._store.alarms, self._store.best_effort.read
        self._alarms.restore(read(table.active, []), read(table.next_number, None))

    def save(self) -> None:
        """Queue the alarms that changed since the last call, to be written to the database."""
        changed = self._alarms.take_changes()
        if changed:
            self._store.best_effort.write(partial(self._store.alarms.record, changed))


class AlarmRequests:
    """Handles requests about alarms."""

    def __init__(self, alarms: Alarms, kept: KeptAlarms, store: Store, clock: Clock) -> None:
        self._alarms = alarms
        self._kept = kept
        self._store = store
        self._clock = clock

    def handlers(self) -> dict[str, Callable[[Mapping[str, Any]], object]]:
        """Return the handler of each request."""
        return {
            "alarms": self._list,
            "alarms_dismiss": self._dismiss,
        }

    async def _list(self, request: Mapping[str, Any]) -> Encoded:
        """Return active or past alarms. A thread encodes them, because there may be thousands."""
        if request.get("past") is not True:
            return await asyncio.to_thread(_encoded, self._alarms.records())
        since = self._clock.wall() - request.get("seconds", KEEP_ALARMS)
        return await asyncio.to_thread(lambda: _encoded(self._store.alarms.past(since, MOST_PAST)))

    async def _dismiss(self, request: Mapping[str, Any]) -> object:
        """Dismiss alarms; return them, and the requested numbers that no active alarm has.

        Raise ControlError if the request names no alarm.
        """
        by = await asyncio.to_thread(_person, request)  # users' names may be on a slow server (LDAP)
        if request.get("all") is True:
            numbers = [record.number for record in self._alarms.records() if record.dismissed is None]
        elif "numbers" in request:
            numbers = request["numbers"]
        else:
            raise ControlError("alarms are named by their numbers")
        done, unknown = [], []
        for number in dict.fromkeys(numbers):
            record = self._alarms.dismiss(number, by)
            if record is None:
                unknown.append(number)
            else:
                done.append(record.as_json())
            await asyncio.sleep(0)  # lets other tasks run, because there may be thousands of alarms
        self._kept.save()
        return {"done": done, "unknown": unknown}


def _encoded(records: Iterable[AlarmRecord]) -> Encoded:
    return encoded_rows(record.as_json() for record in records)


def _person(request: Mapping[str, Any]) -> str:
    """Return who sent a request, as text such as ``Ann (as root)``.

    ``Ann`` is the name in the request, ``root`` the user who sent the request. If one of them is missing, or
    both are equal, return one name alone. If both are missing, return "unknown".
    """
    peer, by = PEER.get(), request.get("by", "")
    try:
        name = getpwuid(peer.user).pw_name if peer is not None else ""
    except KeyError:
        name = str(peer.user) if peer is not None else ""
    by = shortened(printable(by), _MAX_NAME)
    return f"{by} (as {name})" if by and name and by != name else by or name or "unknown"
