"""The tables of bans and of the attempts that led to them.

The recorded times are those of the wall clock, which may be set later. So the difference between the wall
clock and the monotonic clock is recorded too. If it has changed, the wall clock was set.

Ended bans are removed when they are too old (``KEEP``) or too many (``MOST``).
"""

import asyncio
import enum
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_network
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from attrs import evolve, frozen

from ringfence.errors import StoreError
from ringfence.model import Attempt, AttemptCounts, Ban, Network, Origin, Scope
from ringfence.store.file import Connection
from ringfence.store.rows import ATTEMPT, INVALID_ROW, Ended, Execute, add_attempt, attempts_in, times
from ringfence.store.tables import SavedState
from ringfence.store.writer import BestEffort

# -- queries for recorded bans
#
# One returns the bans of a network and of networks around it, with their attempts. The other returns all
# ended bans.


_BANS = "SELECT id, network, since, expires, rule, reason, origin, scope, offence, forced, ended FROM bans"


@frozen
class Past:
    """A recorded ban.

    ``ended`` is the time when it was removed or replaced; None if it is active or expired.
    """

    ban: Ban
    ended: float | None

    def runs(self, now: float) -> bool:
        """Whether the ban has time left and was not removed."""
        return self.ended is None and self.ban.expires > now


class End(enum.StrEnum):
    """How a ban ended."""

    EXPIRED = "expired"
    REMOVED = "removed"
    REPLACED = "replaced"  # by another ban of the same network and scope


@frozen
class EndedBan:
    """A ban that ended at ``ended`` (seconds since the epoch), with the counts of its attempts."""

    ban: Ban
    counts: AttemptCounts
    ended: float
    end: End


def ended_bans(execute: Execute, since: float, now: float) -> Iterator[EndedBan]:
    """Yield the bans that ended from ``since`` to ``now``, the latest end first.

    Invalid rows are left out.
    """
    for row in execute(_ENDED, (now, now, since)):
        with suppress(*INVALID_ROW):
            yield _ended(row)


_ENDED = """
    SELECT network, since, expires, rule, reason, origin, scope, offence, forced,
        made, proven, accounts, account, ended,
        ended IS NOT NULL AND EXISTS (
            SELECT 1 FROM bans AS later
            WHERE later.network = bans.network AND later.since = bans.ended AND later.scope = bans.scope
        )
    FROM bans WHERE (ended IS NOT NULL AND ended <= ? OR ended IS NULL AND expires <= ?)
        AND coalesce(ended, expires) >= ?
    ORDER BY coalesce(ended, expires) DESC, id DESC
"""


def _ended(row: Sequence[Any]) -> EndedBan:
    network, since, expires, rule, reason, origin, scope, offence, forced, *counts, ended, replaced = row
    made, proven, accounts, account = counts
    end = End.EXPIRED if ended is None else End.REPLACED if replaced else End.REMOVED
    when = expires if ended is None else ended
    times(since, expires, when)
    ban = Ban(
        ip_network(network),
        since,
        expires,
        rule,
        reason,
        Origin(origin),
        scope=Scope(scope),
        offence=int(offence),
        forced=bool(forced),
    )
    return EndedBan(ban, AttemptCounts(int(made), int(proven), int(accounts), str(account)), when, end)


def past_of(execute: Execute, network: Network, since: float, most: int) -> list[Past]:
    """Return the bans of ``network`` and of networks around it: active ones, or ended after ``since``.

    The ban that began last comes first. If there are more than ``most``, the earliest are left out. Invalid
    rows are left out too.
    """
    around = [str(network.supernet(new_prefix=length)) for length in range(network.prefixlen + 1)]
    marks = ", ".join("?" * len(around))
    wanted = f"network IN ({marks}) AND coalesce(ended, expires) > ? ORDER BY since DESC, id DESC LIMIT ?"
    rows = execute(f"{_BANS} WHERE {wanted}", (*around, since, most)).fetchall()
    found = []
    for identity, *row in rows:
        try:
            found.append(_past(execute, identity, row))
        except INVALID_ROW:
            continue
    return found


