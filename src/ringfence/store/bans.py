"""The tables of bans and of the attempts that led to them.

The recorded times are those of the wall clock, which may be set later. So the difference between the wall
clock and the monotonic clock is recorded too. If it has changed, the wall clock was set.

Ended bans are removed when they are too old (``KEEP``) or too many (``MOST``).
"""

import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve, frozen

from ringfence.errors import StoreError
from ringfence.ledger import clock_step
from ringfence.store.file import Connection
from ringfence.store.rows import (
    ATTEMPTS,
    INVALID_ROW,
    Columns,
    Ended,
    Execute,
    add_attempt,
    attempts_in,
    network_of,
    times,
)
from ringfence.store.switch import OffSwitch
from ringfence.store.writer import BestEffort
from ringfence.values.attempt import Attempt, AttemptCounts
from ringfence.values.ban import Ban, BanEnd, Origin, Scope
from ringfence.values.network import Network

# -- the bans as rows

_BAN = Columns(Ban, but=("attempts", "counts"))
_COUNTS = ", made, proven, accounts, account"
_COLUMNS = _BAN.names + _COUNTS
"""The columns of a ban in the database, in the order of :func:`_row_of` and :func:`_ban_of`."""

BANS = f"""
    CREATE TABLE bans (
        id INTEGER PRIMARY KEY,
        {_BAN.sql},
        made INTEGER NOT NULL,
        proven INTEGER NOT NULL,
        accounts INTEGER NOT NULL,
        account TEXT NOT NULL,
        ended REAL,
        end TEXT,
        shared INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX bans_network ON bans (network, since);
    CREATE INDEX bans_running ON bans (expires) WHERE ended IS NULL;
    CREATE INDEX bans_shared ON bans (expires) WHERE shared = 1;
    CREATE TABLE attempts (
        ban INTEGER NOT NULL REFERENCES bans (id) ON DELETE CASCADE,
        {ATTEMPTS.sql}
    ) STRICT;
    CREATE INDEX attempts_ban ON attempts (ban);
"""
"""The SQL of the tables of bans and their attempts. ``bans.made`` is a ban's number of attempts.

``bans.shared`` is 1 if other hosts may have the ban (``features/fleet/shared.py``).
"""


@frozen
class RecordedBan:
    """A ban in the database. If it ended early, ``removed`` is when, and ``how`` is how; else None."""

    ban: Ban
    removed: float | None
    how: BanEnd | None = None

    @property
    def ended(self) -> float:
        """The time when the ban ended or will end (seconds since the epoch)."""
        return self.ban.expires if self.removed is None else self.removed

    @property
    def end(self) -> BanEnd:
        """How the ban ended, or will end if it runs: then by expiry."""
        return self.how or BanEnd.EXPIRED

    def runs(self, now: float) -> bool:
        """Whether the ban has time left at ``now`` (epoch) and did not end early."""
        return self.removed is None and self.ban.expires > now


_RECORDED = f"SELECT id, {_COLUMNS}, ended, end FROM bans"  # noqa: S608 - ours


def _row_of(ban: Ban) -> tuple[object, ...]:
    """Return a ban as a row of the database, with the columns ``_COLUMNS``."""
    return *_BAN.row_of(ban), *ban.counts


def _ban_of(row: Sequence[Any], attempts: Iterable[Attempt] = ()) -> Ban:
    """Return the ban of a row with ``_COLUMNS``; raise one of INVALID_ROW if it is invalid."""
    *facts, made, proven, accounts, account = row
    counts = AttemptCounts(int(made), int(proven), int(accounts), sys.intern(account))
    return Ban(**_BAN.values_of(facts), attempts=tuple(attempts), counts=counts)


def _recorded(row: Sequence[Any], attempts: Iterable[Attempt] = ()) -> RecordedBan:
    """Return the ban of a row of _RECORDED; raise one of INVALID_ROW if it is invalid."""
    _, *columns, removed, how = row
    if removed is not None:
        times(removed)
    return RecordedBan(_ban_of(columns, attempts), removed, None if how is None else BanEnd(how))


KEEP = 90 * 86_400.0
"""Seconds for which ended bans are kept.

At least 30 days are needed, because a ban within 30 days makes the next ban of the same network longer.
"""

MOST = 300_000
"""The maximum number of bans in the file, some 300 MB. Above it, ended bans are removed, the oldest first."""

_CLOCK, _BOOT = "clock", "boot"
_ANOTHER_CLOCK = 5.0  # a ban that began more seconds after the present was recorded by another clock


