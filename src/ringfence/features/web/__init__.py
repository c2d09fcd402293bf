"""The live page: a process of its own that shows the daemon's state in a browser, and passes on commands.

This process reaches the daemon by the control socket only. It reads neither the configuration nor the
database, and has no capability. ``server`` listens and makes login links, ``app`` assigns a handler to each
URL, ``pages``, ``admission`` and ``commands`` handle requests, and ``daemon_client`` asks the daemon. Only
this package uses Starlette, uvicorn and Jinja2. They are installed by the extra ``ringfence[web]``.
"""

from ringfence.street import Command

COMMANDS = {"web": Command(f"{__name__}.command", "Serve the live page, and print links to log in to it.")}

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this host itself, for browsers on this host and for browsers that reach it by an SSH tunnel."""
