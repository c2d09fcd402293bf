"""The SQLite database: schema, rows, queries, and a background writer.

``database`` opens it. Each table has a class over one ``connection``: ``bans``, ``entries``, ``friends``, and
``state`` for small values. ``records`` and ``names`` read and write by ``best_effort``, which never fails;
``writer`` does the writes in a thread of its own.
"""