class BanTable:
    """The bans of a database. Every method raises StoreError if the database cannot be read or written."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def record(self, bans: Iterable[Ban]) -> None:
        """Record bans that the kernel has acknowledged, all or none.

        A new ban ends the active ban of the same network and scope. Recording the same ban again (for
        example, because it was restored) changes nothing.
        """
        with self._connection.transaction() as execute:
            for ban in bans:
                _record(execute, ban)

    def end(self, bans: Iterable[tuple[Network, Scope]], when: float, how: BanEnd = BanEnd.REMOVED) -> None:
        """Record that ``bans`` ended early by ``how``, at ``when`` (seconds since the epoch), all or none.

        A ban that had expired by then stays as it is.
        """
        with self._connection.transaction() as execute:
            for network, scope in bans:
                _end(execute, network, scope, when, how)

    def expire(self, bans: Iterable[tuple[Network, Scope]], now: float) -> None:
        """Record that bans have expired by ``now`` (epoch), all or none.

        If the clock is set back, they stay over.
        """
        with self._connection.transaction() as execute:
            for network, scope in bans:
                execute(
                    "UPDATE bans INDEXED BY bans_network SET ended = expires, end = ?"
                    " WHERE network = ? AND scope = ? AND ended IS NULL AND expires <= ?",
                    (str(BanEnd.EXPIRED), str(network), str(scope), now),
                )

    def replace(self, bans: Iterable[Ban], others: Container[tuple[Network, Scope]], now: float) -> None:
        """Record exactly ``bans`` as active at ``now`` (epoch seconds), all or none.

        Recorded bans that are neither among these nor in ``others`` end. New bans are recorded without
        attempts.
        """
        with self._connection.transaction() as execute:
            known = {}
            running = "SELECT network, scope, since, expires FROM bans WHERE ended IS NULL AND expires > ?"
            for network, scope, *moments in execute(running, (now,)).fetchall():
                with suppress(*INVALID_ROW):
                    known[network_of(network), _SCOPES[scope]] = tuple(moments)
            for ban in bans:
                moments = known.pop((ban.network, ban.scope), None)
                if ban.expires > now and moments != (ban.since, ban.expires):
                    _record(execute, ban)
            for network, scope in known:
                if (network, scope) not in others:
                    _end(execute, network, scope, now, BanEnd.REMOVED)

    def resume(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Undo a call of :meth:`end` with the same arguments, because the bans were not removed after all.

        If the clock was set in between, ``when`` is the time by the new clock, up to a tenth of a second.
        """
        with self._connection.transaction() as execute:
            for network, scope in bans:
                execute(
                    "UPDATE bans SET ended = NULL, end = NULL"
                    " WHERE network = ? AND scope = ? AND abs(ended - ?) < 0.1",
                    (str(network), str(scope), when),
                )

    def removed_early(self, now: float) -> list[Ended]:
        """Return the bans that ended early, and that would otherwise end only after ``now`` (epoch)."""
        return self._ends("ended IS NOT NULL AND expires > ?", (now,))

    def not_removed(self) -> list[Ended]:
        """Return the bans that did not end early, including expired ones."""
        return self._ends("ended IS NULL", ())

    def _ends(self, which: str, values: tuple[float, ...]) -> list[Ended]:
        with self._connection.reading() as execute:
            found = []
            for network, scope, expires in execute(
                f"SELECT network, scope, expires FROM bans WHERE {which}",  # noqa: S608 - ours
                values,
            ):
                with suppress(*INVALID_ROW):
                    times(expires)
                    found.append((network_of(network), _SCOPES[scope], expires))
            return found

    def record_clock(self, offset: float, boot: str, step: float, now: float) -> None:
        """Record ``offset``: the wall clock minus the monotonic clock, in seconds, and the boot's identity.

        ``step`` is the number of seconds by which the wall clock was set forward: negative if it was set
        back, 0 if it was not set. It is added to the times of all bans that had not expired, including
        removed ones. ``now`` is the wall clock after it was set. If the clock was set back, bans that expired
        by the clock before it was set would begin again, so their times are moved too.

        If the begin of a ban was in the future before the clock was set, its times stay: another clock
        recorded them. After a boot with a slow clock, this holds for the bans of before the boot.
        """
        with self._connection.transaction() as execute:
            _record_clock(execute, offset, boot, step, now)

    def follow_clock(self, offset: float, boot: str, now: float) -> None:
        """Record the clock as :meth:`record_clock` does; the step is the one since the recorded offset.

        If that is missing or of another boot, record nothing: then it does not show by how much the clock was
        set.
        """
        with self._connection.transaction() as execute:
            known, booted = _clock(execute)
            if known is not None and boot and boot == booted:
                _record_clock(execute, offset, boot, clock_step(known, offset), now)

    def clock(self) -> tuple[float | None, str]:
        """Return the offset and the boot's identity that :meth:`record_clock` recorded last.

        Return None and "" if they are missing or invalid.
        """
        with self._connection.reading() as execute:
            return _clock(execute)

    def running(self, now: float) -> Iterator[Ban | None]:
        """Yield every ban that is active at ``now`` (epoch), without its attempts, the first recorded first.

        An invalid row (edited by hand, or damaged) yields None. In this order SQLite sorts nothing. It would
        sort many bans in a file, and so fail on a full disk.
        """
        active = f"SELECT {_COLUMNS} FROM bans NOT INDEXED WHERE ended IS NULL AND expires > ? ORDER BY id"  # noqa: S608 - ours
        with self._connection.reading() as execute:
            for row in execute(active, (now,)):
                try:
                    ban = _ban_of(row)
                except INVALID_ROW:
                    yield None
                else:
                    yield ban

    def count_offences(self, network: Network, since: float) -> int:
        """Return the number of bans of ``network`` that rules have made since ``since`` (epoch seconds).

        Bans on evidence whose source address was only claimed, and not proven, do not count. Their scope is
        SIP_UDP or SIP_TCP.
        """
        proven = (str(Scope.FULL), str(Scope.SIP))
        with self._connection.reading() as execute:
            sql = (
                "SELECT count(*) FROM bans"
                " WHERE network = ? AND since >= ? AND origin = ? AND scope IN (?, ?)"
            )
            (number,) = execute(sql, (str(network), since, str(Origin.RULE), *proven)).fetchone()
        return int(number)

    def past(self, network: Network, since: float, most: int) -> list[RecordedBan]:
        """Return the bans of ``network`` and of networks around it: active ones, or ended after ``since``.

        They come with their attempts. The ban that began last comes first. If there are more than ``most``,
        the earliest are left out. Invalid rows are left out too. ``since`` is in seconds since the epoch.
        """
        around = [str(network.supernet(new_prefix=length)) for length in range(network.prefixlen + 1)]
        marks = ", ".join("?" * len(around))
        wanted = f"network IN ({marks}) AND coalesce(ended, expires) > ? ORDER BY since DESC, id DESC LIMIT ?"
        attempts = f"SELECT {ATTEMPTS.names} FROM attempts WHERE ban = ? ORDER BY rowid"  # noqa: S608 - ours
        found = []
        with self._connection.scanning() as execute:
            for row in execute(f"{_RECORDED} WHERE {wanted}", (*around, since, most)).fetchall():
                with suppress(*INVALID_ROW):
                    found.append(_recorded(row, attempts_in(execute(attempts, row[:1]))))
        return found

    def attempts_on(self, account: str, since: float, most: int) -> list[Attempt]:
        """Return the latest attempts on ``account`` that led to bans, made at ``since`` (epoch) or later.

        The latest comes first. If there are more than ``most``, the earliest are left out. This reads all
        attempts of the database: a second for a million.
        """
        which = "account = ? AND time >= ? ORDER BY time DESC LIMIT ?"
        wanted = f"SELECT {ATTEMPTS.names} FROM attempts WHERE {which}"  # noqa: S608 - ours
        with self._connection.scanning() as execute:
            return list(attempts_in(execute(wanted, (account, since, most))))

    def ended(self, since: float, now: float) -> Iterator[RecordedBan]:
        """Yield the bans that ended from ``since`` to ``now`` (epoch seconds), the latest end first.

        They come without their attempts. Invalid rows are left out.
        """
        over = "(ended IS NOT NULL AND ended <= ? OR ended IS NULL AND expires <= ?)"
        latest = "coalesce(ended, expires) >= ? ORDER BY coalesce(ended, expires) DESC, id DESC"
        with self._connection.scanning() as execute:
            for row in execute(f"{_RECORDED} WHERE {over} AND {latest}", (now, now, since)):
                with suppress(*INVALID_ROW):
                    yield _recorded(row)

    def purge(self, now: float) -> None:
        """Remove bans that ended more than KEEP (90 days) before ``now`` (epoch seconds).

        If more than MOST are left, remove ended bans until MOST are left. Those that began first are removed
        first. Active bans always stay.
        """
        with self._connection.transaction() as execute:
            execute("DELETE FROM bans WHERE coalesce(ended, expires) < ?", (now - KEEP,))
            (number,) = execute("SELECT count(*) FROM bans").fetchone()
            over = "SELECT id FROM bans WHERE coalesce(ended, expires) < ? ORDER BY since, id LIMIT ?"
            execute(f"DELETE FROM bans WHERE id IN ({over})", (now, max(0, number - MOST)))  # noqa: S608 - ours


