"""The SQLite database: schema, rows, queries, and a background writer.

``database`` opens the database; ``file`` creates, checks and repairs its file. Each table has a class:
``alarms``, ``bans``, ``entries``, ``friends``, ``timeline``, ``tops``, and ``state`` for small values. All
tables share one ``connection``. ``records`` and ``names`` use ``best_effort``: writes are queued, and errors
are logged and not raised. ``writer`` runs the queued writes in a thread of its own.

A *friend* is a known phone or trunk of this PBX. The source address of an attempt is *proven* if it was
verified, by a TCP handshake for example; otherwise it is only *claimed* (``model.Proof``).
"""