def _past(execute: Execute, identity: int, row: Sequence[Any]) -> Past:
    network, since, expires, rule, reason, origin, scope, offence, forced, ended = row
    times(since, expires, *(() if ended is None else (ended,)))
    attempts = execute(f"SELECT {ATTEMPT} FROM attempts WHERE ban = ? ORDER BY rowid", (identity,))  # noqa: S608 - ours
    ban = Ban(
        ip_network(network),
        since,
        expires,
        rule,
        reason,
        Origin(origin),
        tuple(attempts_in(attempts)),
        Scope(scope),
        offence,
        bool(forced),
    )
    return Past(ban, ended)


KEEP = 90 * 86_400.0
"""Seconds for which ended bans are kept.

At least 30 days are needed, because a ban within 30 days makes the next ban of the same network longer.
"""

MOST = 300_000
"""The maximum number of bans in the file, some 300 MB. Above it, ended bans are removed, the oldest first."""

_CLOCK = "clock"


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

    def end(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Record that these bans were removed at ``when`` (seconds since the epoch), all or none.

        A ban that had expired by then stays as it is.
        """
        with self._connection.transaction() as execute:
            for network, scope in bans:
                _end(execute, network, scope, when)

    def resume(self, bans: Iterable[tuple[Network, Scope]], when: float) -> None:
        """Undo a call of :meth:`end` with the same arguments, because the bans were not removed after all."""
        with self._connection.transaction() as execute:
            for network, scope in bans:
                execute(
                    "UPDATE bans SET ended = NULL WHERE network = ? AND scope = ? AND ended = ?",
                    (str(network), str(scope), when),
                )

    def removed_early(self, now: float) -> list[Ended]:
        """Return the bans that were removed or replaced, and that would otherwise end only after ``now``."""
        return self._ends("ended IS NOT NULL AND expires > ?", (now,))

    def not_removed(self) -> list[Ended]:
        """Return the bans that were neither removed nor replaced, including expired ones."""
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
                    found.append((_network(network), _SCOPES[scope], expires))
            return found

    def record_clock(self, offset: float, step: float, now: float) -> None:
        """Record ``offset``: the wall clock minus the monotonic clock, in seconds.

        ``step`` is the number of seconds by which the wall clock was set forward: negative if it was set
        back, 0 if it was not set. It is added to the times of all bans that have not expired, including
        removed ones. ``now`` is the wall clock after it was set.
        """
        with self._connection.transaction() as execute:
            if step:
                execute(
                    "UPDATE bans SET since = since + ?, expires = expires + ?, ended = ended + ?"
                    " WHERE expires > ?",
                    (step, step, step, now - step),
                )
            execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (_CLOCK, repr(offset)))

    def clock(self) -> float | None:
        """Return the offset that :meth:`record_clock` recorded last; None if there is no valid one."""
        with self._connection.reading() as execute:
            row = execute("SELECT value FROM facts WHERE name = ?", (_CLOCK,)).fetchone()
        try:
            return float(row[0]) if row else None
        except ValueError:
            return None

    def running(self, now: float) -> Iterator[tuple[Ban, AttemptCounts] | None]:
        """Yield every ban that is active at ``now``, with the counts of its attempts, oldest first.

        An invalid row (edited by hand, or damaged) yields None.
        """
        with self._connection.reading() as execute:
            for row in execute(
                "SELECT network, since, expires, rule, reason, origin, scope, offence, forced,"
                " made, proven, accounts, account"
                " FROM bans WHERE ended IS NULL AND expires > ? ORDER BY since, id",
                (now,),
            ):
                network, since, expires, rule, reason, origin, scope, offence, forced, *counted = row
                try:
                    times(since, expires)
                    ban = Ban(
                        _network(network),
                        since,
                        expires,
                        sys.intern(rule),  # 100,000 rows share a few texts
                        sys.intern(reason),
                        _ORIGINS[origin],
                        scope=_SCOPES[scope],
                        offence=int(offence),
                        forced=bool(forced),
                    )
                    made, proven, accounts, account = counted
                    counts = AttemptCounts(int(made), int(proven), int(accounts), sys.intern(account))
                except INVALID_ROW:
                    yield None
                else:
                    yield ban, counts

    def count_offences(self, network: Network, since: float) -> int:
        """Return the number of bans of ``network`` that rules have made since ``since``.

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

    def past(self, network: Network, since: float, most: int) -> list[Past]:
        """Return the bans of ``network`` and of networks around it: active ones, or ended after ``since``.

        The ban that began last comes first. If there are more than ``most``, the earliest are left out.
        """
        with self._connection.scanning() as execute:
            return past_of(execute, network, since, most)

    def attempts_on(self, account: str, since: float, most: int) -> list[Attempt]:
        """Return the latest attempts on ``account`` that led to bans, made at ``since`` or later.

        The latest comes first. If there are more than ``most``, the earliest are left out. This reads all
        attempts of the database: a second for a million.
        """
        wanted = f"SELECT {ATTEMPT} FROM attempts WHERE account = ? AND time >= ? ORDER BY time DESC LIMIT ?"  # noqa: S608 - ours
        with self._connection.scanning() as execute:
            return list(attempts_in(execute(wanted, (account, since, most))))

    def ended(self, since: float, now: float) -> Iterator[EndedBan]:
        """Yield the bans that ended from ``since`` to ``now``, the latest end first.

        Invalid rows are left out.
        """
        with self._connection.scanning() as execute:
            yield from ended_bans(execute, since, now)

    def purge(self, now: float) -> None:
        """Remove bans that ended more than KEEP before ``now``.

        If more than MOST are left, remove ended bans until MOST are left. Those that began first are removed
        first. Active bans always stay.
        """
        with self._connection.transaction() as execute:
            execute("DELETE FROM bans WHERE coalesce(ended, expires) < ?", (now - KEEP,))
            (number,) = execute("SELECT count(*) FROM bans").fetchone()
            over = "SELECT id FROM bans WHERE coalesce(ended, expires) < ? ORDER BY since, id LIMIT ?"
            execute(f"DELETE FROM bans WHERE id IN ({over})", (now, max(0, number - MOST)))  # noqa: S608 - ours


_ORIGINS = {str(origin): origin for origin in Origin}
_SCOPES = {str(scope): scope for scope in Scope}


def _network(text: str) -> Network:
    """Parse a network as it is stored, with its prefix length; raise ValueError if it is invalid.

    This takes a third of the time of ``ip_network``.
    """
    address, _, length = text.partition("/")
    try:
        if ":" in address:
            return IPv6Network((inet_pton(AF_INET6, address), int(length)))
        return IPv4Network((inet_pton(AF_INET, address), int(length)))
    except (OSError, ValueError):
        raise ValueError(f"{text!r} is no network") from None


def _record(execute: Execute, ban: Ban) -> None:
    same = (str(ban.network), ban.since, ban.expires, str(ban.scope))
    # INDEXED BY makes SQLite search by network. It might search by end instead. This is slow after a command
    # has banned many networks, because all these bans have the same end.
    known = (
        "SELECT 1 FROM bans INDEXED BY bans_network"
        " WHERE network = ? AND since = ? AND expires = ? AND scope = ? AND ended IS NULL"
    )
    if execute(known, same).fetchone():
        return
    _end(execute, ban.network, ban.scope, ban.since)
    identity = execute(
        "INSERT INTO bans"
        " (network, since, expires, scope, rule, reason, origin,"
        " made, proven, accounts, account, offence, forced)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *same,
            ban.rule,
            ban.reason,
            str(ban.origin),
            *AttemptCounts.of(ban.attempts),
            ban.offence,
            int(ban.forced),
        ),
    ).lastrowid
    for attempt in ban.attempts:
        add_attempt(execute, int(identity or 0), attempt)


