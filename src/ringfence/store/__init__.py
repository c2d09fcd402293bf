"""The SQLite database: schema, rows, queries, and a background writer.

``database`` opens the database; ``file`` creates and checks its file, and copies the readable rows of a
damaged one. ``alarms``, ``bans``, ``entries``, ``friends``, ``timeline`` and ``tops`` have the classes that
read and write the tables. ``state`` does this for small values. All of them share one ``connection``.
``records``, ``names`` and ``reports`` use ``best_effort``: writes are queued, and errors are logged and not
raised. ``writer`` runs the queued writes in a thread of its own.

A *friend* is a known phone or trunk of this PBX. The source address of an attempt is *proven* if it was
verified, by a TCP handshake for example; otherwise it is only *claimed* (``model.Proof``).
"""
