"""The scripts of the database schema: each one upgrades the previous version with its content."""

import sqlite3
from contextlib import closing

from ringfence.store.file import SCHEMA


def test_each_migration_follows_the_previous_one() -> None:
    """An empty file reaches every version, and bans of the first version get the columns of later ones."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA[0])
        connection.execute(
            "INSERT INTO bans (network, since, expires, rule, reason, origin)"
            " VALUES ('192.0.2.1/32', 1.0, 2.0, 'guess', '', 'rule')"
        )
        connection.execute(
            "INSERT INTO attempts VALUES"
            " (1, 1.0, 'pbx', '192.0.2.1', 'guess', 0, 'PJSIP', 'UDP', 'alice', 'InvalidPassword', 1, 0)"
        )
        connection.executemany(
            "INSERT INTO attempts VALUES"
            " (1, ?, 'pbx', '192.0.2.1', 'probe', 0, 'PJSIP', 'UDP', '', 'InvalidAccountID', 1, 0)",
            [(2.0,), (3.0,)],
        )
        for script in SCHEMA[1:]:
            connection.executescript(script)
        row = connection.execute(
            "SELECT scope, made, proven, offence, forced, accounts, account FROM bans"
        ).fetchone()
        sources = connection.execute("SELECT account, sources FROM attempts").fetchone()
        made = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name for (name,) in made}

    assert row == ("full", 3, 0, 1, 0, 1, "alice")
    assert sources == ("alice", "")
    others = {"positions", "entries", "facts", "friends", "alarms", "tops", "timeline", "timeline_counts"}
    assert tables == {"bans", "attempts", "switches", *others}
