"""The SQLite database: schema, rows, queries, and a background writer.

``database`` opens the database; ``file`` creates, checks and locks its file, and copies the readable rows of
a damaged one. ``owner`` finds the user with whose rights the files are used. ``bans`` has the bans with their
attempts, and ``tables`` all other tables. ``rows`` converts between values and rows. ``writer`` runs queued
writes in a thread of its own: their errors are logged and not raised.

A *friend* is a known phone or trunk of this PBX. The source address of an attempt is *proven* if it was
verified, by a TCP handshake for example; otherwise it is only *claimed* (``values.attempt.Proof``).
"""