def _end(execute: Execute, network: Network, scope: Scope, when: float) -> None:
    """End the active ban of ``network`` at ``when``. A ban that had expired by then stays as it is."""
    execute(
        "UPDATE bans INDEXED BY bans_network SET ended = ?"
        " WHERE network = ? AND scope = ? AND ended IS NULL AND expires > ?",
        (when, str(network), str(scope), when),
    )


# -- the records of bans: most writes are queued, and errors are logged and not raised


_WAIT = 1.0  # seconds that :meth:`Records.end_and_wait` waits at most


class Records:
    """The recorded bans, and whether enforcement is switched off.

    Only :meth:`set_switched_off` raises StoreError.
    """

    def __init__(self, bans: BanTable, state: SavedState, best_effort: BestEffort) -> None:
        self._bans = bans
        self._state = state
        self._best_effort = best_effort

    def ban(self, bans: Sequence[Ban]) -> None:
        """Queue a write that records bans. The kernel has already acknowledged them."""
        self._best_effort.write(partial(self._bans.record, bans))

    def end(self, bans: Sequence[tuple[Network, Scope]], when: float) -> object:
        """Queue a write that records the removal of bans at ``when``.

        Return what the queue returns (a future, or None).
        """
        return self._best_effort.write(lambda: self._bans.end(bans, when))

    async def end_and_wait(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Queue a write that records the removal of bans, and wait at most a second until it is done.

        The caller removes the bans from the kernel afterwards. The daemon may be killed in between. Then the
        next start finds a ban in the kernel that is recorded as removed, and removes it. In the other order,
        the next start would find a recorded ban that is missing in the kernel, and restore it.
        """
        done = self.end(bans, when)
        if isinstance(done, Future):
            await asyncio.wait([asyncio.wrap_future(done)], timeout=_WAIT)

    def resume(self, bans: Sequence[tuple[Network, Scope]], when: float) -> None:
        """Queue a write that undoes :meth:`end`, because the kernel refused to remove these bans.

        ``when`` is the time that was passed to :meth:`end` (seconds since the epoch).
        """
        self._best_effort.write(lambda: self._bans.resume(bans, when))

    def removed_early(self, now: float) -> Iterable[Ended]:
        """Return the bans that were removed or replaced, and that would otherwise end only after ``now``.

        Return [] if they cannot be read.
        """
        return self._best_effort.read(lambda: self._bans.removed_early(now), [])

    def not_removed(self) -> Iterable[Ended]:
        """Return the bans that were neither removed nor replaced, including expired ones.

        Return [] if they cannot be read.
        """
        return self._best_effort.read(self._bans.not_removed, [])

    def clock(self) -> float | None:
        """Return the last recorded wall clock minus monotonic clock, in seconds; None if it is unknown."""
        return self._best_effort.read(self._bans.clock, None)

    def record_clock(self, offset: float, step: float, now: float) -> None:
        """Call :meth:`BanTable.record_clock` at once, in the caller's thread."""
        self._best_effort.write_now(lambda: self._bans.record_clock(offset, step, now))

    def queue_clock_record(self, offset: float, step: float, now: float) -> None:
        """Queue a call of :meth:`BanTable.record_clock`."""
        self._best_effort.write(lambda: self._bans.record_clock(offset, step, now))

    def running(self, now: float) -> Iterator[tuple[Ban, AttemptCounts]]:
        """Yield the recorded bans that have time left, and the counts of attempts that led to each.

        Invalid rows are left out. (If the kernel still has the ban of an invalid row, the daemon adopts it
        from there.)

        If a ban began after ``now``, the clock is wrong: a host without a battery boots with a date in the
        past. It is unknown whether such a ban is over. So it is yielded with ``now`` as its begin, and with
        its full length.
        """
        unreadable = 0
        try:
            for row in self._bans.running(now):
                if row is None:
                    unreadable += 1
                    continue
                ban, made = row
                late = ban.since - now
                yield (evolve(ban, since=now, expires=ban.expires - late), made) if late > 0 else (ban, made)
        except StoreError as error:
            self._best_effort.report(error)
        if unreadable:
            self._best_effort.report_unreadable(unreadable)

    def offences(self, network: Network, since: float) -> int:
        """Return the number of bans of ``network`` that rules have made since ``since``.

        Bans on evidence whose source address was not proven (scope SIP_UDP or SIP_TCP) do not count. Return 0
        if the number cannot be read.
        """
        return self._best_effort.read(lambda: self._bans.count_offences(network, since), 0)

    @property
    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off; False if that cannot be read."""
        return self._best_effort.read(self._state.switched_off, fallback=False)

    def set_switched_off(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Record whether enforcement is switched off, before this returns; raise StoreError if that fails."""
        self._state.set_switched_off(value)
