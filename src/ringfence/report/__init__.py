"""The report of a period: which attempts were made, by which addresses, and what ringfence did about them.

``summary`` computes the report from the daemon's answers. If no daemon runs, the command ``ringfence report``
reads the same data from the database. ``text`` writes the report as text, for the command and for mails.
``page`` makes a page of HTML from it. ``schedule`` computes when a weekly report is due.

A *row* is one entry of a table in a report or in the daemon's answers, a mapping of names to values.
"""

from ringfence.values.location import AREAS

MOST_ENDED = 10_000
"""The maximum number of ended bans that one answer of the daemon has: those that ended last."""

GROUPS = {"networks": "NETWORK", **AREAS, "operators": "OPERATOR"}
"""The tables of a report that group addresses (by network, operator …), each with the head of a column."""
