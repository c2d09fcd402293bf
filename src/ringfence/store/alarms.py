"""The table of alarms. Each row is one alarm: when it began, when it cleared, and how people handled it."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from ringfence.alarm_codes import AlarmCode
from ringfence.alarms import AlarmRecord
from ringfence.model import printable
from ringfence.store.file import Connection
from ringfence.store.rows import INVALID_ROW, Execute, shortened, times

KEEP_ALARMS = 90 * 86_400.0
"""Seconds for which cleared alarms are kept."""
MOST_ALARMS = 10_000
"""The maximum number of cleared alarms (10 MB). If there are more, those that cleared first are removed."""
MAX_SUBJECT, MAX_TEXT, MAX_NAME = 300, 500, 300
"""The maximum lengths of an alarm's subject, its text, and the names of people who handled it, in bytes.

A limit is needed because subject and text may contain an account, and the sender chooses its length.
"""

_COLUMNS = (
    "number, code, subject, text, since, last, until, times, held, cleared,"
    " acknowledged, acknowledged_by, dismissed, dismissed_by"
)

_INSERT = f"INSERT OR REPLACE INTO alarms ({_COLUMNS}) VALUES ({', '.join('?' * 14)})"  # noqa: S608 - ours
_DELETE_OLDEST = """
    DELETE FROM alarms WHERE cleared IS NOT NULL AND number NOT IN
        (SELECT number FROM alarms WHERE cleared IS NOT NULL ORDER BY cleared DESC LIMIT ?)
"""
_CODES = {str(code): code for code in AlarmCode}


class AlarmTable:
    """The alarms of a database. Every method raises StoreError if the database cannot be read or written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def record(self, records: Iterable[AlarmRecord]) -> None:
        """Record alarms, all or none. An alarm replaces its earlier record with the same number."""
        with self._connection.transaction() as execute:
            for one in records:
                _write(execute, one)

    def active(self) -> list[AlarmRecord]:
        """Return the alarms that have not cleared, oldest first."""
        with self._connection.reading() as execute:
            return _select(execute, "cleared IS NULL ORDER BY number", ())

    def past(self, since: float, most: int) -> list[AlarmRecord]:
        """Return alarms that cleared at ``since`` (seconds since the epoch) or later.

        The one that cleared last comes first. If there are more than ``most``, the earliest are left out.
        """
        latest = "cleared >= ? ORDER BY cleared DESC, number DESC LIMIT ?"
        with self._connection.scanning() as execute:
            return _select(execute, latest, (since, most))

    def next_number(self) -> int:
        """Return a number for the next alarm: one more than the highest in the table."""
        with self._connection.reading() as execute:
            (number,) = execute("SELECT coalesce(max(number), 0) + 1 FROM alarms").fetchone()
        return int(number)

    def purge(self, now: float) -> None:
        """Remove alarms that cleared more than KEEP_ALARMS before ``now``.

        Of the other cleared alarms, keep the MOST_ALARMS that cleared last.
        """
        with self._connection.transaction() as execute:
            execute("DELETE FROM alarms WHERE cleared < ?", (now - KEEP_ALARMS,))
            execute(_DELETE_OLDEST, (MOST_ALARMS,))


def _select(execute: Execute, which: str, values: tuple[float, ...]) -> list[AlarmRecord]:
    """Return some alarms. ``which`` is the SQL after WHERE, ``values`` are the values of its parameters.

    Invalid rows are left out, for example one with an alarm code that only another version of ringfence has.
    """
    found = []
    for row in execute(f"SELECT {_COLUMNS} FROM alarms WHERE {which}", values):  # noqa: S608 - ours
        with suppress(*INVALID_ROW):
            found.append(_record(row))
    return found


def _write(execute: Execute, one: AlarmRecord) -> None:
    execute(
        _INSERT,
        (
            one.number,
            str(one.code),
            shortened(printable(one.subject), MAX_SUBJECT),
            shortened(printable(one.text), MAX_TEXT),
            one.since,
            one.last,
            one.until,
            one.times,
            int(one.held),
            one.cleared,
            one.acknowledged,
            shortened(printable(one.acknowledged_by), MAX_NAME),
            one.dismissed,
            shortened(printable(one.dismissed_by), MAX_NAME),
        ),
    )


def _record(row: Sequence[Any]) -> AlarmRecord:
    number, code, subject, text, since, last, until, count, held, cleared, *marks = row
    acknowledged, acknowledged_by, dismissed, dismissed_by = marks
    times(since, last, *(one for one in (until, cleared, acknowledged, dismissed) if one is not None))
    return AlarmRecord(
        int(number),
        _CODES[code],
        subject,
        text,
        since,
        last,
        until,
        int(count),
        bool(held),
        cleared,
        acknowledged,
        acknowledged_by,
        dismissed,
        dismissed_by,
    )
