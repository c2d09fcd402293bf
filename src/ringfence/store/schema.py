"""The database's schema, as SQL scripts. Each one changes a database of one version to the next version."""

SCHEMA = (
    """
    CREATE TABLE bans (
        id INTEGER PRIMARY KEY,
        network TEXT NOT NULL,
        since REAL NOT NULL,
        expires REAL NOT NULL,
        rule TEXT NOT NULL,
        reason TEXT NOT NULL,
        origin TEXT NOT NULL,
        ended REAL
    ) STRICT;
    CREATE INDEX bans_network ON bans (network, since);
    CREATE INDEX bans_running ON bans (expires) WHERE ended IS NULL;
    CREATE TABLE attempts (
        ban INTEGER NOT NULL REFERENCES bans (id) ON DELETE CASCADE,
        time REAL NOT NULL,
        asterisk TEXT NOT NULL,
        address TEXT NOT NULL,
        kind TEXT NOT NULL,
        proof INTEGER NOT NULL,
        service TEXT NOT NULL,
        transport TEXT NOT NULL,
        account TEXT NOT NULL,
        event TEXT NOT NULL,
        trusted INTEGER NOT NULL,
        tampered INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX attempts_ban ON attempts (ban);
    CREATE TABLE switches (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
    """,
    """
    CREATE TABLE positions (source TEXT PRIMARY KEY, position TEXT NOT NULL) STRICT;
    """,
    """
    CREATE TABLE entries (
        side TEXT NOT NULL,
        what TEXT NOT NULL,
        note TEXT NOT NULL,
        added REAL NOT NULL,
        until REAL,
        origin TEXT NOT NULL,
        forced INTEGER NOT NULL,
        PRIMARY KEY (side, what)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    ALTER TABLE bans ADD COLUMN scope TEXT NOT NULL DEFAULT 'full';
    ALTER TABLE bans ADD COLUMN made INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bans ADD COLUMN offence INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE bans ADD COLUMN forced INTEGER NOT NULL DEFAULT 0;
    UPDATE bans SET made = (SELECT count(*) FROM attempts WHERE ban = bans.id);
    """,
    """
    CREATE TABLE friends (
        address TEXT NOT NULL,
        asterisk TEXT NOT NULL,
        account TEXT NOT NULL,
        tie TEXT NOT NULL,
        since REAL NOT NULL,
        seen REAL NOT NULL,
        until REAL NOT NULL,
        PRIMARY KEY (address, asterisk, account, tie)
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE attempts ADD COLUMN sources TEXT NOT NULL DEFAULT '';
    """,
    """
    ALTER TABLE bans ADD COLUMN proven INTEGER NOT NULL DEFAULT 0;
    UPDATE bans SET proven = (SELECT count(*) FROM attempts WHERE ban = bans.id AND proof > 0);
    """,
    """
    CREATE TABLE timeline (
        length INTEGER NOT NULL,
        start INTEGER NOT NULL,
        watched REAL NOT NULL,
        turn INTEGER NOT NULL,
        PRIMARY KEY (length, start)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE timeline_counts (
        length INTEGER NOT NULL,
        start INTEGER NOT NULL,
        name TEXT NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (length, start, name),
        FOREIGN KEY (length, start) REFERENCES timeline ON DELETE CASCADE
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE bans ADD COLUMN accounts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE bans ADD COLUMN account TEXT NOT NULL DEFAULT '';
    UPDATE bans SET accounts =
        (SELECT count(DISTINCT account) FROM attempts WHERE ban = bans.id AND account != '');
    UPDATE bans SET account =
        (SELECT account FROM attempts WHERE ban = bans.id AND account != ''
            GROUP BY account ORDER BY count(*) DESC LIMIT 1)
        WHERE accounts > 0;
    """,
    """
    CREATE TABLE alarms (
        number INTEGER PRIMARY KEY,
        code TEXT NOT NULL,
        subject TEXT NOT NULL,
        text TEXT NOT NULL,
        since REAL NOT NULL,
        last REAL NOT NULL,
        until REAL,
        times INTEGER NOT NULL,
        held INTEGER NOT NULL,
        cleared REAL,
        acknowledged REAL,
        acknowledged_by TEXT NOT NULL,
        dismissed REAL,
        dismissed_by TEXT NOT NULL
    ) STRICT;
    CREATE INDEX alarms_active ON alarms (number) WHERE cleared IS NULL;
    """,
    """
    CREATE TABLE tops (
        hour INTEGER NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        PRIMARY KEY (hour, kind, name)
    ) STRICT, WITHOUT ROWID;
    """,
)
"""Script N, counted from 0, migrates a database of version N to version N + 1.

Some columns have short names. ``entries.side`` is the kind of the list, and ``entries.what`` the value of the
entry. ``friends.tie`` is the reason why an address is a friend. ``bans.made`` is the number of attempts. The
writes to the timeline are numbered, and ``timeline.turn`` is the number of the latest write to a slot.
"""
