"""Feeds: networks to deny, from block lists of others.

``denied.py`` reads lists in the daemon, and judges them. The fetcher is a process of its own, without rights:
``fetcher.py`` downloads lists by HTTPS. It reads a plan (``plan.py``: which lists, how often), and writes
files. It knows neither the configuration nor the daemon, and judges no list.
"""

from ringfence.street import Command

COMMANDS = {
    "feeds": Command(f"{__name__}.command", "Show and change the feeds: block lists of others."),
}
