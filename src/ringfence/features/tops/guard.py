"""The accounts and addresses with the most attempts, and the data of ``ringfence top``.

An account or address is called a *name* here. IPv6 addresses are counted by /64, as the rules count them.

Attempts are counted in memory and added to the database every few minutes. If there are more than ``MOST``
accounts or addresses in memory, the half with the fewest attempts is dropped, because only those with many
attempts are shown.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from ipaddress import ip_network
from typing import Any

from ringfence.control_server import Handler
from ringfence.detect.judgement import Disposition, Judgement
from ringfence.explain.groups import grouped
from ringfence.features.tops.table import HOUR, KEEP_HOURS, Top, TopTable
from ringfence.guard.feature import Feature, Given
from ringfence.guard.firewall_side import FirewallSide
from ringfence.guard.process import every
from ringfence.guard.request_fields import NONE, PERIOD, choice, read
from ringfence.ledger import Record, network_of
from ringfence.store.database import Store
from ringfence.store.rows import shortened
from ringfence.values.ban import Scope, ban_json
from ringfence.values.event import SETUP_ACCOUNT
from ringfence.values.network import format_network
from ringfence.values.text import printable, rfc3339

LISTS = ("accounts", "addresses")
MOST = 4_096
MOST_SAVED = 200  # accounts that one save writes to the database, and as many addresses
MOST_LISTED = 200  # accounts or addresses in one list for ``ringfence top``
MOST_BANS = 200  # latest bans in the data of ``ringfence top``
MOST_ALARMS = 50  # in the data of ``ringfence top``
MINUTES = 60
MAX_NAME = 48  # bytes of an account
SAVE_EVERY = 300.0
_WAIT = 1.0  # the longest wait until counts are in the database (seconds)


REQUESTS = {
    "top": read(NONE, page=NONE),
    "tops": read({"kind": choice(*LISTS), "seconds": PERIOD}),
}


class Tops(Feature):
    """Counts the attempts by account, by address and by minute, and answers the requests about them."""

    def __init__(self, side: FirewallSide) -> None:
        self._side = side
        self._table = TopTable(side.common.store.connection)
        self._best_effort = side.common.store.best_effort
        self._clock = side.common.clock
        self._counts: dict[str, Counter[str]] = {kind: Counter() for kind in LISTS}
        self._hour = 0
        self._minutes: deque[tuple[int, int]] = deque(maxlen=MINUTES)  # a minute, and its number of attempts

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers of the feature's requests on the control socket, by the request's name."""
        return {"top": self._overview, "tops": self._list}

    def jobs(self) -> list[Coroutine[None, None, None]]:
        """Return the coroutine that saves the counts of attempts to the database."""
        return [every(SAVE_EVERY, "tops", self.save, self._side.common.alarms)]

    def finish(self) -> None:
        """Queue the counts of attempts for the database, because the daemon stops."""
        self._queue()

    def on_judgement(self, judgement: Judgement) -> None:
        """Count an attempt for its account, for its address, and for its minute.

        Ignore forged reports, judgements of attempts that were counted before, and the failed login by which
        ringfence tests its sources, from an exempt address.
        """
        how = judgement.disposition
        if how in (Disposition.COUNTED_BEFORE, Disposition.FORGED):
            return
        if how is Disposition.EXEMPT and judgement.attempt.account == SETUP_ACCOUNT:
            return
        now = self._clock.wall()
        self._count_minute(int(now // 60))
        hour = int(now // HOUR)
        if hour != self._hour:
            self._queue()
            self._hour = hour
        self._count("addresses", format_network(judgement.subject))
        if judgement.attempt.account:
            self._count("accounts", shortened(printable(judgement.attempt.account), MAX_NAME))

    def _count(self, kind: str, name: str) -> None:
        counts = self._counts[kind]
        counts[name] += 1
        if len(counts) > MOST:
            self._counts[kind] = Counter(dict(counts.most_common(MOST // 2)))

    def _count_minute(self, minute: int) -> None:
        latest, number = self._minutes.pop() if self._minutes else (minute, 0)
        if latest != minute:
            self._minutes.append((latest, number))
            number = 0
        self._minutes.append((minute, number + 1))

    def minutes(self) -> list[int]:
        """Return the number of attempts in each of the last sixty minutes, the present one last."""
        now, counts = int(self._clock.wall() // 60), dict(self._minutes)
        return [counts.get(minute, 0) for minute in range(now - MINUTES + 1, now + 1)]

    def save(self) -> list[object]:
        """Queue the counts of attempts for the database, and count from zero again.

        While earlier ones wait for the disk, keep them in memory until the hour is over. So days of a full
        disk push no ban out of the queue of writes. Return one object for each write: in the daemon a Future.
        """
        return [] if self._best_effort.waiting_calls(self._table.add) else self._queue()

    def _queue(self) -> list[object]:
        """Queue the counts of attempts, also if earlier ones wait; return what :meth:`save` returns."""
        queued = [
            self._best_effort.write(self._table.add, kind, self._hour, counts.most_common(MOST_SAVED))
            for kind, counts in self._counts.items()
            if counts
        ]
        self._counts = {kind: Counter() for kind in LISTS}
        return queued

    async def save_and_wait(self) -> None:
        """Save the counts of attempts, and wait for at most a second until they are in the database."""
        waiting = [asyncio.wrap_future(one) for one in self.save() if isinstance(one, Future)]
        if waiting:
            await asyncio.wait(waiting, timeout=_WAIT)

    async def _list(self, request: Mapping[str, Any]) -> object:
        """Return the accounts or addresses (``kind`` of the request) with the most attempts, as JSON rows.

        Those in the last ``seconds`` of the request count.
        """
        kind, seconds = request["kind"], request.get("seconds", 86_400.0)
        await self.save_and_wait()
        side, now = self._side, self._side.common.clock.wall()
        since = now - min(seconds, KEEP_HOURS * HOUR)
        found = await asyncio.to_thread(self._table.top, kind, since, now, MOST_LISTED)
        known = self._is_known_account if kind == "accounts" else self._has_friend
        rows = [
            _row(
                one,
                known=known(one.name),
                banned=kind == "addresses" and self._is_banned(one.name, now),
            )
            for one in found
        ]
        return rows if kind == "accounts" else await side.common.locator.add_to(rows, "name")

    def _is_known_account(self, name: str) -> bool:
        return self._side.exempt.friends.friends.knows_account(name)

    def _has_friend(self, name: str) -> bool:
        return self._side.exempt.friends.friends.any_in(ip_network(name))

    def _is_banned(self, name: str, now: float) -> bool:
        network = ip_network(name)
        return any(self._side.kernel.enforcer.ledger.covering(network, scope, now) for scope in Scope)

    async def _overview(self, _: Mapping[str, Any]) -> object:
        """Return the data of the live display (``ringfence top``)."""
        senders = grouped(self._side.common.followers.latest(["attempt"]), ["subject"])
        senders = await self._side.common.locator.add_to(senders, "subject")
        side, now = self._side, self._side.common.clock.wall()
        latest = side.kernel.enforcer.ledger.latest(MOST_BANS)
        # Critical ones first: senders can cause any number of others.
        alarms = sorted(side.common.alarms.active, key=lambda one: one.code.rank, reverse=True)
        return {
            "time": rfc3339(now),
            "enforcing": side.kernel.enforcer.enforcing and side.kernel.backend.enforces,
            "backend": side.kernel.backend.name,
            "attempts": side.detector.counts.attempts,
            "bans": side.kernel.enforcer.ledger.alive(now),
            "friends": len(side.exempt.friends.friends),
            "alarms": [alarm.as_json() for alarm in alarms[:MOST_ALARMS]],
            "alarm_count": sum(side.common.alarms.count().values()),
            "minutes": self.minutes(),
            "senders": senders,
            "latest_bans": [_ban(key, record, now) for key, record in latest if record.expires > now],
        }


def _ban(key: int, record: Record, now: float) -> dict[str, object]:
    network, scope = network_of(key)
    return {
        "address": format_network(network),
        "scope": str(scope),
        **ban_json(record),
        "left": round(record.expires - now),
    }


def build(given: Given) -> Tops:
    """Return the feature that counts the attempts of each account and each address."""
    return Tops(given.side)


def _row(one: Top, *, known: bool = False, banned: bool = False) -> dict[str, Any]:
    """Return an account or address with its attempts as a JSON row.

    ``known``: the account works here, or a friend has the address. Only a daemon knows this, and the bans.
    """
    return {
        "name": printable(one.name),
        "attempts": one.attempts,
        "last": rfc3339(one.last),
        "known": known,
        "banned": banned,
    }


def _recorded(store: Store, arguments: Mapping[str, Any], now: float) -> list[dict[str, Any]]:
    """Return the answer of a command without a daemon to the request ``tops``."""
    since = now - arguments["seconds"]
    return [_row(one) for one in TopTable(store.connection).top(arguments["kind"], since, now, MOST_LISTED)]


RECORDED = {"tops": _recorded}
