"""The live page: a process of its own that shows the daemon's state in a browser, and passes on commands.

It knows the daemon by the control socket only: it reads neither the configuration nor the database, and has
no capability. ``server`` listens and hands out login links, ``app`` joins addresses and pages, ``pages`` and
``commands`` handle requests, and ``daemon_client`` asks the daemon. ``sessions``, ``ban_table`` and ``chart``
are pure: the time and the daemon's answers are arguments. Only this package uses Starlette, uvicorn and
Jinja2, which are the extra ``ringfence[web]``.
"""