_SCOPES = {str(scope): scope for scope in Scope}


def _record(execute: Execute, ban: Ban) -> None:
    # INDEXED BY makes SQLite search by network. It might search by end instead. This is slow after a command
    # has banned many networks, because all these bans have the same end.
    known = (
        "SELECT 1 FROM bans INDEXED BY bans_network"
        " WHERE network = ? AND since = ? AND expires = ? AND scope = ? AND ended IS NULL"
    )
    if execute(known, (str(ban.network), ban.since, ban.expires, str(ban.scope))).fetchone():
        return
    _end(execute, ban.network, ban.scope, ban.since, BanEnd.REPLACED)
    row = _row_of(ban)
    # Other hosts know the ban that this one replaces by the same network and rule.
    shared = (
        "SELECT coalesce(max(shared), 0) FROM bans INDEXED BY bans_network"
        " WHERE network = ? AND rule = ? AND expires > ?"
    )
    add = f"INSERT INTO bans ({_COLUMNS}, shared) VALUES ({', '.join('?' * len(row))}, ({shared}))"  # noqa: S608 - ours
    identity = execute(add, (*row, str(ban.network), ban.rule, ban.since)).lastrowid
    for attempt in ban.attempts:
        add_attempt(execute, int(identity or 0), attempt)


def _record_clock(execute: Execute, offset: float, boot: str, step: float, now: float) -> None:
    before = now - step
    if step:
        execute(
            "UPDATE bans SET since = since + ?, expires = expires + ?, ended = ended + ?"
            " WHERE expires > ? AND since <= ?",
            (step, step, step, min(now, before), before + _ANOTHER_CLOCK),
        )
    for fact in ((_CLOCK, repr(offset)), (_BOOT, boot)):
        execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", fact)


