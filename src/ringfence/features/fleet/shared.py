"""The bans of this host that other hosts may have, so that a restart loses no unban.

They are marked in the column ``shared`` of the database's table of bans.
"""

from collections.abc import Iterable
from contextlib import suppress

from attrs import frozen

from ringfence.store.file import Connection
from ringfence.store.rows import INVALID_ROW, network_of, times
from ringfence.store.writer import BestEffort
from ringfence.values.ban import BanEnd
from ringfence.values.network import Network


@frozen
class SharedBan:
    """A ban that other hosts may have until ``expires`` (seconds since the epoch).

    ``removed``: it was removed here. If not, it runs, or it only made room for another ban.
    """

    network: Network
    rule: str
    expires: float
    removed: bool


class SharedBans:
    """Reads and writes which bans other hosts may have. An error becomes that of ``best_effort``."""

    def __init__(self, connection: Connection, best_effort: BestEffort) -> None:
        self._connection = connection
        self._best_effort = best_effort

    def share(self, bans: Iterable[tuple[Network, str]]) -> None:
        """Queue a write that other hosts may have the active bans of these networks, each with its rule."""
        self._best_effort.write(self._mark, tuple(bans))

    def unshare(self, network: Network, rule: str) -> None:
        """Queue a write that other hosts no longer have the ended bans of ``network`` by ``rule``."""
        self._best_effort.write(self._unmark, network, rule)

    def running(self, now: float) -> list[SharedBan]:
        """Return the bans that run at ``now`` (epoch), and that other hosts may have; [] if unreadable."""
        which = "shared = 1 AND ended IS NULL AND expires > ?"
        sql = f"SELECT network, rule, expires, 0 FROM bans WHERE {which}"  # noqa: S608 - ours
        return self._best_effort.read(self._selected, [], sql, (now,))

    def ended(self, now: float) -> list[SharedBan]:
        """Return the bans that ended early, but that other hosts may have until after ``now`` (epoch).

        Those that the same rule replaced by the present ban of their network are left out. Return [] if they
        are unreadable.
        """
        active = "SELECT 1 FROM bans WHERE network = gone.network AND rule = gone.rule AND ended IS NULL"
        which = "shared = 1 AND ended IS NOT NULL AND expires > ?"
        # A ban by hand or by another rule may have replaced it, and was removed.
        everywhere = ", ".join(f"'{end}'" for end in BanEnd if end.is_everywhere)
        last = f"SELECT 1 FROM bans WHERE network = gone.network AND end IN ({everywhere})"  # noqa: S608 - ours
        removed = f"end IN ({everywhere}) OR EXISTS ({last} AND ended >= gone.ended)"
        wanted = f"network, rule, max(expires), max({removed}) AS removed"
        # After an unban, the present ban is sent only when the API has ended the earlier one.
        having = f"removed OR NOT EXISTS ({active} AND expires > ?)"
        sql = f"SELECT {wanted} FROM bans AS gone WHERE {which} GROUP BY network, rule HAVING {having}"  # noqa: S608 - ours
        return self._best_effort.read(self._selected, [], sql, (now, now))

    def _mark(self, bans: Iterable[tuple[Network, str]]) -> None:
        with self._connection.transaction() as execute:
            for network, rule in bans:
                execute(
                    "UPDATE bans INDEXED BY bans_network SET shared = 1"
                    " WHERE network = ? AND rule = ? AND ended IS NULL",
                    (str(network), rule),
                )

    def _unmark(self, network: Network, rule: str) -> None:
        with self._connection.transaction() as execute:
            execute(
                "UPDATE bans INDEXED BY bans_network SET shared = 0"
                " WHERE network = ? AND rule = ? AND ended IS NOT NULL",
                (str(network), rule),
            )

    def _selected(self, sql: str, values: tuple[float, ...]) -> list[SharedBan]:
        """Return the bans that ``sql`` selects; invalid rows are left out."""
        found = []
        with self._connection.reading() as execute:
            for network, rule, expires, removed in execute(sql, values):
                with suppress(*INVALID_ROW):
                    times(expires)
                    found.append(SharedBan(network_of(network), rule, expires, bool(removed)))
        return found
