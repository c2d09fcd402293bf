"""The tables of small values that a restart must not lose.

They are: whether enforcement is switched off, short texts by name (*facts*), and positions in logs.
"""

from collections.abc import Mapping

from ringfence.store.connection import Connection


class SavedState:
    """The daemon's small values in its database. Every method raises StoreError if a read or write fails."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def switched_off(self) -> bool:
        """Whether an administrator has switched enforcement off."""
        with self._connection.reading() as execute:
            row = execute("SELECT value FROM switches WHERE name = 'off'").fetchone()
        return bool(row and row[0])

    def set_switched_off(self, value: bool) -> None:  # noqa: FBT001 - the value itself
        """Record whether enforcement is switched off."""
        with self._connection.transaction() as execute:
            execute("INSERT OR REPLACE INTO switches VALUES ('off', ?)", (int(value),))

    def fact(self, name: str) -> str | None:
        """Return the text last recorded under ``name``; None if there is none."""
        with self._connection.reading() as execute:
            row = execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def set_fact(self, name: str, value: str | None) -> None:
        """Record a short text under ``name``; None removes it."""
        with self._connection.transaction() as execute:
            if value is None:
                execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def positions(self) -> dict[str, str]:
        """Return the position up to which each log was read, by the log's key.

        The key is a text that identifies the log. Key and position are as they were passed to
        :meth:`set_positions`.
        """
        with self._connection.reading() as execute:
            rows = execute("SELECT source, position FROM positions").fetchall()
        return {source: place for source, place in rows if isinstance(source, str) and isinstance(place, str)}

    def set_positions(self, positions: Mapping[str, str]) -> None:
        """Record the positions of some logs; the positions of other logs stay."""
        with self._connection.transaction() as execute:
            for row in positions.items():
                execute("INSERT OR REPLACE INTO positions VALUES (?, ?)", row)