def _clock(execute: Execute) -> tuple[float | None, str]:
    found = dict(execute("SELECT name, value FROM facts WHERE name IN (?, ?)", (_CLOCK, _BOOT)).fetchall())
    try:
        return float(found[_CLOCK]), str(found.get(_BOOT, ""))
    except (KeyError, ValueError):
        return None, ""


def _end(execute: Execute, network: Network, scope: Scope, when: float, how: BanEnd) -> None:
    """End the active ban of ``network`` at ``when`` (epoch). A ban that had expired by then stays."""
    execute(
        "UPDATE bans INDEXED BY bans_network SET ended = ?, end = ?"
        " WHERE network = ? AND scope = ? AND ended IS NULL AND expires > ?",
        (when, str(how), str(network), str(scope), when),
    )


# -- the records of bans: most writes are queued, and errors are logged and not raised


class Records:
    """Reads and queued writes of the database's bans, and the off switch.

    Only four methods raise StoreError, after they have reported it, because what they read decides which bans
    are restored, adopted and ended: :meth:`running`, :meth:`removed_early`, :meth:`not_removed` and
    :meth:`clock`.
    """

    def __init__(self, bans: BanTable, switch: OffSwitch, best_effort: BestEffort) -> None:
        self._bans = bans
        self._switch = switch
        self._best_effort = best_effort

    def ban(self, bans: Sequence[Ban]) -> None:
        """Queue a write that records bans. The kernel has already acknowledged them."""
        self._best_effort.write(self._bans.record, bans)

    def end(self, bans: Sequence[tuple[Network, Scope]], when: float, how: BanEnd = BanEnd.REMOVED) -> None:
        """Queue a write that records that bans ended early by ``how``, at ``when`` (epoch seconds)."""
        self._best_effort.write(self._bans.end, bans, when, how)

    async def end_and_wait(self, bans: Sequence[tuple[Network, Scope]], when: float, how: BanEnd) -> None:
        """Queue a write that bans ended by ``how`` at ``when`` (epoch), and wait a moment for the disk.

        The caller removes the bans from the kernel afterwards. The daemon may be killed in between. Then the
        next start finds a ban in the kernel that is recorded as removed, and removes it. In the other order,
        the next start would find a recorded ban that is missing in the kernel, and restore it.
        """
        self.end(bans, when, how)
        await self._best_effort.recorded()

    def resume(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Queue a write that undoes :meth:`end`, because the kernel refused to remove these bans.

        ``when`` is the time that was passed to :meth:`end` (seconds since the epoch).
        """
        self._best_effort.write(self._bans.resume, bans, when)

    def removed_early(self, now: float) -> Iterable[Ended]:
        """Return the bans that ended early, and that would otherwise end only after ``now`` (epoch)."""
        return self._best_effort.required(self._bans.removed_early, now)

    def not_removed(self) -> Iterable[Ended]:
        """Return the bans that did not end early, including expired ones."""
        return self._best_effort.required(self._bans.not_removed)

    def clock(self) -> tuple[float | None, str]:
        """Return the last recorded wall clock minus monotonic clock, in seconds, and the boot's identity.

        Return None and "" if they are unknown.
        """
        return self._best_effort.required(self._bans.clock)

    def catch_up(self) -> bool:
        """Do the queued writes now, unless the disk takes none; return whether none is left."""
        if self._best_effort.takes_writes:
            self._best_effort.write_kept()
        return not self._best_effort.waiting

    def record_clock(self, offset: float, boot: str, step: float, now: float) -> None:
        """Record the clock's offset, and move the bans' times by ``step`` seconds, before this returns.

        If the database takes no writes, or locks them for long, this is done later. The arguments are those
        of :meth:`BanTable.record_clock`.
        """
        self._best_effort.write_now(self._bans.record_clock, offset, boot, step, now)

    def queue_clock_record(self, offset: float, boot: str, step: float, now: float) -> None:
        """Queue a write of the clock's offset that moves the bans' times by ``step`` seconds.

        The arguments are those of :meth:`BanTable.record_clock`.
        """
        self._best_effort.write(self._bans.record_clock, offset, boot, step, now)

    def queue_clock_follow(self, offset: float, boot: str, now: float) -> None:
        """Queue a write that finds out by how much the clock was set, and moves the bans' times.

        The arguments are those of :meth:`BanTable.follow_clock`.
        """
        self._best_effort.write(self._bans.follow_clock, offset, boot, now)

    def expire(self, bans: Sequence[tuple[Network, Scope]], now: float) -> None:
        """Queue a write that records that bans have expired by ``now`` (seconds since the epoch)."""
        self._best_effort.write(self._bans.expire, bans, now)

    def replace(self, bans: Iterable[Ban], others: Container[tuple[Network, Scope]], now: float) -> None:
        """Queue a write after which exactly ``bans`` are active; each try iterates over them again.

        Recorded bans that are neither in ``bans`` nor in ``others`` end at ``now`` (epoch seconds).
        """
        self._best_effort.write(self._bans.replace, bans, others, now)

    def running(self, now: float) -> Iterator[Ban]:
        """Yield the recorded bans that have time left at ``now`` (epoch), without their attempts.

        Bans that a waiting write changes are left out. Invalid rows are left out too. (If the kernel still
        has the ban of an invalid row, the daemon adopts it from there.)

        If a ban began after ``now``, the clock is wrong: a host without a battery boots with a date in the
        past. It is unknown whether such a ban is over. So it is yielded with ``now`` as its begin, and with
        its full length.
        """
        if self._best_effort.waiting_calls(self._bans.replace):
            return  # it may change any of them
        unreadable, changing = 0, self._changing()
        try:
            for ban in self._bans.running(now):
                if ban is None:
                    unreadable += 1
                    continue
                if changing and (ban.network, ban.scope) in changing:
                    continue
                late = ban.since - now
                yield evolve(ban, since=now, expires=ban.expires - late) if late > 0 else ban
        except StoreError as error:
            self._best_effort.report(error)
            raise
        if unreadable:
            self._best_effort.report_unreadable(unreadable)

    def _changing(self) -> set[tuple[Network, Scope]]:
        """Return the network and the scope of each ban that a waiting write ends or records."""
        calls, table = self._best_effort.waiting_calls, self._bans
        ended = {one for bans, *_ in calls(table.end) for one in bans}
        return ended | {(ban.network, ban.scope) for (bans,) in calls(table.record) for ban in bans}

    def offences(self, network: Network, since: float) -> int:
        """Return the number of bans of ``network`` that rules have made since ``since`` (epoch seconds).

        Bans on evidence whose source address was not proven (scope SIP_UDP or SIP_TCP) do not count. Return 0
        if the number cannot be read.
        """
        return self._best_effort.read(self._bans.count_offences, 0, network, since)

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off."""
        return self._switch.is_off

    @property
    def switch_is_unrecorded(self) -> bool:
        """Whether the database lacks the latest command to switch enforcement off or on."""
        return self._switch.is_unrecorded

    def set_switched_off(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Switch enforcement off (True) or on at once, also if the disk is full, and queue the record."""
        self._switch.set(value)
